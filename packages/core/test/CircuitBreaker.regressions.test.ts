import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as EffectCircuitBreaker from "@sluice/core/EffectCircuitBreaker"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Random, Stream } from "effect"
import { TestClock } from "effect/testing"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"
import { yields } from "./support/probe.ts"
import { faultyStore } from "./support/stores.ts"

type Store = CircuitBreakerStore.CircuitBreakerStore["Service"]

const over = (store: Store, options?: CircuitBreaker.CircuitBreakerOptions) =>
  CircuitBreaker.make({ trip: CircuitBreaker.consecutive(1), openFor: "30 seconds", ...options }).pipe(
    Effect.provideService(CircuitBreakerStore.CircuitBreakerStore, store)
  )

const inMemory = (options?: CircuitBreaker.CircuitBreakerOptions) =>
  Effect.flatMap(CircuitBreakerStore.makeMemory(), (store) => over(store, options))

/** A copy of the memory store, which a breaker treats as a remote one. */
const remote = (memory: Store, change: Partial<Store> = {}): Store =>
  CircuitBreakerStore.CircuitBreakerStore.of({ ...memory, ...change })

const lost = (operation: string) =>
  Effect.fail(new CircuitBreakerStore.StoreError({ operation, description: "the reply was lost" }))

/** The tags of the breaker's decisions from now on. */
const decisionsOf = (breaker: CircuitBreaker.CircuitBreaker["Service"]) =>
  Effect.gen(function*() {
    const tags: Array<string> = []
    const read = Stream.runForEach(breaker.decisions, ({ _tag }) => Effect.sync(() => tags.push(_tag)))
    yield* Effect.forkChild(read, { startImmediately: true })
    return tags
  })

describe("the elapsed time of a classifier", () => {
  const recordElapsed = () => {
    const seen: Array<number> = []
    const classify = (_: unknown, elapsedMillis: number) => {
      seen.push(elapsedMillis)
      return undefined
    }
    return { seen, classify }
  }

  it.effect("a stream's classifier gets the duration of the stream, not the time of the clock", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* TestClock.adjust("1 hour")
      const { classify, seen } = recordElapsed()
      yield* Stream.runDrain(breaker.guardStream(Stream.make(1), { classify }))
      assert.deepStrictEqual(seen, [0])
    }))

  it.effect("a call's classifier gets the duration of the call while decisions are read", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* TestClock.adjust("1 hour")
      yield* decisionsOf(breaker)
      const { classify, seen } = recordElapsed()
      yield* breaker.guard(Effect.void, { classify })
      assert.deepStrictEqual(seen, [0])
    }))
})

