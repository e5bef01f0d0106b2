import { assert } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import { circuitOf, closed, forced, hour, open, window } from "./support/circuit.ts"
import { describeWithRedis, Namespace } from "./support/redis.ts"

await describeWithRedis("list and its index", (it) => {
  const setUp = Effect.gen(function*() {
    const { prefix } = yield* Namespace
    const redis = yield* Redis.Redis
    const store = yield* CircuitBreakerStore
    // Circuits of one prefix share the index, so each test empties it.
    yield* redis.send("UNLINK", `${prefix}circuits:{index}`, `${prefix}circuits:{index}:times`)
    const byKey = `${prefix}circuits:{index}`
    const listed = (limit = 100, after?: string) =>
      Effect.map(store.list({ window, limit, after }), (page) => page.map(({ key }) => key))
    return {
      store,
      redis,
      byKey,
      byTime: `${byKey}:times`,
      listed,
      control: (key: string) => `${prefix}circuit:{${key}}`,
      members: redis.send<Array<string>>("ZRANGE", byKey, "0", "-1")
    }
  })

  it.effect("a read, a refused lease and a lost transition add nothing to the index", () =>
    Effect.gen(function*() {
      const { members, store } = yield* setUp
      const { lease, move, read, record } = circuitOf(store, "nothing")
      yield* read
      yield* lease(1, "probe")
      yield* record(1, "X", "probe")
      yield* move(1, closed)
      assert.deepStrictEqual(yield* members, [])
    }))

  it.effect("a lost entry comes back after an hour of use, or with the next transition", () =>
    Effect.gen(function*() {
      const { byKey, byTime, control, listed, redis, store } = yield* setUp
      const { move, read, record } = circuitOf(store, "lost")
      yield* record(0, "X")
      yield* redis.send("UNLINK", byKey, byTime)
      yield* record(0, "X")
      assert.deepStrictEqual(yield* listed(), [])
      const anHourAgo = (yield* read).now - hour
      yield* redis.send("HSET", control("lost"), "listed", String(anHourAgo))
      yield* record(0, "X")
      assert.deepStrictEqual(yield* listed(), ["lost"])

      yield* redis.send("UNLINK", byKey, byTime)
      yield* move((yield* read).generation, open(hour))
      assert.deepStrictEqual(yield* listed(), ["lost"])
    }))

  it.effect("list skips expired circuits and still fills its pages", () =>
    Effect.gen(function*() {
      const { control, listed, redis, store } = yield* setUp
      const keys = Array.from({ length: 250 }, (_, nth) => `removed/${1000 + nth}`)
      yield* Effect.forEach(keys, (key) => circuitOf(store, key).record(0, "X"), { concurrency: "unbounded" })
      const expired = keys.filter((_, nth) => nth % 2 === 0 || nth < 150)
      yield* Effect.forEach(expired, (key) => redis.send("UNLINK", control(key)), { concurrency: "unbounded" })
      const left = keys.filter((key) => !expired.includes(key))
      assert.deepStrictEqual(yield* listed(10), left.slice(0, 10))
      assert.deepStrictEqual(yield* listed(10, left[9]), left.slice(10, 20))
      assert.deepStrictEqual(yield* listed(1_000), left)
      assert.deepStrictEqual(yield* listed(1_000, left[48]), left.slice(49))
    }))

  it.effect("list returns limit circuits, also if it has to read several pages of the index", () =>
    Effect.gen(function*() {
      const { listed, store } = yield* setUp
      const keys = Array.from({ length: 205 }, (_, nth) => `many/${1000 + nth}`)
      yield* Effect.forEach(keys, (key) => circuitOf(store, key).record(0, "X"), { concurrency: "unbounded" })
      for (const limit of [0, 1, 99, 100, 101, 200, 205]) {
        assert.deepStrictEqual(yield* listed(limit), keys.slice(0, limit))
      }
      assert.deepStrictEqual(yield* listed(Number.POSITIVE_INFINITY), keys)
      for (const limit of [-1, Number.NaN]) assert.deepStrictEqual(yield* listed(limit), [])
    }))

  it.effect("adding a circuit removes up to a hundred expired entries", () =>
    Effect.gen(function*() {
      const { byTime, members, redis, store } = yield* setUp
      const keys = Array.from({ length: 150 }, (_, nth) => `expired/${1000 + nth}`)
      yield* Effect.forEach(keys, (key) => circuitOf(store, key).record(0, "X"), { concurrency: "unbounded" })
      // Expired.
      yield* Effect.forEach(keys, (key) => redis.send("ZADD", byTime, "1", key), { concurrency: "unbounded" })
      yield* circuitOf(store, "new").record(0, "X")
      assert.strictEqual((yield* members).length, 51)
      yield* circuitOf(store, "newer").record(0, "X")
      assert.deepStrictEqual(yield* members, ["new", "newer"])
      assert.strictEqual(yield* redis.send("ZCARD", byTime), 2)
    }))

  it.effect("an entry outlives its circuit by an hour, and the index expires with its last entry", () =>
    Effect.gen(function*() {
      const { byKey, byTime, control, redis, store } = yield* setUp
      const check = Effect.fnUntraced(function*(key: string, indexTtl: number) {
        const { now } = yield* circuitOf(store, key).read
        const kept = yield* redis.send<number>("PTTL", control(key))
        const listedUntil = Number(yield* redis.send("ZSCORE", byTime, key))
        assert.approximately(listedUntil - now, kept + hour, 5_000)
        assert.approximately(yield* redis.send<number>("PTTL", byKey), indexTtl, 5_000)
        assert.approximately(yield* redis.send<number>("PTTL", byTime), indexTtl, 5_000)
      })
      yield* circuitOf(store, "one").record(0, "X")
      yield* check("one", 2 * hour)
      const { snapshot } = yield* circuitOf(store, "two").move(0, open(5 * hour))
      yield* check("two", 7 * hour)
      yield* circuitOf(store, "three").record(0, "X")
      yield* check("three", 7 * hour)
      // Its entry expires sooner now.
      yield* circuitOf(store, "two").move(snapshot.generation, closed, "closes")
      yield* check("two", 2 * hour)
      yield* circuitOf(store, "four").move(0, forced("ForcedOpen"))
      yield* check("four", 365 * 24 * hour + hour)
    }))
})
