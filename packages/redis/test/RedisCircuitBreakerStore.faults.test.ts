import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe, it as unit } from "@effect/vitest"
import { CircuitBreakerStore, StoreError } from "@sluice/core/CircuitBreakerStore"
import * as RedisCircuitBreakerStore from "@sluice/redis/RedisCircuitBreakerStore"
import { Effect, Layer, Logger } from "effect"
import { Redis } from "effect/persistence"
import { circuitOf, closed, forced, open, window } from "./support/circuit.ts"
import { describeWithRedis, Namespace, ownServer } from "./support/redis.ts"

type Store = CircuitBreakerStore["Service"]

const verbs = (store: Store, key: string): { readonly [verb: string]: Effect.Effect<unknown, StoreError> } => {
  const { lease, move, read, record } = circuitOf(store, key)
  return {
    read,
    lease: lease(1, "probe"),
    record: record(0, "X"),
    "record with a lease": record(1, "X", "probe"),
    transition: move(0, closed)
  }
}

const isStoreError = (error: unknown) => {
  assert.instanceOf(error, StoreError)
  return error
}

await describeWithRedis("a store that finds what it did not put there", (it) => {
  const around = Effect.gen(function*() {
    const { keys, prefix } = yield* Namespace
    const redis = yield* Redis.Redis
    const unlimited = Effect.gen(function*() {
      const ends = yield* Effect.forEach(yield* keys(), (key) => redis.send<number>("PTTL", prefix + key))
      return ends.filter((end) => end === -1).length
    })
    return { redis, prefix, store: yield* CircuitBreakerStore, unlimited }
  })

  const places = ["", ":leases", `:seen:${window.calls}/${window.bucketMillis}x${window.buckets}`]
  for (const place of places) {
    it.effect(`tells of a value of another type at circuit:{...}${place}`, () =>
      Effect.gen(function*() {
        const { prefix, redis, store, unlimited } = yield* around
        for (const verb of Object.keys(verbs(store, ""))) {
          const key = `type/${verb.replaceAll(" ", "-")}${place.length}`
          const name = `${prefix}circuit:{${key}}${place}`
          yield* redis.send("RPUSH", name, "not ours")
          const exit = yield* Effect.result(verbs(store, key)[verb] ?? Effect.void)
          // It may do without what it need not read, or take its place.
          if (exit._tag === "Failure") {
            assert.strictEqual(isStoreError(exit.failure).description, "Redis answered WRONGTYPE")
          } else {
            assert.strictEqual(`${verb}${place}`, `transition${places[2]}`)
          }
          yield* redis.send("UNLINK", name)
          assert.strictEqual(yield* unlimited, 0, `${verb} leaves something for ever`)
        }
      }))
  }

  const circuits: { readonly [what: string]: ReadonlyArray<string> } = {
    "a generation that is none": ["generation", "abc"],
    "a generation with a sign": ["generation", "-1"],
    "a generation in another notation": ["generation", "1e15"],
    "a generation that is too large": ["generation", "99999999999999999"],
    "a time that is none": ["since", "yesterday"],
    "an end that is none": ["until", "NaN"],
    "no target": ["target", ""],
    "a target that is not JSON": ["target", "{\"_tag\":"],
    "a target of no kind that is known": ["target", "{\"_tag\":\"HalfOpen\"}"],
    "a target without what it must have": ["target", "{\"_tag\":\"Open\",\"forMillis\":1}"],
    "a target with a time that is too long": ["target", JSON.stringify({ ...closed, rampMillis: 1e300 })],
    "a mode that is none": ["target", JSON.stringify({ ...forced("ForcedOpen"), mode: "toString" })],
    "evidence that is none": ["ring", "Z"],
    "a bucket of too few": ["1795247177756", "1 2"],
    "a bucket that is none": ["1795247177756", "many 2 3"],
    "a field that is none": ["__proto__", "1 2 3"]
  }
  for (const [what, [field = "", value = ""]] of Object.entries(circuits)) {
    it.effect(`tells of ${what}, and no defect`, () =>
      Effect.gen(function*() {
        const { prefix, redis, store } = yield* around
        const { read, record } = circuitOf(store, field)
        yield* record(0, "X")
        const isControl = ["generation", "since", "until", "target"].includes(field)
        const name = `${prefix}circuit:{${field}}${isControl ? "" : places[2]}`
        yield* redis.send("HSET", name, field, value)
        const asks: ReadonlyArray<Effect.Effect<unknown, StoreError>> = [read, record(0, "0")]
        for (const ask of asks) {
          const error = isStoreError(yield* Effect.flip(ask))
          assert.match(error.description, /^(Redis gave an answer that makes no sense|Redis answered ERR)$/)
        }
        yield* redis.send("UNLINK", name, `${prefix}circuit:{${field}}`)
      }))
  }

  it.effect("tells of an index that makes no sense", () =>
    Effect.gen(function*() {
      const { prefix, redis, store } = yield* around
      const list = store.list({ window, limit: 10 })
      yield* redis.send("ZADD", `${prefix}circuits:{index}`, "0", "not a key of ours {")
      const nonsense = isStoreError(yield* Effect.flip(list))
      assert.strictEqual(nonsense.message, "store: list failed: the index of circuits makes no sense")
      yield* redis.send("SET", `${prefix}circuits:{index}`, "not an index")
      assert.strictEqual(isStoreError(yield* Effect.flip(list)).description, "Redis answered WRONGTYPE")
      // A circuit is more than its place in the index.
      assert.isTrue((yield* circuitOf(store, "without index").record(0, "X")).ok)
      yield* redis.send("UNLINK", `${prefix}circuits:{index}`)
    }))

  it.effect("refuses a wish that cannot be kept, and keeps nothing of it", () =>
    Effect.gen(function*() {
      const { store } = yield* around
      const { move, read } = circuitOf(store, "wish")
      const wishes = [
        open(Number.POSITIVE_INFINITY),
        open(Number.NaN),
        open(1e300),
        open(-1),
        open(1, Number.NaN),
        { ...closed, openings: Number.NaN },
        forced("Disabled", Number.POSITIVE_INFINITY)
      ]
      for (const wish of wishes) {
        assert.strictEqual(isStoreError(yield* Effect.flip(move(0, wish))).operation, "transition")
        assert.strictEqual((yield* read).generation, 0)
      }
    }))

  it.effect("does not keep a lease for ever that is wished so", () =>
    Effect.gen(function*() {
      const { store, unlimited } = yield* around
      const { lease, move } = circuitOf(store, "endless")
      const { snapshot: { generation } } = yield* move(0, open(0))
      yield* Effect.result(lease(generation, "one", Number.POSITIVE_INFINITY, 9))
      yield* Effect.result(lease(generation, "two", Number.NaN, 9))
      yield* Effect.result(lease(generation, "three", -1, 9))
      assert.strictEqual(yield* unlimited, 0)
    }))
})

