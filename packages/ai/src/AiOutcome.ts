/**
 * Classifies the errors of language models: the outcome for a policy, and the remedy for a caller.
 *
 * Retry, circuit breaker and fallback of `ResilientModel` all read this one table.
 *
 * **When to use**
 *
 * `classify` in a policy of your own around a `LanguageModel`. `remedy` in a fallback or a queue of your own.
 *
 * **Details**
 *
 * The first matching row applies. Codes and messages come before the status, since every provider uses 400 in its own
 * way. They are not read with the statuses of a server in trouble. `x-should-retry` comes after them and before every status,
 * also before these.
 *
 * | error | outcome | remedy | reason |
 * |---|---|---|---|
 * | has `NoTarget`, with the same reason for all targets: credential, or context | `Ignored` | `Credential`, `Context` | as if one target had failed for it |
 * | has `QuotaExceeded` with `TooLarge` or `Spent` | `Ignored` | `Elsewhere` | waiting does not help; another target may have capacity |
 * | has `CircuitOpen`, `BackpressureShed`, another `QuotaExceeded` or another `NoTarget` | `Ignored` | `Wait` | refused by Sluice; no request was made |
 * | has `DeadlineExceeded` | `Ignored` | `Final` | no time is left |
 * | has `ModelNotOffered` | `Ignored` | `Elsewhere` | none of the targets has the model; another may |
 * | has `TruncatedStream`, `MalformedEvent`, `FirstTokenTimeout`, `IdleTimeout`, `AttemptTimeout` | `Failure`, retryable | `Retry` | a transient failure of the provider |
 * | has `EmptyAnswer` | `Success` | `Reask` | the answer is complete and paid |
 * | `QuotaExhaustedError`, or its code or sentence in another reason than `InternalProviderError` | `Ignored` | `Credential` | the account is at fault; the provider answered at once |
 * | a code or a sentence that refuses the key or the account, with any of these reasons and any status, such as 400 | `Ignored` | `Credential` | Google, xAI and others refuse a key with 400 |
 * | a code or a sentence that refuses the content, with any of these reasons and any status, such as 403 | `Ignored` | `Final` | this prompt is refused; the credential is good |
 * | a code or a sentence of throttling, with any of these reasons | `Throttled`, with its retryAfter | `Wait` | Amazon and gateways throttle with 400 |
 * | a code or a sentence of a server in trouble, with any of these reasons | `Failure`, retryable, with its retryAfter | `Retry` | gateways pass on with 400 that their upstream failed |
 * | `InvalidRequestError`, `UnknownError` or status 500, with a code or a sentence that the prompt is too long | `Ignored` | `Context` | it never fits here, but may elsewhere |
 * | `InvalidRequestError`, `UnknownError` or `AuthenticationError`, with a code or a sentence that refuses the model or the region | `Ignored` | `Elsewhere` | the key is valid; another model or provider may answer |
 * | `x-should-retry: true` | `Failure`, retryable; with 429 `Throttled` | `Retry`; with 429 `Wait` | the provider knows best |
 * | `x-should-retry: false` with 429 | `Ignored` | `Credential` | a limit that waiting does not lift |
 * | `x-should-retry: false`, if it would be `Retry` | `Failure`, not retryable | `Elsewhere` | the provider knows best |
 * | status 529, or a 4xx that names no fault of the request, such as 408, 409, 424, 425, 498, 499, with any reason | `Failure`, retryable, with its retryAfter | `Retry` | the server is in trouble; adapters use various reasons for it |
 * | `RateLimitError`, or status 429 | `Throttled`, with its retryAfter | `Wait` | the provider works, and limits the rate |
 * | `InternalProviderError`, or status 500 and above | `Failure`, retryable, with its retryAfter | `Retry` | a transient failure of the provider |
 * | `AuthenticationError`, or status 401, 402, 403 | `Ignored` | `Credential` | the key or the account is refused |
 * | status 404, 405, 410, 451, or a redirect | `Ignored` | `Elsewhere` | no such model, or not at this URL |
 * | status 413 | `Ignored` | `Context` | too large for this provider |
 * | `InvalidRequestError`, or another status of 400 and above | `Ignored` | `Final` | the request is wrong for every provider |
 * | any other `UnknownError` | `Failure`, not retryable | `Elsewhere` | the cause is unknown |
 * | `InvalidResponseError` | `Failure`, not retryable | `Elsewhere` | another format, which a retry does not change |
 * | `NetworkError`, `TransportError` | `Failure`, retryable | `Retry` | there was no response |
 * | `NetworkError`, `InvalidUrlError` | `Ignored` | `Elsewhere` | not sent: the URL of the target is wrong |
 * | `NetworkError`, `EncodeError` | `Ignored` | `Final` | not sent: the request cannot be encoded |
 * | `UnsupportedSchemaError`, `InvalidUserInputError` | `Ignored` | `Elsewhere` | this provider does not support it; another may |
 * | `ContentPolicyError` | `Ignored` | `Final` | a refusal is an answer, and no reason to try other providers |
 * | `ToolConfigurationError`, `ToolkitRequiredError`, `InvalidToolResultError`, `ToolResultEncodingError` | `Ignored` | `Final` | a bug in the caller's program |
 * | `InvalidOutputError`, `StructuredOutputError`, `ToolNotFoundError`, `ToolParameterValidationError` | `Success` | `Reask` | the answer is complete and paid; only its content is wrong |
 *
 * `Ignored` is neither retried nor counted. So a wrong key fails every call with its own error, and opens no circuit
 * that would hide it. And the bad requests of one caller do not stop those of others.
 *
 * **Gotchas**
 *
 * - The last row differs from AiError's `isRetryable`, which is true for it. Another answer costs as much as the first,
 *   and needs a changed prompt. So it belongs where the prompt is made, not into a retry of requests.
 * - A 403 that names a model or a region is `Elsewhere`, even if another key would have access. The refused key still
 *   serves other models, so its credential is not ruled out.
 * - A code is in a code field, or is the whole message. A sentence begins the message, after the names that gateways put before
 *   it. Other text of an error does not count, with any status: it may quote the prompt, and a prompt must not rule out a
 *   credential or a target.
 * - `x-should-retry: false` outranks status 408, 409, 425 and 529 as well: it is about this response, and the status about its
 *   kind. The call tries another target, and the failure counts for the circuit. The providers' own
 *   clients obey it in the same order.
 * - Providers may change their texts. An error whose text is not recognised falls to the row of its status.
 *
 * **Example** (A rate limit is throttling)
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
import * as Option from "effect/Option"
import * as AiRejection from "./internal/rejection/rejection.ts"
import { isServersTrouble, kindOf } from "./internal/wire/errorKind.ts"
import * as Words from "./internal/wire/errorWords.ts"
import * as RetryAfter from "./RetryAfter.ts"

/**
 * What a caller can do about an error.
 *
 * | remedy | meaning |
 * |---|---|
 * | `Retry` | transient: try again, here or elsewhere |
 * | `Wait` | rate-limited: try elsewhere now, or here after its retryAfter |
 * | `Credential` | the credential is refused or used up: use another one |
 * | `Context` | the prompt is too long: try only targets with a larger context |
 * | `Elsewhere` | this target will never answer; another may |
 * | `Reask` | the answer is complete and paid, but unusable: request another, at its price |
 * | `Final` | no target will answer |
 *
 * @since 0.1.0
 * @category models
 */
