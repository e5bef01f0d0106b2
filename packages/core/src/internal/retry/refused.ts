import * as Cause from "effect/Cause"
import type * as Exit from "effect/Exit"
import { DeadlineExceeded } from "../../Deadline.ts"
import { isRefusal, type Refusal } from "../../Refusal.ts"
import { RetryStopped } from "./stopped.ts"

/** The refusal that an attempt ended with, if the attempt was not made. */
export const refusalIn = (exit: Exit.Exit<unknown, unknown>): Refusal | undefined => {
  if (exit._tag === "Success") return undefined
  let first: Refusal | undefined
  for (const reason of exit.cause.reasons) {
    if (!Cause.isFailReason(reason) || !isRefusal(reason.error) || endedAttempt(reason.error)) return undefined
    first ??= reason.error
  }
  return first
}

/** The refusal that stopped a retry inside, whose exit is that of a request which was made. */
export const refusalInside = (exit: Exit.Exit<unknown, unknown>): Refusal | undefined => {
  if (exit._tag === "Success") return undefined
  for (const reason of exit.cause.reasons) {
    // Annotations are typed by their key, which only `loop.ts` writes.
    const stopped = reason.annotations.get(RetryStopped.key) as RetryStopped["Service"] | undefined
    if (stopped?.refusal !== undefined) return stopped.refusal
  }
  return undefined
}

/** Whether a deadline ended an attempt that was running: the request was made. A policy's refusal has its `reason`. */
const endedAttempt = (refusal: Refusal): boolean => {
  const reason = "reason" in refusal ? refusal.reason : refusal
  return reason instanceof DeadlineExceeded && reason.at === "Attempt"
}
