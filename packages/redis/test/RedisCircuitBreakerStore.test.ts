import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe, it } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import * as RedisCircuitBreakerStore from "@sluice/redis/RedisCircuitBreakerStore"
import { everywhere } from "@sluice/testing/InterruptionProbe"
import { Context, Duration, Effect, Layer } from "effect"
import { Redis } from "effect/persistence"
import { circuitOf, closed, open } from "./support/circuit.ts"
import { countingRedis } from "./support/counting.ts"
import { describeWithRedis, Namespace, ownServer } from "./support/redis.ts"

const concurrently = <A, E, R>(times: number, run: (nth: number) => Effect.Effect<A, E, R>) =>
  Effect.all(Array.from({ length: times }, (_, nth) => run(nth)), { concurrency: "unbounded" })

await describeWithRedis("the store on Redis", (it) => {
  const serverTime = Effect.gen(function*() {
    const redis = yield* Redis.Redis
    const [seconds, micros] = yield* redis.send<[string, string]>("TIME")
    return Math.floor(Number(seconds) * 1_000 + Number(micros) / 1_000)
  })

  it.effect("now is the time of the server", () =>
    Effect.gen(function*() {
      const { read } = circuitOf(yield* CircuitBreakerStore, "clock")
      const before = yield* serverTime
      const { now } = yield* read
      assert.isAtLeast(now, before)
      assert.isAtMost(now, yield* serverTime)
    }))

  it.effect("a store works after a request was interrupted at any point", () =>
    Effect.gen(function*() {
      const { prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      const nodeRedis = yield* NodeRedis.NodeRedis
      let keys = 0
      const points = yield* everywhere({
        // A new service, which has not loaded the scripts.
        make: Effect.gen(function*() {
          const fresh = yield* Redis.make({ ...redis, connect: Effect.never, subscribe: () => Effect.never })
          const store = yield* RedisCircuitBreakerStore.make({ prefix }).pipe(Effect.provideService(Redis.Redis, fresh))
          return circuitOf(store, `interrupted ${keys++}`)
        }).pipe(Effect.orDie),
        run: ({ record }) => record(0, "X"),
        after: ({ record }) =>
          Effect.map(record(0, "0"), ({ ok, snapshot }) => {
            assert.isTrue(ok)
            assert.include(["0", "X0"], snapshot.evidence.ring)
          })
      })
      assert.isAtLeast(points, 300)
      assert.isTrue(nodeRedis.client.isReady)
    }))

  it.effect("samples of an expired lease do not count while another lease is live", () =>
    Effect.gen(function*() {
      const { lease, move, read, record } = circuitOf(yield* CircuitBreakerStore, "expired lease")
      const { snapshot: { generation } } = yield* move(0, open(0))
      yield* lease(generation, "long", 60_000, 2)
      const { snapshot } = yield* lease(generation, "short", 10, 2)
      yield* Effect.repeat(Effect.delay(read, 5), { until: ({ now }) => now >= snapshot.now + snapshot.leaseMillis })
      const late = yield* record(generation, "0", "short")
      assert.deepStrictEqual([late.ok, late.snapshot.evidence.ring, late.snapshot.probing], [false, "", 1])
    }))

  it.effect("generations near the largest safe integer are distinct", () =>
    Effect.gen(function*() {
      const { record } = circuitOf(yield* CircuitBreakerStore, "generations")
      const large = Number.MAX_SAFE_INTEGER - 10
      const { snapshot } = yield* record(large, "X")
      assert.strictEqual(snapshot.generation, large + 1)
      assert.isFalse((yield* record(large, "X")).ok)
      assert.isFalse((yield* record(large + 2, "X")).ok)
      assert.strictEqual((yield* record(large + 1, "X")).snapshot.evidence.ring, "XX")
    }))

  it.effect("keys with lone surrogates, which UTF-8 cannot tell apart, are distinct circuits", () =>
    Effect.gen(function*() {
      const store = yield* CircuitBreakerStore
      const keys = ["\ud83d", "\udca5", "\ud83d\udca5", "\ufffd"]
      for (const [nth, key] of keys.entries()) yield* circuitOf(store, key).record(0, "X".repeat(nth + 1))
      for (const [nth, key] of keys.entries()) {
        assert.strictEqual((yield* circuitOf(store, key).read).evidence.ring.length, nth + 1)
      }
    }))

  it.effect("a fraction of a millisecond is rounded up", () =>
    Effect.gen(function*() {
      const { move } = circuitOf(yield* CircuitBreakerStore, "fractions")
      const { snapshot: { control } } = yield* move(0, open(1_000.2, 5_000.7))
      assert.deepStrictEqual(
        control._tag === "Open" && [control.until - control.since, control.hinted - control.since],
        [1_001, 5_001]
      )
    }))

  it.effect("a record adds to the newest bucket, and deletes those outside the window", () =>
    Effect.gen(function*() {
      const redis = yield* Redis.Redis
      const { keys, prefix } = yield* Namespace
      const { record } = circuitOf(yield* CircuitBreakerStore, "wheel", { calls: 0, bucketMillis: 60_000, buckets: 3 })
      const { snapshot } = yield* record(0, "X")
      const [evidence = ""] = yield* keys("circuit:{wheel}:seen")
      const at = snapshot.evidence.wheel[0]?.at ?? 0
      // The state after an hour of use, if the server's clock was then set back by an hour.
      yield* redis.send("HDEL", prefix + evidence, String(at))
      const begins = (nth: number) => String(at + nth * 60_000)
      for (let nth = -60; nth <= 60; nth++) {
        if (nth !== 0) yield* redis.send("HSET", prefix + evidence, begins(nth), "1 20 0")
      }
      const { snapshot: after } = yield* record(snapshot.generation, "0")
      assert.deepStrictEqual(after.evidence.wheel, [
        { at: at - 120_000, calls: 1, failures: 20, slow: 0 },
        { at: at - 60_000, calls: 1, failures: 20, slow: 0 },
        { at, calls: 1, failures: 0, slow: 0 }
      ])
      assert.strictEqual(yield* redis.send("HLEN", prefix + evidence), 4)
    }))

  describe("round trips", () => {
    const circuit = (key: string) =>
      Effect.gen(function*() {
        const { count, service } = yield* countingRedis
        const { prefix } = yield* Namespace
        const store = yield* RedisCircuitBreakerStore.make({ prefix }).pipe(
          Effect.provideService(Redis.Redis, service)
        )
        return {
          requests: <A, E>(effect: Effect.Effect<A, E>) => Effect.map(count(effect), ([, n]) => n),
          store,
          ...circuitOf(store, key)
        }
      })

    it.effect("a record costs one round trip, and two more if it makes the circuit", () =>
      Effect.gen(function*() {
        const { record, requests } = yield* circuit("cost of a record")
        assert.strictEqual(yield* requests(record(0, "0")), 3)
        for (let i = 0; i < 10; i++) assert.strictEqual(yield* requests(record(0, "X")), 1)
      }))

    it.effect("a transition costs one round trip, and two more if it wins", () =>
      Effect.gen(function*() {
        const { move, requests } = yield* circuit("cost of a transition")
        assert.strictEqual(yield* requests(move(0, closed, "winner")), 3)
        assert.strictEqual(yield* requests(move(0, closed, "loser")), 1)
      }))

    it.effect("a read and a lease cost one round trip", () =>
      Effect.gen(function*() {
        const { lease, move, read, requests } = yield* circuit("cost of a lease")
        assert.strictEqual(yield* requests(read), 1)
        const { snapshot: { generation } } = yield* move(0, open(0))
        assert.strictEqual(yield* requests(lease(generation, "one")), 1)
        assert.strictEqual(yield* requests(lease(generation, "other")), 1)
      }))
  })

  describe("two clients of one Redis", () => {
    const twoStores = Effect.gen(function*() {
      const { prefix, url } = yield* Namespace
      // Two connections.
      const connected = RedisCircuitBreakerStore.layer({ prefix }).pipe(Layer.provide(NodeRedis.layer({ url })))
      const [one, other] = yield* Effect.all([Layer.build(Layer.fresh(connected)), Layer.build(Layer.fresh(connected))])
      return [Context.get(one, CircuitBreakerStore), Context.get(other, CircuitBreakerStore)] as const
    })

    it.effect("one transition wins each generation", () =>
      Effect.gen(function*() {
        const [one, other] = yield* twoStores
        const [a, b] = [circuitOf(one, "winner"), circuitOf(other, "winner")]
        let generation = 0
        for (let round = 0; round < 20; round++) {
          const current = generation
          const answers = yield* concurrently(20, (nth) =>
            (nth % 2 === 0 ? a : b).move(current, closed, `${round}, ${nth}`))
          const winners = answers.flatMap(({ ok }, nth) =>
            ok ? [`${round}, ${nth}`] : []
          )
          const { control, generation: next } = yield* a.read
          assert.deepStrictEqual(winners, [control.by])
          assert.isAbove(next, generation)
          generation = next
        }
      }))

    it.effect("no more than limit leases are granted in total", () =>
      Effect.gen(function*() {
        const [one, other] = yield* twoStores
        const [a, b] = [circuitOf(one, "slots"), circuitOf(other, "slots")]
        let generation = 0
        for (let round = 0; round < 10; round++) {
          const { snapshot } = yield* a.move(generation, open(0), `round ${round}`)
          generation = snapshot.generation
          const ids = Array.from({ length: 20 }, (_, nth) => `${round}, ${nth}`)
          const answers = yield* concurrently(20, (nth) =>
            (nth % 2 === 0 ? a : b).lease(snapshot.generation, ids[nth] ?? "", 60_000, 3))
          const granted = ids.filter((_, nth) =>
            answers[nth]?.ok
          )
          assert.strictEqual(granted.length, 3)
          // Leases of the round before would hold their slots until they are freed.
          assert.strictEqual((yield* b.read).probing, 3)
          yield* Effect.forEach(granted, (id) => b.record(snapshot.generation, "", id))
        }
      }))

    it.effect("no concurrent record is lost", () =>
      Effect.gen(function*() {
        const [one, other] = yield* twoStores
        const window = { calls: 1_000, bucketMillis: 600_000, buckets: 2 }
        const [a, b] = [circuitOf(one, "records", window), circuitOf(other, "records", window)]
        yield* concurrently(500, (nth) => nth % 2 === 0 ? a.record(0, "0") : b.record(0, "X"))
        const { evidence: { ring, wheel } } = yield* a.read
        assert.strictEqual([...ring].toSorted().join(""), "0".repeat(250) + "X".repeat(250))
        assert.strictEqual(wheel.reduce((sum, { calls }) => sum + calls, 0), 500)
        assert.strictEqual(wheel.reduce((sum, { failures }) => sum + failures, 0), 250 * 20)
      }))
  })
})

await describeWithRedis("a Redis that loses its scripts, as in a restart", (it) => {
  it.effect("the store loads its scripts again", () =>
    Effect.gen(function*() {
      // Its own server, since other suites would lose their scripts too.
      const server = yield* ownServer
      if (server === undefined) return
      yield* Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const { lease, move, read, record } = circuitOf(yield* CircuitBreakerStore, "scripts")
        const flush = redis.send("SCRIPT", "FLUSH", "SYNC")
        yield* record(0, "X")
        yield* flush
        yield* record(0, "X")
        yield* flush
        const { snapshot: { generation } } = yield* move((yield* read).generation, open(0))
        yield* flush
        assert.isTrue((yield* lease(generation, "probe")).ok)
        yield* flush
        assert.strictEqual((yield* read).probing, 1)
        yield* flush
        const answers = yield* concurrently(50, () => record(generation, "0", "probe"))
        assert.strictEqual(answers.filter(({ ok }) => ok).length, 1)
      }).pipe(Effect.provide(
        RedisCircuitBreakerStore.layer().pipe(Layer.provideMerge(NodeRedis.layer({ url: server.url })))
      ))
    }))
})

