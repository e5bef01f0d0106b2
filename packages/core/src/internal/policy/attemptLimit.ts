import type { Deadline } from "../../Deadline.ts"
import { isMoving } from "../deadline/shared.ts"
import type { Limit } from "../deadline/timeout.ts"
import type { Call } from "./call.ts"
import type { AttemptTimeout, Rejected } from "./rejections.ts"

/** The time limit of a call's attempts: the attempt timeout, or the rest of the deadline if that is less. */
export class AttemptLimit implements Limit<AttemptTimeout | Rejected> {
  readonly watch: Limit<never>["watch"]
  private readonly call: Call<never, never>
  private readonly timeoutMillis: number

  /** `timeoutMillis` is infinite if only the deadline limits the attempts. */
  constructor(call: Call<never, never>, timeoutMillis: number) {
    this.call = call
    this.timeoutMillis = timeoutMillis
    const { deadline } = call
    this.watch = deadline !== undefined && isMoving(deadline) ? (onEarlier) => deadline.watch(onEarlier) : undefined
  }

  at(): number {
    const { deadline, startedAt } = this.call
    const timesOutAt = startedAt + this.timeoutMillis
    return deadline === undefined ? timesOutAt : Math.min(timesOutAt, momentFrom(startedAt, deadline))
  }

  error(now: number): AttemptTimeout | Rejected {
    const { call, timeoutMillis } = this
    const { deadline, startedAt } = call
    const timesOutAt = startedAt + timeoutMillis
    // If the clock was set back, both moments are in the future. Then the nearer one was reached.
    return deadline !== undefined && now < timesOutAt && momentFrom(startedAt, deadline) < timesOutAt
      ? call.exceeded(deadline, "Attempt")
      : call.timedOut(timeoutMillis)
  }
}

/**
 * The moment of a deadline, at most its budget after `startedAt`. A later one was set before the clock was set back. Only the
 * deadline of a shared run may be later, by a caller that joined after the start.
 */
export const momentFrom = (startedAt: number, deadline: Deadline): number =>
  isMoving(deadline) ? deadline.at : Math.min(deadline.at, startedAt + deadline.budgetMillis)
