/**
 * Retries transient failures, with backoff, jitter and Retry-After.
 *
 * A `RetryPolicy` is inert data, made by `exponential`, `constant` or `none`. `retry` runs an effect under it, `retryStream` a
 * stream. `toSchedule` converts it for Effect's own operators. `delayFor` computes one back-off.
 *
 * **When to use**
 *
 * For calls that can be repeated and whose failures are transient: a network, a rate limit, a restart. Put it outside the
 * circuit breaker, so that every attempt counts.
 *
 * **Details**
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `maxAttempts` | 3 | as in the official clients of model providers |
 * | `baseDelay` | 500 millis | not noticed by a person, and long enough to reconnect |
 * | `factor` | 2 | a service that did not recover in one back-off needs more time |
 * | `maxDelay` | 60 seconds | a longer outage is for the circuit breaker |
 * | `maxRetryAfter` | 60 seconds | a longer Retry-After is better returned to the caller |
 * | `jitter` | `"full"` | best spreads clients that failed together |
 *
 * The jitters are those of "Exponential Backoff And Jitter", AWS Architecture Blog. `b` is the back-off, at most `maxDelay`:
 *
 * | jitter | delay |
 * |---|---|
 * | `"none"` | `b` |
 * | `"full"` | between 0 and `b` |
 * | `"equal"` | between half of `b` and `b` |
 * | `"decorrelated"` | between `baseDelay` and three times the delay before, at most `maxDelay`; ignores `factor` |
 *
 * Retries failures that the classifier chain (see `Outcome`) calls retryable, and throttling. Does not retry defects,
 * interruptions and refusals of other policies. If a policy refuses a further attempt (open circuit, full queue, deadline),
 * the retry ends with the error of the last attempt that was made. The refusal is in `stopped(cause)`.
 *
 * A Retry-After is a minimum: the delay is never shorter, and the jitter is added to it. `maxDelay` caps only the back-off. If
 * the Retry-After is longer than `maxRetryAfter`, or the next attempt would begin after the `Deadline`, the retry stops at once
 * with its last error.
 *
 * **Gotchas**
 *
 * - `maxAttempts` counts the first attempt. `maxAttempts: 1` never retries.
 * - Why a retry stopped is on the cause, not in the error: `stopped(cause)`. An operator that fails with a new error drops it.
 * - A stream is retried only before its first element. After that its consumer has partial output.
 * - `none` shares no attempts: it neither counts nor limits retries nested in it.
 * - A fiber forked inside belongs to the retry while that runs, also a daemon. So does a run that `Deduplicator` shares: it
 *   spends the attempts of the caller that started it.
 *
 * **Example** (The third attempt succeeds)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 *
 * let calls = 0
 * const flaky = Effect.suspend(() => ++calls < 3 ? Effect.fail("busy" as const) : Effect.succeed(`call ${calls}`))
 *
 * const program = flaky.pipe(RetryPolicy.retry(RetryPolicy.exponential({ baseDelay: "5 millis" })))
 *
 * console.log(await Effect.runPromise(program)) // => call 3
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { Backoff, backoffMillis } from "./internal/retry/backoff.ts"
import { retryEffect, retryStreams } from "./internal/retry/loop.ts"
import { checkRetryPolicy } from "./internal/retry/options.ts"
import { RetryStopped } from "./internal/retry/stopped.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { OptionsReader } from "./OptionsReader.ts"
import type { Classify, Outcome } from "./Outcome.ts"

export { CurrentAttempt, RetryStopped } from "./internal/retry/stopped.ts"

/**
 * A retry policy. Data only, made by `exponential`, `constant` or `none`.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryPolicy {
  readonly _tag: "RetryPolicy"
  /** Attempts in all, with the first. */
  readonly maxAttempts: number
  /** The back-off before the second attempt. */
  readonly baseDelay: Duration.Input
  /** Multiplies each further back-off. */
  readonly factor: number
  /** The longest back-off. Does not shorten a Retry-After. */
  readonly maxDelay: Duration.Input
  /** The longest Retry-After that is waited for. */
  readonly maxRetryAfter: Duration.Input
  readonly jitter: Jitter
}

/**
 * How back-offs are randomised. See the module's table.
 *
 * @since 0.1.0
 * @category models
 */
export type Jitter = "none" | "full" | "equal" | "decorrelated"

