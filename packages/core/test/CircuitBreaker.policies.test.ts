import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Random, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { type Breaker, stateTag, withBreaker } from "./support/breakers.ts"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"

const { consecutive, failureRate, slowCallRate } = CircuitBreaker

const succeed = (breaker: Breaker, times: number) => Effect.repeat(succeedCall(breaker), { times: times - 1 })

/** Runs a call that takes so long. */
const slow = (breaker: Breaker, millis: number, end: Effect.Effect<string, string> = Effect.succeed("late")) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(breaker.guard(Effect.andThen(Effect.sleep(millis), end))), {
      startImmediately: true
    })
    yield* TestClock.adjust(millis)
    return fiber
  })

const refusal = (breaker: Breaker) => Effect.flip(succeedCall(breaker)).pipe(Effect.catch(() => Effect.die("admitted")))

const millisToProbe = (breaker: Breaker) =>
  Effect.map(refusal(breaker), ({ retryAfter }) => Duration.toMillis(retryAfter))

describe("CircuitBreaker: trip policies", () => {
  describe("failureRate over time", () => {
    const options = { trip: failureRate({ rate: 0.5, within: "10 seconds", minimum: 4 }) }

    it.effect("failureRate over time opens at the rate, and not before the minimum of calls", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 3)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* failCalls(breaker, 1)
          assert.deepInclude(yield* refusal(breaker), { calls: 4, failures: 4, slow: 0 })
        })))

    it.effect("a success that completes the minimum can open the circuit", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 2)
          yield* succeed(breaker, 2)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("outcomes older than the window do not count", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 3)
          yield* TestClock.adjust("10 seconds")
          yield* failCalls(breaker, 3)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("outcomes younger than nine tenths of the window count", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          yield* TestClock.adjust("999 millis")
          yield* failCalls(breaker, 3)
          yield* TestClock.adjust("9 seconds")
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("successes lower the failure rate", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          yield* succeed(breaker, 10)
          yield* failCalls(breaker, 9)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))
  })

  describe("slowCallRate", () => {
    const options = { trip: slowCallRate({ rate: 0.5, calls: 4, minimum: 2 }), slowAfter: "1 second" } as const

    it.effect("slowCallRate opens on calls that succeed after slowAfter", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          yield* slow(breaker, 1_001)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
          yield* slow(breaker, 1_001)
          assert.deepInclude(yield* refusal(breaker), { calls: 2, failures: 0, slow: 2 })
          assert.include((yield* refusal(breaker)).message, "0 of 2 calls failed, 2 slow")
        })))

    it.effect("a call of exactly slowAfter is not slow", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          for (let i = 0; i < 4; i++) yield* slow(breaker, 1_000)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("a slow failure counts as slow as well", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          yield* slow(breaker, 2_000, Effect.fail("503"))
          yield* slow(breaker, 2_000)
          assert.deepInclude(yield* refusal(breaker), { calls: 2, failures: 1, slow: 2 })
        })))

    it.effect("slowCallRate over time ignores slow calls older than the window", () =>
      withBreaker(
        { trip: slowCallRate({ rate: 1, within: "10 seconds", minimum: 2 }), slowAfter: "1 second" },
        (breaker) =>
          Effect.gen(function*() {
            yield* slow(breaker, 1_500)
            yield* TestClock.adjust("20 seconds")
            yield* slow(breaker, 1_500)
            assert.strictEqual(yield* stateTag(breaker), "Closed")
            yield* slow(breaker, 1_500)
            assert.strictEqual(yield* stateTag(breaker), "Open")
          })
      ))

    it.effect("slow calls do not count without slowCallRate", () =>
      withBreaker({ trip: consecutive(1), slowAfter: "1 second" }, (breaker) =>
        Effect.gen(function*() {
          for (let i = 0; i < 9; i++) yield* slow(breaker, 5_000)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))
  })

  it.effect("any of a list of policies opens the circuit, with its own evidence", () =>
    withBreaker({
      trip: [
        consecutive(10),
        failureRate({ rate: 0.9, calls: 100, minimum: 100 }),
        failureRate({ rate: 0.5, within: "1 minute", minimum: 6 })
      ]
    }, (breaker) =>
      Effect.gen(function*() {
        for (let i = 0; i < 3; i++) {
          yield* failCalls(breaker, 1)
          yield* succeed(breaker, 1)
        }
        assert.deepInclude(yield* refusal(breaker), { calls: 6, failures: 3 })
      })))
})

