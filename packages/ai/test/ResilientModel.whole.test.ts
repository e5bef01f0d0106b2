/** `answer: "whole"`: a stream is held until it is complete. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import { Tool, Toolkit } from "effect/ai"
import { TestClock } from "effect/testing"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { atOnce, build, readAll, runFor, summaryOf, valueOf } from "./support/resilient.ts"

const content = "one two three four five"
const good = Turn.answer(content)
const whole = { answer: "whole", idleTimeout: "2 seconds" } as const

const faults: ReadonlyArray<readonly [string, Turn.Turn, string]> = [
  ["a cut", Turn.cut({ content, afterTokens: 3 }), "TruncatedStream"],
  ["a reset", Turn.reset({ content, afterTokens: 3 }), "TruncatedStream"],
  ["a missing finish", Turn.noFinish(content), "TruncatedStream"],
  ["a stall", Turn.stall({ content, afterTokens: 3 }), "IdleTimeout"],
  ["a malformed event", Turn.malformed({ content, afterTokens: 3 }), "MalformedEvent"],
  [
    "an error event",
    Turn.error({ content, afterTokens: 3, type: "overloaded_error", message: "" }),
    "InternalProviderError"
  ]
]

describe("whole answers", () => {
  for (const [title, turn, error] of faults) {
    it.effect(`${title} in the middle of an answer is moved or retried, and the consumer sees one whole answer`, () =>
      Effect.gen(function*() {
        for (const streamErrors of ["parts", "failures"] as const) {
          const moved = yield* build({ A: { turns: [turn], streamErrors }, B: [good] }, { ...whole, ...atOnce })
          const { end, parts, text } = valueOf(yield* runFor("2 seconds", readAll(moved.stream)))
          assert.strictEqual(`${text}: ${end}`, `${content}: end`)
          assert.strictEqual(parts.filter((type) => type === "text-start" || type === "finish").length, 2)
          assert.deepStrictEqual((yield* moved.targetCalls).map((line) => line[0]), ["A", "B"])
          assert.strictEqual(yield* moved.inUse, 0)

          const retried = yield* build({ A: { turns: [turn, good], streamErrors } }, whole)
          assert.strictEqual(valueOf(yield* runFor("3 seconds", readAll(retried.stream))).text, content)

          const failed = yield* build({ A: { turns: [turn], streamErrors } }, { ...whole, retry: RetryPolicy.none })
          const nothing = valueOf(yield* runFor("2 seconds", readAll(failed.stream)))
          assert.deepStrictEqual(nothing, { parts: [], text: "", end: error })

          const live = yield* build({ A: { turns: [turn], streamErrors }, B: [good] }, { ...whole, answer: "live" })
          assert.strictEqual(valueOf(yield* runFor("2 seconds", readAll(live.stream))).end, error)
        }
      }))
  }

  it.effect("nothing is emitted before the answer is complete", () =>
    Effect.gen(function*() {
      const { stream } = yield* build({ A: [Turn.answer(content, { tokenMillis: 1_000 })] }, whole)
      let parts = 0
      yield* Effect.forkChild(Stream.runForEach(stream, () => Effect.sync(() => parts++)))
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(parts, 0)
      yield* TestClock.adjust("3 seconds")
      assert.isAbove(parts, 5)
    }))

  it.effect("an answer above `maxWholeBytes` is emitted live, and a failure after that follows `afterOutput`", () =>
    Effect.gen(function*() {
      // A part takes 100 bytes and two for each character.
      const long = "word ".repeat(50).trim()
      const cut = Turn.cut({ content: long, afterTokens: 40 })
      const bounds = { ...whole, ...atOnce, maxWholeBytes: 2_000 }
      const cases = [
        [cut, bounds, "TruncatedStream", 1],
        [cut, { ...bounds, afterOutput: "restart" }, "end", 2],
        [Turn.answer(long), bounds, "end", 1],
        [cut, { ...bounds, maxWholeBytes: 20_000 }, "end", 2]
      ] as const
      for (const [turn, options, expected, calls] of cases) {
        const { stream, targetCalls } = yield* build({ A: [turn], B: [Turn.answer(long)] }, options)
        const { end, text } = valueOf(yield* runFor("1 second", readAll(stream)))
        assert.strictEqual(end, expected)
        assert.strictEqual((yield* targetCalls).length, calls)
        if (calls === 1) assert.isTrue(long.startsWith(text) && text.length > 150, text)
      }
    }))

  it.effect("a whole answer may hold 65 parts, which exceed the default limit before the first output", () =>
    Effect.gen(function*() {
      const long = "word ".repeat(500).trim()
      const { stream } = yield* build({ A: [Turn.cut({ content: long, afterTokens: 400 }), Turn.answer(long)] }, whole)
      assert.strictEqual(valueOf(yield* runFor("2 seconds", readAll(stream))).text, long)
    }))

  it.effect("tool calls are held as well, and the log counts a discarded attempt as paid", () =>
    Effect.gen(function*() {
      const Add = Tool.make("add", { parameters: Schema.Struct({ a: Schema.Number }), success: Schema.Number })
      const tools = Toolkit.make(Add)
      let runs = 0
      const toolkit = yield* Effect.provide(tools, tools.toLayer({ add: ({ a }) => Effect.sync(() => (runs++, a)) }))
      const calls = [{ type: "tool-call", name: "add", params: { a: 1 } }, { type: "text", text: content }] as const
      const { model } = yield* build({ A: [Turn.cut({ content: calls, afterTokens: 6 }), Turn.answer(calls)] }, whole)
      const stream = model.streamText({ prompt: "hi", toolkit })
      const [exit, logs] = valueOf(yield* runFor("2 seconds", ResilientModel.withLogs(Stream.runDrain(stream))))
      assert.strictEqual(summaryOf(exit), "undefined")
      assert.strictEqual(runs, 1)
      const steps = logs[0]?.steps.map((step) => step._tag === "Attempt" ? [step.next, step.usage !== undefined] : [])
      assert.deepStrictEqual(steps, [["Retry", true], ["Done", true]])
    }))

  it.effect("the parts of a slow probe renew its lease while they are held", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1), openFor: "30 seconds", probeLease: "10 seconds" } as const
      const turns = [Turn.status(503), Turn.answer("a b c d e", { tokenMillis: 8_000 }), good]
      const { stream, targetCalls } = yield* build({ A: { turns, breaker } }, {
        answer: "whole",
        retry: RetryPolicy.none
      })
      yield* runFor(0, readAll(stream))
      yield* TestClock.adjust("30 seconds")
      yield* Effect.forkChild(readAll(stream))
      yield* TestClock.adjust("25 seconds")
      assert.strictEqual(valueOf(yield* runFor(0, readAll(stream))).end, "CircuitOpen")
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* targetCalls).length, 2)
    }))
})
