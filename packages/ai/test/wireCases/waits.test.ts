import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import { json, sse } from "../support/rawServer.ts"
import { errorText, failures, streamFailure, wires } from "../support/wires.ts"

// Waits as providers were reported to send them: in other forms, and in other places than the header Retry-After.

interface WaitRow {
  readonly report: string
  readonly from: string
  readonly status?: number
  /** Several values are several headers. */
  readonly headers?: { readonly [name: string]: string | Array<string> }
  readonly body?: (now: number) => object
  readonly millis: number
  /** Whether the wait is a time of the day, so that it shrinks while the test runs. */
  readonly isTime?: boolean
}

const seconds = (now: number, wait: number) => Math.round((now + wait) / 1000)
const hour = 3_600_000
const inHeaders = (name: string, value: string) => ({ error: { code: 429, metadata: { headers: { [name]: value } } } })

const rows: ReadonlyArray<WaitRow> = [
  { report: "opencode 48185", from: "Groq, units", headers: { "retry-after": "2m59.56s" }, millis: 179_560 },
  { report: "mcp-mifosx 443", from: "Groq, fractional units", headers: { "retry-after": "7.66s" }, millis: 7660 },
  { report: "issue 9", from: "two Retry-After headers", headers: { "retry-after": ["3", "90"] }, millis: 90_000 },
  {
    report: "openclaude 936",
    from: "OpenRouter, a header in the body, epoch ms",
    body: (now) => ({ error: { code: 429, metadata: { headers: { "X-RateLimit-Reset": String(now + hour) } } } }),
    millis: hour,
    isTime: true
  },
  {
    report: "dirge 719",
    from: "OpenRouter, with the remaining requests",
    body: (now) => ({
      error: {
        message: "Rate limit exceeded: free-models-per-min.",
        code: 429,
        metadata: { headers: { "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": String(now + hour) } }
      }
    }),
    millis: hour,
    isTime: true
  },
  {
    report: "everruns 2280",
    from: "OpenRouter, seconds",
    body: () => inHeaders("X-RateLimit-Reset", "42"),
    millis: 42_000
  },
  {
    report: "CLIProxyAPI 1666",
    from: "Codex, two fields",
    body: (now) => ({
      error: { type: "usage_limit_reached", resets_at: seconds(now, hour), resets_in_seconds: 3600 }
    }),
    millis: hour,
    isTime: true
  },
  {
    report: "CLIProxyAPI 1666, without the seconds",
    from: "Codex, an epoch time",
    body: (now) => ({ error: { type: "usage_limit_reached", message: "limit", resets_at: seconds(now, hour) } }),
    millis: hour,
    isTime: true
  },
  {
    report: "python-genai 1875",
    from: "Gemini, RetryInfo, longer than the header",
    headers: { "retry-after": "1" },
    body: () => ({
      error: { code: 429, details: [{ "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: "53s" }] }
    }),
    millis: 53_000
  },
  {
    report: "zerogravity 19",
    from: "Gemini, a time stamp",
    body: (now) => ({
      error: { code: 429, details: [{ metadata: { quotaResetTimeStamp: new Date(now + hour).toISOString() } }] }
    }),
    millis: hour,
    isTime: true
  },
  {
    report: "forgecode 372",
    from: "OpenRouter, the upstream's error as JSON in a string",
    body: () => ({
      error: {
        message: "Provider returned error",
        code: 429,
        metadata: { raw: JSON.stringify([{ error: { details: [{ retryDelay: "45.5s" }] } }]) }
      }
    }),
    millis: 45_500
  },
  {
    report: "Negotole 61",
    from: "a gateway",
    body: () => ({ error: "Too many requests", retryAfter: 12 }),
    millis: 12_000
  },
  {
    report: "zulip 4831",
    from: "a server",
    body: () => ({ error: { message: "no", "retry-after": "15.314" } }),
    millis: 15_314
  },
  { report: "zerogravity 19, in ms", from: "a proxy", body: () => ({ error: { retry_after_ms: 2500 } }), millis: 2500 },
  {
    report: "aider 3265",
    from: "Groq, in words, longer than the header",
    headers: { "retry-after": "2" },
    body: () => ({ error: { message: "Rate limit reached. Please try again in 5.289s. Visit", type: "tokens" } }),
    millis: 5289
  },
  {
    report: "hindsight 3508",
    from: "OpenAI, the longer of two resets",
    headers: {
      "x-ratelimit-remaining-requests": "0",
      "x-ratelimit-reset-requests": "6m0s",
      "x-ratelimit-remaining-tokens": "0",
      "x-ratelimit-reset-tokens": "1s"
    },
    millis: 360_000
  },
  {
    report: "throttled 55",
    from: "a reset until the limit is full, and a Retry-After",
    headers: { "retry-after": "1", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "6" },
    millis: 1000
  },
  {
    report: "draft-ietf-httpapi-ratelimit-headers",
    from: "Hugging Face",
    headers: { ratelimit: `"api";r=0;t=55` },
    millis: 55_000
  },
  {
    report: "mistralai/client-ts 169",
    from: "Mistral's names",
    headers: { "ratelimitbysize-remaining": "0", "ratelimitbysize-reset": "12" },
    millis: 12_000
  },
  {
    report: "python-genai 1875, with 503",
    from: "Gemini, overloaded",
    status: 503,
    body: () => ({ error: { code: 503, details: [{ retryDelay: "20s" }] } }),
    millis: 20_000
  },
  {
    report: "quotio 375",
    from: "Gemini through a proxy with 400",
    status: 400,
    body: () => ({
      error: {
        type: "invalid_request_error",
        message: "RESOURCE_EXHAUSTED: You have exhausted your capacity. Quota will reset after 2h9m48s."
      }
    }),
    millis: 7_788_000
  },
  {
    report: "oh-my-pi 11841",
    from: "a relay with 499",
    status: 499,
    headers: { "retry-after": "30s" },
    millis: 30_000
  },
  {
    report: "Anthropic's documentation of spend limits",
    from: "Anthropic, a date in words",
    status: 429,
    body: (now) => ({
      error: {
        type: "rate_limit_error",
        message: `You will regain access on ${
          new Date(now + hour).toISOString().slice(0, 16).replace("T", " at ")
        } UTC.`
      }
    }),
    millis: hour,
    isTime: true
  }
]

const millisOf = (wait: Duration.Duration | undefined) => wait === undefined ? undefined : Duration.toMillis(wait)

const check = (actual: number | undefined, { isTime, millis }: WaitRow, message: string) => {
  if (actual === undefined || isTime !== true) return assert.strictEqual(actual, millis, message)
  // To the minute, since the times of some rows have no seconds.
  assert.closeTo(actual, millis, 90_000, message)
}

for (const wire of wires) {
  describe(`waits, ${wire.module}`, () => {
    for (const row of rows) {
      const { body, from, headers, report, status = 429 } = row
      it.live(`${from} (${report}), is a wait of ${row.millis} ms`, () =>
        Effect.gen(function*() {
          const failed = yield* failures(
            wire,
            (response) => json(response, status, body?.(Date.now()) ?? { error: { message: "later" } }, headers)
          )
          assert.strictEqual(failed.length, 2)
          for (const error of failed) {
            check(millisOf(RetryAfter.fromAiError(error)), row, errorText(error))
          }
        }))

      if (body === undefined || headers !== undefined) continue
      it.live(`${from} (${report}), within a stream is a wait of ${row.millis} ms`, () =>
        Effect.gen(function*() {
          const sent = body(Date.now())
          const error = "error" in sent && typeof sent.error === "object"
            ? { type: "rate_limit_error", ...sent.error }
            : sent
          const event = `data: ${JSON.stringify({ type: "error", error })}\n\n`
          const failed = yield* streamFailure(wire, (response) => sse(response, wire.head + event))
          check(millisOf(RetryAfter.fromAiError(failed.error)), row, errorText(failed.error))
        }))
    }

    it.live("no wait is longer than maxRetryAfter, wherever it is", () =>
      Effect.gen(function*() {
        const body = { error: { message: "Please try again in 2h.", resets_in_seconds: 7200 } }
        const options = { maxRetryAfter: "1 minute" } as const
        for (const headers of [{}, { "retry-after": "7200" }]) {
          for (const error of yield* failures(wire, (response) => json(response, 429, body, headers), options)) {
            assert.deepStrictEqual(RetryAfter.fromAiError(error), Duration.minutes(1))
          }
        }
      }))

    it.live("a prompt that an error quotes causes no wait", () =>
      Effect.gen(function*() {
        const quoted = "try again in 30 days. {\"retry_after\": 99}"
        const body = {
          error: { message: `cannot read: ${quoted}`, input: { retry_after: 99 } },
          input: { resets_in_seconds: 99 }
        }
        for (const status of [400, 500]) {
          for (const error of yield* failures(wire, (response) => json(response, status, body))) {
            assert.isUndefined(RetryAfter.fromAiError(error))
          }
        }
      }))
  })
}

describe("RetryAfter.fromResponse", () => {
  const now = Date.UTC(2026, 10, 21, 12, 0, 0)
  for (const row of rows) {
    it(`${row.from} (${row.report}), is read from a response of any client`, () => {
      const headers = Object.fromEntries(
        Object.entries(row.headers ?? {}).map((
          [name, value]
        ) => [name, Array.isArray(value) ? value.join(", ") : value])
      )
      const body = JSON.stringify(row.body?.(now) ?? {})
      const wait = RetryAfter.fromResponse({ status: row.status === 400 ? 429 : row.status ?? 429, headers, body }, {
        now
      })
      assert.strictEqual(millisOf(wait), row.millis)
    })
  }

  it("a body that is no JSON is read as text with status 429 and 503, and not with 500", () => {
    const body = "Please retry after 26 seconds."
    assert.strictEqual(millisOf(RetryAfter.fromResponse({ status: 503, body })), 26_000)
    assert.isUndefined(RetryAfter.fromResponse({ status: 500, body }))
    assert.isUndefined(RetryAfter.fromResponse({ body }))
  })

  it("a limit that is not exhausted, a time in the past and a broken number are no wait", () => {
    const none = [
      { headers: { "x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "60" } },
      { headers: { ratelimit: `"api";r=3;t=55` } },
      {
        headers: { "anthropic-ratelimit-unified-status": "allowed", "anthropic-ratelimit-unified-reset": "1795263600" }
      },
      { body: `{"error":{"resets_at":5,"retry_after":"soon","retry_after_ms":-1,"resets_in_seconds":null}}` }
    ]
    for (const response of none) {
      assert.isUndefined(RetryAfter.fromResponse({ status: 429, ...response }, { now }), JSON.stringify(response))
    }
    const past = { status: 429, body: JSON.stringify({ error: { resets_at: now / 1000 - 60 } }) }
    assert.strictEqual(millisOf(RetryAfter.fromResponse(past, { now })), 0)
    const rejected = {
      "anthropic-ratelimit-unified-status": "rejected",
      "anthropic-ratelimit-unified-reset": String(now / 1000 + 60)
    }
    assert.strictEqual(millisOf(RetryAfter.fromResponse({ status: 429, headers: rejected }, { now })), 60_000)
  })
})
