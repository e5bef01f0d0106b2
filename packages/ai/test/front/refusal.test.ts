import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { AiError } from "effect/ai"
import * as AiRejection from "@sluice/ai/AiRejection"
import { BackpressureShed } from "@sluice/core/Backpressure"
import { CircuitOpen } from "@sluice/core/CircuitBreaker"
import { DeadlineExceeded } from "@sluice/core/Deadline"
import * as Refusal from "../../src/internal/front/refusal.ts"

const seconds = Duration.seconds
const secret = "sk-secret"

const circuit = (retryAfter: Duration.Duration) =>
  new CircuitOpen({ policy: secret, key: secret, state: "Open", retryAfter, calls: 5, failures: 5, slow: 0 })
const shed = (why: BackpressureShed["why"], retryAfter?: Duration.Duration) =>
  new BackpressureShed({
    policy: secret,
    why,
    permits: 1,
    running: 2,
    queued: 1,
    capacity: 2,
    ...(retryAfter === undefined ? {} : { retryAfter })
  })
const noTarget = (why: AiRejection.Unavailable["why"], retryAfter?: Duration.Duration) =>
  new AiRejection.NoTarget({
    targets: [{ target: secret, why }],
    ...(retryAfter === undefined ? {} : { retryAfter })
  })
const make = (reason: AiError.AiErrorReason) => AiError.make({ module: secret, method: secret, reason })

type Row = readonly [
  refusal: Refusal.Refusal,
  openAi: readonly [status: number, type: string, code: string],
  anthropic: readonly [status: number, type: string],
  shouldRetry: string | undefined,
  retryAfter: string | undefined
]

const rows: ReadonlyArray<Row> = [
  [
    Refusal.ofError(circuit(seconds(12.2))),
    [503, "sluice_error", "circuit_open"],
    [529, "overloaded_error"],
    undefined,
    "13"
  ],
  [
    Refusal.ofError(circuit(Duration.millis(1))),
    [503, "sluice_error", "circuit_open"],
    [529, "overloaded_error"],
    undefined,
    "1"
  ],
  [
    Refusal.ofError(circuit(seconds(60))),
    [503, "sluice_error", "circuit_open"],
    [529, "overloaded_error"],
    undefined,
    "60"
  ],
  [
    Refusal.ofError(circuit(seconds(61))),
    [503, "sluice_error", "circuit_open"],
    [529, "overloaded_error"],
    "false",
    "60"
  ],
  [
    Refusal.ofError(noTarget("Busy")),
    [503, "sluice_error", "no_target"],
    [529, "overloaded_error"],
    undefined,
    undefined
  ],
  [
    Refusal.ofError(noTarget("CircuitOpen", seconds(300))),
    [503, "sluice_error", "no_target"],
    [529, "overloaded_error"],
    "false",
    "60"
  ],
  [
    Refusal.ofError(noTarget("Credential", seconds(9))),
    [502, "sluice_error", "credential_refused"],
    [502, "api_error"],
    "false",
    "9"
  ],
  [
    Refusal.ofError(noTarget("ContextTooSmall")),
    [400, "invalid_request_error", "context_length_exceeded"],
    [400, "invalid_request_error"],
    undefined,
    undefined
  ],
  [
    Refusal.ofError(shed("Full", seconds(3))),
    [503, "sluice_error", "backpressure_shed"],
    [529, "overloaded_error"],
    "true",
    "3"
  ],
  [
    Refusal.ofError(shed("Draining")),
    [503, "sluice_error", "backpressure_shed"],
    [529, "overloaded_error"],
    "true",
    "1"
  ],
  [
    Refusal.ofError(shed("Full", seconds(90))),
    [503, "sluice_error", "backpressure_shed"],
    [529, "overloaded_error"],
    "false",
    "60"
  ],
  [
    Refusal.ofError(shed("TooLarge")),
    [503, "sluice_error", "backpressure_shed"],
    [529, "overloaded_error"],
    "false",
    undefined
  ],
  [
    Refusal.ofError(new DeadlineExceeded({ at: "Attempt", budget: seconds(5) })),
    [504, "sluice_error", "deadline_exceeded"],
    [504, "timeout_error"],
    "false",
    undefined
  ],
  [
    Refusal.ofError(new AiRejection.TruncatedStream({ target: secret, parts: 1, hadOutput: false })),
    [502, "sluice_error", "truncated_stream"],
    [502, "api_error"],
    "false",
    undefined
  ],
  [
    Refusal.ofError(make(new AiError.RateLimitError({ retryAfter: seconds(7) }))),
    [429, "sluice_error", "rate_limit_exceeded"],
    [429, "rate_limit_error"],
    "false",
    "7"
  ],
  [
    Refusal.ofError(make(new AiError.AuthenticationError({ kind: "InvalidKey" }))),
    [502, "sluice_error", "credential_refused"],
    [502, "api_error"],
    "false",
    undefined
  ],
  [
    Refusal.unsupported("logprobs", "The messages API has no logprobs."),
    [400, "invalid_request_error", "unsupported_parameter"],
    [400, "invalid_request_error"],
    undefined,
    undefined
  ],
  [
    Refusal.refuse("invalid_api_key"),
    [401, "invalid_request_error", "invalid_api_key"],
    [401, "authentication_error"],
    undefined,
    undefined
  ],
  [
    Refusal.refuse("body_was_read"),
    [500, "sluice_error", "body_was_read"],
    [500, "api_error"],
    "false",
    undefined
  ],
  [
    Refusal.refuse("request_too_large"),
    [413, "invalid_request_error", "request_too_large"],
    [413, "request_too_large"],
    undefined,
    undefined
  ],
  [
    Refusal.refuse("not_found"),
    [404, "invalid_request_error", "not_found"],
    [404, "not_found_error"],
    undefined,
    undefined
  ]
]

