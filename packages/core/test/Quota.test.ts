import * as Outcome from "@sluice/core/Outcome"
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Logger, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { OptionsReader } from "@sluice/core/OptionsReader"
import { Accounts } from "../src/internal/quota/account.ts"
import { readQuota } from "../src/internal/quota/options.ts"
import { fork } from "./support/effects.ts"
import { exceededIn, makeQuota, type Subject, usedOf } from "./support/quotas.ts"

const perMinute = (limit: number, options?: Partial<Quota.QuotaOptions>) =>
  makeQuota({ limits: [Quota.requestsPerMinute(limit)], burst: 0, ...options })

/** How many of the fibers have ended. */
const ended = (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>) =>
  fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length

const uses = (used: Quota.Used = {}) => ({ usage: () => used })

describe("admission", () => {
  it.effect("all amounts are reserved, or none", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.requestsPerMinute(10), Quota.tokensPerMinute(100)], burst: 0 })
      yield* quota.reserve({ amounts: { tokens: 80 } })
      const exit = yield* Effect.exit(quota.tryReserve({ amounts: { tokens: 30 } }))
      assert.strictEqual(exceededIn(exit)?.dimension, "tokens")
      assert.strictEqual(yield* usedOf(quota, "requests"), 1)
      assert.strictEqual(yield* usedOf(quota, "tokens"), 80)
    }))

  it.effect("a call without room waits until the window has passed", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(2)
      yield* Effect.all([quota.reserve({}), quota.reserve({})])
      const third = yield* fork(quota.reserve({}))
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual(ended([third]), 0)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(ended([third]), 1)
    }))

  it.effect("a settlement below the reservation admits the next call at once", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)], burst: 0 })
      const first = yield* quota.reserve({ amounts: { tokens: 90 } })
      const second = yield* fork(quota.reserve({ amounts: { tokens: 50 } }))
      assert.strictEqual(ended([second]), 0)
      yield* first.settle({ tokens: 40 })
      yield* Fiber.join(second)
      assert.strictEqual(yield* usedOf(quota, "tokens"), 90)
    }))

  it.effect("a settlement above the reservation is a debt that later calls wait for", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)], burst: 0 })
      const first = yield* quota.reserve({ amounts: { tokens: 50 } })
      yield* first.settle({ tokens: 150 })
      const exit = yield* Effect.exit(quota.tryReserve({ amounts: { tokens: 1 } }))
      assert.strictEqual(exceededIn(exit)?.used, 150)
    }))

  it.effect("a use that is no amount keeps the reserved one, and a fraction counts as the next whole number", () =>
    Effect.gen(function*() {
      for (
        const [tokens, counted] of [[Number.NaN, 10], [-50, 10], [Number.POSITIVE_INFINITY, 10], [2.5, 3]] as const
      ) {
        const quota = yield* makeQuota({ limits: [Quota.total("tokens", 100)] })
        yield* Effect.void.pipe(quota.withQuota({ amounts: { tokens: 10 }, usage: () => ({ tokens }) }))
        assert.strictEqual(yield* usedOf(quota, "tokens"), counted, String(tokens))
        // From an untyped source.
        yield* Effect.void.pipe(quota.withQuota({ amounts: { tokens: 10 }, usage: () => null as never }))
        assert.strictEqual(yield* usedOf(quota, "tokens"), counted + 10)
      }
    }))

  it.effect("an arrival at no time counts as now", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)], burst: 0 })
      const reservation = yield* quota.reserve({ amounts: { tokens: 50 } })
      yield* reservation.settle({ tokens: 50 }, Number.NaN)
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual(yield* usedOf(quota, "tokens"), 0)
    }))

  it.effect("a long scope keeps only the reservations that have not ended", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.atOnce(1)], burst: 0 })
      const scope = yield* Scope.make()
      const reserve = Effect.provideService(quota.reserve({}), Scope.Scope, scope)
      yield* Effect.flatMap(reserve, ({ settle }) => settle({}))
      yield* Effect.flatMap(reserve, ({ refund }) => refund)
      yield* Effect.flatMap(reserve, ({ throttled }) => throttled())
      assert.strictEqual(scope.state._tag, "Empty")
      yield* reserve
      assert.strictEqual(yield* usedOf(quota, "atOnce"), 1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* usedOf(quota, "atOnce"), 0)
    }))

  it.effect("a refund gives everything back, and only once", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(1)
      const first = yield* quota.reserve({})
      yield* first.refund
      yield* first.refund
      yield* first.settle({ requests: 5 })
      assert.strictEqual(yield* usedOf(quota, "requests"), 0)
      yield* quota.tryReserve({})
      assert.strictEqual(yield* usedOf(quota, "requests"), 1)
    }))

  it.effect("a call at once is given back when the scope closes, and amounts reserved in a window stay", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.atOnce(1), Quota.requestsPerMinute(10)], burst: 0 })
      yield* Effect.scoped(quota.reserve({}))
      assert.deepStrictEqual([yield* usedOf(quota, "atOnce"), yield* usedOf(quota, "requests")], [0, 1])
      yield* quota.tryReserve({})
    }))

  it.effect("an estimate above the limit is admitted alone, into an empty window", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)], burst: 0 })
      const amounts = { tokens: { known: 20, atMost: 300 } }
      const large = yield* quota.tryReserve({ amounts })
      assert.strictEqual(exceededIn(yield* Effect.exit(quota.tryReserve({ amounts })))?.why, "Full")
      yield* large.settle({ tokens: 0 })
      yield* quota.tryReserve({ amounts })
    }))

  it.effect("a call that needs more than the limit is refused at once", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)] })
      const refused = exceededIn(yield* Effect.exit(quota.reserve({ amounts: { tokens: 101 } })))
      assert.deepStrictEqual([refused?.why, refused?.asked, refused?.limit], ["TooLarge", 101, 100])
      const strict = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)], oversize: "refuse" })
      const amounts = { tokens: { known: 1, atMost: 101 } }
      assert.strictEqual(exceededIn(yield* Effect.exit(strict.reserve({ amounts })))?.why, "TooLarge")
    }))

  it.effect("a name without a limit is refused, since the call would not be limited", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)] })
      const error = yield* Effect.flip(quota.reserve({ amounts: { token: 5 } }))
      assert.match(error.message, /amounts\.token .*must be one of tokens/)
    }))
})