describe("CircuitBreaker: openFor", () => {
  /** Fails, waits until the circuit is half-open, and fails the probe. Returns the open times. */
  const openTimes = (breaker: Breaker, rounds: number) =>
    Effect.gen(function*() {
      const seen: Array<number> = []
      for (let i = 0; i < rounds; i++) {
        yield* failCalls(breaker, 1)
        const millis = yield* millisToProbe(breaker)
        seen.push(millis)
        yield* TestClock.adjust(millis)
      }
      return seen
    })

  it.effect("the open time follows a schedule, opening by opening, and stays at its last delay", () =>
    withBreaker({
      trip: consecutive(1),
      openFor: Schedule.exponential("1 second").pipe(Schedule.upTo({ times: 3 }))
    }, (breaker) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* openTimes(breaker, 5), [1_000, 2_000, 4_000, 4_000, 4_000])
      })))

  it.effect("the open time of a schedule never exceeds maxOpenFor", () =>
    withBreaker(
      { trip: consecutive(1), openFor: Schedule.exponential("1 second", 10), maxOpenFor: "1 minute" },
      (breaker) =>
        Effect.gen(function*() {
          assert.deepStrictEqual(yield* openTimes(breaker, 4), [1_000, 10_000, 60_000, 60_000])
        })
    ))

  it.effect("a schedule starts anew once the circuit has stayed closed as long as it was last open", () =>
    withBreaker(
      { trip: consecutive(1), openFor: Schedule.exponential("1 second") },
      (breaker) =>
        Effect.gen(function*() {
          yield* openTimes(breaker, 3)
          yield* succeed(breaker, 1)
          yield* TestClock.adjust("3 seconds")
          assert.deepStrictEqual(yield* openTimes(breaker, 1), [8_000], "3 seconds after 4 seconds open")
          yield* succeed(breaker, 1)
          yield* TestClock.adjust("8 seconds")
          assert.deepStrictEqual(yield* openTimes(breaker, 1), [1_000])
        })
    ))

  it.effect("openJitter lengthens the open time by at most its share, and a seed reproduces it", () => {
    const run = withBreaker(
      { trip: consecutive(1), openFor: "10 seconds", openJitter: 0.5 },
      (breaker) => openTimes(breaker, 20)
    ).pipe(Random.withSeed("seed"))
    return Effect.gen(function*() {
      const seen = yield* run
      assert.isTrue(seen.every((millis) => millis >= 10_000 && millis <= 15_000), String(seen))
      assert.isAtLeast(new Set(seen).size, 15)
      assert.deepStrictEqual(yield* run, seen)
    })
  })

  it.effect("a schedule that waits to compute its delays is refused", () =>
    Effect.gen(function*() {
      const waiting = Schedule.modifyDelay(Schedule.spaced("1 second"), () => Effect.as(Effect.sleep(1), "1 second"))
      const invalid = yield* withBreaker({ openFor: waiting }, () => Effect.void).pipe(Effect.flip)
      assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["openFor"])
    }))

  describe("Retry-After", () => {
    const failWith = (breaker: Breaker, retryAfter: Duration.Input) =>
      Effect.exit(
        breaker.guard(Effect.fail("503"), {
          classify: () => Outcome.failure({ retryAfter: Duration.fromInputUnsafe(retryAfter) })
        })
      )
    const options = { trip: consecutive(1), openFor: "30 seconds", maxOpenFor: "1 hour" } as const

    it.effect("Retry-After lengthens an opening and never shortens it", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          yield* failWith(breaker, "2 minutes")
          assert.strictEqual(yield* millisToProbe(breaker), 120_000)
          yield* breaker.reset()
          yield* failWith(breaker, "5 seconds")
          assert.strictEqual(yield* millisToProbe(breaker), 30_000)
        })))

    it.effect("Retry-After lengthens an opening up to maxOpenFor, and the refusal has the whole hint", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          yield* failWith(breaker, "1 day")
          yield* TestClock.adjust("10 minutes")
          const { hint, retryAfter } = yield* refusal(breaker)
          assert.deepStrictEqual(retryAfter, Duration.minutes(50))
          assert.deepStrictEqual(hint, Duration.minutes(24 * 60 - 10))
        })))

    it.effect("Retry-After of a call admitted before the opening lengthens it, and changes no other state", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          const hinted = { classify: () => Outcome.failure({ retryAfter: Duration.minutes(5) }) }
          const first = yield* startCall(breaker, hinted)
          const second = yield* startCall(breaker, hinted)
          yield* failCalls(breaker, 1)
          assert.strictEqual(yield* millisToProbe(breaker), 30_000)
          yield* first.fail
          assert.strictEqual(yield* millisToProbe(breaker), 300_000)
          yield* breaker.reset()
          yield* second.fail
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("Retry-After of a Throttled outcome does not open the circuit", () =>
      withBreaker(options, (breaker) =>
        Effect.gen(function*() {
          yield* Effect.exit(breaker.guard(Effect.fail("429"), {
            classify: () => Outcome.throttled({ retryAfter: Duration.minutes(5) })
          }))
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))
  })
})

