/**
 * What an error of a language model says about the provider, and what may be done about it: the one table that retry,
 * circuit breaker, fallback and every other policy read.
 *
 * **Details**
 *
 * The first row that fits is the one. What is said in words comes before a status, since every provider has a 400 of its
 * own; `x-should-retry` comes before a status too, but not before words.
 *
 * | error | outcome | remedy | because |
 * |---|---|---|---|
 * | carries `CircuitOpen`, `BackpressureShed` or `NoTarget` | `Ignored` | `Wait` | a refusal of our own: nobody was asked |
 * | carries `NoTarget`, each for its credential, or each for its context | `Ignored` | `Credential`, `Context` | as if the one that was meant had said so |
 * | carries `DeadlineExceeded` | `Ignored` | `Final` | there is no time left |
 * | carries `TruncatedStream`, `MalformedEvent`, `FirstTokenTimeout`, `IdleTimeout`, `AttemptTimeout` | `Failure`, retryable | `Retry` | a fault of the provider that often passes |
 * | carries `EmptyAnswer` | `Success` | `Reask` | it came in full and was paid |
 * | `QuotaExhaustedError`, or its code in another reason | `Ignored` | `Credential` | the account's matter; the provider answered at once |
 * | `InvalidRequestError`, `UnknownError`, or status 500, whose text says that the prompt is too long | `Ignored` | `Context` | it never fits here; elsewhere it may |
 * | `InvalidRequestError`, `UnknownError`, `AuthenticationError` whose text names the model, or the region | `Ignored` | `Elsewhere` | the key is good; another model or another provider may answer |
 * | `x-should-retry: true` in the answer's headers | `Failure`, retryable; `Throttled` with 429 | `Retry`, `Wait` | the provider knows best |
 * | `x-should-retry: false`, with 429 | `Ignored` | `Credential` | a limit that no waiting lifts |
 * | `x-should-retry: false`, where it would be `Retry` | `Failure`, not retryable | `Elsewhere` | the provider knows best |
 * | status 408, 409, 425, 529, whatever the reason | `Failure`, retryable, with its retryAfter | `Retry` | adapters name them in many ways; they pass |
 * | `RateLimitError`, or status 429 | `Throttled`, with its retryAfter | `Wait` | the provider works and wants less |
 * | `InternalProviderError`, or status 500 and more | `Failure`, retryable, with its retryAfter | `Retry` | a fault of the provider that often passes |
 * | `AuthenticationError`, or status 401, 402, 403 | `Ignored` | `Credential` | the account's matter |
 * | status 404, 405, 410, or a redirect | `Ignored` | `Elsewhere` | no such model, or not at this URL |
 * | status 413 | `Ignored` | `Context` | too much for this provider |
 * | `InvalidRequestError`, or another status of 400 and more | `Ignored` | `Final` | the caller's mistake, which it is everywhere |
 * | `UnknownError` otherwise | `Failure`, not retryable | `Elsewhere` | nothing is known but that it failed |
 * | `InvalidResponseError` | `Failure`, not retryable | `Elsewhere` | an answer in another format, which it will have next time too |
 * | `NetworkError`, `TransportError` | `Failure`, retryable | `Retry` | nobody answered |
 * | `NetworkError`, `InvalidUrlError` | `Ignored` | `Elsewhere` | the request never left; the target's URL is wrong |
 * | `NetworkError`, `EncodeError` | `Ignored` | `Final` | the request never left: it cannot be written |
 * | `UnsupportedSchemaError`, `InvalidUserInputError` | `Ignored` | `Elsewhere` | this provider has no form for it; another may |
 * | `ContentPolicyError` | `Ignored` | `Final` | a refusal is an answer; who asks around for another is not us |
 * | `ToolConfigurationError`, `ToolkitRequiredError`, `InvalidToolResultError`, `ToolResultEncodingError` | `Ignored` | `Final` | a bug on our side |
 * | `InvalidOutputError`, `StructuredOutputError`, `ToolNotFoundError`, `ToolParameterValidationError` | `Success` | `Reask` | the answer came in full and was paid; what it says is another matter |
 *
 * `Ignored` is neither retried nor counted. So a wrong key fails every call with the same clear error and never opens a
 * circuit, which would hide that error behind another one; and a file of bad requests does not stop those of others.
 *
 * **Gotchas**
 *
 * - The last row differs from AiError's `isRetryable`, which is true for it. Asking again costs as much as the first
 *   time and wants a changed prompt: it belongs where the prompt is made, not into a retry of the transport.
 * - A 403 that names a model or a region is `Elsewhere`, although another project's key might have access: a key that is
 *   refused for one model still serves the others, and is not to be set aside for it.
 * - A used-up quota is read from the words of a 429 only. Elsewhere the code has to say it, in its own field: a 400 may quote
 *   the prompt, and no prompt is to set a credential aside.
 * - The text is the provider's, in words that it may change. An error that is no longer understood falls to the row of
 *   its status.
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
import * as Option from "effect/Option"
import * as AiRejection from "./AiRejection.ts"
import * as Words from "./internal/wire/errorWords.ts"
import * as RetryAfter from "./RetryAfter.ts"

/**
 * What may be done about an error.
 *
 * | remedy | |
 * |---|---|
 * | `Retry` | it may pass: ask again, here or elsewhere |
 * | `Wait` | throttled: ask elsewhere now, here after its retryAfter |
 * | `Credential` | the credential is refused or used up: ask with another one |
 * | `Context` | the prompt is too long: ask only where the context is larger |
 * | `Elsewhere` | never here; another target may answer |
 * | `Reask` | the answer is complete, paid for and of no use: ask anew, at its price |
 * | `Final` | nobody will answer this better |
 *
 * @since 0.1.0
 * @category models
 */