describe("a store that fails", () => {
  it.effect("a store that fails while calls run turns none of them into a refusal", () =>
    Effect.gen(function*() {
      const faulty = yield* faultyStore
      const breaker = yield* over(faulty.store)
      const calls = [yield* startCall(breaker), yield* startCall(breaker)]
      faulty.breakDown("record", "read", "lease", "transition")
      for (const call of calls) yield* call.fail
      const { outcomes, refused } = yield* breaker.stats
      assert.deepStrictEqual([outcomes.Failure, refused], [2, 0])
    }))

  it.effect("a store that can only be read does not undo the local evidence each second", () =>
    Effect.gen(function*() {
      const faulty = yield* faultyStore
      const breaker = yield* over(faulty.store, { trip: CircuitBreaker.consecutive(3) })
      yield* succeedCall(breaker)
      faulty.breakDown("record", "transition", "lease")
      let ran = 0
      const call = Effect.suspend(() => {
        ran++
        return Effect.fail("503")
      })
      for (let i = 0; i < 100; i++) {
        yield* Effect.exit(breaker.guard(call))
        yield* TestClock.adjust("300 millis")
      }
      // One call a second tests whether the store is back.
      assert.isAtMost(ran, 35)
    }))

  it.effect("a second failure of the store, much later, starts without the local evidence of the first", () =>
    Effect.gen(function*() {
      const faulty = yield* faultyStore
      const breaker = yield* over(faulty.store, { trip: CircuitBreaker.consecutive(3) })
      yield* succeedCall(breaker)
      faulty.breakDown("record", "transition", "lease", "read")
      yield* failCalls(breaker, 3)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(succeedCall(breaker))))
      faulty.recover()
      yield* TestClock.adjust("2 seconds")
      for (let i = 0; i < 100; i++) {
        yield* succeedCall(breaker)
        yield* TestClock.adjust("30 seconds")
      }
      faulty.breakDown("record", "transition", "lease", "read")
      const calls = yield* Effect.forEach([1, 2, 3], () => startCall(breaker))
      assert.deepStrictEqual(calls.map((call) => call.ran()), [true, true, true])
    }))

  it.effect("an outcome is reported while the store fails", () =>
    Effect.gen(function*() {
      const faulty = yield* faultyStore
      const breaker = yield* over(faulty.store)
      const decisions = yield* decisionsOf(breaker)
      const call = yield* startCall(breaker)
      faulty.breakDown("record", "transition", "lease", "read")
      yield* call.fail
      yield* yields(5)
      assert.deepStrictEqual(decisions, ["Admitted", "Counted"])
    }))

  it.effect("a lost reply to a lease blocks the probe slot for at most two seconds", () =>
    Effect.gen(function*() {
      const memory = yield* CircuitBreakerStore.makeMemory()
      let loses = true
      const lossy = remote(memory, {
        lease: (request) => loses ? Effect.andThen(memory.lease(request), lost("lease")) : memory.lease(request)
      })
      const one = yield* over(lossy)
      const other = yield* over(remote(memory))
      yield* failCalls(one, 1)
      yield* TestClock.adjust("30 seconds")
      yield* Effect.exit(succeedCall(one))
      loses = false
      // Less than the ten seconds of the heartbeat.
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* succeedCall(other), "an answer")
    }))

  it.effect("a store that never replies has a bounded number of requests outstanding", () =>
    Effect.gen(function*() {
      const memory = yield* CircuitBreakerStore.makeMemory()
      let outstanding = 0
      const hang = Effect.suspend(() => {
        outstanding++
        return Effect.uninterruptible(Effect.never)
      })
      const breaker = yield* over(remote(memory, { read: () => hang, record: () => hang }))
      for (let i = 0; i < 300; i++) {
        const call = yield* Effect.forkChild(succeedCall(breaker), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(call)
      }
      assert.isAtMost(outstanding, 100)
    }))

  for (const what of ["a call", "control"] as const) {
    it.effect(`a store that loses every transition delays ${what} for at most 20 tries`, () =>
      Effect.gen(function*() {
        const memory = yield* CircuitBreakerStore.makeMemory()
        let tries = 0
        const breaker = yield* over(remote(memory, {
          transition: (request) =>
            Effect.suspend(() => {
              if (++tries > 1_000) throw new Error("a thousand tries")
              return Effect.map(memory.read(request), (snapshot) => ({ ok: false, snapshot }))
            })
        }))
        if (what === "control") {
          assert.isTrue(Exit.isFailure(yield* Effect.exit(breaker.control({ mode: "ForcedOpen", reason: "x" }))))
        } else {
          yield* failCalls(breaker, 1)
          yield* Effect.exit(succeedCall(breaker))
        }
        assert.isAtMost(tries, 20)
      }))
  }
})

describe("a probe slot in a remote store", () => {
  it.effect("check reports a slot free once the cached lease has expired", () =>
    Effect.gen(function*() {
      const memory = yield* CircuitBreakerStore.makeMemory()
      const options = { heartbeat: "3 seconds", probeLease: "3 seconds", staleness: "1 minute" } as const
      const one = yield* over(remote(memory), options)
      const other = yield* over(remote(memory), options)
      yield* failCalls(one, 1)
      yield* TestClock.adjust("30 seconds")
      yield* startCall(one)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(other.check())))
      yield* TestClock.adjust("4 seconds")
      yield* other.check()
      yield* succeedCall(other)
    }))

  it.effect("a late renewal does not take the slot again", () =>
    Effect.gen(function*() {
      const memory = yield* CircuitBreakerStore.makeMemory()
      let isSlow = false
      const store = remote(memory, {
        // The request is on its way and cannot be interrupted.
        lease: (request) =>
          isSlow ? Effect.uninterruptible(Effect.delay(memory.lease(request), "50 millis")) : memory.lease(request)
      })
      const breaker = yield* over(store, { heartbeat: "9 seconds" })
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("30 seconds")
      const probe = yield* startCall(breaker)
      isSlow = true
      yield* TestClock.adjust("3 seconds")
      yield* Effect.forkChild(probe.interrupt, { startImmediately: true })
      yield* TestClock.adjust("100 millis")
      const window = { calls: 20, bucketMillis: 0, buckets: 0 }
      assert.strictEqual((yield* memory.read({ key: "default", window })).probing, 0)
    }))
})

