import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Layer, Option, Schema, Stream } from "effect"
import { AiError, LanguageModel, Tool, Toolkit } from "effect/ai"
import { TestClock } from "effect/testing"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deadline from "@sluice/core/Deadline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import {
  atOnce,
  build,
  errorOf,
  failed,
  plainRetry,
  readAll,
  rejectionOf,
  runFor,
  single,
  summaryOf,
  valueOf
} from "./support/resilient.ts"

const ok = Turn.answer("well and good")
const overloaded = (afterTokens: number) => Turn.error({ type: "overloaded_error", message: "Overloaded", afterTokens })
const once = { retry: RetryPolicy.none }

const Add = Tool.make("add", {
  parameters: Schema.Struct({ a: Schema.Number, b: Schema.Number }),
  success: Schema.Number
})
const toolkit = Effect.provide(
  Toolkit.make(Add),
  Toolkit.make(Add).toLayer({ add: ({ a, b }) => Effect.succeed(a + b) })
)

describe("streams that fail before their first output", () => {
  it.effect(
    "a stream that fails before output moves to the next target and hands on none of its parts",
    () =>
      Effect.gen(function*() {
        const turns: ReadonlyArray<Turn.Turn> = [
          failed,
          Turn.reset(),
          overloaded(0),
          Turn.cut({ afterTokens: 0 }),
          Turn.reset({ afterTokens: 0 }),
          Turn.malformed({ afterTokens: 0 }),
          Turn.html(),
          Turn.refusal("rateLimit")
        ]
        for (const streamErrors of ["parts", "failures"] as const) {
          for (const turn of turns) {
            const { inUse, targetCalls, stream } = yield* build({ A: { turns: [turn], streamErrors }, B: [ok] }, atOnce)
            const { end, parts, text } = valueOf(yield* runFor(0, readAll(stream)))
            assert.strictEqual(`${text}: ${end}`, "well and good: end", JSON.stringify(turn))
            assert.strictEqual(parts.filter((type) => type === "response-metadata").length, 1)
            assert.deepStrictEqual((yield* targetCalls).map((line) => line.split(" ")[2]), ["failed", "complete"])
            assert.strictEqual(yield* inUse, 0)
          }
        }
      }),
    20_000
  )

  it.effect("a stream that fails before output is retried after the backoff if there is no other target", () =>
    Effect.gen(function*() {
      const { targetCalls, stream } = yield* build({ A: [failed, overloaded(0), ok] })
      const { end, text } = valueOf(yield* runFor("3 seconds", readAll(stream)))
      assert.strictEqual(`${text}: ${end}`, "well and good: end")
      assert.deepStrictEqual(yield* targetCalls, ["A Status failed 0-0", "A Error failed 1-1", "A Answer complete 3-3"])
    }))

  it.effect("an error event before output is retried or final by its type", () =>
    Effect.gen(function*() {
      const cases = [
        ["rate_limit_error", "Please try again in 20s", "RateLimitError", 2, "20-20"],
        ["server_error", "oops", "InternalProviderError", 2, "1-1"],
        ["insufficient_quota", "You exceeded your current quota", "QuotaExhaustedError", 1, ""],
        ["authentication_error", "no", "AuthenticationError", 1, ""],
        ["permission_error", "no", "AuthenticationError", 1, ""],
        ["invalid_request_error", "prompt is too long: 9 tokens", "InvalidRequestError", 1, ""],
        ["invalid_request_error", "no", "InvalidRequestError", 1, ""],
        ["invalid_request_error", "Output blocked by content filtering policy", "ContentPolicyError", 1, ""],
        ["not_found_error", "model: m", "InvalidRequestError", 1, ""]
      ] as const
      for (const [type, message, reason, requests, last] of cases) {
        const turn = Turn.error({ type, message, afterTokens: 0 })
        const start = yield* Clock.currentTimeMillis
        const { targetCalls, stream } = yield* build({ A: [turn, ok] })
        const { end } = valueOf(yield* runFor("1 minute", readAll(stream)))
        assert.strictEqual(end, requests === 1 ? reason : "end", message)
        const lines = yield* targetCalls
        assert.strictEqual(lines.length, requests, message)
        if (requests === 2) {
          const at = Number(lines.at(-1)?.split(" ")[3]?.split("-")[0]) - start / 1000
          assert.isAtLeast(at, Number(last.split("-")[0]))
        }
      }
    }))

  it.effect("an empty stream is re-asked once", () =>
    Effect.gen(function*() {
      const { targetCalls, stream } = yield* build({ A: [Turn.empty(), ok, Turn.empty(), Turn.empty()] }, once)
      assert.strictEqual(valueOf(yield* runFor(0, readAll(stream))).text, "well and good")
      const again = valueOf(yield* runFor("1 minute", readAll(stream)))
      assert.deepStrictEqual(again, { parts: [], text: "", end: "EmptyAnswer" })
      assert.strictEqual((yield* targetCalls).length, 4)
    }))
})