describe("money", () => {
  it.effect("a budget is never exceeded, and a call that does not fit is refused as Spent", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.total("money", Quota.usd(1))] })
      const reserve = (dollars: number) => quota.reserve({ amounts: { money: Quota.usd(dollars) } })
      const first = yield* reserve(0.6)
      const waits = yield* fork(reserve(0.6))
      assert.strictEqual(ended([waits]), 0)
      yield* first.settle({ money: Quota.usd(0.5) })
      // The running calls cannot give back enough now.
      assert.strictEqual(exceededIn(yield* Fiber.await(waits))?.why, "Spent")
      yield* Effect.flatMap(reserve(0.5), (last) => last.settle({}))
      assert.strictEqual(exceededIn(yield* Effect.exit(reserve(0.01)))?.why, "Spent")
    }))

  it.effect("a failure without usage keeps the money reserved", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.perDay("money", Quota.usd(1))] })
      const asked = quota.withQuota({ amounts: { money: 400_000 }, ...uses({ money: 1 }) })
      yield* Effect.exit(asked(Effect.fail("reset")))
      yield* Effect.exit(asked(Effect.interrupt))
      assert.strictEqual(yield* usedOf(quota, "money"), 800_000)
      yield* asked(Effect.void).pipe(Effect.exit, Effect.timeoutOption(0), Effect.forkChild)
      assert.strictEqual(yield* usedOf(quota, "money"), 800_000)
    }))
})