describe("evidence", () => {
  it.effect("failures recorded by a clock far ahead do not count for ever after it is set right", () =>
    Effect.gen(function*() {
      const inner = yield* Clock.Clock
      let ahead = Duration.toMillis("365 days")
      const now = () => inner.currentTimeMillisUnsafe() + ahead
      const clock: Clock.Clock = { ...inner, currentTimeMillisUnsafe: now, currentTimeMillis: Effect.sync(now) }
      yield* Effect.gen(function*() {
        const trip = CircuitBreaker.failureRate({ rate: 0.5, within: "10 seconds", minimum: 4 })
        const breaker = yield* inMemory({ trip })
        yield* failCalls(breaker, 3)
        ahead = 0
        yield* TestClock.adjust("1 hour")
        yield* failCalls(breaker, 1)
        assert.strictEqual((yield* breaker.state())._tag, "Closed")
      }).pipe(Effect.provideService(Clock.Clock, clock))
    }))

  it.effect("an outcome of an evicted circuit does not count in a later generation", () =>
    Effect.gen(function*() {
      const breaker = yield* over(yield* CircuitBreakerStore.makeMemory({ capacity: 1 }))
      const old = yield* startCall(breaker)
      yield* succeedCall(breaker, "other")
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("30 seconds")
      yield* succeedCall(breaker)
      yield* old.fail
      assert.strictEqual((yield* breaker.state())._tag, "Closed")
    }))

  it.effect("a probe that fails with weight 0 does not close the circuit", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("30 seconds")
      yield* Effect.exit(breaker.guard(Effect.fail("x"), { classify: () => Outcome.failure({ weight: 0 }) }))
      assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
    }))

  it.effect("an invalid outcome frees the probe slot and counts as Ignored", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("30 seconds")
      for (const invalid of [{ _tag: "Nonsense" }, 5, "Success", {}, []]) {
        yield* Effect.exit(breaker.guard(Effect.fail("x"), { classify: () => invalid as never }))
        assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
      }
      const { outcomes } = yield* breaker.stats
      assert.deepStrictEqual(outcomes, { Success: 0, Failure: 1, Throttled: 0, Ignored: 5 })
    }))

  it.effect("an invalid retryAfter is dropped, and the call's error is unchanged", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("30 seconds")
      const classify = () => Outcome.failure({ retryAfter: "soon" as never })
      assert.strictEqual(yield* Effect.flip(breaker.guard(Effect.fail("x"), { classify })), "x")
      assert.deepInclude(yield* breaker.state(), { _tag: "Open", openings: 2 })
    }))

  for (const where of ["in this process", "in a remote store"] as const) {
    it.effect(`a late Retry-After lengthens an opening up to maxOpenFor, ${where}`, () =>
      Effect.gen(function*() {
        const memory = yield* CircuitBreakerStore.makeMemory()
        const store = where === "in a remote store" ? remote(memory) : memory
        const breaker = yield* over(store, { trip: CircuitBreaker.consecutive(9), maxOpenFor: "1 minute" })
        const late = yield* startCall(breaker, { classify: () => Outcome.failure({ retryAfter: Duration.hours(9) }) })
        const opens = () => Outcome.failure({ open: Duration.hours(5) })
        yield* Effect.exit(breaker.guard(Effect.fail("x"), { classify: opens }))
        yield* TestClock.adjust("30 seconds")
        yield* late.fail
        const state = yield* breaker.state()
        assert.isTrue(state._tag === "Open" && state.openings === 1)
        const refusal = yield* Effect.flip(succeedCall(breaker))
        assert.deepStrictEqual([refusal.retryAfter, refusal.hint], [Duration.minutes(1), Duration.hours(9)])
      }))

    it.effect(`an outcome admitted before control does not count, ${where}`, () =>
      Effect.gen(function*() {
        for (const mode of ["ForcedClosed", "Disabled", "ObserveOnly"] as const) {
          const memory = yield* CircuitBreakerStore.makeMemory()
          const store = where === "in a remote store" ? remote(memory) : memory
          const breaker = yield* over(store, { trip: CircuitBreaker.consecutive(2) })
          const before = yield* startCall(breaker)
          yield* breaker.control({ mode, reason: "x", for: "10 seconds" })
          yield* failCalls(breaker, 5)
          yield* before.fail
          assert.strictEqual((yield* breaker.state())._tag, mode)
          yield* TestClock.adjust("10 seconds")
          yield* failCalls(breaker, 1)
          assert.strictEqual((yield* breaker.state())._tag, "Closed", mode)
        }
      }))
  }
})

