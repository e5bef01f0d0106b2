import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import { failure, ignored, type Outcome } from "../../Outcome.ts"
import { lastMomentOf } from "../deadline/shared.ts"
import type { Call } from "./call.ts"
import type { AttemptTimeout, Rejected } from "./rejections.ts"

/**
 * The outcome of an attempt for the breaker and the retry. `undefined` if the `Classifier` has to decide. The elapsed time is
 * the attempt's, without the waits before it.
 */
export const attemptOutcome = <A, E>(
  call: Call<A, E>,
  exit: Exit.Exit<A, E | Rejected | AttemptTimeout>
): Outcome | undefined => {
  const { deadline, ownClassify, policy: { journal, settings }, raised } = call
  const now = call.now()
  const elapsedMillis = now - call.startedAt
  if (Exit.isFailure(exit)) {
    if (raised !== undefined && failsWith(exit.cause, (error) => error === raised)) {
      return outcomeOfRaised(raised, elapsedMillis, settings.minTimeoutMillis)
    }
    if (failsWith(exit.cause, (error) => journal.isShed(error))) return ignored
    // A `Deadline.within` around the policy can interrupt the attempt before the policy's own timer fires.
    const isLate = deadline !== undefined && now >= lastMomentOf(deadline)
    if (isLate && Cause.hasInterruptsOnly(exit.cause)) return outcomeOfLate(elapsedMillis, settings.minTimeoutMillis)
  }
  // An error that the policy did not raise is the call's own.
  const own = exit as Exit.Exit<A, E>
  return ownClassify?.(own, elapsedMillis) ?? settings.classify?.(own, elapsedMillis)
}

const outcomeOfRaised = (
  raised: AttemptTimeout | Rejected,
  elapsedMillis: number,
  minTimeoutMillis: number
): Outcome => {
  if (raised._tag === "AttemptTimeout") return failure()
  const { reason } = raised
  const wasTried = reason._tag === "DeadlineExceeded" && reason.at === "Attempt"
  return wasTried ? outcomeOfLate(elapsedMillis, minTimeoutMillis) : ignored
}

// An attempt that the deadline ended is not repeated, and is evidence only if it had enough time to answer.
const outcomeOfLate = (elapsedMillis: number, minTimeoutMillis: number): Outcome =>
  elapsedMillis >= minTimeoutMillis ? failure({ retryable: false }) : ignored

const failsWith = (cause: Cause.Cause<unknown>, is: (error: unknown) => boolean): boolean =>
  cause.reasons.some((reason) => Cause.isFailReason(reason) && is(reason.error))
