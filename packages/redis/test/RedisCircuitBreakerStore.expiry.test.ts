import { assert, describe } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { Snapshot, StoreError, Target } from "@sluice/core/CircuitBreakerStore"
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import { encodeKey } from "@sluice/core/StoreCodec"
import { circuitOf, closed, forced, hour, open, window } from "./support/circuit.ts"
import { describeWithRedis, Namespace } from "./support/redis.ts"

const year = 365 * 24 * hour

const circuit = (key: string) => `circuit:{${encodeKey(key)}}`

await describeWithRedis("expiry of keys in Redis", (it) => {
  /** The time to live of each key of a circuit: control, leases, seen. */
  const ttlsOf = Effect.fnUntraced(function*(key: string) {
    const { keys, prefix } = yield* Namespace
    const redis = yield* Redis.Redis
    const ttls: Record<string, number> = {}
    for (const name of yield* keys(circuit(key))) {
      ttls[name.split(":")[2] ?? "control"] = yield* redis.send<number>("PTTL", prefix + name)
    }
    return ttls
  })

  const assertAbout = (actual: number | undefined, expected: number) =>
    assert.approximately(actual ?? Number.NaN, expected, 5_000)

  it.effect("every key has an expiry, whichever verbs were called", () =>
    Effect.gen(function*() {
      const store = yield* CircuitBreakerStore
      const { keys, prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      const seen = new Set<string>()
      const check = Effect.gen(function*() {
        for (const key of yield* keys()) {
          seen.add(key.replace(/{.*}|\d+\/.*/g, ""))
          // -1: no expiry. -2: expired by now.
          assert.notStrictEqual(yield* redis.send("PTTL", prefix + key), -1, key)
        }
      })
      const moves = [closed, open(0), open(hour, 2 * hour), forced("Disabled"), forced("ObserveOnly", hour)]
      for (const [nth, to] of moves.entries()) {
        const { lease, move, read, record } = circuitOf(store, `any ${nth}`)
        let generation = 0
        const requests: ReadonlyArray<Effect.Effect<{ readonly snapshot: Snapshot }, StoreError>> = [
          Effect.suspend(() => record(generation, "X")),
          Effect.suspend(() => lease(generation, "one", hour, 9)),
          Effect.suspend(() => move(generation, to, `to generation after ${generation}`)),
          Effect.suspend(() => lease(generation, "one", hour, 9)),
          Effect.suspend(() => lease(generation, "two", 10, 9)),
          Effect.suspend(() => record(generation, "X", "one")),
          Effect.suspend(() => record(generation, "X0")),
          Effect.suspend(() => record(generation - 1, "X0")),
          Effect.suspend(() => move(generation - 1, to, "too late")),
          Effect.suspend(() => lease(generation, "three", 1, 9)),
          Effect.suspend(() => record(generation, "", "three")),
          Effect.map(read, (snapshot) => ({ snapshot }))
        ]
        for (const request of [...requests, ...requests]) {
          generation = (yield* request).snapshot.generation
          yield* check
        }
      }
      assert.deepStrictEqual([...seen].toSorted(), [
        "circuit:",
        "circuit::leases",
        "circuit::seen:",
        "circuits:",
        "circuits::times"
      ])
    }))

  describe("time to live", () => {
    const cases: ReadonlyArray<readonly [after: string, to: Target, ttl: number]> = [
      ["its last transition", closed, hour],
      ["the end of its opening", open(2 * hour), 3 * hour],
      ["the time that the dependency asked to wait for", open(hour, 4 * hour), 5 * hour],
      ["the end of its ramp", { ...closed, rampMillis: 2 * hour }, 3 * hour],
      ["the time after which its openings are reset", { ...closed, lastOpen: 6 * hour }, 7 * hour],
      ["the end of its force", forced("ForcedOpen", 2 * hour), 3 * hour]
    ]
    for (const [after, to, ttl] of cases) {
      it.effect(`a circuit is kept for an hour after ${after}`, () =>
        Effect.gen(function*() {
          const { move, record } = circuitOf(yield* CircuitBreakerStore, after)
          const { snapshot } = yield* move(0, to)
          assertAbout((yield* ttlsOf(after))["control"], ttl)
          // A record can prolong the time, not shorten it.
          yield* record(snapshot.generation, "X")
          assertAbout((yield* ttlsOf(after))["control"], ttl)
        }))
    }

    it.effect("a circuit and its evidence are kept for an hour after the last outcome", () =>
      Effect.gen(function*() {
        const { prefix } = yield* Namespace
        const redis = yield* Redis.Redis
        const { record } = circuitOf(yield* CircuitBreakerStore, "outcome")
        yield* record(0, "X")
        yield* redis.send("PEXPIRE", prefix + circuit("outcome"), "60000")
        yield* record(0, "X")
        const ttls = yield* ttlsOf("outcome")
        assertAbout(ttls["control"], hour)
        assertAbout(ttls["seen"], hour)
      }))

    it.effect("a circuit and its evidence are kept for an hour after the end of the window", () =>
      Effect.gen(function*() {
        const wide = { calls: 0, bucketMillis: hour, buckets: 4 }
        const { record } = circuitOf(yield* CircuitBreakerStore, "window", wide)
        yield* record(0, "X")
        const ttls = yield* ttlsOf("window")
        assertAbout(ttls["control"], 5 * hour)
        assertAbout(ttls["seen"], 5 * hour)
      }))

    it.effect("a circuit is kept for an hour after its last lease expires, whatever is recorded meanwhile", () =>
      Effect.gen(function*() {
        const { lease, move, record } = circuitOf(yield* CircuitBreakerStore, "lease")
        const { snapshot: { generation } } = yield* move(0, open(0))
        yield* lease(generation, "long", 3 * hour, 2)
        yield* lease(generation, "short", hour, 2)
        const ttls = yield* ttlsOf("lease")
        assertAbout(ttls["control"], 4 * hour)
        assertAbout(ttls["leases"], 3 * hour)
        yield* record(generation, "X", "short")
        const { snapshot } = yield* move(generation, closed, "closes")
        yield* record(snapshot.generation, "0")
        assertAbout((yield* ttlsOf("lease"))["control"], 4 * hour)
        assertAbout((yield* ttlsOf("lease"))["leases"], 3 * hour)
      }))
  })

  it.effect("a circuit that is forced without an end is kept for a year", () =>
    Effect.gen(function*() {
      const { move, record } = circuitOf(yield* CircuitBreakerStore, "endless")
      const { snapshot } = yield* move(0, forced("ForcedClosed"))
      assertAbout((yield* ttlsOf("endless"))["control"], year)
      yield* record(snapshot.generation, "X")
      assertAbout((yield* ttlsOf("endless"))["control"], year)
    }))

  it.effect("any use in the second half of the year keeps a forced circuit for another year", () =>
    Effect.gen(function*() {
      const store = yield* CircuitBreakerStore
      const { prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      const verbs = ["read", "record", "list"] as const
      for (const verb of verbs) {
        for (const mode of ["ForcedOpen", "Disabled"] as const) {
          const key = `${verb} ${mode}`
          const { move, read, record } = circuitOf(store, key)
          const { snapshot } = yield* move(0, forced(mode))
          const requests = { read, record: record(snapshot.generation, "X"), list: store.list({ window, limit: 100 }) }
          const name = prefix + circuit(key)
          yield* redis.send("PEXPIRE", name, String(0.6 * year))
          yield* requests[verb]
          if (verb !== "record") assertAbout(yield* redis.send<number>("PTTL", name), 0.6 * year)
          yield* redis.send("PEXPIRE", name, String(0.4 * year))
          yield* requests[verb]
          assertAbout(yield* redis.send<number>("PTTL", name), year)
        }
      }
    }))

  it.effect("a read changes neither values nor expiries", () =>
    Effect.gen(function*() {
      const store = yield* CircuitBreakerStore
      const { keys, prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      const { lease, move, read, record } = circuitOf(store, "read")
      yield* record(0, "X")
      const { snapshot: { generation } } = yield* move((yield* read).generation, open(0))
      yield* lease(generation, "probe")
      const content = Effect.gen(function*() {
        const names = yield* keys(circuit("read"))
        const dumps = yield* Effect.forEach(names, (name) => redis.send<string>("DUMP", prefix + name))
        const expiries = yield* Effect.forEach(names, (name) => redis.send<number>("PEXPIRETIME", prefix + name))
        return { names, dumps, expiries }
      })
      const before = yield* content
      yield* read
      yield* store.read({ key: "not there", window })
      yield* store.list({ window, limit: 100 })
      assert.deepStrictEqual(yield* content, before)
      assert.deepStrictEqual(yield* keys(circuit("not there")), [])
    }))

  it.effect("the key of the leases expires with the last lease", () =>
    Effect.gen(function*() {
      const { lease, move, read } = circuitOf(yield* CircuitBreakerStore, "expiry")
      const { snapshot: { generation } } = yield* move(0, open(0))
      const { snapshot } = yield* lease(generation, "probe", 20)
      while ((yield* read).now < snapshot.now + 21) yield* Effect.sleep(5)
      assert.notProperty(yield* ttlsOf("expiry"), "leases")
    }))
})
