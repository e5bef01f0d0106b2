import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Option } from "effect"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import * as Journal from "@sluice/ai/testing/Journal"
import * as Turn from "@sluice/ai/testing/Turn"
import { json, rawServer, sse } from "../support/rawServer.ts"
import { callModel, endings, methods, provider, resilient, settled, target, wireNames } from "../support/wireCalls.ts"
import { isStreamed, wires } from "../support/wires.ts"

// Retries have almost no delay in these tests, so that any delay a provider sees is its Retry-After.

const delayMillis = 80
/** A timer can fire up to 1 ms early, and a date is precise to 1 ms. */
const toleranceMillis = 2

interface Form {
  readonly what: string
  readonly headers?: () => { readonly [name: string]: string }
  readonly message?: string
  /** The delay that it asks for, in milliseconds. */
  readonly delayOf?: (sentAt: number) => number
}

const nextSecond = () => new Date(Math.ceil(Date.now() / 1000) * 1000)

const forms: ReadonlyArray<Form> = [
  { what: "retry-after-ms", headers: () => ({ "retry-after-ms": `${delayMillis}` }) },
  { what: "x-ms-retry-after-ms", headers: () => ({ "x-ms-retry-after-ms": `${delayMillis}` }) },
  { what: "retry-after in fractional seconds", headers: () => ({ "retry-after": `${delayMillis / 1000}` }) },
  { what: "retry-after in whole seconds", headers: () => ({ "retry-after": "1" }), delayOf: () => 1000 },
  {
    what: "retry-after as a date",
    headers: () => ({ "retry-after": nextSecond().toUTCString() }),
    delayOf: (sentAt) => Math.ceil(sentAt / 1000) * 1000 - sentAt
  },
  {
    what: "an exhausted limit of OpenAI",
    headers: () => ({ "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": `${delayMillis}ms` })
  },
  {
    what: "an exhausted limit of Anthropic",
    headers: () => ({
      "anthropic-ratelimit-requests-remaining": "0",
      "anthropic-ratelimit-requests-reset": new Date(Date.now() + delayMillis).toISOString()
    })
  },
  { what: "a delay in the error text", message: `Rate limit reached. Please try again in ${delayMillis}ms.` }
]

for (const [at, wire] of wires.entries()) {
  const name = wireNames[at] ?? assert.fail("a wire without a name")
  describe.concurrent(`Retry-After over the ${name} wire`, () => {
    for (const { delayOf = () => delayMillis, headers, message = "Slow down", what } of forms) {
      for (const status of [429, 503]) {
        it.live(`a retry waits for ${what} with status ${status}`, () =>
          Effect.gen(function*() {
            for (const method of methods) {
              const seen: Array<number> = []
              const server = yield* rawServer((response, { body }, n) => {
                seen.push(Date.now())
                if (n === 1) return json(response, status, wire.error({ message }), headers?.() ?? {})
                if (!isStreamed(body)) return json(response, 200, wire.whole("well"))
                sse(response, wire.head + wire.delta("well") + wire.finish + wire.done)
              })
              const result = yield* Effect.provide(callModel(method), resilient([target("A", name, server)]))
              assert.deepStrictEqual([result.text, result.log.steps.length], ["well", 2])
              const [first = 0, second = 0] = seen
              assert.isAtLeast(second - first, delayOf(first) - toleranceMillis)
            }
          }).pipe(Effect.scoped), 30_000)
      }
    }
  })
}

