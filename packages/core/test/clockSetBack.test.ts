import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Fiber, Layer, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { settableClock } from "./support/clocks.ts"
import { faultyStore } from "./support/stores.ts"

const hour = 3_600_000
const Ask = Deduplicator.operation<string>()("ask", { key: (text: string) => text })

/** Runs a test by a clock that it can set back. */
const withClock = <A, E, R>(
  test: (setBack: (millis: number) => Effect.Effect<void>, passed: () => number) => Effect.Effect<A, E, R>
) =>
  Effect.flatMap(
    settableClock,
    ({ clock, passed, setBack }) => Effect.provideService(test(setBack, passed), Clock.Clock, clock)
  )

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const policy = (options: Partial<Sluice.SluiceOptions>) =>
  Sluice.make({ name: "gpt", retry: RetryPolicy.none, ...options }).pipe(
    Effect.provide(Layer.fresh(Sluice.layerStoresMemory))
  )

/** What a call is told that begins 100 ms before the clock is set back by an hour, and lasts as long as it is let. */
const toldWhenSetBack = <A, E, R>(
  setBack: (millis: number) => Effect.Effect<void>,
  call: Effect.Effect<A, E, R>,
  millis: number
) =>
  Effect.gen(function*() {
    const fiber = yield* fork(call)
    yield* TestClock.adjust(100)
    yield* setBack(hour)
    yield* TestClock.adjust(millis - 101)
    assert.isUndefined(fiber.pollUnsafe(), "it ends too early")
    yield* TestClock.adjust(1)
    const exit = fiber.pollUnsafe()
    assert(exit !== undefined, "it does not end")
    assert(Exit.isFailure(exit))
    const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
    return error instanceof Sluice.Rejected ? error.reason : error
  })

describe("a clock that is set back by an hour while a call runs", () => {
  const dedupe = Ask("a prompt")

  it.effect("gives no deduplicated call a longer attempt", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({ attemptTimeout: "500 millis" })
        const told = yield* toldWhenSetBack(setBack, gpt.protect(Effect.never, { dedupe }), 500)
        assert.instanceOf(told, Sluice.AttemptTimeout)
      })
    ))

  it.effect("gives no deduplicated call more time than its deadline", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({})
        const call = gpt.protect(Effect.never, { dedupe, deadline: "500 millis" })
        assert.instanceOf(yield* toldWhenSetBack(setBack, call, 500), Deadline.DeadlineExceeded)
      })
    ))

  it.effect("gives no stream more time than its deadline", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({})
        const read = Stream.runDrain(gpt.protectStream(Stream.never, { deadline: "500 millis" }))
        assert.instanceOf(yield* toldWhenSetBack(setBack, read, 500), Deadline.DeadlineExceeded)
      })
    ))

  it.effect("keeps nobody in the queue beyond the deadline", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({ backpressure: { capacity: 1, queue: 1 } })
        yield* fork(gpt.protect(Effect.never))
        const call = gpt.protect(Effect.void, { deadline: "500 millis" })
        const told = yield* toldWhenSetBack(setBack, call, 500)
        assert.deepInclude(told, { _tag: "DeadlineExceeded", at: "Queue" })
      })
    ))

  it.effect("gives no attempt that begins after it more time than the call was given", () =>
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

  it.effect("keeps nobody who comes into the queue after it for longer than the call was given", () =>
    withClock((setBack) =>
      Effect.gen(function*() {
        const gpt = yield* policy({ backpressure: { capacity: 1, queue: 1 } })
        yield* fork(gpt.protect(Effect.never))
        // Whoever set the deadline ends nothing by it.
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

  // Each bounds the flight by the callers that it has, and hears when one of them leaves.
  const bounds = {
    "`within`": Effect.succeed((self: Effect.Effect<never>) => Effect.orDie(Deadline.within(self, "10 minutes"))),
    "a policy": Effect.map(policy({}), (gpt) => (self: Effect.Effect<never>) => Effect.orDie(gpt.protect(self)))
  }
  for (const [what, bound] of Object.entries(bounds)) {
    it.effect(`gives what runs under ${what} no hour more when the last caller but one leaves`, () =>
      withClock((setBack, passed) =>
        Effect.gen(function*() {
          const deduplicator = yield* Deduplicator.make({})
          const bounded = yield* bound
          let endedAfter = 0
          const end = Effect.sync(() => {
            endedAfter = passed()
          })
          const shared = deduplicator.dedupe(Effect.ensuring(bounded(Effect.never), end), dedupe)
          const patient = yield* fork(Deadline.within(shared, "5 minutes"))
          yield* fork(Effect.uninterruptible(Deadline.within(Effect.uninterruptible(shared), "1 minute")))
          yield* TestClock.adjust(100)
          yield* setBack(hour)
          yield* Fiber.interrupt(patient)
          yield* TestClock.adjust("2 minutes")
          assert.isAtLeast(endedAfter, 60_000)
          assert.isAtMost(endedAfter, 60_100)
        })
      ))
  }
})

describe("what is kept of a deduplicated call", () => {
  const Count = Deduplicator.operation<number>()("count", { key: (text: string) => text })
  const counting = Effect.map(Deduplicator.make({ timeToLive: "1 minute" }), (deduplicator) => {
    let calls = 0
    return deduplicator.dedupe(Effect.sync(() => ++calls), Count("a prompt"))
  })

  it.effect("is over when the clock is set back by an hour, and what is kept then is kept for its time", () =>
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

  it.effect("is kept for its time when the clock is set back by a little", () =>
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

describe("a clock that is set back by an hour while a circuit is open", () => {
  const open = (breaker: CircuitBreaker.CircuitBreaker["Service"]) => Effect.exit(breaker.guard(Effect.fail("down")))
  const isRefused = (breaker: CircuitBreaker.CircuitBreaker["Service"]) =>
    Effect.map(Effect.exit(breaker.guard(Effect.void)), Exit.isFailure)
  const options = { trip: CircuitBreaker.consecutive(1), openFor: "200 millis", probes: 1 } as const

  it.effect("it is open for its time from then on, and no longer", () =>
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

  it.effect("a look finds that as well", () =>
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

  it.effect("a probe that hangs makes room when its lease is over", () =>
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

describe("a clock that is set back by an hour, of one of those who share a circuit", () => {
  const over = (store: CircuitBreakerStore.CircuitBreakerStore["Service"]) =>
    CircuitBreaker.make({
      trip: CircuitBreaker.consecutive(1),
      openFor: "30 seconds",
      staleness: "1 second"
    }).pipe(Effect.provideService(CircuitBreakerStore.CircuitBreakerStore, store))

  it.effect("does not keep it from looking again", () =>
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
      // The store's time goes on here as well.
      yield* TestClock.adjust("28 seconds")
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(breaker.guard(Effect.void))))
    }))

  it.effect("does not let the store rest for longer than a second", () =>
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
