/** `afterOutput: "continue"`: a target with `prefill: true` continues an answer that failed in the middle. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema, Stream } from "effect"
import { AiError, LanguageModel, type Prompt, type Response, Tool, Toolkit } from "effect/ai"
import * as IdempotencyKey from "@sluice/ai/IdempotencyKey"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import { following, PartialAnswer } from "../src/internal/resilient/continuation.ts"
import type { AnyPart } from "../src/internal/resilient/parts.ts"
import { call } from "./support/cases.ts"
import { plainRetry, readAll, runFor, summaryOf, valueOf } from "./support/resilient.ts"

type Part = Response.StreamPartEncoded

const start: Part = { type: "text-start", id: "t" }
const delta = (text: string): Part => ({ type: "text-delta", id: "t", delta: text })
const end: Part = { type: "text-end", id: "t" }
const tokens = { total: 1, uncached: undefined, cacheRead: undefined, cacheWrite: undefined }
const finish: Part = {
  type: "finish",
  reason: "stop",
  usage: { inputTokens: tokens, outputTokens: { total: 1, text: undefined, reasoning: undefined } },
  response: undefined
}
const words = (text: string) => (text.match(/\s*\S+|\s+$/g) ?? []).map(delta)
const answer = (text: string) => [start, ...words(text), end, finish]
/** The beginning of an answer, then a lost connection. */
const broken = (text: string) => [start, ...words(text), "lost" as const]

const lost = AiError.make({
  module: "Test",
  method: "streamText",
  reason: new AiError.InternalProviderError({ description: "lost" })
})

/** A number is a pause in milliseconds. */
type Script = ReadonlyArray<Part | "lost" | number>

interface Request {
  readonly target: string
  /** The text of the last message, if it is an assistant's. */
  readonly prefill: string | undefined
  readonly key: string | undefined
}

const prefillOf = ({ content }: Prompt.Prompt): string | undefined => {
  const last = content.at(-1)
  return last?.role === "assistant"
    ? last.content.map((part) => part.type === "text" ? part.text : "?").join("")
    : undefined
}

const build = (
  scripts: { readonly [target: string]: readonly [prefill: boolean, ...scripts: ReadonlyArray<Script>] },
  options: Partial<ResilientModel.LayerOptions> = {}
) =>
  Effect.gen(function*() {
    const requests: Array<Request> = []
    const targets = Object.entries(scripts).map(([name, [prefill, ...script]]) => {
      const rest = [...script]
      const model = LanguageModel.make({
        generateText: () => Effect.die("not used"),
        streamText: ({ prompt }) =>
          Stream.unwrap(Effect.map(IdempotencyKey.CurrentIdempotencyKey, (key) => {
            requests.push({ target: name, prefill: prefillOf(prompt), key })
            const parts = rest.length > 1 ? rest.shift() : rest[0]
            return Stream.flatMap(
              Stream.fromIterable(parts ?? []),
              (part) => {
                if (typeof part === "number") return Stream.drain(Stream.fromEffect(Effect.sleep(part)))
                return part === "lost" ? Stream.fail(lost) : Stream.succeed(part)
              }
            )
          }))
      })
      return { name, prefill, layer: Layer.effect(LanguageModel.LanguageModel, model) }
    })
    const context = yield* Effect.orDie(Layer.build(ResilientModel.layer({
      afterOutput: "continue",
      retry: plainRetry(),
      retriesHere: 0,
      ...options,
      targets
    })))
    const model = Context.get(context, LanguageModel.LanguageModel)
    return { model, requests, stream: model.streamText({ prompt: "hi" }) }
  })

const run = (stream: Stream.Stream<Response.AnyPart, AiError.AiError>) =>
  Effect.map(runFor("1 minute", readAll(stream)), valueOf)

