import * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import * as Option from "effect/Option"
import * as AiRejection from "../rejection/rejection.ts"

/** The type of a defect, and of an error that is not in the vocabulary. */
export const other = "_OTHER"

/** The call was interrupted, or the consumer of its stream left, before the answer was complete. */
export const interrupted = "Interrupted"

/** Every value of `error.type` besides `other`. They are tags, so they are few and hold no text of a provider. */
export const vocabulary: ReadonlySet<string> = new Set([
  interrupted,
  "TimeoutError",
  ...AiRejection.Rejection.members.map((rejection) => rejection.fields._tag.schema.literal),
  ...AiError.AiErrorReason.members.map((reason) => reason.fields._tag.schema.literal)
])

/** Why a call failed. A defect takes precedence over a failure, and a failure over an interruption. */
export const fromCause = (cause: Cause.Cause<unknown>): string => {
  if (Cause.hasDies(cause)) return other
  const failure = cause.reasons.find(Cause.isFailReason)
  return failure === undefined ? interrupted : fromError(failure.error)
}

export const fromError = (error: unknown): string => {
  if (!AiError.isAiError(error)) return known(error)
  return known(Option.getOrElse(AiRejection.fromAiError(error), () => error.reason))
}

const known = (error: unknown): string => {
  const tag = typeof error === "object" && error !== null && "_tag" in error ? error._tag : undefined
  return typeof tag === "string" && vocabulary.has(tag) ? tag : other
}

/** The type of an error part. Only an `AiError` has a type of its own. */
export const ofStreamError = (error: unknown): string => {
  const type = fromError(error)
  return type === other ? "InternalProviderError" : type
}
