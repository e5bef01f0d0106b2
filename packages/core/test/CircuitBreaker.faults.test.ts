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

/** The same store, in which a breaker does not see that it is in its own process. */
const elsewhere = (memory: Store, change: Partial<Store> = {}): Store =>
  CircuitBreakerStore.CircuitBreakerStore.of({ ...memory, ...change })

const lost = (operation: string) =>
  Effect.fail(new CircuitBreakerStore.StoreError({ operation, description: "the reply was lost" }))

/** What a breaker decides, from now on. */
const decisionsOf = (breaker: CircuitBreaker.CircuitBreaker["Service"]) =>
  Effect.gen(function*() {
    const tags: Array<string> = []
    const read = Stream.runForEach(breaker.decisions, ({ _tag }) => Effect.sync(() => tags.push(_tag)))
    yield* Effect.forkChild(read, { startImmediately: true })
    return tags
  })

describe("the time that a classifier is told", () => {
  const noted = () => {
    const seen: Array<number> = []
    const classify = (_: unknown, elapsedMillis: number) => {
      seen.push(elapsedMillis)
      return undefined
    }
    return { seen, classify }
  }

  it.effect("is the stream's, whatever the clock says", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* TestClock.adjust("1 hour")
      const { classify, seen } = noted()
      yield* Stream.runDrain(breaker.guardStream(Stream.make(1), { classify }))
      assert.deepStrictEqual(seen, [0])
    }))

  it.effect("is the call's, also where somebody reads the decisions", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* TestClock.adjust("1 hour")
      yield* decisionsOf(breaker)
      const { classify, seen } = noted()
      yield* breaker.guard(Effect.void, { classify })
      assert.deepStrictEqual(seen, [0])
    }))
})

describe("a store that fails", () => {
  it.effect("under calls that run makes none of them a refused one", () =>
    Effect.gen(function*() {
      const faulty = yield* faultyStore
      const breaker = yield* over(faulty.store)
      const calls = [yield* startCall(breaker), yield* startCall(breaker)]
      faulty.breakDown("record", "read", "lease", "transition")
      for (const call of calls) yield* call.fail
      const { outcomes, refused } = yield* breaker.stats
      assert.deepStrictEqual([outcomes.Failure, refused], [2, 0])
    }))

  it.effect("to be written, but can be read, does not undo each second what this process has seen", () =>
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
      // One a second finds out whether the store is back.
      assert.isAtMost(ran, 35)
    }))

  it.effect("again, much later, finds nothing left of what was seen here when it failed before", () =>
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

  it.effect("leaves no outcome untold", () =>
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

  it.effect("by losing the reply to a lease keeps nobody from probing for long", () =>
    Effect.gen(function*() {
      const memory = yield* CircuitBreakerStore.makeMemory()
      let loses = true
      const lossy = elsewhere(memory, {
        lease: (asked) => loses ? Effect.andThen(memory.lease(asked), lost("lease")) : memory.lease(asked)
      })
      const one = yield* over(lossy)
      const other = yield* over(elsewhere(memory))
      yield* failCalls(one, 1)
      yield* TestClock.adjust("30 seconds")
      yield* Effect.exit(succeedCall(one))
      loses = false
      // Not the ten seconds of the heartbeat.
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* succeedCall(other), "an answer")
    }))

  it.effect("to end what it is asked, ever, is not asked without end", () =>
    Effect.gen(function*() {
      const memory = yield* CircuitBreakerStore.makeMemory()
      let outstanding = 0
      const hangs = Effect.suspend(() => {
        outstanding++
        return Effect.uninterruptible(Effect.never)
      })
      const breaker = yield* over(elsewhere(memory, { read: () => hangs, record: () => hangs }))
      for (let i = 0; i < 300; i++) {
        const call = yield* Effect.forkChild(succeedCall(breaker), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(call)
      }
      assert.isAtMost(outstanding, 100)
    }))

  for (const what of ["a call", "control"] as const) {
    it.effect(`by losing every race does not hold up ${what} for ever`, () =>
      Effect.gen(function*() {
        const memory = yield* CircuitBreakerStore.makeMemory()
        let asked = 0
        const breaker = yield* over(elsewhere(memory, {
          transition: (wish) =>
            Effect.suspend(() => {
              if (++asked > 1_000) throw new Error("asked a thousand times")
              return Effect.map(memory.read(wish), (snapshot) => ({ ok: false, snapshot }))
            })
        }))
        if (what === "control") {
          assert.isTrue(Exit.isFailure(yield* Effect.exit(breaker.control({ mode: "ForcedOpen", reason: "x" }))))
        } else {
          yield* failCalls(breaker, 1)
          yield* Effect.exit(succeedCall(breaker))
        }
        assert.isAtMost(asked, 20)
      }))
  }
})

