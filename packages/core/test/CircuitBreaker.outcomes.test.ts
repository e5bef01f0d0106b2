import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { oneFailure, refusalOf, stateTag, withBreaker } from "./support/breakers.ts"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"

const { consecutive } = CircuitBreaker

describe("CircuitBreaker", () => {
  describe("outcomes", () => {
    it.effect("an interruption does not count as a failure", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const call = yield* startCall(breaker)
          yield* call.interrupt
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", failures: 0 })
        })))

    it.effect("a defect counts as a failure", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* Effect.exit(breaker.guard(Effect.die("bug")))
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("a function that throws counts as a failure", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(breaker.guard(Effect.sync((): string => {
            throw new Error("bug")
          })))
          assert.isTrue(Exit.hasDies(exit))
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("Throttled and Ignored outcomes neither count nor reset a streak of failures", () =>
      withBreaker({ trip: consecutive(3) }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2)
          for (const outcome of [Outcome.throttled(), Outcome.ignored]) {
            yield* Effect.exit(breaker.guard(Effect.fail("4xx"), { classify: () => outcome }))
          }
          assert.strictEqual(yield* breaker.failureCount(), 2)
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("a refusal by an inner breaker does not count for the outer one", () =>
      withBreaker(oneFailure, (inner) =>
        withBreaker(oneFailure, (outer) =>
          Effect.gen(function*() {
            yield* failCalls(inner, 1)
            yield* Effect.flip(outer.guard(succeedCall(inner)))
            assert.strictEqual(yield* stateTag(outer), "Closed")
          }))))

    it.effect("the call's classifier comes first, then the breaker's, then the reference, until one decides", () =>
      Effect.gen(function*() {
        const called: Array<string> = []
        const classifier = (name: string, outcome: Outcome.Outcome | undefined) => () => {
          called.push(name)
          return outcome
        }
        const guarded = withBreaker(
          { ...oneFailure, classify: classifier("breaker", undefined) },
          (breaker) =>
            Effect.gen(function*() {
              yield* Effect.exit(breaker.guard(Effect.fail("503"), { classify: classifier("call", undefined) }))
              yield* Effect.exit(
                breaker.guard(Effect.fail("503"), { classify: classifier("only the call", Outcome.ignored) })
              )
              return yield* stateTag(breaker)
            })
        )
        const reference = () => {
          called.push("reference")
          return Outcome.throttled()
        }
        const state = yield* guarded.pipe(Effect.provideService(Outcome.Classifier, reference))
        assert.strictEqual(state, "Closed")
        assert.deepStrictEqual(called, ["call", "breaker", "reference", "only the call"])
      }))

    it.effect("a classifier gets the exit and the elapsed time of the call", () =>
      withBreaker(undefined, (breaker) =>
        Effect.gen(function*() {
          const seen: Array<unknown> = []
          const slow = Effect.delay(Effect.succeed("late"), "1500 millis").pipe(breaker.guard({
            classify: (exit, elapsedMillis) => {
              seen.push(exit, elapsedMillis)
              return undefined
            }
          }))
          const fiber = yield* Effect.forkChild(slow)
          yield* TestClock.adjust("1500 millis")
          yield* Fiber.join(fiber)
          assert.deepStrictEqual(seen, [Exit.succeed("late"), 1_500])
        })))

    it.effect("a classifier can turn a success into a failure", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const refusing = breaker.guard(Effect.succeed("I am overloaded"), { classify: () => Outcome.failure() })
          assert.strictEqual(yield* refusing, "I am overloaded")
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("a classifier that throws is a defect, and the probe's slot is freed", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          const exit = yield* Effect.exit(breaker.guard(Effect.succeed("ok"), {
            classify: () => {
              throw new Error("classifier")
            }
          }))
          assert.isTrue(Exit.hasDies(exit))
          assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
          assert.strictEqual(yield* succeedCall(breaker), "an answer")
        })))

    it.effect("failures with weight 0.5 count half", () =>
      withBreaker({ trip: consecutive(2) }, (breaker) =>
        Effect.gen(function*() {
          const half = breaker.guard(Effect.fail("slow"), { classify: () => Outcome.failure({ weight: 0.5 }) })
          for (let i = 0; i < 3; i++) yield* Effect.exit(half)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* Effect.exit(half)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("ten failures with weight 0.1 count as one", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const tenth = breaker.guard(Effect.fail("slow"), { classify: () => Outcome.failure({ weight: 0.1 }) })
          for (let i = 0; i < 9; i++) yield* Effect.exit(tenth)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* Effect.exit(tenth)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("an outcome with open opens the circuit at once for that time", () =>
      withBreaker({ trip: consecutive(5), openFor: "30 seconds" }, (breaker) =>
        Effect.gen(function*() {
          const maintenance = breaker.guard(Effect.fail("maintenance"), {
            classify: () => Outcome.failure({ open: Duration.minutes(10) })
          })
          yield* Effect.exit(maintenance)
          assert.deepStrictEqual(yield* refusalOf(breaker), {
            state: "Open",
            retryAfter: 600_000,
            calls: 1,
            failures: 1
          })
        })))

    it.effect("a probe's outcome with open reopens the circuit for that time, even with weight 0", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          yield* Effect.exit(breaker.guard(Effect.fail("maintenance"), {
            classify: () => Outcome.failure({ weight: 0, open: Duration.minutes(10) })
          }))
          assert.deepInclude(yield* refusalOf(breaker), { state: "Open", retryAfter: 600_000 })
        })))
  })
})
