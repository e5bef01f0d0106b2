import * as Admission from "@sluice/core/Admission"
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Outcome from "@sluice/core/Outcome"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { type Breaker, refusalOf, stateTag } from "./support/breakers.ts"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"
import { settableClock } from "./support/clocks.ts"

type Store = CircuitBreakerStore.CircuitBreakerStore["Service"]

/** A store that other processes share. */
interface Shared {
  readonly store: Store
  /** Milliseconds between a request and its execution. */
  before: number
  /** Milliseconds between its execution and the reply. */
  after: number
  isDown: boolean
}

const sharedOn = (memory: Store): Shared => {
  const remote = <A>(verb: Effect.Effect<A, CircuitBreakerStore.StoreError>) =>
    Effect.suspend(() => {
      if (shared.isDown) {
        return Effect.fail(new CircuitBreakerStore.StoreError({ operation: "any", description: "down" }))
      }
      const { after, before } = shared
      const executed = before === 0 ? verb : Effect.andThen(Effect.sleep(before), verb)
      return after === 0 ? executed : Effect.tap(executed, () => Effect.sleep(after))
    })
  const shared: Shared = {
    before: 0,
    after: 0,
    isDown: false,
    store: CircuitBreakerStore.CircuitBreakerStore.of({
      read: (options) => remote(memory.read(options)),
      lease: (options) => remote(memory.lease(options)),
      record: (options) => remote(memory.record(options)),
      transition: (options) => remote(memory.transition(options)),
      list: memory.list
    })
  }
  return shared
}

const shared = Effect.map(CircuitBreakerStore.makeMemory(), sharedOn)

const breakerOn = ({ store }: Shared, options?: CircuitBreaker.CircuitBreakerOptions) =>
  CircuitBreaker.make({ trip: CircuitBreaker.consecutive(1), openFor: "1 second", ...options }).pipe(
    Effect.provideService(CircuitBreakerStore.CircuitBreakerStore, store)
  )

/** Runs an effect while the test clock advances. Returns its exit and how long it took. */
const timed = <A, E>(self: Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(self), { startImmediately: true })
    let millis = 0
    for (; fiber.pollUnsafe() === undefined && millis < 20_000; millis += 10) yield* TestClock.adjust(10)
    return [yield* Fiber.join(fiber), millis] as const
  })

describe("a process that was refused by a shared circuit", () => {
  /** A process whose probe runs, and another one that knows of the opening. */
  const probing = (through: Shared) =>
    Effect.gen(function*() {
      const other = yield* breakerOn(through)
      const breaker = yield* breakerOn(through)
      yield* succeedCall(breaker)
      yield* failCalls(other, 1)
      // The answer to this record shows the opening.
      yield* succeedCall(breaker)
      yield* TestClock.adjust("1 second")
      return { other, breaker, probe: yield* startCall(other) }
    })

  it.effect("sees that the circuit has closed when its retryAfter is over, not `staleness` later", () =>
    Effect.gen(function*() {
      const { breaker, probe } = yield* probing(yield* shared)
      const { retryAfter, state } = yield* refusalOf(breaker)
      assert.deepStrictEqual([state, retryAfter], ["HalfOpen", 1_000])
      yield* probe.succeed
      yield* TestClock.adjust(retryAfter - 1)
      assert.strictEqual((yield* refusalOf(breaker)).state, "HalfOpen")
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* succeedCall(breaker), "an answer")
    }).pipe(Effect.scoped))

  it.effect("sees it for all callers that were refused together, by one read", () =>
    Effect.gen(function*() {
      const through = yield* shared
      const { breaker, probe } = yield* probing(through)
      yield* refusalOf(breaker)
      yield* probe.succeed
      yield* TestClock.adjust("1 second")
      through.before = 20
      const calls = yield* Effect.forEach(Array.from({ length: 20 }), () => startCall(breaker))
      yield* TestClock.adjust(20)
      assert.strictEqual(calls.filter((call) => call.ran()).length, 20)
    }).pipe(Effect.scoped))

  it.effect("sees it after the retryAfter of a `check`", () =>
    Effect.gen(function*() {
      const { breaker, probe } = yield* probing(yield* shared)
      yield* Effect.flip(succeedCall(breaker))
      yield* TestClock.adjust("1 second")
      const { retryAfter } = yield* Effect.flip(breaker.check())
      yield* probe.succeed
      yield* TestClock.adjust(retryAfter)
      yield* breaker.check()
    }).pipe(Effect.scoped))

  it.effect("sees that an operator lifted a force without an end when its retryAfter is over", () =>
    Effect.gen(function*() {
      const through = yield* shared
      const [other, breaker] = [yield* breakerOn(through), yield* breakerOn(through)]
      yield* other.control({ mode: "ForcedOpen", reason: "a test" })
      const { retryAfter, state } = yield* refusalOf(breaker)
      assert.deepStrictEqual([state, retryAfter], ["ForcedOpen", 1_000])
      yield* other.control({ mode: "Auto", reason: "over" })
      yield* TestClock.adjust(retryAfter)
      assert.strictEqual(yield* succeedCall(breaker), "an answer")
    }).pipe(Effect.scoped))
})