const secret = "sluice:circuit:{a secret key}"

const storeOn = (redis: Partial<Redis.Redis["Service"]>) =>
  RedisCircuitBreakerStore.make().pipe(
    Effect.provideService(Redis.Redis, {
      send: () => Effect.never,
      eval: () => () => Effect.never,
      subscribe: () => Effect.never,
      reserve: Effect.never,
      ...redis
    })
  )

describe("a store that is answered nonsense", () => {
  // The first is what Redis says while somebody's MULTI is open on the same connection.
  const replies = ["QUEUED", "OK", null, undefined, 0, [], [1], {}, [[]], Array.from({ length: 7 }, () => null)]
  for (const [nth, reply] of replies.entries()) {
    unit.effect(`says so, whatever the verb (${nth + 1}: ${JSON.stringify(reply)})`, () =>
      Effect.gen(function*() {
        const store = yield* storeOn({
          // What a server says is not typed.
          eval: () => () => Effect.succeed(reply as never),
          send: () => Effect.succeed(reply as never)
        })
        for (const [verb, ask] of Object.entries(verbs(store, "a"))) {
          const error = isStoreError(yield* Effect.flip(ask))
          assert.strictEqual(error.operation, verb.split(" ")[0])
          assert.strictEqual(error.description, "Redis gave an answer that makes no sense")
        }
        if (Array.isArray(reply) && reply.length === 0) {
          assert.deepStrictEqual(yield* store.list({ window, limit: 1 }), [])
        } else {
          assert.strictEqual(isStoreError(yield* Effect.flip(store.list({ window, limit: 1 }))).operation, "list")
        }
      }))
  }
})