describe("CircuitBreaker: probes", () => {
  const options = { trip: consecutive(1), openFor: "30 seconds", probes: 3, probesToClose: 2 } as const

  const halfOpen = (breaker: Breaker) => Effect.andThen(failCalls(breaker, 1), TestClock.adjust("30 seconds"))

  it.effect("a half-open circuit admits as many probes as configured and refuses the others", () =>
    withBreaker(options, (breaker) =>
      Effect.gen(function*() {
        yield* halfOpen(breaker)
        const calls = yield* Effect.forEach([1, 2, 3, 4, 5], () => startCall(breaker))
        assert.deepStrictEqual(calls.map((call) => call.ran()), [true, true, true, false, false])
        assert.strictEqual((yield* refusal(breaker)).state, "HalfOpen")
      })))

  it.effect("a circuit closes on the second success with probesToClose 2", () =>
    withBreaker(options, (breaker) =>
      Effect.gen(function*() {
        yield* halfOpen(breaker)
        yield* succeed(breaker, 1)
        assert.strictEqual(yield* stateTag(breaker), "HalfOpen")
        yield* failCalls(breaker, 1)
        assert.strictEqual(yield* stateTag(breaker), "HalfOpen", "one of three may fail")
        yield* succeed(breaker, 1)
        assert.strictEqual(yield* stateTag(breaker), "Closed")
      })))

  it.effect("a circuit reopens as soon as too many probes have failed to close it", () =>
    withBreaker(options, (breaker) =>
      Effect.gen(function*() {
        yield* halfOpen(breaker)
        const still = yield* startCall(breaker)
        yield* failCalls(breaker, 2)
        assert.deepInclude(yield* breaker.state(), { _tag: "Open", openings: 2 })
        yield* still.succeed
        assert.strictEqual(yield* stateTag(breaker), "Open", "the third probe is too late")
      })))

  it.effect("probes that have settled keep their slot until the circuit moves", () =>
    withBreaker({ ...options, probesToClose: 3 }, (breaker) =>
      Effect.gen(function*() {
        yield* halfOpen(breaker)
        yield* succeed(breaker, 2)
        const third = yield* startCall(breaker)
        assert.isFalse((yield* startCall(breaker)).ran())
        yield* third.interrupt
        yield* succeed(breaker, 1)
        assert.strictEqual(yield* stateTag(breaker), "Closed")
      })))

  it.effect("probesToClose above probes is refused", () =>
    Effect.gen(function*() {
      const invalid = yield* withBreaker({ probes: 2, probesToClose: 3 }, () => Effect.void).pipe(Effect.flip)
      assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["probesToClose"])
    }))
})