describe("answers that are continued", () => {
  const whole = "One two three, four five."
  const rows: ReadonlyArray<readonly [string, Script]> = [
    ["continues it", answer(" three, four five.")],
    ["repeats the beginning", answer(whole)],
    ["repeats the beginning in one part", [start, delta(whole), end, finish]],
    ["continues it without announcing a text", [delta(" three, four five."), finish]]
  ]
  for (const [title, second] of rows) {
    it.effect(`a target that ${title} adds only what follows, in the same text block`, () =>
      Effect.gen(function*() {
        const { requests, stream } = yield* build({ A: [false, broken("One two")], B: [true, second] })
        const parts: Array<Response.AnyPart> = []
        yield* runFor("1 second", Stream.runForEach(stream, (part) => Effect.sync(() => parts.push(part))))
        const text = parts.map((part) => part.type === "text-delta" ? part.delta : "").join("")
        assert.strictEqual(text, whole)
        assert.strictEqual(parts.filter(({ type }) => type === "text-start").length, 1)
        assert.strictEqual(parts.filter(({ type }) => type === "text-end").length, 1)
        assert.deepStrictEqual(requests.map(({ prefill, target }) => [target, prefill]), [["A", undefined], [
          "B",
          "One two"
        ]])
        assert.notStrictEqual(requests[0]?.key, requests[1]?.key)
        const last = parts.at(-1)
        assert.deepInclude(last === undefined ? undefined : ResilientModel.answeredBy(last), {
          target: "B",
          attempts: 2
        })
      }))
  }

  it.effect("an answer that fails again, also while it repeats the beginning, is continued once more", () =>
    Effect.gen(function*() {
      const { requests, stream } = yield* build({
        A: [true, broken("One two"), broken("One"), broken(" three, four"), answer(whole)]
      }, { retry: plainRetry({ maxAttempts: 5 }) })
      const [exit, logs] = yield* ResilientModel.withLogs(run(stream))
      assert.deepInclude(valueOf(exit), { text: whole, end: "end" })
      assert.deepStrictEqual(requests.map(({ prefill }) => prefill), [
        undefined,
        "One two",
        "One two",
        "One two three, four"
      ])
      const next = logs[0]?.steps.map((step) => step._tag === "Attempt" ? step.next : step._tag)
      assert.deepStrictEqual(next, ["Continue", "Retry", "Continue", "Done"])
    }))

  it.effect("white space at the end of the partial answer is not sent, and is not emitted twice", () =>
    Effect.gen(function*() {
      for (const second of ["three", " three", "One two three"]) {
        const cut: Script = [start, delta("One two "), "lost"]
        const { requests, stream } = yield* build({ A: [true, cut, answer(second)] })
        assert.strictEqual((yield* run(stream)).text, "One two three")
        assert.strictEqual(requests[1]?.prefill, "One two")
      }
    }))

  it.effect("an answer that failed after its last text ends without a new text block", () =>
    Effect.gen(function*() {
      for (const second of [[finish], [start, end, finish], answer("One two")]) {
        const { stream } = yield* build({ A: [true, broken("One two"), second] })
        const { end, parts, text } = yield* run(stream)
        assert.strictEqual(`${text}: ${end}`, "One two: end")
        assert.deepStrictEqual(parts.slice(-2), ["text-end", "finish"])
      }
    }))

  const limits = { firstTokenTimeout: "1 second", idleTimeout: "1 second" } as const
  const beginning = Array.from({ length: 60 }, (_, n) => ` w${n}`).join("").trim()
  const slowly = (text: string) => words(text).flatMap((part) => [500, part])

  it.effect("a target that takes 30 s to repeat the beginning is not silent", () =>
    Effect.gen(function*() {
      const second = [start, ...slowly(`${beginning} and the end`), end, finish]
      const { requests, stream } = yield* build({ A: [true, broken(beginning), second] }, limits)
      assert.deepInclude(yield* run(stream), { text: `${beginning} and the end`, end: "end" })
      assert.strictEqual(requests.length, 2)
    }))

  it.effect("a target that stops while it repeats the beginning is silent after the idle timeout", () =>
    Effect.gen(function*() {
      const second = [start, ...slowly("w0 w1 w2"), 60_000, delta(" w3"), end, finish]
      const { requests, stream } = yield* build(
        { A: [true, broken(beginning), second, answer(" and the end")] },
        limits
      )
      const [exit, logs] = yield* ResilientModel.withLogs(run(stream))
      assert.deepInclude(valueOf(exit), { text: `${beginning} and the end`, end: "end" })
      assert.strictEqual(requests.length, 3)
      const millis = logs[0]?.steps.map((step) => step._tag === "Attempt" ? step.endedAt - step.startedAt : 0)
      assert.deepStrictEqual(millis, [0, 2500, 0])
    }))

  it.effect("only targets with `prefill` continue an answer, and without one the call fails with its own error", () =>
    Effect.gen(function*() {
      const two = yield* build({ A: [true, broken("One two"), answer(" three")], B: [false, answer("B")] })
      assert.strictEqual((yield* run(two.stream)).text, "One two three")
      const none = yield* build({ A: [false, broken("One two"), answer(" three")] })
      assert.deepInclude(yield* run(none.stream), { text: "One two", end: "InternalProviderError" })
      assert.strictEqual(none.requests.length, 1)
      const off = yield* build({ A: [true, broken("One two"), answer(" three")] }, { afterOutput: "fail" })
      assert.deepInclude(yield* run(off.stream), { text: "One two", end: "InternalProviderError" })
    }))

  it.effect("an answer is not continued after a tool call or a thought, or if the prompt ends with an answer", () =>
    Effect.gen(function*() {
      const Add = Tool.make("add", { parameters: Schema.Struct({ a: Schema.Number }), success: Schema.Number })
      const tools = Toolkit.make(Add)
      const toolkit = yield* Effect.provide(tools, tools.toLayer({ add: ({ a }) => Effect.succeed(a) }))
      const others: ReadonlyArray<ReadonlyArray<Part>> = [
        [{ type: "tool-call", id: "1", name: "add", params: { a: 1 } }],
        [{ type: "tool-params-start", id: "1", name: "add" }],
        [{ type: "reasoning-start", id: "r" }, { type: "reasoning-delta", id: "r", delta: "hm" }]
      ]
      for (const other of others) {
        const { model, requests } = yield* build({ A: [true, [...other, ...broken("One two")], answer(" three")] })
        const stream = model.streamText({ prompt: "hi", toolkit, disableToolCallResolution: true })
        assert.strictEqual(summaryOf(yield* runFor("1 second", Stream.runDrain(stream))), "InternalProviderError")
        assert.strictEqual(requests.length, 1)
      }
      const { model, requests } = yield* build({ A: [true, broken("One two"), answer(" three")] })
      const prompt = [{ role: "user" as const, content: "hi" }, { role: "assistant" as const, content: "Well," }]
      assert.strictEqual((yield* run(model.streamText({ prompt }))).end, "InternalProviderError")
      assert.strictEqual(requests.length, 1)
    }))

  it.effect("a call with a toolkit is continued as well", () =>
    Effect.gen(function*() {
      const { model, requests } = yield* build({ A: [true, broken("One two"), answer(" three")] })
      const stream = model.streamText({ prompt: "hi", toolkit: yield* Effect.provide(Toolkit.empty, Layer.empty) })
      assert.deepInclude(yield* run(stream), { text: "One two three", end: "end" })
      assert.strictEqual(requests[1]?.prefill, "One two")
    }))

  it.effect("a failure after the last attempt ends the call with the partial answer", () =>
    Effect.gen(function*() {
      const { requests, stream } = yield* build({ A: [true, broken("One two"), ["lost"]] })
      assert.deepInclude(yield* run(stream), { text: "One two", end: "InternalProviderError" })
      assert.strictEqual(requests.length, 3)
    }))
})

