import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Layer, Random, Schema } from "effect"
import { LanguageModel } from "effect/ai"
import * as IdempotencyKey from "@sluice/ai/IdempotencyKey"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deadline from "@sluice/core/Deadline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { AttemptTimeout } from "@sluice/core/Sluice"
import {
  atOnce,
  build,
  errorOf,
  failed,
  ok,
  plainRetry,
  rejectionOf,
  runFor,
  summaryOf,
  valueOf
} from "./support/resilient.ts"

describe("unusable answers", () => {
  const Person = Schema.Struct({ name: Schema.String })
  const person = (model: LanguageModel.LanguageModel) =>
    Effect.map(model.generateObject({ prompt: "who?", schema: Person }), ({ value }) => value.name)
  const wrong = Turn.answer("{\"nom\":1}")
  const right = Turn.answer("{\"name\":\"Ada\"}")

  it.effect("an unusable answer is re-asked at the same target with a note, outside the attempts of the retry", () =>
    Effect.gen(function*() {
      const one = yield* build({ A: [wrong, right] }, { retry: RetryPolicy.none })
      assert.strictEqual(summaryOf(yield* runFor(0, person(one.model))), "Ada")
      const calls = yield* one.targets[0]?.journal ?? Effect.succeed([])
      assert.deepStrictEqual(calls.map(({ startedAt }) => startedAt), [0, 0])
      assert.notStrictEqual(calls[0]?.digest, calls[1]?.digest)
      assert.include(calls[1]?.prompt ?? "", "does not have the form")
      assert.notStrictEqual(calls[0]?.idempotencyKey, calls[1]?.idempotencyKey)
    }))

  it.effect("re-asks have their own budget beside the retry's attempts", () =>
    Effect.gen(function*() {
      const { model, targetCalls } = yield* build({ A: [wrong, failed, failed, right] }, {
        retry: plainRetry({ maxAttempts: 3 })
      })
      assert.strictEqual(summaryOf(yield* runFor("1 minute", person(model))), "Ada")
      assert.strictEqual((yield* targetCalls).length, 4)
    }))

  it.effect("an unusable answer is re-asked only once by default", () =>
    Effect.gen(function*() {
      const { model, targetCalls } = yield* build({ A: [wrong, wrong, right], B: [right] })
      assert.strictEqual(summaryOf(yield* runFor("1 minute", person(model))), "StructuredOutputError")
      assert.strictEqual((yield* targetCalls).length, 2)
    }))

  it.effect("`reasks: 0` switches re-asks off", () =>
    Effect.gen(function*() {
      const { model, targetCalls } = yield* build({ A: [wrong, right] }, { reasks: 0 })
      assert.strictEqual(summaryOf(yield* runFor("1 minute", person(model))), "StructuredOutputError")
      assert.strictEqual((yield* targetCalls).length, 1)
    }))

  it.effect("an empty answer is re-asked and does not open the circuit", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1) }
      const { generate, targetCalls } = yield* build({ A: { turns: [Turn.empty(), ok, Turn.empty()], breaker } })
      assert.strictEqual(summaryOf(yield* runFor("1 minute", generate)), "good")
      const exit = yield* runFor("1 minute", generate)
      assert.deepInclude(rejectionOf(exit), { _tag: "EmptyAnswer", target: "A" })
      assert.strictEqual((yield* targetCalls).length, 4)
    }))

  it.effect("an empty answer that reached its length limit is returned", () =>
    Effect.gen(function*() {
      const { model, targetCalls } = yield* build({ A: [Turn.empty({ finish: "length" })] })
      const response = valueOf(yield* runFor(0, model.generateText({ prompt: "hi" })))
      assert.strictEqual(response.finishReason, "length")
      assert.strictEqual((yield* targetCalls).length, 1)
    }))
})

describe("timeouts and deadlines", () => {
  const hang = Turn.hang()

  it.effect("an attempt past attemptTimeout is interrupted, and the next target is called", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [hang], B: [ok] }, { attemptTimeout: "10 seconds" })
      assert.strictEqual(summaryOf(yield* runFor("10 seconds", generate)), "good")
      assert.deepStrictEqual(yield* targetCalls, ["A Hang interrupted 0-10", "B Answer complete 10-10"])
    }))

  it.effect("an attempt past attemptTimeout fails with a typed, retryable error", () =>
    Effect.gen(function*() {
      const { generate } = yield* build({ A: { turns: [hang], attemptTimeout: "10 seconds" } }, {
        retry: RetryPolicy.none
      })
      const exit = yield* runFor("10 seconds", generate)
      assert.deepStrictEqual(rejectionOf(exit), new AttemptTimeout({ after: Duration.seconds(10) }))
      assert.strictEqual(errorOf(exit).reason._tag, "InternalProviderError")
      assert.isTrue(errorOf(exit).isRetryable)
    }))

  it.effect("a target that timed out is not called again before the other targets", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [hang, ok], B: [failed], C: [ok] }, {
        attemptTimeout: "10 seconds"
      })
      assert.strictEqual(summaryOf(yield* runFor("1 minute", generate)), "good")
      assert.deepStrictEqual((yield* targetCalls).map((line) => line.split(" ")[0]), ["A", "B", "C"])
    }))

  it.effect("the deadline bounds the whole call, whether set by option or from outside, and is not retried", () =>
    Effect.gen(function*() {
      for (const [deadline, from] of [["5 seconds", 0], [undefined, 5]] as const) {
        const { generate, inUse, targetCalls } = yield* build({ A: [failed], B: [hang] }, { ...atOnce, deadline })
        const called = deadline === undefined ? Deadline.within(generate, "5 seconds") : generate
        const exit = yield* runFor("5 seconds", called)
        if (deadline === undefined) assert.isTrue(Exit.isFailure(exit))
        else {
          assert.deepInclude(rejectionOf(exit), { _tag: "DeadlineExceeded", at: "Attempt" })
          assert.isFalse(errorOf(exit).isRetryable)
        }
        assert.deepStrictEqual(yield* targetCalls, [
          `A Status failed ${from}-${from}`,
          `B Hang interrupted ${from}-${from + 5}`
        ])
        assert.strictEqual(yield* inUse, 0)
      }
    }))

  it.effect("a deadline of 0 fails with DeadlineExceeded after at most one request", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [hang] }, { deadline: 0 })
      assert.deepInclude(rejectionOf(yield* runFor(0, generate)), { _tag: "DeadlineExceeded" })
      assert.isAtMost((yield* targetCalls).length, 1)
    }))

  it.effect("an exceeded deadline counts against the circuit if the target had at least one second", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1) }
      for (const [deadline, state] of [["500 millis", "Closed"], ["2 seconds", "Open"]] as const) {
        const { generate, resilient } = yield* build({ A: { turns: [hang], breaker } }, { deadline })
        yield* runFor("2 seconds", generate)
        assert.strictEqual((yield* resilient.targets)[0]?.circuit?._tag, state)
      }
    }))
})

