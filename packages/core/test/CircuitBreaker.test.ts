import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { type Breaker, oneFailure, refusalOf, stateTag, withBreaker } from "./support/breakers.ts"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"

const { consecutive, failureRate } = CircuitBreaker

describe("CircuitBreaker", () => {
  describe("closed", () => {
    it.effect("a closed circuit returns a success, a failure and a defect unchanged", () =>
      withBreaker(undefined, (breaker) =>
        Effect.gen(function*() {
          assert.deepStrictEqual(yield* Effect.exit(breaker.guard(Effect.succeed(42))), Exit.succeed(42))
          assert.deepStrictEqual(yield* Effect.exit(breaker.guard(Effect.fail("503"))), Exit.fail("503"))
          assert.deepStrictEqual(yield* Effect.exit(breaker.guard(Effect.die("bug"))), Exit.die("bug"))
        })))

    it.effect("consecutive failures are counted, and a success resets the count", () =>
      withBreaker({ trip: consecutive(3) }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2)
          assert.strictEqual(yield* breaker.failureCount(), 2)
          yield* succeedCall(breaker)
          assert.strictEqual(yield* breaker.failureCount(), 0)
          yield* failCalls(breaker, 2)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("a circuit opens after five consecutive failures by default", () =>
      withBreaker(undefined, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 4)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("circuits of different keys are independent", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1, "openai")
          assert.strictEqual(yield* stateTag(breaker, "openai"), "Open")
          assert.strictEqual(yield* succeedCall(breaker, "anthropic"), "an answer")
        })))

    it.effect("names of object members, such as __proto__, are ordinary keys", () =>
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
    it.effect("an open circuit refuses a call without running it", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          const call = yield* startCall(breaker)
          assert.isFalse(call.ran())
        })))

    it.effect("a refusal has the evidence of the opening and the exact retryAfter", () =>
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

    it.effect("the message of a refusal does not contain the key", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1, "secret-tenant")
          const refused = yield* Effect.flip(succeedCall(breaker, "secret-tenant"))
          assert.strictEqual(refused.message, "circuit breaker: circuit open (1 of 1 calls failed). Retry in 30s")
        })))

    it.effect("a circuit is open until the last millisecond of openFor, then half-open", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("29999 millis")
          assert.deepInclude(yield* breaker.state(), { _tag: "Open", retryAfter: Duration.millis(1) })
          assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 1)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* stateTag(breaker), "HalfOpen")
        })))

    it.effect("state and check do not change a circuit whose openFor has elapsed", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          assert.strictEqual((yield* Effect.flip(breaker.check()))._tag, "CircuitOpen")
          yield* TestClock.adjust("1 hour")
          yield* breaker.check()
          yield* breaker.check()
          assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
        })))

    it.effect("failureCount of an open circuit is the failures that opened it", () =>
      withBreaker({ trip: consecutive(3) }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 3)
          assert.strictEqual(yield* breaker.failureCount(), 3)
          assert.deepInclude(yield* breaker.state(), { _tag: "Open", failures: 3 })
        })))

    it.effect("with openFor 0 a circuit probes at once and never refuses a single call", () =>
      withBreaker({ trip: consecutive(1), openFor: 0 }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "HalfOpen")
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "HalfOpen")
          assert.strictEqual(yield* succeedCall(breaker), "an answer")
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("with openFor 0 still only one probe runs at a time", () =>
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
    it.effect("a half-open circuit admits one of a hundred calls and refuses the others while it runs", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          const calls = yield* Effect.forEach(Array.from({ length: 100 }), () => startCall(breaker))
          assert.deepStrictEqual(calls.map((call) => call.ran()), [true, ...Array.from({ length: 99 }, () => false)])
          assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 1 })
          assert.strictEqual((yield* Effect.flip(breaker.check())).state, "HalfOpen")
        })))

    it.effect("retryAfter during a probe is openFor, or the rest of the probe's lease if that is shorter", () =>
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

    it.effect("a probe that succeeds closes the circuit and resets the failure count", () =>
      withBreaker({ trip: consecutive(2), openFor: "30 seconds" }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2)
          yield* TestClock.adjust("30 seconds")
          yield* succeedCall(breaker)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("a probe that fails reopens the circuit for the whole openFor", () =>
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

    it.effect("a probe that dies reopens the circuit", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          yield* Effect.exit(breaker.guard(Effect.die("bug")))
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("an interrupted probe frees its slot for the next call", () =>
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
      it.effect(`a probe classified as ${outcome._tag} frees its slot and leaves the circuit half-open`, () =>
        withBreaker(oneFailure, (breaker) =>
          Effect.gen(function*() {
            yield* failCalls(breaker, 1)
            yield* TestClock.adjust("30 seconds")
            yield* Effect.exit(breaker.guard(Effect.fail("429"), { classify: () => outcome }))
            assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
            assert.strictEqual(yield* succeedCall(breaker), "an answer")
          })))
    }

    it.effect("a probe that hangs loses its slot when its lease expires, and its late outcome does not count", () =>
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
    it.effect("a success admitted before the opening does not close the circuit", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const late = yield* startCall(breaker)
          yield* failCalls(breaker, 1)
          assert.isTrue(Exit.isSuccess(yield* late.succeed))
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("a failure admitted before the opening does not lengthen it", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const late = yield* startCall(breaker)
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("29 seconds")
          yield* late.fail
          assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 1_000)
        })))

    it.effect("an outcome admitted before the opening does not count as a probe", () =>
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

    it.effect("a failure admitted before the opening does not count after the circuit has closed", () =>
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

  describe("trip policies", () => {
    it.effect("failureRate opens at the rate, not below it, and not before the minimum of calls", () =>
      withBreaker({ trip: failureRate({ rate: 0.5, calls: 10, minimum: 4 }) }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2)
          yield* succeedCall(breaker)
          assert.strictEqual(yield* stateTag(breaker), "Closed", "2 of 3: below the minimum")
          yield* succeedCall(breaker)
          assert.strictEqual(yield* stateTag(breaker), "Open", "2 of 4")
        })))

    it.effect("failureRate counts the last calls only", () =>
      withBreaker({ trip: failureRate({ rate: 0.5, calls: 4, minimum: 4 }) }, (breaker) =>
        Effect.gen(function*() {
          yield* succeedCall(breaker)
          yield* failCalls(breaker, 1)
          yield* Effect.repeat(succeedCall(breaker), { times: 2 })
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Closed", "the first failure is not among the last 4")
          yield* failCalls(breaker, 1)
          assert.deepInclude(yield* refusalOf(breaker), { calls: 4, failures: 2 })
        })).pipe(Effect.catchTag("CircuitOpen", Effect.die)))

    it.effect("failureRate counts the last 20 calls and needs half of them by default", () =>
      Effect.sync(() => {
        assert.deepInclude(failureRate({ rate: 0.3 }), { _tag: "FailureRate", rate: 0.3, calls: 20, minimum: 10 })
        assert.deepInclude(failureRate({ rate: 0.3, calls: 5 }), { minimum: 3 })
      }))

    it.effect("any of several trip policies opens the circuit", () =>
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
    it.effect("reset closes an open circuit at once and clears the count", () =>
      withBreaker({ trip: consecutive(2) }, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2)
          yield* breaker.reset()
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", failures: 0 })
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("an outcome admitted before a reset does not count", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const early = yield* startCall(breaker)
          yield* breaker.reset()
          yield* early.fail
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", failures: 0 })
        })))

    it.effect("a probe admitted before a reset does not count", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          const probe = yield* startCall(breaker)
          yield* breaker.reset()
          yield* probe.fail
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", failures: 0 })
        })))

    it.effect("reset affects one key only", () =>
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

    it.effect("every transition is reported with key, time and evidence", () =>
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

    it.effect("a reset that closes the circuit is reported", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const seen: Array<CircuitBreaker.Transition> = []
          yield* failCalls(breaker, 1)
          yield* collect(breaker, seen)
          yield* breaker.reset()
          yield* TestClock.adjust(0)
          assert.deepStrictEqual(seen.map(({ from, to }) => [from, to]), [["Open", "Closed"]])
        }).pipe(Effect.scoped)))

    it.effect("calls without a transition and earlier transitions are not reported", () =>
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

    it.effect("a slow reader loses the oldest transitions and delays no call", () =>
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
    it.effect("all invalid options are reported at once", () =>
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
      it.effect(`the options ${JSON.stringify(options)} are refused`, () =>
        Effect.gen(function*() {
          const invalid = yield* withBreaker(options, () => Effect.void).pipe(Effect.flip)
          assert.strictEqual(invalid.issues.length, 1)
        }))
    }
  })

  describe("layerNoop", () => {
    it.effect("layerNoop admits every call", () =>
      Effect.gen(function*() {
        const breaker = yield* CircuitBreaker.CircuitBreaker
        yield* failCalls(breaker, 100)
        assert.strictEqual(yield* succeedCall(breaker), "an answer")
        assert.deepStrictEqual(yield* Stream.runCollect(breaker.guardStream(Stream.make(1, 2))), [1, 2])
        yield* breaker.check()
        assert.strictEqual(yield* stateTag(breaker), "Closed")
      }).pipe(Effect.provide(CircuitBreaker.layerNoop)))
  })

  it.effect("a refusal survives encoding and decoding", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* failCalls(breaker, 1)
        const refused = yield* Effect.flip(succeedCall(breaker))
        const json = JSON.stringify(Schema.encodeSync(CircuitBreaker.CircuitOpen)(refused))
        const read = Schema.decodeUnknownSync(CircuitBreaker.CircuitOpen)(JSON.parse(json))
        assert.instanceOf(read, CircuitBreaker.CircuitOpen)
        assert.strictEqual(read.message, refused.message)
        assert.strictEqual(Outcome.fromExit(Exit.failCause(Cause.fail(read)))._tag, "Ignored")
      })))

  it.effect("a refusal has no stack trace", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* failCalls(breaker, 1)
        const refused = yield* Effect.flip(succeedCall(breaker))
        assert.notInclude(refused.stack ?? "", "\n    at ")
      })))
})