describe("storeTimeout", () => {
  // Each request takes 60 ms, so a second one of a call does not fit into its 100 ms.
  const slow = 60

  interface Scene {
    readonly through: Shared
    readonly breaker: Breaker
    readonly other: Breaker
  }

  const rows: ReadonlyArray<{
    readonly what: string
    readonly prepare: (scene: Scene) => Effect.Effect<void, unknown>
    readonly call: (scene: Scene) => Effect.Effect<unknown, unknown>
    /** The state of the circuit, once the store has answered all requests. */
    readonly state: string
  }> = [
    {
      what: "a read and a record",
      prepare: () => Effect.void,
      call: ({ breaker }) => succeedCall(breaker),
      state: "Closed"
    },
    {
      what: "a read, a record and a transition",
      prepare: () => Effect.void,
      call: ({ breaker }) => breaker.guard(Effect.fail("503")),
      state: "Open"
    },
    {
      what: "a lease, a record and a transition",
      prepare: ({ breaker }) => Effect.andThen(failCalls(breaker, 1), TestClock.adjust("1 second")),
      call: ({ breaker }) => succeedCall(breaker),
      state: "Closed"
    },
    {
      what: "a read and a lease",
      prepare: ({ breaker }) => Effect.andThen(failCalls(breaker, 1), TestClock.adjust("6 seconds")),
      call: ({ breaker }) => succeedCall(breaker),
      state: "HalfOpen"
    },
    {
      what: "a read and the transition of a process that died",
      prepare: ({ through }) => {
        const window = { calls: 20, bucketMillis: 0, buckets: 0 }
        return through.store.record({ key: "default", window, generation: 0, samples: "X" })
      },
      call: ({ breaker }) => Effect.exit(succeedCall(breaker)),
      state: "Closed"
    }
  ]
  for (const { call, prepare, state, what } of rows) {
    it.effect(`${what} delay a call by 100 ms in all`, () =>
      Effect.gen(function*() {
        const through = yield* shared
        const scene = { through, breaker: yield* breakerOn(through), other: yield* breakerOn(through) }
        yield* prepare(scene)
        through.before = slow
        const [, millis] = yield* timed(call(scene))
        assert.strictEqual(millis, 100)
        yield* TestClock.adjust(900)
        through.before = 0
        assert.strictEqual(yield* stateTag(scene.other), state)
        // The store was slow, not down. The second call is for the row whose transition the next call makes.
        yield* TestClock.adjust("1 minute")
        yield* Effect.exit(succeedCall(scene.breaker))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* succeedCall(scene.breaker), "an answer")
        assert.strictEqual(yield* stateTag(scene.other), "Closed")
      }).pipe(Effect.scoped))
  }

  it.effect("a renewal of the probe's lease that runs when it ends does not delay the call further", () =>
    Effect.gen(function*() {
      const through = yield* shared
      const breaker = yield* breakerOn(through, { heartbeat: "3 seconds" })
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("1 second")
      through.before = slow
      const probe = yield* startCall(breaker)
      yield* TestClock.adjust(1_080)
      const [, millis] = yield* timed(probe.succeed)
      assert.strictEqual(millis, 40)
      yield* TestClock.adjust("1 second")
      through.before = 0
      assert.strictEqual(yield* stateTag(breaker), "Closed")
    }).pipe(Effect.scoped))

  it.effect("the look of an attempt that queues and its admission delay it by 100 ms in all", () =>
    Effect.gen(function*() {
      const through = yield* shared
      const breaker = yield* breakerOn(through)
      const backpressure = yield* Backpressure.make({ capacity: 1, queue: 1, maxWait: "1 minute" })
      const admission = yield* Admission.make({ breaker, permits: backpressure })
      const first = yield* admission.acquire()
      yield* TestClock.adjust("10 seconds")
      through.before = slow
      const attempt: Effect.Effect<Admission.Admitted, unknown, Scope.Scope> = admission.acquire()
      const second = yield* Effect.forkChild(attempt, { startImmediately: true })
      yield* TestClock.adjust("10 seconds")
      yield* Effect.forkChild(first.settle(Outcome.ignored))
      const [, millis] = yield* timed(Fiber.await(second))
      assert.strictEqual(millis, 40)
    }).pipe(Effect.scoped))

  it.effect("a call that waits for an open circuit and asks again is delayed by 100 ms in all", () =>
    Effect.gen(function*() {
      const through = yield* shared
      const gpt = yield* Sluice.make({
        name: "gpt",
        breaker: { trip: CircuitBreaker.consecutive(1), openFor: "20 seconds" }
      }).pipe(
        Effect.provideService(CircuitBreakerStore.CircuitBreakerStore, through.store)
      )
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      yield* TestClock.adjust("10 seconds")
      through.before = slow
      // Reads the stale circuit, sleeps until the opening ends, and asks for a probe slot.
      const [exit, millis] = yield* timed(gpt.protect(Effect.succeed("an answer"), { deadline: "1 minute" }))
      assert.deepStrictEqual([exit, millis], [Exit.succeed("an answer"), 10_040])
    }).pipe(Effect.scoped))

  it.effect("a store that hangs in the second request of a call is down for the next call at the latest", () =>
    Effect.gen(function*() {
      const through = yield* shared
      const breaker = yield* breakerOn(through)
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("1 second")
      through.before = slow
      const probe = yield* startCall(breaker)
      yield* TestClock.adjust(slow)
      through.before = 1_000_000
      const [, millis] = yield* timed(probe.succeed)
      assert.strictEqual(millis, 40)
      yield* TestClock.adjust(100)
      const [exit, next] = yield* timed(succeedCall(breaker))
      assert.deepStrictEqual([Exit.isSuccess(exit), next], [true, 0])
    }).pipe(Effect.scoped))
})