export type Remedy = "Retry" | "Wait" | "Credential" | "Context" | "Elsewhere" | "Reask" | "Final"

/**
 * The outcome of an attempt that failed with this error.
 *
 * @since 0.1.0
 * @category classifiers
 */
export const fromAiError = (error: AiError.AiError): Outcome.Outcome => verdictOf(error).outcome(error)

/**
 * What may be done about this error.
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

interface Verdict {
  readonly remedy: Remedy
  readonly outcome: (error: AiError.AiError) => Outcome.Outcome
}

const ignored = () => Outcome.ignored
const final = Outcome.failure({ retryable: false })

/** It often passes. */
const transient: Verdict = {
  remedy: "Retry",
  outcome: (error) => Outcome.failure({ retryable: true, retryAfter: RetryAfter.fromAiError(error) })
}
const throttled: Verdict = {
  remedy: "Wait",
  outcome: (error) => Outcome.throttled({ retryAfter: RetryAfter.fromAiError(error) })
}
/** A refusal of our own. */
const refused: Verdict = { remedy: "Wait", outcome: ignored }
const credential: Verdict = { remedy: "Credential", outcome: ignored }
const context: Verdict = { remedy: "Context", outcome: ignored }
/** Broken for good, as far as one can see. */
const broken: Verdict = { remedy: "Elsewhere", outcome: () => final }
/** It works, and does not have what is asked for. */
const unavailable: Verdict = { remedy: "Elsewhere", outcome: ignored }
const mistaken: Verdict = { remedy: "Final", outcome: ignored }
const useless: Verdict = { remedy: "Reask", outcome: () => Outcome.success }

const verdictOf = (error: AiError.AiError): Verdict => {
  const rejection = AiRejection.fromAiError(error)
  return Option.isSome(rejection) ? ofRejection(rejection.value) : ofReason(error.reason)
}