/**
 * Options for `exponential`. See the module's table.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryOptions {
  readonly maxAttempts?: number | undefined
  readonly baseDelay?: Duration.Input | undefined
  readonly factor?: number | undefined
  readonly maxDelay?: Duration.Input | undefined
  readonly maxRetryAfter?: Duration.Input | undefined
  readonly jitter?: Jitter | undefined
}

/**
 * Doubles the back-off, or multiplies it by `factor`, before each further attempt.
 *
 * @since 0.1.0
 * @category constructors
 */
export const exponential = (options?: RetryOptions): RetryPolicy => ({
  // Keeps options of unknown names, so that the validation can refuse them.
  ...options,
  _tag: "RetryPolicy",
  maxAttempts: options?.maxAttempts ?? 3,
  baseDelay: options?.baseDelay ?? Duration.millis(500),
  factor: options?.factor ?? 2,
  maxDelay: options?.maxDelay ?? Duration.seconds(60),
  maxRetryAfter: options?.maxRetryAfter ?? Duration.seconds(60),
  jitter: options?.jitter ?? "full"
})

/**
 * Uses the same back-off before each further attempt.
 *
 * @since 0.1.0
 * @category constructors
 */
export const constant = (options?: Omit<RetryOptions, "factor">): RetryPolicy => exponential({ ...options, factor: 1 })

/**
 * Makes one attempt and never retries.
 *
 * @since 0.1.0
 * @category constructors
 */
export const none: RetryPolicy = exponential({ maxAttempts: 1 })

/**
 * Returns the policy if its options are valid.
 *
 * **Details**
 *
 * `Sluice` validates its policies. `baseDelay` may be 0: then only a Retry-After delays an attempt. Use it for a dependency in
 * the same process, with few attempts. A service that is overloaded needs a delay.
 *
 * @since 0.1.0
 * @category constructors
 */
export const validate = (self: RetryPolicy): Effect.Effect<RetryPolicy, InvalidOptions> => {
  const options = new OptionsReader("RetryPolicy")
  checkRetryPolicy(options, self, "")
  return options.check(self)
}

/**
 * Computes the back-off after an attempt, without jitter: `baseDelay * factor^(attempt - 1)`, at most `maxDelay`.
 *
 * **Details**
 *
 * Attempts count from 1, and 0 or less reads as 1. `maxAttempts` does not matter here. No attempt overflows.
 *
 * **Example** (Doubling)
 *
 * ```ts
 * import { Duration } from "effect"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 *
 * const policy = RetryPolicy.exponential({ baseDelay: "100 millis" })
 * console.log([1, 2, 3, 99].map((attempt) => Duration.format(RetryPolicy.delayFor(policy, attempt))).join(" "))
 * // => 100ms 200ms 400ms 1m
 * ```
 *
 * @since 0.1.0
 * @category accessors
 */
export const delayFor = (self: RetryPolicy, attempt: number): Duration.Duration =>
  Duration.millis(backoffMillis(self, attempt))

/**
 * Converts the policy to a schedule for `Effect.retry` and the like. It outputs how many attempts have failed.
 *
 * **When to use**
 *
 * Where an operator of Effect needs a schedule. `retry` does more: it classifies, reads Retry-After, stops at the deadline, and
 * reports why it stopped.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toSchedule = (self: RetryPolicy): Schedule.Schedule<number, unknown> =>
  // With a `Backoff` for each run, since a delay can depend on the one before.
  Schedule.fromStep(Effect.withFiber((fiber) => {
    const random = fiber.getRef(Random.Random)
    const backoff = new Backoff(self)
    let attempt = 0
    return Effect.succeed(() =>
      Effect.suspend(() => {
        attempt++
        // Not `>=`: a maximum of NaN would never be reached.
        return attempt < self.maxAttempts
          ? Effect.succeed<[number, Duration.Duration]>([attempt, Duration.millis(backoff.next(attempt, 0, random))])
          : Cause.done(attempt)
      })
    )
  }))

/**
 * Returns why the retry that this cause comes from stopped. Of two nested retries, the outer one stopped last.
 *
 * @since 0.1.0
 * @category accessors
 */
export const stopped = (cause: Cause.Cause<unknown>): Option.Option<RetryStopped["Service"]> =>
  Context.getOption(Cause.annotations(cause), RetryStopped)

/**
 * An attempt that has ended, and what follows.
 *
 * @since 0.1.0
 * @category models
 */
export interface AttemptEvent {
  /** As in `CurrentAttempt`. The first is 1. */
  readonly attempt: number
  readonly maxAttempts: number
  readonly outcome: Outcome
  readonly elapsedMillis: number
  readonly next:
    /** The outcome is a success. */
    | { readonly _tag: "Done" }
    /** Another attempt after this delay. */
    | { readonly _tag: "Wait"; readonly delay: Duration.Duration }
    /** No further attempt. */
    | { readonly _tag: "Stop"; readonly why: RetryStopped["Service"]["why"] }
}