export type Remedy = "Retry" | "Wait" | "Credential" | "Context" | "Elsewhere" | "Reask" | "Final"

/**
 * Returns the outcome of an attempt that failed with this error.
 *
 * @since 0.1.0
 * @category classifiers
 */
export const fromAiError = (error: AiError.AiError): Outcome.Outcome => verdictOf(error).outcome(error)

/**
 * Returns the remedy for an error.
 *
 * **Example** (A model that does not exist)
 *
 * ```ts
 * import { AiError } from "effect/ai"
 * import * as AiOutcome from "@sluice/ai/AiOutcome"
 *
 * const reason = AiError.reasonFromHttpStatus({ status: 404, http: { response: { status: 404, headers: {} } } })
 *
 * console.log(AiOutcome.remedy(AiError.make({ module: "Example", method: "generateText", reason }))) // => Elsewhere
 * ```
 *
 * @since 0.1.0
 * @category classifiers
 */
export const remedy = (error: AiError.AiError): Remedy => verdictOf(error).remedy

/**
 * Classifies an exit that failed with an `AiError`. Returns `undefined` for every other exit, for the next classifier.
 *
 * **Details**
 *
 * A defect takes precedence over a failure. An exit with both is left to the next classifier.
 *
 * @since 0.1.0
 * @category classifiers
 */
