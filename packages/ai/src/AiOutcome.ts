/**
 * What an error of a language model says about the provider: the one table that retry, circuit breaker and every other
 * policy read.
 *
 * **Details**
 *
 * | reason of the AiError | outcome | because |
 * |---|---|---|
 * | `RateLimitError` | `Throttled`, with its retryAfter | the provider works and wants less |
 * | `InternalProviderError` (5xx, 408, 409, cut short, unreadable) | `Failure`, retryable, with its retryAfter | a fault of the provider that often passes |
 * | `NetworkError`, `TransportError` | `Failure`, retryable | nobody answered |
 * | `NetworkError`, anything else | `Ignored` | the request never left: the caller's mistake |
 * | `InvalidResponseError` | `Failure`, not retryable | an answer in another format, which it will have next time too |
 * | `InvalidRequestError`, `UnknownError` with status 408, 409 or 425 | `Failure`, retryable | other adapters name them so; they pass |
 * | `UnknownError` with status 429 | `Throttled`, with its retryAfter | as above |
 * | `UnknownError` with status 500 or more | `Failure`, retryable, with its retryAfter | as above |
 * | `UnknownError` with another status of 400 or more | `Ignored` | the provider refused this request |
 * | `UnknownError` otherwise | `Failure`, not retryable | nothing is known but that it failed |
 * | `AuthenticationError`, `QuotaExhaustedError` | `Ignored` | the account's matter; the provider answered at once |
 * | `InvalidRequestError`, `ContentPolicyError`, `UnsupportedSchemaError`, `InvalidUserInputError` | `Ignored` | the caller's mistake |
 * | `ToolConfigurationError`, `ToolkitRequiredError`, `InvalidToolResultError`, `ToolResultEncodingError` | `Ignored` | a bug on our side |
 * | `InvalidOutputError`, `StructuredOutputError`, `ToolNotFoundError`, `ToolParameterValidationError` | `Success` | the answer came in full and was paid; what it says is another matter |
 *
 * `Ignored` is neither retried nor counted. So a wrong key fails every call with the same clear error and never opens a
 * circuit, which would hide that error behind another one; and a file of bad requests does not stop those of others.
 *
 * **Gotchas**
 *
 * - The last row differs from AiError's `isRetryable`, which is true for it. Asking again costs as much as the first
 *   time and wants a changed prompt: it belongs where the prompt is made, not into a retry of the transport.
 *
 * **Example** (An outcome to retry on)
 *
 * ```ts
 * import { Duration } from "effect"
 * import { AiError } from "effect/ai"
 * import * as AiOutcome from "@sluice/ai/AiOutcome"
 *
 * const error = AiError.make({
 *   module: "Example",
 *   method: "generateText",
 *   reason: new AiError.RateLimitError({ retryAfter: Duration.seconds(2) })
 * })
 *
 * console.log(AiOutcome.fromAiError(error)._tag) // => Throttled
 * ```
 *
 * @since 0.1.0
 */
import * as Outcome from "@sluice/core/Outcome"
import * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as RetryAfter from "./RetryAfter.ts"

/**
 * The outcome of an attempt that failed with this error.
 *
 * @since 0.1.0
 * @category classifiers
 */
export const fromAiError = (error: AiError.AiError): Outcome.Outcome => {
  const { reason } = error
  switch (reason._tag) {
    case "RateLimitError":
      return throttled(error)
    case "InternalProviderError":
      return retryable(error)
    case "NetworkError":
      return reason.reason === "TransportError" ? retryable(error) : Outcome.ignored
    case "InvalidResponseError":
      return final
    case "InvalidRequestError":
      return isTransient(reason.http?.response?.status) ? retryable(error) : Outcome.ignored
    case "UnknownError":
      return fromStatus(error, reason.http?.response?.status)
    case "AuthenticationError":
    case "QuotaExhaustedError":
    case "ContentPolicyError":
    case "UnsupportedSchemaError":
    case "InvalidUserInputError":
    case "ToolConfigurationError":
    case "ToolkitRequiredError":
    case "InvalidToolResultError":
    case "ToolResultEncodingError":
      return Outcome.ignored
    case "InvalidOutputError":
    case "StructuredOutputError":
    case "ToolNotFoundError":
    case "ToolParameterValidationError":
      return Outcome.success
  }
}

/**
 * A classifier for any policy: the outcome of an exit that failed with an `AiError`, and `undefined` for every other exit.
 *
 * **Details**
 *
 * A defect is stronger than a failure, so an exit that holds both is left to the next classifier.
 *
 * @since 0.1.0
 * @category classifiers
 */
export const classify: Outcome.Classify<unknown, unknown> = (exit) => {
  if (Exit.isSuccess(exit) || Cause.hasDies(exit.cause)) return undefined
  const failure = exit.cause.reasons.find(Cause.isFailReason)
  return failure !== undefined && AiError.isAiError(failure.error) ? fromAiError(failure.error) : undefined
}

const final = Outcome.failure({ retryable: false })

const retryable = (error: AiError.AiError): Outcome.Outcome =>
  Outcome.failure({ retryable: true, retryAfter: RetryAfter.fromAiError(error) })

const throttled = (error: AiError.AiError): Outcome.Outcome =>
  Outcome.throttled({ retryAfter: RetryAfter.fromAiError(error) })

/** Request timeout, conflict, too early: client errors by number that the provider's own clients repeat. */
const isTransient = (status: number | undefined): boolean => status === 408 || status === 409 || status === 425

const fromStatus = (error: AiError.AiError, status: number | undefined): Outcome.Outcome => {
  if (status === undefined || status < 400) return final
  if (status === 429) return throttled(error)
  return status >= 500 || isTransient(status) ? retryable(error) : Outcome.ignored
}
