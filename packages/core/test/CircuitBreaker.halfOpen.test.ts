import * as Admission from "@sluice/core/Admission"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { type Breaker, refusalOf, stateTag } from "./support/breakers.ts"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"
import { remoteStore } from "./support/stores.ts"

const stores = {
  "in this process": Layer.fresh(CircuitBreakerStore.layerMemory),
  "in a remote store": remoteStore(0)
}

/** Makes a call that takes so many milliseconds, and ends with this outcome. */
const call = (breaker: Breaker, outcome: Outcome.Outcome, millis = 0) =>
  Effect.gen(function*() {
    const running = yield* startCall(breaker, { classify: () => outcome })
    yield* TestClock.adjust(millis)
    yield* running.succeed
    return running.ran()
  })

for (const [where, store] of Object.entries(stores)) {
  const withBreaker = <A, E>(
    options: CircuitBreaker.CircuitBreakerOptions,
    test: (breaker: Breaker) => Effect.Effect<A, E>
  ) =>
    Effect.flatMap(CircuitBreaker.make({ openFor: "30 seconds", ...options }), test).pipe(
      Effect.scoped,
      Effect.provide(store)
    )

  describe(`a half-open circuit ${where}`, () => {
    describe("slow probes", () => {
      const slow = {
        trip: CircuitBreaker.slowCallRate({ rate: 0.5, calls: 2, minimum: 2 }),
        slowAfter: "1 second"
      } as const
      const openBySlowness = (breaker: Breaker) =>
        Effect.gen(function*() {
          yield* call(breaker, Outcome.success, 2_000)
          yield* call(breaker, Outcome.success, 2_000)
          assert.strictEqual(yield* stateTag(breaker), "Open")
          yield* TestClock.adjust("30 seconds")
        })

      it.effect("a probe that succeeds slowly opens a circuit again that slow calls opened", () =>
        withBreaker(slow, (breaker) =>
          Effect.gen(function*() {
            yield* openBySlowness(breaker)
            assert.isTrue(yield* call(breaker, Outcome.success, 1_001))
            assert.deepInclude(yield* breaker.state(), {
              _tag: "Open",
              openings: 2,
              evidence: { calls: 1, failures: 0, slow: 1 }
            })
            // And so it does after a probe that failed quickly.
            yield* TestClock.adjust("30 seconds")
            yield* call(breaker, Outcome.failure())
            yield* TestClock.adjust("30 seconds")
            yield* call(breaker, Outcome.success, 1_001)
            assert.deepInclude(yield* breaker.state(), { _tag: "Open", openings: 4 })
          })))

      it.effect("a probe that takes exactly slowAfter closes the circuit", () =>
        withBreaker(slow, (breaker) =>
          Effect.gen(function*() {
            yield* openBySlowness(breaker)
            yield* call(breaker, Outcome.success, 1_000)
            assert.strictEqual(yield* stateTag(breaker), "Closed")
          })))

      it.effect("a slow probe closes a circuit whose policy does not count slow calls", () =>
        withBreaker(
          { trip: CircuitBreaker.consecutive(1), slowAfter: "1 second" },
          (breaker) =>
            Effect.gen(function*() {
              yield* failCalls(breaker, 1)
              yield* TestClock.adjust("30 seconds")
              yield* call(breaker, Outcome.success, 5_000)
              assert.strictEqual(yield* stateTag(breaker), "Closed")
            })
        ))
    })

    describe("outcomes with a Retry-After", () => {
      const minute = Duration.minutes(1)
      const rows: ReadonlyArray<readonly [what: string, outcome: Outcome.Outcome]> = [
        ["a Throttled probe", Outcome.throttled({ retryAfter: minute })],
        ["a probe that fails with weight 0", Outcome.failure({ weight: 0, retryAfter: minute })]
      ]
      for (const [what, outcome] of rows) {
        it.effect(`the next probe waits for the Retry-After of ${what}`, () =>
          withBreaker({ trip: CircuitBreaker.consecutive(1) }, (breaker) =>
            Effect.gen(function*() {
              yield* failCalls(breaker, 1)
              yield* TestClock.adjust("30 seconds")
              let probes = 0
              for (let i = 0; i < 100; i++) if (yield* call(breaker, outcome)) probes++
              assert.strictEqual(probes, 1)
              assert.deepStrictEqual(yield* refusalOf(breaker), {
                state: "Open",
                retryAfter: 60_000,
                calls: 1,
                failures: 1
              })
              assert.deepInclude(yield* breaker.state(), { _tag: "Open", openings: 1 }, "no opening in a row more")
              yield* TestClock.adjust(minute)
              yield* succeedCall(breaker)
              assert.strictEqual(yield* stateTag(breaker), "Closed")
            })))
      }

      it.effect("the longest Retry-After of the probes of one round counts, up to maxOpenFor", () =>
        withBreaker(
          { trip: CircuitBreaker.consecutive(1), probes: 3, maxOpenFor: "2 minutes" },
          (breaker) =>
            Effect.gen(function*() {
              yield* failCalls(breaker, 1)
              yield* TestClock.adjust("30 seconds")
              const [first, second, third] = yield* Effect.forEach(
                [minute, Duration.seconds(90), Duration.hours(1)],
                (retryAfter) => startCall(breaker, { classify: () => Outcome.throttled({ retryAfter }) })
              )
              yield* first!.succeed
              assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 60_000)
              yield* second!.succeed
              assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 90_000)
              yield* third!.succeed
              assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 120_000)
            })
        ))

      it.effect("a failed probe that does not decide its round holds back the others for its Retry-After", () =>
        withBreaker(
          { trip: CircuitBreaker.consecutive(1), probes: 3, probesToClose: 2 },
          (breaker) =>
            Effect.gen(function*() {
              yield* failCalls(breaker, 1)
              yield* TestClock.adjust("30 seconds")
              yield* call(breaker, Outcome.failure({ retryAfter: minute }))
              assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 60_000)
            })
        ))

      it.effect("a Throttled probe without a Retry-After frees its slot at once", () =>
        withBreaker({ trip: CircuitBreaker.consecutive(1) }, (breaker) =>
          Effect.gen(function*() {
            yield* failCalls(breaker, 1)
            yield* TestClock.adjust("30 seconds")
            yield* call(breaker, Outcome.throttled())
            yield* succeedCall(breaker)
            assert.strictEqual(yield* stateTag(breaker), "Closed")
          })))

      it.effect("a Throttled call that is no probe changes nothing", () =>
        withBreaker({ trip: CircuitBreaker.consecutive(1) }, (breaker) =>
          Effect.gen(function*() {
            const early = yield* startCall(breaker, { classify: () => Outcome.throttled({ retryAfter: minute }) })
            yield* call(breaker, Outcome.throttled({ retryAfter: minute }))
            assert.strictEqual(yield* stateTag(breaker), "Closed")
            yield* failCalls(breaker, 1)
            yield* early.succeed
            assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 30_000)
          })))
    })

    describe("weights", () => {
      for (const weight of [0.001, 0.01, 0.024, 0.05]) {
        it.effect(`a failure of weight ${weight} counts as a twentieth, and not as a success`, () =>
          withBreaker({ trip: CircuitBreaker.consecutive(1) }, (breaker) =>
            Effect.gen(function*() {
              for (let i = 0; i < 19; i++) yield* call(breaker, Outcome.failure({ weight }))
              assert.strictEqual(yield* stateTag(breaker), "Closed")
              yield* call(breaker, Outcome.failure({ weight }))
              assert.strictEqual(yield* stateTag(breaker), "Open")
              yield* TestClock.adjust("30 seconds")
              yield* call(breaker, Outcome.failure({ weight }))
              assert.strictEqual(yield* stateTag(breaker), "Open", "as a probe it is no success either")
            })))
      }

      // The sum of the weights decides: more than `probes - probesToClose` failures open the circuit again.
      const rounds: ReadonlyArray<readonly [weights: ReadonlyArray<number>, after: string]> = [
        [[0.5, 0.5, 0, 0], "Closed"],
        [[0.5, 0.5, 0.05], "Open"],
        [[0.1, 0.1, 0.1, 0.1], "Closed"],
        [[1, 0, 0.05], "Open"],
        [[1, 0, 0, 0], "Closed"],
        [[0.5, 0.4, 0], "HalfOpen"]
      ]
      for (const [weights, after] of rounds) {
        it.effect(`four probes of which three have to succeed: failures of ${weights.join(", ")} lead to ${after}`, () =>
          withBreaker(
            { trip: CircuitBreaker.consecutive(1), probes: 4, probesToClose: 3 },
            (breaker) =>
              Effect.gen(function*() {
                yield* failCalls(breaker, 1)
                yield* TestClock.adjust("30 seconds")
                for (const weight of weights) {
                  yield* call(breaker, weight === 0 ? Outcome.success : Outcome.failure({ weight }))
                }
                assert.strictEqual(yield* stateTag(breaker), after)
              })
          ))
      }
    })

    describe("limits to the unit", () => {
      it.effect("a time window covers no bucket more than its own, beside a longer window", () =>
        withBreaker({
          trip: [
            CircuitBreaker.failureRate({ rate: 0.5, within: "1 second", minimum: 2 }),
            CircuitBreaker.failureRate({ rate: 1, within: "2 seconds", minimum: 100 })
          ]
        }, (breaker) =>
          Effect.gen(function*() {
            yield* failCalls(breaker, 1)
            yield* TestClock.adjust("1 second")
            yield* failCalls(breaker, 1)
            assert.strictEqual(yield* stateTag(breaker), "Closed")
            yield* TestClock.adjust(999)
            yield* failCalls(breaker, 1)
            assert.strictEqual(yield* stateTag(breaker), "Open")
          })))

      it.effect("a late Retry-After lengthens an opening to maxOpenFor at most", () =>
        withBreaker(
          { trip: CircuitBreaker.consecutive(1), maxOpenFor: "1 minute" },
          (breaker) =>
            Effect.gen(function*() {
              const early = yield* startCall(breaker, {
                classify: () => Outcome.failure({ retryAfter: Duration.hours(2) })
              })
              const another = yield* startCall(breaker, {
                classify: () => Outcome.failure({ retryAfter: Duration.hours(3) })
              })
              yield* failCalls(breaker, 1)
              assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 30_000)
              yield* early.fail
              assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 60_000)
              const { generation } = yield* breaker.state()
              yield* another.fail
              assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 60_000)
              assert.strictEqual((yield* breaker.state()).generation, generation, "it is as long as it can be")
            })
        ))

      for (const [millis, after] of [[1_000, "Closed"], [1_001, "Open"]] as const) {
        it.effect(`a call that fails after ${millis} ms, with slowAfter of a second, leads to ${after}`, () =>
          withBreaker({
            trip: CircuitBreaker.slowCallRate({ rate: 1, calls: 1, minimum: 1 }),
            slowAfter: "1 second"
          }, (breaker) =>
            Effect.gen(function*() {
              const running = yield* startCall(breaker)
              yield* TestClock.adjust(millis)
              yield* running.fail
              assert.strictEqual(yield* stateTag(breaker), after)
            })))

        it.effect(`an attempt in two steps that fails after ${millis} ms leads to ${after}`, () =>
          withBreaker({
            trip: CircuitBreaker.slowCallRate({ rate: 1, calls: 1, minimum: 1 }),
            slowAfter: "1 second"
          }, (breaker) =>
            Effect.gen(function*() {
              const admission = yield* Admission.make({ breaker })
              const admitted = yield* admission.acquire()
              yield* TestClock.adjust(millis)
              yield* admitted.settle(Outcome.failure())
              assert.strictEqual(yield* stateTag(breaker), after)
            }).pipe(Effect.scoped)))
      }
    })
  })
}
