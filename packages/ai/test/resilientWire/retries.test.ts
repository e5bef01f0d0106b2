import { assert, describe, it } from "@effect/vitest"
import { Chat, LanguageModel } from "effect/ai"
import { Effect, ExecutionPlan, Ref, Stream } from "effect"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Journal from "@sluice/ai/testing/Journal"
import * as Turn from "@sluice/ai/testing/Turn"
import {
  callModel,
  endings,
  methods,
  provider,
  resilient,
  settled,
  target,
  wireNames,
  withoutDelay
} from "../support/wireCalls.ts"

// Which layer retries, and how many requests a provider gets in total.

const call = LanguageModel.generateText({ prompt: "hi" })

for (const wire of wireNames) {
  describe(`attempts over the ${wire} wire`, () => {
    it.live(
      "a retry at the same target follows the backoff, and a move to another target does not wait",
      () =>
        Effect.gen(function*() {
          const retry = RetryPolicy.exponential({ baseDelay: "40 millis", jitter: "none", maxAttempts: 3 })
          for (const method of methods) {
            const a = yield* provider([Turn.status(503)])
            const result = yield* Effect.provide(callModel(method), resilient([target("A", wire, a)], { retry }))
            assert.strictEqual(result.attempts.length, 3)
            const [first = 0, second = 0] = Journal.gaps(yield* settled(a))
            assert.isAtLeast(first, 38)
            assert.isAtLeast(second, 78)

            const b = yield* provider([Turn.answer("well")])
            const slow = RetryPolicy.constant({ baseDelay: "1 hour", jitter: "none" })
            const moved = yield* Effect.provide(
              callModel(method),
              resilient([target("A", wire, a), target("B", wire, b)], { retry: slow })
            )
            assert.strictEqual(moved.text, "well")
          }
        }).pipe(Effect.scoped),
      20_000
    )

    it.live("a failure that is soon over is retried at the target before the call moves on, and silence moves on at once", () =>
      Effect.gen(function*() {
        const limits = { firstTokenTimeout: "300 millis", attemptTimeout: "300 millis", breaker: false } as const
        const rows = [
          [Turn.status(503), "AA"],
          [Turn.refusal("overloaded"), "AA"],
          [Turn.reset(), "AA"],
          [Turn.reset({ afterTokens: 0 }), "AA"],
          [Turn.refusal("rateLimit", { retryAfter: "10 seconds" }), "AB"],
          [Turn.refusal("key"), "AB"],
          [Turn.hang(), "AB"]
        ] as const
        for (const method of methods) {
          for (const [turn, expected] of rows) {
            const a = yield* provider([turn, Turn.answer("well")])
            const b = yield* provider([Turn.answer("well")])
            const { log, text } = yield* Effect.provide(
              callModel(method),
              resilient([target("A", wire, a, expected === "AB" ? limits : {}), target("B", wire, b)])
            )
            assert.strictEqual(text, "well")
            const attempts = log.steps.filter(({ _tag }) => _tag === "Attempt")
            assert.strictEqual(attempts.map((step) => step.target).join(""), expected)
          }
        }
      }).pipe(Effect.scoped))

    it.live("a silent target is called again if there is no other", () =>
      Effect.gen(function*() {
        for (const method of methods) {
          const a = yield* provider([Turn.hang({ headers: true }), Turn.answer("well")])
          const result = yield* Effect.provide(
            callModel(method),
            // Enough attempts for a machine that is too busy to answer in time.
            resilient(
              [target("A", wire, a, { breaker: false, firstTokenTimeout: "200 millis", attemptTimeout: "300 millis" })],
              { retry: RetryPolicy.constant({ baseDelay: "1 milli", maxAttempts: 50 }) }
            )
          )
          assert.strictEqual(result.text, "well")
          assert.strictEqual(result.attempts[0], method === "streamText" ? "FirstTokenTimeout" : "AttemptTimeout")
          const entries = yield* settled(a)
          assert.deepStrictEqual([endings(entries)[0], endings(entries).at(-1)], ["clientClosed", "complete"])
          assert.strictEqual(new Set(entries.map(({ idempotencyKey }) => idempotencyKey)).size, 1)
        }
      }).pipe(Effect.scoped), 20_000)

    it.live("attempts are shared with a RetryPolicy around the call and multiplied by any other retry", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.status(503)])
        const requests = Effect.map(a.journal, ({ length }) => length)
        const model = resilient([target("A", wire, a, { breaker: false })])
        const plan = ExecutionPlan.make({ provide: model, attempts: 2 })

        yield* Effect.exit(Effect.provide(RetryPolicy.retry(call, withoutDelay), model))
        assert.strictEqual(yield* requests, 3)
        yield* a.clear
        yield* Effect.exit(Effect.provide(Effect.retry(call, { times: 2 }), model))
        assert.strictEqual(yield* requests, 9)
        yield* a.clear
        yield* Effect.exit(Effect.withExecutionPlan(call, plan))
        assert.strictEqual(yield* requests, 6)
        yield* a.clear
        const once = resilient([target("A", wire, a, { breaker: false })], { retry: RetryPolicy.none })
        yield* Effect.exit(Effect.withExecutionPlan(call, ExecutionPlan.make({ provide: once, attempts: 2 })))
        assert.strictEqual(yield* requests, 2)
      }).pipe(Effect.scoped))

    it.live("a chat sees retries as one call and keeps the partial output of a failed stream", () =>
      Effect.gen(function*() {
        const cut = Turn.cut({ content: "one two three", afterTokens: 2 })
        const a = yield* provider([Turn.status(503), Turn.answer("well"), Turn.status(400), cut])
        const history = yield* Effect.gen(function*() {
          const chat = yield* Chat.empty
          const lengths: Array<number> = []
          const recordLength = Effect.map(Ref.get(chat.history), ({ content }) => void lengths.push(content.length))
          yield* chat.generateText({ prompt: "hi" })
          yield* recordLength
          yield* Effect.flip(chat.generateText({ prompt: "hi" }))
          yield* recordLength
          yield* Effect.flip(Stream.runDrain(chat.streamText({ prompt: "hi" })))
          yield* recordLength
          return lengths
        }).pipe(Effect.provide(resilient([target("A", wire, a)])))
        assert.deepStrictEqual(history, [2, 2, 4])
      }).pipe(Effect.scoped))
  })
}
