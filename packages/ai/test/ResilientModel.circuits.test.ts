import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect } from "effect"
import type { AiError } from "effect/ai"
import { TestClock } from "effect/testing"
import * as Turn from "@sluice/ai/testing/Turn"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import {
  atOnce,
  build,
  errorOf,
  failed,
  ok,
  plainRetry,
  readAll,
  rejectionOf,
  runFor,
  single,
  summaryOf,
  valueOf
} from "./support/resilient.ts"

const Question = Deduplicator.operation<string, AiError.AiError>()("question", { key: (text: string) => text })

const limited = (retryAfter: Duration.Input) => Turn.refusal("rateLimit", { retryAfter })

describe("the default circuit of a target", () => {
  it.effect("a circuit opens for 5 seconds, and while its probes fail for 10, 20, and then always 30 seconds", () =>
    Effect.gen(function*() {
      const { generate, resilient, targetCalls } = yield* build({ A: [failed] }, { retry: RetryPolicy.none })
      for (let n = 1; n <= 5; n++) yield* runFor(0, generate)
      const openFor: Array<number> = []
      for (const seconds of [5, 10, 20, 30, 30, 30]) {
        const [target] = yield* resilient.targets
        assert.strictEqual(target?.circuit?._tag, "Open")
        const refused = errorOf(yield* runFor(0, generate))
        openFor.push(Duration.toSeconds(refused.retryAfter ?? 0))
        yield* TestClock.adjust(Duration.seconds(seconds))
        // The probe.
        assert.strictEqual(summaryOf(yield* runFor(0, generate)), "InternalProviderError")
      }
      assert.deepStrictEqual(openFor, [5, 10, 20, 30, 30, 30])
      assert.strictEqual((yield* targetCalls).length, 5 + 6)
    }))

  it.effect("a primary that came back at 60 seconds answers again at 65 seconds, by the probe that is due", () =>
    Effect.gen(function*() {
      const { generate } = yield* build({
        A: ({ n }) => n <= 8 ? failed : Turn.answer("back"),
        B: [ok]
      }, atOnce)
      for (let n = 1; n <= 5; n++) yield* runFor(0, generate)
      let back = Number.POSITIVE_INFINITY
      for (let second = 1; second <= 76; second++) {
        yield* TestClock.adjust("1 second")
        if (summaryOf(yield* runFor(0, generate)) === "back") back = Math.min(back, second)
      }
      // Probes at 5, 15, 35 and 65 seconds.
      assert.strictEqual(back, 65)
    }))

  it.effect("options of a circuit replace only the defaults that they name", () =>
    Effect.gen(function*() {
      const { generate } = yield* build({ A: { turns: [failed], breaker: { openFor: "7 seconds" } } }, {
        retry: RetryPolicy.none
      })
      for (let n = 1; n <= 5; n++) yield* runFor(0, generate)
      assert.deepStrictEqual(errorOf(yield* runFor(0, generate)).retryAfter, Duration.seconds(7))
      const short = yield* build({ A: { turns: [failed], breaker: { trip: CircuitBreaker.consecutive(1) } } }, {
        retry: RetryPolicy.none
      })
      yield* runFor(0, short.generate)
      assert.deepStrictEqual(errorOf(yield* runFor(0, short.generate)).retryAfter, Duration.seconds(5))
    }))
})

