import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import * as Backpressure from "../src/Backpressure.ts"
import * as CircuitBreaker from "../src/CircuitBreaker.ts"
import * as CircuitBreakerStore from "../src/CircuitBreakerStore.ts"
import * as Deadline from "../src/Deadline.ts"
import * as Deduplicator from "../src/Deduplicator.ts"
import * as InvalidOptions from "../src/InvalidOptions.ts"
import * as KeyHash from "../src/KeyHash.ts"
import * as Pipeline from "../src/Pipeline.ts"
import * as Sluice from "../src/Sluice.ts"

const open = new CircuitBreaker.CircuitOpen({
  policy: "api",
  key: "eu",
  state: "HalfOpen",
  retryAfter: Duration.seconds(3),
  failures: 4,
  calls: 5
})
const shed = new Backpressure.BackpressureShed({ policy: "api", depth: 3, queued: 1, capacity: 2 })
const late = new Deadline.DeadlineExceeded({ at: "Backoff", budget: Duration.seconds(2) })

const rejected: Schema.Codec<Sluice.Rejected, unknown> = Sluice.Rejected

/** Every error class of the package, once for each shape that it has. */
const errors: ReadonlyArray<readonly [name: string, make: () => readonly [encoded: unknown, decoded: Error, Error]]> = [
  ["BackpressureShed", () => trip(Backpressure.BackpressureShed, shed)],
  ["CircuitOpen", () => trip(CircuitBreaker.CircuitOpen, open)],
  ["StoreError", () =>
    trip(
      CircuitBreakerStore.StoreError,
      new CircuitBreakerStore.StoreError({ operation: "record", description: "no reply" })
    )],
  ["DeadlineExceeded", () => trip(Deadline.DeadlineExceeded, late)],
  [
    "FlightAbandoned",
    () => trip(Deduplicator.FlightAbandoned, new Deduplicator.FlightAbandoned({ operation: "summary" }))
  ],
  ["InvalidOptions", () =>
    trip(
      InvalidOptions.InvalidOptions,
      new InvalidOptions.InvalidOptions({
        module: "Backpressure",
        issues: [{ option: "capacity", actual: -1, allowed: "a whole number of at least 1" }]
      })
    )],
  [
    "InvalidKey",
    () =>
      trip(KeyHash.InvalidKey, new KeyHash.InvalidKey({ operation: "summary", path: "$.text", found: "a function" }))
  ],
  [
    "StageTimeout",
    () =>
      trip(Pipeline.StageTimeout, new Pipeline.StageTimeout({ pipeline: "p", stage: "s", after: Duration.seconds(1) }))
  ],
  ["AttemptTimeout", () => trip(Sluice.AttemptTimeout, new Sluice.AttemptTimeout({ after: Duration.seconds(1) }))],
  ["Rejected by the circuit", () => trip(rejected, new Sluice.Rejected({ reason: open }))],
  ["Rejected for capacity", () => trip(rejected, new Sluice.Rejected({ reason: shed }))],
  ["Rejected by the deadline", () => trip(rejected, new Sluice.Rejected({ reason: late }))]
]

/** There and back over a wire that knows nothing but JSON. */
const trip = <A extends Error, I>(schema: Schema.Codec<A, I>, error: A) => {
  const encoded: unknown = JSON.parse(JSON.stringify(Schema.encodeSync(schema)(error)))
  return [encoded, Schema.decodeUnknownSync(schema)(encoded), error] as const
}

describe("errors", () => {
  for (const [name, make] of errors) {
    it.effect(`${name} comes back from JSON as it was`, () =>
      Effect.sync(() => {
        const [encoded, decoded, error] = make()
        assert.deepStrictEqual(decoded, error)
        assert.strictEqual(decoded.constructor, error.constructor)
        assert.strictEqual(decoded.message, error.message)
        assert.notStrictEqual(decoded.message, "")
        assert.propertyVal(encoded, "_tag", Reflect.get(error, "_tag"))
      }))
  }

  it.effect("InvalidOptions tells after JSON what was given, also what JSON has no word for", () =>
    Effect.sync(() => {
      for (
        const actual of [Number.NaN, Number.POSITIVE_INFINITY, undefined, 10n, Symbol("s"), Object.create(null), []]
      ) {
        const issue = { option: "capacity", actual, allowed: "a whole number" }
        const error = new InvalidOptions.InvalidOptions({ module: "Backpressure", issues: [issue] })
        const [, decoded] = trip(InvalidOptions.InvalidOptions, error)
        assert.strictEqual(decoded.message, error.message)
        assert.notInclude(decoded.message, "null")
      }
    }))
})
