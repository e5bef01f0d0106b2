import * as Backpressure from "@sluice/core/Backpressure"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, References, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { interruptEverywhere, yields } from "./support/probe.ts"

type Service = Backpressure.Backpressure["Service"]

const make = (options: Backpressure.BackpressureOptions) => Effect.orDie(Backpressure.make(options))

/** Every way to hold permits, around a body that gives way often. */
const operators: Record<string, (guard: Service) => Effect.Effect<unknown, unknown>> = {
  withPermit: (guard) => guard.withPermit(yields(20)),
  "withPermits": (guard) => guard.withPermits(yields(20), { permits: 2 }),
  "withPermits, for a time": (guard) => guard.withPermits(yields(20), { permits: 2, maxWait: "1 minute" }),
  withPermitStream: (guard) => Stream.runDrain(guard.withPermitStream(Stream.fromEffect(yields(20)))),
  withPermitsStream: (guard) =>
    Stream.runDrain(guard.withPermitsStream(Stream.fromEffect(yields(20)), { permits: 2, maxWait: "1 minute" })),
  tryAcquire: (guard) => Effect.scoped(Effect.andThen(guard.tryAcquire, yields(20)))
}

/** Nothing is held, nobody waits, and everything can be had. */
const isIdle = (guard: Service, at: string) =>
  Effect.gen(function*() {
    const { capacity, draining, slots, queued, running } = yield* guard.snapshot
    assert.deepStrictEqual({ running, queued, slots }, { running: 0, queued: 0, slots: 0 }, at)
    if (draining) yield* guard.resume
    assert.strictEqual(yield* guard.withPermits(Effect.succeed("all"), { permits: capacity }), "all", at)
    assert.isTrue(yield* guard.drain, at)
  })

interface Subject {
  readonly guard: Service
  /** Fibers that run beside the one that is interrupted, and end by themselves. */
  readonly others: ReadonlyArray<Fiber.Fiber<unknown, unknown>>
}

/** What the interrupted one meets. */
const situations: Record<string, Effect.Effect<Subject, never, Scope.Scope>> = {
  "a free permit": Effect.map(make({ capacity: 2 }), (guard) => ({ guard, others: [] })),
  // Who is ahead leaves after some turns, so that the probe meets the line, the grant and the run.
  "a line that moves": Effect.gen(function*() {
    const guard = yield* make({ capacity: 2, queue: 5, maxWait: "1 minute" })
    const ahead = yield* Effect.forkChild(guard.withPermits(yields(10), { permits: 2 }), { startImmediately: true })
    const first = yield* Effect.forkChild(guard.withPermit(yields(3)), { startImmediately: true })
    const behind = yield* Effect.forkChild(
      Effect.andThen(yields(2), guard.withPermit(yields(3))),
      { startImmediately: true }
    )
    return { guard, others: [ahead, first, behind] }
  }),
  "a drain": Effect.gen(function*() {
    const guard = yield* make({ capacity: 2, queue: 5 })
    const ahead = yield* Effect.forkChild(guard.withPermits(yields(8), { permits: 2 }), { startImmediately: true })
    const drain = yield* Effect.forkChild(Effect.andThen(yields(5), guard.drain), { startImmediately: true })
    return { guard, others: [ahead, drain] }
  }),
  "a capacity that changes": Effect.gen(function*() {
    const guard = yield* make({ capacity: 2, queue: 5 })
    const ahead = yield* Effect.forkChild(guard.withPermits(yields(15), { permits: 2 }), { startImmediately: true })
    const resize = yield* Effect.forkChild(
      Effect.gen(function*() {
        yield* yields(2)
        yield* guard.resize(3)
        yield* yields(8)
        yield* guard.resize(1)
      }),
      { startImmediately: true }
    )
    return { guard, others: [ahead, resize] }
  })
}

describe("Backpressure under interruption", () => {
  for (const [what, run] of Object.entries(operators)) {
    for (const [situation, make] of Object.entries(situations)) {
      // Where it never waits it is mostly over before it can be interrupted.
      if (what === "tryAcquire" && situation !== "a free permit") continue
      it.effect(`${what} leaves nothing behind at any point: ${situation}`, () =>
        Effect.gen(function*() {
          const points = yield* interruptEverywhere({
            make,
            // A refusal ends it early: what follows gives the probe something to interrupt.
            run: ({ guard }) => Effect.andThen(Effect.exit(run(guard)), yields(20)),
            after: ({ guard, others }, at) => Effect.andThen(Effect.forEach(others, Fiber.await), isIdle(guard, at))
          })
          assert.isAtLeast(points, 300)
        }))
    }
  }

  it.effect("a wait leaves nothing behind where its time is over at the same moment", () =>
    Effect.gen(function*() {
      const points = yield* interruptEverywhere({
        make: Effect.gen(function*() {
          const guard = yield* make({ capacity: 1, queue: 5, maxWait: "1 second" })
          const ahead = yield* Effect.forkChild(guard.withPermit(Effect.sleep("10 seconds")), {
            startImmediately: true
          })
          const time = yield* Effect.forkChild(Effect.andThen(yields(5), TestClock.adjust("1 second")), {
            startImmediately: true
          })
          return { guard, ahead, time }
        }),
        run: ({ guard }) => Effect.andThen(Effect.exit(guard.withPermit(Effect.void)), yields(20)),
        after: ({ ahead, guard, time }, at) =>
          Effect.gen(function*() {
            yield* Fiber.await(time)
            assert.strictEqual(yield* guard.queued, 0, at)
            yield* Fiber.interrupt(ahead)
            yield* isIdle(guard, at)
          })
      })
      assert.isAtLeast(points, 300)
    }))

  it.effect("a drain that is interrupted leaves nobody who waits for it", () =>
    Effect.gen(function*() {
      const points = yield* interruptEverywhere({
        make: Effect.gen(function*() {
          const guard = yield* make({ capacity: 1, queue: 5 })
          const ahead = yield* Effect.forkChild(guard.withPermit(yields(15)), { startImmediately: true })
          return { guard, ahead }
        }),
        run: ({ guard }) => Effect.andThen(guard.drain, yields(10)),
        after: ({ ahead, guard }, at) =>
          Effect.gen(function*() {
            yield* Fiber.await(ahead)
            yield* guard.resume
            yield* isIdle(guard, at)
          })
      })
      assert.isAtLeast(points, 300)
    }))

  it.effect("a drain is over, whenever somebody takes it back", () =>
    Effect.gen(function*() {
      for (let operations = 3; operations <= 9; operations++) {
        for (let turns = 0; turns <= 12; turns++) {
          const guard = yield* make({ capacity: 1 })
          const ahead = yield* Effect.forkChild(guard.withPermit(yields(20)), { startImmediately: true })
          const drain = yield* Effect.forkChild(
            Effect.provideService(Effect.andThen(Effect.void, guard.drain), References.MaxOpsBeforeYield, operations)
          )
          yield* yields(turns)
          yield* guard.resume
          yield* Fiber.join(ahead)
          yield* yields(3)
          assert.isDefined(drain.pollUnsafe(), `resumed after ${turns} turns of ${operations} operations`)
        }
      }
    }))
})
