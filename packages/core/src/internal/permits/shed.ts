import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as Refusal from "../../Refusal.ts"

/**
 * No permit was available, so the call was not made.
 *
 * **Details**
 *
 * | `why` | meaning | what to change |
 * |---|---|---|
 * | `Full` | no permit is free, and the queue is full or the call may not wait | `capacity`, `queue`, or send fewer calls at once |
 * | `MaxWait` | the call queued for as long as it may | `maxWait`, `capacity`, or send fewer calls at once |
 * | `Draining` | no call starts until `resume` | send the call elsewhere |
 * | `TooLarge` | the call needs more permits than there are | request fewer, or raise `capacity` |
 *
 * `retryAfter` is an estimate for `Full` and `MaxWait`: the time in which, at the current pace, all queued calls and one more
 * get their permits. It is absent until as many permits were given back as there are, counted since the level became `Full`.
 *
 * @since 0.1.0
 * @category errors
 */
export class BackpressureShed extends Schema.Error<BackpressureShed>("@sluice/core/BackpressureShed")({
  _tag: Schema.tag("BackpressureShed"),
  /** The name of the policy that refused the call. */
  policy: Schema.String,
  why: Schema.Literals(["Full", "MaxWait", "Draining", "TooLarge"]),
  /** How many permits the call requested. */
  permits: Schema.Int,
  /** Permits in use. */
  running: Schema.Int,
  /** Calls in the queue, without this one. */
  queued: Schema.Int,
  /** How many permits there are. */
  capacity: Schema.Int,
  /** How long the call had queued. Absent if it never did. */
  waited: Schema.optionalKey(Schema.DurationFromMillis),
  /** When to retry, more than zero. Absent if unknown. */
  retryAfter: Schema.optionalKey(Schema.DurationFromMillis)
}) {
  get [Refusal.TypeId](): true {
    return true
  }
  override get message(): string {
    const { capacity, permits, policy, queued, retryAfter, running, waited } = this
    const asked = permits === 1 ? "" : `, ${permits} permits requested`
    const load = `${running} of ${capacity} permits in use, ${queued} queued${asked}`
    const retry = retryAfter === undefined ? "" : `; retry in ${Duration.format(retryAfter)}`
    switch (this.why) {
      case "Full":
        return `${policy}: queue is full (${load})${retry}. Raise capacity or queue, or send fewer calls at once`
      case "MaxWait": {
        const after = waited === undefined ? "" : ` after ${Duration.format(waited)}`
        return `${policy}: no permit${after} (${load})${retry}. ` +
          "Raise capacity or maxWait, or send fewer calls at once"
      }
      case "Draining":
        return `${policy}: draining, no call starts (${load}). Send it elsewhere, or retry after resume`
      case "TooLarge":
        return `${policy}: ${permits} of ${capacity} permits requested. Request fewer, or raise capacity`
    }
  }
}
