import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import { Chat, LanguageModel, type Response, Tool, Toolkit } from "effect/ai"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import type * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { official, officialStream } from "../support/provider.ts"
import { rawServer } from "../support/rawServer.ts"
import { begin, wires } from "../support/wires.ts"
import {
  callModel,
  callUntilReached,
  endings,
  methods,
  other,
  provider,
  resilient,
  settled,
  target,
  waitUntil,
  wireNames
} from "../support/wireCalls.ts"

const text = "one two three four"
const overloaded = { type: "overloaded_error", message: "Overloaded", content: text }

for (const wire of wireNames) {
  describe(`three targets, ${wire} first`, () => {
    it.live(
      "if A is overloaded within a 200 and B hangs, the caller gets only C's answer, and the sockets of A and B are closed",
      () =>
        Effect.gen(function*() {
          for (const method of methods) {
            const a = yield* provider([Turn.error({ ...overloaded, afterTokens: 0 })])
            const b = yield* provider([Turn.hang({ headers: true, ping: "10 millis" })])
            const c = yield* provider([Turn.answer("from C")])
            const isStream = method === "streamText"
            const limits = isStream
              ? { firstTokenTimeout: "80 millis" } as const
              : { attemptTimeout: "80 millis" } as const
            const model = resilient([target("A", wire, a), target("B", other(wire), b, limits), target("C", wire, c)], {
              retriesHere: 0
            })
            const result = yield* callUntilReached(method, model, [a, b, c])
            assert.deepStrictEqual([result.error, result.text], [undefined, "from C"])
            assert.deepStrictEqual(result.attempts, [
              "InternalProviderError",
              isStream ? "FirstTokenTimeout" : "AttemptTimeout",
              "ok"
            ])
            assert.deepStrictEqual([result.answeredBy?.target, result.answeredBy?.attempts], ["C", 3])
            const seen = [yield* settled(a), yield* settled(b), yield* settled(c)].map(endings)
            assert.deepStrictEqual(seen, [["cut"], ["clientClosed"], ["complete"]])
          }
        }).pipe(Effect.scoped),
      20_000
    )
  })

  describe(`streams over the ${wire} wire that fail after output`, () => {
    const broken: ReadonlyArray<readonly [what: string, turn: Turn.Turn]> = [
      ["is cut", Turn.cut({ content: text, afterTokens: 2 })],
      ["has an error", Turn.error({ ...overloaded, afterTokens: 2 })],
      ["is malformed", Turn.malformed({ content: text, afterTokens: 2 })],
      ["has no finish", Turn.noFinish("one two")]
    ]
    for (const [what, turn] of broken) {
      it.live(`a stream that ${what} restarts at the next target and emits a restart part`, () =>
        Effect.gen(function*() {
          const a = yield* provider([turn])
          const b = yield* provider([Turn.answer("all of it")])
          const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "hi" })).pipe(
            Effect.provide(resilient([target("A", wire, a), target("B", other(wire), b)], { afterOutput: "restart" }))
          )
          let shown = ""
          const restarts: Array<unknown> = []
          for (const part of parts as ReadonlyArray<Response.AnyPart>) {
            const restart = ResilientModel.restartOf(part)
            if (restart !== undefined) {
              assert.strictEqual(shown, "one two")
              restarts.push(restart)
              shown = ""
            }
            if (part.type === "text-delta") shown += part.delta
          }
          assert.strictEqual(shown, "all of it")
          assert.deepStrictEqual(restarts, [{ from: "A", to: "B" }])
          assert.deepStrictEqual([endings(yield* settled(a)).length, endings(yield* settled(b))], [1, ["complete"]])
        }).pipe(Effect.scoped))
    }
  })

  describe(`targets over the ${wire} wire`, () => {
    it.live("a redirect is not followed", () =>
      Effect.gen(function*() {
        const elsewhere = yield* provider([Turn.answer("caught")])
        const path = wire === "openai" ? "chat/completions" : "messages"
        const a = yield* provider([Turn.redirect(`${elsewhere.url}/${path}`)])
        for (const method of methods) {
          const { error, text } = yield* Effect.provide(callModel(method), resilient([target("A", wire, a)]))
          assert.strictEqual(text, "")
          assert.include(error?.message, "Redirects are not followed")
        }
        assert.deepStrictEqual(yield* elsewhere.journal, [])
      }).pipe(Effect.scoped))

    it.live("a prompt that is too long moves only to a target with a larger context", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.refusal("contextLength")])
        const small = yield* provider([Turn.answer("from a small one")])
        const large = yield* provider([Turn.answer("from a large one")])
        const first = target("A", wire, a, { contextTokens: 8_000 })
        for (const method of methods) {
          const moved = yield* Effect.provide(
            callModel(method),
            resilient([
              first,
              target("small", wire, small, { contextTokens: 4_000 }),
              target("large", other(wire), large, { contextTokens: 200_000 })
            ])
          )
          assert.deepStrictEqual([moved.error, moved.text], [undefined, "from a large one"])
          const alone = yield* Effect.provide(callModel(method), resilient([first, target("unknown", wire, small)]))
          assert.strictEqual(alone.error?.reason._tag, "InvalidRequestError")
          assert.deepStrictEqual(alone.attempts, ["InvalidRequestError"])
        }
        assert.deepStrictEqual(yield* small.journal, [])
        assert.strictEqual((yield* settled(a)).length, 4)
      }).pipe(Effect.scoped))

    it.live("a refused key is not used again, and other keys are used instead", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.refusal("key")])
        const b = yield* provider([Turn.answer("from B")])
        yield* Effect.gen(function*() {
          for (const method of [...methods, ...methods]) assert.strictEqual((yield* callModel(method)).text, "from B")
        }).pipe(
          Effect.provide(resilient([
            target("A1", wire, a, { credential: "team" }),
            target("A2", wire, a, { credential: "team" }),
            target("B", wire, b, { credential: "spare" })
          ]))
        )
        assert.deepStrictEqual(endings(yield* settled(a)), ["refused"])
        assert.strictEqual((yield* settled(b)).length, 4)
      }).pipe(Effect.scoped))
  })

  describe(`conversations that begin over the ${wire} wire`, () => {
    it.live("a conversation continues over the other wire and back with all its messages", () =>
      Effect.gen(function*() {
        const received: Array<ReadonlyArray<string>> = []
        const answer = (name: string): LoopbackProvider.Answer => ({ messages }) =>
          Effect.sync(() => {
            received.push(messages.map(({ content }) => content))
            return { text: `${name} says ${messages.length}` }
          })
        const a = yield* provider(({ n }) => n === 2 ? Turn.status(503) : undefined, { answer: answer("A") })
        const b = yield* provider([Turn.answer()], { answer: answer("B") })
        const answers = yield* Effect.gen(function*() {
          const chat = yield* Chat.empty
          const first = yield* chat.generateText({ prompt: "first" })
          const parts = yield* Stream.runCollect(chat.streamText({ prompt: "second" }))
          const second = parts.map((part) => part.type === "text-delta" ? part.delta : "").join("")
          const third = yield* chat.generateText({ prompt: "third" })
          return [first.text, second, third.text]
        }).pipe(Effect.provide(resilient([target("A", wire, a), target("B", other(wire), b)], { retriesHere: 0 })))
        assert.deepStrictEqual(answers, ["A says 1", "B says 3", "A says 5"])
        assert.deepStrictEqual(received.at(-1), ["first", "A says 1", "second", "B says 3", "third"])
        assert.deepStrictEqual((yield* settled(a)).map((entry) => entry.wire), [wire, wire, wire])
        assert.deepStrictEqual((yield* settled(b)).map((entry) => entry.wire), [other(wire)])
      }).pipe(Effect.scoped))

    it.live(
      "a tool runs once despite retries, and its result is sent over the other wire",
      () =>
        Effect.gen(function*() {
          const Weather = Tool.make("weather", {
            parameters: Schema.Struct({ city: Schema.String }),
            success: Schema.String
          })
          const toolkit = Toolkit.make(Weather)
          for (const method of methods) {
            let runs = 0
            const handlers = toolkit.toLayer({ weather: ({ city }) => Effect.sync(() => `${city}: rain, ${++runs}`) })
            const a = yield* provider([
              Turn.status(503),
              Turn.error({ ...overloaded, afterTokens: 0 }),
              Turn.toolCall("weather", { city: "Oslo" }),
              Turn.status(500)
            ])
            const b = yield* provider([Turn.status(503), Turn.status(503), Turn.answer("Take an umbrella")])
            const [first, second] = yield* Effect.gen(function*() {
              const chat = yield* Chat.empty
              const tools = yield* toolkit
              const parts = method === "generateText"
                ? (yield* chat.generateText({ prompt: "Oslo?", toolkit: tools })).content
                : yield* Stream.runCollect(chat.streamText({ prompt: "Oslo?", toolkit: tools }))
              const results = (parts as ReadonlyArray<Response.AnyPart>).flatMap((part) =>
                part.type === "tool-result" && part.preliminary !== true ? [part.result] : []
              )
              return [results, (yield* chat.generateText({ prompt: [], toolkit: tools })).text]
            }).pipe(
              Effect.provide(Layer.mergeAll(
                resilient([target("A", wire, a), target("B", other(wire), b)], {
                  retry: RetryPolicy.constant({ baseDelay: "1 milli", jitter: "none", maxAttempts: 10 })
                }),
                handlers
              ))
            )
            assert.deepStrictEqual([first, second, runs], [["Oslo: rain, 1"], "Take an umbrella", 1])
          }
        }).pipe(Effect.scoped),
      20_000
    )
  })
}

