/** Calls over a quota, permits and a circuit, which end in every way and are interrupted at random moments. */
import * as Admission from "@sluice/core/Admission"
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Outcome from "@sluice/core/Outcome"
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import * as ReferenceQuotaStore from "@sluice/testing/ReferenceQuotaStore"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { range } from "./support/effects.ts"
import { makeOn } from "./support/sharedQuotas.ts"
import { randomOf } from "./support/strictProvider.ts"

const perMinute = 90
const atOnce = 12

/** A store whose answers come at once or late, and sometimes not at all. `isQuick`: all come at once. */
const fitfulStore = (random: () => number) =>
  Effect.map(ReferenceQuotaStore.make, (store) => {
    const state = { isQuick: false, isDown: false }
    const down = Effect.fail(new CircuitBreakerStore.StoreError({ operation: "any", description: "down" }))
    const fitful = <Request, A, E>(verb: (request: Request) => Effect.Effect<A, E>) => (request: Request) =>
      Effect.suspend((): Effect.Effect<A, E | CircuitBreakerStore.StoreError> => {
        if (state.isQuick || random() < 0.3) return verb(request)
        return state.isDown || random() < 0.01 ? down : Effect.delay(verb(request), Math.ceil(random() * 20))
      })
    const service = QuotaStore.QuotaStore.of({
      reserve: fitful(store.reserve),
      settle: fitful(store.settle),
      record: fitful(store.record),
      renew: fitful(store.renew),
      limit: fitful(store.limit),
      read: fitful(store.read),
      targets: fitful(store.targets)
    })
    return { service, state, store }
  })

describe("a quota with permits and a circuit", () => {
  for (const [kind, seed] of [["memory", 1], ["memory", 2], ["shared", 3], ["shared", 4]] as const) {
    it.effect(`${kind}, seed ${seed}: 1,000 calls that are interrupted at random keep the limits and leave nothing held`, () =>
      Effect.gen(function*() {
        const random = randomOf(seed)
        const { service, state, store } = yield* fitfulStore(random)
        const quota = yield* makeOn(kind === "memory" ? yield* QuotaStore.makeMemory() : service, {
          limits: [Quota.requestsPerMinute(perMinute), Quota.tokensPerMinute(20_000, "learned"), Quota.atOnce(atOnce)],
          tenantLimits: [Quota.atOnce(5)],
          burst: 0,
          adapt: false
        })
        const permits = yield* Effect.orDie(Backpressure.make({ capacity: 10, queue: 1_000 }))
        const breaker = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(3), openFor: "1 second" }).pipe(
          Effect.provide(CircuitBreakerStore.layerMemory),
          Effect.orDie
        )
        const admission = yield* Effect.orDie(Admission.make({ quota, permits, breaker }))

        let running = 0
        let most = 0
        const sent: Array<number> = []
        const call = (reservation: () => Quota.Reservation | undefined) =>
          Effect.acquireUseRelease(
            Effect.map(Clock.currentTimeMillis, (now) => {
              most = Math.max(most, ++running)
              sent.push(now)
              return now
            }),
            (sentAt) =>
              Effect.gen(function*() {
                yield* Effect.sleep(Math.ceil(random() * 2_000))
                const how = random()
                if (how < 0.5) yield* reservation()?.settle({ tokens: Math.floor(random() * 500) }) ?? Effect.void
                else if (how < 0.55) yield* reservation()?.throttled(random() * 500) ?? Effect.void
                else if (how < 0.6) {
                  const refund = reservation()?.refund
                  if (refund !== undefined) sent.splice(sent.indexOf(sentAt), 1)
                  yield* refund ?? Effect.void
                }
                if (random() < 0.2) return yield* Effect.fail("down")
                if (random() < 0.02) return yield* Effect.die("defect")
              }),
            () => Effect.sync(() => running--)
          )

        const one = (): Effect.Effect<unknown, unknown> => {
          const tenant = [undefined, "a", "b"][Math.floor(random() * 3)]
          const amounts = { tokens: { known: Math.floor(random() * 50), atMost: 60 + Math.floor(random() * 600) } }
          let held: Quota.Reservation | undefined
          const onReserved = (reservation: Quota.Reservation) => {
            held = reservation
          }
          const options = {
            ...(random() < 0.3 ? { maxWait: Math.floor(random() * 5_000) } : {}),
            reserve: { tenant, amounts, onReserved }
          }
          const body = call(() => held)
          const way = random()
          if (way < 0.4) return admission.guard(body, options)
          if (way < 0.55) {
            const acquired = Effect.flatMap(
              admission.acquire(options),
              (admitted) => Effect.andThen(body, random() < 0.5 ? admitted.settle(Outcome.success) : Effect.void)
            )
            return Effect.scoped(acquired)
          }
          if (way < 0.7) {
            const admitted = admission.tryAcquireUnsafe(options)
            return admitted?._tag === "Admitted"
              ? Effect.onExit(body, () => Effect.sync(() => admitted.settleUnsafe(Outcome.success)))
              : Effect.void
          }
          if (way < 0.9) {
            return Effect.scoped(
              Effect.flatMap(quota.reserve({ tenant, amounts }), (reservation) => call(() => reservation))
            )
          }
          return Effect.andThen(quota.eligible({ tenant, amounts }), quota.expectedWait({ tenant, amounts }))
        }

        const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
        for (const step of range(250)) {
          state.isDown = step > 100 && step < 130
          for (let calls = 0; calls < 4; calls++) {
            const startImmediately = random() < 0.5
            fibers.push(yield* Effect.forkChild(Effect.exit(Effect.suspend(one)), { startImmediately }))
          }
          const victim = fibers[Math.floor(random() * fibers.length)]
          if (victim !== undefined && random() < 0.6) yield* Effect.forkChild(Fiber.interrupt(victim))
          yield* TestClock.adjust(Math.ceil(random() * 200))
        }
        state.isDown = false
        const areRunning = () => fibers.some((fiber) => fiber.pollUnsafe() === undefined)
        for (let seconds = 0; seconds < 1_800 && areRunning(); seconds += 2) yield* TestClock.adjust("2 seconds")
        assert.isFalse(areRunning(), "no call is stuck")
        assert.strictEqual(running, 0)
        assert.isAtMost(most, atOnce)
        const fullest = Math.max(...sent.map((at) => sent.filter((other) => other >= at && other < at + 60_000).length))
        assert.isAtMost(fullest, perMinute)
        assert.isAbove(sent.length, 3 * perMinute)

        yield* TestClock.adjust("2 minutes")
        const { levels, refunded, reserved, settled, throttled, waiting } = yield* quota.snapshot()
        assert.deepStrictEqual(levels.map(({ queued, used }) => [used, queued]), levels.map(() => [0, 0]))
        assert.deepStrictEqual([reserved - settled - refunded - throttled, waiting], [0, 0])
        const { queued, running: inUse, slots } = yield* permits.snapshot
        assert.deepStrictEqual([queued, inUse, slots], [0, 0, 0])
        const stored = yield* Effect.orDie(store.read({ target: "default", scopes: ["all", "t:a", "t:b"] }))
        assert.deepStrictEqual(stored.filter(({ used }) => used !== 0), [])
        state.isQuick = true
      }))
  }
})
