import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Duration, Effect, Exit, Fiber, Layer, Schema, Stream } from "effect"
import { TestClock, TestConsole } from "effect/testing"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"
import { faultyStore, remoteStore } from "./support/stores.ts"

const { consecutive, failureRate } = CircuitBreaker

type Breaker = CircuitBreaker.CircuitBreaker["Service"]

/** Runs a test with a breaker of its own. */
const withBreaker = <A, E>(
  options: CircuitBreaker.CircuitBreakerOptions | undefined,
  test: (breaker: Breaker) => Effect.Effect<A, E>
) => CircuitBreaker.CircuitBreaker.use(test).pipe(Effect.provide(CircuitBreaker.layer(options)))

const stateTag = (breaker: Breaker, key?: string) => Effect.map(breaker.state(key), (state) => state._tag)

const refusalOf = (breaker: Breaker, key?: string) =>
  Effect.map(Effect.flip(succeedCall(breaker, key)), (error) => ({
    state: error.state,
    retryAfter: Duration.toMillis(error.retryAfter),
    calls: error.calls,
    failures: error.failures
  }))

const oneFailure = { trip: consecutive(1), openFor: "30 seconds" } as const

describe("CircuitBreaker", () => {
  describe("closed", () => {
    it.effect("hands on a success, a failure and a defect as they are", () =>
      withBreaker(undefined, (breaker) =>
        Effect.gen(function*() {
          assert.deepStrictEqual(yield* Effect.exit(breaker.guard(Effect.succeed(42))), Exit.succeed(42))
          assert.deepStrictEqual(yield* Effect.exit(breaker.guard(Effect.fail("503"))), Exit.fail("503"))
          assert.deepStrictEqual(yield* Effect.exit(breaker.guard(Effect.die("bug"))), Exit.die("bug"))
        })))

    it.effect("counts failures in a row, and a success resets the count", () =>
      withBreaker({ trip: consecutive(3) }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2)
          assert.strictEqual(yield* breaker.failureCount(), 2)
          yield* succeedCall(breaker)
          assert.strictEqual(yield* breaker.failureCount(), 0)
          yield* failCalls(breaker, 2)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("opens after five failures in a row by default", () =>
      withBreaker(undefined, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 4)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("keeps keys apart", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1, "openai")
          assert.strictEqual(yield* stateTag(breaker, "openai"), "Open")
          assert.strictEqual(yield* succeedCall(breaker, "anthropic"), "an answer")
        })))

    it.effect("takes the names of an object's members for ordinary keys", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          for (const key of ["__proto__", "constructor", "toString"]) {
            assert.strictEqual(yield* stateTag(breaker, key), "Closed")
            yield* failCalls(breaker, 1, key)
            assert.strictEqual(yield* stateTag(breaker, key), "Open")
          }
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))
  })

  describe("open", () => {
    it.effect("refuses without running the call", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          const call = yield* startCall(breaker)
          assert.isFalse(call.ran())
        })))

    it.effect("says on what evidence it opened, and exactly when to come back", () =>
      withBreaker({ name: "gpt", trip: consecutive(2), openFor: "30 seconds" }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2, "openai")
          yield* TestClock.adjust("12345 millis")
          const refused = yield* Effect.flip(succeedCall(breaker, "openai"))
          assert.deepStrictEqual(Schema.encodeSync(CircuitBreaker.CircuitOpen)(refused), {
            _tag: "CircuitOpen",
            policy: "gpt",
            key: "openai",
            state: "Open",
            retryAfter: 17_655,
            calls: 2,
            failures: 2,
            slow: 0
          })
        })))

    it.effect("keeps the key out of the message", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1, "secret-tenant")
          const refused = yield* Effect.flip(succeedCall(breaker, "secret-tenant"))
          assert.strictEqual(refused.message, "circuit breaker: circuit open (1 of 1 calls failed). Retry in 30s")
        })))

    it.effect("is open until the last millisecond, and half-open when the time is over", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("29999 millis")
          assert.deepInclude(yield* breaker.state(), { _tag: "Open", retryAfter: Duration.millis(1) })
          assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 1)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* stateTag(breaker), "HalfOpen")
        })))

    it.effect("`state` and `check` only look: a circuit whose time is over waits for a call", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          assert.strictEqual((yield* Effect.flip(breaker.check()))._tag, "CircuitOpen")
          yield* TestClock.adjust("1 hour")
          yield* breaker.check()
          yield* breaker.check()
          assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
        })))

    it.effect("tells the failures that opened it", () =>
      withBreaker({ trip: consecutive(3) }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 3)
          assert.strictEqual(yield* breaker.failureCount(), 3)
          assert.deepInclude(yield* breaker.state(), { _tag: "Open", failures: 3 })
        })))

    it.effect("an open time of 0 probes at once, and never refuses a call on its own", () =>
      withBreaker({ trip: consecutive(1), openFor: 0 }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "HalfOpen")
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "HalfOpen")
          assert.strictEqual(yield* succeedCall(breaker), "an answer")
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("an open time of 0 still lets one probe at a time", () =>
      withBreaker({ trip: consecutive(1), openFor: 0 }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          const probe = yield* startCall(breaker)
          assert.isTrue(probe.ran())
          assert.deepInclude(yield* refusalOf(breaker), { state: "HalfOpen", retryAfter: 1 })
          yield* probe.succeed
        })))
  })

  describe("half-open", () => {
    it.effect("admits exactly one of a hundred calls, and refuses the others while it runs", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          const calls = yield* Effect.forEach(Array.from({ length: 100 }), () => startCall(breaker))
          assert.deepStrictEqual(calls.map((call) => call.ran()), [true, ...Array.from({ length: 99 }, () => false)])
          assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 1 })
          assert.strictEqual((yield* Effect.flip(breaker.check())).state, "HalfOpen")
        })))

    it.effect("tells the refused to come back after the open time, or when the probe's lease lapses, if that is sooner", () =>
      withBreaker({ ...oneFailure, probeLease: "40 seconds" }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          yield* startCall(breaker)
          assert.deepStrictEqual(yield* refusalOf(breaker), {
            state: "HalfOpen",
            retryAfter: 30_000,
            calls: 1,
            failures: 1
          })
          yield* TestClock.adjust("25 seconds")
          assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 15_000)
        })))

    it.effect("a probe that succeeds closes the circuit with a count of 0", () =>
      withBreaker({ trip: consecutive(2), openFor: "30 seconds" }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2)
          yield* TestClock.adjust("30 seconds")
          yield* succeedCall(breaker)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("a probe that fails opens the circuit again, for the whole time", () =>
      withBreaker({ trip: consecutive(3), openFor: "30 seconds" }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 3)
          yield* TestClock.adjust("31 seconds")
          yield* failCalls(breaker, 1)
          assert.deepStrictEqual(yield* refusalOf(breaker), {
            state: "Open",
            retryAfter: 30_000,
            calls: 1,
            failures: 1
          })
        })))

    it.effect("a probe that dies opens the circuit again", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          yield* Effect.exit(breaker.guard(Effect.die("bug")))
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("a probe that is interrupted frees its place for the next call", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          const probe = yield* startCall(breaker)
          yield* probe.interrupt
          assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
          yield* succeedCall(breaker)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    for (const outcome of [Outcome.throttled(), Outcome.ignored]) {
      it.effect(`a probe that is ${outcome._tag} frees its place and decides nothing`, () =>
        withBreaker(oneFailure, (breaker) =>
          Effect.gen(function*() {
            yield* failCalls(breaker, 1)
            yield* TestClock.adjust("30 seconds")
            yield* Effect.exit(breaker.guard(Effect.fail("429"), { classify: () => outcome }))
            assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
            assert.strictEqual(yield* succeedCall(breaker), "an answer")
          })))
    }

    it.effect("a probe that hangs loses its place when its lease lapses, and its late answer does not count", () =>
      withBreaker({ ...oneFailure, probeLease: "60 seconds" }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          const hung = yield* startCall(breaker)
          yield* TestClock.adjust("59999 millis")
          assert.isFalse((yield* startCall(breaker)).ran())
          yield* TestClock.adjust("1 millis")
          const next = yield* startCall(breaker)
          assert.isTrue(next.ran())
          yield* hung.succeed
          assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 1 })
          yield* next.fail
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))
  })

  describe("late outcomes", () => {
    it.effect("a success from before the opening does not close the circuit", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const late = yield* startCall(breaker)
          yield* failCalls(breaker, 1)
          assert.isTrue(Exit.isSuccess(yield* late.succeed))
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("a failure from before the opening does not make it longer", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const late = yield* startCall(breaker)
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("29 seconds")
          yield* late.fail
          assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 1_000)
        })))

    it.effect("an outcome from before the opening decides no probe", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const [lateFailure, lateSuccess] = [yield* startCall(breaker), yield* startCall(breaker)]
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          const probe = yield* startCall(breaker)
          yield* lateFailure.fail
          yield* lateSuccess.succeed
          assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 1 })
          yield* probe.succeed
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("a failure from before the opening does not count when the circuit has closed again", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const late = yield* startCall(breaker)
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          yield* succeedCall(breaker)
          yield* late.fail
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", failures: 0 })
        })))
  })

  describe("what counts", () => {
    it.effect("an interruption counts nowhere", () =>
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

    it.effect("throttling and the caller's mistakes neither count nor reset a streak", () =>
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

    it.effect("a refusal of an inner breaker is not held against the outer one", () =>
      withBreaker(oneFailure, (inner) =>
        withBreaker(oneFailure, (outer) =>
          Effect.gen(function*() {
            yield* failCalls(inner, 1)
            yield* Effect.flip(outer.guard(succeedCall(inner)))
            assert.strictEqual(yield* stateTag(outer), "Closed")
          }))))

    it.effect("asks the call's classifier, then the breaker's, then the reference; undefined passes the question on", () =>
      Effect.gen(function*() {
        const asked: Array<string> = []
        const saying = (who: string, outcome: Outcome.Outcome | undefined) => () => {
          asked.push(who)
          return outcome
        }
        const guarded = withBreaker(
          { ...oneFailure, classify: saying("breaker", undefined) },
          (breaker) =>
            Effect.gen(function*() {
              yield* Effect.exit(breaker.guard(Effect.fail("503"), { classify: saying("call", undefined) }))
              yield* Effect.exit(
                breaker.guard(Effect.fail("503"), { classify: saying("only the call", Outcome.ignored) })
              )
              return yield* stateTag(breaker)
            })
        )
        const reference = () => {
          asked.push("reference")
          return Outcome.throttled()
        }
        const state = yield* guarded.pipe(Effect.provideService(Outcome.Classifier, reference))
        assert.strictEqual(state, "Closed")
        assert.deepStrictEqual(asked, ["call", "breaker", "reference", "only the call"])
      }))

    it.effect("tells a classifier the exit and how long the call took", () =>
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

    it.effect("a success can be called a failure", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const refusing = breaker.guard(Effect.succeed("I am overloaded"), { classify: () => Outcome.failure() })
          assert.strictEqual(yield* refusing, "I am overloaded")
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("a classifier that throws frees the probe's place, and its throw is a defect", () =>
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

    it.effect("failures of half a weight count by half", () =>
      withBreaker({ trip: consecutive(2) }, (breaker) =>
        Effect.gen(function*() {
          const half = breaker.guard(Effect.fail("slow"), { classify: () => Outcome.failure({ weight: 0.5 }) })
          for (let i = 0; i < 3; i++) yield* Effect.exit(half)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* Effect.exit(half)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("ten failures of a tenth are one", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const tenth = breaker.guard(Effect.fail("slow"), { classify: () => Outcome.failure({ weight: 0.1 }) })
          for (let i = 0; i < 9; i++) yield* Effect.exit(tenth)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* Effect.exit(tenth)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("an outcome can open the circuit at once, for a time of its own", () =>
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

    it.effect("a probe's outcome can open the circuit for a time of its own, even if it weighs nothing", () =>
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

  describe("trip policies", () => {
    it.effect("a failure rate opens at the rate, not below it, and not before the minimum of calls", () =>
      withBreaker({ trip: failureRate({ rate: 0.5, calls: 10, minimum: 4 }) }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2)
          yield* succeedCall(breaker)
          assert.strictEqual(yield* stateTag(breaker), "Closed", "2 of 3: too few to tell")
          yield* succeedCall(breaker)
          assert.strictEqual(yield* stateTag(breaker), "Open", "2 of 4")
        })))

    it.effect("a failure rate looks back on the last calls only", () =>
      withBreaker({ trip: failureRate({ rate: 0.5, calls: 4, minimum: 4 }) }, (breaker) =>
        Effect.gen(function*() {
          yield* succeedCall(breaker)
          yield* failCalls(breaker, 1)
          yield* Effect.repeat(succeedCall(breaker), { times: 2 })
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Closed", "the failure before is out of the last 4")
          yield* failCalls(breaker, 1)
          assert.deepInclude(yield* refusalOf(breaker), { calls: 4, failures: 2 })
        })).pipe(Effect.catchTag("CircuitOpen", Effect.die)))

    it.effect("looks back on 20 calls and asks for half of them by default", () =>
      Effect.sync(() => {
        assert.deepInclude(failureRate({ rate: 0.3 }), { _tag: "FailureRate", rate: 0.3, calls: 20, minimum: 10 })
        assert.deepInclude(failureRate({ rate: 0.3, calls: 5 }), { minimum: 3 })
      }))

    it.effect("of several policies any opens the circuit", () =>
      withBreaker(
        { trip: [consecutive(3), failureRate({ rate: 0.5, calls: 10, minimum: 10 })] },
        (breaker) =>
          Effect.gen(function*() {
            for (const key of ["in a row", "every other"]) yield* succeedCall(breaker, key)
            yield* failCalls(breaker, 3, "in a row")
            assert.strictEqual(yield* stateTag(breaker, "in a row"), "Open")
            for (let i = 0; i < 4; i++) {
              yield* failCalls(breaker, 1, "every other")
              yield* succeedCall(breaker, "every other")
            }
            assert.strictEqual(yield* stateTag(breaker, "every other"), "Closed")
            yield* failCalls(breaker, 1, "every other")
            assert.strictEqual(yield* stateTag(breaker, "every other"), "Open")
          })
      ))
  })

  describe("reset", () => {
    it.effect("closes an open circuit at once and forgets the count", () =>
      withBreaker({ trip: consecutive(2) }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2)
          yield* breaker.reset()
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", failures: 0 })
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("what was admitted before it changes nothing any more", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const early = yield* startCall(breaker)
          yield* breaker.reset()
          yield* early.fail
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", failures: 0 })
        })))

    it.effect("a probe of before decides nothing", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          const probe = yield* startCall(breaker)
          yield* breaker.reset()
          yield* probe.fail
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", failures: 0 })
        })))

    it.effect("resets one key", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1, "a")
          yield* failCalls(breaker, 1, "b")
          yield* breaker.reset("a")
          assert.deepStrictEqual([yield* stateTag(breaker, "a"), yield* stateTag(breaker, "b")], ["Closed", "Open"])
        })))
  })

  describe("transitions", () => {
    const collect = (breaker: Breaker, into: Array<CircuitBreaker.Transition>) =>
      Stream.runForEach(breaker.transitions, (transition) => Effect.sync(() => into.push(transition))).pipe(
        Effect.forkScoped({ startImmediately: true })
      )

    it.effect("tells every move with key, time and evidence", () =>
      withBreaker({ trip: consecutive(2), openFor: "30 seconds" }, (breaker) =>
        Effect.gen(function*() {
          const seen: Array<CircuitBreaker.Transition> = []
          yield* collect(breaker, seen)
          yield* failCalls(breaker, 2, "openai")
          yield* TestClock.adjust("30 seconds")
          yield* failCalls(breaker, 1, "openai")
          yield* TestClock.adjust("30 seconds")
          yield* succeedCall(breaker, "openai")
          yield* TestClock.adjust(0)
          const two = { calls: 2, failures: 2, slow: 0 }
          const probe = { calls: 1, failures: 1, slow: 0 }
          const move = { key: "openai", reason: "", openFor: undefined }
          const openFor = Duration.seconds(30)
          assert.deepStrictEqual(seen, [
            { ...move, from: "Closed", to: "Open", evidence: two, openings: 1, openFor, at: 0 },
            { ...move, from: "Open", to: "HalfOpen", evidence: two, openings: 1, at: 30_000 },
            { ...move, from: "HalfOpen", to: "Open", evidence: probe, openings: 2, openFor, at: 30_000 },
            { ...move, from: "Open", to: "HalfOpen", evidence: probe, openings: 2, at: 60_000 },
            { ...move, from: "HalfOpen", to: "Closed", evidence: { ...probe, failures: 0 }, openings: 2, at: 60_000 }
          ])
        }).pipe(Effect.scoped)))

    it.effect("tells of a reset that closes", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const seen: Array<CircuitBreaker.Transition> = []
          yield* failCalls(breaker, 1)
          yield* collect(breaker, seen)
          yield* breaker.reset()
          yield* TestClock.adjust(0)
          assert.deepStrictEqual(seen.map(({ from, to }) => [from, to]), [["Open", "Closed"]])
        }).pipe(Effect.scoped)))

    it.effect("is silent about calls that move nothing, and about what was before subscribing", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1, "before")
          const seen: Array<CircuitBreaker.Transition> = []
          yield* collect(breaker, seen)
          yield* Effect.repeat(succeedCall(breaker), { times: 9 })
          yield* Effect.exit(succeedCall(breaker, "before"))
          yield* TestClock.adjust(0)
          assert.deepStrictEqual(seen, [])
        }).pipe(Effect.scoped)))

    it.effect("a reader that does not keep up misses the oldest, and holds up no call", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const seen: Array<string> = []
          yield* Stream.runForEach(
            breaker.transitions,
            ({ key }) => Effect.andThen(Effect.sync(() => seen.push(key)), Effect.sleep("1 second"))
          ).pipe(Effect.forkScoped({ startImmediately: true }))
          for (let i = 0; i < 1_000; i++) yield* failCalls(breaker, 1, `key ${i}`)
          yield* TestClock.adjust("1 hour")
          assert.isBelow(seen.length, 1_000)
          assert.strictEqual(seen.at(-1), "key 999")
        }).pipe(Effect.scoped)))
  })

  describe("options", () => {
    it.effect("names all that are wrong at once", () =>
      Effect.gen(function*() {
        const invalid = yield* withBreaker({
          trip: [consecutive(0), failureRate({ rate: 0, calls: 0, minimum: 5 })],
          openFor: "-1 second",
          probeLease: 0
        }, () => Effect.void).pipe(Effect.flip)
        assert.strictEqual(invalid._tag, "InvalidOptions")
        assert.strictEqual(invalid.module, "CircuitBreaker")
        assert.deepStrictEqual(
          invalid.issues.map((issue) => issue.option),
          ["trip[0].failures", "trip[1].rate", "trip[1].calls", "trip[1].minimum", "openFor", "probeLease"]
        )
      }))

    for (
      const options of [
        { trip: [] },
        { trip: consecutive(1.5) },
        { trip: consecutive(1_001) },
        { trip: failureRate({ rate: 1.1 }) },
        { trip: failureRate({ rate: Number.NaN }) },
        { trip: failureRate({ rate: 0.5, calls: 1_001 }) },
        { trip: failureRate({ rate: 0.5, calls: 10, minimum: 11 }) },
        { openFor: Duration.infinity },
        { probeLease: Duration.infinity }
      ] satisfies Array<CircuitBreaker.CircuitBreakerOptions>
    ) {
      it.effect(`refuses ${JSON.stringify(options)}`, () =>
        Effect.gen(function*() {
          const invalid = yield* withBreaker(options, () => Effect.void).pipe(Effect.flip)
          assert.strictEqual(invalid.issues.length, 1)
        }))
    }
  })

  describe("stores", () => {
    const breakerOn = (store: Layer.Layer<CircuitBreakerStore.CircuitBreakerStore>) =>
      Effect.map(
        Layer.build(CircuitBreaker.layerStore(oneFailure).pipe(Layer.provide(store))),
        (context) => Context.get(context, CircuitBreaker.CircuitBreaker)
      )

    it.effect("two breakers on one store share their circuits", () =>
      Effect.gen(function*() {
        const [one, other] = [yield* CircuitBreaker.make(oneFailure), yield* CircuitBreaker.make(oneFailure)]
        yield* failCalls(one, 1, "openai")
        assert.strictEqual(yield* stateTag(other, "openai"), "Open")
        yield* TestClock.adjust("30 seconds")
        const probe = yield* startCall(one, { key: "openai" })
        assert.strictEqual((yield* refusalOf(other, "openai")).state, "HalfOpen")
        yield* probe.succeed
        assert.strictEqual(yield* succeedCall(other, "openai"), "an answer")
      }).pipe(Effect.scoped, Effect.provide(CircuitBreakerStore.layerMemory)))

    it.effect("breakers of different looks back share a circuit, and each counts for itself", () =>
      Effect.gen(function*() {
        const short = yield* CircuitBreaker.make({ trip: consecutive(2) })
        const long = yield* CircuitBreaker.make({ trip: failureRate({ rate: 0.34, calls: 50, minimum: 50 }) })
        for (let i = 0; i < 49; i++) yield* failCalls(long, 1)
        assert.strictEqual(yield* stateTag(short), "Closed", "what another breaker counts by its own window")
        yield* failCalls(long, 1)
        assert.deepInclude(yield* refusalOf(short), { calls: 50, failures: 50 })
      }).pipe(Effect.scoped, Effect.provide(CircuitBreakerStore.layerMemory)))

    it.effect("every `layerMemory` has circuits of its own", () =>
      withBreaker(oneFailure, (one) =>
        withBreaker(oneFailure, (other) =>
          Effect.gen(function*() {
            yield* failCalls(one, 1)
            assert.strictEqual(yield* stateTag(other), "Closed")
          }))))

    it.effect("over a slow store the circuit opens, lets one probe through and closes", () =>
      Effect.gen(function*() {
        const breaker = yield* breakerOn(remoteStore(10))
        const later = <A, E>(effect: Effect.Effect<A, E>) =>
          Effect.gen(function*() {
            const fiber = yield* Effect.forkChild(effect)
            yield* TestClock.adjust("100 millis")
            return yield* Fiber.join(fiber)
          })
        yield* later(failCalls(breaker, 1))
        assert.strictEqual(yield* later(stateTag(breaker)), "Open")
        yield* TestClock.adjust("30 seconds")
        const calls = yield* Effect.forEach(Array.from({ length: 20 }), () => startCall(breaker))
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(calls.filter((call) => call.ran()).length, 1)
        const probe = calls.find((call) => call.ran())!
        yield* later(probe.succeed)
        assert.strictEqual(yield* later(stateTag(breaker)), "Closed")
      }).pipe(Effect.scoped))

    it.effect("a call that is interrupted while a slow store hands out its place gives the place back", () =>
      Effect.gen(function*() {
        const breaker = yield* breakerOn(remoteStore(10))
        const step = (effect: Effect.Effect<unknown>) =>
          Effect.gen(function*() {
            const fiber = yield* Effect.forkChild(effect)
            yield* TestClock.adjust("100 millis")
            return yield* Fiber.join(fiber)
          })
        yield* step(failCalls(breaker, 1))
        yield* TestClock.adjust("30 seconds")
        for (let millis = 0; millis <= 30; millis += 3) {
          const fiber = yield* Effect.forkChild(breaker.guard(Effect.never), { startImmediately: true })
          yield* TestClock.adjust(millis)
          yield* step(Fiber.interrupt(fiber))
          const state = yield* Effect.forkChild(breaker.state())
          yield* TestClock.adjust("10 millis")
          assert.deepInclude(yield* Fiber.join(state), { _tag: "HalfOpen", probing: 0 }, `after ${millis} ms`)
        }
      }).pipe(Effect.scoped))

    it.effect("while the store is down circuits of this process stand in, beginning where the shared one stood", () =>
      Effect.gen(function*() {
        const { breakDown, recover, store } = yield* faultyStore
        const breaker = yield* breakerOn(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store))
        yield* failCalls(breaker, 1)
        breakDown("read", "lease", "record", "transition")
        yield* TestClock.adjust("10 seconds")
        assert.deepInclude(yield* refusalOf(breaker), { state: "Open", retryAfter: 20_000 })
        assert.strictEqual(yield* succeedCall(breaker, "unheard of"), "an answer")
        yield* failCalls(breaker, 1, "unheard of")
        assert.deepInclude(yield* refusalOf(breaker, "unheard of"), { state: "Open", retryAfter: 30_000 })
        yield* TestClock.adjust("20 seconds")
        assert.strictEqual(yield* succeedCall(breaker), "an answer", "a probe")
        assert.strictEqual((yield* Effect.flip(breaker.state()))._tag, "StoreError")
        recover()
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* stateTag(breaker), "HalfOpen", "of the probe the store has not heard")
      }).pipe(Effect.scoped))

    it.effect("warns once when the store fails, and tells when it answers again", () =>
      Effect.gen(function*() {
        const { breakDown, recover, store } = yield* faultyStore
        const breaker = yield* breakerOn(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store))
        breakDown("read", "lease", "record", "transition")
        for (let i = 0; i < 20; i++) {
          yield* succeedCall(breaker)
          yield* TestClock.adjust("500 millis")
        }
        recover()
        yield* TestClock.adjust("1 second")
        yield* succeedCall(breaker)
        const lines = (yield* TestConsole.logLines).join("\n")
        assert.strictEqual(lines.split("connection refused").length - 1, 1, lines)
        assert.include(lines, "answers again, after 11s")
      }).pipe(Effect.scoped))

    for (const verb of ["record", "lease"] as const) {
      it.effect(`a store that cannot ${verb} fails no call`, () =>
        Effect.gen(function*() {
          const { breakDown, recover, store } = yield* faultyStore
          const breaker = yield* breakerOn(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store))
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          breakDown(verb)
          assert.strictEqual(yield* succeedCall(breaker), "an answer")
          recover()
          yield* TestClock.adjust("60 seconds")
          yield* succeedCall(breaker)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        }).pipe(Effect.scoped))
    }

    it.effect("a probe whose transition was lost is finished by the next caller", () =>
      Effect.gen(function*() {
        const { breakDown, recover, store } = yield* faultyStore
        const breaker = yield* breakerOn(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store))
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        breakDown("transition")
        yield* succeedCall(breaker)
        recover()
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* succeedCall(breaker), "an answer")
        assert.strictEqual(yield* stateTag(breaker), "Closed")
      }).pipe(Effect.scoped))

    it.effect("a failed probe whose transition was lost opens the circuit for the next caller", () =>
      Effect.gen(function*() {
        const { breakDown, recover, store } = yield* faultyStore
        const breaker = yield* breakerOn(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store))
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        breakDown("transition")
        yield* failCalls(breaker, 1)
        recover()
        yield* TestClock.adjust("1 second")
        assert.deepInclude(yield* refusalOf(breaker), { state: "Open", retryAfter: 30_000 })
      }).pipe(Effect.scoped))
  })

  describe("layerNoop", () => {
    it.effect("lets everything through", () =>
      Effect.gen(function*() {
        const breaker = yield* CircuitBreaker.CircuitBreaker
        yield* failCalls(breaker, 100)
        assert.strictEqual(yield* succeedCall(breaker), "an answer")
        assert.deepStrictEqual(yield* Stream.runCollect(breaker.guardStream(Stream.make(1, 2))), [1, 2])
        yield* breaker.check()
        assert.strictEqual(yield* stateTag(breaker), "Closed")
      }).pipe(Effect.provide(CircuitBreaker.layerNoop)))
  })

  it.effect("carries its refusal over a wire", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* failCalls(breaker, 1)
        const refused = yield* Effect.flip(succeedCall(breaker))
        const wire = JSON.stringify(Schema.encodeSync(CircuitBreaker.CircuitOpen)(refused))
        const read = Schema.decodeUnknownSync(CircuitBreaker.CircuitOpen)(JSON.parse(wire))
        assert.instanceOf(read, CircuitBreaker.CircuitOpen)
        assert.strictEqual(read.message, refused.message)
        assert.strictEqual(Outcome.fromExit(Exit.failCause(Cause.fail(read)))._tag, "Ignored")
      })))

  it.effect("a refusal has no stack to pay for", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* failCalls(breaker, 1)
        const refused = yield* Effect.flip(succeedCall(breaker))
        assert.notInclude(refused.stack ?? "", "\n    at ")
      })))
})
