import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Admission from "@sluice/core/Admission"
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Outcome from "@sluice/core/Outcome"
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import { makeOn, sharedStore, usedIn } from "./support/sharedQuotas.ts"

const perMinute = (requests: number, options?: Partial<Quota.QuotaOptions>) =>
  Quota.make({ name: "account", limits: [Quota.requestsPerMinute(requests)], burst: 0, ...options })

const run = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.scoped(self).pipe(
    Effect.provide(CircuitBreakerStore.layerMemory),
    Effect.provide(QuotaStore.layerMemory)
  )

const usedOf = (quota: Quota.Quota["Service"], key = "default") =>
  Effect.map(quota.snapshot(key), ({ levels }) => levels[0]?.used ?? 0)

describe("an admission with a quota", () => {
  it.effect("an attempt that waits for its quota holds no permit", () =>
    run(Effect.gen(function*() {
      const permits = yield* Backpressure.make({ capacity: 1, queue: 10 })
      const quota = yield* perMinute(1)
      const admission = yield* Admission.make({ permits, quota })
      const ask = (key: string) => admission.guard(Effect.succeed(key), { reserve: { key } })
      assert.strictEqual(yield* ask("a"), "a")
      const waiting = yield* Effect.forkChild(ask("a"))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* permits.running, 0)
      // Another account is not delayed.
      assert.strictEqual(yield* ask("b"), "b")
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* Fiber.join(waiting), "a")
    })))

  it.effect("an attempt of tryAcquireUnsafe counts as the quota counts each call", () =>
    run(Effect.gen(function*() {
      const quota = yield* perMinute(2)
      const admission = yield* Admission.make({ quota })
      const reservations: Array<Quota.Reservation> = []
      const reserve = { onReserved: (reservation: Quota.Reservation) => reservations.push(reservation) }
      for (let calls = 0; calls < 2; calls++) {
        const admitted = admission.tryAcquireUnsafe({ reserve })
        assert(admitted?._tag === "Admitted")
        if (calls === 1) yield* reservations[1]?.refund ?? Effect.void
        admitted.settleUnsafe(Outcome.success)
      }
      assert.strictEqual(reservations.length, 2)
      assert.strictEqual(yield* usedOf(quota), 1)
    })))

  it.effect("an attempt that tryAcquireUnsafe leaves to acquire gives back what a shared store grants it", () =>
    run(Effect.gen(function*() {
      const { service, store } = yield* sharedStore
      const quota = yield* makeOn(service, { limits: [Quota.atOnce(1)] })
      const admission = yield* Admission.make({ quota })
      assert.isUndefined(admission.tryAcquireUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* usedIn(store, "atOnce"), 0)
    })))

  it.effect("in a queue that two quotas use, a call that waits for one of them does not delay those of the other", () =>
    run(Effect.gen(function*() {
      const permits = yield* Backpressure.make({ capacity: 1, queue: 100 })
      const [small, large] = [yield* perMinute(1), yield* perMinute(10)]
      const first = yield* Admission.make({ permits, quota: small })
      const second = yield* Admission.make({ permits, quota: large })
      yield* first.guard(Effect.void)
      const waiting = yield* Effect.forkChild(first.guard(Effect.void), { startImmediately: true })
      const calls = yield* Effect.forkChild(Effect.all(Array.from({ length: 9 }, () => second.guard(Effect.void)), {
        concurrency: "unbounded"
      }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([waiting.pollUnsafe(), calls.pollUnsafe()].map((exit) => exit !== undefined), [
        false,
        true
      ])
    })))

  it.effect("a refused circuit gives the reserved amounts back", () =>
    run(Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(1), openFor: "10 seconds" })
      const quota = yield* perMinute(10)
      const admission = yield* Admission.make({ breaker, quota })
      yield* Effect.ignore(admission.guard(Effect.fail("down")))
      assert.strictEqual(yield* usedOf(quota), 1)
      const exit = yield* Effect.exit(admission.guard(Effect.void))
      assert.isTrue(Exit.isFailure(exit))
      assert.strictEqual(yield* usedOf(quota), 1)
      assert.strictEqual((yield* quota.snapshot()).refunded, 1)
    })))

  it.effect("an attempt whose quota has no room before its deadline is refused at once, with the time to wait", () =>
    run(Effect.gen(function*() {
      const permits = yield* Backpressure.make({ capacity: 4, queue: 10 })
      for (const more of [{}, { permits }]) {
        const admission = yield* Admission.make({
          quota: yield* perMinute(1),
          ...more
        })
        const key = `${Object.keys(more)}`
        yield* Effect.ignore(admission.guard(Effect.void, { reserve: { key } }))
        const error = yield* Effect.flip(admission.guard(Effect.void, { reserve: { key, deadlineAt: 5_000 } }))
        assert(error._tag === "QuotaExceeded")
        assert.strictEqual(error.why, "Deadline")
        assert.isAbove(Duration.toMillis(error.retryAfter ?? 0), 59_000)
      }
    })))

  it.effect("the reservation of an attempt is settled by its owner, and knows how long the attempt waited", () =>
    run(Effect.gen(function*() {
      const quota = yield* Quota.make({ limits: [Quota.tokensPerMinute(100)], burst: 0 })
      const admission = yield* Admission.make({ quota })
      const reservations: Array<Quota.Reservation> = []
      const ask = (tokens: number) =>
        admission.guard(
          Effect.suspend(() => reservations.at(-1)?.settle({ tokens: 10 }) ?? Effect.void),
          { reserve: { amounts: { tokens }, onReserved: (reservation) => reservations.push(reservation) } }
        )
      yield* ask(95)
      assert.strictEqual(yield* usedOf(quota), 10)
      assert.isUndefined(reservations[0]?.waited)
      const waiting = yield* Effect.forkChild(ask(95))
      yield* TestClock.adjust("2 minutes")
      yield* Fiber.join(waiting)
      assert.strictEqual(reservations[1]?.waited?.dimension, "tokens")
      assert.isAbove(Duration.toMillis(reservations[1]?.waited?.duration ?? 0), 55_000)
    })))

  it.effect("invalid amounts are a defect", () =>
    run(Effect.gen(function*() {
      const admission = yield* Admission.make({ quota: yield* perMinute(1) })
      for (const amounts of [{ tokens: 3 }, { requests: -1 }]) {
        const exit = yield* Effect.exit(admission.guard(Effect.void, { reserve: { amounts } }))
        assert.isTrue(Exit.isFailure(exit) && Exit.hasDies(exit))
      }
    })))

  it.effect("an expected wait is 0 with room, infinite for a call above the limit, and unknown for calls at once", () =>
    run(Effect.gen(function*() {
      const quota = yield* Quota.make({ limits: [Quota.tokensPerMinute(100), Quota.atOnce(1)], burst: 0 })
      const expected = (tokens: number) =>
        Effect.map(
          quota.expectedWait({ amounts: { tokens } }),
          (wait) => wait === undefined ? undefined : Duration.toMillis(wait)
        )
      assert.strictEqual(yield* expected(100), 0)
      assert.strictEqual(yield* expected(101), Number.POSITIVE_INFINITY)
      const held = yield* quota.reserve({ amounts: { tokens: 60 } })
      assert.isUndefined(yield* expected(10))
      yield* held.settle({})
      assert.strictEqual(yield* expected(10), 0)
      assert.isAbove((yield* expected(50)) ?? 0, 59_000)
    })))
})