/**
 * Options for `retry` and `retryStream`.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryCallOptions<in A, in E> {
  /** The first classifier of the chain. A success that it classifies as a failure is retried as well. */
  readonly classify?: Classify<A, E> | undefined
  /**
   * Whether a nested retry spends the outer one's attempts (`"share"`) or has its own (`"own"`). Default `"share"`: own attempts
   * multiply, so that three nested retries of 3 call a service in trouble 27 times.
   */
  readonly nested?: "share" | "own" | undefined
  /**
   * Called at the end of each attempt, before the wait. It runs within the call, so it has to return quickly. An attempt that
   * is interrupted from outside reports nothing.
   */
  readonly onAttempt?: ((event: AttemptEvent) => void) | undefined
  /**
   * Replaces the delay before the next attempt, for example if that goes to another server. Gets the policy's delay, with
   * jitter. Default: the policy's delay.
   */
  readonly delay?:
    | ((event: Pick<AttemptEvent, "attempt" | "outcome"> & { readonly delay: Duration.Duration }) => Duration.Duration)
    | undefined
}

/**
 * Runs an effect until it succeeds or the policy is exhausted.
 *
 * **Details**
 *
 * The types stay the same. It fails with the error of the last attempt that was made, and the cause has the reason why it
 * stopped. An attempt that a policy refused was not made, and is not counted.
 *
 * **Example** (Why it stopped)
 *
 * ```ts
 * import { Effect, Option } from "effect"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 *
 * const program = Effect.fail("busy").pipe(
 *   RetryPolicy.retry(RetryPolicy.constant({ maxAttempts: 2, baseDelay: "1 millis" })),
 *   Effect.catchCause((cause) => Effect.succeed(Option.getOrUndefined(RetryPolicy.stopped(cause))))
 * )
 *
 * console.log(await Effect.runPromise(program)) // => { why: 'Attempts', attempts: 2 }
 * ```
 *
 * **Example** (An event for each attempt)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 *
 * const seen: Array<string> = []
 * const program = Effect.fail("busy").pipe(
 *   RetryPolicy.retry(RetryPolicy.constant({ maxAttempts: 2, baseDelay: "1 millis" }), {
 *     onAttempt: ({ attempt, maxAttempts, next }) => seen.push(`${attempt} of ${maxAttempts}: ${next._tag}`)
 *   }),
 *   Effect.ignore
 * )
 *
 * await Effect.runPromise(program)
 * console.log(seen.join(", ")) // => 1 of 2: Wait, 2 of 2: Stop
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export function retry<A, E>(
  policy: RetryPolicy,
  options?: RetryCallOptions<A, E>
): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
export function retry<A, E, R>(
  self: Effect.Effect<A, E, R>,
  policy: RetryPolicy,
  options?: RetryCallOptions<A, E>
): Effect.Effect<A, E, R>
// Not by `dual`, whose predicate costs 80 ns, a quarter of a retry. The overloads say what the other arguments are.
export function retry<A, E, R>(
  first: Effect.Effect<A, E, R> | RetryPolicy,
  second?: RetryPolicy | RetryCallOptions<A, E>,
  third?: RetryCallOptions<A, E>
): Effect.Effect<A, E, R> | (<R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>) {
  return Effect.isEffect(first)
    ? retryEffect(first, second as RetryPolicy, third)
    : (self) => retryEffect(self, first, second as RetryCallOptions<A, E> | undefined)
}

/**
 * Runs a stream until its first element, or until the policy is exhausted. Later failures are final.
 *
 * **Details**
 *
 * Each attempt has its own scope, which is closed before the next attempt. A stream that ends without an element has
 * succeeded. With its first element an attempt has succeeded: `onAttempt` is called, and retries further down the stream have
 * their own attempts.
 *
 * @since 0.1.0
 * @category combinators
 */
export const retryStream: {
  <E>(
    policy: RetryPolicy,
    options?: RetryCallOptions<void, E>
  ): <A, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E, R>
  <A, E, R>(
    self: Stream.Stream<A, E, R>,
    policy: RetryPolicy,
    options?: RetryCallOptions<void, E>
  ): Stream.Stream<A, E, R>
} = dual(
  (args) => Stream.isStream(args[0]),
  <A, E, R>(
    self: Stream.Stream<A, E, R>,
    policy: RetryPolicy,
    options?: RetryCallOptions<void, E>
  ): Stream.Stream<A, E, R> => retryStreams(() => self, policy, options)
)