for (const wire of wireNames) {
  describe(`rate-limited providers over the ${wire} wire`, () => {
    it.live("a rate-limited provider gets no calls while another one answers", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.refusal("rateLimit", { retryAfter: "1 minute" })])
        const b = yield* provider([Turn.answer("well")])
        yield* Effect.gen(function*() {
          const first = yield* callModel("generateText")
          assert.deepStrictEqual(first.attempts, ["RateLimitError", "ok"])
          for (const method of methods) {
            const result = yield* callModel(method)
            assert.strictEqual(result.answeredBy?.target, "B")
            assert.deepStrictEqual(
              result.log.steps.map((step) => step._tag === "Skipped" ? step.why : step.target),
              ["RateLimited", "B"]
            )
          }
        }).pipe(Effect.provide(resilient([target("A", wire, a), target("B", wire, b)])))
        assert.deepStrictEqual(endings(yield* settled(a)), ["refused"])
        assert.strictEqual((yield* settled(b)).length, 3)
      }).pipe(Effect.scoped))

    it.live("a Retry-After that is too long is not waited for and is in the error", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.refusal("rateLimit", { retryAfter: "1 hour" })])
        yield* Effect.gen(function*() {
          const first = yield* callModel("generateText")
          if (first.error?.reason._tag !== "RateLimitError") return assert.fail(first.error?.reason._tag)
          assert.deepStrictEqual(RetryAfter.fromAiError(first.error), Duration.hours(1))
          // The next call is refused without a request.
          const second = yield* callModel("streamText")
          if (second.error?.reason._tag !== "RateLimitError") return assert.fail(second.error?.reason._tag)
          assert.strictEqual(Option.getOrThrow(AiRejection.fromAiError(second.error))._tag, "NoTarget")
          assert.isAbove(Duration.toMinutes(RetryAfter.fromAiError(second.error) ?? Duration.zero), 50)
        }).pipe(Effect.provide(resilient([target("A", wire, a)])))
        assert.deepStrictEqual(endings(yield* settled(a)), ["refused"])
      }).pipe(Effect.scoped))

    it.live("a Retry-After past the deadline is not waited for", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.refusal("rateLimit", { retryAfter: "30 seconds" })])
        for (const method of methods) {
          const result = yield* Effect.provide(
            callModel(method),
            resilient([target("A", wire, a)], { deadline: "20 seconds" })
          )
          assert.strictEqual(result.error?.reason._tag, "RateLimitError")
          assert.deepStrictEqual(result.attempts, ["RateLimitError"])
        }
      }).pipe(Effect.scoped))
  })

  describe(`provider limits over the ${wire} wire`, () => {
    it.live("calls over the request limit go to the next target", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.answer("from A")], { limits: { requestsPerMinute: 2 } })
        const b = yield* provider([Turn.answer("from B")])
        const texts = yield* Effect.forEach(
          [...methods, ...methods, ...methods],
          (method) => Effect.map(callModel(method), ({ text }) => text)
        ).pipe(Effect.provide(resilient([target("A", wire, a), target("B", wire, b)])))
        assert.deepStrictEqual(texts, ["from A", "from A", "from B", "from B", "from B", "from B"])
        const seen = yield* settled(a)
        assert.deepStrictEqual(seen.map(({ limited }) => limited), [undefined, undefined, "requests"])
        assert.strictEqual((yield* settled(b)).length, 4)
      }).pipe(Effect.scoped))

    it.live("a call over the token limit waits for its Retry-After", () =>
      Effect.gen(function*() {
        // 100 tokens a second come back, so the second call has four seconds to meet the limit.
        const usage = { inputTokens: 1, outputTokens: 6400 }
        const a = yield* provider([Turn.answer("long", { usage }), Turn.answer("short")], {
          limits: { tokensPerMinute: 6000 }
        })
        const texts = yield* Effect.forEach(methods, (method) => Effect.map(callModel(method), ({ text }) => text))
          .pipe(
            Effect.provide(resilient([target("A", wire, a)]))
          )
        assert.deepStrictEqual(texts, ["long", "short"])
        const seen = yield* settled(a)
        assert.strictEqual(seen[1]?.limited, "tokens")
        assert.deepStrictEqual(Journal.soonerThanRetryAfter(seen), [])
        assert.isAtLeast(Journal.gaps(seen)[1] ?? 0, (seen[1]?.retryAfterMillis ?? 1e9) - toleranceMillis)
      }).pipe(Effect.scoped))

    it.live("a target with the concurrency limit of its provider never exceeds it", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.answer("well", { firstTokenMillis: 5 })], { limits: { concurrent: 2 } })
        const results = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, n) => methods[n % 2] ?? "streamText"),
          (method, n) => callModel(method, `prompt ${n}`),
          { concurrency: "unbounded" }
        ).pipe(Effect.provide(resilient([target("A", wire, a, { backpressure: { capacity: 2, queue: 100 } })])))
        assert.deepStrictEqual(results.map(({ attempts }) => attempts), results.map(() => ["ok"]))
        const seen = yield* settled(a)
        assert.deepStrictEqual([seen.length, Journal.maxOpen(seen)], [20, 2])
      }).pipe(Effect.scoped))
  })
}
