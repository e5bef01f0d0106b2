/**
 * Why Sluice refused or ended a call of a language model: `NoTarget`, `IdleTimeout`, `TruncatedStream` and others.
 *
 * A `LanguageModel` can fail only with `AiError`. So a rejection is encoded into the metadata of the error's reason.
 * `fromAiError` reads it, also in another process.
 *
 * **When to use**
 *
 * To tell the failures that Sluice detects from those that a provider reports, which have no rejection.
 * `ResilientModel.rejection` is the same function as `fromAiError`. `toHttp` is for a server that answers its own clients with
 * the error of a call.
 *
 * **Details**
 *
 * | rejection | reason of the `AiError` | effect |
 * |---|---|---|
 * | `CircuitOpen`, `BackpressureShed`, `QuotaExceeded`, `NoTarget` | `RateLimitError`, with retryAfter if it is known | an outer retry waits long enough |
 * | `NoTarget`, if every credential is refused | `AuthenticationError` | not retried, since a retry does not help |
 * | `TruncatedStream`, `MalformedEvent`, `FirstTokenTimeout`, `IdleTimeout`, `AttemptTimeout` | `InternalProviderError` | retryable |
 * | `EmptyAnswer` | `InvalidOutputError` | retryable, at the price of another answer |
 * | `QuotaExceeded` with `TooLarge` or `Spent` | `UnknownError` | not retried, since waiting does not help |
 * | `DeadlineExceeded` | `UnknownError` | not retried, since no time is left |
 * | `ModelNotOffered` | `UnknownError` | not retried, since a retry does not help |
 *
 * **Example** (Reading why a call failed)
 *
 * ```ts
 * import { Duration, Option } from "effect"
 * import * as AiRejection from "@sluice/ai/AiRejection"
 *
 * const silent = new AiRejection.IdleTimeout({ target: "openai", limit: Duration.seconds(20), parts: 7 })
 * const error = AiRejection.toAiError(silent, "streamText")
 *
 * console.log(error.isRetryable, Option.getOrThrow(AiRejection.fromAiError(error)).message)
 * // => true openai: silent for 20s after 7 parts
 * ```
 *
 * @since 0.1.0
 */
import type { QuotaExceeded } from "@sluice/core/Quota"
import * as AiError from "effect/ai/AiError"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as AiOutcome from "./AiOutcome.ts"
import { fromAiError, type NoTarget, type Rejection } from "./internal/rejection/rejection.ts"
import * as RetryAfter from "./RetryAfter.ts"

export {
  EmptyAnswer,
  FirstTokenTimeout,
  fromAiError,
  IdleTimeout,
  is,
  MalformedEvent,
  ModelNotOffered,
  NoTarget,
  Rejection,
  toAiError,
  toMetadata,
  TruncatedStream,
  Unavailable
} from "./internal/rejection/rejection.ts"

/**
 * Why a call failed, as a server says it to its clients. See `toHttp`.
 *
 * @since 0.1.0
 * @category models
 */
export type HttpCode =
  | "circuit_open"
  | "no_target"
  | "backpressure_shed"
  | "quota_exceeded"
  | "deadline_exceeded"
  | "attempt_timeout"
  | "first_token_timeout"
  | "idle_timeout"
  | "truncated_stream"
  | "malformed_event"
  | "empty_answer"
  | "unusable_answer"
  | "invalid_response"
  | "connection_failed"
  | "provider_error"
  | "credential_refused"
  | "rate_limit_exceeded"
  | "context_length_exceeded"
  | "content_filter"
  | "model_not_found"
  | "unsupported_parameter"
  | "invalid_request"
  | "internal_error"

/**
 * The response of a server to a client whose call failed.
 *
 * @since 0.1.0
 * @category models
 */
export interface HttpError {
  /** From 400 to 599, and never one that is about the server's own credential at the provider. */
  readonly status: number
  readonly code: HttpCode
  /** One English sentence, the same for every error with this code. */
  readonly message: string
  /** For the header `Retry-After`. `undefined`: it is not known, or a retry does not help. */
  readonly retryAfter: Duration.Duration | undefined
}