describe("toResponse", () => {
  for (const [refusal, openAi, anthropic, shouldRetry, retryAfter] of rows) {
    const wait = refusal.retryAfter === undefined ? "no wait" : `a wait of ${Duration.format(refusal.retryAfter)}`
    it(`says ${refusal.code} with ${wait} in the form of each API`, () => {
      const ofOpenAi = Refusal.toResponse("openai", refusal)
      const { error } = JSON.parse(ofOpenAi.body)
      assert.deepStrictEqual([ofOpenAi.status, error.type, error.code], [...openAi])
      assert.strictEqual(error.message, refusal.message)
      assert.strictEqual(error.param, refusal.param ?? null)
      const ofAnthropic = Refusal.toResponse("anthropic", refusal)
      const json = JSON.parse(ofAnthropic.body)
      assert.deepStrictEqual([ofAnthropic.status, json.error.type], [...anthropic])
      assert.deepStrictEqual(Object.keys(json), ["type", "error"])
      assert.strictEqual(json.type, "error")
      for (const response of [ofOpenAi, ofAnthropic]) {
        assert.strictEqual(response.headers["x-should-retry"], shouldRetry)
        assert.strictEqual(response.headers["retry-after"], retryAfter)
        assert.strictEqual(response.headers["x-sluice-code"], openAi[2])
        assert.strictEqual(response.headers["content-length"], String(Buffer.byteLength(response.body)))
        assert.notInclude(response.body, secret)
      }
    })
  }
})

describe("verbatim", () => {
  const provider = Refusal.ofError(make(new AiError.InternalProviderError({ description: "x" })))
  const headers = { "retry-after": "90", "x-request-id": "r" }

  it("passes on the provider's own status and headers", () => {
    for (const status of [400, 404, 408, 413, 422, 429, 500, 503, 529]) {
      assert.deepStrictEqual(Refusal.verbatim(provider, { status, headers }), {
        status,
        headers: { ...headers, "x-should-retry": "false" }
      })
    }
  })

  it("keeps back an error of the server's credential, and a redirect", () => {
    for (const status of [301, 307, 401, 402, 403, 407]) {
      assert.isUndefined(Refusal.verbatim(provider, { status, headers }))
    }
    // A used-up account that is reported with another status.
    const credential = Refusal.ofError(make(new AiError.QuotaExhaustedError({})))
    assert.strictEqual(credential.code, "credential_refused")
    assert.isUndefined(Refusal.verbatim(credential, { status: 429, headers }))
  })
})
