import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as Refusal from "../../Refusal.ts"
import type { Refused } from "./circuits.ts"
import { type Settings, stateName } from "./model.ts"

/**
 * The circuit refused the call, which was not made.
 *
 * | state | meaning |
 * |---|---|
 * | `Open` | the dependency failed, and is not called for a while |
 * | `HalfOpen` | every probe slot is taken |
 * | `Ramp` | the circuit has closed and admits a growing share of the calls; this one was not among them |
 * | `ForcedOpen` | an operator has opened the circuit |
 *
 * @since 0.1.0
 * @category errors
 */
export class CircuitOpen extends Schema.Error<CircuitOpen>("@sluice/core/CircuitOpen")({
  _tag: Schema.tag("CircuitOpen"),
  /** The name of the policy that refused. */
  policy: Schema.String,
  /** The dependency key. It is not part of `message`, which reaches logs and spans. */
  key: Schema.String,
  state: Schema.Literals(["Open", "HalfOpen", "Ramp", "ForcedOpen"]),
  /** When to retry, more than zero. For a circuit that is forced open without an end, when to look again. */
  retryAfter: Schema.DurationFromMillis,
  /** The Retry-After of the dependency, if that is longer. */
  hint: Schema.optional(Schema.DurationFromMillis),
  /** The evidence: calls that were counted when the circuit opened. */
  calls: Schema.Int,
  /** How many of them failed. */
  failures: Schema.Int,
  /** How many of them were slow. */
  slow: Schema.Int,
  /** Why an operator forced the circuit open. It is not part of `message`. */
  reason: Schema.optional(Schema.String)
}) {
  get [Refusal.TypeId](): true {
    return true
  }
  override get message(): string {
    const retryAfter = Duration.format(this.retryAfter)
    if (this.state === "ForcedOpen") {
      return `${this.policy}: circuit forced open by an operator. Look again in ${retryAfter}`
    }
    const slow = this.slow === 0 ? "" : `, ${this.slow} slow`
    const evidence = `${this.failures} of ${this.calls} calls failed${slow}`
    return `${this.policy}: circuit ${inWords[this.state]} (${evidence}). Retry in ${retryAfter}`
  }
}

const inWords = {
  Open: "open",
  HalfOpen: "half-open, every probe slot is taken",
  Ramp: "closed and ramping up, this call was held back"
}

export const circuitOpen = (
  { name, openMillis }: Settings,
  { because, control, key, now, retryAfterMillis }: Refused
): CircuitOpen => {
  const hintMillis = control._tag === "Open" ? control.hinted - now : 0
  const millis = retryAfterMillis > 0 ? retryAfterMillis : openMillis(1)
  const state = stateName(control, now)
  return Refusal.withoutStack(() =>
    new CircuitOpen({
      policy: name,
      key,
      state: state === "Open" || state === "HalfOpen" || state === "ForcedOpen" ? state : "Ramp",
      retryAfter: Duration.millis(Math.max(1, millis)),
      ...(hintMillis > millis ? { hint: Duration.millis(hintMillis) } : undefined),
      ...because,
      ...(control._tag === "Forced" ? { reason: control.reason } : undefined)
    })
  )
}
