import { assert, describe, it, vi } from "@effect/vitest"
import { Cause, Clock, Data, Duration, Effect, Exit, Fiber, Option, Random, Schedule, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Deadline from "../src/Deadline.ts"
import * as Outcome from "../src/Outcome.ts"
import * as RetryPolicy from "../src/RetryPolicy.ts"
import { yields } from "./support/probe.ts"
import { during, flaky, plain, stoppedBy } from "./support/retries.ts"

class Busy extends Data.TaggedError("Busy")<{
  readonly retryAfter?: Duration.Duration | undefined
  readonly isRetryable?: boolean | undefined
}> {}

const busy = (retryAfter?: Duration.Input) =>
  new Busy({ retryAfter: retryAfter === undefined ? undefined : Duration.fromInputUnsafe(retryAfter) })

const millis = (policy: RetryPolicy.RetryPolicy, attempts: ReadonlyArray<number>) =>
  attempts.map((attempt) => Duration.toMillis(RetryPolicy.delayFor(policy, attempt)))

describe("RetryPolicy", () => {
  describe("delayFor", () => {
    it("begins with the base and doubles", () => {
      assert.deepStrictEqual(millis(RetryPolicy.exponential({ baseDelay: 100 }), [1, 2, 3, 4]), [100, 200, 400, 800])
    })

    it("grows by the factor", () => {
      assert.deepStrictEqual(millis(RetryPolicy.exponential({ baseDelay: 100, factor: 3 }), [1, 2, 3]), [100, 300, 900])
      assert.deepStrictEqual(millis(RetryPolicy.constant({ baseDelay: 100 }), [1, 2, 99]), [100, 100, 100])
    })

    it("is held at the cap, also where the base is above it", () => {
      const policy = RetryPolicy.exponential({ maxAttempts: 3, baseDelay: "10 seconds" })
      assert.deepStrictEqual(millis(policy, [3, 4, 10]), [40_000, 60_000, 60_000])
      assert.deepStrictEqual(millis(RetryPolicy.exponential({ baseDelay: "2 minutes" }), [1]), [60_000])
      assert.deepStrictEqual(millis(RetryPolicy.exponential({ baseDelay: 100, maxDelay: 150 }), [1, 2]), [100, 150])
    })

    it("reads an attempt below 1 as the first", () => {
      assert.deepStrictEqual(millis(plain(), [0, -1, -1e9, -Infinity]), [1_000, 1_000, 1_000, 1_000])
    })

    it("overflows for no attempt, and never falls to zero", () => {
      assert.deepStrictEqual(millis(plain(), [1e9, Number.MAX_SAFE_INTEGER, Infinity]), [60_000, 60_000, 60_000])
      assert.deepStrictEqual(millis(plain(), [NaN]), [1_000])
      assert.deepStrictEqual(millis(plain({ factor: NaN }), [2]), [60_000])
      assert.deepStrictEqual(millis(plain({ factor: Infinity }), [1, 2]), [1_000, 60_000])
    })

    it("of a base of zero is zero, at any attempt", () => {
      assert.deepStrictEqual(millis(plain({ baseDelay: 0 }), [1, 1e9, Infinity]), [0, 0, 0])
    })

    it("waits for the cap where nobody can tell how long, and never shrinks", () => {
      for (const baseDelay of [NaN, -1, "soon", { seconds: NaN }, { seconds: "5" }] as ReadonlyArray<unknown>) {
        // What a caller without types hands over.
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

    it("of years is years", () => {
      const policy = plain({ baseDelay: "30 days", maxDelay: Duration.days(3_650) })
      assert.deepStrictEqual(millis(policy, [1, 2, 99]), [30, 60, 3_650].map((days) => days * 86_400_000))
    })
  })

  describe("validate", () => {
    it.effect("accepts what the constructors make by default", () =>
      Effect.gen(function*() {
        for (const policy of [RetryPolicy.exponential(), RetryPolicy.constant(), RetryPolicy.none]) {
          assert.strictEqual(yield* RetryPolicy.validate(policy), policy)
        }
      }))

    it.effect("lists every option that makes no sense at once", () =>
      Effect.gen(function*() {
        const invalid = yield* Effect.flip(RetryPolicy.validate(RetryPolicy.exponential({
          maxAttempts: 0,
          baseDelay: 0,
          factor: 0.5,
          maxDelay: Duration.infinity,
          maxRetryAfter: Duration.infinity
        })))
        assert.strictEqual(invalid.module, "RetryPolicy")
        assert.deepStrictEqual(
          invalid.issues.map((issue) => issue.option),
          ["maxAttempts", "baseDelay", "factor", "maxDelay", "maxRetryAfter"]
        )
        assert.include(invalid.message, "maxAttempts is 0; must be a whole number of at least 1")
      }))

    it.effect("accepts every jitter, and delays of years", () =>
      Effect.gen(function*() {
        for (const jitter of ["none", "full", "equal", "decorrelated"] as const) {
          const long = { baseDelay: "30 days", maxDelay: "30 days", maxRetryAfter: "520 weeks" } as const
          yield* RetryPolicy.validate(RetryPolicy.exponential({ jitter, ...long }))
        }
      }))

    const wrongTypes: ReadonlyArray<readonly [option: string, values: ReadonlyArray<unknown>]> = [
      ["maxAttempts", ["3", 3n, {}, true]],
      ["baseDelay", ["soon", true, NaN, { seconds: "5" }, () => 1]],
      ["factor", ["2", {}, 2n, true]],
      ["maxDelay", ["late", true, NaN]],
      ["maxRetryAfter", ["never", true, NaN, { seconds: "1" }, Symbol("s")]],
      ["jitter", ["Full", 1, {}, ["full"]]]
    ]
    for (const [option, values] of wrongTypes) {
      for (const value of [null, ...values]) {
        it.effect(`refuses ${String(value)} (${typeof value}) for ${option}`, () =>
          Effect.gen(function*() {
            // What a caller without types hands over.
            const policy = { ...RetryPolicy.exponential(), [option]: value } as RetryPolicy.RetryPolicy
            const invalid = yield* Effect.flip(RetryPolicy.validate(policy))
            assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), [option])
          }))
      }
    }

    for (const policy of [null, undefined, 3, "exponential"] as ReadonlyArray<unknown>) {
      it.effect(`refuses ${String(policy)} for a policy`, () =>
        Effect.gen(function*() {
          // What a caller without types hands over.
          const invalid = yield* Effect.flip(RetryPolicy.validate(policy as RetryPolicy.RetryPolicy))
          assert.deepStrictEqual(invalid.issues, [{
            option: "policy",
            actual: policy,
            requirement: "must be a RetryPolicy"
          }])
        }))
    }

    for (const maxAttempts of [0, -1, 1.5, NaN, Infinity]) {
      it.effect(`refuses ${maxAttempts} attempts`, () =>
        Effect.gen(function*() {
          const invalid = yield* Effect.flip(RetryPolicy.validate(RetryPolicy.exponential({ maxAttempts })))
          assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["maxAttempts"])
        }))
    }

    for (const factor of [NaN, Infinity, 0, -2]) {
      it.effect(`refuses a factor of ${factor}`, () =>
        Effect.gen(function*() {
          const invalid = yield* Effect.flip(RetryPolicy.validate(RetryPolicy.exponential({ factor })))
          assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["factor"])
        }))
    }
  })

  describe("retry", () => {
    it.effect("waits the back-off between attempts, and hands on the answer", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(3, "busy")
        const exit = yield* during(call.pipe(RetryPolicy.retry(plain())), "7 seconds")
        assert.deepStrictEqual(exit, Exit.succeed("answer"))
        assert.deepStrictEqual(at, [0, 1_000, 3_000, 7_000])
      }))

    it.effect("leaves to its fiber the context that it had", () =>
      Effect.gen(function*() {
        const before = yield* Effect.context()
        for (const failures of [0, 1, 99]) {
          yield* Effect.exit(RetryPolicy.retry(flaky(failures, "busy").call, plain({ baseDelay: 0 })))
          assert.strictEqual(yield* Effect.context(), before)
        }
      }))

    it.effect("takes no time and one call when the first attempt succeeds", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(0, "busy")
        assert.strictEqual(yield* RetryPolicy.retry(call, plain()), "answer")
        assert.deepStrictEqual(at, [0])
      }))

    it.effect("fails with the last attempt's own error, and says that the attempts were used up", () =>
      Effect.gen(function*() {
        let calls = 0
        const call = Effect.suspend(() => Effect.fail(`error ${++calls}`))
        const exit = yield* during(RetryPolicy.retry(call, plain({ maxAttempts: 3 })), "3 seconds")
        assert.strictEqual(Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption)), "error 3")
        assert.deepStrictEqual(stoppedBy(exit), { why: "Attempts", attempts: 3 })
      }))

    it.effect("tries once with none", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(1, "busy")
        const exit = yield* Effect.exit(RetryPolicy.retry(call, RetryPolicy.none))
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Attempts", attempts: 1 }])
      }))

    it.effect("stops at once at an error that is final", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, new Busy({ isRetryable: false }))
        const exit = yield* Effect.exit(RetryPolicy.retry(call, plain()))
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Final", attempts: 1 }])
      }))

    it.effect("does not try again what was refused by a policy of ours", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, new Deadline.DeadlineExceeded({ at: "Queue", budget: Duration.seconds(1) }))
        const exit = yield* Effect.exit(RetryPolicy.retry(call, plain()))
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Final", attempts: 1 }])
      }))

    it.effect("does not try a defect again, and leaves it a defect", () =>
      Effect.gen(function*() {
        let calls = 0
        const exit = yield* Effect.exit(RetryPolicy.retry(Effect.suspend(() => Effect.die(++calls)), plain()))
        assert.isTrue(Exit.hasDies(exit))
        assert.deepStrictEqual([calls, stoppedBy(exit)], [1, { why: "Final", attempts: 1 }])
      }))

    it.effect("counts the attempts up to the final one", () =>
      Effect.gen(function*() {
        let calls = 0
        const call = Effect.suspend(() => Effect.fail(new Busy({ isRetryable: ++calls < 3 })))
        const exit = yield* during(RetryPolicy.retry(call, plain()), "3 seconds")
        assert.deepStrictEqual(stoppedBy(exit), { why: "Final", attempts: 3 })
      }))

    it("leaves a cause that no retry has seen without a reason", () => {
      assert.isTrue(Option.isNone(RetryPolicy.stopped(Cause.fail("busy"))))
    })
  })

  describe("who decides what is tried again", () => {
    it.effect("the call's own classifier, with the exit and the attempt's time", () =>
      Effect.gen(function*() {
        const seen: Array<readonly [string, number]> = []
        const call = Effect.delay(Effect.fail("mine" as const), "300 millis")
        const exit = yield* during(
          RetryPolicy.retry(call, plain(), {
            classify: (exit, elapsedMillis) => {
              seen.push([exit._tag, elapsedMillis])
              return Outcome.ignored
            }
          }),
          "1 second"
        )
        assert.deepStrictEqual(seen, [["Failure", 300]])
        assert.deepStrictEqual(stoppedBy(exit), { why: "Final", attempts: 1 })
      }))

    it.effect("the Classifier of the program, where the call's own passes", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, "busy")
        const exit = yield* Effect.exit(RetryPolicy.retry(call, plain(), { classify: () => undefined })).pipe(
          Effect.provideService(Outcome.Classifier, () => Outcome.failure({ retryable: false }))
        )
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Final", attempts: 1 }])
      }))

    it.effect("the Classifier of the program hears of successes too, and of the time that an attempt took", () =>
      Effect.gen(function*() {
        let calls = 0
        const call = Effect.delay(Effect.sync(() => ++calls), "200 millis")
        const slow = (exit: Exit.Exit<unknown, unknown>, elapsedMillis: number) =>
          exit._tag === "Success" && elapsedMillis >= 200 ? Outcome.failure() : Outcome.success
        const exit = yield* during(RetryPolicy.retry(call, plain({ maxAttempts: 3 })), "1 minute").pipe(
          Effect.provideService(Outcome.Classifier, slow)
        )
        assert.deepStrictEqual(exit, Exit.succeed(3))
      }))

    it.effect("a success may be called a failure; when all attempts are used it is handed on as it is", () =>
      Effect.gen(function*() {
        let calls = 0
        const call = Effect.sync(() => ++calls)
        const classify = () => Outcome.failure()
        const exit = yield* during(RetryPolicy.retry(call, plain(), { classify }), "7 seconds")
        assert.deepStrictEqual(exit, Exit.succeed(4))
      }))

    it.effect("a failure may be called a success", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, "not found")
        const exit = yield* Effect.exit(RetryPolicy.retry(call, plain(), { classify: () => Outcome.success }))
        assert.deepStrictEqual([at.length, exit], [1, Exit.fail("not found")])
      }))
  })

  describe("jitter", () => {
    /** The waits between so many attempts, of a thousand callers who share one source of chance. */
    const waits = (policy: RetryPolicy.RetryPolicy, callers: number) =>
      Effect.gen(function*() {
        const all: Array<ReadonlyArray<number>> = []
        for (let caller = 0; caller < callers; caller++) {
          const { at, call } = flaky(policy.maxAttempts - 1, "busy")
          yield* during(RetryPolicy.retry(call, policy), "1 hour")
          all.push(at.slice(1).map((time, index) => time - (at[index] ?? NaN)))
        }
        return all
      }).pipe(Random.withSeed("jitter"))

    it.effect("equal waits for half of the back-off at least, and spreads over the other half", () =>
      Effect.gen(function*() {
        const policy = plain({ jitter: "equal", maxAttempts: 3 })
        const all = yield* waits(policy, 200)
        for (const [first = NaN, second = NaN] of all) {
          assert.isTrue(first >= 500 && first <= 1_000, `${first}`)
          assert.isTrue(second >= 1_000 && second <= 2_000, `${second}`)
        }
        const firsts = all.map(([first = NaN]) => first)
        assert.isBelow(Math.min(...firsts), 520)
        assert.isAbove(Math.max(...firsts), 980)
      }))

    it.effect("decorrelated waits for the base at least, and for three times the wait before at most", () =>
      Effect.gen(function*() {
        const policy = plain({ jitter: "decorrelated", maxAttempts: 8, maxDelay: "20 seconds", factor: 7 })
        const all = yield* waits(policy, 200)
        for (const delays of all) {
          delays.forEach((delay, index) => {
            const before = index === 0 ? 1_000 : delays[index - 1] ?? NaN
            assert.isTrue(delay >= 1_000 && delay <= Math.min(3 * before, 20_000) + 0.001, `${delay} after ${before}`)
          })
        }
        const firsts = all.map(([first = NaN]) => first)
        assert.isBelow(Math.min(...firsts), 1_100)
        assert.isAbove(Math.max(...firsts), 2_900)
        // Whoever has come to the cap is spread below it, not held at it.
        const atTheCap = all.map((delays) => delays[6] ?? NaN).filter((delay) => delay === 20_000)
        assert.isEmpty(atTheCap)
      }))

    it.effect("of the next call knows nothing of the last one", () =>
      Effect.gen(function*() {
        const policy = plain({ jitter: "decorrelated", maxAttempts: 9, maxDelay: "1 minute" })
        yield* waits(policy, 3)
        const [[first = NaN] = []] = yield* waits(policy, 1)
        assert.isBelow(first, 3_000)
      }))

    it.effect("spreads those who failed together over the whole back-off", () =>
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

    it.effect("is repeated by its seed", () =>
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
    it.effect("is waited for where it is longer than the back-off, and the back-off where that is longer", () =>
      Effect.gen(function*() {
        const long = flaky(1, busy("5 seconds"))
        yield* during(RetryPolicy.retry(long.call, plain()), "5 seconds")
        assert.deepStrictEqual(long.at, [0, 5_000])
        const short = flaky(1, busy("10 millis"))
        yield* during(RetryPolicy.retry(short.call, plain()), "1 second")
        assert.deepStrictEqual(short.at, [5_000, 6_000])
      }))

    it.effect("is a floor: the jitter stands above it", () =>
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

    it.effect("is a floor for every jitter, which goes above it by no more than its own spread", () =>
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

    it.effect("does not make later back-offs longer, where those depend on the one before", () =>
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

    it.effect("is not shortened by maxDelay", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(1, busy("30 seconds"))
        yield* during(RetryPolicy.retry(call, plain({ maxDelay: "2 seconds" })), "30 seconds")
        assert.deepStrictEqual(at, [0, 30_000])
      }))

    it.effect("counts for throttling as for failures", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(1, "slow down")
        const classify = (exit: Exit.Exit<unknown, unknown>) =>
          Exit.isFailure(exit) ? Outcome.throttled({ retryAfter: Duration.seconds(9) }) : undefined
        yield* during(RetryPolicy.retry(call, plain(), { classify }), "9 seconds")
        assert.deepStrictEqual(at, [0, 9_000])
      }))

    it.effect("longer than maxRetryAfter ends the retry at once, with the error that it has", () =>
      Effect.gen(function*() {
        for (const hint of ["60001 millis", "365 days", "Infinity"] as const) {
          const { at, call } = flaky(9, busy(hint))
          const exit = yield* Effect.exit(RetryPolicy.retry(call, plain()))
          assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "RetryAfterTooLong", attempts: 1 }])
          assert.isTrue(Exit.hasFails(exit))
        }
      }))

    it.effect("of exactly maxRetryAfter is waited for", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(1, busy("60 seconds"))
        yield* during(RetryPolicy.retry(call, plain()), "60 seconds")
        assert.deepStrictEqual(at, [0, 60_000])
      }))

    it.effect("in the past is a floor of zero, and shortens no back-off", () =>
      Effect.gen(function*() {
        const past = busy(Duration.millis(-5_000))
        const { at, call } = flaky(1, past)
        yield* during(RetryPolicy.retry(call, plain()), "1 second")
        assert.deepStrictEqual(at, [0, 1_000])
        const jittered = flaky(1, past)
        yield* during(RetryPolicy.retry(jittered.call, plain({ jitter: "full" })), "1 second")
        assert.isAbove(jittered.at[1] ?? NaN, 1_000)
      }).pipe(Random.withSeed("past")))

    it.effect("of 30 days is 30 days", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(1, busy("30 days"))
        const policy = plain({ maxRetryAfter: "31 days" })
        yield* during(RetryPolicy.retry(call, policy), "30 days")
        assert.deepStrictEqual(at, [0, 30 * 86_400_000])
      }))

    it.live("of 30 days is 30 days on the timers of the machine as well, which end at 24.8", () =>
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

  describe("deadline", () => {
    it.effect("ends the retry at once when the next attempt would begin past it", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, "busy")
        // 0, 1 and 3 seconds; the fourth attempt would begin at 7.
        const exit = yield* during(Deadline.within(RetryPolicy.retry(call, plain()), "6 seconds"), "3 seconds")
        assert.deepStrictEqual(at, [0, 1_000, 3_000])
        assert.deepStrictEqual(stoppedBy(exit), { why: "Deadline", attempts: 3 })
        assert.deepStrictEqual(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption), Option.some("busy"))
      }))

    it.effect("counts as passed for an attempt that would begin at the very moment", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, "busy")
        const exit = yield* Effect.exit(Deadline.within(RetryPolicy.retry(call, plain()), "1 second"))
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Deadline", attempts: 1 }])
      }))

    it.effect("ends the retry at once at a Retry-After past it", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, busy("30 seconds"))
        const exit = yield* Effect.exit(Deadline.within(RetryPolicy.retry(call, plain()), "20 seconds"))
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Deadline", attempts: 1 }])
      }))
  })

  describe("interruption", () => {
    it.effect("ends the sleep between attempts, and there is no further one", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, "busy")
        const fiber = yield* Effect.forkChild(RetryPolicy.retry(call, plain()), { startImmediately: true })
        yield* TestClock.adjust("500 millis")
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(at, [0])
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      }))

    it.effect("ends a running attempt, and there is no further one", () =>
      Effect.gen(function*() {
        let calls = 0
        let finalized = 0
        const call = Effect.suspend(() => {
          calls++
          return Effect.onInterrupt(Effect.never, () =>
            Effect.sync(() => {
              finalized++
            }))
        })
        const fiber = yield* Effect.forkChild(RetryPolicy.retry(call, plain()), { startImmediately: true })
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual([calls, finalized], [1, 1])
      }))

    it.effect("by the attempt itself is not tried again", () =>
      Effect.gen(function*() {
        let calls = 0
        const exit = yield* Effect.exit(RetryPolicy.retry(Effect.suspend(() => (calls++, Effect.interrupt)), plain()))
        assert.isTrue(Exit.hasInterrupts(exit))
        assert.deepStrictEqual([calls, stoppedBy(exit)], [1, { why: "Final", attempts: 1 }])
      }))
  })

  describe("CurrentAttempt", () => {
    const announced = (seen: Array<string>) =>
      Effect.flatMap(RetryPolicy.CurrentAttempt, (current) => {
        seen.push(current === undefined ? "none" : `${current.attempt} of ${current.maxAttempts}`)
        return Effect.fail("busy")
      })

    it.effect("is told from the second attempt on, and gone afterwards", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        yield* during(RetryPolicy.retry(announced(seen), plain({ maxAttempts: 3 })), "3 seconds")
        assert.deepStrictEqual(seen, ["none", "2 of 3", "3 of 3"])
        assert.isUndefined(yield* RetryPolicy.CurrentAttempt)
      }))

    it.effect("goes on in a retry inside, as the attempts do", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        const inner = RetryPolicy.retry(announced(seen), plain({ maxAttempts: 2 }))
        yield* during(RetryPolicy.retry(inner, plain({ maxAttempts: 4 })), "1 minute")
        assert.deepStrictEqual(seen, ["none", "2 of 4", "3 of 4", "4 of 4"])
      }))

    it.effect("begins anew in a retry that counts for itself", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        const inner = RetryPolicy.retry(announced(seen), plain({ maxAttempts: 2 }), { nested: "own" })
        yield* during(RetryPolicy.retry(inner, plain({ maxAttempts: 2 })), "1 minute")
        assert.deepStrictEqual(seen, ["none", "2 of 2", "1 of 2", "2 of 2"])
      }))
  })

  describe("numbers that no validation has seen", () => {
    for (const maxAttempts of [NaN, 0, -1]) {
      it.effect(`${maxAttempts} attempts are one`, () =>
        Effect.gen(function*() {
          const { at, call } = flaky(9, "busy")
          yield* during(RetryPolicy.retry(call, plain({ maxAttempts })), "1 day")
          assert.deepStrictEqual(at, [0])
        }))
    }

    it.effect("a factor that is no number waits for the cap after the first back-off", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(2, "busy")
        yield* during(RetryPolicy.retry(call, plain({ factor: NaN })), "1 day")
        assert.deepStrictEqual(at.map((time, index) => time - (at[index - 1] ?? 0)).slice(1), [1_000, 60_000])
      }))

    it.effect("a maximum of what is waited for that is no number allows no hint, and an endless one no endless hint", () =>
      Effect.gen(function*() {
        for (const [maxRetryAfter, hint] of [[NaN, "1 second"], [Duration.infinity, "Infinity"]] as const) {
          const { at, call } = flaky(9, busy(hint))
          const exit = yield* Effect.exit(RetryPolicy.retry(call, plain({ maxRetryAfter })))
          assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "RetryAfterTooLong", attempts: 1 }])
        }
        const { at, call } = flaky(1, "busy")
        yield* during(RetryPolicy.retry(call, plain({ maxRetryAfter: NaN })), "1 second")
        assert.strictEqual(at.length, 2)
      }))

    it.effect("endless attempts go on at the pace of the cap, past every overflow", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(2_000, "busy")
        const exit = yield* during(RetryPolicy.retry(call, plain({ maxAttempts: Infinity })), "2 days")
        assert.deepStrictEqual(exit, Exit.succeed("answer"))
        assert.strictEqual((at[2_000] ?? NaN) - (at[1_999] ?? NaN), 60_000)
      }))
  })

  describe("toSchedule", () => {
    it.effect("makes as many attempts as the policy, with the delays of delayFor", () =>
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

    it.effect("makes one attempt of none", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(99, "busy")
        yield* Effect.exit(Effect.retry(call, RetryPolicy.toSchedule(RetryPolicy.none)))
        assert.strictEqual(at.length, 1)
      }))

    it.effect("depends on the wait before where the jitter does, anew for each run", () =>
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

    it.effect("keeps its jitter within the delays of delayFor, and outputs the failed attempts", () =>
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

  describe("retryStream", () => {
    /** A stream of attempts that each hold a scope: how many were opened, and how many are open. */
    const source = <A, E>(attempts: (attempt: number) => Stream.Stream<A, E>) => {
      const counts = { opened: 0, open: 0, mostOpen: 0 }
      const stream = Stream.unwrap(Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => {
            counts.mostOpen = Math.max(counts.mostOpen, ++counts.open)
            return ++counts.opened
          }),
          () =>
            Effect.sync(() => {
              counts.open--
            })
        ),
        attempts
      ))
      return { counts, stream }
    }

    it.effect("tries again before the first element, each attempt after the one before is closed", () =>
      Effect.gen(function*() {
        const { counts, stream } = source((attempt) =>
          attempt < 3 ? Stream.fail("busy") : Stream.make(`attempt ${attempt}`, "end")
        )
        const exit = yield* during(Stream.runCollect(stream.pipe(RetryPolicy.retryStream(plain()))), "3 seconds")
        assert.deepStrictEqual(exit, Exit.succeed(["attempt 3", "end"]))
        assert.deepStrictEqual(counts, { opened: 3, open: 0, mostOpen: 1 })
      }))

    it.effect("tries again when opening the stream is what fails", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(2, "busy")
        const stream = Stream.unwrap(Effect.map(call, (answer) => Stream.make(answer)))
        const exit = yield* during(Stream.runCollect(RetryPolicy.retryStream(stream, plain())), "3 seconds")
        assert.deepStrictEqual(exit, Exit.succeed(["answer"]))
        assert.deepStrictEqual(at, [0, 1_000, 3_000])
      }))

    it.effect("fails with a failure after the first element, and does not try again", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        const { counts, stream } = source(() => Stream.concat(Stream.make("half an answer"), Stream.fail("cut")))
        const exit = yield* RetryPolicy.retryStream(stream, plain()).pipe(
          Stream.runForEach((part) => Effect.sync(() => seen.push(part))),
          Effect.exit
        )
        assert.deepStrictEqual(exit, Exit.fail("cut"))
        assert.deepStrictEqual(seen, ["half an answer"])
        assert.deepStrictEqual(counts, { opened: 1, open: 0, mostOpen: 1 })
      }))

    it.effect("takes a stream that ends without an element for a success", () =>
      Effect.gen(function*() {
        const { counts, stream } = source(() => Stream.empty)
        assert.deepStrictEqual(yield* Stream.runCollect(RetryPolicy.retryStream(stream, plain())), [])
        assert.deepStrictEqual(counts, { opened: 1, open: 0, mostOpen: 1 })
      }))

    it.effect("says why it stopped, as retry does", () =>
      Effect.gen(function*() {
        const run = (error: unknown, policy = plain()) =>
          during(Stream.runDrain(RetryPolicy.retryStream(Stream.fail(error), policy)), "1 minute")
        assert.deepStrictEqual(stoppedBy(yield* run("busy")), { why: "Attempts", attempts: 4 })
        assert.deepStrictEqual(stoppedBy(yield* run(new Busy({ isRetryable: false }))), { why: "Final", attempts: 1 })
        assert.deepStrictEqual(stoppedBy(yield* run(busy("1 day"))), { why: "RetryAfterTooLong", attempts: 1 })
        const dies = yield* during(Stream.runDrain(RetryPolicy.retryStream(Stream.die("bug"), plain())), "1 minute")
        assert.deepStrictEqual(stoppedBy(dies), { why: "Final", attempts: 1 })
      }))

    it.effect("waits for a Retry-After and keeps the deadline", () =>
      Effect.gen(function*() {
        const patient = flaky(1, busy("5 seconds"))
        yield* during(Stream.runDrain(RetryPolicy.retryStream(Stream.fromEffect(patient.call), plain())), "5 seconds")
        assert.deepStrictEqual(patient.at, [0, 5_000])
        const { at, call } = flaky(9, busy("5 seconds"))
        const exit = yield* during(
          Stream.runDrain(
            RetryPolicy.retryStream(Stream.fromEffect(call), plain()).pipe(Deadline.withinStream("4 seconds"))
          ),
          "0 seconds"
        )
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Deadline", attempts: 1 }])
      }))

    it.effect("begins anew each time it is run", () =>
      Effect.gen(function*() {
        const { counts, stream } = source(() => Stream.fail("busy"))
        const retried = Stream.runDrain(RetryPolicy.retryStream(stream, plain({ maxAttempts: 2 })))
        yield* during(retried, "1 second")
        yield* during(retried, "1 second")
        assert.deepStrictEqual(counts, { opened: 4, open: 0, mostOpen: 1 })
      }))

    it.effect("closes the attempt when its consumer has enough", () =>
      Effect.gen(function*() {
        const { counts, stream } = source(() => Stream.concat(Stream.make("first"), Stream.never))
        const first = yield* Stream.runCollect(Stream.take(RetryPolicy.retryStream(stream, plain()), 1))
        assert.deepStrictEqual([first, counts.open], [["first"], 0])
      }))

    it.effect("closes the attempt when it is interrupted, in an attempt or between two", () =>
      Effect.gen(function*() {
        for (const attempts of [() => Stream.never, () => Stream.fail("busy")]) {
          const { counts, stream } = source<never, string>(attempts)
          const fiber = yield* Effect.forkChild(Stream.runDrain(RetryPolicy.retryStream(stream, plain())))
          yield* yields(20)
          yield* Fiber.interrupt(fiber)
          yield* TestClock.adjust("1 hour")
          assert.deepStrictEqual([counts.opened, counts.open], [1, 0])
        }
      }))
  })
})
