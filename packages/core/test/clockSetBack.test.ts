import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import { settableClock } from "./support/clocks.ts"
import { failureOf, fork } from "./support/effects.ts"
import { faultyStore } from "./support/stores.ts"

const hour = 3_600_000
const Ask = Deduplicator.operation<string>()("ask", { key: (text: string) => text })

/** Runs a test on a clock that it can set back. */
const withClock = <A, E, R>(
  test: (setBack: (millis: number) => Effect.Effect<void>, passed: () => number) => Effect.Effect<A, E, R>
) =>
  Effect.flatMap(
    settableClock,
    ({ clock, passed, setBack }) => Effect.provideService(test(setBack, passed), Clock.Clock, clock)
  )

const policy = (options: Partial<Sluice.SluiceOptions>) =>
  Sluice.make({ name: "gpt", retry: RetryPolicy.none, ...options }).pipe(
    Effect.provide(Layer.fresh(Sluice.layerStoresMemory))
  )

/** The error of a call that begins 100 ms before the clock is set back, and that has to end after `millis`. */
const errorWhenSetBack = <A, E, R>(
  setBack: (millis: number) => Effect.Effect<void>,
  call: Effect.Effect<A, E, R>,
  millis: number
) =>
  Effect.gen(function*() {
    const fiber = yield* fork(call)
    yield* TestClock.adjust(100)
    yield* setBack(hour)
    yield* TestClock.adjust(millis - 101)
    assert.isUndefined(fiber.pollUnsafe(), "the call ends too early")
    yield* TestClock.adjust(1)
    const exit = fiber.pollUnsafe()
    assert(exit !== undefined, "the call does not end")
    assert(Exit.isFailure(exit))
    const error = failureOf(exit)
    return error instanceof Sluice.Rejected ? error.reason : error
  })

