import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { assert, describe, it, vi } from "@effect/vitest"
import { Clock, Effect, Fiber, Layer, Random, Stream } from "effect"
import { TestClock } from "effect/testing"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"
import { interruptEverywhere, yields } from "./support/probe.ts"
import { countingClock } from "./support/sleeps.ts"
import { remoteStore } from "./support/stores.ts"

// Each test makes hundreds of runs, which takes seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

type Breaker = CircuitBreaker.CircuitBreaker["Service"]
type Store = CircuitBreakerStore.CircuitBreakerStore["Service"]

const memory = Layer.effect(CircuitBreakerStore.CircuitBreakerStore, CircuitBreakerStore.makeMemory())

/** A remote store whose verbs take so many turns of the scheduler before and after their work. */
const storeWithTurns = (turns: number): Layer.Layer<CircuitBreakerStore.CircuitBreakerStore> =>
  Layer.effect(
    CircuitBreakerStore.CircuitBreakerStore,
    Effect.map(CircuitBreakerStore.makeMemory(), (memory) => {
      const slow = <A, E>(verb: Effect.Effect<A, E>) =>
        Effect.andThen(yields(turns), Effect.tap(verb, () => yields(turns)))
      return CircuitBreakerStore.CircuitBreakerStore.of({
        read: (options) => slow(memory.read(options)),
        lease: (options) => slow(memory.lease(options)),
        record: (options) => slow(memory.record(options)),
        transition: (options) => slow(memory.transition(options)),
        list: (options) => slow(memory.list(options))
      })
    })
  )

const stores = {
  "in this process": memory,
  "in a fast remote store": remoteStore(0),
  "in a remote store, one turn each way": storeWithTurns(1),
  "in a remote store, three turns each way": storeWithTurns(3)
}

interface Subject {
  readonly breaker: Breaker
  readonly store: Store
  readonly pending: () => number
}

const make = (
  store: Layer.Layer<CircuitBreakerStore.CircuitBreakerStore>,
  options?: CircuitBreaker.CircuitBreakerOptions
) =>
  Effect.gen(function*() {
    const store = yield* CircuitBreakerStore.CircuitBreakerStore
    const breaker = yield* CircuitBreaker.make({
      trip: CircuitBreaker.consecutive(1),
      openFor: "30 seconds",
      storeTimeout: "10 seconds",
      ...options
    })
    return { breaker, store }
  }).pipe(Effect.provide(Layer.fresh(store)), Effect.provideService(Random.Random, alwaysAdmitted), Effect.orDie)

/** The state of the circuit when the call comes. */
const situations: Record<string, (breaker: Breaker) => Effect.Effect<unknown>> = {
  "that was never called": () => Effect.void,
  "that is closed": (breaker) => Effect.orDie(succeedCall(breaker)),
  "that is half-open": (breaker) => Effect.andThen(failCalls(breaker, 1), TestClock.adjust("30 seconds")),
  "that ramps up": (breaker) =>
    failCalls(breaker, 1).pipe(
      Effect.andThen(TestClock.adjust("30 seconds")),
      Effect.andThen(Effect.orDie(succeedCall(breaker))),
      Effect.andThen(TestClock.adjust("5 seconds"))
    )
}

/** A random source with which a ramp admits every call. */
const alwaysAdmitted = Random.Random.of({ nextIntUnsafe: () => 7, nextDoubleUnsafe: () => 0 })

const bodies = {
  "a call that succeeds": (breaker: Breaker) => breaker.guard(yields(12)),
  "a call that fails": (breaker: Breaker) => Effect.exit(breaker.guard(Effect.andThen(yields(6), Effect.fail("503")))),
  "a stream": (breaker: Breaker) =>
    Stream.runDrain(breaker.guardStream(Stream.mapEffect(Stream.range(1, 3), () => yields(3)))),
  "a stream that is complete before its end": (breaker: Breaker) =>
    Stream.runDrain(
      breaker.guardStream(Stream.mapEffect(Stream.range(1, 3), (part) => Effect.as(yields(3), part)), {
        isComplete: (part) => part === 2
      })
    )
}

/** After any end of the call no lease and no timer is left, and the next success closes the circuit. */
const leftNothing = ({ breaker, pending, store }: Subject, at: string) =>
  Effect.gen(function*() {
    const window = { calls: 100, bucketMillis: 0, buckets: 0 }
    assert.strictEqual((yield* store.read({ key: "default", window })).probing, 0, `a lease is live, ${at}`)
    yield* yields(3)
    assert.strictEqual(pending(), 0, `a timer is left, ${at}`)
    const before = yield* breaker.state()
    // A failure before the interruption has opened it, as it should.
    if (before._tag === "Open") yield* TestClock.adjust("1 hour")
    yield* succeedCall(breaker)
    assert.strictEqual((yield* breaker.state())._tag, "Closed", at)
    const { outcomes, refused } = yield* breaker.stats
    assert.strictEqual(refused, 0, at)
    return outcomes
  }).pipe(Effect.orDie)

