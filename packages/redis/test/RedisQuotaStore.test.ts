import * as Quota from "@sluice/core/Quota"
import { QuotaStore } from "@sluice/core/QuotaStore"
import * as RedisQuotaStore from "@sluice/redis/RedisQuotaStore"
import * as QuotaStoreContract from "@sluice/testing/QuotaStoreContract"
import { assert } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Redis } from "effect/persistence"
import { describeWithRedis, Namespace } from "./support/redis.ts"
import { setBackRedis } from "./support/setBackRedis.ts"

const subject = Effect.gen(function*() {
  const { prefix } = yield* Namespace
  const { service, setBack } = yield* setBackRedis
  const store = yield* RedisQuotaStore.make({ prefix }).pipe(
    Effect.provideService(Redis.Redis, service),
    Effect.orDie
  )
  return { store, sleep: (millis: number) => Effect.sleep(millis), setBack }
})

const ask = { scope: "all", dimension: "requests", limit: 5, windowMillis: 60_000, quantumMillis: 1_000, amount: 1 }

await describeWithRedis("contract of the quota store on Redis", (it) => {
  for (const { name, run } of QuotaStoreContract.checks) it.effect(name, () => Effect.flatMap(subject, run))
  it.effect("the store answers random requests like the reference store", () =>
    Effect.flatMap(subject, QuotaStoreContract.compare))
})

await describeWithRedis("RedisQuotaStore", (it) => {
  it.effect("every key has an expiry, and is in the slot of its target", () =>
    Effect.gen(function*() {
      const { store } = yield* subject
      const { keys, prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      yield* store.reserve({ target: "expiry", id: "a", leaseMillis: 1_000, guardMillis: 0, asks: [ask] })
      const found = yield* keys("quota:{expiry}")
      assert.deepStrictEqual(found, ["quota:{expiry}", "quota:{expiry}:holds", "quota:{expiry}:leases"])
      for (const key of found) assert.isAbove(Number(yield* redis.send("PTTL", prefix + key)), 0)
    }))

  it.effect("an ask that is no whole number is refused before it is sent", () =>
    Effect.gen(function*() {
      const { store } = yield* subject
      const request = { target: "invalid", id: "a", leaseMillis: 1_000, guardMillis: 0 }
      for (const wrong of [{ amount: 1.5 }, { amount: -1 }, { amount: Number.NaN }, { quantumMillis: 0 }]) {
        const error = yield* Effect.flip(store.reserve({ ...request, asks: [{ ...ask, ...wrong }] }))
        assert.match(error.message, /an ask is invalid/)
      }
    }))

  it.effect("after the clock is set forward windows are empty, and settlements of earlier calls change no sum", () =>
    Effect.gen(function*() {
      const { setBack, store } = yield* subject
      const request = { target: "forward", leaseMillis: 7_200_000, guardMillis: 0, asks: [ask] }
      const used = Effect.suspend(() =>
        Effect.map(store.read({ target: "forward", scopes: ["all"] }), ([level]) => level?.used)
      )
      yield* store.reserve({ ...request, id: "a" })
      yield* setBack(-3_600_000)
      assert.strictEqual(yield* used, 0)
      yield* store.settle({ target: "forward", id: "a", actual: [{ scope: "all", dimension: "requests", amount: 0 }] })
      assert.strictEqual(yield* used, 0)
      yield* store.reserve({ ...request, id: "b" })
      // When the clock is right again, time continues from the latest.
      yield* setBack(3_600_000)
      assert.strictEqual(yield* used, 1)
      assert.strictEqual((yield* store.reserve({ ...request, id: "c" })).used[0], 2)
    }))

  it.effect("a prefix with braces is refused", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(RedisQuotaStore.make({ prefix: "{a}" }))
      assert.match(error.message, /without braces/)
    }))

  it.effect("two quotas of one account keep its limits together", () =>
    Effect.gen(function*() {
      const { store } = yield* subject
      const make = Effect.provideService(
        Quota.make({ limits: [Quota.requestsPerMinute(20), Quota.atOnce(4)], burst: 0, maxWait: "10 seconds" }),
        QuotaStore,
        store
      )
      const quotas = [yield* make, yield* make]
      let atOnce = 0
      let most = 0
      const call = Effect.acquireUseRelease(
        Effect.sync(() => {
          most = Math.max(most, ++atOnce)
        }),
        () => Effect.sleep("5 millis"),
        () => Effect.sync(() => atOnce--)
      )
      const fibers = yield* Effect.forEach(Array.from({ length: 60 }), (_, n) =>
        Effect.forkChild(Effect.exit(quotas[n % 2]!.withQuota({ key: "account", usage: () => ({}) })(call))))
      const exits = yield* Effect.forEach(fibers, Fiber.join)
      assert.strictEqual(
        exits.filter(({ _tag }) =>
          _tag === "Success"
        ).length,
        20
      )
      assert.isAtMost(most, 4)
    }))
})
