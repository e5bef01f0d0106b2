import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { DeadlineExceeded } from "../../Deadline.ts"
import * as Refusal from "../../Refusal.ts"
import { CircuitOpen } from "../circuit/circuitOpen.ts"
import { TooManyWaiters } from "../dedupe/errors.ts"
import { BackpressureShed } from "../permits/shed.ts"
import { QuotaExceeded } from "../quota/exceeded.ts"

/**
 * The policy did not make the call, or its deadline ended a running attempt. `reason` says why.
 *
 * A call whose further attempt is refused fails with its own error instead. See `RetryPolicy.stopped`.
 *
 * **Example** (Retrying when the circuit says so)
 *
 * ```ts
 * import { Duration, Effect } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as Sluice from "@sluice/core/Sluice"
 *
 * const program = Effect.gen(function*() {
 *   const gpt = yield* Sluice.make({ name: "gpt", breaker: { trip: CircuitBreaker.consecutive(1), openFor: "30 seconds" } })
 *   yield* Effect.exit(gpt.protect(Effect.fail("503")))
 *   return yield* gpt.protect(Effect.succeed("an answer")).pipe(
 *     Effect.catchReason("Rejected", "CircuitOpen", (open) => Effect.succeed(`in ${Math.ceil(Duration.toSeconds(open.retryAfter))} s`))
 *   )
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Sluice.layerStoresMemory))))
 * // => in 30 s
 * ```
 *
 * @since 0.1.0
 * @category errors
 */
export class Rejected extends Schema.Error<Rejected>("@sluice/core/Rejected")({
  _tag: Schema.tag("Rejected"),
  reason: Schema.Union([CircuitOpen, BackpressureShed, QuotaExceeded, DeadlineExceeded, TooManyWaiters])
}) {
  get [Refusal.TypeId](): true {
    return true
  }
  override get message(): string {
    return this.reason.message
  }
}

/**
 * One attempt took longer than `attemptTimeout`.
 *
 * @since 0.1.0
 * @category errors
 */
export class AttemptTimeout extends Schema.Error<AttemptTimeout>("@sluice/core/AttemptTimeout")({
  _tag: Schema.tag("AttemptTimeout"),
  after: Schema.DurationFromMillis,
  /** The name of the policy. */
  policy: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    const by = this.policy === undefined ? "" : `${this.policy}: `
    return `${by}no answer to this attempt within ${Duration.format(this.after)}`
  }
}
