import { assert, describe, it } from "@effect/vitest"
import * as RateLimits from "@sluice/ai/RateLimits"

const now = Date.UTC(2026, 0, 1)
const sentAt = now - 900
const read = (headers: { readonly [name: string]: string }) =>
  RateLimits.fromHeaders(headers, { now, sentAt }).map(({ sentAt: at, ...fields }) => {
    assert.strictEqual(at, sentAt)
    return JSON.parse(JSON.stringify(fields))
  })

describe("rate-limit headers", () => {
  it("the headers of OpenAI and Groq have a limit, what remains, and a reset with units", () => {
    assert.deepStrictEqual(
      read({
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "995",
        "x-ratelimit-reset-requests": "7m12s",
        "x-ratelimit-limit-tokens": "8000",
        "x-ratelimit-remaining-tokens": "7923",
        "x-ratelimit-reset-tokens": "577ms"
      }),
      [
        { dimension: "requests", limit: 1000, remaining: 995, resetMillis: 432_000 },
        { dimension: "tokens", limit: 8000, remaining: 7923, resetMillis: 577 }
      ]
    )
  })

  it("the headers of Anthropic have dates, and input apart from output", () => {
    assert.deepStrictEqual(
      read({
        "anthropic-ratelimit-input-tokens-limit": "80000",
        "anthropic-ratelimit-input-tokens-remaining": "79000",
        "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:01Z",
        "anthropic-ratelimit-output-tokens-limit": "16000",
        "anthropic-ratelimit-output-tokens-remaining": "16000",
        "anthropic-ratelimit-output-tokens-reset": "2026-01-01T00:00:00Z",
        "anthropic-ratelimit-unified-5h-reset": "1765944000"
      }),
      [
        { dimension: "inputTokens", limit: 80000, remaining: 79000, resetMillis: 1_000 },
        { dimension: "outputTokens", limit: 16000, remaining: 16000, resetMillis: 0 }
      ]
    )
  })

  it("the headers of Mistral and Cerebras name their window", () => {
    assert.deepStrictEqual(
      read({
        "x-ratelimit-limit-tokens-minute": "5000000",
        "x-ratelimit-remaining-tokens-minute": "4999911",
        "x-ratelimit-tokens-query-cost": "52",
        "x-ratelimit-limit-req-minute": "720",
        "x-ratelimit-remaining-req-minute": "717",
        "x-ratelimit-limit-requests-day": "14400"
      }),
      [
        { dimension: "tokens", windowMillis: 60_000, limit: 5000000, remaining: 4999911 },
        { dimension: "requests", windowMillis: 60_000, limit: 720, remaining: 717 },
        { dimension: "requests", windowMillis: 86_400_000, limit: 14400 }
      ]
    )
  })

  it("a limit whose window is unknown is left out, and what remains without a limit is kept, as Azure sends it", () => {
    assert.deepStrictEqual(read({ "x-ratelimit-limit-tokens": "8000", "x-ratelimit-remaining-tokens": "10" }), [])
    assert.deepStrictEqual(read({ "x-ratelimit-limit-tokens": "8000", "x-ratelimit-reset-tokens": "6s" }), [])
    assert.deepStrictEqual(read({ "x-ratelimit-remaining-tokens": "10" }), [{ dimension: "tokens", remaining: 10 }])
    assert.deepStrictEqual(read({ "x-ratelimit-remaining-requests": "0" }), [{ dimension: "requests", remaining: 0 }])
  })

  it("numbers of limits that do not exist are left out", () => {
    assert.deepStrictEqual(
      read({
        "x-ratelimit-limit-tokens": "-1",
        "x-ratelimit-remaining-tokens": "-1",
        "x-ratelimit-reset-tokens": "0",
        "x-ratelimit-limit-requests": "many"
      }),
      []
    )
    assert.deepStrictEqual(read({ "x-ratelimit-limit-req-minute": "0" }), [])
    assert.deepStrictEqual(read({ "content-type": "application/json", "retry-after": "3" }), [])
  })
})
