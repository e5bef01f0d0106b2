import { assert, describe, it } from "@effect/vitest"
import { Duration, Redacted } from "effect"
import { AiError } from "effect/ai"
import * as RetryAfter from "@sluice/ai/RetryAfter"

const millis = (headers: RetryAfter.Headers, options?: RetryAfter.Options) => {
  const wait = RetryAfter.fromHeaders(headers, options)
  return wait === undefined ? undefined : Duration.toMillis(wait)
}

const now = Date.UTC(2026, 10, 21, 12, 0, 0)

describe("RetryAfter.fromHeaders", () => {
  it("reads milliseconds and seconds, whole or broken", () => {
    assert.strictEqual(millis({ "retry-after-ms": "634" }), 634)
    assert.strictEqual(millis({ "retry-after-ms": "12.5" }), 12.5)
    assert.strictEqual(millis({ "x-ms-retry-after-ms": "700" }), 700)
    assert.strictEqual(millis({ "retry-after": "2" }), 2000)
    assert.strictEqual(millis({ "retry-after": " 0.25 " }), 250)
    assert.strictEqual(millis({ "retry-after": "0" }), 0)
  })

  it("takes the most precise that can be read", () => {
    assert.strictEqual(millis({ "retry-after-ms": "10", "x-ms-retry-after-ms": "20", "retry-after": "30" }), 10)
    assert.strictEqual(millis({ "retry-after-ms": "soon", "x-ms-retry-after-ms": "20", "retry-after": "30" }), 20)
    assert.strictEqual(millis({ "retry-after-ms": "-1", "retry-after": "30" }), 30_000)
  })

  it("reads an HTTP date against the clock, in all three of its forms", () => {
    assert.strictEqual(millis({ "retry-after": "Sat, 21 Nov 2026 12:00:05 GMT" }, { now }), 5000)
    assert.strictEqual(millis({ "retry-after": "Saturday, 21-Nov-26 12:00:05 GMT" }, { now }), 5000)
    assert.strictEqual(millis({ "retry-after": "Sat Nov 21 12:00:05 2026" }, { now }), 5000)
  })

  it("is no time for a date that has passed", () => {
    assert.strictEqual(millis({ "retry-after": "Sat, 21 Nov 2026 11:00:00 GMT" }, { now }), 0)
  })

  it("reads a date against the answer's own without a clock, and not at all without either", () => {
    const date = "Sat, 21 Nov 2026 12:00:05 GMT"
    assert.strictEqual(millis({ "retry-after": date, date: "Sat, 21 Nov 2026 12:00:01 GMT" }), 4000)
    assert.isUndefined(millis({ "retry-after": date }))
  })

  it("is never negative, no number or endless, whatever was sent", () => {
    for (const value of ["-5", "NaN", "Infinity", "1e9", "0x10", "", "  ", "soon", "1,5", "5s", "-Infinity", "1.2.3"]) {
      assert.isUndefined(millis({ "retry-after": value }, { now }), value)
      assert.isUndefined(millis({ "retry-after-ms": value }, { now }), value)
    }
  })

  it("is bounded, by a day unless told otherwise", () => {
    assert.strictEqual(millis({ "retry-after": "31536000" }), 86_400_000)
    assert.strictEqual(millis({ "retry-after": "9".repeat(400) }), 86_400_000)
    assert.strictEqual(millis({ "retry-after": "31536000" }, { max: "2 minutes" }), 120_000)
  })

  it("falls back to the longest reset among the limits that have nothing left", () => {
    assert.strictEqual(
      millis({
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "634ms",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s"
      }),
      360_000
    )
    assert.isUndefined(millis({ "x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "6m0s" }))
    assert.strictEqual(
      millis({ "retry-after": "1", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s" }),
      1000
    )
  })

  it("reads a reset as units, seconds or a date, by its form and magnitude", () => {
    const reset = (value: string) => millis({ "x-ratelimit-remaining": "0", "x-ratelimit-reset": value }, { now })
    assert.strictEqual(reset("1h2m3.5s"), 3_723_500)
    assert.strictEqual(reset("2d"), 86_400_000)
    assert.strictEqual(reset("17"), 17_000)
    assert.strictEqual(reset(String(now / 1000 + 9)), 9000)
    assert.strictEqual(reset(String(now + 9)), 9)
    assert.strictEqual(reset(String(now - 9)), 0)
    assert.isUndefined(reset("5 parsecs"))
    assert.isUndefined(reset("5s and more"))
  })
})

describe("RetryAfter.fromAiError", () => {
  const error = (reason: AiError.AiErrorReason) => AiError.make({ module: "Test", method: "generateText", reason })
  const http = (headers: Record<string, string | Redacted.Redacted>) => ({ response: { status: 503, headers } })
  const waits = (reason: AiError.AiErrorReason, options?: RetryAfter.Options) => {
    const wait = RetryAfter.fromAiError(error(reason), options)
    return wait === undefined ? undefined : Duration.toMillis(wait)
  }

  it("is what a rate limit says", () => {
    assert.strictEqual(waits(new AiError.RateLimitError({ retryAfter: Duration.seconds(3) })), 3000)
    assert.isUndefined(waits(new AiError.RateLimitError({})))
  })

  it("is read from the headers of other reasons, which have no field for it", () => {
    const reason = new AiError.InternalProviderError({ description: "down", http: http({ "retry-after": "4" }) })
    assert.strictEqual(waits(reason), 4000)
  })

  it("is what was noted when the answer came, which a date in the headers cannot tell later", () => {
    const reason = new AiError.InternalProviderError({
      description: "down",
      metadata: { sluice: { retryAfterMillis: 1500 } },
      http: http({ "retry-after": "Sat, 21 Nov 2026 12:00:05 GMT" })
    })
    assert.strictEqual(waits(reason), 1500)
  })

  it("is bounded and never negative here too", () => {
    assert.strictEqual(waits(new AiError.RateLimitError({ retryAfter: Duration.days(9) })), 86_400_000)
    assert.strictEqual(waits(new AiError.RateLimitError({ retryAfter: Duration.millis(-9) })), 0)
    assert.strictEqual(
      waits(new AiError.RateLimitError({ retryAfter: Duration.days(9) }), { max: "1 hour" }),
      3_600_000
    )
  })

  it("is unknown without headers, and a redacted one is none", () => {
    assert.isUndefined(waits(new AiError.InvalidUserInputError({ description: "no" })))
    assert.isUndefined(
      waits(new AiError.InternalProviderError({ description: "", http: http({ "retry-after": Redacted.make("4") }) }))
    )
  })
})
