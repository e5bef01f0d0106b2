import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { TestClock } from "effect/testing"

type Store = CircuitBreakerStore.CircuitBreakerStore["Service"]

const window = { calls: 5, bucketMillis: 0, buckets: 0 }
const failure = "X"
const success = "0"

const withStore = <A, E>(test: (store: Store) => Effect.Effect<A, E>, capacity?: number) =>
  Effect.flatMap(CircuitBreakerStore.makeMemory({ capacity }), test)

const record = (store: Store, samples: string, generation: number, key = "a") =>
  store.record({ key, window, generation, samples })

const open = (store: Store, generation: number, by = "me", key = "a") =>
  store.transition({
    key,
    window,
    generation,
    by,
    to: { _tag: "Open", forMillis: 1_000, openings: 1, hintMillis: 0, because: { calls: 3, failures: 2, slow: 0 } }
  })

const lease = (store: Store, generation: number, id: string, key = "a", limit = 1) =>
  store.lease({ key, window, generation, id, limit, ttlMillis: 500 })

/** Opens a circuit and waits until it is half-open. Returns its snapshot. */
const halfOpen = (store: Store, key = "a") =>
  Effect.gen(function*() {
    const { snapshot } = yield* open(store, 0, "me", key)
    yield* TestClock.adjust("1 second")
    return snapshot
  })

