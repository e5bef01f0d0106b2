/** Another attempt at the same target, and the end of a call that is refused another attempt. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, type Duration, Effect, Exit, Fiber, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { build, failed, ok, plainRetry, readAll, runFor, single, summaryOf, valueOf } from "./support/resilient.ts"

const startsOf = (lines: ReadonlyArray<string>) =>
  lines.map((line) => `${line[0]} ${line.split(" ")[3]?.split("-")[0]}`)

const limited = (retryAfter: Duration.Input) => Turn.refusal("rateLimit", { retryAfter })

describe("a target is tried again before the call moves on", () => {
  // The second attempt begins after this many seconds at A, or `B`: at once at B.
  const rows: ReadonlyArray<readonly [string, Turn.Turn, number | "B"]> = [
    ["a 500", Turn.status(500), 1],
    ["a 503", Turn.status(503), 1],
    ["an overload", Turn.status(529), 1],
    ["a 408", Turn.status(408), 1],
    ["a reset", Turn.reset(), 1],
    ["a 503 with a Retry-After of 5 seconds", Turn.status(503, { retryAfter: "5 seconds" }), 5],
    ["a 503 with a Retry-After of 6 seconds", Turn.status(503, { retryAfter: "6 seconds" }), "B"],
    ["a 429 with a Retry-After of 4 seconds", limited("4 seconds"), 4],
    ["a 429 with a Retry-After of 1 minute", limited("1 minute"), "B"],
    ["a 429 without a Retry-After", Turn.refusal("rateLimit"), "B"],
    ["a refused key", Turn.refusal("key"), "B"],
    ["a page instead of an answer", Turn.html(), "B"]
  ]
  for (const [title, turn, second] of rows) {
    it.effect(`${title} ${second === "B" ? "moves the call on at once" : "is retried at the target first"}`, () =>
      Effect.gen(function*() {
        for (const method of ["whole", "stream"] as const) {
          const { generate, stream, targetCalls } = yield* build({ A: [turn, ok], B: [ok] })
          const call = method === "whole" ? generate : Effect.map(readAll(stream), ({ text }) => text)
          assert.strictEqual(summaryOf(yield* runFor("6 seconds", call)), "good")
          const [first, next] = startsOf(yield* targetCalls)
          const at = Number(first?.slice(2))
          if (second === "B") assert.strictEqual(next, `B ${at}`)
          // The backoff is added to a Retry-After.
          else assert.isTrue(next?.startsWith("A") && Number(next.slice(2)) - at >= second, next)
        }
      }))
  }

  it.effect("a cut before the first output is retried at the target, and silence moves the stream on at once", () =>
    Effect.gen(function*() {
      const rows = [
        [Turn.cut({ afterTokens: 0 }), ["A 0", "A 1"]],
        [Turn.hang(), ["A 0", "B 2"]],
        [Turn.stall({ afterTokens: 0 }), ["A 0", "B 2"]]
      ] as const
      for (const [turn, expected] of rows) {
        const { stream, targetCalls } = yield* build({ A: [turn, ok], B: [ok] }, { firstTokenTimeout: "2 seconds" })
        const start = (yield* Clock.currentTimeMillis) / 1000
        yield* runFor("2 seconds", readAll(stream))
        const starts = startsOf(yield* targetCalls).map((line) => `${line[0]} ${Number(line.slice(2)) - start}`)
        assert.deepStrictEqual(starts, [...expected])
      }
      const { generate, targetCalls } = yield* build({ A: [Turn.hang()], B: [ok] }, { attemptTimeout: "2 seconds" })
      yield* runFor("2 seconds", generate)
      assert.deepStrictEqual((yield* targetCalls).map((line) => line[0]), ["A", "B"])
    }))

  it.effect("`retriesHere` limits the attempts at the same target, and 0 moves on at once", () =>
    Effect.gen(function*() {
      for (const [retriesHere, expected] of [[0, "AB"], [undefined, "AAB"], [2, "AAAB"]] as const) {
        const { generate, targetCalls } = yield* build({ A: [failed], B: [ok] }, {
          retriesHere,
          retry: plainRetry({ maxAttempts: 5, factor: 1 })
        })
        assert.strictEqual(summaryOf(yield* runFor("3 seconds", generate)), "good")
        assert.strictEqual((yield* targetCalls).map((line) => line[0]).join(""), expected)
      }
    }))

  it.effect("an attempt at the same target counts within `maxAttempts`, and leaves an attempt for another target", () =>
    Effect.gen(function*() {
      for (const [maxAttempts, expected] of [[1, "A"], [2, "AB"], [3, "AAB"], [4, "AABB"]] as const) {
        const { generate, targetCalls } = yield* build({ A: [failed], B: [failed] }, {
          retry: plainRetry({ maxAttempts })
        })
        yield* runFor("1 minute", generate)
        assert.strictEqual((yield* targetCalls).map((line) => line[0]).join(""), expected)
      }
    }))

  it.effect("a target whose circuit has opened is not waited for", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1), openFor: "1 second" } as const
      const { generate, stream, targetCalls } = yield* build({ A: { turns: [failed], breaker }, B: [ok] })
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(valueOf(yield* runFor(0, readAll(stream))).text, "good")
      assert.deepStrictEqual((yield* targetCalls).map((line) => line[0]), ["A", "A", "B", "B"])
    }))

  it.effect("a failed probe is not repeated, after any failure", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1), openFor: "10 seconds" } as const
      for (const turn of [failed, limited("2 seconds"), Turn.reset()]) {
        const { generate, targetCalls } = yield* build({ A: { turns: [failed, turn, ok], breaker }, B: [ok] })
        yield* runFor(0, generate)
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
        assert.deepStrictEqual((yield* targetCalls).map((line) => line[0]), ["A", "A", "B", "B"])
      }
    }))

  it.effect("a wait past the deadline, or of more than 5 seconds, moves the call on at once", () =>
    Effect.gen(function*() {
      const rows = [
        [{ deadline: "900 millis" }, "AB"],
        [{ retry: plainRetry({ baseDelay: "6 seconds" }) }, "AB"],
        [{ retry: plainRetry({ maxRetryAfter: 0 }) }, "AB"]
      ] as const
      for (const [options, expected] of rows) {
        const turn = "retry" in options && options.retry.maxRetryAfter === 0
          ? Turn.status(503, { retryAfter: "1 second" })
          : failed
        const { generate, targetCalls } = yield* build({ A: [turn], B: [ok] }, options)
        assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
        assert.strictEqual((yield* targetCalls).map((line) => line[0]).join(""), expected)
      }
    }))

  it.effect("a call that is shed moves on at once", () =>
    Effect.gen(function*() {
      const backpressure = { capacity: 1 }
      const { generate, targetCalls } = yield* build({
        A: { turns: [Turn.delay(ok, "10 seconds")], backpressure },
        B: { turns: [ok], backpressure }
      })
      const both = yield* runFor("10 seconds", Effect.all([generate, generate], { concurrency: 2 }))
      assert.deepStrictEqual(valueOf(both), ["good", "good"])
      assert.deepStrictEqual(startsOf(yield* targetCalls), ["A 0", "B 0"])
    }))

  it.effect("a restart after partial output moves on at once", () =>
    Effect.gen(function*() {
      const { stream, targetCalls } = yield* build({ A: [Turn.cut({ content: "a b c", afterTokens: 2 })], B: [ok] }, {
        afterOutput: "restart"
      })
      yield* runFor(0, readAll(stream))
      assert.deepStrictEqual(startsOf(yield* targetCalls), ["A 0", "B 0"])
    }))
})

describe("a call that is refused another attempt", () => {
  it.effect("a circuit that opens while a retrying call is queued ends the call with the provider's error", () =>
    Effect.gen(function*() {
      for (const method of ["whole", "stream"] as const) {
        const turns = [failed, Turn.delay(failed, "10 seconds")]
        const breaker = { trip: CircuitBreaker.consecutive(2), openFor: "1 hour" } as const
        const { generate, stream, targetCalls } = yield* build({ A: { turns, breaker, backpressure: single } })
        const call = method === "whole" ? generate : Effect.map(readAll(stream), ({ text }) => text)
        const retrying = yield* Effect.forkChild(
          ResilientModel.withLogs(method === "whole" ? generate : Stream.runDrain(stream))
        )
        yield* TestClock.adjust("500 millis")
        // It holds the permit when the first call has finished its backoff.
        const other = yield* Effect.forkChild(Effect.exit(call))
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.interrupt(other)
        const [exit, logs] = yield* Fiber.join(retrying)
        assert.strictEqual(summaryOf(exit), "InternalProviderError")
        const stopped = Exit.isFailure(exit) ? Option.getOrUndefined(RetryPolicy.stopped(exit.cause)) : undefined
        assert.strictEqual(stopped?.why, "Refused")
        assert.instanceOf(stopped?.refusal, CircuitBreaker.CircuitOpen)
        assert.isTrue(Exit.isFailure(exit) && !Cause.hasDies(exit.cause))
        assert.strictEqual(logs[0]?.fault?.type, "InternalProviderError")
        assert.strictEqual((yield* targetCalls).length, 2)
      }
    }))

  it.effect("the log of a shed call says that its target was busy", () =>
    Effect.gen(function*() {
      const { generate } = yield* build({ A: { turns: [Turn.delay(ok, "10 seconds")], backpressure: { capacity: 1 } } })
      yield* Effect.forkChild(generate)
      yield* TestClock.adjust("1 second")
      const [exit, logs] = yield* ResilientModel.withLogs(generate)
      assert.strictEqual(summaryOf(exit), "BackpressureShed")
      assert.deepStrictEqual(
        logs[0]?.steps.map((step) => step._tag === "Skipped" ? `${step.target} ${step.why}` : "Attempt"),
        ["A Busy"]
      )
    }))
})