/**
 * Returns the HTTP status, code and message for an error of a call, for a server that calls a model for its clients.
 *
 * **Details**
 *
 * | error | status | code | retryAfter |
 * |---|---|---|---|
 * | `CircuitOpen` | 503 | `circuit_open` | its own |
 * | `NoTarget` | 503 | `no_target` | its own |
 * | `NoTarget`, if every credential is refused | 502 | `credential_refused` | its own |
 * | `NoTarget`, if every context is too small | 400 | `context_length_exceeded` | none |
 * | `ModelNotOffered` | 404 | `model_not_found` | none |
 * | `BackpressureShed` | 503 | `backpressure_shed` | its own, or 1 second |
 * | `QuotaExceeded` | 429 | `quota_exceeded` | its own |
 * | `QuotaExceeded`, if the store is down or calls drain | 503 | `quota_exceeded` | its own |
 * | `QuotaExceeded`, if the call is larger than the limit | 413 | `quota_exceeded` | none |
 * | `DeadlineExceeded` | 504 | `deadline_exceeded` | none |
 * | `AttemptTimeout`, `FirstTokenTimeout`, `IdleTimeout`, `TruncatedStream`, `MalformedEvent`, `EmptyAnswer` | 502 | its name, such as `idle_timeout` | none |
 * | the provider limits the rate | 429 | `rate_limit_exceeded` | the provider's |
 * | the provider refuses the credential, or its quota is used up | 502 | `credential_refused` | the provider's |
 * | the prompt is too long | 400, or the provider's 413 | `context_length_exceeded` | none |
 * | the provider refuses the content | 400 | `content_filter` | none |
 * | the model does not exist, or not for this account or region | 404 | `model_not_found` | none |
 * | the provider does not support a part of the request | 400 | `unsupported_parameter` | none |
 * | the request is wrong for every provider | the provider's, or 400 | `invalid_request` | none |
 * | any other failure of the provider | the provider's, or 502 | `provider_error` | the provider's |
 * | no connection | 502 | `connection_failed` | none |
 * | an answer in another format | 502 | `invalid_response` | none |
 * | a complete answer that cannot be used | 502 | `unusable_answer` | none |
 * | a mistake in the server's own program, such as a wrong URL | 500 | `internal_error` | none |
 *
 * The rows of a provider's errors follow `AiOutcome.remedy`.
 *
 * The message has no name of a target, no key, no prompt and no text of a provider. Log the error itself.
 *
 * **Gotchas**
 *
 * - A provider's 401, 402, 403 and 407 are about the server's credential. A client would take them for its own, so they become
 *   502.
 * - The header `Retry-After` has whole seconds. Round up.
 *
 * **Example** (Answering with an open circuit)
 *
 * ```ts
 * import { Duration } from "effect"
 * import * as AiRejection from "@sluice/ai/AiRejection"
 *
 * const busy = { target: "gpt", why: "RateLimited", retryAfter: Duration.millis(2500) } as const
 * const error = AiRejection.toAiError(
 *   new AiRejection.NoTarget({ targets: [busy], retryAfter: busy.retryAfter }),
 *   "generateText"
 * )
 *
 * const { code, message, retryAfter, status } = AiRejection.toHttp(error)
 * const headers = retryAfter === undefined ? {} : { "retry-after": `${Math.ceil(Duration.toSeconds(retryAfter))}` }
 * console.log(status, headers, JSON.stringify({ error: { code, message } }))
 * // => 503 { 'retry-after': '3' } {"error":{"code":"no_target","message":"No model is available at the moment."}}
 * ```
 *
 * @since 0.1.0
 * @category conversions
 */
export const toHttp = (error: AiError.AiError | Rejection): HttpError => {
  if (!AiError.isAiError(error)) return ofRejection(error)
  const rejection = fromAiError(error)
  return Option.isSome(rejection) ? ofRejection(rejection.value) : ofProvider(error)
}

const messages: { readonly [_ in HttpCode]: string } = {
  circuit_open: "The model is not available at the moment.",
  no_target: "No model is available at the moment.",
  backpressure_shed: "Too many calls are running at the moment.",
  quota_exceeded: "The server has used up its limits at the model's provider.",
  deadline_exceeded: "The call took longer than its time limit.",
  attempt_timeout: "The model did not answer in time.",
  first_token_timeout: "The model did not begin to answer in time.",
  idle_timeout: "The model stopped in the middle of its answer.",
  truncated_stream: "The answer ended before it was complete.",
  malformed_event: "A part of the answer cannot be read.",
  empty_answer: "The answer is empty.",
  unusable_answer: "The answer does not have the form that was asked for.",
  invalid_response: "The model's provider answered in an unknown format.",
  connection_failed: "The connection to the model's provider failed.",
  provider_error: "The model's provider failed.",
  credential_refused: "The model's provider refused the server's credential.",
  rate_limit_exceeded: "The rate limit of the model's provider is exceeded.",
  context_length_exceeded: "The prompt is too long for the model.",
  content_filter: "The model's provider refused the content.",
  model_not_found: "The model does not exist or is not available.",
  unsupported_parameter: "The model's provider does not support a part of the request.",
  invalid_request: "The model's provider refused the request as invalid.",
  internal_error: "The server cannot make this call."
}

