import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Layer, Schedule } from "effect"
import { range } from "./support/effects.ts"
import {
  answering,
  breaker,
  Cached,
  inTurn,
  makeGpt,
  refusalOf,
  retry,
  stateTag,
  withStore
} from "./support/policies.ts"

describe("Sluice.Service, describe and options", () => {
  class Gpt extends Sluice.Service<Gpt>()("test/Gpt", { name: "gpt", breaker: breaker(1) }) {}
  class Claude extends Sluice.Service<Claude>()("test/Claude", { name: "claude", breaker: breaker(1) }) {}
  class Backup extends Sluice.Service<Backup>()("test/Backup", { name: "backup", breaker: breaker(1) }) {}
  const failed = Effect.exit(Gpt.use((gpt) => gpt.protect(Effect.fail("503"), { key: "openai" })))

  it.effect("two policies do not share circuits", () =>
    Effect.gen(function*() {
      yield* failed
      assert.strictEqual(yield* Effect.flatMap(Gpt, (gpt) => stateTag(gpt, "openai")), "Open")
      assert.strictEqual(yield* Effect.flatMap(Claude, (claude) => stateTag(claude, "openai")), "Closed")
    }).pipe(Effect.provide([Gpt.layer, Claude.layer])))

  it.effect("policies over one store share the circuits of the same keys", () =>
    Effect.gen(function*() {
      yield* failed
      assert.strictEqual(yield* Effect.flatMap(Backup, (backup) => stateTag(backup, "openai")), "Open")
      const exit = yield* Effect.exit(Backup.use((backup) => backup.protect(Effect.void, { key: "openai" })))
      assert.deepInclude(refusalOf(exit), { _tag: "CircuitOpen", policy: "backup" })
    }).pipe(
      Effect.provide(Layer.provide(Layer.mergeAll(Gpt.layerStore, Backup.layerStore), CircuitBreakerStore.layerMemory))
    ))

  it.effect("layerNoop returns every call unchanged", () =>
    Effect.gen(function*() {
      for (const _ of range(9)) yield* failed
      const gpt = yield* Gpt
      const call = answering(0)
      assert.strictEqual(gpt.protect(call, { deadline: 0, dedupe: Cached("x") }), call)
      assert.strictEqual(gpt.protect({ deadline: 0 })(call), call)
      assert.strictEqual(yield* stateTag(gpt, "openai"), "Closed")
      assert.deepStrictEqual(gpt.describe, [])
    }).pipe(Effect.provide(Gpt.layerNoop)))

  it.effect("a policy without parts admits every call", () =>
    Effect.gen(function*() {
      const plain = yield* makeGpt()
      const { effect, runs } = inTurn(Effect.fail("503"))
      for (const _ of range(9)) assert.strictEqual(yield* Effect.flip(plain.protect(effect)), "503")
      assert.strictEqual(runs(), 9)
    }).pipe(withStore))

  it.effect("describe lists the parts of the policy, outermost first", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({
        retry: retry(3),
        breaker: breaker(1),
        backpressure: { capacity: 2, queue: 3 },
        attemptTimeout: "5 seconds"
      })
      assert.deepStrictEqual(gpt.describe, [
        "deduplicate: one run for a key",
        "slots: 2 running and 3 queued",
        "retry: 3 attempts, first delay 1s, jitter none",
        "permits: 2 at once",
        "circuit: one for each key, opens for 10s after 1 failure in a row",
        "attempt timeout: 5s"
      ])
    }).pipe(withStore))

  it.effect("describe lists the options of each part", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({
        deadline: "1 minute",
        deduplicator: { timeToLive: "1 hour" },
        retry: RetryPolicy.exponential({ baseDelay: "200 millis", factor: 3 }),
        breaker: {
          openFor: Schedule.exponential("1 second"),
          trip: [
            CircuitBreaker.failureRate({ rate: 0.5, calls: 40 }),
            CircuitBreaker.slowCallRate({ rate: 0.9, within: "1 minute", minimum: 7 })
          ]
        }
      })
      assert.deepStrictEqual(gpt.describe, [
        "deadline: 1m, for calls that set none",
        "deduplicate: one run for a key, results cached for 1h",
        "retry: 3 attempts, first delay 200ms, then times 3, at most 1m, jitter full",
        "circuit: one for each key, opens for a time by its schedule after 50% failures in the last 40 calls " +
        "(of at least 20 calls), or 90% slow calls in the last 1m (of at least 7 calls)"
      ])
    }).pipe(withStore))

  it.effect("an empty name is refused", () =>
    Effect.gen(function*() {
      const invalid = yield* Effect.flip(makeGpt({ name: "" }))
      assert.strictEqual(invalid.message, `Sluice: name is ""; must be a non-empty string`)
    }).pipe(withStore))

  it.effect("a deadline that is no duration is a defect that names the option", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({})
      // @ts-expect-error no duration
      const exit = yield* Effect.exit(gpt.protect(Effect.void, { deadline: "5 minuts" }))
      const defect = Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(defect, InvalidOptions)
      assert.strictEqual(
        defect.message,
        `Deadline: deadline is 5 minuts; must be a duration, such as "5 seconds"`
      )
    }).pipe(withStore))

  it.effect("all invalid options are reported at once", () =>
    Effect.gen(function*() {
      const invalid = yield* Effect.flip(makeGpt({
        retry: RetryPolicy.exponential({ maxAttempts: 0, factor: 0 }),
        breaker: { trip: [CircuitBreaker.consecutive(0), CircuitBreaker.failureRate({ rate: 2 })], openFor: -1 },
        backpressure: { capacity: 0, queue: -1 },
        deduplicator: { capacity: 0, maxReplay: 0.5 },
        attemptTimeout: 0,
        minTimeout: Duration.infinity,
        deadline: 0
      }))
      assert.strictEqual(invalid.module, "Sluice")
      assert.deepStrictEqual(
        invalid.issues.map(({ option }) => option).sort(),
        [
          "attemptTimeout",
          "backpressure.capacity",
          "backpressure.queue",
          "breaker.openFor",
          "breaker.trip[0].failures",
          "breaker.trip[1].rate",
          "deadline",
          "deduplicator.capacity",
          "deduplicator.maxReplay",
          "minTimeout",
          "retry.factor",
          "retry.maxAttempts"
        ]
      )
    }).pipe(withStore))
})