describe("the beginning of an answer on the wire", () => {
  for (const wire of ["openai", "anthropic"] as const) {
    it.effect(`${wire} sends the beginning as the last message, from the assistant`, () =>
      Effect.gen(function*() {
        const prompt = [
          { role: "user" as const, content: "hi" },
          { role: "assistant" as const, content: [{ type: "text" as const, text: "One two" }] }
        ]
        const { request } = yield* call({ wire, whole: {}, prompt })
        const last = request.messages.at(-1)
        assert.strictEqual(last?.["role"], "assistant")
        assert.include(JSON.stringify(last), "One two")
      }))
  }
})

describe("the continuation of a partial answer", () => {
  const partialOf = (text: string) => {
    const partial = new PartialAnswer()
    partial.add(start)
    partial.add(delta(text))
    return partial
  }

  const rows: ReadonlyArray<readonly [handedOn: string, next: string, follows: string]> = [
    ["One", " two", " two"],
    ["One", "One two", " two"],
    ["One", "On the other hand", "On the other hand"],
    ["One", "On", "On"],
    ["One ", " two", "two"],
    ["One\n\n", "\nTwo", "Two"],
    ["One\n", "One two", " two"],
    ["One\n", "\n\nTwo", "\nTwo"],
    ["  ", "  One", "One"],
    ["One", "", ""],
    ["na", "na", ""],
    ["\u{1F600}", " yes", " yes"],
    ["\uD83D", "\u{1F600}!", "\uDE00!"],
    // The white space before a repetition differs.
    ["Hello there", " Hello there, you", ", you"],
    ["Hello there", "\n\nHello there, you", ", you"],
    [" Hello there", "Hello there, you", ", you"],
    ["\n\nHello there", "Hello there, you", ", you"],
    ["\n\nHello there", " Hello there, you", ", you"],
    ["\n\nHello there ", "Hello there you", "you"],
    ["Hello there", " Hello there", ""],
    ["\n\nna", "na no", " no"],
    ["\u4F60\u597D", " \u4F60\u597D\u5417", "\u5417"],
    // The text is no repetition, or may be none.
    ["Hello there", " Hello then", " Hello then"],
    ["Hello there", "  ", "  "],
    ["Hello there", `${" ".repeat(17)}Hello there`, `${" ".repeat(17)}Hello there`],
    ["na", " na", " na"],
    ["ha, ha", " ha, ha, ho", " ha, ha, ho"]
  ]
  it.effect("the continuation does not depend on how the text is split", () =>
    Effect.gen(function*() {
      for (const [handedOn, next, follows] of rows) {
        for (let size = 1; size <= Math.max(1, next.length); size++) {
          const deltas: Array<Part> = []
          for (let at = 0; at < next.length; at += size) deltas.push(delta(next.slice(at, at + size)))
          const parts: ReadonlyArray<AnyPart> = [start, ...deltas, end, finish]
          for (const chunk of [1, 100]) {
            const stream = following(
              Stream.rechunk(Stream.fromIterable(parts), chunk),
              partialOf(handedOn),
              (id): AnyPart => ({ type: "text-end", id })
            )
            const got = yield* Stream.runCollect(stream)
            const text = got.map((part) => typeof part.delta === "string" ? part.delta : "").join("")
            assert.strictEqual(text, follows, `${JSON.stringify(handedOn)} then ${JSON.stringify(next)} by ${size}`)
            assert.deepStrictEqual(got.filter(({ type }) => type !== "text-delta").map(({ type }) => type), [
              "text-end",
              "finish"
            ])
          }
        }
      }
    }))
})
