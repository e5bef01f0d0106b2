/**
 * The verdict on one attempt: `Success`, `Failure`, `Throttled` or `Ignored`.
 *
 * Retry, circuit breaker and policy read the same outcome of an attempt. A chain of classifiers makes it from the attempt's
 * `Exit`: the call's own `classify`, then the policy's, then the `Classifier` reference. A classifier that returns `undefined`
 * leaves the verdict to the next one. Without classifiers of your own, `fromExit` decides.
 *
 * **When to use**
 *
 * Write a classifier if the exit alone is not enough: an error that is the caller's mistake, a success that contains a
 * refusal, a Retry-After of your own protocol. Errors with the fields `isRetryable` and `retryAfter` need none.
 *
 * **Details**
 *
 * | outcome | meaning | retry | circuit |
 * |---|---|---|---|
 * | `Success` | the dependency works | no | counts as a success |
 * | `Failure` | the dependency failed | if `retryable` | counts as a failure, by its `weight` |
 * | `Throttled` | the dependency works and is rate-limiting | yes, after `retryAfter` | does not count |
 * | `Ignored` | no evidence: an interruption, a refusal of a policy, the caller's mistake | no | does not count |
 *
 * **Gotchas**
 *
 * - A 429 should be `Throttled`. As a `Failure` it opens the circuit of a dependency that works.
 * - `Ignored` is not retried. For a failure that is retried but should not open a circuit, use `failure({ weight: 0 })`.
 *
 * **Example** (An error that is the caller's mistake)
 *
 * ```ts
 * import { Cause, Exit, Option } from "effect"
 * import * as Outcome from "@sluice/core/Outcome"
 *
 * class HttpError {
 *   readonly status: number
 *   constructor(status: number) {
 *     this.status = status
 *   }
 * }
 *
 * const classify: Outcome.Classify<unknown, HttpError> = (exit) => {
 *   if (Exit.isSuccess(exit)) return undefined
 *   const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
 *   return error !== undefined && error.status < 500 ? Outcome.ignored : undefined
 * }
 *
 * console.log(classify(Exit.fail(new HttpError(404)), 12)?._tag) // => Ignored
 * console.log(classify(Exit.fail(new HttpError(503)), 12)?._tag) // => undefined
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Exit from "effect/Exit"
import { isRefusal } from "./Refusal.ts"

/**
 * The verdict on one attempt.
 *
 * @since 0.1.0
 * @category models
 */
export type Outcome = Success | Failure | Throttled | Ignored

/**
 * The attempt succeeded: the dependency works.
 *
 * @since 0.1.0
 * @category models
 */
export interface Success {
  readonly _tag: "Success"
}

/**
 * The attempt failed, and the dependency is to blame.
 *
 * @since 0.1.0
 * @category models
 */
export interface Failure {
  readonly _tag: "Failure"
  /** Whether another attempt may succeed. */
  readonly retryable: boolean
  /** How much it counts against the circuit: 0 to 1, in steps of 0.05. Above 0 it counts at least 0.05. */
  readonly weight: number
  /**
   * The Retry-After of the dependency: the least delay of a retry, and the least open time of a circuit. `maxRetryAfter` and
   * `maxOpenFor` limit it.
   */
  readonly retryAfter: Duration.Duration | undefined
  /** Opens the circuit at once for this long, whatever its evidence. */
  readonly open: Duration.Duration | undefined
}

/**
 * The dependency works and is rate-limiting.
 *
 * @since 0.1.0
 * @category models
 */
export interface Throttled {
  readonly _tag: "Throttled"
  /** The Retry-After of the dependency. */
  readonly retryAfter: Duration.Duration | undefined
}

/**
 * The attempt is no evidence about the dependency.
 *
 * @since 0.1.0
 * @category models
 */
export interface Ignored {
  readonly _tag: "Ignored"
}

/**
 * Classifies an attempt by its exit and its duration in milliseconds. `undefined` leaves it to the next classifier.
 *
 * @since 0.1.0
 * @category models
 */