describe("CircuitBreakerStore.makeMemory", () => {
  it.effect("an unknown key reads as closed, in generation 0, without evidence", () =>
    withStore((store) =>
      Effect.gen(function*() {
        yield* TestClock.adjust("7 seconds")
        assert.deepStrictEqual(yield* store.read({ key: "a", window }), {
          key: "a",
          generation: 0,
          control: { _tag: "Closed", since: 0, until: 0, openings: 0, lastOpen: 0, reason: "", by: "" },
          evidence: { ring: "", wheel: [] },
          probing: 0,
          leaseMillis: 0,
          now: 7_000
        })
        assert.deepStrictEqual(yield* store.list({ window, limit: 10 }), [], "a read creates no circuit")
      })
    ))

  describe("record", () => {
    it.effect("record keeps the last outcomes of the window, oldest first", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const first = yield* record(store, success + failure, 0)
          assert.isTrue(first.ok)
          const { snapshot } = yield* record(store, "X0XD", first.snapshot.generation)
          assert.strictEqual(snapshot.evidence.ring, "XX0XD")
        })
      ))

    it.effect("record under generation 0 counts as long as the circuit has never moved", () =>
      withStore((store) =>
        Effect.gen(function*() {
          yield* record(store, failure, 0)
          assert.isTrue((yield* record(store, failure, 0)).ok)
          const { snapshot } = yield* store.read({ key: "a", window }).pipe(
            Effect.flatMap(({ generation }) => open(store, generation))
          )
          const closed = yield* store.transition({
            key: "a",
            window,
            generation: snapshot.generation,
            by: "me too",
            to: { _tag: "Closed", rampMillis: 0, openings: 1, lastOpen: 0, reason: "" }
          })
          assert.isTrue(closed.ok)
          const late = yield* record(store, failure, 0)
          assert.deepStrictEqual([late.ok, late.snapshot.evidence.ring], [false, ""])
        })
      ))

    it.effect("record counts neither under an older generation nor in an open circuit", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { snapshot: closed } = yield* record(store, success, 0)
          const { snapshot: opened } = yield* open(store, closed.generation)
          assert.isAbove(opened.generation, closed.generation)
          for (const generation of [closed.generation, opened.generation]) {
            const answer = yield* record(store, success, generation)
            assert.deepStrictEqual([answer.ok, answer.snapshot.evidence.ring], [false, ""])
          }
        })
      ))

    it.effect("record with a live lease counts once and frees the lease", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { generation } = yield* halfOpen(store)
          yield* lease(store, generation, "probe")
          const probe = { key: "a", window, generation, lease: "probe", samples: success }
          const first = yield* store.record(probe)
          assert.deepStrictEqual([first.ok, first.snapshot.evidence.ring, first.snapshot.probing], [true, "0", 0])
          const repeated = yield* store.record(probe)
          assert.deepStrictEqual([repeated.ok, repeated.snapshot.evidence.ring], [false, "0"])
        })
      ))

    it.effect("record without samples only frees the lease", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { generation } = yield* halfOpen(store)
          yield* lease(store, generation, "probe")
          const { snapshot } = yield* store.record({ key: "a", window, generation, lease: "probe", samples: "" })
          assert.deepStrictEqual([snapshot.evidence.ring, snapshot.probing], ["", 0])
        })
      ))

    it.effect("record with an expired lease does not count", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { generation } = yield* halfOpen(store)
          yield* lease(store, generation, "probe")
          yield* TestClock.adjust("500 millis")
          assert.isFalse((yield* store.record({ key: "a", window, generation, lease: "probe", samples: success })).ok)
        })
      ))
  })

  describe("lease", () => {
    it.effect("a lease is refused until the open time has elapsed, and for an unknown key", () =>
      withStore((store) =>
        Effect.gen(function*() {
          assert.isFalse((yield* lease(store, 0, "probe", "unknown")).ok)
          const { snapshot } = yield* open(store, 0)
          yield* TestClock.adjust("999 millis")
          assert.isFalse((yield* lease(store, snapshot.generation, "probe")).ok)
          yield* TestClock.adjust("1 millis")
          const granted = yield* lease(store, snapshot.generation, "probe")
          assert.deepStrictEqual([granted.ok, granted.snapshot.probing, granted.snapshot.leaseMillis], [true, 1, 500])
        })
      ))

    it.effect("the limit of leases includes probes that have settled", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { generation } = yield* halfOpen(store)
          assert.isTrue((yield* lease(store, generation, "one", "a", 2)).ok)
          assert.isTrue((yield* lease(store, generation, "two", "a", 2)).ok)
          assert.isFalse((yield* lease(store, generation, "three", "a", 2)).ok)
          yield* store.record({ key: "a", window, generation, lease: "one", samples: success })
          assert.isFalse((yield* lease(store, generation, "three", "a", 2)).ok)
          yield* store.record({ key: "a", window, generation, lease: "two", samples: "" })
          assert.isTrue((yield* lease(store, generation, "three", "a", 2)).ok)
        })
      ))

    it.effect("lease renews a live lease, and grants the slot of an expired one", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { generation } = yield* halfOpen(store)
          yield* lease(store, generation, "one")
          yield* TestClock.adjust("400 millis")
          assert.strictEqual((yield* lease(store, generation, "one")).snapshot.leaseMillis, 500)
          yield* TestClock.adjust("499 millis")
          assert.isFalse((yield* lease(store, generation, "two")).ok)
          yield* TestClock.adjust("1 millis")
          assert.isTrue((yield* lease(store, generation, "two")).ok)
        })
      ))

    it.effect("a lease of the last round keeps its slot in the next one", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { generation } = yield* halfOpen(store)
          yield* store.lease({ key: "a", window, generation, id: "hung", limit: 1, ttlMillis: 60_000 })
          const { snapshot } = yield* open(store, generation, "again")
          yield* TestClock.adjust("1 second")
          assert.isFalse((yield* lease(store, snapshot.generation, "next")).ok)
        })
      ))
  })

  describe("transition", () => {
    it.effect("a transition has one winner, and the others get the current snapshot", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { snapshot } = yield* record(store, failure, 0)
          const won = yield* open(store, snapshot.generation, "one")
          const lost = yield* open(store, snapshot.generation, "other")
          assert.deepStrictEqual([won.ok, lost.ok], [true, false])
          assert.deepStrictEqual(lost.snapshot, won.snapshot)
        })
      ))

    it.effect("a transition repeated by its winner is ok", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { snapshot } = yield* record(store, failure, 0)
          const won = yield* open(store, snapshot.generation, "one")
          assert.deepStrictEqual(yield* open(store, snapshot.generation, "one"), won)
        })
      ))

    it.effect("a transition computes the end of the open time by the store's clock and drops the evidence", () =>
      withStore((store) =>
        Effect.gen(function*() {
          yield* TestClock.adjust("3 seconds")
          const { snapshot: before } = yield* record(store, failure, 0)
          const { snapshot } = yield* open(store, before.generation)
          assert.strictEqual(snapshot.evidence.ring, "")
          assert.deepStrictEqual(snapshot.control, {
            _tag: "Open",
            since: 3_000,
            until: 4_000,
            openings: 1,
            hinted: 0,
            because: { calls: 3, failures: 2, slow: 0 },
            by: "me"
          })
        })
      ))
  })

  it.effect("list returns circuits ordered by key, page by page", () =>
    withStore((store) =>
      Effect.gen(function*() {
        for (const key of ["c", "a", "d", "b"]) yield* record(store, failure, 0, key)
        const keys = (after: string | undefined) =>
          Effect.map(store.list({ window, after, limit: 3 }), (page) => page.map((circuit) => circuit.key))
        assert.deepStrictEqual([yield* keys(undefined), yield* keys("c")], [["a", "b", "c"], ["d"]])
      })
    ))

  describe("capacity", () => {
    const keysOf = (store: Store) =>
      Effect.map(store.list({ window, limit: 100 }), (circuits) => circuits.map((circuit) => circuit.key))

    it.effect("the least recently used circuit is evicted", () =>
      withStore((store) =>
        Effect.gen(function*() {
          for (const key of ["a", "b", "c", "a", "d"]) yield* record(store, failure, 0, key)
          assert.deepStrictEqual(yield* keysOf(store), ["a", "c", "d"])
        }), 3))

    it.effect("ten thousand keys stay within the capacity, and a running probe is never evicted", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { generation } = yield* halfOpen(store, "probed")
          yield* lease(store, generation, "probe", "probed")
          for (let i = 0; i < 10_000; i++) yield* record(store, failure, 0, `key ${i}`)
          const keys = yield* keysOf(store)
          assert.strictEqual(keys.length, 3)
          assert.include(keys, "probed")
          assert.strictEqual((yield* store.read({ key: "probed", window })).probing, 1)
        }), 3))

    it.effect("a probed circuit can be evicted once its lease has expired", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { generation } = yield* halfOpen(store, "probed")
          yield* lease(store, generation, "probe", "probed")
          yield* TestClock.adjust("500 millis")
          for (const key of ["a", "b", "c"]) yield* record(store, failure, 0, key)
          assert.deepStrictEqual(yield* keysOf(store), ["a", "b", "c"])
        }), 3))

    it.effect("an evicted circuit starts anew with a generation that it never had", () =>
      withStore((store) =>
        Effect.gen(function*() {
          const { snapshot: before } = yield* record(store, failure, 0)
          const { snapshot: opened } = yield* open(store, before.generation)
          yield* TestClock.adjust("1 millis")
          yield* record(store, success, 0, "other")
          assert.strictEqual((yield* store.read({ key: "a", window })).generation, 0)
          const { ok, snapshot } = yield* record(store, failure, opened.generation)
          assert.isTrue(ok)
          assert.isAbove(snapshot.generation, opened.generation)
          assert.strictEqual(snapshot.evidence.ring, "X")
        }), 1))
  })

  it.effect("a StoreError does not contain the caller's data", () =>
    Effect.sync(() => {
      const error = new CircuitBreakerStore.StoreError({ operation: "record", description: "connection refused" })
      assert.strictEqual(error.message, "store: record failed: connection refused")
      const json = Schema.encodeSync(CircuitBreakerStore.StoreError)(error)
      assert.deepStrictEqual(json, { _tag: "StoreError", operation: "record", description: "connection refused" })
    }))
})
