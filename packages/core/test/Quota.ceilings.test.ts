/** What processes of a shared store learn from each other: lowered limits and rests. */
import * as QuotaStore from "@sluice/core/QuotaStore"
import * as Quota from "@sluice/core/Quota"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { fork, range } from "./support/effects.ts"
import { makeOn, sharedStore } from "./support/sharedQuotas.ts"

const usage = () => ({})

const options: Quota.QuotaOptions = { limits: [Quota.requestsPerMinute(1_000)], burst: 0, processes: 2, queue: 5_000 }

type Service = Quota.Quota["Service"]

const limitOf = (quota: Service) => Effect.map(quota.snapshot("default"), ({ levels }) => levels[0]?.limit ?? 0)

const call = (quota: Service, count = 1) =>
  Effect.forEach(range(count), () => fork(quota.withQuota({ usage })(Effect.void)))

/** A call that the provider rejects. */
const reject = (quota: Service, retryAfter?: number) =>
  Effect.gen(function*() {
    const reserving = yield* fork(quota.reserve({}))
    yield* TestClock.adjust("10 millis")
    yield* (yield* Fiber.join(reserving)).throttled(retryAfter)
    yield* TestClock.adjust("10 millis")
  })

describe("what processes of a shared store learn from each other", () => {
  it.effect("a limit that one process learns is that of all processes, by their sum", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const [a, b] = [yield* makeOn(service, options), yield* makeOn(service, options)]
      const changes = yield* fork(Stream.runCollect(Stream.take(b.changes, 1)))
      yield* call(a, 200)
      yield* call(b, 300)
      yield* TestClock.adjust("5 seconds")
      yield* call(a)
      yield* TestClock.adjust("1 second")
      yield* reject(a)
      const learned = yield* limitOf(a)
      assert.isTrue(learned >= 485 && learned <= 500, `${learned}`)
      yield* call(b)
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(yield* limitOf(b), learned)
      assert.deepStrictEqual([...yield* Fiber.join(changes)], [
        {
          key: "default",
          dimension: "requests",
          windowMillis: 60_000,
          of: "limit",
          from: 1_000,
          to: learned,
          why: "Throttled"
        }
      ])
    }))

  it.effect("a limit by hand holds in all processes until its time is over, or until it is ended", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const onStore = Effect.provideService(QuotaStore.QuotaStore, service)
      const hold = (limit: number, forMillis: number) =>
        onStore(QuotaStore.hold({ target: "default", dimension: "requests", windowMillis: 60_000, limit, forMillis }))
      const quotas = [yield* makeOn(service, options), yield* makeOn(service, options)]
      const [a, b] = [quotas[0]!, quotas[1]!]
      const changes = yield* fork(Stream.runCollect(Stream.take(b.changes, 1)))
      const ask = Effect.gen(function*() {
        for (const quota of quotas) yield* call(quota)
        yield* TestClock.adjust("1 second")
      })
      yield* ask
      yield* fork(hold(20, 600_000))
      yield* TestClock.adjust("1 second")
      yield* ask
      assert.deepStrictEqual(yield* Effect.forEach(quotas, limitOf), [20, 20])
      assert.deepInclude((yield* Fiber.join(changes))[0], { from: 1_000, to: 20, why: "Set" })
      const fibers = [...yield* call(a, 40), ...yield* call(b, 40)]
      yield* TestClock.adjust("10 seconds")
      assert.isAtMost(fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 20)
      yield* TestClock.adjust("11 minutes")
      assert.deepStrictEqual(yield* Effect.forEach(quotas, limitOf), [1_000, 1_000])

      yield* fork(hold(30, 600_000))
      yield* TestClock.adjust("1 second")
      yield* ask
      const read = yield* fork(
        onStore(QuotaStore.ceilings({ target: "default", dimension: "requests", windowMillis: 60_000 }))
      )
      yield* TestClock.adjust("1 second")
      const { byHand } = yield* Fiber.join(read)
      assert.strictEqual(byHand.limit, 30)
      assert.isTrue(byHand.forMillis > 590_000 && byHand.forMillis < 600_000, `${byHand.forMillis}`)
      yield* fork(hold(Number.POSITIVE_INFINITY, 0))
      yield* TestClock.adjust("1 second")
      yield* ask
      assert.deepStrictEqual(yield* Effect.forEach(quotas, limitOf), [1_000, 1_000])
    }))

  it.effect("a process that starts later has the learned limit from its first answer on", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const a = yield* makeOn(service, options)
      yield* call(a, 400)
      yield* TestClock.adjust("5 seconds")
      yield* reject(a)
      const late = yield* makeOn(service, options)
      const fibers = yield* call(late, 50)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* limitOf(late), yield* limitOf(a))
      assert.strictEqual(fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 0)
    }))

  it.effect("a shared limit rises by 2 % a minute in all processes together", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const quotas = [yield* makeOn(service, options), yield* makeOn(service, options), yield* makeOn(service, options)]
      yield* call(quotas[0]!, 500)
      yield* TestClock.adjust("5 seconds")
      yield* reject(quotas[0]!)
      const learned = yield* limitOf(quotas[0]!)
      for (const _ of range(240)) {
        for (const quota of quotas) yield* call(quota)
        yield* TestClock.adjust("1 second")
      }
      // The first minute is clean, and then three of growth.
      for (const quota of quotas) {
        const limit = yield* limitOf(quota)
        assert.isTrue(Math.abs(limit - learned - 60) <= 2, `${limit} after ${learned}`)
      }
    }))

  it.effect("calls that were in flight in other processes at the cut do not lower the limit again", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const [a, b] = [yield* makeOn(service, options), yield* makeOn(service, options)]
      yield* call(a, 250)
      yield* call(b, 250)
      yield* TestClock.adjust("5 seconds")
      const reserving = yield* fork(b.reserve({}))
      yield* TestClock.adjust("10 millis")
      const inFlight = yield* Fiber.join(reserving)
      yield* TestClock.adjust("2 seconds")
      yield* reject(a)
      const learned = yield* limitOf(a)
      yield* call(b)
      yield* TestClock.adjust("1 second")
      yield* inFlight.throttled()
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* limitOf(b), learned)
    }))

  it.effect("no process starts a call before the Retry-After that one of them was told", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const [a, b] = [yield* makeOn(service, options), yield* makeOn(service, options)]
      yield* reject(a, 20_000)
      const fibers = yield* call(b, 5)
      yield* TestClock.adjust("19 seconds")
      assert.strictEqual(fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 0)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 5)
    }))

  it.effect("a quota that does not adapt follows rests, and no learned limit", () =>
    Effect.gen(function*() {
      const { service } = yield* sharedStore
      const [a, b] = [yield* makeOn(service, options), yield* makeOn(service, { ...options, adapt: false })]
      yield* call(a, 400)
      yield* TestClock.adjust("5 seconds")
      yield* reject(a, 5_000)
      const fibers = yield* call(b, 5)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 0)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length, 5)
      assert.strictEqual(yield* limitOf(b), 1_000)
    }))

  it.effect("calls that are rejected together share one rest", () =>
    Effect.gen(function*() {
      const { service, state } = yield* sharedStore
      const a = yield* makeOn(service, options)
      const reserving = yield* Effect.forEach(range(20), () => fork(a.reserve({})))
      yield* TestClock.adjust("1 second")
      for (const one of reserving) yield* (yield* Fiber.join(one)).throttled("20 seconds")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(state.sent.limit, 1)
    }))
})
