/**
 * What one attempt says about the dependency that it called.
 *
 * Retry, circuit breaker and every other policy ask the same question after an attempt: did it work, is it worth another
 * try, is the dependency to blame? They read the same answer, an `Outcome`, which a chain of classifiers makes from the
 * attempt's `Exit`: the call's own `classify`, else the policy's, else the `Classifier` reference. A classifier that
 * returns `undefined` passes the question on.
 *
 * **When to use**
 *
 * Write a classifier where the exit alone does not tell: an error that is the caller's mistake, a success that carries a
 * refusal, a Retry-After of your own protocol.
 *
 * **Gotchas**
 *
 * - `Throttled` is not a failure. The dependency works and asks for less: it is retried later and trips no circuit.
 * - `Ignored` says nothing about the dependency: an interruption, a refusal of our own, the caller's mistake. Nothing
 *   retries it and no circuit counts it.
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
 * What an attempt says about the dependency.
 *
 * @since 0.1.0
 * @category models
 */
export type Outcome = Success | Failure | Throttled | Ignored

/**
 * The dependency works.
 *
 * @since 0.1.0
 * @category models
 */
export interface Success {
  readonly _tag: "Success"
}

/**
 * The dependency failed the attempt.
 *
 * @since 0.1.0
 * @category models
 */
export interface Failure {
  readonly _tag: "Failure"
  /** Whether another attempt may succeed. */
  readonly retryable: boolean
  /** How much it counts against the circuit, 0 to 1, in steps of a twentieth. */
  readonly weight: number
  /** The dependency's own word on when to come back. */
  readonly retryAfter: Duration.Duration | undefined
  /** Opens the circuit at once for this long, whatever else was counted. */
  readonly open: Duration.Duration | undefined
}

/**
 * The dependency works, but wants less.
 *
 * @since 0.1.0
 * @category models
 */
export interface Throttled {
  readonly _tag: "Throttled"
  /** The dependency's own word on when to come back. */
  readonly retryAfter: Duration.Duration | undefined
}

/**
 * The attempt says nothing about the dependency.
 *
 * @since 0.1.0
 * @category models
 */
export interface Ignored {
  readonly _tag: "Ignored"
}

/**
 * Reads an outcome from an exit and the time that the attempt took; `undefined` passes the question on.
 *
 * @since 0.1.0
 * @category models
 */
export type Classify<in A, in E> = (exit: Exit.Exit<A, E>, elapsedMillis: number) => Outcome | undefined

/**
 * The dependency works.
 *
 * @since 0.1.0
 * @category constructors
 */
export const success: Outcome = { _tag: "Success" }

/**
 * The attempt says nothing about the dependency.
 *
 * @since 0.1.0
 * @category constructors
 */
export const ignored: Outcome = { _tag: "Ignored" }

/**
 * The dependency failed the attempt.
 *
 * **Details**
 *
 * `retryable` defaults to true: most faults of a network pass. `weight` defaults to 1, a whole failure, and is held
 * between 0 and 1.
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
 * The dependency works, but wants less.
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
 * The outcome that an exit has by itself.
 *
 * **Details**
 *
 * The strongest reason of the cause decides.
 *
 * | exit | outcome |
 * |---|---|
 * | success | `Success` |
 * | a defect | `Failure`, not retryable: a bug does not pass by being tried again |
 * | a typed failure | `Failure`, retryable unless the error says `isRetryable: false`; `retryAfter` is read from the error |
 * | a refusal of an inner policy (`CircuitOpen`, `BackpressureShed`, `DeadlineExceeded`, `Rejected`) | `Ignored` |
 * | interruption and nothing else | `Ignored` |
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
 * The last classifier of every chain. Replace it to teach all policies of a program the errors of its own.
 *
 * @since 0.1.0
 * @category references
 */
export const Classifier: Context.Reference<(exit: Exit.Exit<unknown, unknown>, elapsedMillis: number) => Outcome> =
  Context.Reference<(exit: Exit.Exit<unknown, unknown>, elapsedMillis: number) => Outcome>("@sluice/core/Classifier", {
    defaultValue: () => fromExit
  })