describe("CircuitBreaker: rampUp", () => {
  const options = { trip: consecutive(1), openFor: "10 seconds", rampUp: "100 seconds" } as const

  const admitted = (breaker: Breaker) =>
    Effect.gen(function*() {
      let through = 0
      for (let i = 0; i < 1_000; i++) if (Exit.isSuccess(yield* Effect.exit(succeedCall(breaker)))) through++
      return through
    })

  it.effect("after closing, a ramp admits a growing share of calls, then all", () =>
    withBreaker(options, (breaker) =>
      Effect.gen(function*() {
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("10 seconds")
        yield* succeed(breaker, 1)
        assert.isBelow(yield* admitted(breaker), 40, "1 in 100")
        yield* TestClock.adjust("50 seconds")
        const half = yield* admitted(breaker)
        assert.isTrue(half > 400 && half < 600, String(half))
        const { state } = yield* Effect.flip(Effect.forever(succeedCall(breaker)))
        assert.strictEqual(state, "Ramp")
        yield* TestClock.adjust("50 seconds")
        assert.strictEqual(yield* admitted(breaker), 1_000)
      })).pipe(Random.withSeed(1)))

  it.effect("a failure during the ramp reopens the circuit", () =>
    withBreaker(options, (breaker) =>
      Effect.gen(function*() {
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("10 seconds")
        yield* succeed(breaker, 1)
        assert.deepInclude(yield* breaker.state(), { _tag: "Closed", rampsFor: Duration.seconds(100) })
        yield* Effect.repeat(Effect.exit(breaker.guard(Effect.fail("503"))), { times: 1_000 })
        assert.strictEqual(yield* stateTag(breaker), "Open")
      })).pipe(Random.withSeed(1)))
})

describe("CircuitBreaker: options of the wrong type", () => {
  // Values that JavaScript or a configuration can pass.
  const wrong: ReadonlyArray<readonly [option: string, options: unknown]> = [
    ["trip", { trip: 5 }],
    ["trip", { trip: null }],
    ["trip", { trip: [null] }],
    ["trip", { trip: "consecutive" }],
    ["trip.failures", { trip: { _tag: "Consecutive", failures: "5" } }],
    ["trip.within", { trip: failureRate({ rate: 0.5, within: Number.NaN }) }],
    ["openFor", { openFor: "soon" }],
    ["openFor", { openFor: true }],
    ["openJitter", { openJitter: 2 }],
    ["maxOpenFor", { maxOpenFor: -1 }],
    ["probes", { probes: "1" }],
    ["probes", { probes: 101 }],
    ["rampUp", { rampUp: Number.POSITIVE_INFINITY }],
    ["slowAfter", { slowAfter: [] }],
    ["storeTimeout", { storeTimeout: 0 }],
    ["heartbeat", { heartbeat: "never" }],
    ["classify", { classify: "always" }],
    ["options", null]
  ]
  for (const [option, options] of wrong) {
    it.effect(`the options ${JSON.stringify(options)} are refused, naming ${option}`, () =>
      Effect.gen(function*() {
        const invalid = yield* withBreaker(options as CircuitBreaker.CircuitBreakerOptions, () => Effect.void).pipe(
          Effect.flip
        )
        assert.strictEqual(invalid._tag, "InvalidOptions")
        assert.include(invalid.issues.map((issue) => issue.option), option)
      }))
  }
})
