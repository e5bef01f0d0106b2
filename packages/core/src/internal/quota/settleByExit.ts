import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { DeadlineExceeded } from "../../Deadline.ts"
import { Classifier } from "../../Outcome.ts"
import type { Outcome } from "../../Outcome.ts"
import type { Used } from "../../Quota.ts"
import { isRefusal } from "../../Refusal.ts"
import type { Hold } from "./hold.ts"

/** Settles what a call reserved by how it ended. Returns the defect of a `usage` that throws. */
export const settleByExit = <A>(
  hold: Hold,
  exit: Exit.Exit<A, unknown>,
  usage: ((value: A) => Used) | undefined,
  fiber: Pick<Fiber.Fiber<unknown, unknown>, "context">
): Effect.Effect<void> | undefined => {
  if (exit._tag === "Success") {
    try {
      hold.settle(usage?.(exit.value))
      return undefined
    } catch (defect) {
      // What was used is unknown, so it stays as reserved.
      hold.settle()
      return Effect.die(defect)
    }
  }
  // An interruption says nothing about what the provider counted.
  if (Cause.hasInterruptsOnly(exit.cause)) hold.settle()
  else settleByOutcome(hold, exit.cause, Context.get(fiber.context, Classifier)(exit, 0))
  return undefined
}

/** Settles what a call reserved that failed. */
export const settleByOutcome = (hold: Hold, cause: Cause.Cause<unknown>, outcome: Outcome): void => {
  if (outcome._tag === "Throttled") {
    hold.throttled(outcome.retryAfter === undefined ? undefined : Duration.toMillis(outcome.retryAfter))
  } else if (cause.reasons.every((reason) => Cause.isFailReason(reason) && wasNotSent(reason.error))) hold.refund()
  else hold.settle()
}

// A deadline that ended a running attempt is a refusal too.
const wasNotSent = (error: unknown): boolean => {
  if (!isRefusal(error)) return false
  const reason: unknown = "reason" in error ? error.reason : error
  return !(reason instanceof DeadlineExceeded && reason.at === "Attempt")
}