describe("streams that fail after their first output", () => {
  const turns: ReadonlyArray<readonly [Turn.Turn, string]> = [
    [overloaded(2), "InternalProviderError"],
    [Turn.cut({ afterTokens: 2 }), "TruncatedStream"],
    [Turn.noFinish("well and good"), "TruncatedStream"],
    [Turn.reset({ afterTokens: 2 }), "TruncatedStream"],
    [Turn.malformed({ afterTokens: 2 }), "MalformedEvent"]
  ]

  it.effect("a failure after output is final and typed, and no second target is called", () =>
    Effect.gen(function*() {
      for (const streamErrors of ["parts", "failures"] as const) {
        for (const [turn, expected] of turns) {
          const { inUse, targetCalls, stream } = yield* build({ A: { turns: [turn], streamErrors }, B: [ok] })
          const { end, text } = valueOf(yield* runFor("1 minute", readAll(stream)))
          assert.strictEqual(end, expected)
          assert.isAbove(text.length, 0)
          assert.strictEqual((yield* targetCalls).length, 1)
          assert.strictEqual(yield* inUse, 0)
        }
      }
    }))

  it.effect("a failure after output counts against the circuit", () =>
    Effect.gen(function*() {
      for (const [turn] of turns) {
        const breaker = { trip: CircuitBreaker.consecutive(1) }
        const { resilient, stream } = yield* build({ A: { turns: [turn], breaker } })
        yield* runFor(0, readAll(stream))
        assert.strictEqual((yield* resilient.targets)[0]?.circuit?._tag, "Open", JSON.stringify(turn))
      }
    }))

  it.effect("afterOutput \"restart\" starts over at the next target and emits a restart part", () =>
    Effect.gen(function*() {
      for (const [turn] of turns) {
        const { inUse, targetCalls, stream } = yield* build({ A: [turn], B: [ok] }, { afterOutput: "restart" })
        const { end, parts, text } = valueOf(yield* runFor("1 minute", readAll(stream)))
        assert.strictEqual(end, "end")
        const at = parts.indexOf("restart A B")
        assert.isAbove(at, 0)
        assert.strictEqual(parts[at + 1], "response-metadata")
        assert.isTrue(text.endsWith("well and good"))
        assert.strictEqual((yield* targetCalls).length, 2)
        assert.strictEqual(yield* inUse, 0)
      }
    }))

  it.effect("a stream restarts no more often than its attempts allow", () =>
    Effect.gen(function*() {
      const { targetCalls, stream } = yield* build({ A: [overloaded(2)], B: [overloaded(1)] }, {
        afterOutput: "restart"
      })
      const { end, parts } = valueOf(yield* runFor("1 minute", readAll(stream)))
      assert.strictEqual(end, "InternalProviderError")
      assert.deepStrictEqual(parts.filter((part) => part.startsWith("restart")), ["restart A B", "restart B A"])
      assert.strictEqual((yield* targetCalls).length, 3)
    }))

  it.effect("a restart at the same target follows the backoff and uses the attempts of a retry around the stream", () =>
    Effect.gen(function*() {
      const { targetCalls, stream } = yield* build({ A: [overloaded(2)] }, { afterOutput: "restart" })
      const retried = RetryPolicy.retry(Stream.runDrain(stream), plainRetry({ maxAttempts: 3 }))
      const [exit, logs] = valueOf(yield* runFor("1 minute", ResilientModel.withLogs(retried)))
      assert.strictEqual(summaryOf(exit), "InternalProviderError")
      assert.deepStrictEqual((yield* targetCalls).map((line) => line.split(" ")[3]), ["0-0", "1-1", "2-2"])
      assert.deepStrictEqual(
        logs.map(({ steps }) => steps.map((step) => step._tag === "Attempt" ? step.next : step._tag)),
        [["Restart", "Restart", "Stop"]]
      )
    }))

  it.effect("a stream does not restart after a tool call", () =>
    Effect.gen(function*() {
      const calls = Turn.stall({
        content: [{ type: "tool-call", name: "add", params: { a: 1, b: 2 } }, { type: "text", text: "one two three" }],
        afterTokens: 3
      })
      const { model, targetCalls } = yield* build({ A: [calls], B: [ok] }, {
        afterOutput: "restart",
        idleTimeout: "1 second"
      })
      const stream = model.streamText({ prompt: "hi", toolkit: yield* toolkit, disableToolCallResolution: true })
      const { end } = valueOf(yield* runFor("1 minute", readAll(stream)))
      assert.strictEqual(end, "IdleTimeout")
      assert.strictEqual((yield* targetCalls).length, 1)
    }))
})