for (const [at, wire] of wires.entries()) {
  const name = wireNames[at] ?? assert.fail("a wire without a name")
  describe(`reset connections over the ${name} wire`, () => {
    it.live("a reset after output is a network error, and no other target is called", () =>
      Effect.gen(function*() {
        let reset: (() => void) | undefined
        const a = yield* rawServer((response) => {
          begin(response, wire.head + wire.delta("one"))
          reset = () => response.socket?.resetAndDestroy()
        })
        const b = yield* provider([Turn.answer("from B")])
        let shown = ""
        const failed = yield* Stream.runForEach(
          LanguageModel.streamText({ prompt: "hi" }),
          (part) =>
            Effect.sync(() => {
              if (part.type !== "text-delta") return
              shown += part.delta
              reset?.()
            })
        ).pipe(Effect.flip, Effect.provide(resilient([target("A", name, a), target("B", name, b)])))
        assert.deepStrictEqual([AiRejection.is("TruncatedStream", failed), shown], [true, "one"])
        assert.strictEqual(a.requests.length, 1)
        assert.deepStrictEqual(yield* b.journal, [])
      }).pipe(Effect.scoped))

    it.live("a reset before output moves to the next target, and the consumer gets only its answer", () =>
      Effect.gen(function*() {
        let sockets = 0
        const a = yield* rawServer((response) => {
          begin(response, wire.head)
          response.on("close", () => void sockets++)
          setTimeout(() => response.socket?.resetAndDestroy(), 5)
        })
        const b = yield* provider([Turn.answer("from B")])
        const result = yield* Effect.provide(
          callModel("streamText"),
          resilient([target("A", name, a), target("B", name, b)], { retriesHere: 0 })
        )
        assert.deepStrictEqual([result.text, result.attempts], ["from B", ["TruncatedStream", "ok"]])
        yield* waitUntil(() => sockets === 1, "the socket is closed")
      }).pipe(Effect.scoped))
  })
}

describe("cut streams", () => {
  it.live("a cut stream is an answer for the official client and a TruncatedStream for ours", () =>
    Effect.gen(function*() {
      const a = yield* provider([Turn.cut({ content: text, afterTokens: 2 })])
      const theirs = yield* Effect.result(officialStream(official(a), "hi"))
      assert.deepStrictEqual([theirs._tag, theirs._tag === "Success" && theirs.success], ["Success", "one two"])
      const ours = yield* Effect.provide(callModel("streamText"), resilient([target("A", "openai", a)]))
      const rejection = AiRejection.fromAiError(ours.error)
      assert.strictEqual(rejection._tag === "Some" && rejection.value._tag, "TruncatedStream")
      assert.deepStrictEqual(endings(yield* settled(a)), ["cut", "cut"])
    }).pipe(Effect.scoped))
})
