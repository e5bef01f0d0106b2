import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { Hub } from "../../Hub.ts"
import { stopped } from "../../RetryPolicy.ts"
import type { Calls, PolicyEvent } from "../../Sluice.ts"
import { type Source, sourcesOf } from "../kit/metrics.ts"
import { Rejected } from "./rejections.ts"

/** The events and counters of a policy. */
export class PolicyJournal {
  readonly events = new Hub<PolicyEvent>()
  readonly calls: { -readonly [end in keyof Calls]: Calls[end] } = {
    succeeded: 0,
    failed: 0,
    rejected: 0,
    interrupted: 0
  }
  attempts = 0
  private readonly clock: Clock.Clock
  // Recognised by identity, since a refusal of another policy inside the call has the same form.
  private readonly sheds = new WeakSet<object>()

  constructor(clock: Clock.Clock) {
    this.clock = clock
  }

  /** Records a refusal of the policy's own permits. */
  recordShed(rejected: Rejected): Rejected {
    this.sheds.add(rejected)
    return rejected
  }

  isShed(error: unknown): boolean {
    return error instanceof Rejected && this.sheds.has(error)
  }

  /**
   * Counts a call that ran. `isOwn` recognises the refusals of this policy. Calls that joined another, or got a cached result,
   * are counted by the deduplicator.
   */
  ended(key: string, exit: Exit.Exit<unknown, unknown>, isOwn: (error: unknown) => boolean): void {
    if (exit._tag === "Success") {
      this.calls.succeeded++
      return
    }
    const rejected = exit.cause.reasons.filter(Cause.isFailReason).find(({ error }) => isOwn(error))?.error
    const isRejected = rejected instanceof Rejected
    this.calls[isRejected ? "rejected" : Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : "failed"]++
    if (!this.events.hasReaders) return
    const refusal = isRejected ? rejected : Option.getOrUndefined(stopped(exit.cause))?.refusal
    if (refusal instanceof Rejected && isOwn(refusal)) {
      const { reason: { _tag: reason } } = refusal
      this.events.publish({ _tag: "Rejected", key, reason, at: this.clock.currentTimeMillisUnsafe() })
    }
  }

  metrics(policy: string): ReadonlyArray<Source> {
    const { counter } = sourcesOf(policy)
    return [
      ...(["succeeded", "failed", "rejected", "interrupted"] as const).map((end) =>
        counter("sluice_policy_calls_total", "Calls that ran under the policy, by result", () => this.calls[end], {
          end
        })
      ),
      counter("sluice_policy_attempts_total", "Attempts at the dependency", () => this.attempts)
    ]
  }
}
