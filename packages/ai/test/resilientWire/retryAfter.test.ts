import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Option } from "effect"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import * as Journal from "@sluice/ai/testing/Journal"
import * as Turn from "@sluice/ai/testing/Turn"
import { isStreamed, wires } from "../support/wires.ts"
import { json, rawServer, sse } from "../support/rawServer.ts"
import { ask, endings, methods, provider, resilient, settled, target, wireNames } from "./support.ts"

// Attempts follow each other at once in these tests, so whatever a provider sees of a wait is what it asked for.

const wait = 80
/** Timers of a millisecond's precision fire up to one early, and a date has no more than that. */
const early = 2

interface Form {
  readonly what: string
  readonly headers?: () => { readonly [name: string]: string }
  readonly message?: string
  /** How long it asks for, in milliseconds. */
  readonly asks?: (sentAt: number) => number
}

const nextSecond = () => new Date(Math.ceil(Date.now() / 1000) * 1000)

const forms: ReadonlyArray<Form> = [
  { what: "retry-after-ms", headers: () => ({ "retry-after-ms": `${wait}` }) },
  { what: "x-ms-retry-after-ms", headers: () => ({ "x-ms-retry-after-ms": `${wait}` }) },
  { what: "retry-after, in broken seconds", headers: () => ({ "retry-after": `${wait / 1000}` }) },
  { what: "retry-after, in whole seconds", headers: () => ({ "retry-after": "1" }), asks: () => 1000 },
  {
    what: "retry-after, a date",
    headers: () => ({ "retry-after": nextSecond().toUTCString() }),
    asks: (sentAt) => Math.ceil(sentAt / 1000) * 1000 - sentAt
  },
  {
    what: "a limit of OpenAI's that is used up",
    headers: () => ({ "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": `${wait}ms` })
  },
  {
    what: "a limit of Anthropic's that is used up",
    headers: () => ({
      "anthropic-ratelimit-requests-remaining": "0",
      "anthropic-ratelimit-requests-reset": new Date(Date.now() + wait).toISOString()
    })
  },
  { what: "words", message: `Rate limit reached. Please try again in ${wait}ms.` }
]

for (const [at, wire] of wires.entries()) {
  const name = wireNames[at] ?? assert.fail("a wire without a name")
  describe.concurrent(`Retry-After over ${name}'s wire is waited for`, () => {
    for (const { asks = () => wait, headers, message = "Slow down", what } of forms) {
      for (const status of [429, 503]) {
        it.live(`${what}, with ${status}`, () =>
          Effect.gen(function*() {
            for (const method of methods) {
              const seen: Array<number> = []
              const server = yield* rawServer((response, { body }, n) => {
                seen.push(Date.now())
                if (n === 1) return json(response, status, wire.error({ message }), headers?.() ?? {})
                if (!isStreamed(body)) return json(response, 200, wire.whole("well"))
                sse(response, wire.head + wire.delta("well") + wire.finish + wire.done)
              })
              const told = yield* Effect.provide(ask(method), resilient([target("A", name, server)]))
              assert.deepStrictEqual([told.text, told.log.steps.length], ["well", 2])
              const [first = 0, second = 0] = seen
              assert.isAtLeast(second - first, asks(first) - early)
            }
          }).pipe(Effect.scoped))
      }
    }
  })
}

