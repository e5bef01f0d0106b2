import * as Backpressure from "@sluice/core/Backpressure"
import { describe } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { fork, timed } from "../support/effects.ts"
import { countRuns, fault } from "./fault.ts"
import { SeedBackpressureGuard, seedGuarded, unwrap } from "./port.ts"

describe("faults of the seed: Backpressure", () => {
  const seed = (capacity: number) => unwrap(SeedBackpressureGuard.make(capacity))

  fault("G1", "a permit is released exactly once, however its call ends", {
    wanted: { heldAfterFailure: 0, mostAtOnce: 2 },
    ours: Effect.gen(function*() {
      const { running, withPermit } = yield* Backpressure.make({ capacity: 2, queue: 10 })
      yield* Effect.exit(withPermit(Effect.fail("503")))
      yield* Effect.exit(withPermit(Effect.die("a bug")))
      yield* Fiber.interrupt(yield* fork(withPermit(Effect.never)))
      const heldAfterFailure = yield* running
      return { heldAfterFailure, mostAtOnce: yield* mostAtOnce((run) => withPermit(run)) }
    }),
    faulty: { heldAfterFailure: 1, mostAtOnce: 3 },
    seed: Effect.gen(function*() {
      const leaking = seed(2)
      yield* Effect.exit(seedGuarded(leaking, Effect.fail("503")))
      const guard = seed(2)
      guard.tryAcquire()
      guard.tryAcquire()
      // Both permits are in use. One call releases twice, and two more calls are admitted.
      guard.release()
      guard.release()
      const more = [guard.tryAcquire(), guard.tryAcquire(), guard.tryAcquire()].filter((acquired) => acquired.ok).length
      return { heldAfterFailure: leaking.depth(), mostAtOnce: 1 + more }
    })
  })

  const servedOf = (withPermit: (run: Effect.Effect<void>) => Effect.Effect<void, unknown>) =>
    Effect.gen(function*() {
      const served: Array<number> = []
      const call = (n: number) =>
        Effect.exit(withPermit(Effect.delay(
          Effect.sync(() => {
            served.push(n)
          }),
          "1 second"
        )))
      yield* timed(Effect.forEach([1, 2, 3], call, { concurrency: "unbounded" }))
      return served
    })

  fault(
    "G2",
    "calls are queued in order, up to a limit (priorities come later)",
    {
      wanted: [1, 2, 3],
      ours: Effect.flatMap(Backpressure.make({ capacity: 1, queue: 2 }), ({ withPermit }) => servedOf(withPermit)),
      faulty: [1],
      seed: Effect.suspend(() => {
        const guard = seed(1)
        return servedOf((run) => seedGuarded(guard, run))
      })
    }
  )

  fault("G3", "a soft limit of 0 is refused, and the ratio is always a number", {
    wanted: { refused: ["softLimit"], ratio: 0 },
    ours: Effect.gen(function*() {
      const invalid = yield* Effect.flip(Backpressure.make({ capacity: 5, softLimit: 0 }))
      const { softLimitRatio } = yield* Backpressure.make({ capacity: 5, softLimit: 1 })
      return { refused: invalid.issues.map((issue) => issue.option), ratio: yield* softLimitRatio }
    }),
    faulty: { refused: [], ratio: Number.NaN },
    seed: Effect.sync(() => ({ refused: [], ratio: unwrap(seed(5).withSoftLimit(0)).softDepthRatio() }))
  })

  fault("G4", "crossing the soft limit is reported once, not for every call above it", {
    wanted: 1,
    ours: Effect.gen(function*() {
      const { pressure, tryAcquire } = yield* Backpressure.make({ capacity: 10, softLimit: 2 })
      let reported = 0
      yield* Stream.runForEach(pressure, () => Effect.sync(() => reported++)).pipe(
        Effect.forkScoped({ startImmediately: true })
      )
      yield* tryAcquire
      yield* tryAcquire
      for (let i = 0; i < 50; i++) yield* Effect.scoped(tryAcquire)
      yield* TestClock.adjust(0)
      return reported
    }),
    faulty: 51,
    seed: Effect.sync(() => {
      const guard = unwrap(seed(10).withSoftLimit(2))
      guard.tryAcquire()
      guard.tryAcquire()
      for (let i = 0; i < 50; i++) {
        guard.tryAcquire()
        guard.release()
      }
      return guard.log.length
    })
  })

  fault("G5", "all users of the permits see the same soft limit", {
    wanted: [1, 1],
    ours: Effect.gen(function*() {
      const one = yield* Backpressure.Backpressure
      const other = yield* Backpressure.Backpressure
      yield* one.tryAcquire
      yield* other.tryAcquire
      return [yield* one.softLimitRatio, yield* other.softLimitRatio]
    }).pipe(Effect.provide(Backpressure.layer({ capacity: 5, softLimit: 2 }))),
    faulty: [1, 0],
    seed: Effect.sync(() => {
      const other = seed(5)
      const one = unwrap(other.withSoftLimit(2))
      one.tryAcquire()
      other.tryAcquire()
      return [one.softDepthRatio(), other.softDepthRatio()]
    })
  })

  fault("G6", "the limit can be changed while calls run (adaptive limits come later)", {
    wanted: 2,
    ours: Effect.gen(function*() {
      const { resize, withPermit } = yield* Backpressure.make({ capacity: 1, queue: 10 })
      const { counting, runs } = countRuns()
      yield* fork(withPermit(counting(Effect.never)))
      yield* resize(2)
      for (let i = 0; i < 5; i++) yield* fork(withPermit(counting(Effect.never)))
      return runs()
    }),
    faulty: 3,
    seed: Effect.gen(function*() {
      const { counting, runs } = countRuns()
      yield* fork(seedGuarded(seed(1), counting(Effect.never)))
      // The limit is fixed. Another limit needs another guard, which does not count the running calls.
      const larger = seed(2)
      for (let i = 0; i < 5; i++) yield* fork(Effect.exit(seedGuarded(larger, counting(Effect.never))))
      return runs()
    })
  })

  const mostAtOnce = (withPermit: (run: Effect.Effect<void>) => Effect.Effect<void, unknown>) =>
    Effect.gen(function*() {
      let now = 0
      let most = 0
      const call = Effect.acquireUseRelease(
        Effect.sync(() => {
          most = Math.max(most, ++now)
        }),
        () => Effect.sleep("1 second"),
        () =>
          Effect.sync(() => {
            now--
          })
      )
      yield* timed(
        Effect.all(Array.from({ length: 5 }, () => Effect.exit(withPermit(call))), { concurrency: "unbounded" })
      )
      return most
    })
})