const ofRejection = (rejection: AiRejection.Rejection): Verdict => {
  switch (rejection._tag) {
    case "CircuitOpen":
    case "BackpressureShed":
      return refused
    case "NoTarget":
      return ofNoTarget(rejection)
    case "DeadlineExceeded":
      return mistaken
    case "AttemptTimeout":
    case "FirstTokenTimeout":
    case "IdleTimeout":
    case "TruncatedStream":
    case "MalformedEvent":
      return transient
    case "EmptyAnswer":
      return useless
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
      return ofWords(reason) ?? ofAdvice(reason, ofStatus(reason))
    case "QuotaExhaustedError":
      return credential
    case "InvalidResponseError":
      return broken
    case "NetworkError":
      return ofNetwork[reason.reason]
    case "UnsupportedSchemaError":
    case "InvalidUserInputError":
      return unavailable
    case "ContentPolicyError":
    case "ToolConfigurationError":
    case "ToolkitRequiredError":
    case "InvalidToolResultError":
    case "ToolResultEncodingError":
      return mistaken
    case "InvalidOutputError":
    case "StructuredOutputError":
    case "ToolNotFoundError":
    case "ToolParameterValidationError":
      return useless
  }
}

const ofNetwork: { readonly [_ in AiError.NetworkError["reason"]]: Verdict } = {
  TransportError: transient,
  InvalidUrlError: unavailable,
  EncodeError: mistaken
}

/** The reasons that adapters choose by status, each in its own way. */
type Answered =
  | AiError.RateLimitError
  | AiError.InternalProviderError
  | AiError.AuthenticationError
  | AiError.InvalidRequestError
  | AiError.UnknownError

const statusOf = (reason: Answered): number | undefined => reason.http?.response?.status

const ofWords = (reason: Answered): Verdict | undefined => {
  const status = statusOf(reason)
  if (isTransient(status)) return undefined
  const said = Words.of(reason)
  if (isQuota(reason, said)) return reason._tag === "InternalProviderError" ? undefined : credential
  switch (reason._tag) {
    case "RateLimitError":
      return undefined
    case "InternalProviderError":
      // Servers of local models answer so: what a gateway's 502 or 503 says in words is not about this prompt.
      return status === 500 && Words.isContext(said) ? context : undefined
    case "AuthenticationError":
      return Words.isModel(said) || Words.isRegion(said) ? unavailable : undefined
    case "InvalidRequestError":
    case "UnknownError":
      if (Words.isContext(said)) return context
      return Words.isModel(said) || Words.isRegion(said) ? unavailable : undefined
  }
}

/** Who refuses by rate has not read the prompt; a 400 or 422 may quote it, and then only a code counts. */
const isQuota = (reason: Answered, said: string): boolean =>
  reason._tag === "RateLimitError" || statusOf(reason) === 429
    ? Words.isQuotaInWords(said)
    : Words.isQuota(Words.named(reason))

const ofStatus = (reason: Answered): Verdict => {
  const status = statusOf(reason)
  if (isTransient(status)) return transient
  switch (reason._tag) {
    case "RateLimitError":
      return throttled
    case "InternalProviderError":
      return status === 429 ? throttled : transient
    case "AuthenticationError":
      return credential
    case "InvalidRequestError":
      return byStatus(status) ?? mistaken
    case "UnknownError":
      return byStatus(status) ?? broken
  }
}

/** Request timeout, conflict, too early, overloaded: the provider's own clients repeat them. */
const isTransient = (status: number | undefined): boolean =>
  status === 408 || status === 409 || status === 425 || status === 529

const byStatus = (status: number | undefined): Verdict | undefined => {
  if (status === undefined || status < 300) return undefined
  if (status < 400) return unavailable
  if (status >= 500) return transient
  switch (status) {
    case 401:
    case 402:
    case 403:
      return credential
    case 404:
    case 405:
    case 410:
      return unavailable
    case 413:
      return context
    case 429:
      return throttled
    default:
      return mistaken
  }
}

/** What the provider says about repeating, where it says so. */
const ofAdvice = (reason: Answered, verdict: Verdict): Verdict => {
  switch (reason.http?.response?.headers["x-should-retry"]) {
    case "true":
      return verdict === throttled ? throttled : transient
    case "false":
      return verdict === throttled ? credential : verdict === transient ? broken : verdict
    default:
      return verdict
  }
}
