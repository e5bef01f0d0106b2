/** Quotas that share a store which is not in memory: here the reference store, whose answers take a while. */
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { quotasOf } from "../src/internal/quota/quotas.ts"
import { fork, range } from "./support/effects.ts"
import { exceededIn } from "./support/quotas.ts"
import { makeOn, sharedStore, usedIn } from "./support/sharedQuotas.ts"

const options: Quota.QuotaOptions = { limits: [Quota.requestsPerMinute(10), Quota.atOnce(4)], burst: 0 }

describe("a quota on a shared store", () => {
  it.effect("two processes together keep the limits, and calls wait until the store has room", () =>
    Effect.gen(function*() {
      const { service, store } = yield* sharedStore
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
    }))

  it.effect("tryReserve waits for the answer of the store, and not for room", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const quota = yield* makeOn(service, { limits: [Quota.requestsPerMinute(1)], burst: 0 })
      const first = yield* fork(quota.tryReserve({}))
      yield* TestClock.adjust("10 millis")
      yield* Fiber.join(first)
      const second = yield* fork(quota.tryReserve({}))
      yield* TestClock.adjust("10 millis")
      assert.strictEqual(exceededIn(yield* Fiber.await(second))?.why, "Full")
    }))

  it.effect("tryReserve of many calls at the same moment gets all the room of the store, and no more", () =>
    Effect.gen(function*() {
      const { service, store } = yield* sharedStore
      for (const slice of [undefined, false] as const) {
        const limits = [Quota.requestsPerMinute(10), Quota.perDay("money", 1_000)]
        const quota = yield* makeOn(service, { limits, burst: 0, slice })
        const key = `sliced ${slice}`
        const calls = yield* Effect.forEach(range(40), () => fork(quota.tryReserve({ key, amounts: { money: 1 } })))
        yield* TestClock.adjust("2 seconds")
        const levels = yield* Effect.orDie(store.read({ target: key, scopes: ["all"] }))
        const refusals = calls.map((call) => call.pollUnsafe()).map((exit) => exit && exceededIn(exit)?.why)
        assert.deepStrictEqual(refusals.toSorted(), [...Array(30).fill("Full"), ...Array(10).fill(undefined)])
        assert.isTrue(calls.every((call) => call.pollUnsafe() !== undefined))
        assert.deepStrictEqual(levels.map(({ used }) => used), [10, 10])
      }
    }))

  it.effect("tryReserve behind a call that waits for room is refused after five seconds at most", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const quota = yield* makeOn(service, { limits: [Quota.requestsPerMinute(1)], burst: 0, slice: false })
      const calls = [yield* fork(quota.reserve({})), yield* fork(quota.reserve({})), yield* fork(quota.tryReserve({}))]
      yield* TestClock.adjust("5 seconds")
      const [first, waiting, last] = calls.map((call) => call.pollUnsafe())
      assert.strictEqual(first?._tag, "Success")
      assert.isUndefined(waiting)
      assert.isDefined(last && exceededIn(last))
    }))

  it.effect("a call that is interrupted while the store is asked gives its grant back", () =>
    Effect.gen(function*() {
      const { service, store } = yield* sharedStore
      const quota = yield* makeOn(service, options)
      const fiber = yield* fork(quota.reserve({}))
      yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* usedIn(store, "requests"), yield* usedIn(store, "atOnce")], [0, 0])
    }))

  it.effect("a settlement reaches the store, and a long call stays counted at once", () =>
    Effect.gen(function*() {
      const { service, store } = yield* sharedStore
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
    }))

  it.effect("a rejected call stays counted as a request, and its tokens are given back", () =>
    Effect.gen(function*() {
      const { service, store } = yield* sharedStore
      const quota = yield* makeOn(service, {
        limits: [Quota.requestsPerMinute(100), Quota.tokensPerMinute(1_000, "reserved")],
        slice: false
      })
      const reserving = yield* fork(quota.reserve({ amounts: { tokens: 50 } }))
      yield* TestClock.adjust("1 second")
      yield* (yield* Fiber.join(reserving)).throttled()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* usedIn(store, "requests"), yield* usedIn(store, "tokens")], [1, 0])
    }))

  it.effect("a refusal tells when the store has room, though this process has used nothing", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const quotas = [yield* makeOn(service, { ...options, maxWait: 0 }), yield* makeOn(service, options)]
      yield* Effect.forEach(range(10), () => fork(quotas[1]!.withQuota({ usage: () => ({}) })(Effect.void)))
      yield* TestClock.adjust("1 second")
      const refused = yield* fork(quotas[0]!.tryReserve({}))
      yield* TestClock.adjust("1 second")
      const exceeded = exceededIn(yield* Fiber.await(refused))
      assert.deepStrictEqual([exceeded?.dimension, exceeded?.used, exceeded?.limit], ["requests", 10, 10])
      const retryMillis = Duration.toMillis(exceeded?.retryAfter ?? 0)
      assert.isTrue(retryMillis > 55_000 && retryMillis < 65_000, `${retryMillis}`)
    }))

  it.effect("a wait of less than a millisecond is one of a millisecond", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const quotas = quotasOf(yield* makeOn(service, { limits: [Quota.atOnce(1)] }))
      assert(quotas?.shared !== undefined)
      // Sums of times that are no whole numbers are not exact. A queue that waits for 1e-13 ms asks again without end.
      quotas.shared = { ...quotas.shared, take: () => 1e-13, isGranted: () => false, isAsking: () => false }
      assert.strictEqual(quotas.hold().tryTake(), 1)
    }))

  it.effect("a store that answers at once grants each call once", () =>
    Effect.gen(function*() {
      const memory = yield* QuotaStore.makeMemory()
      // A copy is no store in memory, so the quota asks it.
      const quota = yield* makeOn(QuotaStore.QuotaStore.of({ ...memory }), { limits: [Quota.atOnce(2)] })
      const call = Effect.sleep("1 second").pipe(quota.withQuota({ usage: () => ({}) }))
      const calls = yield* fork(Effect.all(range(20).map(() => call), { concurrency: "unbounded" }))
      for (let seconds = 0; seconds < 15; seconds++) yield* TestClock.adjust("1 second")
      assert.isDefined(calls.pollUnsafe())
      const { levels, reserved } = yield* quota.snapshot()
      assert.deepStrictEqual([reserved, levels[0]?.used], [20, 0])
    }))

  it.effect("a budget that other processes have used is refused as Spent, once it has not changed for a minute", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const budget = { limits: [Quota.total("money", 100)] }
      const [first, second] = [yield* makeOn(service, budget), yield* makeOn(service, budget)]
      const reserve = (quota: Quota.Quota["Service"], money: number) => fork(quota.reserve({ amounts: { money } }))
      const held = yield* reserve(first, 95)
      yield* TestClock.adjust("1 second")
      const calls = [yield* reserve(second, 10), yield* reserve(second, 10)]
      const endedNow = () => calls.map((call) => call.pollUnsafe() !== undefined)
      yield* TestClock.adjust("50 seconds")
      assert.deepStrictEqual(endedNow(), [false, false])
      // The first process gives back enough for one of them.
      yield* Effect.flatMap(Fiber.join(held), ({ settle }) => settle({ money: 85 }))
      yield* TestClock.adjust("50 seconds")
      assert.deepStrictEqual(endedNow(), [true, false])
      yield* Effect.flatMap(Fiber.join(calls[0]!), ({ settle }) => settle({}))
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual(exceededIn(yield* Fiber.await(calls[1]!))?.why, "Spent")
      // Now it is known.
      const last = yield* reserve(second, 10)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(exceededIn(yield* Fiber.await(last))?.why, "Spent")
    }))

  it.effect("each process finds how many calls it may run at once, and together they keep the limit", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const limits = { limits: [Quota.atOnce(10, { start: 4 })] }
      const quotas = [yield* makeOn(service, limits), yield* makeOn(service, limits), yield* makeOn(service, limits)]
      const running = [0, 0, 0]
      yield* Effect.forEach(
        range(30),
        (n) =>
          fork(
            Effect.andThen(Effect.sync(() => running[n % 3]!++), Effect.never).pipe(
              quotas[n % 3]!.withQuota({ usage: () => ({}) })
            )
          )
      )
      // They ask the store again after random waits.
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual([running[0]! + running[1]! + running[2]!, Math.max(...running)], [10, 4])
    }))
})
