import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { AiError } from "effect/ai"
import * as AiRejection from "@sluice/ai/AiRejection"
import { BackpressureShed } from "@sluice/core/Backpressure"
import { CircuitOpen } from "@sluice/core/CircuitBreaker"
import { DeadlineExceeded } from "@sluice/core/Deadline"
import { AttemptTimeout } from "@sluice/core/Sluice"
import { throughJson } from "./support/json.ts"

const seconds = Duration.seconds
/** A secret that the test puts into all texts of an error. */
const secret = "sk-secret"
const target = secret

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
const noTarget = (
  whys: ReadonlyArray<AiRejection.Unavailable["why"]>,
  retryAfter?: Duration.Duration
) =>
  new AiRejection.NoTarget({
    targets: whys.map((why) => ({ target, why })),
    ...(retryAfter === undefined ? {} : { retryAfter })
  })

type Expected = readonly [status: number, code: AiRejection.HttpCode, retryAfterSeconds?: number]

const rejections: ReadonlyArray<readonly [AiRejection.Rejection, ...Expected]> = [
  [
    new CircuitOpen({
      policy: secret,
      key: secret,
      state: "Open",
      retryAfter: seconds(12),
      calls: 5,
      failures: 5,
      slow: 0
    }),
    503,
    "circuit_open",
    12
  ],
  [shed("Full", seconds(3)), 503, "backpressure_shed", 3],
  [shed("Draining"), 503, "backpressure_shed", 1],
  [shed("TooLarge"), 503, "backpressure_shed"],
  [noTarget(["RateLimited", "Credential"], seconds(4)), 503, "no_target", 4],
  [noTarget(["Busy"]), 503, "no_target"],
  [noTarget(["CircuitOpen", "ContextTooSmall"], seconds(9)), 503, "no_target", 9],
  [noTarget([]), 503, "no_target"],
  [noTarget(["Credential", "Credential"], seconds(300)), 502, "credential_refused", 300],
  [noTarget(["ContextTooSmall"]), 400, "context_length_exceeded"],
  [new DeadlineExceeded({ at: "Attempt", budget: seconds(5) }), 504, "deadline_exceeded"],
  [new AiRejection.ModelNotOffered({ model: secret, offered: [target] }), 404, "model_not_found"],
  [new AttemptTimeout({ after: seconds(10) }), 502, "attempt_timeout"],
  [new AiRejection.FirstTokenTimeout({ target, limit: seconds(10) }), 502, "first_token_timeout"],
  [new AiRejection.IdleTimeout({ target, limit: seconds(10), parts: 3 }), 502, "idle_timeout"],
  [new AiRejection.TruncatedStream({ target, parts: 3, hadOutput: true }), 502, "truncated_stream"],
  [new AiRejection.MalformedEvent({ target, sample: secret }), 502, "malformed_event"],
  [new AiRejection.EmptyAnswer({ target }), 502, "empty_answer"]
]

const description = secret
const answered = (status: number, headers: Record<string, string> = {}) => ({
  response: { status, headers },
  body: secret
})
const ofStatus = (status: number) => AiError.reasonFromHttpStatus({ status, description, http: answered(status) })
const rateLimited = new AiError.RateLimitError({ retryAfter: seconds(7), http: answered(429) })
const overloaded = new AiError.InternalProviderError({
  description,
  http: answered(529),
  metadata: { sluice: { retryAfterMillis: 2500 } }
})
const network = (reason: AiError.NetworkError["reason"]) =>
  new AiError.NetworkError({ reason, method: "POST", url: `https://${secret}.test`, description })

