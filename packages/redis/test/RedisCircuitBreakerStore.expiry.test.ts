import { assert, describe } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { Snapshot, StoreError, Target } from "@sluice/core/CircuitBreakerStore"
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import { encodeKey } from "../src/internal/keyCode.ts"
import { circuitOf, closed, forced, hour, open, window } from "./support/circuit.ts"
import { describeWithRedis, Namespace } from "./support/redis.ts"

const year = 365 * 24 * hour

const circuit = (key: string) => `circuit:{${encodeKey(key)}}`

await describeWithRedis("what a store leaves in Redis", (it) => {
  /** How long each key of a circuit is still kept, by what it holds. */
  const keptOf = Effect.fnUntraced(function*(key: string) {
    const { keys, prefix } = yield* Namespace
    const redis = yield* Redis.Redis
    const kept: Record<string, number> = {}
    for (const name of yield* keys(circuit(key))) {
      kept[name.split(":")[2] ?? "control"] = yield* redis.send<number>("PTTL", prefix + name)
    }
    return kept
  })

  const assertAbout = (actual: number | undefined, expected: number) =>
    assert.approximately(actual ?? Number.NaN, expected, 5_000)

  it.effect("has an expiry, whatever was asked", () =>
    Effect.gen(function*() {
      const store = yield* CircuitBreakerStore
      const { keys, prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      const seen = new Set<string>()
      const check = Effect.gen(function*() {
        for (const key of yield* keys()) {
          seen.add(key.replace(/{.*}|\d+\/.*/g, ""))
          // -2 is one that is gone by now, -1 one without an expiry.
          assert.notStrictEqual(yield* redis.send("PTTL", prefix + key), -1, key)
        }
      })
      const moves = [closed, open(0), open(hour, 2 * hour), forced("Disabled"), forced("ObserveOnly", hour)]
      for (const [nth, to] of moves.entries()) {
        const { lease, move, read, record } = circuitOf(store, `any ${nth}`)
        let generation = 0
        const asks: ReadonlyArray<Effect.Effect<{ readonly snapshot: Snapshot }, StoreError>> = [
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
        for (const ask of [...asks, ...asks]) {
          generation = (yield* ask).snapshot.generation
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

  describe("of a circuit is kept for an hour", () => {
    const cases: ReadonlyArray<readonly [after: string, to: Target, kept: number]> = [
      ["its last move", closed, hour],
      ["the end of its opening", open(2 * hour), 3 * hour],
      ["the time at which the dependency wanted to be called again", open(hour, 4 * hour), 5 * hour],
      ["the end of its ramp", { ...closed, rampMillis: 2 * hour }, 3 * hour],
      ["the time after which its openings are forgiven", { ...closed, lastOpen: 6 * hour }, 7 * hour],
      ["the end of its force", forced("ForcedOpen", 2 * hour), 3 * hour]
    ]
    for (const [after, to, kept] of cases) {
      it.effect(`after ${after}`, () =>
        Effect.gen(function*() {
          const { move, record } = circuitOf(yield* CircuitBreakerStore, after)
          const { snapshot } = yield* move(0, to)
          assertAbout((yield* keptOf(after))["control"], kept)
          // What is recorded renews it, and never shortens it.
          yield* record(snapshot.generation, "X")
          assertAbout((yield* keptOf(after))["control"], kept)
        }))
    }

    it.effect("after its last outcome, with its evidence", () =>
      Effect.gen(function*() {
        const { prefix } = yield* Namespace
        const redis = yield* Redis.Redis
        const { record } = circuitOf(yield* CircuitBreakerStore, "outcome")
        yield* record(0, "X")
        yield* redis.send("PEXPIRE", prefix + circuit("outcome"), "60000")
        yield* record(0, "X")
        const kept = yield* keptOf("outcome")
        assertAbout(kept["control"], hour)
        assertAbout(kept["seen"], hour)
      }))

    it.effect("after the end of its window, with its evidence", () =>
      Effect.gen(function*() {
        const wide = { calls: 0, bucketMillis: hour, buckets: 4 }
        const { record } = circuitOf(yield* CircuitBreakerStore, "window", wide)
        yield* record(0, "X")
        const kept = yield* keptOf("window")
        assertAbout(kept["control"], 5 * hour)
        assertAbout(kept["seen"], 5 * hour)
      }))

    it.effect("after the lapse of its last lease, whatever happens meanwhile", () =>
      Effect.gen(function*() {
        const { lease, move, record } = circuitOf(yield* CircuitBreakerStore, "lease")
        const { snapshot: { generation } } = yield* move(0, open(0))
        yield* lease(generation, "long", 3 * hour, 2)
        yield* lease(generation, "short", hour, 2)
        const kept = yield* keptOf("lease")
        assertAbout(kept["control"], 4 * hour)
        assertAbout(kept["leases"], 3 * hour)
        yield* record(generation, "X", "short")
        const { snapshot } = yield* move(generation, closed, "closes")
        yield* record(snapshot.generation, "0")
        assertAbout((yield* keptOf("lease"))["control"], 4 * hour)
        assertAbout((yield* keptOf("lease"))["leases"], 3 * hour)
      }))
  })

  it.effect("of a circuit that is forced without an end is kept for a year", () =>
    Effect.gen(function*() {
      const { move, record } = circuitOf(yield* CircuitBreakerStore, "endless")
      const { snapshot } = yield* move(0, forced("ForcedClosed"))
      assertAbout((yield* keptOf("endless"))["control"], year)
      yield* record(snapshot.generation, "X")
      assertAbout((yield* keptOf("endless"))["control"], year)
    }))

  it.effect("is kept for another year by whoever asks in the second half of the first", () =>
    Effect.gen(function*() {
      const store = yield* CircuitBreakerStore
      const { prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      const asks = ["read", "record", "list"] as const
      for (const ask of asks) {
        for (const mode of ["ForcedOpen", "Disabled"] as const) {
          const key = `${ask} ${mode}`
          const { move, read, record } = circuitOf(store, key)
          const { snapshot } = yield* move(0, forced(mode))
          const asked = { read, record: record(snapshot.generation, "X"), list: store.list({ window, limit: 100 }) }
          const name = prefix + circuit(key)
          yield* redis.send("PEXPIRE", name, String(0.6 * year))
          yield* asked[ask]
          if (ask !== "record") assertAbout(yield* redis.send<number>("PTTL", name), 0.6 * year)
          yield* redis.send("PEXPIRE", name, String(0.4 * year))
          yield* asked[ask]
          assertAbout(yield* redis.send<number>("PTTL", name), year)
        }
      }
    }))

  it.effect("is not changed by a look", () =>
    Effect.gen(function*() {
      const store = yield* CircuitBreakerStore
      const { keys, prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      const { lease, move, read, record } = circuitOf(store, "look")
      yield* record(0, "X")
      const { snapshot: { generation } } = yield* move((yield* read).generation, open(0))
      yield* lease(generation, "probe")
      const content = Effect.gen(function*() {
        const names = yield* keys(circuit("look"))
        const dumps = yield* Effect.forEach(names, (name) => redis.send<string>("DUMP", prefix + name))
        const ends = yield* Effect.forEach(names, (name) => redis.send<number>("PEXPIRETIME", prefix + name))
        return { names, dumps, ends }
      })
      const before = yield* content
      yield* read
      yield* store.read({ key: "not there", window })
      yield* store.list({ window, limit: 100 })
      assert.deepStrictEqual(yield* content, before)
      assert.deepStrictEqual(yield* keys(circuit("not there")), [])
    }))

  it.effect("of leases is gone when the last of them lapses", () =>
    Effect.gen(function*() {
      const { lease, move, read } = circuitOf(yield* CircuitBreakerStore, "lapse")
      const { snapshot: { generation } } = yield* move(0, open(0))
      const { snapshot } = yield* lease(generation, "probe", 20)
      while ((yield* read).now < snapshot.now + 21) yield* Effect.sleep(5)
      assert.notProperty(yield* keptOf("lapse"), "leases")
    }))
})
