import * as Deadline from "@sluice/core/Deadline"
import * as Outcome from "@sluice/core/Outcome"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { Busy, busy, during, flaky, plain, stoppedBy } from "./support/retries.ts"

describe("RetryPolicy", () => {
  describe("validate", () => {
    it.effect("validate accepts the defaults of the constructors", () =>
      Effect.gen(function*() {
        for (const policy of [RetryPolicy.exponential(), RetryPolicy.constant(), RetryPolicy.none]) {
          assert.strictEqual(yield* RetryPolicy.validate(policy), policy)
        }
      }))

    it.effect("validate reports every invalid option at once", () =>
      Effect.gen(function*() {
        const invalid = yield* Effect.flip(RetryPolicy.validate(RetryPolicy.exponential({
          maxAttempts: 0,
          baseDelay: -1,
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

    it.effect("validate accepts every jitter, and delays of years", () =>
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
        it.effect(`validate refuses ${String(value)} (${typeof value}) for ${option}`, () =>
          Effect.gen(function*() {
            // As a JavaScript caller can.
            const policy = { ...RetryPolicy.exponential(), [option]: value } as RetryPolicy.RetryPolicy
            const invalid = yield* Effect.flip(RetryPolicy.validate(policy))
            assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), [option])
          }))
      }
    }

    for (const policy of [null, undefined, 3, "exponential"] as ReadonlyArray<unknown>) {
      it.effect(`validate refuses ${String(policy)} as a policy`, () =>
        Effect.gen(function*() {
          // As a JavaScript caller can.
          const invalid = yield* Effect.flip(RetryPolicy.validate(policy as RetryPolicy.RetryPolicy))
          assert.deepStrictEqual(invalid.issues, [{
            option: "policy",
            actual: policy,
            requirement: "must be a RetryPolicy"
          }])
        }))
    }

    for (const maxAttempts of [0, -1, 1.5, NaN, Infinity]) {
      it.effect(`validate refuses ${maxAttempts} attempts`, () =>
        Effect.gen(function*() {
          const invalid = yield* Effect.flip(RetryPolicy.validate(RetryPolicy.exponential({ maxAttempts })))
          assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["maxAttempts"])
        }))
    }

    for (const factor of [NaN, Infinity, 0, -2]) {
      it.effect(`validate refuses a factor of ${factor}`, () =>
        Effect.gen(function*() {
          const invalid = yield* Effect.flip(RetryPolicy.validate(RetryPolicy.exponential({ factor })))
          assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["factor"])
        }))
    }
  })

  describe("retry", () => {
    it.effect("retry backs off between attempts and returns the result", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(3, "busy")
        const exit = yield* during(call.pipe(RetryPolicy.retry(plain())), "7 seconds")
        assert.deepStrictEqual(exit, Exit.succeed("answer"))
        assert.deepStrictEqual(at, [0, 1_000, 3_000, 7_000])
      }))

    it.effect("retry restores the context of its fiber", () =>
      Effect.gen(function*() {
        const before = yield* Effect.context()
        for (const failures of [0, 1, 99]) {
          yield* Effect.exit(RetryPolicy.retry(flaky(failures, "busy").call, plain({ baseDelay: 0 })))
          assert.strictEqual(yield* Effect.context(), before)
        }
      }))

    it.effect("retry makes one attempt without delay when the first attempt succeeds", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(0, "busy")
        assert.strictEqual(yield* RetryPolicy.retry(call, plain()), "answer")
        assert.deepStrictEqual(at, [0])
      }))

    it.effect("retry fails with the last attempt's error when all attempts are used", () =>
      Effect.gen(function*() {
        let calls = 0
        const call = Effect.suspend(() => Effect.fail(`error ${++calls}`))
        const exit = yield* during(RetryPolicy.retry(call, plain({ maxAttempts: 3 })), "3 seconds")
        assert.strictEqual(Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption)), "error 3")
        assert.deepStrictEqual(stoppedBy(exit), { why: "Attempts", attempts: 3 })
      }))

    it.effect("RetryPolicy.none makes one attempt", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(1, "busy")
        const exit = yield* Effect.exit(RetryPolicy.retry(call, RetryPolicy.none))
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Attempts", attempts: 1 }])
      }))

    it.effect("retry stops at once at a final error", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, new Busy({ isRetryable: false }))
        const exit = yield* Effect.exit(RetryPolicy.retry(call, plain()))
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Final", attempts: 1 }])
      }))

    it.effect("retry does not repeat a refusal", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, new Deadline.DeadlineExceeded({ at: "Queue", budget: Duration.seconds(1) }))
        const exit = yield* Effect.exit(RetryPolicy.retry(call, plain()))
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Final", attempts: 1 }])
      }))

    it.effect("retry does not repeat a defect", () =>
      Effect.gen(function*() {
        let calls = 0
        const exit = yield* Effect.exit(RetryPolicy.retry(Effect.suspend(() => Effect.die(++calls)), plain()))
        assert.isTrue(Exit.hasDies(exit))
        assert.deepStrictEqual([calls, stoppedBy(exit)], [1, { why: "Final", attempts: 1 }])
      }))

    it.effect("stopped counts the attempts up to the final one", () =>
      Effect.gen(function*() {
        let calls = 0
        const call = Effect.suspend(() => Effect.fail(new Busy({ isRetryable: ++calls < 3 })))
        const exit = yield* during(RetryPolicy.retry(call, plain()), "3 seconds")
        assert.deepStrictEqual(stoppedBy(exit), { why: "Final", attempts: 3 })
      }))

    it("stopped is none for a cause without a retry", () => {
      assert.isTrue(Option.isNone(RetryPolicy.stopped(Cause.fail("busy"))))
    })
  })

  describe("classifiers", () => {
    it.effect("the call's classifier gets the exit and the elapsed time of the attempt", () =>
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

    it.effect("the Classifier reference decides when the call's classifier does not", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, "busy")
        const exit = yield* Effect.exit(RetryPolicy.retry(call, plain(), { classify: () => undefined })).pipe(
          Effect.provideService(Outcome.Classifier, () => Outcome.failure({ retryable: false }))
        )
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Final", attempts: 1 }])
      }))

    it.effect("the Classifier reference also gets successes and their elapsed time", () =>
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

    it.effect("a success classified as a failure is retried, and returned after the last attempt", () =>
      Effect.gen(function*() {
        let calls = 0
        const call = Effect.sync(() => ++calls)
        const classify = () => Outcome.failure()
        const exit = yield* during(RetryPolicy.retry(call, plain(), { classify }), "7 seconds")
        assert.deepStrictEqual(exit, Exit.succeed(4))
      }))

    it.effect("a failure classified as a success is not retried", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, "not found")
        const exit = yield* Effect.exit(RetryPolicy.retry(call, plain(), { classify: () => Outcome.success }))
        assert.deepStrictEqual([at.length, exit], [1, Exit.fail("not found")])
      }))
  })

  describe("deadline", () => {
    it.effect("retry stops at once when the next attempt would begin after the deadline", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, "busy")
        // 0, 1 and 3 seconds; the fourth attempt would begin at 7.
        const exit = yield* during(Deadline.within(RetryPolicy.retry(call, plain()), "6 seconds"), "3 seconds")
        assert.deepStrictEqual(at, [0, 1_000, 3_000])
        assert.deepStrictEqual(stoppedBy(exit), { why: "Deadline", attempts: 3 })
        assert.deepStrictEqual(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption), Option.some("busy"))
      }))

    it.effect("retry begins no attempt at the exact moment of the deadline", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, "busy")
        const exit = yield* Effect.exit(Deadline.within(RetryPolicy.retry(call, plain()), "1 second"))
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Deadline", attempts: 1 }])
      }))

    it.effect("retry stops at once at a Retry-After beyond the deadline", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(9, busy("30 seconds"))
        const exit = yield* Effect.exit(Deadline.within(RetryPolicy.retry(call, plain()), "20 seconds"))
        assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Deadline", attempts: 1 }])
      }))
  })

  describe("interruption", () => {
    it.effect("an interruption ends the backoff, and no attempt follows", () =>
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

    it.effect("an interruption ends the running attempt, and no attempt follows", () =>
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

    it.effect("an attempt that interrupts itself is not retried", () =>
      Effect.gen(function*() {
        let calls = 0
        const exit = yield* Effect.exit(RetryPolicy.retry(Effect.suspend(() => (calls++, Effect.interrupt)), plain()))
        assert.isTrue(Exit.hasInterrupts(exit))
        assert.deepStrictEqual([calls, stoppedBy(exit)], [1, { why: "Final", attempts: 1 }])
      }))
  })

  describe("CurrentAttempt", () => {
    const recordAttempt = (seen: Array<string>) =>
      Effect.flatMap(RetryPolicy.CurrentAttempt, (current) => {
        seen.push(current === undefined ? "none" : `${current.attempt} of ${current.maxAttempts}`)
        return Effect.fail("busy")
      })

    it.effect("CurrentAttempt is set from the second attempt on, and not after the retry", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        yield* during(RetryPolicy.retry(recordAttempt(seen), plain({ maxAttempts: 3 })), "3 seconds")
        assert.deepStrictEqual(seen, ["none", "2 of 3", "3 of 3"])
        assert.isUndefined(yield* RetryPolicy.CurrentAttempt)
      }))

    it.effect("CurrentAttempt continues in a nested retry", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        const inner = RetryPolicy.retry(recordAttempt(seen), plain({ maxAttempts: 2 }))
        yield* during(RetryPolicy.retry(inner, plain({ maxAttempts: 4 })), "1 minute")
        assert.deepStrictEqual(seen, ["none", "2 of 4", "3 of 4", "4 of 4"])
      }))

    it.effect("CurrentAttempt starts anew in a nested retry with its own attempts", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        const inner = RetryPolicy.retry(recordAttempt(seen), plain({ maxAttempts: 2 }), { nested: "own" })
        yield* during(RetryPolicy.retry(inner, plain({ maxAttempts: 2 })), "1 minute")
        assert.deepStrictEqual(seen, ["none", "2 of 2", "1 of 2", "2 of 2"])
      }))
  })

  describe("unvalidated numbers", () => {
    for (const maxAttempts of [NaN, 0, -1]) {
      it.effect(`maxAttempts ${maxAttempts} makes one attempt`, () =>
        Effect.gen(function*() {
          const { at, call } = flaky(9, "busy")
          yield* during(RetryPolicy.retry(call, plain({ maxAttempts })), "1 day")
          assert.deepStrictEqual(at, [0])
        }))
    }

    it.effect("a factor of NaN waits for maxDelay after the first backoff", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(2, "busy")
        yield* during(RetryPolicy.retry(call, plain({ factor: NaN })), "1 day")
        assert.deepStrictEqual(at.map((time, index) => time - (at[index - 1] ?? 0)).slice(1), [1_000, 60_000])
      }))

    it.effect("maxRetryAfter NaN allows no Retry-After, and an infinite one no infinite Retry-After", () =>
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

    it.effect("infinite attempts continue at maxDelay without overflow", () =>
      Effect.gen(function*() {
        const { at, call } = flaky(2_000, "busy")
        const exit = yield* during(RetryPolicy.retry(call, plain({ maxAttempts: Infinity })), "2 days")
        assert.deepStrictEqual(exit, Exit.succeed("answer"))
        assert.strictEqual((at[2_000] ?? NaN) - (at[1_999] ?? NaN), 60_000)
      }))
  })
})