describe("a clock set back by an hour during a call", () => {
  const dedupe = Ask("a prompt")

  it.effect("a clock set back does not lengthen the attempt of a deduplicated call", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({ attemptTimeout: "500 millis" })
        const error = yield* errorWhenSetBack(setBack, gpt.protect(Effect.never, { dedupe }), 500)
        assert.instanceOf(error, Sluice.AttemptTimeout)
      })
    ))

  it.effect("a clock set back does not extend the deadline of a deduplicated call", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({})
        const call = gpt.protect(Effect.never, { dedupe, deadline: "500 millis" })
        assert.instanceOf(yield* errorWhenSetBack(setBack, call, 500), Deadline.DeadlineExceeded)
      })
    ))

  it.effect("a clock set back does not extend the deadline of a stream", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({})
        const read = Stream.runDrain(gpt.protectStream(Stream.never, { deadline: "500 millis" }))
        assert.instanceOf(yield* errorWhenSetBack(setBack, read, 500), Deadline.DeadlineExceeded)
      })
    ))

  it.effect("a clock set back does not extend the deadline of a queued call", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({ backpressure: { capacity: 1, queue: 1 } })
        yield* fork(gpt.protect(Effect.never))
        const call = gpt.protect(Effect.void, { deadline: "500 millis" })
        const error = yield* errorWhenSetBack(setBack, call, 500)
        assert.deepInclude(error, { _tag: "DeadlineExceeded", at: "Queue" })
      })
    ))

  it.effect("a clock set back does not extend the deadline of a later attempt", () =>
    withClock((setBack, passed) =>
      Effect.gen(function*() {
        const gpt = yield* policy({ retry: RetryPolicy.constant({ baseDelay: "10 millis", jitter: "none" }) })
        let attempts = 0
        const dependency = Effect.suspend(() =>
          ++attempts === 1 ? Effect.andThen(setBack(hour), Effect.fail("503")) : Effect.never
        )
        const fiber = yield* fork(gpt.protect(dependency, { deadline: "500 millis" }))
        yield* TestClock.adjust("1 second")
        const exit = fiber.pollUnsafe()
        assert.deepStrictEqual([attempts, passed()], [2, 1_000])
        assert(exit !== undefined && Exit.isFailure(exit))
      })
    ))

  it.effect("a clock set back does not extend the deadline of a call that is queued later", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({ backpressure: { capacity: 1, queue: 1 } })
        yield* fork(gpt.protect(Effect.never))
        // The deadline is only set in the context, so nothing but the policy ends the call.
        const call = Effect.andThen(setBack(hour), gpt.protect(Effect.void))
        const now = yield* Clock.currentTimeMillis
        const fiber = yield* fork(
          Effect.provideService(call, Deadline.Deadline, { at: now + 500, budgetMillis: 500 })
        )
        yield* TestClock.adjust("500 millis")
        const exit = fiber.pollUnsafe()
        assert(exit !== undefined && Exit.isFailure(exit))
      })
    ))

  // Each limits the flight by the deadlines of its callers, and watches for callers that leave.
  const bounds = {
    "`within`": Effect.succeed((self: Effect.Effect<never>) => Effect.orDie(Deadline.within(self, "10 minutes"))),
    "a policy": Effect.map(policy({}), (gpt) => (self: Effect.Effect<never>) => Effect.orDie(gpt.protect(self)))
  }
  for (const [what, bound] of Object.entries(bounds)) {
    it.effect(`a clock set back does not extend a flight under ${what} when its longest caller leaves`, () =>
      withClock((setBack, passed) =>
        Effect.gen(function*() {
          const deduplicator = yield* Deduplicator.make({})
          const bounded = yield* bound
          let endedAfter = 0
          const end = Effect.sync(() => {
            endedAfter = passed()
          })
          const shared = deduplicator.dedupe(Effect.ensuring(bounded(Effect.never), end), dedupe)
          const longest = yield* fork(Deadline.within(shared, "5 minutes"))
          yield* fork(Effect.uninterruptible(Deadline.within(Effect.uninterruptible(shared), "1 minute")))
          yield* TestClock.adjust(100)
          yield* setBack(hour)
          yield* Fiber.interrupt(longest)
          yield* TestClock.adjust("2 minutes")
          assert.isAtLeast(endedAfter, 60_000)
          assert.isAtMost(endedAfter, 60_100)
        })
      ))
  }
})

describe("cached results and a clock set back", () => {
  const Count = Deduplicator.operation<number>()("count", { key: (text: string) => text })
  const counting = Effect.map(Deduplicator.make({ timeToLive: "1 minute" }), (deduplicator) => {
    let calls = 0
    return deduplicator.dedupe(Effect.sync(() => ++calls), Count("a prompt"))
  })

  it.effect("cached results expire when the clock is set back by an hour, and new ones keep their time to live", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const ask = yield* counting
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* ask, 1)
        yield* setBack(hour)
        assert.strictEqual(yield* ask, 2)
        yield* TestClock.adjust("59 seconds")
        assert.strictEqual(yield* ask, 2)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* ask, 3)
      })
    ))

  it.effect("a cached result keeps its time to live when the clock is set back by 50 ms", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const ask = yield* counting
        yield* TestClock.adjust("10 seconds")
        yield* ask
        yield* setBack(50)
        assert.strictEqual(yield* ask, 1)
        yield* TestClock.adjust("59 seconds")
        assert.strictEqual(yield* ask, 1)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* ask, 2)
      })
    ))
})