describe("withQuota", () => {
  it.effect("a success is settled by its usage", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(1_000)] })
      const answer = yield* Effect.succeed({ total: 30 }).pipe(
        quota.withQuota({ amounts: { tokens: 100 }, usage: ({ total }: { total: number }) => ({ tokens: total }) })
      )
      assert.deepStrictEqual(answer, { total: 30 })
      assert.strictEqual(yield* usedOf(quota, "tokens"), 30)
    }))

  it.effect("a refusal inside is refunded, since no call was sent", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(1)
      const full = yield* perMinute(1)
      yield* full.reserve({})
      yield* Effect.exit(quota.withQuota(uses())(Effect.scoped(full.tryReserve({}))))
      assert.strictEqual(yield* usedOf(quota, "requests"), 0)
    }))

  it.effect("a rejected call keeps its request, gives back its tokens, and delays the key by its Retry-After", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.requestsPerMinute(10), Quota.tokensPerMinute(100)], burst: 0 })
      const rejected = Effect.fail("429").pipe(
        quota.withQuota({ amounts: { tokens: 50 }, ...uses() }),
        Effect.provideService(Outcome.Classifier, () => Outcome.throttled({ retryAfter: Duration.seconds(5) }))
      )
      yield* Effect.exit(rejected)
      assert.deepStrictEqual([yield* usedOf(quota, "requests"), yield* usedOf(quota, "tokens")], [1, 0])
      const refused = exceededIn(yield* Effect.exit(quota.tryReserve({})))
      assert.deepStrictEqual(refused?.retryAfter, Duration.seconds(5))
      const next = yield* fork(quota.reserve({}))
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(ended([next]), 0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(ended([next]), 1)
    }))

  it.effect("a usage that throws is a defect, and the reserved amounts stay", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(5)
      const thrown = new Error("no usage")
      const exit = yield* Effect.exit(
        quota.withQuota({
          usage: () => {
            throw thrown
          }
        })(Effect.void)
      )
      assert.deepStrictEqual(exit, Exit.die(thrown))
      assert.strictEqual(yield* usedOf(quota, "requests"), 1)
    }))
})

