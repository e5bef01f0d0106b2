import * as Admission from "@sluice/core/Admission"
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import { interruptEverywhere, yields } from "./support/probe.ts"
import { remoteStore } from "./support/stores.ts"

const stores = {
  "in this process": CircuitBreakerStore.layerMemory,
  "in a shared store": remoteStore(0)
}

/** Every form of an attempt, around a body that yields often. */
const attempts: Record<string, (admission: Admission.Admission) => Effect.Effect<unknown, unknown>> = {
  guard: (admission) => admission.guard(yields(15)),
  "guard of a failure": (admission) => admission.guard(Effect.andThen(yields(10), Effect.fail("503"))),
  "guard with maxWait": (admission) => admission.guard(yields(15), { maxWait: "1 minute" }),
  guardStream: (admission) =>
    Stream.runDrain(admission.guardStream(Stream.mapEffect(Stream.range(1, 3), () => yields(4)))),
  "acquire and settle": (admission) =>
    Effect.scoped(Effect.gen(function*() {
      const held = yield* admission.acquire()
      yield* yields(10)
      yield* held.settle(Outcome.success)
      yield* yields(5)
    })),
  "acquire and settleExit": (admission) =>
    Effect.scoped(Effect.gen(function*() {
      const held = yield* admission.acquire()
      yield* yields(10)
      yield* held.settleExit(Exit.fail("503"))
    })),
  "acquire without a settlement": (admission) => Effect.scoped(Effect.andThen(admission.acquire(), yields(15)))
}

describe("an attempt that is interrupted anywhere leaves nothing behind", () => {
  for (const [where, store] of Object.entries(stores)) {
    for (const [name, attempt] of Object.entries(attempts)) {
      for (const situation of ["closed", "half-open"]) {
        it.effect(`${name}, with a moving queue and a ${situation} circuit ${where}`, () =>
          Effect.gen(function*() {
            const points = yield* interruptEverywhere({
              make: Effect.gen(function*() {
                const breaker = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(1) })
                const permits = yield* Backpressure.make({ capacity: 1, queue: 4 })
                const admission = yield* Admission.make({ breaker, permits })
                if (situation === "half-open") {
                  yield* Effect.exit(admission.guard(Effect.fail("503")))
                  yield* TestClock.adjust("30 seconds")
                }
                const ahead = yield* Effect.forkChild(permits.withPermit(yields(6)), { startImmediately: true })
                return { admission, ahead, breaker, permits }
              }).pipe(Effect.provide(Layer.fresh(store)), Effect.orDie),
              run: ({ admission }) => Effect.andThen(Effect.exit(attempt(admission)), yields(12)),
              after: ({ admission, ahead, breaker, permits }, at) =>
                Effect.gen(function*() {
                  yield* Fiber.await(ahead)
                  yield* yields(10)
                  const { queued, running, slots } = yield* permits.snapshot
                  assert.deepStrictEqual({ queued, running, slots }, { queued: 0, running: 0, slots: 0 }, at)
                  const state = yield* breaker.state()
                  if (state._tag === "HalfOpen") assert.strictEqual(state.probing, 0, at)
                  if (state._tag === "Open") yield* TestClock.adjust("1 hour")
                  assert.strictEqual(yield* admission.guard(Effect.succeed("admitted")), "admitted", at)
                  assert.strictEqual((yield* breaker.state())._tag, "Closed", at)
                }).pipe(Effect.orDie)
            })
            assert.isAtLeast(points, 300)
          }))
      }
    }
  }
})
