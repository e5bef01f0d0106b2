import { assert, describe, layer } from "@effect/vitest"
import * as LocalModel from "@sluice/local-model/LocalModel"
import { Effect, Schema } from "effect"
import { readFileSync } from "node:fs"
import { sentencesOf } from "../src/internal/text.ts"

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

layer(LocalModel.layer)("tickets", (it) => {
  it.effect("there are 136 different ones with expectations", () =>
    Effect.sync(() => {
      assert.strictEqual(new Set(expectations.map(({ id }) => prompts.get(id))).size, 136)
    }))

  describe.each(["amounts", "dates", "emails", "orders"] as const)("%s", (kind) => {
    it.effect("are found, and little else is", () =>
      Effect.gen(function*() {
        let [expectedCount, foundCount, rightCount] = [0, 0, 0]
        for (const { answered, expected } of yield* answers) {
          expectedCount += expected[kind].length
          foundCount += answered[kind].length
          rightCount += answered[kind].filter((found) => expected[kind].includes(found)).length
        }
        assert.isAtLeast(rightCount / expectedCount, 0.95, "recall")
        assert.isAtLeast(rightCount / foundCount, 0.95, "precision")
      }))
  })

  it.effect("have an acceptable summary of one or two sentences", () =>
    Effect.gen(function*() {
      const refused = (yield* answers).filter(({ answered, expected }) => {
        const summary = plain(answered.summary)
        const acceptable = expected.summaries.map(plain)
        return summary === "" || sentencesOf(summary).length > 2 ||
          !acceptable.some((sentence) => summary.includes(sentence) || sentence.includes(summary))
      })
      assert.isAtMost(refused.length, expectations.length * 0.1, refused.map(({ expected }) => expected.id).join(" "))
    }))

  it.effect("never have a greeting, thanks or a signature in the summary", () =>
    Effect.gen(function*() {
      for (const { answered, prompt } of yield* answers) {
        const lines = prompt.split("\n").map(plain)
        // A last line that a full stop ends is a sentence of its writer, not a name; neither is a letter of one line.
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
