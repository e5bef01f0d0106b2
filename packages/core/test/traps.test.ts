/**
 * Bugs of other libraries, one test each, named after the bug. Those of a single module are in that module's tests.
 * The last test here checks that each has a test.
 */
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as Outcome from "@sluice/core/Outcome"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { type Breaker, oneFailure, stateTag, withBreaker } from "./support/breakers.ts"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"
import { remoteStore } from "./support/stores.ts"

const millisToProbe = (breaker: Breaker) =>
  Effect.map(Effect.flip(succeedCall(breaker)), ({ retryAfter }) => Duration.toMillis(retryAfter))

/** A failing call with a Retry-After. */
const failWithHint = (breaker: Breaker, retryAfter: Duration.Input) =>
  Effect.fail("429").pipe(
    breaker.guard({ classify: () => Outcome.failure({ retryAfter: Duration.fromInputUnsafe(retryAfter) }) }),
    Effect.exit
  )

describe("traps of other libraries", () => {
  it.effect("late success closing HalfOpen (Polly #217)", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        const late = yield* startCall(breaker)
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        const probe = yield* startCall(breaker)
        yield* late.succeed
        assert.strictEqual(yield* stateTag(breaker), "HalfOpen")
        assert.isTrue(Exit.isFailure(yield* Effect.exit(succeedCall(breaker))))
        yield* probe.fail
        assert.strictEqual(yield* stateTag(breaker), "Open")
      })))

  it.effect("cancelled probe closes circuit (Polly)", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        const probe = yield* startCall(breaker)
        yield* probe.interrupt
        assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
        yield* failCalls(breaker, 1)
        assert.strictEqual(yield* stateTag(breaker), "Open")
      })))

  it.effect("ignored error eats the last permit (r4j #544, opossum #388)", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        for (const outcome of [Outcome.ignored, Outcome.throttled()]) {
          const probe = yield* Effect.exit(breaker.guard(Effect.fail("404"), { classify: () => outcome }))
          assert.deepStrictEqual(probe, Exit.fail("404"))
        }
        assert.strictEqual(yield* succeedCall(breaker), "an answer")
        assert.strictEqual(yield* stateTag(breaker), "Closed")
      })))

  it.effect("second open() cancels the reopen timer (opossum #385)", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        const second = yield* startCall(breaker)
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("20 seconds")
        yield* second.fail
        assert.strictEqual(yield* millisToProbe(breaker), 10_000)
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* succeedCall(breaker), "an answer")

        const forced = { mode: "ForcedOpen", reason: "maintenance", for: "30 seconds" } as const
        yield* breaker.control(forced)
        yield* breaker.control(forced)
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(yield* succeedCall(breaker), "an answer")
      })))

  it.effect("lock across the call (gobreaker)", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.CircuitBreaker
      const calls = yield* Effect.forEach(Array.from({ length: 10 }), () => startCall(breaker))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(calls.filter(({ ran }) => !ran()), [])
    }).pipe(Effect.provide(CircuitBreaker.layerStore(oneFailure).pipe(Layer.provide(remoteStore(20))))))

  it.effect("hint shorter than the current cooldown (litellm #40130)", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        const late = (seconds: number) =>
          startCall(breaker, { classify: () => Outcome.failure({ retryAfter: Duration.seconds(seconds) }) })
        const [longer, shorter] = [yield* late(40), yield* late(5)]
        yield* failWithHint(breaker, "5 seconds")
        assert.strictEqual(yield* millisToProbe(breaker), 30_000)
        yield* longer.fail
        assert.strictEqual(yield* millisToProbe(breaker), 40_000)
        yield* shorter.fail
        assert.strictEqual(yield* millisToProbe(breaker), 40_000)
      })))

  it.effect("hint longer than the current cooldown (inspect_ai #5138)", () =>
    withBreaker({ ...oneFailure, maxOpenFor: "1 minute" }, (breaker) =>
      Effect.gen(function*() {
        yield* failWithHint(breaker, "1 day")
        const refused = yield* Effect.flip(succeedCall(breaker))
        assert.strictEqual(Duration.toMillis(refused.retryAfter), 60_000)
        assert.strictEqual(refused.hint && Duration.toMillis(refused.hint), 86_400_000)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* succeedCall(breaker), "an answer")
      })))

  it.effect("budget exhaustion killing live attempts (fsgo #141)", () =>
    Effect.gen(function*() {
      let attempts = 0
      const policy = RetryPolicy.constant({ maxAttempts: 2, baseDelay: "1 second", jitter: "none" })
      const call = Effect.suspend(() =>
        ++attempts < 2 ? Effect.fail("503") : Effect.delay(Effect.succeed("late"), "1 hour")
      )
      const nested = call.pipe(RetryPolicy.retry(policy), RetryPolicy.retry(policy))
      const fiber = yield* Effect.forkChild(nested, { startImmediately: true })
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual(attempts, 2)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* Fiber.join(fiber), "late")
    }))

  for (const jitter of ["none", "full", "equal", "decorrelated"] as const) {
    it.effect(`jitter overflow, or NaN, after many attempts (cockatiel #86, Polly #2163): ${jitter}`, () =>
      Effect.gen(function*() {
        const at: Array<number> = []
        const call = Effect.flatMap(Clock.currentTimeMillis, (now) => {
          at.push(now)
          return Effect.fail("503")
        })
        const policy = RetryPolicy.exponential({ maxAttempts: 1_200, factor: 1_000, maxDelay: "1 minute", jitter })
        const fiber = yield* Effect.forkChild(Effect.exit(RetryPolicy.retry(call, policy)), { startImmediately: true })
        yield* TestClock.adjust("1200 minutes")
        yield* Fiber.join(fiber)
        assert.lengthOf(at, 1_200)
        const waits = at.slice(1).map((now, nth) => now - at[nth]!)
        assert.isAtMost(Math.max(...waits), 60_000)
        assert.isAbove(Math.max(...waits.slice(-100)), 0)
      }))
  }

  it.effect("requests counted only at completion (go-zero #5011)", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        const calls = yield* Effect.forEach(Array.from({ length: 10 }), () => startCall(breaker))
        assert.strictEqual(calls.filter(({ ran }) => ran()).length, 1)

        const { snapshot, withPermit } = yield* Backpressure.make({ capacity: 2 })
        yield* Effect.forEach(Array.from({ length: 10 }), () =>
          Effect.forkChild(Effect.ignore(withPermit(Effect.never)), { startImmediately: true }))
        assert.deepInclude(yield* snapshot, { running: 2, admitted: 2 })
      }).pipe(Effect.scoped)))

  it.live("one timer or listener per key or per attempt (opossum #809, cockatiel #81)", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.CircuitBreaker
      const { dedupe } = yield* Deduplicator.make({ timeToLive: "1 hour" })
      const Answer = Deduplicator.operation<number>()("answer", { key: (n: number) => n })
      const before = timers()
      yield* Effect.forEach(Array.from({ length: 1_000 }, (_, n) => n), (n) =>
        Effect.andThen(failCalls(breaker, 1, `key ${n}`), dedupe(Effect.succeed(n), Answer(n))))
      assert.isBelow(timers() - before, few)

      const during: Array<number> = []
      const call = Effect.suspend(() => {
        during.push(timers())
        return Effect.fail("503")
      })
      const policy = RetryPolicy.constant({ maxAttempts: 20, baseDelay: "1 millis", jitter: "none" })
      yield* Effect.exit(RetryPolicy.retry(call, policy))
      assert.lengthOf(during, 20)
      assert.isBelow(Math.max(...during, timers()) - before, few)
    }).pipe(Effect.provide(CircuitBreaker.layer(oneFailure))))

  it("every trap has a test that is named after it", () => {
    const tests = globSync("packages/*/test/**/*.test.ts", { cwd: root }).map((file) =>
      readFileSync(root + file, "utf8")
    )
    const titles = tests.flatMap((text) =>
      [...text.matchAll(/\bit(?:\.\w+)?\(\s*["`]([^"`]+)["`]/g)].map(([, title = ""]) => title)
    )
    assert.deepStrictEqual(traps.filter((trap) => !titles.some((title) => title.includes(trap))), [])
  })
})

/** All traps. Some are tested here, some in the tests of their module. */
const traps = [
  "late success closing HalfOpen",
  "cancelled probe closes circuit",
  "ignored error eats the last permit",
  "second open() cancels the reopen timer",
  "lock across the call",
  "hint shorter than the current cooldown",
  "hint longer than the current cooldown",
  "queued waiters slipping past",
  "abort leaves a dead waiter",
  "re-joining a cancelled flight",
  "budget exhaustion killing live attempts",
  "jitter overflow",
  "requests counted only at completion",
  "one timer or listener per key or per attempt"
]

const root = fileURLToPath(new URL("../../..", import.meta.url))

// The test runner has timers as well, which come and go.
const few = 5

/** The timers of this process. */
const timers = (): number => process.getActiveResourcesInfo().filter((resource) => resource === "Timeout").length
