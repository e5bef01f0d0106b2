import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Layer, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { interruptEverywhere, yields } from "./support/probe.ts"
import { countingClock } from "./support/sleeps.ts"
import { remoteStore } from "./support/stores.ts"

const Ask = Deduplicator.operation<string, "503">()("ask", { key: (text: string) => text })

interface Subject {
  readonly gpt: Sluice.Sluice
  readonly clock: Clock.Clock
  readonly pending: () => number
  /** Calls beside the one that is interrupted, which end by themselves. */
  readonly others: ReadonlyArray<Fiber.Fiber<unknown, unknown>>
}

const stores = {
  "in this process": Layer.fresh(CircuitBreakerStore.layerMemory),
  "in a store elsewhere": Layer.fresh(remoteStore(0))
}

const policy = (store: Layer.Layer<CircuitBreakerStore.CircuitBreakerStore>) =>
  Sluice.make({
    name: "gpt",
    retry: RetryPolicy.constant({ maxAttempts: 2, baseDelay: "1 millis", jitter: "none" }),
    breaker: { trip: CircuitBreaker.consecutive(2), openFor: "30 seconds", storeTimeout: "10 seconds" },
    backpressure: { capacity: 1, queue: 3, maxWait: "1 hour" },
    attemptTimeout: "1 hour"
  }).pipe(Effect.provide(store), Effect.orDie)

const fork = <A, E>(self: Effect.Effect<A, E>) => Effect.forkChild(self, { startImmediately: true })

/** What is in the way of the call. */
const situations: Record<string, (gpt: Sluice.Sluice) => Effect.Effect<ReadonlyArray<Fiber.Fiber<unknown, unknown>>>> =
  {
    "nothing": () => Effect.succeed([]),
    "the permit is taken, and comes back": (gpt) => Effect.map(fork(gpt.protect(yields(8))), (other) => [other]),
    "the circuit is half-open": (gpt) =>
      Effect.gen(function*() {
        yield* gpt.breaker.guard(Effect.fail("503"), { key: "gpt" }).pipe(Effect.exit, Effect.repeat({ times: 1 }))
        yield* TestClock.adjust("30 seconds")
        return []
      }),
    "the permit is taken and the circuit half-open": (gpt) =>
      Effect.gen(function*() {
        yield* gpt.breaker.guard(Effect.fail("503"), { key: "gpt" }).pipe(Effect.exit, Effect.repeat({ times: 1 }))
        yield* TestClock.adjust("30 seconds")
        return [yield* fork(gpt.protect(yields(6), { key: "other" }))]
      })
  }

/** Fails the first time that it is run. */
const secondTime = (turns: number) => {
  let runs = 0
  return Effect.suspend((): Effect.Effect<string, "503"> =>
    Effect.andThen(yields(turns), ++runs === 1 ? Effect.fail("503" as const) : Effect.succeed("an answer"))
  )
}

/** A second attempt comes after a wait: somebody has to move the clock. */
const untilDone = <A, E>(self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.raceFirst(
    self,
    Effect.andThen(yields(5), Effect.forever(Effect.andThen(TestClock.adjust(1), Effect.yieldNow)))
  )

const calls: Record<string, (gpt: Sluice.Sluice) => Effect.Effect<unknown, unknown>> = {
  "a call": (gpt) => gpt.protect(Effect.as(yields(12), "an answer")),
  "a call with everything": (gpt) =>
    gpt.protect(Effect.as(yields(12), "an answer"), { dedupe: Ask("x"), deadline: "2 hours" }),
  "a call of two attempts": (gpt) => untilDone(gpt.protect(secondTime(4), { deadline: "2 hours" })),
  "a call of two attempts with everything": (gpt) =>
    untilDone(gpt.protect(secondTime(4), { dedupe: Ask("x"), deadline: "2 hours" })),
  "a stream": (gpt) => Stream.runDrain(gpt.protectStream(Stream.mapEffect(Stream.range(1, 3), () => yields(4)))),
  "a stream with everything": (gpt) =>
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
  bring: (gpt: Sluice.Sluice) => Effect.Effect<ReadonlyArray<Fiber.Fiber<unknown, unknown>>>
): Effect.Effect<Subject, never, Scope.Scope> =>
  Effect.gen(function*() {
    const sleeps = yield* countingClock
    const gpt = yield* Effect.provideService(policy(store), Clock.Clock, sleeps.clock)
    const others = yield* Effect.provideService(bring(gpt), Clock.Clock, sleeps.clock)
    return { gpt, others, ...sleeps }
  })

/** Nothing runs, waits, is held or shared; no timer is left; and the next call gets through. */
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
    // An attempt that failed before the interruption came has opened it again, rightly.
    if (state._tag === "Open") yield* TestClock.adjust("30 seconds")
    assert.strictEqual(yield* gpt.protect(Effect.succeed("an answer"), { dedupe: Ask("x") }), "an answer", at)
    assert.strictEqual((yield* gpt.breaker.state("gpt"))._tag, "Closed", at)
    assert.isTrue(yield* gpt.drain, at)
    // Whatever was let through said something, and whoever came has ended somehow.
    const { attempts, breaker, calls } = yield* gpt.snapshot
    const said = Object.values(breaker.outcomes).reduce((sum, count) => sum + count, 0)
    assert.isAtLeast(said, attempts, at)
    assert.isAtLeast(Object.values(calls).reduce((sum, count) => sum + count, 0), 1, at)
  }).pipe(Effect.orDie)

describe("Sluice under interruption", () => {
  for (const [where, store] of Object.entries(stores)) {
    for (const [what, run] of Object.entries(calls)) {
      // What has no part in where the circuits are is shown once.
      if (where === "in a store elsewhere" && !what.endsWith("with everything")) continue
      for (const [situation, bring] of Object.entries(situations)) {
        it.effect(`${what} interrupted anywhere leaves nothing behind, circuits ${where}; in the way: ${situation}`, () =>
          Effect.gen(function*() {
            const points = yield* interruptEverywhere({
              make: make(store, bring),
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
