import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as Refusal from "../../Refusal.ts"

/**
 * A quota had no room for the call, so the call was not made.
 *
 * **Details**
 *
 * | `why` | meaning | what to change |
 * |---|---|---|
 * | `Full` | there is no room, and the queue is full or the call may not wait | `queue`, `maxWait`, or send fewer calls |
 * | `MaxWait` | the call queued for `maxWait`, or would have to queue longer | `maxWait`, or send fewer calls |
 * | `Deadline` | the call's deadline passes before there is room | the deadline, or send fewer calls |
 * | `TooLarge` | the call needs more than the limit | shorten the call, or raise the limit |
 * | `Spent` | the budget is used up, and running calls cannot give enough back | raise the limit |
 * | `Draining` | the policy drains, or the scope of the quota closed | send the call elsewhere |
 * | `StoreDown` | the shared store does not answer, and this limit must not be exceeded | retry, or use `whenStoreFails: "share"` |
 *
 * `retryAfter` is how long the call would have waited behind the queued ones. It is absent if waiting would not help, or if the
 * time is unknown.
 *
 * @since 0.1.0
 * @category errors
 */
export class QuotaExceeded extends Schema.Error<QuotaExceeded>("@sluice/core/QuotaExceeded")({
  _tag: Schema.tag("QuotaExceeded"),
  /** The name of the quota that refused the call. */
  policy: Schema.String,
  why: Schema.Literals(["Full", "MaxWait", "Deadline", "TooLarge", "Spent", "Draining", "StoreDown"]),
  /** The limit that had no room, such as `tokens`. */
  dimension: Schema.String,
  /** The amount that the call asked for. */
  asked: Schema.Finite,
  /** The amount that was used or reserved. */
  used: Schema.Finite,
  limit: Schema.Finite,
  /** The length of the limit's window. 0: calls at once. Absent: a budget that never resets. */
  windowMillis: Schema.optionalKey(Schema.Finite),
  /** Calls in the queue, without this one. */
  queued: Schema.Int,
  /** How long the call had queued. Absent if it had not. */
  waited: Schema.optionalKey(Schema.DurationFromMillis),
  /** When to retry, more than zero. Absent if waiting would not help, or if the time is unknown. */
  retryAfter: Schema.optionalKey(Schema.DurationFromMillis)
}) {
  get [Refusal.TypeId](): true {
    return true
  }
  override get message(): string {
    const { asked, dimension, limit, policy, queued, retryAfter, used, waited } = this
    const load = `${used} of ${limit} ${dimension}${span(this.windowMillis)} used, ${asked} asked, ${queued} queued`
    const retry = retryAfter === undefined ? "" : `; retry in ${Duration.format(retryAfter)}`
    switch (this.why) {
      case "Full":
        return `${policy}: quota is full (${load})${retry}. Raise the limit, queue or maxWait, or send fewer calls`
      case "MaxWait": {
        const after = waited === undefined ? " in time" : ` after ${Duration.format(waited)}`
        return `${policy}: no room in the quota${after} (${load})${retry}. Raise the limit or maxWait, or send fewer calls`
      }
      case "Deadline":
        return `${policy}: no room in the quota before the deadline (${load})${retry}. Raise the limit or the deadline`
      case "TooLarge":
        return `${policy}: the call needs ${asked} ${dimension}, the limit is ${limit}${span(this.windowMillis)}. ` +
          "Shorten it, or raise the limit"
      case "Spent":
        return `${policy}: the budget is spent (${load}). Raise the limit`
      case "Draining":
        return `${policy}: draining, no call starts (${load}). Send it elsewhere, or retry after resume`
      case "StoreDown":
        return `${policy}: the store of the quota does not answer (${load})${retry}. Check the store`
    }
  }
}

const span = (windowMillis: number | undefined): string => {
  if (windowMillis === undefined) return " in all"
  return windowMillis === 0 ? " at once" : ` in ${Duration.format(Duration.millis(windowMillis))}`
}