describe("a store whose Redis fails", () => {
  unit.effect("says what it was, and neither the key nor the address", () =>
    Effect.gen(function*() {
      const cause = Object.assign(new Error(`redis://me:password@10.0.0.1 ${secret}`), { code: "ECONNRESET" })
      const fails = Effect.fail(new Redis.RedisError({ cause }))
      const store = yield* storeOn({ eval: () => () => fails, send: () => fails })
      const asks = { ...verbs(store, secret), list: store.list({ window, limit: 1 }) }
      for (const [verb, ask] of Object.entries(asks)) {
        const error = isStoreError(yield* Effect.flip(ask))
        assert.strictEqual(
          error.message,
          `store: ${verb.split(" ")[0]} failed: Redis could not be asked (ECONNRESET)`
        )
        assert.notMatch(
          `${JSON.stringify(error)} ${String(error.stack)} ${String(error.cause)}`,
          /secret|password|10\.0/
        )
      }
    }))

  unit.effect("answers what it was asked although the index could not be told", () =>
    Effect.gen(function*() {
      const now = 1_795_247_177_756
      const target = JSON.stringify(closed)
      const made = [1, 3_600_000, now, 0, 0, ["1", "0", "0", "", target], "generation 1 ring X"]
      let asked = 0
      const store = yield* storeOn({
        // The first script is the verb's.
        eval: () => () =>
          Effect.suspend(() =>
            asked++ === 0
              ? Effect.succeed(made as never)
              : Effect.fail(new Redis.RedisError({ cause: new Error("READONLY") }))
          )
      })
      const { ok, snapshot } = yield* circuitOf(store, "a").record(0, "X")
      assert.deepStrictEqual([ok, snapshot.evidence.ring, asked], [true, "X", 2])
    }))
})

await describeWithRedis("a store on a connection on which somebody has begun a MULTI", (it) => {
  it.effect("fails until that is over", () =>
    Effect.gen(function*() {
      const { prefix, url } = yield* Namespace
      const store = RedisCircuitBreakerStore.layer({ prefix }).pipe(
        Layer.provideMerge(Layer.fresh(NodeRedis.layer({ url })))
      )
      yield* Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const { read, record } = circuitOf(yield* CircuitBreakerStore, "multi")
        yield* redis.send("MULTI")
        for (const ask of [record(0, "X"), record(0, "X")]) isStoreError(yield* Effect.flip(ask))
        yield* redis.send("DISCARD")
        assert.strictEqual((yield* read).generation, 0)
        assert.strictEqual((yield* record(0, "0")).snapshot.evidence.ring, "0")
      }).pipe(Effect.provide(store))
    }))
})

await describeWithRedis("a store whose Redis goes away", (it) => {
  it.effect("fails at once, where the client keeps no queue", () =>
    Effect.gen(function*() {
      const server = yield* ownServer
      if (server === undefined) return
      // Effect's client warns of what is meant to happen here.
      const connection = NodeRedis.layer({ url: server.url, disableOfflineQueue: true }).pipe(
        Layer.provide(Logger.layer([]))
      )
      yield* Effect.gen(function*() {
        const { read, record } = circuitOf(yield* CircuitBreakerStore, "away")
        yield* record(0, "X")
        server.stop()
        // It may take the socket a moment to notice.
        for (let tries = 0; tries < 200 && (yield* Effect.result(read))._tag === "Success"; tries++) {
          yield* Effect.sleep(5)
        }
        const began = performance.now()
        const error = isStoreError(yield* Effect.flip(record(0, "X")))
        assert.match(error.description, /^Redis could not be asked \(\w+\)$/)
        assert.isBelow(performance.now() - began, 1_000)
      }).pipe(Effect.provide(RedisCircuitBreakerStore.layer().pipe(Layer.provide(connection))))
    }))
})
