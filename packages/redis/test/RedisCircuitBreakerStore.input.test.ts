import { assert } from "@effect/vitest"
import { CircuitBreakerStore, type StoreError, type Window } from "@sluice/core/CircuitBreakerStore"
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import { circuitOf, closed, open } from "./support/circuit.ts"
import { describeWithRedis, Namespace } from "./support/redis.ts"

const windows: { readonly [description: string]: Window } = {
  "whose numbers are NaN": { calls: Number.NaN, bucketMillis: Number.NaN, buckets: Number.NaN },
  "of infinitely many calls": { calls: Number.POSITIVE_INFINITY, bucketMillis: 0, buckets: 0 },
  "of more calls than a ring keeps": { calls: 1_001, bucketMillis: 0, buckets: 0 },
  "of a negative number of calls": { calls: -1, bucketMillis: 0, buckets: 0 },
  "of a fraction of a call": { calls: 1.5, bucketMillis: 0, buckets: 0 },
  "of buckets without a width": { calls: 10, bucketMillis: 0, buckets: 3 },
  "of buckets whose width is NaN": { calls: 10, bucketMillis: Number.NaN, buckets: 3 },
  "of buckets with a negative width": { calls: 10, bucketMillis: -1, buckets: 3 },
  "of infinitely many buckets": { calls: 10, bucketMillis: 1_000, buckets: Number.POSITIVE_INFINITY },
  "longer than the maximum": { calls: 10, bucketMillis: 2 ** 40, buckets: 2 ** 40 }
}

const generations = [Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 2 ** 53 - 1, 1e17, -1, 0.5]

const invalidSamples = ["Z", "/", "0X\n", "x", "é", "0 0", "\u0000"]

await describeWithRedis("invalid input of the store on Redis", (it) => {
  /** The store in the context, circuits of `key`, and checks of what they left in Redis. */
  const setUp = (key: string) =>
    Effect.gen(function*() {
      const { keys, prefix } = yield* Namespace
      const redis = yield* Redis.Redis
      const store = yield* CircuitBreakerStore
      const assertNoKeys = Effect.gen(function*() {
        assert.deepStrictEqual(yield* keys(), [], "no key is left")
      })
      const keysWithoutExpiry = Effect.gen(function*() {
        const ttls = yield* Effect.forEach(yield* keys(), (name) => redis.send<number>("PTTL", prefix + name))
        return ttls.filter((ttl) => ttl === -1)
      })
      return { store, assertNoKeys, keysWithoutExpiry, circuit: (window?: Window) => circuitOf(store, key, window) }
    })

  const assertRefused = <A>(request: Effect.Effect<A, StoreError>, verb: string) =>
    Effect.map(Effect.flip(request), ({ description, operation }) => {
      assert.strictEqual(operation, verb)
      assert.match(description, / is invalid$/)
    })

  for (const [description, window] of Object.entries(windows)) {
    it.effect(`a window ${description} is refused, and nothing is written`, () =>
      Effect.gen(function*() {
        const { circuit, assertNoKeys } = yield* setUp("window")
        const { lease, move, record } = circuit(window)
        yield* assertRefused(record(0, "X"), "record")
        yield* assertRefused(lease(1, "probe"), "lease")
        yield* assertRefused(move(0, open(1_000)), "transition")
        yield* assertNoKeys
      }))
  }

  for (const generation of generations) {
    it.effect(`generation ${generation} is refused, and nothing is written`, () =>
      Effect.gen(function*() {
        const { circuit, assertNoKeys } = yield* setUp("generation")
        const { move, record } = circuit()
        yield* assertRefused(record(generation, "X"), "record")
        yield* assertRefused(move(generation, closed), "transition")
        yield* assertNoKeys
      }))
  }

  it.effect("the largest safe integer is a valid generation", () =>
    Effect.gen(function*() {
      const { circuit, keysWithoutExpiry } = yield* setUp("last generation")
      const { read, record } = circuit()
      assert.strictEqual((yield* record(2 ** 53 - 2, "X")).snapshot.generation, 2 ** 53 - 1)
      assert.strictEqual((yield* read).evidence.ring, "X")
      assert.deepStrictEqual(yield* keysWithoutExpiry, [])
    }))

  it.effect("a batch with an invalid sample is refused, and none of its samples count", () =>
    Effect.gen(function*() {
      const { circuit, keysWithoutExpiry } = yield* setUp("samples")
      const { read, record } = circuit()
      const { snapshot: { generation } } = yield* record(0, "X")
      for (const sample of invalidSamples) yield* assertRefused(record(generation, `0${sample}`), "record")
      assert.strictEqual((yield* read).evidence.ring, "X")
      assert.deepStrictEqual(yield* keysWithoutExpiry, [])
    }))

  it.effect("a lease with a ttlMillis of NaN is refused", () =>
    Effect.gen(function*() {
      const { circuit, keysWithoutExpiry } = yield* setUp("lease")
      const { lease, move } = circuit()
      const { snapshot: { generation } } = yield* move(0, open(0))
      yield* assertRefused(lease(generation, "probe", Number.NaN), "lease")
      assert.isTrue((yield* lease(generation, "probe")).ok)
      assert.deepStrictEqual(yield* keysWithoutExpiry, [])
    }))
})
