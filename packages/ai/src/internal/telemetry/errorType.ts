import * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import * as Option from "effect/Option"
import * as AiRejection from "../../AiRejection.ts"

/** What stands for everything that has no name here: a defect, an error of somebody else's. */
export const other = "_OTHER"

/** The call was left before its answer was complete: by an interruption, or by who read its stream. */
export const interrupted = "Interrupted"

/** Every value that `error.type` can have besides `other`: tags, so that they are few and hold nobody's words. */
export const vocabulary: ReadonlySet<string> = new Set([
  interrupted,
  "TimeoutError",
  ...AiRejection.Rejection.members.map((rejection) => rejection.fields._tag.schema.literal),
  ...AiError.AiErrorReason.members.map((reason) => reason.fields._tag.schema.literal)
])

/** Why a call failed: the strongest thing that its cause holds, a defect over a failure over an interruption. */
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

/** An error that came as a part of an answer: of what kind, only an AiError says. */
export const ofStreamError = (error: unknown): string => {
  const type = fromError(error)
  return type === other ? "InternalProviderError" : type
}
