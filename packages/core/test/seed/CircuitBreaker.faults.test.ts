import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe } from "@effect/vitest"
import { Clock, Context, Duration, Effect, Exit, Layer, Option, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { fork, timed } from "../support/effects.ts"
import { remoteStore } from "../support/stores.ts"
import { countRuns, fault, HttpError, isEqual } from "./fault.ts"
import { type SeedBackend, SeedCircuitBreaker, SeedMemoryBackend, unwrap } from "./port.ts"

describe("faults of the seed: CircuitBreaker", () => {
  /** The common interface of both breakers. */
  interface Subject {
    readonly call: <A, E>(operation: Effect.Effect<A, E>) => Effect.Effect<A, unknown>
    readonly state: Effect.Effect<string>
  }

  const ours = (
    options: CircuitBreaker.CircuitBreakerOptions,
    key = "openai"
  ): Effect.Effect<Subject & { readonly breaker: CircuitBreaker.CircuitBreaker["Service"] }, unknown, Scope.Scope> =>
    CircuitBreaker.make(options).pipe(
      Effect.provide(Layer.fresh(CircuitBreakerStore.layerMemory)),
      Effect.map((breaker) => subjectOf(breaker, key))
    )
  const subjectOf = (breaker: CircuitBreaker.CircuitBreaker["Service"], key = "openai") => ({
    breaker,
    call: <A, E>(operation: Effect.Effect<A, E>) => breaker.guard(operation, { key }),
    state: Effect.orDie(Effect.map(breaker.state(key), (state) => state._tag))
  })

  const seed = (threshold: number, recoveryMillis = 30_000, backend?: SeedBackend) =>
    Effect.map(Clock.Clock, (clock) => {
      const breaker = unwrap(SeedCircuitBreaker.make("openai", threshold, recoveryMillis, clock))
      if (backend !== undefined) breaker.withBackend(backend)
      const subject: Subject = {
        call: (operation) => breaker.call(operation),
        state: Effect.sync(() => breaker.state()._tag)
      }
      return { ...subject, breaker }
    })

  const options = (threshold: number) =>
    ({ trip: CircuitBreaker.consecutive(threshold), openFor: "30 seconds" }) as const

  const fail = (subject: Subject, times = 1) =>
    Effect.repeat(Effect.exit(subject.call(Effect.fail("503"))), { times: times - 1 })

  /** Starts a call that takes so long. */
  const callFor = (subject: Subject, millis: number, end: Effect.Effect<string, string>) =>
    fork(Effect.exit(subject.call(Effect.andThen(Effect.sleep(millis), end))))

  fault("B1", "two services on one store do not trip each other", {
    wanted: ["Open", "Closed"],
    ours: Effect.gen(function*() {
      const { breaker } = yield* ours(options(1))
      yield* fail(subjectOf(breaker, "openai"))
      return [yield* subjectOf(breaker, "openai").state, yield* subjectOf(breaker, "anthropic").state]
    }),
    faulty: ["Open", "Open"],
    seed: Effect.gen(function*() {
      const backend = new SeedMemoryBackend()
      const clock = yield* Clock.Clock
      const [openai, anthropic] = ["openai", "anthropic"].map((service) =>
        unwrap(SeedCircuitBreaker.make(service, 1, 30_000, clock)).withBackend(backend)
      )
      yield* Effect.exit(openai!.call(Effect.fail("503")))
      return [openai!.state()._tag, anthropic!.state()._tag]
    })
  })

  const runningProbes = (subject: Subject) =>
    Effect.gen(function*() {
      yield* fail(subject)
      yield* TestClock.adjust("30 seconds")
      const { counting, runs } = countRuns()
      for (let i = 0; i < 10; i++) yield* fork(Effect.exit(subject.call(counting(Effect.never))))
      return runs()
    })

  fault("B2", "a half-open circuit admits one call", {
    wanted: 1,
    ours: Effect.flatMap(ours(options(1)), runningProbes),
    faulty: 10,
    seed: Effect.flatMap(seed(1), runningProbes)
  })

  fault("B3", "each transition is made once, though two callers race for it", {
    wanted: ["Closed to Open", "Open to HalfOpen", "HalfOpen to Closed"],
    ours: Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make(options(1)).pipe(Effect.provide(remoteStore(2)))
      const moves: Array<string> = []
      yield* Stream.runForEach(breaker.transitions, ({ from, to }) => Effect.sync(() => moves.push(`${from} to ${to}`)))
        .pipe(Effect.forkScoped({ startImmediately: true }))
      const two = (operation: Effect.Effect<string, string>) =>
        timed(Effect.all([0, 1].map(() => Effect.exit(breaker.guard(operation))), { concurrency: 2 }))
      yield* two(Effect.fail("503"))
      yield* TestClock.adjust("30 seconds")
      yield* two(Effect.succeed("an answer"))
      return moves
    }),
    faulty: ["opened", "opened", "half-open", "half-open", "closed", "closed"],
    seed: Effect.gen(function*() {
      const { breaker } = yield* seed(1)
      breaker.preempt = Effect.yieldNow
      const two = (operation: Effect.Effect<string, string>) =>
        timed(Effect.all([0, 1].map(() => Effect.exit(breaker.call(operation))), { concurrency: 2 }))
      yield* two(Effect.fail("503"))
      yield* TestClock.adjust("30 seconds")
      yield* two(Effect.succeed("an answer"))
      return breaker.log
    })
  })

  const afterStaleSuccess = (subject: Subject) =>
    Effect.gen(function*() {
      yield* callFor(subject, 1_000, Effect.succeed("an answer"))
      yield* fail(subject)
      yield* TestClock.adjust("1 second")
      return yield* subject.state
    })

  fault("B4", "a success admitted before the opening does not close the circuit", {
    wanted: "Open",
    ours: Effect.flatMap(ours(options(1)), afterStaleSuccess),
    faulty: "Closed",
    seed: Effect.flatMap(seed(1), afterStaleSuccess)
  })

  const afterStaleFailure = (subject: Subject) =>
    Effect.gen(function*() {
      yield* callFor(subject, 29_000, Effect.fail("504"))
      yield* fail(subject)
      yield* TestClock.adjust("30 seconds")
      return yield* subject.state
    })

  fault("B5", "a failure admitted before the opening does not lengthen it", {
    wanted: "HalfOpen",
    ours: Effect.flatMap(ours(options(1)), afterStaleFailure),
    faulty: "Open",
    seed: Effect.flatMap(seed(1), afterStaleFailure)
  })

  const afterDefectAndHang = (subject: Subject) =>
    Effect.gen(function*() {
      yield* Effect.exit(subject.call(Effect.die("a bug")))
      const afterDefect = yield* subject.state
      yield* fail(subject)
      yield* TestClock.adjust("30 seconds")
      const { counting, runs } = countRuns()
      yield* fork(Effect.exit(subject.call(counting(Effect.never))))
      yield* fork(Effect.exit(subject.call(counting(Effect.never))))
      return { afterDefect, hanging: runs() }
    })

  fault("B6", "a defect counts, and a probe that hangs does not let other calls through", {
    wanted: { afterDefect: "Open", hanging: 1 },
    ours: Effect.flatMap(ours(options(1)), afterDefectAndHang),
    faulty: { afterDefect: "Closed", hanging: 2 },
    seed: Effect.flatMap(seed(1), afterDefectAndHang)
  })

  fault("B7", "no number of failures makes a circuit look healthy", {
    wanted: "HalfOpen",
    ours: Effect.gen(function*() {
      // The evidence is a bounded window, so no count grows with the failures.
      const subject = yield* ours({ trip: CircuitBreaker.consecutive(1_000), openFor: 0 })
      yield* fail(subject, 5_000)
      assert.isAtMost(yield* Effect.orDie(subject.breaker.failureCount("openai")), 1_000)
      return yield* subject.state
    }),
    faulty: "Closed",
    seed: Effect.gen(function*() {
      const backend = new SeedMemoryBackend()
      backend.consecutiveFailures = 2 ** 32 - 1
      backend.openAt = 0
      const subject = yield* seed(1_000, 0, backend)
      yield* fail(subject)
      return yield* subject.state
    })
  })

  const afterIgnoredErrors = (subject: Subject) =>
    Effect.gen(function*() {
      for (let i = 0; i < 5; i++) yield* Effect.exit(subject.call(Effect.fail(new HttpError({ status: 400 }))))
      return yield* subject.state
    })

  fault("B8", "the caller's own mistakes do not trip the provider's circuit", {
    wanted: "Closed",
    ours: Effect.flatMap(
      ours({
        ...options(3),
        classify: (exit) => {
          const error = Option.getOrUndefined(Exit.findErrorOption(exit))
          return error instanceof HttpError && error.status === 400 ? Outcome.ignored : undefined
        }
      }),
      afterIgnoredErrors
    ),
    faulty: "Open",
    seed: Effect.flatMap(seed(3), afterIgnoredErrors)
  })

  const errorsOfCallers = (subject: Subject) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(subject.call(Effect.fail(new HttpError({ status: 503 }))))
      yield* TestClock.adjust("10 seconds")
      const refusal = yield* Effect.flip(subject.call(Effect.void))
      return {
        status: error instanceof HttpError ? error.status : undefined,
        retryAfter: refusal instanceof CircuitBreaker.CircuitOpen ? Duration.format(refusal.retryAfter) : undefined
      }
    })

  fault("B9", "the error keeps its type, and a refusal has a retryAfter", {
    wanted: { status: 503, retryAfter: "20s" },
    ours: Effect.flatMap(ours(options(1)), errorsOfCallers),
    faulty: { status: undefined, retryAfter: undefined },
    seed: Effect.flatMap(seed(1), errorsOfCallers)
  })

  fault("B10", "a store can be slow and can fail, and its snapshots can be serialized", {
    wanted: { afterRoundTrips: "Open", storeDown: "an answer", serializable: true },
    ours: Effect.gen(function*() {
      const store = yield* Effect.map(
        Layer.build(remoteStore(2)),
        (context) => Context.get(context, CircuitBreakerStore.CircuitBreakerStore)
      )
      const overIt = yield* CircuitBreaker.make(options(1)).pipe(
        Effect.provideService(CircuitBreakerStore.CircuitBreakerStore, store)
      )
      yield* timed(overIt.guard(Effect.fail("503")), "1 second")
      const [state] = yield* timed(overIt.state(), "1 second")
      const [snapshot] = yield* timed(
        store.read({ key: "default", window: { calls: 5, bucketMillis: 0, buckets: 0 } }),
        "1 second"
      )
      const down = new CircuitBreakerStore.StoreError({ operation: "read", description: "connection refused" })
      const overNone = yield* CircuitBreaker.make(options(1)).pipe(
        Effect.provideService(CircuitBreakerStore.CircuitBreakerStore, {
          ...store,
          read: () => Effect.fail(down),
          record: () => Effect.fail(down)
        })
      )
      return {
        afterRoundTrips: Exit.isSuccess(state) ? state.value._tag : "failed",
        storeDown: yield* overNone.guard(Effect.succeed("an answer")),
        serializable: Exit.isSuccess(snapshot) && isEqual(JSON.parse(JSON.stringify(snapshot.value)), snapshot.value)
      }
    }),
    faulty: { afterRoundTrips: "the backend is synchronous", storeDown: "died", serializable: false },
    seed: Effect.gen(function*() {
      const down = new SeedMemoryBackend()
      // A backend without a connection can only throw, since its trait has no errors.
      down.getOpenAt = () => {
        throw new Error("connection refused")
      }
      const exit = yield* Effect.exit((yield* seed(1, 30_000, down)).call(Effect.succeed("an answer")))
      // An instant counts from the start of its own process, and is wrong in another.
      const [here, elsewhere] = [new SeedMemoryBackend(), new SeedMemoryBackend()]
      yield* TestClock.adjust("1 hour")
      yield* fail(yield* seed(1, 30_000, here))
      const otherProcess = yield* Clock.clockWith((clock) =>
        Effect.succeed({ ...clock, currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - 3_600_000 })
      )
      elsewhere.openAt = here.openAt
      elsewhere.consecutiveFailures = here.consecutiveFailures
      const there = unwrap(SeedCircuitBreaker.make("openai", 1, 30_000, otherProcess)).withBackend(elsewhere)
      yield* TestClock.adjust("30 seconds")
      return {
        afterRoundTrips: "the backend is synchronous",
        storeDown: Exit.hasDies(exit) ? "died" : "answered",
        serializable: there.state()._tag === "HalfOpen"
      }
    })
  })

  fault("B11", "breakers with different thresholds on one store agree on the state", {
    wanted: ["HalfOpen", "HalfOpen"],
    ours: Effect.gen(function*() {
      const [two, five] = [yield* CircuitBreaker.make(options(2)), yield* CircuitBreaker.make(options(5))].map((
        breaker
      ) => subjectOf(breaker))
      yield* fail(two!, 2)
      yield* TestClock.adjust("30 seconds")
      return [yield* two!.state, yield* five!.state]
    }).pipe(Effect.provide(Layer.fresh(CircuitBreakerStore.layerMemory))),
    faulty: ["HalfOpen", "Closed"],
    seed: Effect.gen(function*() {
      const backend = new SeedMemoryBackend()
      const [two, five] = [yield* seed(2, 30_000, backend), yield* seed(5, 30_000, backend)]
      yield* fail(two, 2)
      yield* TestClock.adjust("30 seconds")
      return [yield* two.state, yield* five.state]
    })
  })

  const everyOtherFails = (subject: Subject) =>
    Effect.gen(function*() {
      for (let i = 0; i < 20; i++) {
        yield* Effect.exit(subject.call(i % 2 === 0 ? Effect.fail("503") : Effect.succeed("an answer")))
      }
      return yield* subject.state
    })

  fault("B12", "a failure rate of one half opens the circuit", {
    wanted: "Open",
    ours: Effect.flatMap(
      ours({ trip: CircuitBreaker.failureRate({ rate: 0.5 }), openFor: "30 seconds" }),
      everyOtherFails
    ),
    faulty: "Closed",
    seed: Effect.flatMap(seed(5), everyOtherFails)
  })

  fault("B13", "transitions are reported, not every healthy call, and a circuit can be reset", {
    wanted: { healthy: 0, opening: 1, afterReset: "Closed" },
    ours: Effect.gen(function*() {
      const subject = yield* ours(options(1))
      let reported = 0
      yield* Stream.runForEach(subject.breaker.transitions, () => Effect.sync(() => reported++)).pipe(
        Effect.forkScoped({ startImmediately: true })
      )
      for (let i = 0; i < 10; i++) yield* subject.call(Effect.void)
      yield* TestClock.adjust(0)
      const healthy = reported
      yield* fail(subject)
      yield* TestClock.adjust(0)
      const opening = reported - healthy
      yield* subject.breaker.reset("openai")
      return { healthy, opening, afterReset: yield* subject.state }
    }),
    faulty: { healthy: 10, opening: 1, afterReset: "Open" },
    seed: Effect.gen(function*() {
      const subject = yield* seed(1)
      for (let i = 0; i < 10; i++) yield* subject.call(Effect.void)
      const healthy = subject.breaker.log.length
      yield* fail(subject)
      // The seed has no reset.
      return { healthy, opening: subject.breaker.log.length - healthy, afterReset: yield* subject.state }
    })
  })

  fault("B14", "circuits in the same state compare equal, whenever they opened", {
    wanted: true,
    ours: Effect.gen(function*() {
      const { breaker } = yield* ours(options(1))
      const tenSecondsAfterOpening = (key: string) =>
        Effect.gen(function*() {
          yield* fail(subjectOf(breaker, key))
          yield* TestClock.adjust("10 seconds")
          // The generation is a fence, not a part of the state.
          const { generation: _, ...state } = yield* Effect.orDie(breaker.state(key))
          return state
        })
      return isEqual(yield* tenSecondsAfterOpening("openai"), yield* tenSecondsAfterOpening("anthropic"))
    }),
    faulty: false,
    seed: Effect.gen(function*() {
      const tenSecondsAfterOpening = Effect.gen(function*() {
        const subject = yield* seed(1)
        yield* fail(subject)
        yield* TestClock.adjust("10 seconds")
        return subject.breaker.state()
      })
      return isEqual(yield* tenSecondsAfterOpening, yield* tenSecondsAfterOpening)
    })
  })
})