export const classify: Outcome.Classify<unknown, unknown> = (exit) => {
  if (Exit.isSuccess(exit) || Cause.hasDies(exit.cause)) return undefined
  const failure = exit.cause.reasons.find(Cause.isFailReason)
  return failure !== undefined && AiError.isAiError(failure.error) ? fromAiError(failure.error) : undefined
}

interface Verdict {
  readonly remedy: Remedy
  readonly outcome: (error: AiError.AiError) => Outcome.Outcome
}

const ignored = () => Outcome.ignored
const permanent = Outcome.failure({ retryable: false })

const transient: Verdict = {
  remedy: "Retry",
  outcome: (error) => Outcome.failure({ retryable: true, retryAfter: RetryAfter.fromAiError(error) })
}
const throttled: Verdict = {
  remedy: "Wait",
  outcome: (error) => Outcome.throttled({ retryAfter: RetryAfter.fromAiError(error) })
}
/** Refused by Sluice itself. */
const refused: Verdict = { remedy: "Wait", outcome: ignored }
const credential: Verdict = { remedy: "Credential", outcome: ignored }
const context: Verdict = { remedy: "Context", outcome: ignored }
/** The target fails, and a retry would not help. */
const broken: Verdict = { remedy: "Elsewhere", outcome: () => permanent }
/** The target works, but not for this request. */
const unsuitable: Verdict = { remedy: "Elsewhere", outcome: ignored }
const final: Verdict = { remedy: "Final", outcome: ignored }
const unusable: Verdict = { remedy: "Reask", outcome: () => Outcome.success }

const verdictOf = (error: AiError.AiError): Verdict => {
  const rejection = AiRejection.fromAiError(error)
  return Option.isSome(rejection) ? ofRejection(rejection.value) : ofReason(error.reason)
}

const ofRejection = (rejection: AiRejection.Rejection): Verdict => {
  switch (rejection._tag) {
    case "CircuitOpen":
    case "BackpressureShed":
      return refused
    case "QuotaExceeded":
      return rejection.why === "TooLarge" || rejection.why === "Spent" ? unsuitable : refused
    case "NoTarget":
      return ofNoTarget(rejection)
    case "DeadlineExceeded":
      return final
    case "ModelNotOffered":
      return unsuitable
    case "AttemptTimeout":
    case "FirstTokenTimeout":
    case "IdleTimeout":
    case "TruncatedStream":
    case "MalformedEvent":
      return transient
    case "EmptyAnswer":
      return unusable
  }
}

const ofNoTarget = ({ targets }: AiRejection.NoTarget): Verdict => {
  if (targets.length > 0 && targets.every(({ why }) => why === "Credential")) return credential
  if (targets.length > 0 && targets.every(({ why }) => why === "ContextTooSmall")) return context
  return refused
}