export type Classify<in A, in E> = (exit: Exit.Exit<A, E>, elapsedMillis: number) => Outcome | undefined

/**
 * The `Success` outcome.
 *
 * @since 0.1.0
 * @category constructors
 */
export const success: Outcome = { _tag: "Success" }

/**
 * The `Ignored` outcome.
 *
 * @since 0.1.0
 * @category constructors
 */
export const ignored: Outcome = { _tag: "Ignored" }

/**
 * Makes a `Failure`.
 *
 * **Details**
 *
 * - `retryable`: default true, since most network faults are transient.
 * - `weight`: default 1, a whole failure. Values outside 0 to 1 are clamped.
 * - `retryAfter`, `open`: default none.
 *
 * @since 0.1.0
 * @category constructors
 */
export const failure = (options?: {
  readonly retryable?: boolean | undefined
  readonly weight?: number | undefined
  readonly retryAfter?: Duration.Duration | undefined
  readonly open?: Duration.Duration | undefined
}): Outcome => ({
  _tag: "Failure",
  retryable: options?.retryable ?? true,
  weight: clampWeight(options?.weight ?? 1),
  retryAfter: options?.retryAfter,
  open: options?.open
})

const clampWeight = (weight: number): number => weight >= 0 ? Math.min(weight, 1) : 0

/**
 * Makes a `Throttled` outcome. `retryAfter`: default none.
 *
 * @since 0.1.0
 * @category constructors
 */
export const throttled = (options?: { readonly retryAfter?: Duration.Duration | undefined }): Outcome => ({
  _tag: "Throttled",
  retryAfter: options?.retryAfter
})

const retryableFailure = failure()
const finalFailure = failure({ retryable: false })

/**
 * Classifies an exit without a classifier of your own.
 *
 * **Details**
 *
 * A defect in the cause decides, then the first typed failure that is not a refusal.
 *
 * | exit | outcome |
 * |---|---|
 * | success | `Success` |
 * | a defect | `Failure`, not retryable: a retry does not fix a bug |
 * | a typed failure | `Failure`, retryable, with the error's `retryAfter` if that is a `Duration` |
 * | a typed failure with `isRetryable: false` | the same, not retryable |
 * | a refusal (see `Refusal`), such as `CircuitOpen`, `BackpressureShed`, `DeadlineExceeded` or `Rejected` | `Ignored` |
 * | only interruptions | `Ignored` |
 *
 * @since 0.1.0
 * @category classifiers
 */
export const fromExit = (exit: Exit.Exit<unknown, unknown>): Outcome =>
  Exit.isSuccess(exit) ? success : fromCause(exit.cause)

const fromCause = (cause: Cause.Cause<unknown>): Outcome => {
  let outcome: Outcome = ignored
  for (const reason of cause.reasons) {
    if (Cause.isDieReason(reason)) return finalFailure
    if (Cause.isFailReason(reason) && outcome === ignored) outcome = fromError(reason.error)
  }
  return outcome
}

const fromError = (error: unknown): Outcome => {
  if (typeof error !== "object" || error === null) return retryableFailure
  if (isRefusal(error)) return ignored
  const retryable = !("isRetryable" in error) || error.isRetryable !== false
  const retryAfter = "retryAfter" in error && Duration.isDuration(error.retryAfter) ? error.retryAfter : undefined
  if (retryAfter === undefined) return retryable ? retryableFailure : finalFailure
  return failure({ retryable, retryAfter })
}

/**
 * The last classifier of every chain. Default `fromExit`. Replace it to classify your own errors for all policies of a program.
 *
 * @since 0.1.0
 * @category references
 */
export const Classifier: Context.Reference<(exit: Exit.Exit<unknown, unknown>, elapsedMillis: number) => Outcome> =
  Context.Reference<(exit: Exit.Exit<unknown, unknown>, elapsedMillis: number) => Outcome>("@sluice/core/Classifier", {
    defaultValue: () => fromExit
  })