describe("a probe's place elsewhere", () => {
  it.effect("that has lapsed, as far as is known here, is told free before it is asked for", () =>
    Effect.gen(function*() {
      const memory = yield* CircuitBreakerStore.makeMemory()
      const options = { heartbeat: "3 seconds", probeLease: "3 seconds", staleness: "1 minute" } as const
      const one = yield* over(elsewhere(memory), options)
      const other = yield* over(elsewhere(memory), options)
      yield* failCalls(one, 1)
      yield* TestClock.adjust("30 seconds")
      yield* startCall(one)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(other.check())))
      yield* TestClock.adjust("4 seconds")
      yield* other.check()
      yield* succeedCall(other)
    }))

  it.effect("is not taken again by a renewal that comes late", () =>
    Effect.gen(function*() {
      const memory = yield* CircuitBreakerStore.makeMemory()
      let isSlow = false
      const store = elsewhere(memory, {
        // It is under way, and cannot be called back.
        lease: (asked) =>
          isSlow ? Effect.uninterruptible(Effect.delay(memory.lease(asked), "50 millis")) : memory.lease(asked)
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

describe("what a circuit counts", () => {
  it.effect("a clock that was far ahead, and was set right, does not keep old failures for ever", () =>
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

  it.effect("an outcome of a circuit that was forgotten does not count in a later generation of it", () =>
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

  it.effect("a failure of no weight is no success: as a probe it closes nothing", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("30 seconds")
      yield* Effect.exit(breaker.guard(Effect.fail("x"), { classify: () => Outcome.failure({ weight: 0 }) }))
      assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
    }))

  it.effect("an outcome that is none frees its place, and counts in no number that does not exist", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("30 seconds")
      for (const nonsense of [{ _tag: "Nonsense" }, 5, "Success", {}, []]) {
        yield* Effect.exit(breaker.guard(Effect.fail("x"), { classify: () => nonsense as never }))
        assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
      }
      const { outcomes } = yield* breaker.stats
      assert.deepStrictEqual(outcomes, { Success: 0, Failure: 1, Throttled: 0, Ignored: 5 })
    }))

  it.effect("a retryAfter that is no time is none, and the error stays what it is", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("30 seconds")
      const classify = () => Outcome.failure({ retryAfter: "soon" as never })
      assert.strictEqual(yield* Effect.flip(breaker.guard(Effect.fail("x"), { classify })), "x")
      assert.deepInclude(yield* breaker.state(), { _tag: "Open", openings: 2 })
    }))

  for (const where of ["in this process", "elsewhere"] as const) {
    it.effect(`a late hint lengthens an opening up to the cap, and no more, ${where}`, () =>
      Effect.gen(function*() {
        const memory = yield* CircuitBreakerStore.makeMemory()
        const store = where === "elsewhere" ? elsewhere(memory) : memory
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

    it.effect(`a call that began before the circuit was set by hand moves nothing, ${where}`, () =>
      Effect.gen(function*() {
        for (const mode of ["ForcedClosed", "Disabled", "ObserveOnly"] as const) {
          const memory = yield* CircuitBreakerStore.makeMemory()
          const store = where === "elsewhere" ? elsewhere(memory) : memory
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

describe("what is told", () => {
  for (const where of ["in this process", "elsewhere"] as const) {
    it.effect(`whom a ramp lets in is told as everybody, ${where}`, () =>
      Effect.gen(function*() {
        const memory = yield* CircuitBreakerStore.makeMemory()
        const breaker = yield* over(where === "elsewhere" ? elsewhere(memory) : memory, { rampUp: "10 seconds" })
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

describe("one guarded call", () => {
  it.effect("that many fibers run at once is as many calls", () =>
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

  // The inner guard is refused, since the outer one has the only place; a refusal says nothing; the circuit never closes.
  it.effect("of a key inside another of that key closes the circuit when both succeed", () =>
    Effect.gen(function*() {
      const breaker = yield* inMemory()
      yield* failCalls(breaker, 1)
      for (let i = 0; i < 5; i++) {
        yield* TestClock.adjust("30 seconds")
        yield* Effect.exit(breaker.guard(breaker.guard(Effect.succeed("an answer"))))
      }
      assert.strictEqual((yield* breaker.state())._tag, "Closed")
    }))

  it.effect("through Effect's service gives its place back if it is interrupted while it is classified", () =>
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
