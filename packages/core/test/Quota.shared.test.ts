/** Quotas that share a store which is not in memory: here the reference store, whose answers take a while. */
import { StoreError } from "@sluice/core/CircuitBreakerStore"
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import { assert, describe, it } from "@effect/vitest"
import * as ReferenceQuotaStore from "@sluice/testing/ReferenceQuotaStore"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { fork, range } from "./support/effects.ts"
import { exceededIn } from "./support/quotas.ts"

type Service = QuotaStore.QuotaStore["Service"]

/** A store that takes 5 ms for each answer, and fails while `isDown`. Tests end with `isInstant`: then no time passes any more. */
const slowStore = Effect.map(ReferenceQuotaStore.make, (store) => {
  const state = { isDown: false, isInstant: false }
  const slow = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.suspend((): Effect.Effect<A, E | StoreError> =>
      state.isDown
        ? Effect.fail(new StoreError({ operation: "any", description: "down" }))
        : state.isInstant
        ? effect
        : Effect.delay(effect, "5 millis")
    )
  const service: Service = {
    reserve: (request) => slow(store.reserve(request)),
    settle: (request) => slow(store.settle(request)),
    record: (request) => slow(store.record(request)),
    renew: (request) => slow(store.renew(request)),
    limit: (request) => slow(store.limit(request)),
    read: (request) => slow(store.read(request))
  }
  return { service, state, store }
})

const makeOn = (store: Service, options: Quota.QuotaOptions) =>
  Effect.orDie(Effect.provideService(Quota.make(options), QuotaStore.QuotaStore, store))

const options: Quota.QuotaOptions = { limits: [Quota.requestsPerMinute(10), Quota.atOnce(4)], burst: 0 }

const usedIn = (store: Service, dimension: string) =>
  Effect.map(
    Effect.orDie(store.read({ target: "default", scopes: ["all"] })),
    (levels) => levels.find((level) => level.dimension.startsWith(`${dimension}:`))?.used ?? 0
  )

describe("a quota on a shared store", () => {
  it.effect("two processes together keep the limits, and calls wait until the store has room", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* slowStore
      const quotas = [yield* makeOn(service, options), yield* makeOn(service, options)]
      let atOnce = 0
      let most = 0
      const call = Effect.acquireUseRelease(
        Effect.sync(() => {
          most = Math.max(most, ++atOnce)
        }),
        () => Effect.sleep("1 second"),
        () => Effect.sync(() => atOnce--)
      )
      const fibers = yield* Effect.forEach(
        range(20),
        (n) => fork(quotas[n % 2]!.withQuota({ usage: () => ({}) })(call))
      )
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 10)
      assert.isAtMost(most, 4)
      assert.strictEqual(yield* usedIn(store, "requests"), 10)
      yield* TestClock.adjust("100 seconds")
      assert.strictEqual(fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 20)
      assert.strictEqual(yield* usedIn(store, "atOnce"), 0)
      state.isInstant = true
    }))

  it.effect("tryReserve waits for the answer of the store, and not for room", () =>
    Effect.gen(function*() {
      const { service, state } = yield* slowStore
      const quota = yield* makeOn(service, { limits: [Quota.requestsPerMinute(1)], burst: 0 })
      const first = yield* fork(quota.tryReserve({}))
      yield* TestClock.adjust("10 millis")
      yield* Fiber.join(first)
      const second = yield* fork(quota.tryReserve({}))
      yield* TestClock.adjust("10 millis")
      assert.strictEqual(exceededIn(yield* Fiber.await(second))?.why, "Full")
      state.isInstant = true
    }))

  it.effect("a call that is interrupted while the store is asked gives its grant back", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* slowStore
      const quota = yield* makeOn(service, options)
      const fiber = yield* fork(quota.reserve({}))
      yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* usedIn(store, "requests"), yield* usedIn(store, "atOnce")], [0, 0])
      state.isInstant = true
    }))

  it.effect("a settlement reaches the store, and a long call stays counted at once", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* slowStore
      const quota = yield* makeOn(service, {
        limits: [Quota.tokensPerMinute(1_000), Quota.atOnce(1)],
        burst: 0,
        lease: "10 seconds"
      })
      const reserving = yield* fork(quota.reserve({ amounts: { tokens: 500 } }))
      yield* TestClock.adjust("1 second")
      const reservation = yield* Fiber.join(reserving)
      yield* TestClock.adjust("50 seconds")
      assert.deepStrictEqual([yield* usedIn(store, "tokens"), yield* usedIn(store, "atOnce")], [500, 1])
      yield* reservation.settle({ tokens: 30 })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* usedIn(store, "tokens"), yield* usedIn(store, "atOnce")], [30, 0])
      state.isInstant = true
    }))

  it.effect("while the store is down, rates use this process's part, budgets refuse, and the use is recorded later", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* slowStore
      const limits = [Quota.requestsPerMinute(100), Quota.perDay("money", 1_000)]
      const quota = yield* makeOn(service, { limits, burst: 0, processes: 4, maxWait: "5 seconds" })
      const free = quota.withQuota({ usage: () => ({}) })(Effect.void)
      state.isDown = true
      const fibers = yield* Effect.forEach(range(60), () => fork(Effect.exit(free)))
      yield* TestClock.adjust("6 seconds")
      const exits = yield* Effect.forEach(fibers, Fiber.join)
      assert.strictEqual(exits.filter(({ _tag }) => _tag === "Success").length, 25)
      const paid = yield* Effect.exit(quota.withQuota({ amounts: { money: 1 }, usage: () => ({}) })(Effect.void))
      assert.strictEqual(exceededIn(paid)?.why, "StoreDown")
      state.isDown = false
      yield* TestClock.adjust("2 seconds")
      const after = yield* fork(free)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(after)
      assert.strictEqual(yield* usedIn(store, "requests"), 26)
      state.isInstant = true
    }))
})