const ofReason = (reason: AiError.AiErrorReason): Verdict => {
  switch (reason._tag) {
    case "RateLimitError":
    case "InternalProviderError":
    case "AuthenticationError":
    case "InvalidRequestError":
    case "UnknownError":
      return ofText(reason) ?? ofAdvice(reason, ofStatus(reason))
    case "QuotaExhaustedError":
      return credential
    case "InvalidResponseError":
      return broken
    case "NetworkError":
      return ofNetwork[reason.reason]
    case "UnsupportedSchemaError":
    case "InvalidUserInputError":
      return unsuitable
    case "ContentPolicyError":
    case "ToolConfigurationError":
    case "ToolkitRequiredError":
    case "InvalidToolResultError":
    case "ToolResultEncodingError":
      return final
    case "InvalidOutputError":
    case "StructuredOutputError":
    case "ToolNotFoundError":
    case "ToolParameterValidationError":
      return unusable
  }
}

const ofNetwork: { readonly [_ in AiError.NetworkError["reason"]]: Verdict } = {
  TransportError: transient,
  InvalidUrlError: unsuitable,
  EncodeError: final
}

/** The reasons that adapters choose by the status, in various ways. */
type HttpReason =
  | AiError.RateLimitError
  | AiError.InternalProviderError
  | AiError.AuthenticationError
  | AiError.InvalidRequestError
  | AiError.UnknownError

const statusOf = (reason: HttpReason): number | undefined => reason.http?.response?.status

const ofText = (reason: HttpReason): Verdict | undefined => {
  const status = statusOf(reason)
  if (isServersTrouble(status)) return undefined
  const text = Words.readError(reason)
  if (reason._tag === "RateLimitError" || status === 429) {
    const kind = kindOf(text)
    return kind === "Quota" || kind === "Credential" ? credential : undefined
  }
  if (reason._tag === "InternalProviderError") {
    // Servers of local models use 500 for it. The text of a gateway's 502 or 503 is not about this prompt.
    return status === 500 && Words.isContext(text) ? context : undefined
  }
  const kind = ofKind(reason, text)
  if (kind !== undefined) return kind
  if (reason._tag !== "AuthenticationError" && Words.isContext(text)) return context
  return Words.isModel(text) || Words.isRegion(text) ? unsuitable : undefined
}

const ofKind = (reason: HttpReason, text: Words.ErrorText): Verdict | undefined => {
  switch (kindOf(text)) {
    case undefined:
      return undefined
    case "Content":
      return final
    case "Quota":
    case "Credential":
      return credential
    case "Throttled":
      return ofAdvice(reason, throttled)
    case "Transient":
      return ofAdvice(reason, transient)
  }
}

const ofStatus = (reason: HttpReason): Verdict => {
  const status = statusOf(reason)
  if (isServersTrouble(status)) return transient
  switch (reason._tag) {
    case "RateLimitError":
      return throttled
    case "InternalProviderError":
      return status === 429 ? throttled : transient
    case "AuthenticationError":
      return credential
    case "InvalidRequestError":
      return byStatus(status) ?? final
    case "UnknownError":
      return byStatus(status) ?? broken
  }
}

const byStatus = (status: number | undefined): Verdict | undefined => {
  if (status === undefined || status < 300) return undefined
  if (status < 400) return unsuitable
  if (status >= 500) return transient
  switch (status) {
    case 401:
    case 402:
    case 403:
      return credential
    case 404:
    case 405:
    case 410:
    case 451:
      return unsuitable
    case 413:
      return context
    case 429:
      return throttled
    default:
      return final
  }
}

/** Applies `x-should-retry`. */
const ofAdvice = (reason: HttpReason, verdict: Verdict): Verdict => {
  switch (reason.http?.response?.headers["x-should-retry"]) {
    case "true":
      return verdict === throttled ? throttled : transient
    case "false":
      return verdict === throttled ? credential : verdict === transient ? broken : verdict
    default:
      return verdict
  }
}