describe("parts before the first output", () => {
  it.effect("parts before the first output are held until it arrives", () =>
    Effect.gen(function*() {
      const { stream } = yield* build({ A: [Turn.answer("later", { firstTokenMillis: 5_000 })] })
      let parts = 0
      const fiber = yield* Effect.forkChild(Stream.runForEach(stream, () => Effect.sync(() => parts++)))
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(parts, 0)
      yield* TestClock.adjust("1 second")
      assert.isAbove(parts, 2)
      yield* Fiber.join(fiber)
    }))

  it.effect("held parts are bounded by count and bytes, and a failure after the bound is final", () =>
    Effect.gen(function*() {
      const withoutOutput = (parts: number) =>
        LanguageModel.make({
          generateText: () => Effect.die("not used"),
          streamText: () =>
            Stream.concat(
              Stream.fromIterable(
                Array.from({ length: parts }, (_, at) => ({ type: "text-start" as const, id: `${at}` }))
              ),
              Stream.fail(
                AiError.make({
                  module: "Test",
                  method: "streamText",
                  reason: new AiError.InternalProviderError({ description: "down" })
                })
              )
            )
        })
      const good = yield* build({ B: [ok] })
      const cases = [
        [{}, 63, true],
        [{}, 64, false],
        [{ maxHeldParts: 3 }, 3, false],
        [{ maxHeldBytes: 500 }, 4, true],
        [{ maxHeldBytes: 500 }, 5, false]
      ] as const
      for (const [options, parts, movesOn] of cases) {
        const layer = ResilientModel.layer({
          ...atOnce,
          ...options,
          targets: [
            { name: "A", layer: Layer.effect(LanguageModel.LanguageModel, withoutOutput(parts)) },
            { name: "B", layer: Layer.succeed(LanguageModel.LanguageModel, good.model) }
          ]
        })
        const { end, parts: received } = yield* Effect.provide(
          readAll(LanguageModel.streamText({ prompt: "hi" })),
          layer
        )
        assert.strictEqual(end, movesOn ? "end" : "InternalProviderError", `${parts}`)
        assert.strictEqual(received.filter((type) => type === "text-start").length, movesOn ? 1 : parts)
      }
    }))
})

