/** Slices: what a process reserves ahead in a shared store, to save requests. */
import * as Quota from "@sluice/core/Quota"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { fork, range } from "./support/effects.ts"
import { Journal, makeOn, sharedStore, usedIn } from "./support/sharedQuotas.ts"

const usage = () => ({})

describe("slices of a shared store", () => {
  it.effect("four processes that use the whole limit ask the store once for many calls, and never exceed it", () =>
    Effect.gen(function*() {
      const { service, state } = yield* sharedStore
      const journal = new Journal()
      const limits = [Quota.per("6 seconds", "requests", 3_000, { perCall: 1 })]
      const options = { limits, guard: "200 millis", burst: "6 seconds", queue: 10_000, processes: 4 } as const
      const quotas = yield* Effect.forEach(range(4), () => makeOn(service, options))
      const fibers = yield* Effect.forEach(
        range(12_000),
        (n) => fork(quotas[n % 4]!.withQuota({ usage })(journal.call(100)))
      )
      for (let second = 0; second < 40; second++) yield* TestClock.adjust("1 second")
      assert.strictEqual(fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 12_000)
      assert.isAtMost(journal.most(6_000), 3_000)
      const { reserve, settle } = state.sent
      const trips = (reserve + settle) / 12_000
      assert.isAtMost(trips, 0.15)
      const last = Math.max(...journal.times) - Math.min(...journal.times)
      assert.isAtMost(last, 3 * 6_000 * 1.3 + 6_000)
    }))

  it.effect("the rest of a slice is given back after its life, also while its calls run", () =>
    Effect.gen(function*() {
      const { service, store } = yield* sharedStore
      const quota = yield* makeOn(service, { limits: [Quota.requestsPerMinute(6_000)], slice: { life: "100 millis" } })
      const journal = new Journal()
      const call = quota.withQuota({ usage })(journal.call(5_000))
      // Fifty calls in one life: the next slice is for as many.
      for (const _ of range(5)) {
        yield* Effect.forEach(range(10), () => fork(call))
        yield* TestClock.adjust("20 millis")
      }
      yield* TestClock.adjust("5 seconds")
      yield* fork(call)
      yield* TestClock.adjust("10 millis")
      const during = yield* usedIn(store, "requests")
      yield* TestClock.adjust("200 millis")
      assert.isAbove(during, 60)
      assert.strictEqual(yield* usedIn(store, "requests"), journal.times.length)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* usedIn(store, "requests"), journal.times.length)
    }))

  it.effect("the last slice takes what is left, and nothing is left unused", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const journal = new Journal()
      const options: Quota.QuotaOptions = { limits: [Quota.requestsPerMinute(97)], burst: 0, processes: 4, queue: 500 }
      const quotas = yield* Effect.forEach(range(4), () => makeOn(service, options))
      yield* Effect.forEach(range(400), (n) => fork(quotas[n % 4]!.withQuota({ usage })(journal.call(10))))
      yield* TestClock.adjust("50 seconds")
      assert.strictEqual(journal.times.length, 97)
    }))

  it.effect("the store counts a slice as used at the end of its life", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const journal = new Journal()
      const options: Quota.QuotaOptions = {
        limits: [Quota.requestsPerMinute(10)],
        burst: 0,
        guard: 0,
        slice: { share: 1 }
      }
      const [a, b] = [yield* makeOn(service, options), yield* makeOn(service, options)]
      yield* TestClock.adjust("900 millis")
      const reserving = yield* Effect.forEach(range(10), () => fork(a.reserve({})))
      yield* TestClock.adjust("50 millis")
      for (const one of reserving) yield* (yield* Fiber.join(one)).refund
      yield* TestClock.adjust("500 millis")
      // They start in the last moments of the slice, in a later bucket than that in which it began.
      yield* Effect.forEach(range(9), () => fork(a.withQuota({ usage })(journal.call(10))))
      yield* TestClock.adjust("10 millis")
      assert.strictEqual(journal.times.length, 9)
      yield* TestClock.adjust("59 seconds")
      yield* Effect.forEach(range(10), () => fork(b.withQuota({ usage })(journal.call(10))))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(journal.times.length, 19)
      assert.isAtMost(journal.most(60_000), 10)
    }))

  it.effect("budgets and calls at once are asked for one by one", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* sharedStore
      const limits = [Quota.requestsPerMinute(1_000), Quota.atOnce(50), Quota.perDay("money", 1_000)]
      const quota = yield* makeOn(service, { limits })
      const call = quota.withQuota({ amounts: { money: 3 }, usage })(Effect.sleep("1 second"))
      const fibers = yield* Effect.forEach(range(20), () => fork(call))
      yield* TestClock.adjust("500 millis")
      const sums = yield* Effect.forEach(["requests", "atOnce", "money"], (name) => usedIn(store, name))
      assert.deepStrictEqual(sums, [20, 20, 60])
      assert.strictEqual(state.sent.reserve, 20)
      yield* TestClock.adjust("1 second")
      yield* Effect.forEach(fibers, Fiber.join)
      assert.strictEqual(yield* usedIn(store, "atOnce"), 0)
    }))

  it.effect("tokens that a call did not use are for other calls of the slice, and are given back at its end", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* sharedStore
      const limits = [Quota.requestsPerMinute(1_000), Quota.tokensPerMinute(100_000)]
      const quota = yield* makeOn(service, { limits })
      const call = quota.withQuota({ amounts: { tokens: 1_000 }, usage: () => ({ tokens: 40 }) })(
        Effect.sleep("30 millis")
      )
      const fibers = yield* Effect.forEach(range(30), () => fork(call))
      yield* TestClock.adjust("2 seconds")
      yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual([yield* usedIn(store, "requests"), yield* usedIn(store, "tokens")], [30, 1_200])
      assert.isBelow(state.sent.reserve, 20)
    }))

  it.effect("a call that is interrupted while its slice is asked for leaves the slice to the others", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* sharedStore
      const quota = yield* makeOn(service, { limits: [Quota.requestsPerMinute(1_000)] })
      const first = yield* fork(quota.withQuota({ usage })(Effect.void))
      const second = yield* fork(quota.withQuota({ usage })(Effect.void))
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust("20 millis")
      yield* Fiber.join(second)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* usedIn(store, "requests"), 1)
      assert.strictEqual(state.sent.reserve, 1)
    }))

  it.effect("without slices each call asks", () =>
    Effect.gen(function*() {
      const { service, state } = yield* sharedStore
      const quota = yield* makeOn(service, { limits: [Quota.requestsPerMinute(1_000)], slice: false })
      yield* Effect.forEach(range(20), () => fork(quota.withQuota({ usage })(Effect.void)))
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual([state.sent.reserve, state.sent.settle], [20, 20])
    }))

  it.effect("a slice that lives longer than a tenth of the window is refused", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const exit = yield* Effect.exit(
        makeOn(service, { limits: [Quota.requestsPerMinute(10)], slice: { life: "7 seconds", share: 2 } })
      )
      assert.match(String(exit), /slice.life[^]*a tenth of the shortest window/)
      assert.match(String(exit), /slice.share/)
    }))
})
