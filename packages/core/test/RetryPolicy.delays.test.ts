import * as Outcome from "@sluice/core/Outcome"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { assert, describe, it, vi } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Random, Schedule } from "effect"
import { busy, during, flaky, plain, stoppedBy } from "./support/retries.ts"

const millis = (policy: RetryPolicy.RetryPolicy, attempts: ReadonlyArray<number>) =>
  attempts.map((attempt) => Duration.toMillis(RetryPolicy.delayFor(policy, attempt)))

describe("RetryPolicy", () => {
  describe("delayFor", () => {
    it("delayFor starts with baseDelay and doubles", () => {
      assert.deepStrictEqual(millis(RetryPolicy.exponential({ baseDelay: 100 }), [1, 2, 3, 4]), [100, 200, 400, 800])
    })

    it("delayFor grows by the factor", () => {
      assert.deepStrictEqual(millis(RetryPolicy.exponential({ baseDelay: 100, factor: 3 }), [1, 2, 3]), [100, 300, 900])
      assert.deepStrictEqual(millis(RetryPolicy.constant({ baseDelay: 100 }), [1, 2, 99]), [100, 100, 100])
    })

    it("delayFor never exceeds maxDelay, even with a larger baseDelay", () => {
      const policy = RetryPolicy.exponential({ maxAttempts: 3, baseDelay: "10 seconds" })
      assert.deepStrictEqual(millis(policy, [3, 4, 10]), [40_000, 60_000, 60_000])
      assert.deepStrictEqual(millis(RetryPolicy.exponential({ baseDelay: "2 minutes" }), [1]), [60_000])
      assert.deepStrictEqual(millis(RetryPolicy.exponential({ baseDelay: 100, maxDelay: 150 }), [1, 2]), [100, 150])
    })

    it("delayFor treats an attempt below 1 as the first", () => {
      assert.deepStrictEqual(millis(plain(), [0, -1, -1e9, -Infinity]), [1_000, 1_000, 1_000, 1_000])
    })

    it("delayFor neither overflows nor falls to zero for any attempt", () => {
      assert.deepStrictEqual(millis(plain(), [1e9, Number.MAX_SAFE_INTEGER, Infinity]), [60_000, 60_000, 60_000])
      assert.deepStrictEqual(millis(plain(), [NaN]), [1_000])
      assert.deepStrictEqual(millis(plain({ factor: NaN }), [2]), [60_000])
      assert.deepStrictEqual(millis(plain({ factor: Infinity }), [1, 2]), [1_000, 60_000])
    })

    it("delayFor is zero for a baseDelay of zero, at any attempt", () => {
      assert.deepStrictEqual(millis(plain({ baseDelay: 0 }), [1, 1e9, Infinity]), [0, 0, 0])
    })

    it("delayFor with invalid options falls back to the maximum delay and never shrinks", () => {
      for (const baseDelay of [NaN, -1, "soon", { seconds: NaN }, { seconds: "5" }] as ReadonlyArray<unknown>) {
        // As a JavaScript caller can.
        const policy = plain({ baseDelay: baseDelay as Duration.Input, factor: 1 })
        assert.deepStrictEqual(millis(policy, [1, 5]), [60_000, 60_000])
      }
      for (const factor of [0, -2, 0.5, -Infinity]) {
        assert.deepStrictEqual(millis(plain({ factor }), [1, 2, 1e9]), [1_000, 60_000, 60_000], `${factor}`)
      }
      for (const maxDelay of [NaN, -1, "late", { days: NaN }] as ReadonlyArray<unknown>) {
        assert.deepStrictEqual(millis(plain({ maxDelay: maxDelay as Duration.Input }), [1, 99]), [1_000, 60_000])
      }
      assert.deepStrictEqual(millis(plain({ maxDelay: "Infinity" }), [99_999]), [Number.MAX_SAFE_INTEGER])
    })

    it("delayFor supports delays of years", () => {
      const policy = plain({ baseDelay: "30 days", maxDelay: Duration.days(3_650) })
      assert.deepStrictEqual(millis(policy, [1, 2, 99]), [30, 60, 3_650].map((days) => days * 86_400_000))
    })
  })

  describe("jitter", () => {
    /** The delays between the attempts of each caller. All callers share one random source. */
    const delaysOf = (policy: RetryPolicy.RetryPolicy, callers: number) =>
      Effect.gen(function*() {
        const all: Array<ReadonlyArray<number>> = []
        for (let caller = 0; caller < callers; caller++) {
          const { at, call } = flaky(policy.maxAttempts - 1, "busy")
          yield* during(RetryPolicy.retry(call, policy), "1 hour")
          all.push(at.slice(1).map((time, index) => time - (at[index] ?? NaN)))
        }
        return all
      }).pipe(Random.withSeed("jitter"))

    it.effect("equal jitter waits at least half the backoff and spreads over the other half", () =>
      Effect.gen(function*() {
        const policy = plain({ jitter: "equal", maxAttempts: 3 })
        const all = yield* delaysOf(policy, 200)
        for (const [first = NaN, second = NaN] of all) {
          assert.isTrue(first >= 500 && first <= 1_000, `${first}`)
          assert.isTrue(second >= 1_000 && second <= 2_000, `${second}`)
        }
        const firsts = all.map(([first = NaN]) => first)
        assert.isBelow(Math.min(...firsts), 520)
        assert.isAbove(Math.max(...firsts), 980)
      }))

    it.effect("decorrelated jitter waits at least baseDelay and at most three times the last delay", () =>
      Effect.gen(function*() {
        const policy = plain({ jitter: "decorrelated", maxAttempts: 8, maxDelay: "20 seconds", factor: 7 })
        const all = yield* delaysOf(policy, 200)
        for (const delays of all) {
          delays.forEach((delay, index) => {
            const before = index === 0 ? 1_000 : delays[index - 1] ?? NaN
            assert.isTrue(delay >= 1_000 && delay <= Math.min(3 * before, 20_000) + 0.001, `${delay} after ${before}`)
          })
        }
        const firsts = all.map(([first = NaN]) => first)
        assert.isBelow(Math.min(...firsts), 1_100)
        assert.isAbove(Math.max(...firsts), 2_900)
        // Each delay can be longer than three times the first: they grow from the last one.
        const seconds = all.map(([, second = NaN]) => second)
        assert.isAbove(Math.max(...seconds), 6_000)
        // At maxDelay the delays are spread below it, not fixed at it.
        const atTheCap = all.map((delays) => delays[6] ?? NaN).filter((delay) => delay === 20_000)
        assert.isEmpty(atTheCap)
      }))

    it.effect("decorrelated jitter starts anew with each call", () =>
      Effect.gen(function*() {
        const policy = plain({ jitter: "decorrelated", maxAttempts: 9, maxDelay: "1 minute" })
        yield* delaysOf(policy, 3)
        const [[first = NaN] = []] = yield* delaysOf(policy, 1)
        assert.isBelow(first, 3_000)
      }))

    it.effect("full jitter spreads callers that failed together over the whole backoff", () =>
      Effect.gen(function*() {
        const returned: Array<number> = []
        const caller = Effect.suspend(() => {
          const { at, call } = flaky(1, "busy")
          return Effect.tap(
            RetryPolicy.retry(call, plain({ jitter: "full" })),
            () => Effect.sync(() => returned.push((at[1] ?? NaN) - (at[0] ?? NaN)))
          )
        })
        yield* during(Effect.all(Array.from({ length: 1_000 }, () => caller), { concurrency: "unbounded" }), "1 second")
        assert.strictEqual(returned.length, 1_000)
        assert.isTrue(returned.every((delay) => delay >= 0 && delay <= 1_000))
        for (let tenth = 0; tenth < 10; tenth++) {
          const within = returned.filter((delay) => delay >= tenth * 100 && delay < (tenth + 1) * 100).length
          assert.isTrue(within > 60 && within < 140, `${within} of 1000 in tenth ${tenth}`)
        }
      }).pipe(Random.withSeed("spread")))

    it.effect("a seed reproduces the jitter", () =>
      Effect.gen(function*() {
        const run = (seed: string) =>
          Effect.gen(function*() {
            const start = yield* Clock.currentTimeMillis
            const { at, call } = flaky(3, "busy")
            yield* during(RetryPolicy.retry(call, plain({ jitter: "full" })), "1 minute")
            return at.map((time) => Math.round(time - start))
          }).pipe(Random.withSeed(seed))
        const [first, again, other] = [yield* run("a"), yield* run("a"), yield* run("b")]
        assert.strictEqual(first.length, 4)
        assert.deepStrictEqual(first, again)
        assert.notDeepEqual(first, other)
      }))
  })

  describe("Retry-After", () => {
    it.effect("retry waits for the longer of Retry-After and backoff", () =>
      Effect.gen(function*() {
        const long = flaky(1, busy("5 seconds"))
        yield* during(RetryPolicy.retry(long.call, plain()), "5 seconds")
        assert.deepStrictEqual(long.at, [0, 5_000])
        const short = flaky(1, busy("10 millis"))
        yield* during(RetryPolicy.retry(short.call, plain()), "1 second")
        assert.deepStrictEqual(short.at, [5_000, 6_000])
      }))

    it.effect("Retry-After is a floor, to which full jitter adds", () =>
      Effect.gen(function*() {
        const returned: Array<number> = []
        const caller = Effect.suspend(() => {
          const { at, call } = flaky(1, busy("5 seconds"))
          return Effect.tap(
            RetryPolicy.retry(call, plain({ jitter: "full" })),
            () => Effect.sync(() => returned.push(at[1] ?? NaN))
          )
        })
        yield* during(Effect.all(Array.from({ length: 200 }, () => caller), { concurrency: "unbounded" }), "6 seconds")
        assert.strictEqual(returned.length, 200)
        assert.isTrue(returned.every((time) => time >= 5_000 && time <= 6_000))
        assert.isBelow(Math.min(...returned), 5_100)
        assert.isAbove(Math.max(...returned), 5_900)
      }).pipe(Random.withSeed("floor")))

    it.effect("Retry-After is a floor for every jitter, which adds at most its own spread", () =>
      Effect.gen(function*() {
        for (const [jitter, spread] of [["equal", 500], ["decorrelated", 2_000]] as const) {
          for (let caller = 0; caller < 50; caller++) {
            const { at, call } = flaky(1, busy("5 seconds"))
            yield* during(RetryPolicy.retry(call, plain({ jitter })), "8 seconds")
            const [first = NaN, second = NaN] = at
            assert.isTrue(second - first >= 5_000 && second - first <= 5_000 + spread, `${jitter}: ${second - first}`)
          }
        }
      }).pipe(Random.withSeed("floors")))

    it.effect("Retry-After does not lengthen later decorrelated delays", () =>
      Effect.gen(function*() {
        let calls = 0
        const at: Array<number> = []
        const call = Effect.flatMap(Clock.currentTimeMillis, (now) => {
          at.push(now)
          return Effect.fail(++calls === 1 ? busy("50 seconds") : busy())
        })
        yield* during(RetryPolicy.retry(call, plain({ jitter: "decorrelated", maxAttempts: 3 })), "1 hour")
        const [, second = NaN, third = NaN] = at
        assert.isAtMost(third - second, 9_000)
      }).pipe(Random.withSeed("hint")))

    it.effect("maxDelay does not shorten Retry-After", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(1, busy("30 seconds"))
        yield* during(RetryPolicy.retry(call, plain({ maxDelay: "2 seconds" })), "30 seconds")
        assert.deepStrictEqual(at, [0, 30_000])
      }))

    it.effect("Retry-After of a Throttled outcome counts like that of a failure", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(1, "slow down")
        const classify = (exit: Exit.Exit<unknown, unknown>) =>
          Exit.isFailure(exit) ? Outcome.throttled({ retryAfter: Duration.seconds(9) }) : undefined
        yield* during(RetryPolicy.retry(call, plain(), { classify }), "9 seconds")
        assert.deepStrictEqual(at, [0, 9_000])
      }))

    it.effect("a Retry-After above maxRetryAfter ends the retry at once with the attempt's error", () =>
      Effect.gen(function*() {
        for (const hint of ["60001 millis", "365 days", "Infinity"] as const) {
          const { at, call } = flaky(9, busy(hint))
          const exit = yield* Effect.exit(RetryPolicy.retry(call, plain()))
          assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "RetryAfterTooLong", attempts: 1 }])
          assert.isTrue(Exit.hasFails(exit))
        }
      }))

    it.effect("retry waits for a Retry-After of exactly maxRetryAfter", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(1, busy("60 seconds"))
        yield* during(RetryPolicy.retry(call, plain()), "60 seconds")
        assert.deepStrictEqual(at, [0, 60_000])
      }))

    it.effect("a negative Retry-After does not shorten the backoff", () =>
      Effect.gen(function*() {
        const past = busy(Duration.millis(-5_000))
        const { at, call } = flaky(1, past)
        yield* during(RetryPolicy.retry(call, plain()), "1 second")
        assert.deepStrictEqual(at, [0, 1_000])
        const jittered = flaky(1, past)
        yield* during(RetryPolicy.retry(jittered.call, plain({ jitter: "full" })), "1 second")
        assert.isAbove(jittered.at[1] ?? NaN, 1_000)
      }).pipe(Random.withSeed("past")))

    it.effect("a Retry-After of 30 days lasts 30 days", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(1, busy("30 days"))
        const policy = plain({ maxRetryAfter: "31 days" })
        yield* during(RetryPolicy.retry(call, policy), "30 days")
        assert.deepStrictEqual(at, [0, 30 * 86_400_000])
      }))

    it.live("a Retry-After of 30 days lasts 30 days on setTimeout, which is limited to 24.8 days", () =>
      Effect.gen(function*() {
        vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] })
        yield* Effect.addFinalizer(() => Effect.sync(() => vi.useRealTimers()))
        const start = Date.now()
        const { at, call } = flaky(1, busy("30 days"))
        const fiber = yield* Effect.forkChild(RetryPolicy.retry(call, plain({ maxRetryAfter: "31 days" })), {
          startImmediately: true
        })
        yield* Effect.promise(() => vi.advanceTimersByTimeAsync(30 * 86_400_000 - 1))
        assert.strictEqual(at.length, 1)
        yield* Effect.promise(() => vi.advanceTimersByTimeAsync(1))
        assert.strictEqual(yield* Fiber.join(fiber), "answer")
        assert.strictEqual((at[1] ?? NaN) - start, 30 * 86_400_000)
      }))
  })

  describe("toSchedule", () => {
    it.effect("toSchedule makes the attempts of the policy, with the delays of delayFor", () =>
      Effect.gen(function*() {
        for (
          const policy of [
            plain(),
            plain({ maxAttempts: 9, maxDelay: "5 seconds" }),
            RetryPolicy.constant({ jitter: "none" })
          ]
        ) {
          const { at, call } = flaky(99, "busy")
          yield* during(Effect.retry(call, RetryPolicy.toSchedule(policy)), "1 hour")
          const delays = at.slice(1).map((time, index) => time - (at[index] ?? NaN))
          assert.strictEqual(at.length, policy.maxAttempts)
          assert.deepStrictEqual(delays, millis(policy, delays.map((_, index) => index + 1)))
        }
      }))

    it.effect("toSchedule of none makes one attempt", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(99, "busy")
        yield* Effect.exit(Effect.retry(call, RetryPolicy.toSchedule(RetryPolicy.none)))
        assert.strictEqual(at.length, 1)
      }))

    it.effect("toSchedule with decorrelated jitter depends on the last delay, anew for each run", () =>
      Effect.gen(function*() {
        const schedule = RetryPolicy.toSchedule(
          plain({ maxAttempts: 50, jitter: "decorrelated", maxDelay: "1 minute" })
        )
        for (let run = 0; run < 20; run++) {
          const step = yield* Schedule.toStep(schedule)
          let before = 1_000
          for (let attempt = 1; attempt < 50; attempt++) {
            const [, delay] = yield* step(0, "busy")
            const millis = Duration.toMillis(delay)
            assert.isTrue(
              millis >= 1_000 && millis <= Math.min(3 * before, 60_000) + 0.001,
              `${millis} after ${before}`
            )
            before = millis
          }
          assert.isAbove(before, 0)
        }
      }).pipe(Random.withSeed("decorrelated")))

    it.effect("toSchedule keeps full jitter within delayFor, and outputs the failed attempts", () =>
      Effect.gen(function*() {
        const policy = plain({ maxAttempts: 200, jitter: "full" })
        const step = yield* Schedule.toStep(RetryPolicy.toSchedule(policy))
        const delays: Array<number> = []
        for (let attempt = 1; attempt < 200; attempt++) {
          const [output, delay] = yield* step(0, "busy")
          assert.strictEqual(output, attempt)
          assert.isTrue(Duration.isLessThanOrEqualTo(delay, RetryPolicy.delayFor(policy, attempt)))
          delays.push(Duration.toMillis(delay))
        }
        assert.isAbove(new Set(delays).size, 190)
      }).pipe(Random.withSeed("schedule")))
  })
})
