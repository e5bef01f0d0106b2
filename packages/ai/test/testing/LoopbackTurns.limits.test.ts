import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { lastEntry, loopbackWires, makeProvider } from "../support/loopbackWires.ts"

for (const wire of loopbackWires) {
  describe(`limits and refusals over the ${wire.name} wire`, () => {
    const { send } = wire

    it.live("a wrong key, model or body is refused in the form of the wire", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([], { models: ["m1"] })
        const wrong = yield* send(provider, false, {}, { authorization: "Bearer no", "x-api-key": "no" })
        assert.deepStrictEqual(
          [wrong.status, wire.error(wrong.body)[0]],
          [401, wire.name === "openai" ? "invalid_request_error" : "authentication_error"]
        )
        const unknown = yield* send(provider, false, { model: "m2" })
        assert.deepStrictEqual([unknown.status, wire.error(unknown.body)[1].includes("m2")], [404, true])
        const bad = yield* send(provider, false, { messages: [] })
        assert.deepStrictEqual([bad.status, wire.error(bad.body)[0]], [400, "invalid_request_error"])
      }))

    it.live("requests over the request limit are refused, with the remaining requests and a Retry-After", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([], { limits: { requestsPerMinute: 600, tokensPerMinute: 100_000 } })
        const first = yield* send(provider, false)
        const prefix = wire.name === "openai" ? "x-ratelimit-" : "anthropic-ratelimit-"
        const name = (what: string, kind: string) =>
          prefix + (wire.name === "openai" ? `${kind}-${what}` : `${what}-${kind}`)
        assert.strictEqual(first.headers[name("requests", "limit")], "600")
        assert.strictEqual(first.headers[name("requests", "remaining")], "599")
        assert.match(
          first.headers[name("tokens", "reset")]!,
          wire.name === "openai" ? /^\d+(\.\d+)?m?s$/ : /^\d{4}-.*Z$/
        )
        const few = yield* makeProvider([], { limits: { requestsPerMinute: 2 } })
        const statuses = yield* Effect.forEach([1, 2, 3], () => send(few, true))
        assert.deepStrictEqual(statuses.map(({ status }) => status), [200, 200, 429])
        const limited = statuses[2]!
        assert.strictEqual(limited.headers[name("requests", "remaining")], "0")
        const retryAfter = RetryAfter.fromHeaders(limited.headers)!
        assert.isTrue(Duration.between(retryAfter, { minimum: Duration.seconds(28), maximum: Duration.seconds(30) }))
        assert.deepInclude(yield* lastEntry(few), { limited: "requests", ending: "refused", outputTokens: 0 })
        yield* few.clear
        assert.strictEqual((yield* send(few, true)).status, 200)
      }))

    it.live("input and output tokens count toward the token limit, which refills", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.answer("a ".repeat(54).trim())], {
          limits: { tokensPerMinute: 600 }
        })
        // The first answer uses 644 of 600 tokens. The next request waits until 45 are refilled, which takes 4.5 seconds.
        const first = yield* send(provider, false, { messages: [{ role: "user", content: "w ".repeat(590).trim() }] })
        assert.strictEqual(first.status, 200)
        const second = yield* send(provider, false)
        assert.strictEqual(second.status, 429)
        assert.strictEqual((yield* lastEntry(provider)).limited, "tokens")
        yield* Effect.sleep(Duration.sum(RetryAfter.fromHeaders(second.headers)!, Duration.millis(5)))
        assert.strictEqual((yield* send(provider, false)).status, 200)
      }), 20_000)

    it.live("requests over the concurrency limit are refused", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.answer("a", { firstTokenMillis: 2_000 })], {
          limits: { concurrent: 2 }
        })
        const all = yield* Effect.forEach([1, 2, 3, 4], () => send(provider, false), { concurrency: "unbounded" })
        assert.deepStrictEqual(all.map(({ status }) => status).toSorted(), [200, 200, 429, 429])
        assert.strictEqual((yield* send(provider, false)).status, 200)
        assert.deepStrictEqual(
          (yield* provider.journal).flatMap(({ limited }) => limited === undefined ? [] : [limited]),
          ["concurrent", "concurrent"]
        )
      }), 20_000)
  })
}

it.effect("invalid turns and limits are refused", () =>
  Effect.gen(function*() {
    const error = yield* Effect.flip(
      LoopbackProvider.make({
        turns: [Turn.status(99)],
        limits: { requestsPerMinute: 0, concurrent: 1.5 }
      })
    )
    assert.deepStrictEqual(error._tag === "InvalidOptions" && error.issues.map(({ option }) => option), [
      "turns",
      "limits.requestsPerMinute",
      "limits.concurrent"
    ])
  }))