const errors: ReadonlyArray<readonly [what: string, AiError.AiErrorReason, ...Expected]> = [
  ["a rate limit", rateLimited, 429, "rate_limit_exceeded", 7],
  ["a rate limit without a time", ofStatus(429), 429, "rate_limit_exceeded"],
  ["a rate limit within a stream", new AiError.RateLimitError({ http: answered(200) }), 429, "rate_limit_exceeded"],
  ["an overload", overloaded, 529, "provider_error", 2.5],
  ["status 500", ofStatus(500), 500, "provider_error"],
  ["status 503", ofStatus(503), 503, "provider_error"],
  ["status 408", ofStatus(408), 502, "provider_error"],
  ["status 409", ofStatus(409), 502, "provider_error"],
  ["status 424", ofStatus(424), 502, "provider_error"],
  ["status 425", ofStatus(425), 502, "provider_error"],
  [
    "an error within a stream",
    new AiError.InternalProviderError({ description, http: answered(200) }),
    502,
    "provider_error"
  ],
  ["an error without a status", new AiError.InternalProviderError({ description }), 502, "provider_error"],
  ["an error of an unknown kind", new AiError.UnknownError({ description }), 502, "provider_error"],
  ["status 401", ofStatus(401), 502, "credential_refused"],
  ["status 402", ofStatus(402), 502, "credential_refused"],
  ["status 403", ofStatus(403), 502, "credential_refused"],
  [
    "status 401 that asks for a retry",
    new AiError.UnknownError({ description, http: answered(401, { "x-should-retry": "true" }) }),
    502,
    "provider_error"
  ],
  ["a quota that is used up", new AiError.QuotaExhaustedError({ http: answered(429) }), 502, "credential_refused"],
  [
    "a prompt that is too long",
    new AiError.InvalidRequestError({ description: "context_length_exceeded", http: answered(400) }),
    400,
    "context_length_exceeded"
  ],
  ["status 413", ofStatus(413), 413, "context_length_exceeded"],
  ["status 404", ofStatus(404), 404, "model_not_found"],
  [
    "a model that is not found, within a stream",
    new AiError.InvalidRequestError({ description: "model_not_found" }),
    404,
    "model_not_found"
  ],
  ["status 405", new AiError.InvalidRequestError({ description, http: answered(405) }), 502, "provider_error"],
  ["a redirect", new AiError.InvalidRequestError({ description, http: answered(307) }), 502, "provider_error"],
  ["status 400", ofStatus(400), 400, "invalid_request"],
  ["status 422", ofStatus(422), 422, "invalid_request"],
  ["an invalid request without a status", new AiError.InvalidRequestError({ description }), 400, "invalid_request"],
  ["refused content", new AiError.ContentPolicyError({ description, http: answered(403) }), 400, "content_filter"],
  ["a schema that is not supported", new AiError.UnsupportedSchemaError({ description }), 400, "unsupported_parameter"],
  ["input that is not supported", new AiError.InvalidUserInputError({ description }), 400, "unsupported_parameter"],
  ["another format", new AiError.InvalidResponseError({ description, http: answered(200) }), 502, "invalid_response"],
  ["an output of another form", new AiError.InvalidOutputError({ description }), 502, "unusable_answer"],
  ["a lost connection", network("TransportError"), 502, "connection_failed"],
  ["a wrong URL", network("InvalidUrlError"), 500, "internal_error"],
  ["a request that cannot be encoded", network("EncodeError"), 500, "internal_error"],
  ["a wrong tool", new AiError.ToolConfigurationError({ toolName: secret, description }), 500, "internal_error"]
]

const check = (http: AiRejection.HttpError, [status, code, retryAfter]: Expected): void => {
  assert.deepStrictEqual(
    [http.status, http.code, http.retryAfter && Duration.toSeconds(http.retryAfter)],
    [status, code, retryAfter]
  )
  assert.match(http.message, /^[A-Z][a-z' ]+\.$/)
  assert.notInclude(JSON.stringify(http), "secret")
}

describe("AiRejection.toHttp", () => {
  for (const [rejection, ...expected] of rejections) {
    it(`${rejection.message.replaceAll(secret, "A")}: ${expected[0]} ${expected[1]}`, () => {
      const error = AiRejection.toAiError(rejection, "streamText")
      for (const each of [rejection, error, throughJson(AiError.AiError, error)]) {
        check(AiRejection.toHttp(each), expected)
      }
    })
  }

  for (const [what, reason, ...expected] of errors) {
    it(`${what}: ${expected[0]} ${expected[1]}`, () => {
      check(AiRejection.toHttp(AiError.make({ module: "Test", method: "m", reason })), expected)
    })
  }
})
