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

const asStoreError = (error: unknown) => {
  assert.instanceOf(error, StoreError)
  return error
}

await describeWithRedis("invalid data in Redis", (it) => {
  const setUp = Effect.gen(function*() {
    const { keys, prefix } = yield* Namespace
    const redis = yield* Redis.Redis
    const keysWithoutExpiry = Effect.gen(function*() {
      const ttls = yield* Effect.forEach(yield* keys(), (key) => redis.send<number>("PTTL", prefix + key))
      return ttls.filter((ttl) => ttl === -1).length
    })
    return { redis, prefix, store: yield* CircuitBreakerStore, keysWithoutExpiry }
  })

  const suffixes = ["", ":leases", `:seen:${window.calls}/${window.bucketMillis}x${window.buckets}`]
  for (const suffix of suffixes) {
    it.effect(`a value of another type at circuit:{...}${suffix} is a StoreError`, () =>
      Effect.gen(function*() {
        const { prefix, redis, store, keysWithoutExpiry } = yield* setUp
        for (const verb of Object.keys(verbs(store, ""))) {
          const key = `type/${verb.replaceAll(" ", "-")}${suffix.length}`
          const name = `${prefix}circuit:{${key}}${suffix}`
          yield* redis.send("RPUSH", name, "another type")
          const exit = yield* Effect.result(verbs(store, key)[verb] ?? Effect.void)
          // A transition deletes the evidence without reading it.
          if (exit._tag === "Failure") {
            assert.strictEqual(asStoreError(exit.failure).description, "Redis answered WRONGTYPE")
          } else {
            assert.strictEqual(`${verb}${suffix}`, `transition${suffixes[2]}`)
          }
          yield* redis.send("UNLINK", name)
          assert.strictEqual(yield* keysWithoutExpiry, 0, `${verb} leaves a key without an expiry`)
        }
      }))
  }

  const invalidFields: { readonly [description: string]: readonly [field: string, value: string] } = {
    "a generation that is not a number": ["generation", "abc"],
    "a generation with a sign": ["generation", "-1"],
    "a generation with an exponent": ["generation", "1e15"],
    "a generation that is too large": ["generation", "99999999999999999"],
    "a since that is not a number": ["since", "yesterday"],
    "an until of NaN": ["until", "NaN"],
    "an empty target": ["target", ""],
    "a target that is not JSON": ["target", "{\"_tag\":"],
    "a target with an unknown tag": ["target", "{\"_tag\":\"HalfOpen\"}"],
    "a target with missing fields": ["target", "{\"_tag\":\"Open\",\"forMillis\":1}"],
    "a target with a duration that is too long": ["target", JSON.stringify({ ...closed, rampMillis: 1e300 })],
    "an unknown mode": ["target", JSON.stringify({ ...forced("ForcedOpen"), mode: "toString" })],
    "an invalid sample": ["ring", "Z"],
    "a bucket with too few counts": ["1795247177756", "1 2"],
    "a bucket with a count that is not a number": ["1795247177756", "many 2 3"],
    "a field that is not a time": ["__proto__", "1 2 3"]
  }
  for (const [description, [field, value]] of Object.entries(invalidFields)) {
    it.effect(`${description} is a StoreError`, () =>
      Effect.gen(function*() {
        const { prefix, redis, store } = yield* setUp
        const { read, record } = circuitOf(store, field)
        yield* record(0, "X")
        const isControl = ["generation", "since", "until", "target"].includes(field)
        const name = `${prefix}circuit:{${field}}${isControl ? "" : suffixes[2]}`
        yield* redis.send("HSET", name, field, value)
        const requests: ReadonlyArray<Effect.Effect<unknown, StoreError>> = [read, record(0, "0")]
        for (const request of requests) {
          const error = asStoreError(yield* Effect.flip(request))
          assert.match(error.description, /^(Redis returned an invalid reply|Redis answered ERR)$/)
        }
        yield* redis.send("UNLINK", name, `${prefix}circuit:{${field}}`)
      }))
  }

  it.effect("an invalid index fails list with a StoreError, and no other verb", () =>
    Effect.gen(function*() {
      const { prefix, redis, store } = yield* setUp
      const list = store.list({ window, limit: 10 })
      yield* redis.send("ZADD", `${prefix}circuits:{index}`, "0", "not an encoded key {")
      const invalid = asStoreError(yield* Effect.flip(list))
      assert.strictEqual(invalid.message, "store: list failed: the index of circuits is invalid")
      yield* redis.send("SET", `${prefix}circuits:{index}`, "not an index")
      assert.strictEqual(asStoreError(yield* Effect.flip(list)).description, "Redis answered WRONGTYPE")
      assert.isTrue((yield* circuitOf(store, "without index").record(0, "X")).ok)
      yield* redis.send("UNLINK", `${prefix}circuits:{index}`)
    }))

  it.effect("a transition to a target that cannot be stored is refused, and nothing is written", () =>
    Effect.gen(function*() {
      const { store } = yield* setUp
      const { move, read } = circuitOf(store, "target")
      const targets = [
        open(Number.POSITIVE_INFINITY),
        open(Number.NaN),
        open(1e300),
        open(-1),
        open(1, Number.NaN),
        { ...closed, openings: Number.NaN },
        forced("Disabled", Number.POSITIVE_INFINITY)
      ]
      for (const target of targets) {
        assert.strictEqual(asStoreError(yield* Effect.flip(move(0, target))).operation, "transition")
        assert.strictEqual((yield* read).generation, 0)
      }
    }))

  it.effect("a lease expires, also one with an invalid ttlMillis", () =>
    Effect.gen(function*() {
      const { store, keysWithoutExpiry } = yield* setUp
      const { lease, move } = circuitOf(store, "endless")
      const { snapshot: { generation } } = yield* move(0, open(0))
      yield* Effect.result(lease(generation, "one", Number.POSITIVE_INFINITY, 9))
      yield* Effect.result(lease(generation, "two", Number.NaN, 9))
      yield* Effect.result(lease(generation, "three", -1, 9))
      assert.strictEqual(yield* keysWithoutExpiry, 0)
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

describe("invalid replies", () => {
  // `QUEUED` is the reply while a MULTI is open on the same connection.
  const replies = ["QUEUED", "OK", null, undefined, 0, [], [1], {}, [[]], Array.from({ length: 7 }, () => null)]
  for (const [nth, reply] of replies.entries()) {
    unit.effect(
      `every verb fails with a StoreError for reply ${nth + 1}: ${JSON.stringify(reply)}`,
      () =>
        Effect.gen(function*() {
          const store = yield* storeOn({
            // Replies of a server are not typed.
            eval: () => () => Effect.succeed(reply as never),
            send: () => Effect.succeed(reply as never)
          })
          for (const [verb, request] of Object.entries(verbs(store, "a"))) {
            const error = asStoreError(yield* Effect.flip(request))
            assert.strictEqual(error.operation, verb.split(" ")[0])
            assert.strictEqual(error.description, "Redis returned an invalid reply")
          }
          if (Array.isArray(reply) && reply.length === 0) {
            assert.deepStrictEqual(yield* store.list({ window, limit: 1 }), [])
          } else {
            assert.strictEqual(asStoreError(yield* Effect.flip(store.list({ window, limit: 1 }))).operation, "list")
          }
        })
    )
  }
})

describe("a Redis that fails", () => {
  unit.effect(
    "a StoreError contains the code of the error, and neither the key nor the address",
    () =>
      Effect.gen(function*() {
        const cause = Object.assign(new Error(`redis://me:password@10.0.0.1 ${secret}`), { code: "ECONNRESET" })
        const fails = Effect.fail(new Redis.RedisError({ cause }))
        const store = yield* storeOn({ eval: () => () => fails, send: () => fails })
        const requests = { ...verbs(store, secret), list: store.list({ window, limit: 1 }) }
        for (const [verb, request] of Object.entries(requests)) {
          const error = asStoreError(yield* Effect.flip(request))
          assert.strictEqual(
            error.message,
            `store: ${verb.split(" ")[0]} failed: Redis request failed (ECONNRESET)`
          )
          assert.notMatch(
            `${JSON.stringify(error)} ${String(error.stack)} ${String(error.cause)}`,
            /secret|password|10\.0/
          )
        }
      })
  )

  unit.effect("a verb succeeds although the update of the index failed", () =>
    Effect.gen(function*() {
      const now = 1_795_247_177_756
      const target = JSON.stringify(closed)
      const reply = [1, 3_600_000, now, 0, 0, ["1", "0", "0", "", target], "generation 1 ring X"]
      let requests = 0
      const store = yield* storeOn({
        // The first script is the verb's.
        eval: () => () =>
          Effect.suspend(() =>
            requests++ === 0
              ? Effect.succeed(reply as never)
              : Effect.fail(new Redis.RedisError({ cause: new Error("READONLY") }))
          )
      })
      const { ok, snapshot } = yield* circuitOf(store, "a").record(0, "X")
      assert.deepStrictEqual([ok, snapshot.evidence.ring, requests], [true, "X", 2])
    }))
})

await describeWithRedis("a MULTI on the connection of the store", (it) => {
  it.effect("verbs fail until the MULTI ends", () =>
    Effect.gen(function*() {
      const { prefix, url } = yield* Namespace
      const store = RedisCircuitBreakerStore.layer({ prefix }).pipe(
        Layer.provideMerge(Layer.fresh(NodeRedis.layer({ url })))
      )
      yield* Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const { read, record } = circuitOf(yield* CircuitBreakerStore, "multi")
        yield* redis.send("MULTI")
        for (const request of [record(0, "X"), record(0, "X")]) asStoreError(yield* Effect.flip(request))
        yield* redis.send("DISCARD")
        assert.strictEqual((yield* read).generation, 0)
        assert.strictEqual((yield* record(0, "0")).snapshot.evidence.ring, "0")
      }).pipe(Effect.provide(store))
    }))
})

await describeWithRedis("a Redis that stops", (it) => {
  it.effect("a verb fails instead of waiting, if the client has no offline queue", () =>
    Effect.gen(function*() {
      const server = yield* ownServer
      if (server === undefined) return
      // Without the warnings of Effect's client.
      const connection = NodeRedis.layer({ url: server.url, disableOfflineQueue: true }).pipe(
        Layer.provide(Logger.layer([]))
      )
      yield* Effect.gen(function*() {
        const { read, record } = circuitOf(yield* CircuitBreakerStore, "stopped")
        yield* record(0, "X")
        server.stop()
        // The client notices the closed socket after a moment.
        for (let tries = 0; tries < 2_000 && (yield* Effect.result(read))._tag === "Success"; tries++) {
          yield* Effect.sleep(5)
        }
        const error = asStoreError(yield* Effect.flip(record(0, "X")))
        assert.match(error.description, /^Redis request failed \(\w+\)$/)
      }).pipe(Effect.provide(RedisCircuitBreakerStore.layer().pipe(Layer.provide(connection))))
    }))
})