describe("a clock set back by an hour while a circuit is open", () => {
  const open = (breaker: CircuitBreaker.CircuitBreaker["Service"]) => Effect.exit(breaker.guard(Effect.fail("down")))
  const isRefused = (breaker: CircuitBreaker.CircuitBreaker["Service"]) =>
    Effect.map(Effect.exit(breaker.guard(Effect.void)), Exit.isFailure)
  const options = { trip: CircuitBreaker.consecutive(1), openFor: "200 millis", probes: 1 } as const

  it.effect("a circuit whose clock is set back stays open for openFor from then on, and no longer", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const breaker = yield* Effect.provide(
          CircuitBreaker.make(options),
          Layer.fresh(CircuitBreakerStore.layerMemory)
        )
        yield* open(breaker)
        yield* setBack(hour)
        assert.isTrue(yield* isRefused(breaker))
        yield* TestClock.adjust(200)
        assert.isFalse(yield* isRefused(breaker))
      })
    ))

  it.effect("check sees that a circuit whose clock was set back is no longer open", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const breaker = yield* Effect.provide(
          CircuitBreaker.make(options),
          Layer.fresh(CircuitBreakerStore.layerMemory)
        )
        yield* open(breaker)
        yield* setBack(hour)
        assert.isTrue(Exit.isFailure(yield* Effect.exit(breaker.check())))
        yield* TestClock.adjust(200)
        yield* breaker.check()
      })
    ))

  it.effect("a probe that hangs frees its slot when its lease expires, with the clock set back", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const store = Layer.fresh(CircuitBreakerStore.layerMemory)
        const breaker = yield* Effect.provide(CircuitBreaker.make({ ...options, probeLease: "1 minute" }), store)
        yield* open(breaker)
        yield* TestClock.adjust(200)
        yield* fork(breaker.guard(Effect.never))
        yield* setBack(hour)
        assert.isTrue(yield* isRefused(breaker))
        yield* TestClock.adjust("61 seconds")
        assert.isFalse(yield* isRefused(breaker))
      })
    ))
})

describe("a clock set back by an hour in one process of a shared circuit", () => {
  const over = (store: CircuitBreakerStore.CircuitBreakerStore["Service"]) =>
    CircuitBreaker.make({
      trip: CircuitBreaker.consecutive(1),
      openFor: "30 seconds",
      staleness: "1 second"
    }).pipe(Effect.provideService(CircuitBreakerStore.CircuitBreakerStore, store))

  it.effect("a process whose clock is set back still reads the shared circuit again", () =>
    Effect.gen(function*() {
      const { clock, setBack } = yield* settableClock
      const { store } = yield* faultyStore
      const other = yield* over(store)
      const breaker = yield* Effect.provideService(over(store), Clock.Clock, clock)
      yield* breaker.guard(Effect.void)
      yield* setBack(hour)
      yield* Effect.exit(other.guard(Effect.fail("down")))
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(breaker.guard(Effect.void))))
      // The time of the store advances here as well.
      yield* TestClock.adjust("28 seconds")
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(breaker.guard(Effect.void))))
    }))

  it.effect("a process whose clock is set back still retries a failed store after a second", () =>
    Effect.gen(function*() {
      const { clock, setBack } = yield* settableClock
      const { breakDown, recover, store } = yield* faultyStore
      const other = yield* over(store)
      const breaker = yield* Effect.provideService(over(store), Clock.Clock, clock)
      breakDown("read", "record")
      yield* breaker.guard(Effect.void)
      recover()
      yield* setBack(hour)
      yield* Effect.exit(other.guard(Effect.fail("down")))
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(breaker.guard(Effect.void))))
    }))
})

describe("a clock set back by a millisecond, as when a timer fires early", () => {
  it.effect("a dependency that hangs until its callers' deadline opens the circuit", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({
          breaker: { trip: CircuitBreaker.consecutive(1) },
          backpressure: { capacity: 1, queue: 1 }
        })
        // The attempt begins after its caller's deadline was set, so its timer is behind the caller's.
        yield* fork(gpt.protect(Effect.sleep("1 second"), { key: "other" }))
        const hanging = yield* fork(gpt.protect(Effect.never, { dedupe: Ask("a prompt"), deadline: "10 seconds" }))
        yield* TestClock.adjust("2 seconds")
        yield* setBack(1)
        yield* TestClock.adjust("9 seconds")
        yield* Fiber.await(hanging)
        assert.strictEqual((yield* gpt.breaker.state("gpt"))._tag, "Open")
      })
    ))
})
