import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it, vi } from "@effect/vitest"
import { Clock, Deferred, Duration, Effect, Fiber, Layer, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { fork } from "./support/effects.ts"
import { Ask, breaker, makeGpt, refusedBy, retry, withStore } from "./support/policies.ts"
import { interruptEverywhere, yields } from "./support/probe.ts"
import { countingClock } from "./support/sleeps.ts"
import { remoteStore } from "./support/stores.ts"

// Each test makes hundreds of runs, which takes seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

interface Subject {
  readonly gpt: Sluice.Sluice
  readonly clock: Clock.Clock
  readonly pending: () => number
  /** Calls beside the interrupted one, which end without it. */
  readonly others: ReadonlyArray<Fiber.Fiber<unknown, unknown>>
}

const stores = {
  "in this process": Layer.fresh(CircuitBreakerStore.layerMemory),
  "in a remote store": Layer.fresh(remoteStore(0))
}

const policy = (store: Layer.Layer<CircuitBreakerStore.CircuitBreakerStore>) =>
  Sluice.make({
    name: "gpt",
    retry: RetryPolicy.constant({ maxAttempts: 2, baseDelay: "1 millis", jitter: "none" }),
    breaker: { trip: CircuitBreaker.consecutive(2), openFor: "30 seconds", storeTimeout: "10 seconds" },
    backpressure: { capacity: 1, queue: 3, maxWait: "1 hour" },
    attemptTimeout: "1 hour"
  }).pipe(Effect.provide(store), Effect.orDie)

/** The situations that the call meets. */
const situations: Record<string, (gpt: Sluice.Sluice) => Effect.Effect<ReadonlyArray<Fiber.Fiber<unknown, unknown>>>> =
  {
    "everything free": () => Effect.succeed([]),
    "the permit taken for a while": (gpt) => Effect.map(fork(gpt.protect(yields(8))), (other) => [other]),
    "the circuit half-open": (gpt) =>
      Effect.gen(function*() {
        yield* gpt.breaker.guard(Effect.fail("503"), { key: "gpt" }).pipe(Effect.exit, Effect.repeat({ times: 1 }))
        yield* TestClock.adjust("30 seconds")
        return []
      }),
    "the permit taken and the circuit half-open": (gpt) =>
      Effect.gen(function*() {
        yield* gpt.breaker.guard(Effect.fail("503"), { key: "gpt" }).pipe(Effect.exit, Effect.repeat({ times: 1 }))
        yield* TestClock.adjust("30 seconds")
        return [yield* fork(gpt.protect(yields(6), { key: "other" }))]
      })
  }

/** Fails in its first run. */
const secondTime = (turns: number) => {
  let runs = 0
  return Effect.suspend((): Effect.Effect<string, "503"> =>
    Effect.andThen(yields(turns), ++runs === 1 ? Effect.fail("503" as const) : Effect.succeed("an answer"))
  )
}

/** Advances the test clock until the effect ends, for the backoff before a second attempt. */
const untilDone = <A, E>(self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.raceFirst(
    self,
    Effect.andThen(yields(5), Effect.forever(Effect.andThen(TestClock.adjust(1), Effect.yieldNow)))
  )

const calls: Record<string, (gpt: Sluice.Sluice) => Effect.Effect<unknown, unknown>> = {
  "a call": (gpt) => gpt.protect(Effect.as(yields(12), "an answer")),
  "a call with all options": (gpt) =>
    gpt.protect(Effect.as(yields(12), "an answer"), { dedupe: Ask("x"), deadline: "2 hours" }),
  "a call of two attempts": (gpt) => untilDone(gpt.protect(secondTime(4), { deadline: "2 hours" })),
  "a call of two attempts with all options": (gpt) =>
    untilDone(gpt.protect(secondTime(4), { dedupe: Ask("x"), deadline: "2 hours" })),
  "a stream": (gpt) => Stream.runDrain(gpt.protectStream(Stream.mapEffect(Stream.range(1, 3), () => yields(4)))),
  "a stream with all options": (gpt) =>
    Stream.runDrain(
      gpt.protectStream(Stream.mapEffect(Stream.make("a", "b", "c"), (part) => Effect.as(yields(4), part)), {
        dedupe: Ask("x"),
        deadline: "2 hours",
        isComplete: (part) => part === "b"
      })
    ),
  "a stream of two attempts": (gpt) =>
    untilDone(Stream.runDrain(gpt.protectStream(Stream.fromEffect(secondTime(4)), { deadline: "2 hours" }))),
  "a report": (gpt) => Sluice.withReport(gpt.protect(Effect.as(yields(12), "an answer"), { deadline: "2 hours" }))
}

const make = (
  store: Layer.Layer<CircuitBreakerStore.CircuitBreakerStore>,
  prepare: (gpt: Sluice.Sluice) => Effect.Effect<ReadonlyArray<Fiber.Fiber<unknown, unknown>>>
): Effect.Effect<Subject, never, Scope.Scope> =>
  Effect.gen(function*() {
    const sleeps = yield* countingClock
    const gpt = yield* Effect.provideService(policy(store), Clock.Clock, sleeps.clock)
    const others = yield* Effect.provideService(prepare(gpt), Clock.Clock, sleeps.clock)
    return { gpt, others, ...sleeps }
  })

/** No call, queue entry, permit, slot, flight or timer is left, and the next call succeeds. */
const leftNothing = ({ gpt, others, pending }: Subject, at: string) =>
  Effect.gen(function*() {
    yield* Effect.forEach(others, Fiber.await)
    yield* yields(20)
    const { backpressure, deduplicator } = yield* gpt.snapshot
    assert.deepInclude(backpressure, { running: 0, queued: 0, slots: 0 }, at)
    assert.deepInclude(deduplicator, { flights: 0 }, at)
    assert.strictEqual(pending(), 0, `a timer is left, ${at}`)
    const state = yield* gpt.breaker.state("gpt")
    if (state._tag === "HalfOpen") assert.strictEqual(state.probing, 0, at)
    // An attempt that failed before the interruption has reopened it, as it should.
    if (state._tag === "Open") yield* TestClock.adjust("30 seconds")
    assert.strictEqual(yield* gpt.protect(Effect.succeed("an answer"), { dedupe: Ask("x") }), "an answer", at)
    assert.strictEqual((yield* gpt.breaker.state("gpt"))._tag, "Closed", at)
    assert.isTrue(yield* gpt.drain, at)
    // Every admitted attempt has an outcome, and every call has ended.
    const { attempts, breaker, calls } = yield* gpt.snapshot
    const outcomes = Object.values(breaker.outcomes).reduce((sum, count) => sum + count, 0)
    assert.isAtLeast(outcomes, attempts, at)
    assert.isAtLeast(Object.values(calls).reduce((sum, count) => sum + count, 0), 1, at)
  }).pipe(Effect.orDie)

describe("Sluice under interruption", () => {
  for (const [where, store] of Object.entries(stores)) {
    for (const [what, run] of Object.entries(calls)) {
      // The remote store is tested with the calls that use every part.
      if (where === "in a remote store" && !what.endsWith("with all options")) continue
      for (const [situation, prepare] of Object.entries(situations)) {
        it.effect(`${what} interrupted anywhere leaves nothing behind, circuits ${where}, ${situation}`, () =>
          Effect.gen(function*() {
            const points = yield* interruptEverywhere({
              make: make(store, prepare),
              run: (subject) =>
                Effect.andThen(Effect.exit(run(subject.gpt)), yields(10)).pipe(
                  Effect.provideService(Clock.Clock, subject.clock)
                ),
              after: (subject, at) => Effect.provideService(leftNothing(subject, at), Clock.Clock, subject.clock)
            })
            assert.isAtLeast(points, 300)
          }))
      }
    }
  }
})

describe("Sluice calls under interruption", () => {
  it.effect("a call interrupted anywhere leaves no permit, slot, probe or flight behind", () =>
    interruptEverywhere({
      make: Effect.gen(function*() {
        const gpt = yield* makeGpt({
          retry: RetryPolicy.constant({ maxAttempts: 2, baseDelay: "1 second", jitter: "none" }),
          breaker: breaker(1),
          backpressure: { capacity: 1, queue: 1 },
          attemptTimeout: "5 seconds"
        })
        // Half-open, so that the call is the probe.
        yield* Effect.exit(gpt.protect(Effect.fail("503")))
        yield* TestClock.adjust("10 seconds")
        return gpt
      }).pipe(Effect.orDie, withStore),
      run: (gpt) => gpt.protect(Effect.as(yields(12), "an answer"), { dedupe: Ask("x"), deadline: "1 minute" }),
      after: (gpt, at) =>
        Effect.gen(function*() {
          const state = yield* Effect.orDie(gpt.breaker.state("gpt"))
          if (state._tag === "HalfOpen") assert.strictEqual(state.probing, 0, at)
          else assert.strictEqual(state._tag, "Closed", at)
          assert.strictEqual((yield* gpt.deduplicator.stats).flights, 0, at)
          yield* bothSlotsAreFree(gpt, at)
        })
    }))

  it.effect("an interrupted call keeps its permit until the finalizers of its attempt have run", () =>
    Effect.gen(function*() {
      for (const attemptTimeout of [undefined, Duration.seconds(5)]) {
        const gpt = yield* makeGpt({ backpressure: { capacity: 1, queue: 1 }, attemptTimeout })
        const end = yield* Deferred.make<void>()
        const running = yield* fork(gpt.protect(Effect.onInterrupt(Effect.never, () => Deferred.await(end))))
        const interrupting = yield* fork(Fiber.interrupt(running))
        yield* yields(5)
        assert.deepInclude((yield* gpt.snapshot).backpressure, { running: 1, slots: 1 })
        yield* Deferred.succeed(end, undefined)
        yield* Fiber.join(interrupting)
        const { backpressure, calls } = yield* gpt.snapshot
        assert.deepInclude(backpressure, { running: 0, slots: 0 })
        assert.deepInclude(calls, { interrupted: 1, failed: 0 })
      }
    }).pipe(withStore))

  it.effect("a call interrupted anywhere while queued leaves the queue", () =>
    interruptEverywhere({
      make: Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(2), breaker: breaker(1), backpressure: { capacity: 1, queue: 1 } })
        const end = yield* Deferred.make<string>()
        const running = yield* fork(gpt.protect(Deferred.await(end)))
        return { gpt, end, running }
      }).pipe(Effect.orDie, withStore),
      run: ({ end, gpt }) =>
        Effect.all([
          gpt.protect(Effect.as(yields(4), "an answer"), { dedupe: Ask("x"), deadline: "1 minute" }),
          Effect.andThen(yields(6), Deferred.succeed(end, "ended"))
        ], { concurrency: 2 }),
      after: ({ end, gpt, running }, at) =>
        Effect.gen(function*() {
          yield* Deferred.succeed(end, "ended")
          yield* Fiber.await(running)
          assert.strictEqual((yield* gpt.deduplicator.stats).flights, 0, at)
          yield* bothSlotsAreFree(gpt, at)
        })
    }))
})

/** For a policy with one permit and two slots: one call runs, one is queued, and a third is refused. */
const bothSlotsAreFree = (gpt: Sluice.Sluice, at: string) =>
  Effect.gen(function*() {
    // Another circuit than the probe's, which may be half-open.
    const call = <A, E>(self: Effect.Effect<A, E>) => gpt.protect(self, { key: "other" })
    const end = yield* Deferred.make<string>()
    const running = yield* fork(call(Deferred.await(end)))
    const waiting = yield* fork(call(Effect.succeed("the second")))
    assert.strictEqual(refusedBy(yield* Effect.exit(call(Effect.void))), "BackpressureShed", at)
    yield* Deferred.succeed(end, "the first")
    const answers = [yield* Effect.orDie(Fiber.join(running)), yield* Effect.orDie(Fiber.join(waiting))]
    assert.deepStrictEqual(answers, ["the first", "the second"], at)
  })