describe("circuits of targets", () => {
  const breaker = { trip: CircuitBreaker.consecutive(2), openFor: "30 seconds" } as const
  const down: ReadonlyArray<Turn.Turn> = [failed, failed]

  it.effect("the open circuit of a single target refuses with its evidence and Retry-After, as a RateLimitError", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: { turns: [...down, ok], breaker } }, {
        retry: RetryPolicy.none
      })
      yield* runFor(0, generate)
      yield* runFor(0, generate)
      yield* TestClock.adjust("10 seconds")
      const exit = yield* runFor(0, generate)
      assert.deepInclude(rejectionOf(exit), { _tag: "CircuitOpen", policy: "model/A", failures: 2 })
      assert.strictEqual(errorOf(exit).reason._tag, "RateLimitError")
      assert.deepStrictEqual(errorOf(exit).retryAfter, Duration.seconds(20))
      assert.strictEqual((yield* targetCalls).length, 2)
    }))

  it.effect("a circuit that opens within a call ends it with the provider's error, and the next call is refused", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: { turns: [...down, ok], breaker } }, {
        retry: plainRetry({ maxAttempts: 5 })
      })
      assert.strictEqual(summaryOf(yield* runFor("10 minutes", generate)), "InternalProviderError")
      assert.strictEqual((yield* targetCalls).length, 2)
      const again = yield* build({ A: { turns: [...down, ok], breaker } })
      yield* runFor("3 seconds", again.generate)
      assert.strictEqual(summaryOf(yield* runFor(0, again.generate)), "CircuitOpen")
      assert.strictEqual((yield* again.targetCalls).length, 2)
    }))

  it.effect("a refusal for several reasons lists the targets in their order", () =>
    Effect.gen(function*() {
      const { generate } = yield* build({
        A: { turns: down, breaker: { ...breaker, trip: CircuitBreaker.consecutive(1) } },
        B: [limited("1 hour")],
        C: [Turn.refusal("key")]
      })
      yield* runFor(0, generate)
      const rejection = rejectionOf(yield* runFor(0, generate))
      assert.deepStrictEqual(
        rejection._tag === "NoTarget" ? rejection.targets.map(({ target, why }) => `${target} ${why}`) : [],
        ["A CircuitOpen", "B RateLimited", "C Credential"]
      )
    }))

  it.effect("if all circuits are open, the refusal has the soonest Retry-After and a reason per target", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({
        A: { turns: down, breaker },
        B: { turns: down, breaker: { ...breaker, openFor: "12 seconds" } }
      }, { retry: plainRetry({ maxAttempts: 4 }) })
      yield* runFor("6 seconds", generate)
      const exit = yield* runFor(0, generate)
      const rejection = rejectionOf(exit)
      assert.strictEqual(rejection._tag, "NoTarget")
      assert.deepStrictEqual(
        rejection._tag === "NoTarget" ? rejection.targets.map(({ target, why }) => `${target} ${why}`) : [],
        ["A CircuitOpen", "B CircuitOpen"]
      )
      const { retryAfter } = errorOf(exit)
      assert.isTrue(retryAfter !== undefined && Duration.isLessThanOrEqualTo(retryAfter, Duration.seconds(12)))
      assert.strictEqual((yield* targetCalls).length, 4)
    }))

  it.effect("if all circuits are open, whenAllOpen \"leastBad\" calls the target that recovers first", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({
        A: { turns: [...down, ok], breaker },
        B: { turns: [...down, ok], breaker: { ...breaker, openFor: "12 seconds" } }
      }, { retry: plainRetry({ maxAttempts: 4 }), whenAllOpen: "leastBad" })
      yield* runFor("6 seconds", generate)
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
      assert.strictEqual((yield* targetCalls).at(-1)?.startsWith("B Answer"), true)
    }))

  it.effect("a call with a late enough deadline waits until a circuit admits a probe", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: { turns: [...down, ok], breaker } }, {
        retry: RetryPolicy.none
      })
      yield* runFor(0, generate)
      yield* runFor(0, generate)
      const exit = yield* runFor("40 seconds", Deadline.within(generate, "1 minute"))
      assert.strictEqual(summaryOf(exit), "good")
      assert.strictEqual((yield* targetCalls).at(-1), "A Answer complete 30-30")
    }))

  it.effect("a successful probe closes the circuit", () =>
    Effect.gen(function*() {
      const { generate, resilient, targetCalls } = yield* build(
        { A: { turns: [...down, ok], breaker }, B: [ok] },
        atOnce
      )
      yield* runFor(0, generate)
      yield* runFor(0, generate)
      const state = Effect.map(resilient.targets, ([first]) => first?.circuit?._tag)
      assert.strictEqual(yield* state, "Open")
      yield* runFor(0, generate)
      yield* TestClock.adjust("30 seconds")
      yield* runFor(0, generate)
      assert.strictEqual(yield* state, "Closed")
      assert.deepStrictEqual(yield* targetCalls, [
        "A Status failed 0-0",
        "A Status failed 0-0",
        "A Answer complete 30-30",
        "B Answer complete 0-0",
        "B Answer complete 0-0",
        "B Answer complete 0-0"
      ])
    }))

  it.effect("a call that arrives during a probe goes to the next target", () =>
    Effect.gen(function*() {
      const slow = Turn.delay(ok, "5 seconds")
      const { generate, targetCalls } = yield* build({ A: { turns: [...down, slow], breaker }, B: [ok] }, atOnce)
      yield* runFor(0, generate)
      yield* runFor(0, generate)
      yield* TestClock.adjust("30 seconds")
      const both = yield* runFor("5 seconds", Effect.all([generate, generate], { concurrency: 2 }))
      assert.deepStrictEqual(valueOf(both), ["good", "good"])
      assert.strictEqual((yield* targetCalls).filter((line) => line.startsWith("A")).length, 3)
    }))

  it.effect("`breaker: false` switches the circuit off", () =>
    Effect.gen(function*() {
      const { generate, resilient, targetCalls } = yield* build({ A: { turns: [failed], breaker: false } })
      for (let i = 0; i < 20; i++) yield* runFor("10 seconds", generate)
      assert.strictEqual((yield* targetCalls).length, 60)
      assert.isUndefined((yield* resilient.targets)[0]?.circuit)
    }))
})

