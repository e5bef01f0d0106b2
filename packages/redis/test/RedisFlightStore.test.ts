import * as RedisFlightStore from "@sluice/redis/RedisFlightStore"
import * as FlightStoreContract from "@sluice/testing/FlightStoreContract"
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import { describeWithCluster, describeWithRedis, Namespace } from "./support/redis.ts"
import { setBackRedis } from "./support/setBackRedis.ts"

const subject = Effect.gen(function*() {
  const { prefix } = yield* Namespace
  const { service, setBack } = yield* setBackRedis
  const store = yield* RedisFlightStore.make({ prefix }).pipe(
    Effect.provideService(Redis.Redis, service),
    Effect.orDie
  )
  return { store, sleep: (millis: number) => Effect.sleep(millis), setBack }
})

await describeWithRedis("contract of the flight store on Redis", (it) => {
  for (const { name, run } of FlightStoreContract.checks) it.effect(name, () => Effect.flatMap(subject, run))
  it.effect("the store answers random commands like the reference store", () =>
    Effect.flatMap(subject, FlightStoreContract.compare))
})

await describeWithCluster("contract of the flight store on a cluster of Redis", (it) => {
  for (const { name, run } of FlightStoreContract.checks) it.effect(name, () => Effect.flatMap(subject, run))
  it.effect("the store answers random commands like the reference store", () =>
    Effect.flatMap(subject, FlightStoreContract.compare))
})

const flight = (key: string) => ({ key, operation: "an operation", tenant: "a tenant", id: "a" })

await describeWithRedis("RedisFlightStore", (it) => {
  it.effect("every key has an expiry, of the lease or of the result", () =>
    Effect.gen(function*() {
      const { store } = yield* subject
      const { keys, prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      const ttl = (key: string) => Effect.map(redis.send("PTTL", prefix + key), Number)
      yield* store.claim({ ...flight("expiry"), leaseMillis: 10_000 })
      const found = yield* keys("flight")
      assert.deepStrictEqual(found, [
        "flight:{expiry}",
        "flights:operation:{an!0020operation}",
        "flights:tenant:{a!0020tenant}"
      ])
      for (const key of found) assert.isAbove(yield* ttl(key), 0)
      assert.isAtMost(yield* ttl("flight:{expiry}"), 70_000)
      const day = 86_400_000
      yield* store.complete({ ...flight("expiry"), result: "42", freshMillis: day, keepMillis: 10_000 })
      // A purge finds the result for as long as it is there.
      for (const key of found) assert.isAbove(yield* ttl(key), day - 1_000)
      for (const key of found) assert.isAtMost(yield* ttl(key), day + 61_000)
    }))

  it.effect("a purge of 2,500 entries deletes them all, and the list", () =>
    Effect.gen(function*() {
      const { store } = yield* subject
      const { keys } = yield* Namespace
      const many = Array.from({ length: 2_500 }, (_, nth) => ({ ...flight(`many${nth}`), tenant: "many" }))
      yield* Effect.forEach(many, (one) => store.claim({ ...one, leaseMillis: 10_000 }), {
        concurrency: 100,
        discard: true
      })
      assert.strictEqual(yield* store.purge({ by: "tenant", hash: "many" }), 2_500)
      assert.deepStrictEqual(yield* keys("flight:{many"), [])
      assert.deepStrictEqual(yield* keys("flights:tenant:{many}"), [])
    }))

  it.effect("a duration that is no number is refused before it is sent", () =>
    Effect.gen(function*() {
      const { store } = yield* subject
      const claim = yield* Effect.flip(store.claim({ ...flight("nan"), leaseMillis: Number.NaN }))
      assert.match(claim.message, /leaseMillis is invalid/)
      const request = { ...flight("nan"), result: "", freshMillis: -1, keepMillis: 0 }
      assert.match((yield* Effect.flip(store.complete(request))).message, /a duration is invalid/)
    }))
})