describe("CircuitBreaker under interruption", () => {
  for (const [where, store] of Object.entries(stores)) {
    describe(where, () => {
      for (const [what, run] of Object.entries(bodies)) {
        for (const [situation, prepare] of Object.entries(situations)) {
          it.effect(`${what} interrupted anywhere leaves nothing behind in a circuit ${situation}`, () =>
            Effect.gen(function*() {
              const points = yield* interruptEverywhere({
                make: Effect.gen(function*() {
                  const sleeps = yield* countingClock
                  const made = yield* Effect.provideService(
                    make(store, { rampUp: "10 seconds" }),
                    Clock.Clock,
                    sleeps.clock
                  )
                  yield* prepare(made.breaker).pipe(Effect.provideService(Clock.Clock, sleeps.clock))
                  return { ...made, ...sleeps }
                }),
                // More turns, so that the shortest call is interrupted often enough.
                run: (subject) =>
                  Effect.andThen(run(subject.breaker), yields(8)).pipe(
                    Effect.provideService(Clock.Clock, subject.clock)
                  ),
                after: (subject, at) => leftNothing(subject, at).pipe(Effect.provideService(Clock.Clock, subject.clock))
              })
              assert.isAtLeast(points, 300)
            }))
        }
      }

      it.effect("reads of the state interrupted anywhere leave nothing behind", () =>
        Effect.gen(function*() {
          yield* interruptEverywhere({
            make: Effect.gen(function*() {
              const sleeps = yield* countingClock
              const made = yield* Effect.provideService(
                make(store, { staleness: "5 seconds" }),
                Clock.Clock,
                sleeps.clock
              )
              yield* Effect.orDie(succeedCall(made.breaker))
              return { ...made, ...sleeps }
            }),
            run: ({ breaker, clock }) =>
              Effect.all([breaker.state(), breaker.check(), breaker.failureCount(), breaker.states(), yields(12)]).pipe(
                Effect.provideService(Clock.Clock, clock)
              ),
            after: ({ breaker, pending, store }, at) =>
              Effect.gen(function*() {
                yield* yields(10)
                assert.strictEqual(pending(), 0, at)
                assert.strictEqual((yield* breaker.stats).storeFailures, 0, at)
                // A stale snapshot is still read again: another process has opened the circuit meanwhile.
                const window = { calls: 100, bucketMillis: 0, buckets: 0 }
                const { generation } = yield* store.read({ key: "default", window })
                yield* store.transition({
                  key: "default",
                  window,
                  generation,
                  by: "another",
                  to: { _tag: "Forced", forMillis: 0, mode: "ForcedOpen", reason: "another" }
                })
                yield* TestClock.adjust("5 seconds")
                assert.strictEqual((yield* Effect.flip(succeedCall(breaker)))._tag, "CircuitOpen", at)
              }).pipe(Effect.orDie)
          })
        }))

      it.effect("control interrupted anywhere is applied or not, and the next control is applied", () =>
        Effect.gen(function*() {
          yield* interruptEverywhere({
            make: Effect.gen(function*() {
              const sleeps = yield* countingClock
              const made = yield* Effect.provideService(make(store), Clock.Clock, sleeps.clock)
              yield* Effect.orDie(succeedCall(made.breaker))
              return { ...made, ...sleeps }
            }),
            run: ({ breaker, clock }) =>
              Effect.andThen(breaker.control({ mode: "ForcedOpen", reason: "x" }), yields(12)).pipe(
                Effect.provideService(Clock.Clock, clock)
              ),
            after: ({ breaker, pending }, at) =>
              Effect.gen(function*() {
                yield* yields(10)
                assert.strictEqual(pending(), 0, at)
                assert.include(["Closed", "ForcedOpen"], (yield* breaker.state())._tag, at)
                yield* breaker.control({ mode: "Auto", reason: "over" })
                assert.strictEqual(yield* succeedCall(breaker), "an answer", at)
              }).pipe(Effect.orDie)
          })
        }))
    })
  }

  it.effect("a probe interrupted anywhere during the renewal of its lease leaves no lease behind", () =>
    Effect.gen(function*() {
      yield* interruptEverywhere({
        make: Effect.gen(function*() {
          const sleeps = yield* countingClock
          const made = yield* Effect.provideService(
            make(storeWithTurns(2), { heartbeat: "9 seconds" }),
            Clock.Clock,
            sleeps.clock
          )
          yield* failCalls(made.breaker, 1)
          yield* TestClock.adjust("30 seconds")
          return { ...made, ...sleeps }
        }),
        run: ({ breaker, clock }) =>
          breaker.guard(Effect.andThen(TestClock.adjust("3 seconds"), yields(16))).pipe(
            Effect.provideService(Clock.Clock, clock)
          ),
        after: (subject, at) =>
          Effect.gen(function*() {
            yield* yields(10)
            yield* leftNothing(subject, at)
          })
      })
    }))

  it.effect("none of many probes that are interrupted at once keeps its slot", () =>
    Effect.gen(function*() {
      const made = yield* make(storeWithTurns(2), { probes: 5 })
      yield* failCalls(made.breaker, 1)
      yield* TestClock.adjust("30 seconds")
      for (let turns = 0; turns < 40; turns++) {
        const calls = yield* Effect.forEach(Array.from({ length: 20 }), () =>
          Effect.forkChild(made.breaker.guard(yields(10))))
        yield* yields(turns)
        yield* Effect.forEach(calls, (call) =>
          Fiber.interrupt(call), { concurrency: "unbounded" })
        const state = yield* Effect.orDie(made.breaker.state())
        if (state._tag !== "HalfOpen") break
        assert.strictEqual(state.probing, 0, `after ${turns} turns`)
      }
      const next = yield* startCall(made.breaker)
      assert.isTrue(next.ran())
      yield* next.interrupt
    }))
})