describe("waiting", () => {
  it.effect("a waiter that is interrupted leaves the window and the queue as they were", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(1)
      yield* quota.reserve({})
      const [first, second] = [yield* fork(quota.reserve({})), yield* fork(quota.reserve({}))]
      yield* Fiber.interrupt(first)
      assert.strictEqual(yield* usedOf(quota, "requests"), 1)
      yield* TestClock.adjust("62 seconds")
      assert.strictEqual(ended([second]), 1)
      assert.strictEqual((yield* quota.snapshot()).levels[0]?.queued, 0)
    }))

  it.effect("calls start in the order in which they asked", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(1)
      const order: Array<number> = []
      for (const n of [1, 2, 3]) {
        yield* fork(Effect.andThen(quota.reserve({}), Effect.sync(() => order.push(n))))
      }
      yield* TestClock.adjust("3 minutes")
      assert.deepStrictEqual(order, [1, 2, 3])
    }))

  it.effect("a full queue and a wait that is too long are refused with the numbers", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(2, { queue: 2, maxWait: "5 minutes" })
      yield* Effect.all([quota.reserve({}), quota.reserve({}), fork(quota.reserve({})), fork(quota.reserve({}))])
      const full = exceededIn(yield* Effect.exit(quota.reserve({})))
      assert.deepInclude(full, { why: "Full", dimension: "requests", asked: 1, used: 2, limit: 2, queued: 2 })
      assert.approximately(Duration.toMillis(full?.retryAfter ?? 0), 120_000, 2_500)
      const late = exceededIn(yield* Effect.exit(quota.reserve({ maxWait: "1 second" })))
      assert.strictEqual(late?.why, "MaxWait")
    }))

  it.effect("a call that would have to wait longer than it may is refused at once", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(2)
      yield* Effect.all([quota.reserve({}), quota.reserve({})])
      const exit = yield* Effect.exit(quota.reserve({ maxWait: "59 seconds" }))
      assert.strictEqual(exceededIn(exit)?.why, "MaxWait")
      const waits = yield* fork(quota.reserve({ maxWait: "63 seconds" }))
      yield* TestClock.adjust("62 seconds")
      assert.strictEqual(ended([waits]), 1)
    }))

  it.effect("retryAfter is the time that the call would have waited, within 5 %", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.requestsPerMinute(20)] })
      const told: Array<number> = []
      const waited: Array<number> = []
      for (let n = 0; n < 100; n++) {
        const refused = exceededIn(yield* Effect.exit(Effect.scoped(quota.tryReserve({}))))
        if (refused?.retryAfter !== undefined) {
          const index = told.push(Duration.toMillis(refused.retryAfter)) - 1
          yield* fork(Effect.map(Effect.timed(quota.reserve({})), ([time]) => {
            waited[index] = Duration.toMillis(time)
          }))
        }
      }
      yield* TestClock.adjust("7 minutes")
      const ratios = told.map((millis, index) => (waited[index] ?? 0) / millis).toSorted((a, b) => a - b)
      assert.isAbove(ratios.length, 80)
      assert.isAtLeast(ratios[Math.floor(ratios.length * 0.05)] ?? 0, 0.95)
      assert.isAtMost(ratios[Math.floor(ratios.length * 0.95)] ?? 9, 1.05)
    }))

  it.effect("a call above the burst or the limit that could start now is not said to wait", () =>
    Effect.gen(function*() {
      const waitOf = (options: Partial<Quota.QuotaOptions>, amount: Quota.Amount) =>
        Effect.gen(function*() {
          const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(60_000)], ...options })
          const wait = yield* quota.expectedWait({ amounts: { tokens: amount } })
          yield* quota.tryReserve({ amounts: { tokens: amount } })
          return Duration.toMillis(wait ?? Duration.infinity)
        })
      // The burst holds 6,000.
      assert.strictEqual(yield* waitOf({}, 20_000), 0)
      assert.strictEqual(yield* waitOf({ burst: 0 }, { known: 1, atMost: 200_000 }), 0)
    }))

  it.effect("a call above the limit waits for one empty window, also behind another one", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)], burst: 0 })
      const amounts = { tokens: { known: 1, atMost: 300 } }
      yield* quota.reserve({ amounts: { tokens: 1 } })
      const waitOf = Effect.map(quota.expectedWait({ amounts }), (wait) => Duration.toSeconds(wait ?? 0))
      assert.isAtMost(yield* waitOf, 62)
      yield* fork(quota.reserve({ amounts }))
      assert.isAtMost(yield* waitOf, 124)
    }))

  it.effect("the remaining amount of a header is part of the expected wait", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.requestsPerMinute(60)], burst: 0 })
      yield* quota.observe("default", [{ dimension: "requests", remaining: 0, sentAt: 0 }])
      assert.strictEqual(Duration.toMillis((yield* quota.expectedWait({})) ?? 0), 1_000)
    }))

  it.effect("small calls pass a large one at the head, up to half of its size", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)], burst: 0 })
      const reserve = (tokens: number) => quota.reserve({ amounts: { tokens } })
      yield* reserve(50)
      const large = yield* fork(reserve(60))
      const small = yield* Effect.forEach([10, 10, 10, 10], (tokens) => fork(reserve(tokens)))
      yield* Effect.yieldNow
      assert.deepStrictEqual([ended([large]), ended(small)], [0, 3])
      const strict = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)], burst: 0, overtake: 0 })
      yield* strict.reserve({ amounts: { tokens: 50 } })
      yield* fork(strict.reserve({ amounts: { tokens: 60 } }))
      const behind = yield* fork(strict.reserve({ amounts: { tokens: 10 } }))
      assert.strictEqual(ended([behind]), 0)
    }))

  it.effect("a small call behind a large one starts as soon as it fits, while the large one still waits", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)], burst: 0 })
      const reserve = (tokens: number) => quota.reserve({ amounts: { tokens } })
      yield* reserve(30)
      yield* TestClock.adjust("10 seconds")
      yield* reserve(60)
      const large = yield* fork(reserve(95))
      const small = yield* fork(reserve(20))
      yield* TestClock.adjust("50 seconds")
      assert.deepStrictEqual([ended([large]), ended([small])], [0, 0])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual([ended([large]), ended([small])], [0, 1])
    }))

  it.effect("eligible waits and holds nothing", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(1)
      yield* quota.eligible({})
      assert.strictEqual(yield* usedOf(quota, "requests"), 0)
      yield* quota.reserve({})
      const waits = yield* fork(quota.eligible({}))
      assert.strictEqual(ended([waits]), 0)
      yield* TestClock.adjust("62 seconds")
      assert.strictEqual(ended([waits]), 1)
    }))

  it.effect("waiting calls are refused as Draining when the scope of the quota closes", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const quota = yield* Scope.provide(perMinute(1), scope)
      yield* quota.reserve({})
      const waits = yield* fork(quota.reserve({}))
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(exceededIn(yield* Fiber.await(waits))?.why, "Draining")
    }))
})

