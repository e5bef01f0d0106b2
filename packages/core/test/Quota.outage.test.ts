/** A shared store that fails: for a while, or for one reply. */
import * as Quota from "@sluice/core/Quota"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Logger } from "effect"
import { TestClock } from "effect/testing"
import { fork, range } from "./support/effects.ts"
import { exceededIn } from "./support/quotas.ts"
import { Journal, makeOn, sharedStore, usedIn } from "./support/sharedQuotas.ts"

const usage = () => ({})

const ended = (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>) =>
  fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length

describe("an outage of the store of a quota", () => {
  it.effect("while the store is down, rates use this process's part, budgets refuse, and the use is recorded later", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* sharedStore
      const limits = [Quota.requestsPerMinute(100), Quota.perDay("money", 1_000)]
      const quota = yield* makeOn(service, { limits, burst: 0, processes: 4, maxWait: "5 seconds" })
      const free = quota.withQuota({ usage })(Effect.void)
      state.isDown = true
      const fibers = yield* Effect.forEach(range(60), () => fork(Effect.exit(free)))
      yield* TestClock.adjust("6 seconds")
      const exits = yield* Effect.forEach(fibers, Fiber.join)
      assert.strictEqual(exits.filter(({ _tag }) => _tag === "Success").length, 25)
      const paid = yield* Effect.exit(quota.withQuota({ amounts: { money: 1 }, usage })(Effect.void))
      assert.strictEqual(exceededIn(paid)?.why, "StoreDown")
      assert.strictEqual(exceededIn(paid)?.dimension, "money")
      state.isDown = false
      yield* TestClock.adjust("2 seconds")
      const after = yield* fork(free)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(after)
      assert.strictEqual(yield* usedIn(store, "requests"), 26)
    }))

  it.effect("a store that hangs and cannot be interrupted holds up a call for a second, and no further one", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const stuck = Effect.uninterruptible(Effect.never)
      const quota = yield* makeOn({ ...service, limit: () => stuck, reserve: () => stuck }, {
        limits: [Quota.requestsPerMinute(10)],
        burst: 0,
        slice: false
      })
      const first = yield* fork(Effect.exit(quota.tryReserve({})))
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Fiber.join(first))._tag, "Success")
      assert.strictEqual((yield* Effect.exit(quota.tryReserve({})))._tag, "Success")
      // The grant that may have been lost is given back.
      yield* TestClock.adjust("10 millis")
    }))

  for (const isDown of [true, "hangs"] as const) {
    it.effect(`an outage of a window in the middle, in which the store ${isDown === true ? "fails" : "hangs"}, lets at most the limit through`, () =>
      Effect.gen(function*() {
        const { service, state } = yield* sharedStore
        const journal = new Journal()
        const options: Quota.QuotaOptions = { limits: [Quota.requestsPerMinute(200)], processes: 4, queue: 5_000 }
        const quotas = yield* Effect.forEach(range(4), () => makeOn(service, options))
        yield* Effect.forEach(range(1_600), (n) => fork(quotas[n % 4]!.withQuota({ usage })(journal.call(50))))
        yield* TestClock.adjust("90 seconds")
        state.isDown = isDown
        yield* TestClock.adjust("60 seconds")
        const before = journal.times.length
        state.isDown = false
        yield* TestClock.adjust("400 seconds")
        assert.strictEqual(journal.times.length, 1_600)
        assert.isAtMost(journal.most(60_000), 200)
        // Calls went on during the outage.
        const during = journal.times.filter((time) => time > 92_000 && time < 150_000).length
        assert.isAbove(during, 100, `${before}`)
      }))
  }

  it.effect("one process of four that had used all of the limit exceeds it by its part only", () =>
    Effect.gen(function*() {
      const { service, state } = yield* sharedStore
      const journal = new Journal()
      const options: Quota.QuotaOptions = {
        limits: [Quota.requestsPerMinute(200)],
        burst: 0,
        processes: 4,
        queue: 5_000
      }
      const quotas = yield* Effect.forEach(range(4), () => makeOn(service, options))
      yield* Effect.forEach(range(200), () => fork(quotas[0]!.withQuota({ usage })(journal.call(50))))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(journal.times.length, 200)
      state.isDown = true
      yield* Effect.forEach(range(800), (n) => fork(quotas[n % 4]!.withQuota({ usage })(journal.call(50))))
      yield* TestClock.adjust("30 seconds")
      // The first process counts its own use, and the others do not know of it.
      assert.strictEqual(journal.times.length, 200 + 3 * 50)
    }))

  it.effect("a slice that is live is used before this process's part", () =>
    Effect.gen(function*() {
      const { service, state } = yield* sharedStore
      const limits = [Quota.requestsPerMinute(100)]
      const slice = { life: "2 seconds", share: 0.5 } as const
      const quota = yield* makeOn(service, { limits, burst: 0, processes: 10, slice })
      const call = quota.withQuota({ usage })(Effect.void)
      // The next slice is for as many calls as the last one.
      yield* Effect.forEach(range(40), () => fork(call))
      yield* TestClock.adjust("3 seconds")
      const asking = yield* fork(call)
      yield* TestClock.adjust("10 millis")
      assert.strictEqual(ended([asking]), 1)
      state.isDown = true
      // The part of one in ten is used up already.
      const more = yield* Effect.forEach(range(60), () => fork(call))
      yield* TestClock.adjust("1 second")
      assert.isAtLeast(ended(more), 35)
      assert.isAtMost(ended(more), 50)
    }))

  it.effect("calls that began during the outage and still run are counted when the store answers again", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* sharedStore
      const limits = [Quota.tokensPerMinute(1_000), Quota.atOnce(8)]
      const quota = yield* makeOn(service, { limits, burst: 0, processes: 2, lease: "10 seconds" })
      state.isDown = true
      const call = quota.withQuota({ amounts: { tokens: 100 }, usage: () => ({ tokens: 7 }) })(
        Effect.sleep("30 seconds")
      )
      const fibers = yield* Effect.forEach(range(3), () => fork(call))
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual([yield* usedIn(store, "tokens"), yield* usedIn(store, "atOnce")], [0, 0])
      state.isDown = false
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual([yield* usedIn(store, "tokens"), yield* usedIn(store, "atOnce")], [300, 3])
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(yield* usedIn(store, "atOnce"), 3)
      yield* TestClock.adjust("10 seconds")
      yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual([yield* usedIn(store, "tokens"), yield* usedIn(store, "atOnce")], [21, 0])
    }))

  it.effect("calls that end during the outage are settled when the store answers again", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* sharedStore
      const limits = [Quota.tokensPerMinute(1_000), Quota.atOnce(8)]
      const quota = yield* makeOn(service, { limits, burst: 0 })
      const call = quota.withQuota({ amounts: { tokens: 100 }, usage: () => ({ tokens: 7 }) })(Effect.sleep("1 second"))
      yield* Effect.forEach(range(3), () => fork(call))
      yield* TestClock.adjust("500 millis")
      state.isDown = true
      yield* TestClock.adjust("5 seconds")
      state.isDown = false
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual([yield* usedIn(store, "tokens"), yield* usedIn(store, "atOnce")], [21, 0])
    }))

  it.effect("after a long outage only the use of the last window is recorded", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* sharedStore
      const quota = yield* makeOn(service, {
        limits: [Quota.requestsPerMinute(100)],
        burst: 0,
        processes: 2,
        queue: 5_000
      })
      state.isDown = true
      const fibers = yield* Effect.forEach(range(400), () => fork(quota.withQuota({ usage })(Effect.void)))
      yield* TestClock.adjust("200 seconds")
      assert.strictEqual(ended(fibers), 200)
      state.isDown = false
      yield* TestClock.adjust("2 seconds")
      assert.isAtMost(yield* usedIn(store, "requests"), 100)
      assert.isAtLeast(yield* usedIn(store, "requests"), 50)
    }))

  it.effect("an outage logs one warning, and the store is asked once a second", () =>
    Effect.gen(function*() {
      const messages: Array<unknown> = []
      const logger = Logger.make(({ message }) => {
        messages.push(message)
      })
      yield* Effect.gen(function*() {
        const { service, state } = yield* sharedStore
        const quota = yield* makeOn(service, { limits: [Quota.requestsPerMinute(1_000)], name: "gpt" })
        state.isDown = true
        yield* Effect.forEach(range(100), () => fork(quota.withQuota({ usage })(Effect.sleep("2 seconds"))))
        yield* TestClock.adjust("20 seconds")
        assert.isAtMost(state.sent.limit, 21)
        assert.isAtMost(state.sent.reserve, 4)
        assert.isAtLeast(state.sent.limit, 19)
        state.isDown = false
        yield* TestClock.adjust("2 seconds")
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([logger])))
      assert.deepStrictEqual(messages, [[
        "gpt: the store of the quota does not answer. This process keeps to its part of the limits"
      ]])
    }))
})

