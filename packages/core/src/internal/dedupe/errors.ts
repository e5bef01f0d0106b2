import * as Schema from "effect/Schema"
import * as Refusal from "../../Refusal.ts"

/**
 * A flight ended without a result: the scope of its claim closed first, or every caller left.
 *
 * @since 0.1.0
 * @category errors
 */
export class FlightAbandoned extends Schema.Error<FlightAbandoned>("@sluice/core/FlightAbandoned")({
  _tag: Schema.tag("FlightAbandoned"),
  operation: Schema.String
}) {
  get [Refusal.TypeId](): true {
    return true
  }
  override get message(): string {
    return `operation ${this.operation}: the flight ended without an answer`
  }
}

/**
 * `maxWaiters` callers wait for the same flight already. Nothing was run for this one.
 *
 * **Details**
 *
 * It says nothing about the dependency, so it is neither retried nor counted by a circuit. Retry when the flight has ended.
 * The usual cause is one caller in a loop. If there are that many callers, raise `maxWaiters`.
 *
 * @since 0.1.0
 * @category errors
 */
export class TooManyWaiters extends Schema.Error<TooManyWaiters>("@sluice/core/TooManyWaiters")({
  _tag: Schema.tag("TooManyWaiters"),
  /** The name of the policy that refused. */
  policy: Schema.String,
  operation: Schema.String,
  /** Callers that wait for the flight. */
  waiting: Schema.Int,
  maxWaiters: Schema.Int
}) {
  get [Refusal.TypeId](): true {
    return true
  }
  override get message(): string {
    return `${this.policy}: ${this.waiting} of at most ${this.maxWaiters} callers wait for one flight of operation ` +
      `${this.operation}. Retry when it has ended, or raise maxWaiters`
  }
}