describe("a resilient model as a target", () => {
  it.effect("an inner model past the outer attemptTimeout counts as timed out, and the next target is called", () =>
    Effect.gen(function*() {
      const inner = yield* build({ A: [Turn.hang()] })
      const other = yield* build({ B: [ok] })
      const layer = ResilientModel.layer({
        attemptTimeout: "5 seconds",
        targets: [inner, other].map(({ model }, at) => ({
          name: `${at}`,
          layer: Layer.succeed(LanguageModel.LanguageModel, model)
        }))
      })
      const generate = Effect.map(LanguageModel.generateText({ prompt: "hi" }), ({ text }) => text)
      assert.strictEqual(summaryOf(yield* runFor("5 seconds", Effect.provide(generate, layer))), "good")
      assert.deepStrictEqual(yield* inner.targetCalls, ["A Hang interrupted 0-5"])
    }))
})

describe("the attempt budget", () => {
  it.effect("a retry around the call shares the attempt budget", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [failed] }, { retry: plainRetry({ maxAttempts: 3 }) })
      const retried = RetryPolicy.retry(generate, plainRetry({ maxAttempts: 2 }))
      assert.strictEqual(summaryOf(yield* runFor("1 minute", retried)), "InternalProviderError")
      assert.strictEqual((yield* targetCalls).length, 2)
    }))

  it.effect("a resilient model inside another shares the attempt budget", () =>
    Effect.gen(function*() {
      const inner = yield* build({ A: [failed] }, { retry: plainRetry({ maxAttempts: 3 }) })
      const layer = Layer.succeed(LanguageModel.LanguageModel, inner.model)
      const outer = ResilientModel.layer({ retry: plainRetry({ maxAttempts: 4 }), targets: [{ name: "inner", layer }] })
      const generate = Effect.provide(LanguageModel.generateText({ prompt: "hi" }), outer)
      yield* runFor("10 minutes", generate)
      assert.strictEqual((yield* inner.targetCalls).length, 4)
    }))
})

describe("the order of targets", () => {
  it.effect("the target with the lowest order is called first", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [ok], B: { turns: [ok], order: -1 } })
      yield* runFor(0, generate)
      assert.deepStrictEqual(yield* targetCalls, ["B Answer complete 0-0"])
    }))

  it.effect("targets of equal order share the calls by weight", () =>
    Effect.gen(function*() {
      const { generate, targets } = yield* build({
        A: { turns: [ok], order: 0 },
        B: { turns: [ok], order: 0, weight: 3 }
      })
      const calls = 2_000
      yield* Effect.repeat(generate, { times: calls - 1 }).pipe(Random.withSeed("a seed"))
      const counts = yield* Effect.forEach(targets, ({ journal }) => Effect.map(journal, ({ length }) => length))
      assert.strictEqual((counts[0] ?? 0) + (counts[1] ?? 0), calls)
      assert.closeTo((counts[1] ?? 0) / calls, 0.75, 0.03)
    }), 30_000)
})

describe("idempotency keys", () => {
  const keysOf = (
    targets: ReadonlyArray<{ readonly journal: Effect.Effect<ReadonlyArray<{ readonly idempotencyKey?: string }>> }>
  ) =>
    Effect.map(
      Effect.forEach(targets, ({ journal }) => journal),
      (all) => all.flat().map(({ idempotencyKey }) => idempotencyKey)
    )

  it.effect("all attempts of a call have the same idempotency key, and the next call has another", () =>
    Effect.gen(function*() {
      const { generate, targets } = yield* build({ A: [failed, failed, ok, ok] })
      yield* runFor("1 minute", generate)
      yield* runFor("1 minute", generate)
      const keys = yield* keysOf(targets)
      assert.strictEqual(keys.length, 4)
      assert.match(keys[0] ?? "", /^call_[0-9a-z]{16}$/)
      assert.strictEqual(new Set(keys.slice(0, 3)).size, 1)
      assert.notStrictEqual(keys[3], keys[0])
    }))

  it.effect("the caller's idempotency key is used if there is one", () =>
    Effect.gen(function*() {
      const { generate, targets } = yield* build({ A: [failed, ok] })
      yield* runFor("1 minute", Effect.provideService(generate, IdempotencyKey.CurrentIdempotencyKey, "order-17"))
      assert.deepStrictEqual(yield* keysOf(targets), ["order-17", "order-17"])
    }))
})
