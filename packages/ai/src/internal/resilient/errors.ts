import type { BackpressureShed } from "@sluice/core/Backpressure"
import type { CircuitOpen } from "@sluice/core/CircuitBreaker"
import * as Deadline from "@sluice/core/Deadline"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { AttemptTimeout } from "@sluice/core/Sluice"
import type * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import * as AiRejection from "../../AiRejection.ts"
import type { CallLog } from "../../CallLog.ts"
import { stackless } from "../stackless.ts"
import type { AnyTarget } from "./target.ts"

/** What core says where it lets nobody through. */
export type Refusal = CircuitOpen | BackpressureShed | InvalidOptions

/** What an error needs to know of a call. */
export interface Late {
  readonly method: CallLog["method"]
  readonly deadline: Deadline.Deadline | undefined
  /** The one that runs. */
  readonly attempt: { readonly startedAt: number } | undefined
  now(): number
}

/**
 * The deadline of the call has passed, or else the time of the attempt, whichever is sooner: a timer may be early by the clock,
 * which then has passed neither.
 */
export const late = (call: Late, target: AnyTarget): AiError.AiError =>
  overdue(call, "Attempt", (call.attempt?.startedAt ?? call.now()) + target.limits.attemptMillis) ??
    outOfTime(call, target)

const outOfTime = ({ method }: Late, { limits }: AnyTarget): AiError.AiError =>
  AiRejection.toAiError(stackless(() => new AttemptTimeout({ after: limits.attemptTimeout })), method)

// By whose deadline: what a call said of its own needs no second look, which may find that it is still to come.
const saidBy = new WeakMap<AiError.AiError, Late>()

const overdue = (
  call: Late,
  at: Deadline.DeadlineExceeded["at"],
  orElseAt = Number.NEGATIVE_INFINITY
): AiError.AiError | undefined => {
  const { deadline, method } = call
  if (deadline === undefined || (call.now() < deadline.at && deadline.at > orElseAt)) return undefined
  const error = AiRejection.toAiError(Deadline.exceeded(deadline, at), method)
  saidBy.set(error, call)
  return error
}

/** The same as an error of a model. */
export const translated = (
  call: Late,
  target: AnyTarget,
  error: Refusal | Deadline.DeadlineExceeded | AiError.AiError
): AiError.AiError => {
  switch (error._tag) {
    case "AiError":
      // A model that keeps the deadline by itself takes the end of the attempt for it.
      return saidBy.get(error) === call || !AiRejection.is("DeadlineExceeded", error)
        ? error
        : overdue(call, "Attempt") ?? outOfTime(call, target)
    case "DeadlineExceeded":
      return late(call, target)
    case "CircuitOpen":
      return AiRejection.toAiError(error, call.method)
    case "BackpressureShed":
      return (error.why === "MaxWait" ? overdue(call, "Queue") : undefined) ?? AiRejection.toAiError(error, call.method)
    case "InvalidOptions":
      // A wait that is no number of milliseconds: it is computed here.
      throw error
  }
}

/** The cause with its annotations, if it has this error. */
export const replaceFail = <E>(cause: Cause.Cause<unknown>, error: E): Cause.Cause<E> => {
  const isIt = (reason: Cause.Reason<unknown>) => Cause.isFailReason(reason) && reason.error === error
  return cause.reasons.some(isIt) ? cause as Cause.Cause<E> : Cause.fail(error)
}