const http = (status: number, code: HttpCode, retryAfter?: Duration.Duration): HttpError => ({
  status,
  code,
  message: messages[code],
  retryAfter
})

const ofRejection = (rejection: Rejection): HttpError => {
  switch (rejection._tag) {
    case "CircuitOpen":
      return http(503, "circuit_open", rejection.retryAfter)
    case "NoTarget":
      return ofNoTarget(rejection)
    case "BackpressureShed":
      // A call for more permits than there are is never admitted.
      return http(
        503,
        "backpressure_shed",
        rejection.retryAfter ?? (rejection.why === "TooLarge" ? undefined : Duration.seconds(1))
      )
    case "QuotaExceeded":
      return http(quotaStatus(rejection.why), "quota_exceeded", rejection.retryAfter)
    case "ModelNotOffered":
      return http(404, "model_not_found")
    case "DeadlineExceeded":
      return http(504, "deadline_exceeded")
    case "AttemptTimeout":
      return http(502, "attempt_timeout")
    case "FirstTokenTimeout":
      return http(502, "first_token_timeout")
    case "IdleTimeout":
      return http(502, "idle_timeout")
    case "TruncatedStream":
      return http(502, "truncated_stream")
    case "MalformedEvent":
      return http(502, "malformed_event")
    case "EmptyAnswer":
      return http(502, "empty_answer")
  }
}

const quotaStatus = (why: QuotaExceeded["why"]): number =>
  why === "TooLarge" ? 413 : why === "StoreDown" || why === "Draining" ? 503 : 429

const ofNoTarget = ({ retryAfter, targets }: NoTarget): HttpError => {
  const isEach = (reason: NoTarget["targets"][number]["why"]) =>
    targets.length > 0 && targets.every(({ why }) => why === reason)
  if (isEach("Credential")) return http(502, "credential_refused", retryAfter)
  return isEach("ContextTooSmall") ? http(400, "context_length_exceeded") : http(503, "no_target", retryAfter)
}

const ofProvider = (error: AiError.AiError): HttpError => {
  const { reason } = error
  const status = statusOf(reason)
  switch (AiOutcome.remedy(error)) {
    case "Credential":
      return http(502, "credential_refused", RetryAfter.fromAiError(error))
    case "Wait":
      return http(429, "rate_limit_exceeded", RetryAfter.fromAiError(error))
    case "Retry":
      return reason._tag === "NetworkError"
        ? http(502, "connection_failed")
        // A 4xx would say that the client's request is at fault: 408, 424, or a 400 for the failure of an upstream.
        : http(status !== undefined && status >= 500 ? status : 502, "provider_error", RetryAfter.fromAiError(error))
    case "Context":
      return http(status === 413 ? 413 : 400, "context_length_exceeded")
    case "Elsewhere":
      return ofUnsuitable(error, status)
    case "Reask":
      return http(502, "unusable_answer")
    case "Final":
      return ofFinal(reason, status)
  }
}

const ofUnsuitable = (error: AiError.AiError, status: number | undefined): HttpError => {
  switch (error.reason._tag) {
    case "UnsupportedSchemaError":
    case "InvalidUserInputError":
      return http(400, "unsupported_parameter")
    case "InvalidResponseError":
      return http(502, "invalid_response")
    case "NetworkError":
      return http(500, "internal_error")
    case "AuthenticationError":
      return http(404, "model_not_found")
    case "InvalidRequestError":
      // 405 and a redirect: the URL is wrong.
      return status === 405 || isRedirect(error.reason)
        ? http(502, "provider_error")
        : http(404, "model_not_found")
    default:
      return status === 404
        ? http(404, "model_not_found")
        : http(status ?? 502, "provider_error", RetryAfter.fromAiError(error))
  }
}

const ofFinal = (reason: AiError.AiErrorReason, status: number | undefined): HttpError => {
  switch (reason._tag) {
    case "ContentPolicyError":
      return http(400, "content_filter")
    case "InvalidRequestError":
    case "UnknownError":
      return http(status ?? 400, "invalid_request")
    default:
      return http(500, "internal_error")
  }
}

const responseStatus = (reason: AiError.AiErrorReason): number | undefined =>
  "http" in reason ? reason.http?.response?.status : undefined

const isRedirect = (reason: AiError.AiErrorReason): boolean => {
  const status = responseStatus(reason)
  return status !== undefined && status >= 300 && status < 400
}

/** The provider's status, if a client may see it. An error within a stream came with status 200. */
const statusOf = (reason: AiError.AiErrorReason): number | undefined => {
  const status = responseStatus(reason)
  if (status === undefined || status < 400 || status > 599) return undefined
  return status === 401 || status === 402 || status === 403 || status === 407 ? undefined : status
}