describe("decisions", () => {
  for (const where of ["in this process", "in a remote store"] as const) {
    it.effect(`a call admitted by a ramp is reported like any other, ${where}`, () =>
      Effect.gen(function*() {
        const memory = yield* CircuitBreakerStore.makeMemory()
        const breaker = yield* over(where === "in a remote store" ? remote(memory) : memory, { rampUp: "10 seconds" })
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        yield* succeedCall(breaker)
        yield* TestClock.adjust("5 seconds")
        const decisions = yield* decisionsOf(breaker)
        yield* succeedCall(breaker)
        yield* yields(5)
        assert.deepStrictEqual(decisions, ["Admitted", "Counted"])
      }).pipe(Effect.provideService(Random.Random, { nextIntUnsafe: () => 7, nextDoubleUnsafe: () => 0 })))
  }
})

describe("a guarded effect", () => {
  it.effect("a guarded effect that 50 fibers run at once counts as 50 calls", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory({ probes: 2 })
      let running = 0
      let most = 0
      const call = breaker.guard(Effect.suspend(() => {
        most = Math.max(most, ++running)
        return Effect.ensuring(Effect.sleep("1 second"), Effect.sync(() => running--))
      }))
      const fifty = Effect.gen(function*() {
        const fibers = yield* Effect.forEach(
          Array.from({ length: 50 }),
          () => Effect.forkChild(Effect.exit(call), { startImmediately: true })
        )
        yield* TestClock.adjust("1 second")
        return (yield* Fiber.joinAll(fibers)).filter(Exit.isSuccess).length
      })
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual([yield* fifty, running, most], [2, 0, 2])
      assert.deepStrictEqual([yield* fifty, running, most], [50, 0, 50])
    }))

  // Regression: the outer guard took the only slot, the inner one was refused, and the circuit never closed.
  it.effect("a guard inside a guard of the same key closes the circuit when the call succeeds", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* failCalls(breaker, 1)
      for (let i = 0; i < 5; i++) {
        yield* TestClock.adjust("30 seconds")
        yield* Effect.exit(breaker.guard(breaker.guard(Effect.succeed("an answer"))))
      }
      assert.strictEqual((yield* breaker.state())._tag, "Closed")
    }))

  it.effect("a call through Effect's service interrupted during its classification frees its slot", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* failCalls(breaker, 1, "a")
      yield* TestClock.adjust("30 seconds")
      const { execute } = EffectCircuitBreaker.fromBreaker(breaker)
      const call = yield* Effect.forkChild(
        execute(Effect.succeed(1), { key: "a", classify: () => Effect.never }),
        { startImmediately: true }
      )
      yield* yields(3)
      yield* Fiber.interrupt(call)
      assert.deepInclude(yield* breaker.state("a"), { _tag: "HalfOpen", probing: 0 })
    }))
})