describe("copies of a shared circuit", () => {
  it.effect("the circuit of this process starts from the shared one by this process's clock", () =>
    Effect.gen(function*() {
      // The clock of the store is years ahead.
      const { clock } = yield* settableClock
      const through = sharedOn(yield* Effect.provideService(CircuitBreakerStore.makeMemory(), Clock.Clock, clock))
      const breaker = yield* breakerOn(through, { openFor: "30 seconds" })
      yield* failCalls(breaker, 1)
      through.isDown = true
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* refusalOf(breaker)).retryAfter, 20_000)
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(yield* succeedCall(breaker), "an answer")
    }).pipe(Effect.scoped))

  it.effect("the late reply to an earlier request does not replace a newer snapshot", () =>
    Effect.gen(function*() {
      const through = yield* shared
      const breaker = yield* breakerOn(through, { storeTimeout: "10 seconds", openFor: "30 seconds" })
      yield* succeedCall(breaker)
      // Executed while the circuit is closed, answered when it is open.
      through.after = 5_000
      const reading = yield* Effect.forkChild(breaker.state(), { startImmediately: true })
      through.after = 0
      yield* failCalls(breaker, 1)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(reading))._tag, "Closed")
      assert.strictEqual((yield* refusalOf(breaker)).retryAfter, Duration.toMillis("25 seconds"))
    }).pipe(Effect.scoped))
})
