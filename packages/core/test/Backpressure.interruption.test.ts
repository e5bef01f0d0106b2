import { assert, describe, it, vi } from "@effect/vitest"
import { Effect, Fiber, References, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { fork } from "./support/effects.ts"
import { type Guard, makeGuard } from "./support/permits.ts"
import { interruptEverywhere, yields } from "./support/probe.ts"

// Each test makes hundreds of runs, which takes seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

/** Every operator that holds permits, around a body that yields often. */
const operators: Record<string, (guard: Guard) => Effect.Effect<unknown, unknown>> = {
  withPermit: (guard) => guard.withPermit(yields(20)),
  "withPermits": (guard) => guard.withPermits(yields(20), { permits: 2 }),
  "withPermits with maxWait": (guard) => guard.withPermits(yields(20), { permits: 2, maxWait: "1 minute" }),
  withPermitStream: (guard) => Stream.runDrain(guard.withPermitStream(Stream.fromEffect(yields(20)))),
  withPermitsStream: (guard) =>
    Stream.runDrain(guard.withPermitsStream(Stream.fromEffect(yields(20)), { permits: 2, maxWait: "1 minute" })),
  tryAcquire: (guard) => Effect.scoped(Effect.andThen(guard.tryAcquire, yields(20)))
}

/** No permit is held, no call is queued, and all permits can be taken. */
const isIdle = (guard: Guard, at: string) =>
  Effect.gen(function*() {
    const { capacity, draining, slots, queued, running } = yield* guard.snapshot
    assert.deepStrictEqual({ running, queued, slots }, { running: 0, queued: 0, slots: 0 }, at)
    if (draining) yield* guard.resume
    assert.strictEqual(yield* guard.withPermits(Effect.succeed("all"), { permits: capacity }), "all", at)
    assert.isTrue(yield* guard.drain, at)
  })

interface Subject {
  readonly guard: Guard
  /** Fibers that run beside the interrupted one, and end without it. */
  readonly others: ReadonlyArray<Fiber.Fiber<unknown, unknown>>
}

/** The situations that the interrupted call meets. */
const situations: Record<string, Effect.Effect<Subject, never, Scope.Scope>> = {
  "a free permit": Effect.map(makeGuard({ capacity: 2 }), (guard) => ({ guard, others: [] })),
  // The calls ahead end after some turns, so that the interruption hits the queue, the grant and the run.
  "a moving queue": Effect.gen(function*() {
    const guard = yield* makeGuard({ capacity: 2, queue: 5, maxWait: "1 minute" })
    const ahead = yield* fork(guard.withPermits(yields(10), { permits: 2 }))
    const first = yield* fork(guard.withPermit(yields(3)))
    const behind = yield* fork(
      Effect.andThen(yields(2), guard.withPermit(yields(3)))
    )
    return { guard, others: [ahead, first, behind] }
  }),
  "a drain": Effect.gen(function*() {
    const guard = yield* makeGuard({ capacity: 2, queue: 5 })
    const ahead = yield* fork(guard.withPermits(yields(8), { permits: 2 }))
    const drain = yield* fork(Effect.andThen(yields(5), guard.drain))
    return { guard, others: [ahead, drain] }
  }),
  "a changing capacity": Effect.gen(function*() {
    const guard = yield* makeGuard({ capacity: 2, queue: 5 })
    const ahead = yield* fork(guard.withPermits(yields(15), { permits: 2 }))
    const resize = yield* fork(
      Effect.gen(function*() {
        yield* yields(2)
        yield* guard.resize(3)
        yield* yields(8)
        yield* guard.resize(1)
      })
    )
    return { guard, others: [ahead, resize] }
  })
}

describe("Backpressure under interruption", () => {
  for (const [what, run] of Object.entries(operators)) {
    for (const [situation, make] of Object.entries(situations)) {
      // Without a wait it usually ends before it can be interrupted.
      if (what === "tryAcquire" && situation !== "a free permit") continue
      it.effect(`${what} interrupted anywhere leaves nothing behind, with ${situation}`, () =>
        Effect.gen(function*() {
          const points = yield* interruptEverywhere({
            make,
            // A refusal ends it early. The turns after it leave something to interrupt.
            run: ({ guard }) => Effect.andThen(Effect.exit(run(guard)), yields(20)),
            after: ({ guard, others }, at) => Effect.andThen(Effect.forEach(others, Fiber.await), isIdle(guard, at))
          })
          assert.isAtLeast(points, 300)
        }))
    }
  }

  it.effect("an interruption at the moment when maxWait ends leaves nothing behind", () =>
    Effect.gen(function*() {
      const points = yield* interruptEverywhere({
        make: Effect.gen(function*() {
          const guard = yield* makeGuard({ capacity: 1, queue: 5, maxWait: "1 second" })
          const ahead = yield* fork(guard.withPermit(Effect.sleep("10 seconds")))
          const time = yield* fork(Effect.andThen(yields(5), TestClock.adjust("1 second")))
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

  it.effect("a drain interrupted anywhere leaves nothing behind", () =>
    Effect.gen(function*() {
      const points = yield* interruptEverywhere({
        make: Effect.gen(function*() {
          const guard = yield* makeGuard({ capacity: 1, queue: 5 })
          const ahead = yield* fork(guard.withPermit(yields(15)))
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

  it.effect("a drain ends, whenever resume is called", () =>
    Effect.gen(function*() {
      for (let operations = 3; operations <= 9; operations++) {
        for (let turns = 0; turns <= 12; turns++) {
          const guard = yield* makeGuard({ capacity: 1 })
          const ahead = yield* fork(guard.withPermit(yields(20)))
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
