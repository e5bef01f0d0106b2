import { assert, describe, layer } from "@effect/vitest"
import * as LocalModel from "@sluice/local-model/LocalModel"
import { Effect, Schema } from "effect"
import { readFileSync } from "node:fs"
import { vi } from "vitest"
import { sentencesOf } from "../src/internal/text.ts"

// The worker thread starts slowly on a busy machine.
vi.setConfig({ testTimeout: 60_000 })

const Ticket = Schema.Struct({ id: Schema.String, prompt: Schema.String })

const entities = {
  amounts: Schema.Array(Schema.String),
  dates: Schema.Array(Schema.String),
  emails: Schema.Array(Schema.String),
  orders: Schema.Array(Schema.String)
}

const Expected = Schema.Struct({ id: Schema.String, ...entities, summaries: Schema.Array(Schema.String) })

const Answered = Schema.Struct({ summary: Schema.String, ...entities, phrases: Schema.Array(Schema.String) })

const linesOf = <S extends Schema.Codec<unknown, unknown>>(schema: S, file: string): ReadonlyArray<S["Type"]> =>
  readFileSync(new URL(`../../../examples/${file}`, import.meta.url), "utf8")
    .trim()
    .split("\n")
    .map((line) => Schema.decodeUnknownSync(Schema.fromJsonString(schema))(line))

const prompts = new Map(linesOf(Ticket, "tickets.jsonl").map(({ id, prompt }) => [id, prompt]))
const expectations = linesOf(Expected, "tickets.expected.jsonl")

const answers = Effect.forEach(expectations, (expected) =>
  Effect.gen(function*() {
    const prompt = prompts.get(expected.id) ?? ""
    const model = yield* LocalModel.LocalModel
    const { text } = yield* model.answer(prompt)
    return { prompt, expected, answered: yield* Schema.decodeUnknownEffect(Schema.fromJsonString(Answered))(text) }
  }))

const plain = (text: string): string => text.replace(/\s+/g, " ").trim()

layer(LocalModel.layer)("answers to examples/tickets.jsonl", (it) => {
  it.effect("136 different tickets have expected answers", () =>
    Effect.sync(() => {
      assert.strictEqual(new Set(expectations.map(({ id }) => prompts.get(id))).size, 136)
    }))

  describe.each(["amounts", "dates", "emails", "orders"] as const)("%s", (kind) => {
    it.effect(`${kind} have a recall and a precision of at least 95 %`, () =>
      Effect.gen(function*() {
        let [expectedCount, foundCount, correctCount] = [0, 0, 0]
        for (const { answered, expected } of yield* answers) {
          expectedCount += expected[kind].length
          foundCount += answered[kind].length
          correctCount += answered[kind].filter((found) => expected[kind].includes(found)).length
        }
        assert.isAtLeast(correctCount / expectedCount, 0.95, "recall")
        assert.isAtLeast(correctCount / foundCount, 0.95, "precision")
      }))
  })

  it.effect("at least 90 % of the summaries are acceptable and have one or two sentences", () =>
    Effect.gen(function*() {
      const unacceptable = (yield* answers).filter(({ answered, expected }) => {
        const summary = plain(answered.summary)
        const acceptable = expected.summaries.map(plain)
        return summary === "" || sentencesOf(summary).length > 2 ||
          !acceptable.some((sentence) => summary.includes(sentence) || sentence.includes(summary))
      })
      assert.isAtMost(
        unacceptable.length,
        expectations.length * 0.1,
        unacceptable.map(({ expected }) => expected.id).join(" ")
      )
    }))

  it.effect("no summary contains a greeting, thanks or a signature", () =>
    Effect.gen(function*() {
      for (const { answered, prompt } of yield* answers) {
        const lines = prompt.split("\n").map(plain)
        // The last line is taken for a name, unless it ends with a full stop or is the only line.
        const courtesies = lines.filter((line, at) =>
          /^(?:hi|hello|hey|dear|good \w+|to \w+)\b[^.?!]{0,40}[,!:]?$/i.test(line) ||
          /^(?:thanks?|thank you|cheers|regards|\w+ (?:regards|wishes)|yours|sincerely)\b[^.?!]{0,40}[,.!]?$/i
            .test(line) ||
          (at > 0 && at === lines.length - 1 && !/\w{2}[.?!]$/.test(line))
        )
        for (const courtesy of courtesies) assert.notInclude(` ${plain(answered.summary)} `, ` ${courtesy} `)
      }
    }))
})