for (const wire of wireNames) {
  describe(`a provider over ${wire}'s wire that asks to be left alone`, () => {
    it.live("is left alone, while another one answers", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.refusal("rateLimit", { retryAfter: "1 minute" })])
        const b = yield* provider([Turn.answer("well")])
        yield* Effect.gen(function*() {
          const first = yield* ask("generateText")
          assert.deepStrictEqual(first.attempts, ["RateLimitError", "ok"])
          for (const method of methods) {
            const told = yield* ask(method)
            assert.strictEqual(told.answeredBy?.target, "B")
            assert.deepStrictEqual(
              told.log.steps.map((step) => step._tag === "Skipped" ? step.why : step.target),
              ["RateLimited", "B"]
            )
          }
        }).pipe(Effect.provide(resilient([target("A", wire, a), target("B", wire, b)])))
        assert.deepStrictEqual(endings(yield* settled(a)), ["refused"])
        assert.strictEqual((yield* settled(b)).length, 3)
      }).pipe(Effect.scoped))

    it.live("is not waited for if that takes too long, and the caller is told how long", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.refusal("rateLimit", { retryAfter: "1 hour" })])
        yield* Effect.gen(function*() {
          const first = yield* ask("generateText")
          if (first.error?.reason._tag !== "RateLimitError") return assert.fail(first.error?.reason._tag)
          assert.deepStrictEqual(RetryAfter.fromAiError(first.error), Duration.hours(1))
          // And who asks again is refused, without a request.
          const second = yield* ask("streamText")
          if (second.error?.reason._tag !== "RateLimitError") return assert.fail(second.error?.reason._tag)
          assert.strictEqual(Option.getOrThrow(AiRejection.fromAiError(second.error))._tag, "NoTarget")
          assert.isAbove(Duration.toMinutes(RetryAfter.fromAiError(second.error) ?? Duration.zero), 50)
        }).pipe(Effect.provide(resilient([target("A", wire, a)])))
        assert.deepStrictEqual(endings(yield* settled(a)), ["refused"])
      }).pipe(Effect.scoped))

    it.live("is not waited for past the deadline", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.refusal("rateLimit", { retryAfter: "30 seconds" })])
        for (const method of methods) {
          const told = yield* Effect.provide(ask(method), resilient([target("A", wire, a)], { deadline: "20 seconds" }))
          assert.strictEqual(told.error?.reason._tag, "RateLimitError")
          assert.deepStrictEqual(told.attempts, ["RateLimitError"])
        }
      }).pipe(Effect.scoped))
  })

  describe(`limits that are enforced over ${wire}'s wire`, () => {
    it.live("of requests: the rest goes elsewhere", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.answer("from A")], { limits: { requestsPerMinute: 2 } })
        const b = yield* provider([Turn.answer("from B")])
        const texts = yield* Effect.forEach(
          [...methods, ...methods, ...methods],
          (method) => Effect.map(ask(method), ({ text }) => text)
        ).pipe(Effect.provide(resilient([target("A", wire, a), target("B", wire, b)])))
        assert.deepStrictEqual(texts, ["from A", "from A", "from B", "from B", "from B", "from B"])
        const seen = yield* settled(a)
        assert.deepStrictEqual(seen.map(({ limited }) => limited), [undefined, undefined, "requests"])
        assert.strictEqual((yield* settled(b)).length, 4)
      }).pipe(Effect.scoped))

    it.live("of tokens: the next request waits as it is told, and is not too soon", () =>
      Effect.gen(function*() {
        const usage = { inputTokens: 1, outputTokens: 6010 }
        const a = yield* provider([Turn.answer("long", { usage }), Turn.answer("short")], {
          limits: { tokensPerMinute: 6000 }
        })
        const texts = yield* Effect.forEach(methods, (method) => Effect.map(ask(method), ({ text }) => text)).pipe(
          Effect.provide(resilient([target("A", wire, a)]))
        )
        assert.deepStrictEqual(texts, ["long", "short"])
        const seen = yield* settled(a)
        assert.strictEqual(seen[1]?.limited, "tokens")
        assert.deepStrictEqual(Journal.soonerThanRetryAfter(seen), [])
        assert.isAtLeast(Journal.gaps(seen)[1] ?? 0, (seen[1]?.retryAfterMillis ?? 1e9) - early)
      }).pipe(Effect.scoped))

    it.live("of open requests: never reached where the target has the same", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.answer("well", { firstTokenMillis: 5 })], { limits: { concurrent: 2 } })
        const told = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, n) => methods[n % 2] ?? "streamText"),
          (method, n) => ask(method, `prompt ${n}`),
          { concurrency: "unbounded" }
        ).pipe(Effect.provide(resilient([target("A", wire, a, { backpressure: { capacity: 2, queue: 100 } })])))
        assert.deepStrictEqual(told.map(({ attempts }) => attempts), told.map(() => ["ok"]))
        const seen = yield* settled(a)
        assert.deepStrictEqual([seen.length, Journal.maxOpen(seen)], [20, 2])
      }).pipe(Effect.scoped))
  })
}
