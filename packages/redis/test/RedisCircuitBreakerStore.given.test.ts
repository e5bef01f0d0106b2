import { assert } from "@effect/vitest"
import { CircuitBreakerStore, type StoreError, type Window } from "@sluice/core/CircuitBreakerStore"
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import { circuitOf, closed, open, window } from "./support/circuit.ts"
import { describeWithRedis, Namespace } from "./support/redis.ts"

const windows: { readonly [what: string]: Window } = {
  "of no number": { calls: Number.NaN, bucketMillis: Number.NaN, buckets: Number.NaN },
  "of calls without end": { calls: Number.POSITIVE_INFINITY, bucketMillis: 0, buckets: 0 },
  "of more calls than are kept": { calls: 1_001, bucketMillis: 0, buckets: 0 },
  "of less than no calls": { calls: -1, bucketMillis: 0, buckets: 0 },
  "of half a call": { calls: 1.5, bucketMillis: 0, buckets: 0 },
  "of buckets without a width": { calls: 10, bucketMillis: 0, buckets: 3 },
  "of buckets of no width": { calls: 10, bucketMillis: Number.NaN, buckets: 3 },
  "of a width below nothing": { calls: 10, bucketMillis: -1, buckets: 3 },
  "of time without end": { calls: 10, bucketMillis: 1_000, buckets: Number.POSITIVE_INFINITY },
  "of more time than there is": { calls: 10, bucketMillis: 2 ** 40, buckets: 2 ** 40 }
}

const generations = [Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 2 ** 53 - 1, 1e17, -1, 0.5]

const samples = ["Z", "/", "0X\n", "x", "é", "0 0", "\u0000"]

await describeWithRedis("a store that is given what makes no sense", (it) => {
  /** A circuit that has seen one failure, and what each verb on it is refused with. */
  const around = (key: string) =>
    Effect.gen(function*() {
      const { keys, prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      const store = yield* CircuitBreakerStore
      const isUntouched = Effect.gen(function*() {
        assert.deepStrictEqual(yield* keys(), [], "it leaves nothing behind")
      })
      const endless = Effect.gen(function*() {
        const ends = yield* Effect.forEach(yield* keys(), (name) => redis.send<number>("PTTL", prefix + name))
        return ends.filter((end) => end === -1)
      })
      return { store, isUntouched, endless, circuit: (through: Window = window) => circuitOf(store, key, through) }
    })

  const refusalOf = <A>(ask: Effect.Effect<A, StoreError>, verb: string) =>
    Effect.map(Effect.flip(ask), ({ description, operation }) => {
      assert.strictEqual(operation, verb)
      assert.match(description, /makes no sense$/)
    })

  for (const [what, through] of Object.entries(windows)) {
    it.effect(`refuses a window ${what}, and keeps nothing of it`, () =>
      Effect.gen(function*() {
        const { circuit, isUntouched } = yield* around("window")
        const { lease, move, record } = circuit(through)
        yield* refusalOf(record(0, "X"), "record")
        yield* refusalOf(lease(1, "probe"), "lease")
        yield* refusalOf(move(0, open(1_000)), "transition")
        yield* isUntouched
      }))
  }

  for (const generation of generations) {
    it.effect(`refuses generation ${generation}, and keeps nothing of it`, () =>
      Effect.gen(function*() {
        const { circuit, isUntouched } = yield* around("generation")
        const { move, record } = circuit()
        yield* refusalOf(record(generation, "X"), "record")
        yield* refusalOf(move(generation, closed), "transition")
        yield* isUntouched
      }))
  }

  it.effect("takes the last generation that a number holds", () =>
    Effect.gen(function*() {
      const { circuit, endless } = yield* around("last generation")
      const { read, record } = circuit()
      assert.strictEqual((yield* record(2 ** 53 - 2, "X")).snapshot.generation, 2 ** 53 - 1)
      assert.strictEqual((yield* read).evidence.ring, "X")
      assert.deepStrictEqual(yield* endless, [])
    }))

  it.effect("refuses samples that are none, and counts none of them", () =>
    Effect.gen(function*() {
      const { circuit, endless } = yield* around("samples")
      const { read, record } = circuit()
      const { snapshot: { generation } } = yield* record(0, "X")
      for (const sample of samples) yield* refusalOf(record(generation, `0${sample}`), "record")
      assert.strictEqual((yield* read).evidence.ring, "X")
      assert.deepStrictEqual(yield* endless, [])
    }))

  it.effect("refuses a lease for a time that is none", () =>
    Effect.gen(function*() {
      const { circuit, endless } = yield* around("lease")
      const { lease, move } = circuit()
      const { snapshot: { generation } } = yield* move(0, open(0))
      yield* refusalOf(lease(generation, "probe", Number.NaN), "lease")
      assert.isTrue((yield* lease(generation, "probe")).ok)
      assert.deepStrictEqual(yield* endless, [])
    }))
})