describe("RedisCircuitBreakerStore.make", () => {
  const issuesOf = (options: unknown) =>
    // Programs in JavaScript are not type-checked.
    RedisCircuitBreakerStore.make(options as RedisCircuitBreakerStore.RedisCircuitBreakerStoreOptions).pipe(
      Effect.flip,
      Effect.map((error) => error._tag === "InvalidOptions" ? error.issues.map(({ option }) => option) : error._tag),
      Effect.provideService(Redis.Redis, unused)
    )

  it.effect("invalid options are refused, all in one error", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* issuesOf({ prefix: "a{b", idle: 0 }), ["prefix", "idle"])
      for (const prefix of ["{", "}", "a{}", "x".repeat(201), 1, null, {}, ["a"]]) {
        assert.deepStrictEqual(yield* issuesOf({ prefix }), ["prefix"], String(prefix))
      }
      const idles = ["0", "999 millis", -1, Number.NaN, "366 days", Duration.infinity, "soon", null, {}, [1], true]
      for (const idle of idles) assert.deepStrictEqual(yield* issuesOf({ idle }), ["idle"], String(idle))
      for (const options of [null, "sluice:", 1, true]) assert.deepStrictEqual(yield* issuesOf(options), ["options"])
    }))

  it.effect("every option can be left out", () =>
    Effect.gen(function*() {
      const none = { prefix: undefined, idle: undefined }
      for (const options of [undefined, {}, none, { prefix: "", idle: "1 second" } as const]) {
        yield* RedisCircuitBreakerStore.make(options).pipe(Effect.provideService(Redis.Redis, unused))
      }
    }))
})

const unused = Redis.Redis.of({
  send: () => Effect.never,
  eval: () => () => Effect.never,
  subscribe: () => Effect.never,
  reserve: Effect.never
})
