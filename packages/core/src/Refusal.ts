/**
 * Refusals: errors with which a policy declines to make a call.
 *
 * A refusal says nothing about the dependency, since the call never reached it. `Outcome.fromExit` therefore reads a refusal
 * as `Ignored`: no retry repeats it, no circuit counts it, no deduplicator caches it. `CircuitOpen`, `BackpressureShed`,
 * `DeadlineExceeded` and `Rejected` are refusals.
 *
 * **When to use**
 *
 * For the errors of a policy of your own, so that it composes with the ones here. Not for errors of the dependency: as
 * refusals they would not be retried and would not open its circuit.
 *
 * **Gotchas**
 *
 * - `withoutStack` changes the global `Error.stackTraceLimit` while it runs. Pass it synchronous code only.
 *
 * **Example** (A refusal of your own)
 *
 * ```ts
 * import { Exit, Schema } from "effect"
 * import * as Outcome from "@sluice/core/Outcome"
 * import * as Refusal from "@sluice/core/Refusal"
 *
 * class Closed extends Schema.Error<Closed>("app/Closed")({ _tag: Schema.tag("Closed") }) {
 *   readonly [Refusal.TypeId] = true
 *   override readonly message = "closed until 8:00"
 * }
 *
 * const closed = Refusal.withoutStack(() => new Closed())
 * console.log(Outcome.fromExit(Exit.fail(closed))._tag) // => Ignored
 * ```
 *
 * @since 0.1.0
 */

/**
 * The property that marks an error as a refusal. Its value is not read.
 *
 * @since 0.1.0
 * @category symbols
 */
export const TypeId = "~@sluice/core/Refusal"

/**
 * An error with which a policy declines to make a call.
 *
 * @since 0.1.0
 * @category models
 */
export interface Refusal {
  readonly [TypeId]: unknown
}

/**
 * Returns whether a value is a refusal.
 *
 * @since 0.1.0
 * @category guards
 */
export const isRefusal = (u: unknown): u is Refusal => typeof u === "object" && u !== null && TypeId in u

// `stackTraceLimit` is V8's. This package is compiled without the types of a runtime.
const V8Error = Error as ErrorConstructor & { stackTraceLimit?: number }

/**
 * Runs a synchronous function during which errors capture no stack.
 *
 * **Details**
 *
 * Capturing a stack takes 13 of the 15 microseconds that an error costs. The stack of a refusal is of no use.
 *
 * @since 0.1.0
 * @category constructors
 */
export const withoutStack = <A>(construct: () => A): A => {
  const limit = V8Error.stackTraceLimit
  V8Error.stackTraceLimit = 0
  try {
    return construct()
  } finally {
    if (limit !== undefined) V8Error.stackTraceLimit = limit
  }
}