describe("keys and tenants", () => {
  it.effect("keys have limits of their own", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(1)
      yield* quota.tryReserve({ key: "a" })
      yield* quota.tryReserve({ key: "b" })
      assert.strictEqual(exceededIn(yield* Effect.exit(quota.tryReserve({ key: "a" })))?.why, "Full")
    }))

  it.effect("a tenant that is out of its quota delays no other", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(100, { tenantLimits: [Quota.requestsPerMinute(2)] })
      const ask = (tenant: string) => fork(quota.reserve({ tenant }))
      const ofA = yield* Effect.forEach(Array.from({ length: 50 }), () => ask("a"))
      const ofB = yield* Effect.forEach(Array.from({ length: 2 }), () => ask("b"))
      yield* Effect.yieldNow
      assert.deepStrictEqual([ended(ofA), ended(ofB)], [2, 2])
      yield* TestClock.adjust("62 seconds")
      assert.strictEqual(ended(ofA), 4)
    }))

  it.effect("tenants that wait for the same limit take turns by size", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(100)], burst: 0 })
      yield* quota.reserve({ amounts: { tokens: 100 } })
      const ask = (tenant: string, tokens: number) => fork(quota.reserve({ tenant, amounts: { tokens } }))
      const large = yield* Effect.forEach(Array.from({ length: 10 }), () => ask("large", 20))
      const small = yield* Effect.forEach(Array.from({ length: 10 }), () => ask("small", 5))
      yield* TestClock.adjust("62 seconds")
      const [ofLarge, ofSmall] = [ended(large), ended(small)]
      assert.isAtLeast(ofSmall * 5, 40)
      assert.isAtLeast(ofLarge * 20, 40)
    }))

  const tenantsIn = (quota: Subject) =>
    Effect.map(quota.snapshot(), ({ levels }) => levels.flatMap(({ tenant }) => tenant ?? []))

  it.effect("a tenant or key whose window or budget counts is not forgotten for one without use", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({
        limits: [Quota.requestsPerMinute(1_000)],
        tenantLimits: [Quota.requestsPerMinute(5), Quota.total("money", 100)],
        capacityOfKeys: 30
      })
      // More than the least recently used ones: each of them counts.
      const counting = Array.from({ length: 20 }, (_, index) => `used-${index}`)
      yield* Effect.forEach(counting, (tenant) => Effect.scoped(quota.reserve({ tenant, amounts: { money: 1 } })))
      yield* TestClock.adjust("2 minutes")
      yield* Effect.forEach(Array.from({ length: 100 }), (_, index) => quota.eligible({ tenant: `idle-${index}` }))
      assert.strictEqual((yield* tenantsIn(quota)).filter((tenant) => tenant.startsWith("used")).length, 20 * 2)
      assert.strictEqual((yield* quota.snapshot()).forgotten, 0)
    }))

  it.effect("if all count, the least recently used tenant is forgotten, which is counted and logged once", () =>
    Effect.gen(function*() {
      const messages: Array<unknown> = []
      const quota = yield* Effect.provide(
        perMinute(1_000, { tenantLimits: [Quota.requestsPerMinute(5)], capacityOfKeys: 3 }),
        Logger.layer([Logger.make(({ message }) => messages.push(message))])
      )
      yield* Effect.forEach(["a", "b", "c", "d", "e"], (tenant) => Effect.scoped(quota.reserve({ tenant })))
      assert.deepStrictEqual(yield* tenantsIn(quota), ["c", "d", "e"])
      assert.strictEqual((yield* quota.snapshot()).forgotten, 2)
      yield* Effect.yieldNow
      assert.deepStrictEqual(messages.flat(), [
        "quota: 3 keys and tenants are remembered, and more count at once. Raise capacityOfKeys"
      ])
      // A minute later they count no more, so no other is forgotten while it counts.
      yield* TestClock.adjust("2 minutes")
      yield* Effect.forEach(["f", "g"], (tenant) => Effect.scoped(quota.reserve({ tenant })))
      assert.strictEqual((yield* quota.snapshot()).forgotten, 2)
    }))

  it.effect("after more calls at once than it remembers, a quota forgets the tenants of those that have ended", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({
        limits: [Quota.requestsPerMinute(1_000)],
        tenantLimits: [Quota.atOnce(1)],
        capacityOfKeys: 5
      })
      const use = (tenant: string) => Effect.flatMap(quota.reserve({ tenant }), ({ settle }) => settle({}))
      const calls = yield* Effect.forEach(
        Array.from({ length: 50 }, (_, n) => `a${n}`),
        (tenant) => quota.reserve({ tenant })
      )
      yield* Effect.forEach(calls, ({ settle }) => settle({}))
      yield* Effect.forEach(Array.from({ length: 50 }, (_, n) => `b${n}`), use)
      const { levels } = yield* quota.snapshot()
      assert.strictEqual(levels.filter(({ tenant }) => tenant !== undefined).length, 5)
    }))

  it("while all tenants count, most new ones examine only a few of them", () => {
    let reads = 0
    let counted = 1
    let now = 0
    const counter = { used: () => ++reads && counted, wait: () => 0, add: () => 0, change: () => 0 }
    const limits = [Quota.requestsPerMinute(1)]
    const settings = readQuota(new OptionsReader("Test"), { limits, tenantLimits: limits, capacityOfKeys: 500 })
    let forgotten = 0
    const accounts = new Accounts({
      settings,
      laneOf: (key) => key,
      counterOf: () => counter,
      now: () => now,
      onChange: () => {},
      onKey: () => {},
      onForgotten: () => forgotten++
    })
    for (let n = 0; n < 600; n++) accounts.use("key", `${n}`)
    assert.strictEqual(forgotten, 100)
    assert.isAtMost(reads, 500 + 100 * 32)
    // Later all are examined again.
    now = 2_000
    counted = 0
    accounts.use("key", "new")
    assert.strictEqual(forgotten, 100)
  })

  it.effect("a key that rests for a Retry-After is not forgotten before the rest is over", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(10, { capacityOfKeys: 2 })
      const rejected = yield* quota.reserve({ key: "rests" })
      yield* rejected.throttled("10 minutes")
      yield* TestClock.adjust("2 minutes")
      yield* Effect.forEach(["b", "c", "d"], (key) => quota.eligible({ key }))
      const exit = yield* Effect.exit(quota.tryReserve({ key: "rests" }))
      assert.deepStrictEqual(exceededIn(exit)?.retryAfter, Duration.minutes(8))
    }))

  it.effect("quotas that share a store keep one sum for a key, however many other keys the store sees", () =>
    Effect.gen(function*() {
      const store = yield* QuotaStore.makeMemory({ capacity: 2 })
      const make = (options: Partial<Quota.QuotaOptions>) =>
        Quota.make({ limits: [Quota.requestsPerMinute(2)], burst: 0, ...options }).pipe(
          Effect.provideService(QuotaStore.QuotaStore, store),
          Effect.orDie
        )
      const first = yield* make({})
      yield* first.eligible({ key: "account" })
      const other = yield* make({ capacityOfKeys: 1 })
      yield* Effect.forEach(["a", "b", "c", "d"], (key) => other.eligible({ key }))
      yield* first.tryReserve({ key: "account" })
      const second = yield* make({})
      yield* second.tryReserve({ key: "account" })
      assert.strictEqual(yield* usedOf(first, "requests", "account"), 2)
      assert.strictEqual(exceededIn(yield* Effect.exit(second.tryReserve({ key: "account" })))?.why, "Full")
    }))
})

