import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Exit from "effect/Exit"
import type { Calls, PolicyEvent } from "../Sluice.ts"
import { Hub } from "./hub.ts"
import type { Source } from "./metrics.ts"
import { Rejected } from "./rejections.ts"

/** What a policy tells of itself: its calls and attempts as they happen, and how many there were. */
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
  // What the policy's own permits refused: another policy's refusal inside the call looks the same.
  private readonly sheds = new WeakSet<object>()

  constructor(clock: Clock.Clock) {
    this.clock = clock
  }

  /** The permits refused a call of this policy. */
  shed(rejected: Rejected): Rejected {
    this.sheds.add(rejected)
    return rejected
  }

  isShed(error: unknown): boolean {
    return error instanceof Rejected && this.sheds.has(error)
  }

  /**
   * A call that ran has ended; `isOwn` knows the policy's own refusals. Those that joined another call, or got what was kept, are
   * the deduplicator's to count.
   */
  ended(key: string, exit: Exit.Exit<unknown, unknown>, isOwn: (error: unknown) => boolean): void {
    if (exit._tag === "Success") {
      this.calls.succeeded++
      return
    }
    const rejected = exit.cause.reasons.find((reason) => Cause.isFailReason(reason) && isOwn(reason.error))
    if (rejected === undefined || !Cause.isFailReason(rejected) || !(rejected.error instanceof Rejected)) {
      this.calls[Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : "failed"]++
      return
    }
    this.calls.rejected++
    if (this.events.hasReaders) {
      const { error: { reason } } = rejected
      this.events.publish({ _tag: "Rejected", key, reason: reason._tag, at: this.clock.currentTimeMillisUnsafe() })
    }
  }

  /** Read by whoever exports metrics. Labels are the policy's name and words of ours, never a key. */
  sources(policy: string): ReadonlyArray<Source> {
    const counter = (id: string, description: string, words: Record<string, string>, read: () => number): Source => ({
      kind: "Counter",
      id,
      description,
      attributes: { policy, ...words },
      read
    })
    const calls = (["succeeded", "failed", "rejected", "interrupted"] as const).map((end) =>
      counter(
        "sluice_policy_calls_total",
        "Calls that ran under the policy, by how they ended",
        { end },
        () => this.calls[end]
      )
    )
    return [...calls, counter("sluice_policy_attempts_total", "Attempts at the dependency", {}, () => this.attempts)]
  }
}
