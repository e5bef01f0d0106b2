import type { Refused } from "@sluice/core/Admission"
import * as Deadline from "@sluice/core/Deadline"
import { withoutStack } from "@sluice/core/Refusal"
import { AttemptTimeout } from "@sluice/core/Sluice"
import type * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import * as AiRejection from "../../AiRejection.ts"
import type { CallLog } from "../../CallLog.ts"
import type { AnyTarget } from "./target.ts"

/** What the error of a call depends on. */
export interface TimedCall {
  readonly method: CallLog["method"]
  readonly deadline: Deadline.Deadline | undefined
  /** The running attempt. */
  readonly attempt: { readonly startedAt: number } | undefined
  now(): number
}

/**
 * The error of an attempt whose time is over: the deadline of the call, or the attempt's timeout, whichever is sooner. A timer
 * can fire early by the clock, before either.
 */
export const timedOut = (call: TimedCall, target: AnyTarget): AiError.AiError =>
  pastDeadline(call, "Attempt", (call.attempt?.startedAt ?? call.now()) + target.limits.attemptMillis) ??
    attemptTimeout(call, target)

const attemptTimeout = ({ method }: TimedCall, { limits }: AnyTarget): AiError.AiError =>
  AiRejection.toAiError(withoutStack(() => new AttemptTimeout({ after: limits.attemptTimeout })), method)

// The call whose deadline an error is about. A call need not check again whether its own deadline has passed.
const callOf = new WeakMap<AiError.AiError, TimedCall>()

const pastDeadline = (
  call: TimedCall,
  at: Deadline.DeadlineExceeded["at"],
  orBefore = Number.NEGATIVE_INFINITY
): AiError.AiError | undefined => {
  const { deadline, method } = call
  if (deadline === undefined || (call.now() < deadline.at && deadline.at > orBefore)) return undefined
  const error = AiRejection.toAiError(Deadline.exceeded(deadline, at), method)
  callOf.set(error, call)
  return error
}

/** An error of an attempt, or of its admission, as the error of a model. */
export const translated = (
  call: TimedCall,
  target: AnyTarget,
  error: Refused | Deadline.DeadlineExceeded | AiError.AiError
): AiError.AiError => {
  switch (error._tag) {
    case "AiError":
      // A model that enforces the deadline itself cannot tell it from the timeout of the attempt.
      return callOf.get(error) === call || !AiRejection.is("DeadlineExceeded", error)
        ? error
        : pastDeadline(call, "Attempt") ?? attemptTimeout(call, target)
    case "DeadlineExceeded":
      return timedOut(call, target)
    case "CircuitOpen":
      return AiRejection.toAiError(error, call.method)
    case "BackpressureShed":
    case "QuotaExceeded":
      return (error.why === "MaxWait" ? pastDeadline(call, "Queue") : undefined) ??
        AiRejection.toAiError(error, call.method)
  }
}

/** The cause itself if it has this error, with its annotations. Otherwise a cause of the error. */
export const replaceFail = <E>(cause: Cause.Cause<unknown>, error: E): Cause.Cause<E> => {
  const isIt = (reason: Cause.Reason<unknown>) => Cause.isFailReason(reason) && reason.error === error
  // An attempt fails once. So if this error is among the failures, it is the only one.
  return cause.reasons.some(isIt) ? cause as Cause.Cause<E> : Cause.fail(error)
}