describe("limits that move", () => {
  it.effect("setLimit admits waiting calls at once", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(1)
      yield* quota.reserve({})
      const waits = yield* fork(quota.reserve({}))
      yield* quota.setLimit("default", "requests", 2)
      yield* Fiber.join(waits)
      assert.match((yield* Effect.flip(quota.setLimit("default", "tokens", 2))).message, /must be the name/)
    }))

  it.effect("one burst of rejected calls lowers the limit once, and it rises again after a clean minute", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(100)
      const changes: Array<Quota.Change> = []
      yield* Effect.forkScoped(Stream.runForEach(quota.changes, (change) => Effect.sync(() => changes.push(change))), {
        startImmediately: true
      })
      const calls = yield* Effect.forEach(Array.from({ length: 50 }), () => quota.reserve({}))
      yield* TestClock.adjust("100 millis")
      yield* Effect.forEach(calls.slice(0, 10), (call) => call.throttled())
      assert.strictEqual((yield* quota.snapshot()).levels[0]?.limit, 49)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual((yield* quota.snapshot()).levels[0]?.limit, 51)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* quota.snapshot()).levels[0]?.limit, 100)
      yield* Effect.yieldNow
      assert.deepStrictEqual(changes.map(({ from, to, why }) => [from, to, why]), [[100, 49, "Throttled"], [
        49,
        100,
        "Recovered"
      ]])
    }))

  it.effect("changes tells of every burst and limit that moves, from what to what, and why", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.requestsPerMinute(600), Quota.requestsPerDay(10_000)] })
      const changes: Array<Quota.Change> = []
      yield* Effect.forkScoped(Stream.runForEach(quota.changes, (change) => Effect.sync(() => changes.push(change))), {
        startImmediately: true
      })
      const reject = Effect.scoped(Effect.gen(function*() {
        const calls = yield* Effect.forEach(Array.from({ length: 5 }), () => quota.reserve({}))
        yield* TestClock.adjust("1 second")
        yield* Effect.forEach(calls, (call) => call.throttled())
      }))
      yield* reject
      yield* TestClock.adjust("1 second")
      yield* reject
      const minute = { window: "1 minute" } as const
      yield* quota.setLimit("default", "requests", 300, minute)
      yield* quota.setLimit("default", "requests", 300, minute)
      yield* quota.setLimit("default", "requests", 8_000, { window: "1 day" })
      yield* Effect.yieldNow
      const ofMinute = { key: "default", dimension: "requests", windowMillis: 60_000 }
      assert.deepStrictEqual(changes, [
        { ...ofMinute, of: "burst", from: 10_000, to: 20_000, why: "Throttled" },
        { ...ofMinute, of: "burst", from: 20_000, to: 40_000, why: "Throttled" },
        { ...ofMinute, of: "limit", from: 600, to: 300, why: "Set" },
        { ...ofMinute, windowMillis: 86_400_000, of: "limit", from: 10_000, to: 8_000, why: "Set" }
      ])
    }))

  it.effect("setLimit of a name with two windows needs the window", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.requestsPerMinute(600), Quota.requestsPerDay(10_000)] })
      for (const options of [undefined, { window: "1 hour" } as const]) {
        const error = yield* Effect.flip(quota.setLimit("default", "requests", 300, options))
        assert.match(error.message, /window .*must be one of 1m, 1d/)
      }
      yield* quota.setLimit("default", "requests", 300, { window: "1 day" })
      assert.deepStrictEqual((yield* quota.snapshot()).levels.map(({ limit }) => limit), [600, 300])
    }))

  it.effect("without adapt a rejected call changes no limit", () =>
    Effect.gen(function*() {
      const quota = yield* perMinute(100, { adapt: false })
      const calls = yield* Effect.forEach(Array.from({ length: 50 }), () => quota.reserve({}))
      yield* Effect.forEach(calls, (call) => call.throttled())
      assert.strictEqual((yield* quota.snapshot()).levels[0]?.limit, 100)
    }))

  it.effect("a header of another window is ignored, and a lower limit is followed", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.tokensPerMinute(2_000_000)] })
      const limitNow = Effect.map(quota.snapshot(), ({ levels }) => levels[0]?.limit)
      const seen = { dimension: "tokens", sentAt: 0 }
      // The daily limit, in a header that a minute has too.
      const daily = { ...seen, limit: 1_500_000, remaining: 1_495_621, resetMillis: 252_170 }
      yield* quota.observe("default", [daily])
      assert.strictEqual(yield* limitNow, 2_000_000)
      yield* quota.observe("default", [{ ...seen, limit: 1_000_000, remaining: 500_000, resetMillis: 30_000 }])
      assert.strictEqual(yield* limitNow, 1_000_000)
      yield* quota.observe("default", [{ ...seen, limit: 9_000_000 }])
      assert.strictEqual(yield* limitNow, 2_000_000)
    }))

  it.effect("near zero, the remaining amount of the header and its refill limit calls", () =>
    Effect.gen(function*() {
      const quota = yield* makeQuota({ limits: [Quota.requestsPerMinute(600)], burst: "1 second" })
      yield* quota.observe("default", [{ dimension: "requests", remaining: 2, sentAt: 0 }])
      yield* TestClock.adjust("1 millis")
      yield* Effect.all([quota.tryReserve({}), quota.tryReserve({})])
      assert.strictEqual(exceededIn(yield* Effect.exit(quota.tryReserve({})))?.why, "Full")
      yield* TestClock.adjust("1 second")
      yield* Effect.forEach(Array.from({ length: 9 }), () => quota.tryReserve({}))
    }))
})
