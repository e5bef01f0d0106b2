import * as Duration from "effect/Duration"
import type * as AiError from "effect/ai/AiError"
import * as Option from "effect/Option"
import * as AiOutcome from "../../AiOutcome.ts"
import * as AiRejection from "../../AiRejection.ts"
import * as RetryAfter from "../../RetryAfter.ts"

/** The longest wait for the same target while another one is available. */
export const maxMillisHere = 5_000

/**
 * Whether the failure of an attempt is probably over soon, so that the same target is tried again: a lost connection, a 5xx or a
 * similar status, a short Retry-After. Silence has cost its time limit already, and a rate limit without a Retry-After lasts for
 * an unknown time.
 */
export const isSoonOver = (error: AiError.AiError, maxRetryAfterMillis: number): boolean => {
  const rejection = AiRejection.fromAiError(error)
  if (Option.isSome(rejection)) return rejection.value._tag === "TruncatedStream"
  const remedy = AiOutcome.remedy(error)
  if (remedy !== "Retry" && remedy !== "Wait") return false
  const retryAfter = RetryAfter.fromAiError(error)
  if (retryAfter === undefined) return remedy === "Retry"
  return Duration.toMillis(retryAfter) <= Math.min(maxMillisHere, maxRetryAfterMillis)
}