describe("stream timeouts", () => {
  const limits = { firstTokenTimeout: "10 seconds", idleTimeout: "3 seconds", attemptTimeout: "30 seconds" } as const

  it.effect("a stream without a first token is closed, and the next target is called", () =>
    Effect.gen(function*() {
      for (
        const turn of [
          Turn.hang(),
          Turn.hang({ headers: true }),
          Turn.stall({ afterTokens: 0 }),
          Turn.delay(ok, "1 hour")
        ]
      ) {
        const { inUse, targetCalls, stream } = yield* build({ A: [turn], B: [ok] }, limits)
        const { end, text } = valueOf(yield* runFor("10 seconds", readAll(stream)))
        assert.strictEqual(`${text}: ${end}`, "well and good: end")
        assert.strictEqual((yield* targetCalls)[0]?.split(" ")[2], "interrupted")
        assert.strictEqual(yield* inUse, 0)
      }
    }))

  it.effect("the first token, silence and the whole attempt each have their own typed error", () =>
    Effect.gen(function*() {
      const slow = Turn.answer("a b c d e f g h i j k l m n o p q r s t", { tokenMillis: 2_000 })
      const cases = [
        [Turn.hang(), 10, { _tag: "FirstTokenTimeout", target: "A", limit: Duration.seconds(10) }],
        [Turn.stall({ afterTokens: 2 }), 3, { _tag: "IdleTimeout", target: "A", limit: Duration.seconds(3) }],
        [slow, 30, { _tag: "AttemptTimeout", after: Duration.seconds(30) }]
      ] as const
      for (const [turn, seconds, expected] of cases) {
        const { inUse, targetCalls, stream } = yield* build({ A: { turns: [turn], ...limits } }, once)
        const exit = yield* runFor(`${seconds} seconds`, Stream.runDrain(stream))
        assert.deepInclude(rejectionOf(exit), expected)
        assert.isTrue(errorOf(exit).isRetryable)
        const [from, to] = (yield* targetCalls)[0]?.split(" ")[3]?.split("-").map(Number) ?? []
        assert.strictEqual((to ?? 0) - (from ?? 0), seconds)
        assert.strictEqual(yield* inUse, 0)
      }
    }))

  it.effect("a slow consumer trips attemptTimeout but not firstTokenTimeout or idleTimeout", () =>
    Effect.gen(function*() {
      const targets = { A: [Turn.answer("a b c d e f g h i j")] }
      for (const [attemptTimeout, expected] of [["30 seconds", "AttemptTimeout"], ["1 hour", "read"]] as const) {
        const { stream } = yield* build(targets, { ...limits, attemptTimeout })
        const slowly = Stream.runForEach(stream, () => Effect.sleep("5 seconds"))
        assert.strictEqual(summaryOf(yield* runFor("1 hour", Effect.as(slowly, "read"))), expected)
      }
    }))

  it.effect("the deadline bounds all attempts together, whether set by option or from outside", () =>
    Effect.gen(function*() {
      const hang = [Turn.hang()]
      const targets = { A: hang, B: hang, C: hang }
      const own = yield* build(targets, { deadline: "5 seconds", firstTokenTimeout: "2 seconds" })
      const exit = yield* runFor("5 seconds", Stream.runDrain(own.stream))
      assert.deepInclude(rejectionOf(exit), { _tag: "DeadlineExceeded", budget: Duration.seconds(5) })
      assert.isFalse(errorOf(exit).isRetryable)
      assert.deepStrictEqual(yield* own.targetCalls, [
        "A Hang interrupted 0-2",
        "B Hang interrupted 2-4",
        "C Hang interrupted 4-5"
      ])
      const outer = yield* build(targets, { firstTokenTimeout: "2 seconds" })
      const outside = yield* runFor("5 seconds", Stream.runDrain(Deadline.withinStream(outer.stream, "5 seconds")))
      assert.isTrue(Exit.isFailure(outside))
      assert.strictEqual(yield* outer.inUse, 0)
    }))
})