describe("a reply of the store of a quota that is lost", () => {
  for (const slice of [undefined, false] as const) {
    it.effect(`the request is repeated, and its amounts count once, ${slice === false ? "without" : "with"} slices`, () =>
      Effect.gen(function*() {
        const { service, state, store } = yield* sharedStore
        const limits = [Quota.requestsPerMinute(100), Quota.tokensPerMinute(1_000)]
        const quota = yield* makeOn(service, { limits, burst: 0, slice })
        state.lostReplies = 1
        const reserving = yield* fork(quota.reserve({ amounts: { tokens: 100 } }))
        yield* TestClock.adjust("1 second")
        const reservation = yield* Fiber.join(reserving)
        assert.deepStrictEqual([yield* usedIn(store, "requests"), yield* usedIn(store, "tokens")], [1, 100])
        assert.strictEqual(state.sent.limit, 0, "there was no outage")
        yield* reservation.settle({ tokens: 30 })
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([yield* usedIn(store, "requests"), yield* usedIn(store, "tokens")], [1, 30])
      }))
  }

  it.effect("a request that was carried out, with all replies lost, is given back after the outage", () =>
    Effect.gen(function*() {
      const { service, state, store } = yield* sharedStore
      const quota = yield* makeOn(service, { limits: [Quota.requestsPerMinute(100), Quota.atOnce(5)], burst: 0 })
      state.lostReplies = 3
      const call = yield* fork(quota.withQuota({ usage })(Effect.sleep("10 seconds")))
      yield* TestClock.adjust("5 seconds")
      // The call itself began during the outage, and counts since its end.
      assert.deepStrictEqual([yield* usedIn(store, "requests"), yield* usedIn(store, "atOnce")], [1, 1])
      yield* TestClock.adjust("6 seconds")
      yield* Fiber.join(call)
      assert.deepStrictEqual([yield* usedIn(store, "requests"), yield* usedIn(store, "atOnce")], [1, 0])
    }))
})