describe("permits of targets", () => {
  const slow = Turn.delay(ok, "10 seconds")

  it.effect("a busy target is skipped", () =>
    Effect.gen(function*() {
      const { generate, inUse, targetCalls } = yield* build({ A: { turns: [slow], backpressure: single }, B: [slow] })
      const exit = yield* runFor("10 seconds", Effect.all([generate, generate], { concurrency: 2 }))
      assert.deepStrictEqual(valueOf(exit), ["good", "good"])
      assert.deepStrictEqual(yield* targetCalls, ["A Answer complete 0-10", "B Answer complete 0-10"])
      assert.strictEqual(yield* inUse, 0)
    }))

  it.effect("a call is queued if all targets are busy", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: { turns: [slow], backpressure: single } })
      const exit = yield* runFor("20 seconds", Effect.all([generate, generate], { concurrency: 2 }))
      assert.deepStrictEqual(valueOf(exit), ["good", "good"])
      assert.deepStrictEqual(yield* targetCalls, ["A Answer complete 0-10", "A Answer complete 10-20"])
    }))

  it.effect("a flight whose callers have no deadline queues without a time limit", () =>
    Effect.gen(function*() {
      const { generate, inUse, stream } = yield* build({ A: { turns: [slow], backpressure: single } })
      const { dedupe } = yield* Deduplicator.make()
      const shared = (question: string) => dedupe(generate, Question(question))
      const streamed = dedupe(Effect.map(readAll(stream), ({ text }) => text), Question("c"))
      const exit = yield* runFor("30 seconds", Effect.all([shared("a"), shared("b"), streamed], { concurrency: 3 }))
      assert.deepStrictEqual(valueOf(exit), ["good", "good", "good"])
      assert.strictEqual(yield* inUse, 0)
    }))

  it.effect("a call queues no longer than maxWait and not past the deadline", () =>
    Effect.gen(function*() {
      const backpressure = { capacity: 1, queue: 10, maxWait: "2 seconds" } as const
      const options = [[9_000, "BackpressureShed"], [undefined, "BackpressureShed"], [
        1_000,
        "DeadlineExceeded"
      ]] as const
      for (const [millis, expected] of options) {
        const { generate, inUse, targetCalls } = yield* build({
          A: { turns: [Turn.delay(ok, "8 seconds")], backpressure }
        })
        yield* Effect.forkChild(Effect.exit(generate), { startImmediately: true })
        const now = yield* Clock.currentTimeMillis
        const deadline = millis === undefined ? undefined : { at: now + millis, budgetMillis: millis }
        const exit = yield* runFor("2 seconds", Effect.provideService(generate, Deadline.Deadline, deadline))
        assert.strictEqual(summaryOf(exit), expected)
        yield* TestClock.adjust("8 seconds")
        assert.strictEqual((yield* targetCalls).length, 1)
        assert.strictEqual(yield* inUse, 0)
      }
    }))
})
