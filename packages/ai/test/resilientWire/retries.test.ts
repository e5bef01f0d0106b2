import { assert, describe, it } from "@effect/vitest"
import { Chat, LanguageModel } from "effect/ai"
import { Effect, ExecutionPlan, Ref, Stream } from "effect"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Journal from "@sluice/ai/testing/Journal"
import * as Turn from "@sluice/ai/testing/Turn"
import { ask, atOnce, endings, methods, provider, resilient, settled, target, wireNames } from "./support.ts"

// Who retries, and how often a provider is asked in the end.

const call = LanguageModel.generateText({ prompt: "hi" })

for (const wire of wireNames) {
  describe(`attempts over ${wire}'s wire`, () => {
    it.live("wait as the policy says between two at one target, and not at all before another one", () =>
      Effect.gen(function*() {
        const retry = RetryPolicy.exponential({ baseDelay: "40 millis", jitter: "none", maxAttempts: 3 })
        for (const method of methods) {
          const a = yield* provider([Turn.status(503)])
          const told = yield* Effect.provide(ask(method), resilient([target("A", wire, a)], { retry }))
          assert.strictEqual(told.attempts.length, 3)
          const [first = 0, second = 0] = Journal.gaps(yield* settled(a))
          assert.isAtLeast(first, 38)
          assert.isAtLeast(second, 78)

          const b = yield* provider([Turn.answer("well")])
          const slow = RetryPolicy.constant({ baseDelay: "1 hour", jitter: "none" })
          const moved = yield* Effect.provide(
            ask(method),
            resilient([target("A", wire, a), target("B", wire, b)], { retry: slow })
          )
          assert.strictEqual(moved.text, "well")
        }
      }).pipe(Effect.scoped))

    it.live("follow silence at the same target, where there is no other", () =>
      Effect.gen(function*() {
        for (const method of methods) {
          const a = yield* provider([Turn.hang({ headers: true }), Turn.answer("well")])
          const told = yield* Effect.provide(
            ask(method),
            // As many as a machine may need that is too busy to answer in time.
            resilient(
              [target("A", wire, a, { breaker: false, firstTokenTimeout: "200 millis", attemptTimeout: "300 millis" })],
              { retry: RetryPolicy.constant({ baseDelay: "1 milli", maxAttempts: 50 }) }
            )
          )
          assert.strictEqual(told.text, "well")
          assert.strictEqual(told.attempts[0], method === "streamText" ? "FirstTokenTimeout" : "AttemptTimeout")
          const seen = yield* settled(a)
          assert.deepStrictEqual([endings(seen)[0], endings(seen).at(-1)], ["clientClosed", "complete"])
          assert.strictEqual(new Set(seen.map(({ idempotencyKey }) => idempotencyKey)).size, 1)
        }
      }).pipe(Effect.scoped))

    it.live("are shared with a RetryPolicy around the call, and multiplied by any other retry", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.status(503)])
        const asked = Effect.map(a.journal, ({ length }) => length)
        const model = resilient([target("A", wire, a, { breaker: false })])
        const plan = ExecutionPlan.make({ provide: model, attempts: 2 })

        yield* Effect.exit(Effect.provide(RetryPolicy.retry(call, atOnce), model))
        assert.strictEqual(yield* asked, 3)
        yield* a.clear
        yield* Effect.exit(Effect.provide(Effect.retry(call, { times: 2 }), model))
        assert.strictEqual(yield* asked, 9)
        yield* a.clear
        yield* Effect.exit(Effect.withExecutionPlan(call, plan))
        assert.strictEqual(yield* asked, 6)
        yield* a.clear
        const once = resilient([target("A", wire, a, { breaker: false })], { retry: RetryPolicy.none })
        yield* Effect.exit(Effect.withExecutionPlan(call, ExecutionPlan.make({ provide: once, attempts: 2 })))
        assert.strictEqual(yield* asked, 2)
      }).pipe(Effect.scoped))

    it.live("are one call to a chat, which keeps what was handed on of a stream that failed", () =>
      Effect.gen(function*() {
        const cut = Turn.cut({ content: "one two three", afterTokens: 2 })
        const a = yield* provider([Turn.status(503), Turn.answer("well"), Turn.status(400), cut])
        const history = yield* Effect.gen(function*() {
          const chat = yield* Chat.empty
          const lengths: Array<number> = []
          const note = Effect.map(Ref.get(chat.history), ({ content }) => void lengths.push(content.length))
          yield* chat.generateText({ prompt: "hi" })
          yield* note
          yield* Effect.flip(chat.generateText({ prompt: "hi" }))
          yield* note
          yield* Effect.flip(Stream.runDrain(chat.streamText({ prompt: "hi" })))
          yield* note
          return lengths
        }).pipe(Effect.provide(resilient([target("A", wire, a)])))
        assert.deepStrictEqual(history, [2, 2, 4])
      }).pipe(Effect.scoped))
  })
}