describe("streams over three targets", () => {
  it.effect("after an overload of A and silence of B, the consumer gets only the answer of C", () =>
    Effect.gen(function*() {
      const { inUse, targetCalls, stream } = yield* build(
        { A: [overloaded(0)], B: [Turn.hang({ headers: true })], C: [Turn.answer("the answer of C")] },
        { ...atOnce, firstTokenTimeout: "2 seconds", deadline: "5 seconds" }
      )
      const { end, parts, text } = valueOf(yield* runFor("2 seconds", readAll(stream)))
      assert.strictEqual(`${text}: ${end}`, "the answer of C: end")
      assert.deepStrictEqual(parts.filter((type) => !type.startsWith("text")), ["response-metadata", "finish"])
      assert.deepStrictEqual(yield* targetCalls, [
        "A Error failed 0-0",
        "B Hang interrupted 0-2",
        "C Answer complete 2-2"
      ])
      assert.strictEqual(yield* inUse, 0)
    }))
})

describe("complete streams", () => {
  it.effect("the finish part names the target and its usage", () =>
    Effect.gen(function*() {
      const { stream } = yield* build({ A: [failed], B: [ok] }, atOnce)
      const parts = valueOf(yield* runFor(0, Stream.runCollect(stream)))
      const last = parts.at(-1)
      assert.deepInclude(last === undefined ? undefined : ResilientModel.answeredBy(last), {
        target: "B",
        attempts: 2,
        inputTokens: 1,
        outputTokens: 3,
        estimated: false
      })
    }))

  it.effect("usage is estimated and marked as such if the provider reports none", () =>
    Effect.gen(function*() {
      const { stream } = yield* build({ A: [Turn.answer("x".repeat(40), { usage: "none" })] })
      const parts = valueOf(yield* runFor(0, Stream.runCollect(stream)))
      const last = parts.at(-1)
      assert.deepInclude(last === undefined ? undefined : ResilientModel.answeredBy(last), {
        inputTokens: 1,
        outputTokens: 10,
        estimated: true
      })
    }))

  it.effect("a stream that ends by its length limit or a content filter is complete", () =>
    Effect.gen(function*() {
      for (const finish of ["length", "content-filter"] as const) {
        for (const content of ["cut off", ""]) {
          const { targetCalls, stream } = yield* build({ A: [Turn.answer(content, { finish })], B: [ok] })
          const parts = valueOf(yield* runFor(0, Stream.runCollect(stream)))
          const last = parts.at(-1)
          assert.strictEqual(last?.type === "finish" ? last.reason : undefined, finish)
          assert.strictEqual((yield* targetCalls).length, 1)
        }
      }
    }))

  it.effect("a stream is a success of its target as soon as its finish part arrives", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1) }
      const { resilient, stream } = yield* build({ A: { turns: [ok], breaker } })
      const [, logs] = yield* ResilientModel.withLogs(
        Stream.runDrain(Stream.takeUntil(stream, (part) => part.type === "finish"))
      )
      assert.deepInclude(logs[0], { result: "Success", answeredBy: "A" })
      assert.strictEqual((yield* resilient.targets)[0]?.circuit?.evidence.calls, 1)
    }))
})

describe("consumers that leave", () => {
  it.effect("a consumer that leaves closes the target, frees its permit, adds no evidence and is logged as Interrupted", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1) }
      const turns = [Turn.answer("a b c d", { tokenMillis: 1_000 })]
      const { inUse, resilient, targetCalls, stream } = yield* build({ A: { turns, breaker, backpressure: single } })
      const leaves = [
        Stream.runDrain(Stream.take(stream, 4)),
        Stream.runForEach(stream, () => Effect.fail("the consumer's own")),
        Effect.timeoutOption(Stream.runDrain(stream), "2 seconds")
      ]
      for (const leave of leaves) {
        const exit = yield* runFor("10 seconds", ResilientModel.withLogs(leave))
        const [, logs] = valueOf(exit)
        assert.deepStrictEqual(logs.map(({ result }) => result), ["Interrupted"])
        assert.strictEqual(yield* inUse, 0)
      }
      // If the consumer fails, the finalizers of the target see its failure.
      assert.deepStrictEqual((yield* targetCalls).map((line) => line.split(" ")[2]), [
        "interrupted",
        "failed",
        "interrupted"
      ])
      assert.strictEqual((yield* resilient.targets)[0]?.circuit?.evidence.calls, 0)
    }))
})

