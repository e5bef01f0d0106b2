import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Redacted } from "effect"
import { AiError } from "effect/ai"
import * as RetryAfter from "@sluice/ai/RetryAfter"

const millis = (headers: RetryAfter.Headers, options?: RetryAfter.Options) => {
  const delay = RetryAfter.fromHeaders(headers, options)
  return delay === undefined ? undefined : Duration.toMillis(delay)
}

const now = Date.UTC(2026, 10, 21, 12, 0, 0)

describe("RetryAfter.fromHeaders", () => {
  it("fromHeaders reads whole and fractional milliseconds and seconds", () => {
    assert.strictEqual(millis({ "retry-after-ms": "634" }), 634)
    assert.strictEqual(millis({ "retry-after-ms": "12.5" }), 12.5)
    assert.strictEqual(millis({ "x-ms-retry-after-ms": "700" }), 700)
    assert.strictEqual(millis({ "retry-after": "2" }), 2000)
    assert.strictEqual(millis({ "retry-after": " 0.25 " }), 250)
    assert.strictEqual(millis({ "retry-after": "0" }), 0)
  })

  it("of several headers the longest wait counts, and of one wait in two units the precise one", () => {
    assert.strictEqual(millis({ "retry-after-ms": "10", "x-ms-retry-after-ms": "20", "retry-after": "30" }), 30_000)
    assert.strictEqual(millis({ "retry-after-ms": "40000", "retry-after": "30" }), 40_000)
    assert.strictEqual(millis({ "retry-after-ms": "634", "retry-after": "1" }), 634)
    assert.strictEqual(millis({ "retry-after-ms": "soon", "x-ms-retry-after-ms": "20", "retry-after": "30" }), 30_000)
    assert.strictEqual(millis({ "retry-after-ms": "-1", "retry-after": "30" }), 30_000)
  })

  it("of two Retry-After headers, which clients join, the longer counts", () => {
    assert.strictEqual(millis({ "retry-after": "1, 60" }), 60_000)
    assert.strictEqual(millis({ "retry-after": "60, 1" }), 60_000)
    assert.strictEqual(millis({ "retry-after": "1, Sat, 21 Nov 2026 12:00:05 GMT" }, { now }), 5000)
    assert.strictEqual(millis({ "retry-after": "Saturday, 21-Nov-26 12:00:05 GMT, 7" }, { now }), 7000)
    assert.strictEqual(millis({ "retry-after": "soon, 7" }), 7000)
  })

  it("a Retry-After may have units, an RFC 3339 date or an epoch time", () => {
    assert.strictEqual(millis({ "retry-after": "2m59.56s" }), 179_560)
    assert.strictEqual(millis({ "retry-after": "30s" }), 30_000)
    assert.strictEqual(millis({ "retry-after": "250ms" }), 250)
    assert.strictEqual(millis({ "retry-after": "2026-11-21T12:00:09Z" }, { now }), 9000)
    assert.strictEqual(millis({ "retry-after": String(now / 1000 + 9) }, { now }), 9000)
    assert.strictEqual(millis({ "retry-after": String(now + 9000) }, { now }), 9000)
  })

  it("fromHeaders reads the three forms of an HTTP date relative to the clock", () => {
    assert.strictEqual(millis({ "retry-after": "Sat, 21 Nov 2026 12:00:05 GMT" }, { now }), 5000)
    assert.strictEqual(millis({ "retry-after": "Saturday, 21-Nov-26 12:00:05 GMT" }, { now }), 5000)
    assert.strictEqual(millis({ "retry-after": "Sat Nov 21 12:00:05 2026" }, { now }), 5000)
  })

  it("a date in the past is a delay of 0", () => {
    assert.strictEqual(millis({ "retry-after": "Sat, 21 Nov 2026 11:00:00 GMT" }, { now }), 0)
  })

  it("without a clock, a date is read relative to the response's Date header, or not at all", () => {
    const date = "Sat, 21 Nov 2026 12:00:05 GMT"
    assert.strictEqual(millis({ "retry-after": date, date: "Sat, 21 Nov 2026 12:00:01 GMT" }), 4000)
    assert.isUndefined(millis({ "retry-after": date }))
  })

  it("fromHeaders ignores values that are not plain, non-negative numbers", () => {
    for (
      const value of [
        "-5",
        "NaN",
        "Infinity",
        "1e9",
        "0x10",
        "",
        "  ",
        "soon",
        "1,5",
        "5 s and more",
        "-Infinity",
        "1.2.3"
      ]
    ) {
      assert.isUndefined(millis({ "retry-after": value }, { now }), value)
      assert.isUndefined(millis({ "retry-after-ms": value }, { now }), value)
    }
  })

  it("a delay is bounded by `max`, which is one day by default", () => {
    assert.strictEqual(millis({ "retry-after": "31536000" }), 86_400_000)
    assert.strictEqual(millis({ "retry-after": "9".repeat(400) }), 86_400_000)
    assert.strictEqual(millis({ "retry-after": "31536000" }, { max: "2 minutes" }), 120_000)
  })

  it("without Retry-After, the longest reset of the exhausted limits counts", () => {
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

  it("a reset is read as units, seconds or a date by its form and magnitude", () => {
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

describe("RetryAfter.fromHeaders with Anthropic's limits", () => {
  const reset = new Date(now + 9000).toISOString()

  it("the reset of any exhausted limit is read", () => {
    for (const kind of ["requests", "tokens", "input-tokens", "output-tokens"]) {
      const headers = { [`anthropic-ratelimit-${kind}-remaining`]: "0", [`anthropic-ratelimit-${kind}-reset`]: reset }
      assert.strictEqual(millis(headers, { now }), 9000, kind)
      assert.strictEqual(millis({ ...headers, date: new Date(now).toUTCString() }), 9000, kind)
      assert.isUndefined(millis(headers), kind)
      assert.isUndefined(millis({ ...headers, [`anthropic-ratelimit-${kind}-remaining`]: "12" }, { now }), kind)
    }
  })

  it("the longest of several resets counts, and Retry-After takes precedence", () => {
    const headers = {
      "anthropic-ratelimit-requests-remaining": "0",
      "anthropic-ratelimit-requests-reset": "2026-11-21T12:00:03Z",
      "anthropic-ratelimit-input-tokens-remaining": "0",
      "anthropic-ratelimit-input-tokens-reset": "2026-11-21T13:01:00.5+01:00",
      "anthropic-ratelimit-output-tokens-remaining": "8000",
      "anthropic-ratelimit-output-tokens-reset": "2026-11-21T14:00:00Z"
    }
    assert.strictEqual(millis(headers, { now }), 60_500)
    assert.strictEqual(millis({ ...headers, "retry-after": "7" }, { now }), 7000)
  })

  it("a reset in the past is a delay of 0, and only a full ISO date with a time zone is read", () => {
    const at = (reset: string) =>
      millis({ "anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": reset }, { now })
    assert.strictEqual(at("2026-11-21T11:00:00Z"), 0)
    for (const wrong of ["2026-11-21", "2026-99-21T11:00:00Z", "tomorrow", "2026-11-21T12:00:00", ""]) {
      assert.isUndefined(at(wrong), wrong)
    }
    assert.strictEqual(at("9999-12-31T23:59:59Z"), 86_400_000)
  })

  it("limits without a prefix are read", () => {
    assert.strictEqual(millis({ "ratelimit-remaining": "0", "ratelimit-reset": "30" }), 30_000)
  })
})

describe("RetryAfter.fromText", () => {
  const delayIn = (text: string, options?: RetryAfter.Options) => {
    const delay = RetryAfter.fromText(text, options)
    return delay === undefined ? undefined : Duration.toMillis(delay)
  }

  for (
    const [text, expected] of [
      ["Rate limit reached for gpt-4o: Limit 500, Used 500. Please try again in 634ms. Visit https://x", 634],
      ["Please try again in 1m30s.", 90_000],
      ["Please try again in 7.66s. Need more tokens?", 7660],
      ["Please try again in 6m0s.", 360_000],
      ["try again in 2h7m23s", 7_643_000],
      ["Requests have exceeded the rate limit. Please retry after 26 seconds.", 26_000],
      ["Please retry after 1 second.", 1000],
      ["Please retry in 26.5s.", 26_500],
      ["Your quota will reset after 5s.", 5000],
      ["Try again in 2 minutes and 5 seconds", 125_000],
      ["try again in 1 hour, 2 minutes", 3_720_000],
      ["resets in 250 milliseconds", 250],
      [`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}`, 34_000],
      [`{"message":"retry in 9s","details":[{"retryDelay": "45.837s"}]}`, 45_837],
      [`{"quotaResetDelay":"373.5ms"}`, 373.5],
      [JSON.stringify({ message: `{"retryDelay": "34s"}` }), 34_000],
      ["retry after some time, or try again in 3s", 3000]
    ] as const
  ) {
    it(`the text "${text}" is a delay of ${expected} ms`, () => assert.strictEqual(delayIn(text), expected))
  }

  it("fromText ignores text without a delay in a known form", () => {
    for (
      const text of [
        "",
        "try again later",
        "try again in -5s",
        "try again in 5 parsecs",
        "try again in 5 months",
        "retry after 5",
        "wait 5s",
        `"retryDelay":"soon"`,
        `"retryDelay":34`
      ]
    ) {
      assert.isUndefined(delayIn(text), text)
    }
  })

  it("fromText bounds the delay and the length of the text that it reads", () => {
    assert.strictEqual(delayIn("try again in 86400 days"), 86_400_000)
    assert.strictEqual(delayIn(`try again in ${"9".repeat(500)}s`), 86_400_000)
    assert.strictEqual(delayIn("try again in 2h", { max: "1 minute" }), 60_000)
    assert.isUndefined(delayIn(`${" ".repeat(20_000)}try again in 2s`))
    for (const long of ["try again in ", "try again in 1m", "1m", "1 s, ", `"retryDelay": "1`]) {
      delayIn(`try again in ${long.repeat(20_000)}`)
    }
  })
})

describe("RetryAfter.fromAiError", () => {
  const error = (reason: AiError.AiErrorReason) => AiError.make({ module: "Test", method: "generateText", reason })
  const http = (headers: Record<string, string | Redacted.Redacted>) => ({ response: { status: 503, headers } })
  const delayOf = (reason: AiError.AiErrorReason, options?: RetryAfter.Options) => {
    const delay = RetryAfter.fromAiError(error(reason), options)
    return delay === undefined ? undefined : Duration.toMillis(delay)
  }

  it("fromAiError returns the retryAfter of a rate limit", () => {
    assert.strictEqual(delayOf(new AiError.RateLimitError({ retryAfter: Duration.seconds(3) })), 3000)
    assert.isUndefined(delayOf(new AiError.RateLimitError({})))
  })

  it("reasons without a retryAfter field are read from their headers", () => {
    const reason = new AiError.InternalProviderError({ description: "down", http: http({ "retry-after": "4" }) })
    assert.strictEqual(delayOf(reason), 4000)
  })

  it("a delay recorded on arrival takes precedence over a date in the headers, which is stale later", () => {
    const reason = new AiError.InternalProviderError({
      description: "down",
      metadata: { sluice: { retryAfterMillis: 1500 } },
      http: http({ "retry-after": "Sat, 21 Nov 2026 12:00:05 GMT" })
    })
    assert.strictEqual(delayOf(reason), 1500)
  })

  it("the reset of a quota is read relative to the clock or the response's Date header", () => {
    const resetAt = DateTime.makeUnsafe(now + 60_000)
    assert.strictEqual(delayOf(new AiError.QuotaExhaustedError({ resetAt }), { now }), 60_000)
    assert.isUndefined(delayOf(new AiError.QuotaExhaustedError({ resetAt })))
    assert.strictEqual(
      delayOf(new AiError.QuotaExhaustedError({ resetAt, http: http({ date: new Date(now).toUTCString() }) })),
      60_000
    )
    assert.strictEqual(delayOf(new AiError.QuotaExhaustedError({ resetAt }), { now: now + 90_000 }), 0)
    const next = DateTime.makeUnsafe(now + 30 * 86_400_000)
    assert.strictEqual(delayOf(new AiError.QuotaExhaustedError({ resetAt: next }), { now }), 86_400_000)
    assert.strictEqual(delayOf(new AiError.QuotaExhaustedError({ http: http({ "retry-after": "5" }) }), { now }), 5000)
  })

  it("text is read last, and the body before the description", () => {
    const body = "Please try again in 634ms."
    const description = "try again in 9s"
    assert.strictEqual(delayOf(new AiError.RateLimitError({ http: { ...http({}), body } })), 634)
    assert.strictEqual(delayOf(new AiError.RateLimitError({ http: { ...http({ "retry-after": "2" }), body } })), 2000)
    assert.strictEqual(delayOf(new AiError.QuotaExhaustedError({ http: { body } })), 634)
    for (const status of [429, 503, 529]) {
      const http = { response: { status, headers: {} } }
      assert.strictEqual(delayOf(new AiError.InternalProviderError({ description, http: { ...http, body } })), 634)
      assert.strictEqual(delayOf(new AiError.InternalProviderError({ description, http })), 9000)
      assert.strictEqual(delayOf(new AiError.UnknownError({ description, http })), 9000)
    }
  })

  it("text is not read as a delay for errors that are not rate limits or overloads", () => {
    const description = "the prompt says: try again in 9s"
    assert.isUndefined(delayOf(new AiError.InvalidRequestError({ description })))
    assert.isUndefined(delayOf(new AiError.ContentPolicyError({ description })))
    const body = JSON.stringify({ error: { message: "could not tokenize: \"retry in 30 days\"" } })
    for (const status of [200, 400, 422, 500, 502]) {
      const http = { response: { status, headers: {} }, body }
      assert.isUndefined(delayOf(new AiError.InternalProviderError({ description, http })), String(status))
      assert.isUndefined(delayOf(new AiError.UnknownError({ description, http })), String(status))
      assert.isUndefined(delayOf(new AiError.InvalidRequestError({ description, http })), String(status))
    }
    assert.isUndefined(delayOf(new AiError.InternalProviderError({ description })))
  })

  it("fromAiError bounds the delay and never returns a negative one", () => {
    assert.strictEqual(delayOf(new AiError.RateLimitError({ retryAfter: Duration.days(9) })), 86_400_000)
    assert.strictEqual(delayOf(new AiError.RateLimitError({ retryAfter: Duration.millis(-9) })), 0)
    assert.strictEqual(
      delayOf(new AiError.RateLimitError({ retryAfter: Duration.days(9) }), { max: "1 hour" }),
      3_600_000
    )
  })

  it("an error without headers or with a redacted header has no delay", () => {
    assert.isUndefined(delayOf(new AiError.InvalidUserInputError({ description: "no" })))
    assert.isUndefined(
      delayOf(new AiError.InternalProviderError({ description: "", http: http({ "retry-after": Redacted.make("4") }) }))
    )
  })
})
