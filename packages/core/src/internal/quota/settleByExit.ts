import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { DeadlineExceeded } from "../../Deadline.ts"
import type { Outcome } from "../../Outcome.ts"
import type { Used } from "../../Quota.ts"
import { isRefusal } from "../../Refusal.ts"
import type { Hold } from "./hold.ts"

/** Settles a hold by the exit of its call. Returns the defect of a `usage` that throws. */
export const settleByExit = <A>(
  hold: Hold,
  exit: Exit.Exit<A, unknown>,
  usage: (value: A) => Used,
  classify: (exit: Exit.Exit<unknown, unknown>, elapsedMillis: number) => Outcome
): Effect.Effect<void> | undefined => {
  // A call that never began gives its reservation back with its permits.
  if (!hold.isBegun) return undefined
  if (exit._tag === "Success") return settleByUsage(hold, exit.value, usage)
  // After an interruption it is unknown whether the provider counted the call.
  if (Cause.hasInterruptsOnly(exit.cause)) hold.settle()
  else settleByOutcome(hold, exit.cause, classify(exit, 0))
  return undefined
}

/** Settles the hold of a call that succeeded. Returns the defect of a `usage` that throws. */
export const settleByUsage = <A>(
  hold: Hold,
  value: A,
  usage: ((value: A) => Used) | undefined
): Effect.Effect<void> | undefined => {
  try {
    hold.settle(usage?.(value))
    return undefined
  } catch (defect) {
    // The use is unknown, so the reserved amounts stay.
    hold.settle()
    return Effect.die(defect)
  }
}

/** Settles the hold of a call that failed. */
export const settleByOutcome = (hold: Hold, cause: Cause.Cause<unknown>, outcome: Outcome): void => {
  if (outcome._tag === "Throttled") {
    hold.throttled(outcome.retryAfter === undefined ? undefined : Duration.toMillis(outcome.retryAfter))
  } else if (cause.reasons.every((reason) => Cause.isFailReason(reason) && wasNotSent(reason.error))) hold.refund()
  else hold.settle()
}

// A deadline that ended a running attempt is a refusal too, but that call was sent.
const wasNotSent = (error: unknown): boolean => {
  if (!isRefusal(error)) return false
  const reason: unknown = "reason" in error ? error.reason : error
  return !(reason instanceof DeadlineExceeded && reason.at === "Attempt")
}