describe("permits and circuits of streams", () => {
  it.effect("a stream holds its permit until it ends and no longer", () =>
    Effect.gen(function*() {
      const turns = [Turn.answer("a b", { tokenMillis: 1_000 })]
      const { resilient, stream } = yield* build({ A: { turns, backpressure: single } })
      const running = Effect.map(resilient.targets, ([target]) => target?.permits?.running)
      const whole = Stream.concat(stream, Stream.fromEffect(Effect.delay(running, "1 second")))
      const fiber = yield* Effect.forkChild(Stream.runLast(whole))
      yield* TestClock.adjust("500 millis")
      assert.strictEqual(yield* running, 1)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Fiber.join(fiber), Option.some(0))
    }))

  it.effect("a busy target is skipped, and a stream is queued if all targets are busy", () =>
    Effect.gen(function*() {
      const turns = [Turn.answer("a b", { tokenMillis: 5_000 })]
      const { inUse, targetCalls, stream } = yield* build({
        A: { turns, backpressure: single },
        B: { turns, backpressure: single }
      })
      const exit = yield* runFor("1 minute", Effect.all([stream, stream, stream].map(readAll), { concurrency: 3 }))
      assert.deepStrictEqual(valueOf(exit).map(({ end }) => end), ["end", "end", "end"])
      assert.deepStrictEqual((yield* targetCalls).map((line) => line.split(" ").slice(0, 3).join(" ")), [
        "A Answer complete",
        "A Answer complete",
        "B Answer complete"
      ])
      assert.strictEqual(yield* inUse, 0)
    }))

  it.effect("an open circuit refuses a stream, and a successful probe closes it", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(2), openFor: "30 seconds" } as const
      const { resilient, targetCalls, stream } = yield* build({ A: { turns: [failed, failed, ok], breaker } }, once)
      for (let i = 0; i < 2; i++) yield* runFor(0, readAll(stream))
      assert.strictEqual(valueOf(yield* runFor(0, readAll(stream))).end, "CircuitOpen")
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(valueOf(yield* runFor(0, readAll(stream))).end, "end")
      assert.strictEqual((yield* resilient.targets)[0]?.circuit?._tag, "Closed")
      assert.strictEqual((yield* targetCalls).length, 3)
    }))

  it.effect("the parts of a slow probe renew its lease", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1), openFor: "30 seconds", probeLease: "10 seconds" } as const
      const slow = Turn.answer("a b c d e", { tokenMillis: 8_000 })
      const { targetCalls, stream } = yield* build({ A: { turns: [failed, slow, ok], breaker } }, once)
      yield* runFor(0, readAll(stream))
      yield* TestClock.adjust("30 seconds")
      const probe = yield* Effect.forkChild(readAll(stream))
      yield* TestClock.adjust("25 seconds")
      assert.strictEqual(valueOf(yield* runFor(0, readAll(stream))).end, "CircuitOpen")
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* Fiber.join(probe)).end, "end")
      assert.strictEqual((yield* targetCalls).length, 2)
    }))
})

describe("the attempt budget of streams", () => {
  it.effect("a retry around the stream shares the attempt budget", () =>
    Effect.gen(function*() {
      const { targetCalls, stream } = yield* build({ A: [failed] }, { retry: plainRetry({ maxAttempts: 3 }) })
      const retried = RetryPolicy.retryStream(stream, plainRetry({ maxAttempts: 2 }))
      assert.strictEqual(valueOf(yield* runFor("1 minute", readAll(retried))).end, "InternalProviderError")
      assert.strictEqual((yield* targetCalls).length, 2)
    }))
})
