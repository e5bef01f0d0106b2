/**
 * How often a call is tried again, and how long it waits before each try.
 *
 * A `RetryPolicy` is inert data: `exponential`, `constant` or `none`. `retry` runs an effect by it, `retryStream` a stream,
 * `toSchedule` turns it into a `Schedule` for Effect's own operators, and `delayFor` is the bare arithmetic.
 *
 * **When to use**
 *
 * For calls that may be repeated and whose faults pass: a network, a rate limit, a restart. Put it outside the circuit
 * breaker, so that each attempt counts.
 *
 * **Details**
 *
 * | option | default | reason |
 * |---|---|---|
 * | `maxAttempts` | 3 | the first try and two more: what the official clients of model providers do |
 * | `baseDelay` | 500 millis | shorter than a person notices, long enough for a connection to be made anew |
 * | `factor` | 2 | |
 * | `maxDelay` | 60 seconds | a longer back-off is an outage: that is the circuit breaker's work |
 * | `maxRetryAfter` | 60 seconds | a longer hint is better told to the caller than slept through |
 * | `jitter` | `"full"` | spreads callers that failed together best; see "Exponential Backoff And Jitter", AWS Architecture Blog |
 *
 * What is retried is for the classifier chain to say (see `Outcome`): failures that are retryable, and throttling. A defect,
 * an interruption and a refusal of another policy are not.
 *
 * A Retry-After is a floor: the wait is never shorter, and the jitter comes on top. `maxDelay` bounds our own back-off only.
 * A hint longer than `maxRetryAfter`, or a wait that ends past the `Deadline`, stops the retry at once with the error
 * that it has.
 *
 * **Gotchas**
 *
 * - The attempts include the first. `maxAttempts: 1` never retries.
 * - Why a retry gave up is on the cause, not in the error: `stopped(cause)`. An operator that fails with a new error in
 *   between drops it.
 * - A stream is tried again only before its first element. After that its consumer has seen half an answer.
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
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { Deadline } from "./Deadline.ts"
import { Options } from "./internal/options.ts"
import { reopenUntilFirst } from "./internal/streams.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import type { Classify, Outcome } from "./Outcome.ts"
import { Classifier } from "./Outcome.ts"

/**
 * How often, and after how long. Data only: make one with `exponential`, `constant` or `none`.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryPolicy {
  readonly _tag: "RetryPolicy"
  /** Attempts in all, the first included. */
  readonly maxAttempts: number
  /** The back-off before the second attempt. */
  readonly baseDelay: Duration.Input
  /** What each further back-off is multiplied by. */
  readonly factor: number
  /** The longest back-off. Does not shorten a Retry-After. */
  readonly maxDelay: Duration.Input
  /** The longest Retry-After that is waited for. */
  readonly maxRetryAfter: Duration.Input
  readonly jitter: "none" | "full"
}

/**
 * What can be set; every option has a default, see the module's table.
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
  readonly jitter?: "none" | "full" | undefined
}

/**
 * Waits twice as long (or `factor` times) before each further attempt.
 *
 * @since 0.1.0
 * @category constructors
 */
export const exponential = (options?: RetryOptions): RetryPolicy => ({
  _tag: "RetryPolicy",
  maxAttempts: options?.maxAttempts ?? 3,
  baseDelay: options?.baseDelay ?? Duration.millis(500),
  factor: options?.factor ?? 2,
  maxDelay: options?.maxDelay ?? Duration.seconds(60),
  maxRetryAfter: options?.maxRetryAfter ?? Duration.seconds(60),
  jitter: options?.jitter ?? "full"
})

/**
 * Waits equally long before each further attempt.
 *
 * @since 0.1.0
 * @category constructors
 */
export const constant = (options?: Omit<RetryOptions, "factor">): RetryPolicy => exponential({ ...options, factor: 1 })

/**
 * Tries once.
 *
 * @since 0.1.0
 * @category constructors
 */
export const none: RetryPolicy = exponential({ maxAttempts: 1 })

/**
 * The policy, if its numbers make sense.
 *
 * **Details**
 *
 * `Sluice` checks its policies when it is built. `baseDelay` is at least a millisecond: a retry without a wait is a busy
 * loop against a service that is in trouble.
 *
 * @since 0.1.0
 * @category constructors
 */
export const validate = (self: RetryPolicy): Effect.Effect<RetryPolicy, InvalidOptions> => {
  const options = new Options("RetryPolicy")
  check(options, self, "")
  return options.check(self)
}

/** Reads a policy's numbers into a list of issues, each option under the path that is given. */
export const check = (options: Options, self: RetryPolicy, path: string): void => {
  options.integer(`${path}maxAttempts`, self.maxAttempts, 1)
  options.millis(`${path}baseDelay`, self.baseDelay, 1)
  options.number(`${path}factor`, self.factor, 1, 1_000)
  options.millis(`${path}maxDelay`, self.maxDelay, 1)
  options.millis(`${path}maxRetryAfter`, self.maxRetryAfter, 0)
  options.oneOf(`${path}jitter`, self.jitter, ["none", "full"])
}

/**
 * The back-off after the given attempt has failed, before jitter: `baseDelay * factor^(attempt - 1)`, at most `maxDelay`.
 *
 * **Details**
 *
 * Attempts count from 1; 0 and below read as 1. It has no relation to `maxAttempts`, and no attempt overflows it.
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

const backoffMillis = (self: RetryPolicy, attempt: number): number => {
  const base = Duration.toMillis(self.baseDelay)
  const maximum = Duration.toMillis(self.maxDelay)
  // A power that overflows is Infinity, and one of numbers that nobody validated may be NaN, which `Math.min` would hand on
  // as no wait at all: the cap takes both. 0 * Infinity alone is NaN and means 0.
  const raw = base === 0 ? 0 : base * self.factor ** (attempt > 1 ? attempt - 1 : 0)
  return raw < maximum ? raw : maximum
}

/**
 * The policy as a schedule for `Effect.retry` and the like. It outputs the number of attempts that have failed.
 *
 * **When to use**
 *
 * Where a combinator of Effect's asks for a schedule. `retry` does more: it classifies, reads Retry-After, keeps the
 * deadline, and tells why it stopped.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toSchedule = (self: RetryPolicy): Schedule.Schedule<number, unknown> =>
  Schedule.forever.pipe(
    Schedule.map(({ attempt }) => Effect.succeed(attempt)),
    Schedule.upTo({ times: self.maxAttempts - 1 }),
    Schedule.modifyDelay(({ attempt }) =>
      self.jitter === "none"
        ? Effect.succeed(delayFor(self, attempt))
        : Effect.map(Random.next, (random) => Duration.millis(random * backoffMillis(self, attempt)))
    )
  )

/**
 * Why a retry gave up, as an annotation of the cause that it failed with. Read it with `stopped`.
 *
 * | why | |
 * |---|---|
 * | `Final` | the outcome is not retryable |
 * | `Attempts` | all attempts were used |
 * | `Deadline` | the next attempt would begin past the deadline |
 * | `RetryAfterTooLong` | the dependency asks for a longer wait than `maxRetryAfter` |
 *
 * @since 0.1.0
 * @category models
 */
export class RetryStopped extends Context.Service<RetryStopped, {
  readonly why: "Final" | "Attempts" | "Deadline" | "RetryAfterTooLong"
  /** Attempts that were made. */
  readonly attempts: number
}>()("@sluice/core/RetryPolicy/RetryStopped") {}

/**
 * Why the retry that this cause comes from gave up.
 *
 * @since 0.1.0
 * @category accessors
 */
export const stopped = (cause: Cause.Cause<unknown>): Option.Option<RetryStopped["Service"]> =>
  Context.getOption(Cause.annotations(cause), RetryStopped)

/**
 * Which attempt the running fiber is in, from the second on; `undefined` in a first attempt that is inside no other.
 *
 * @since 0.1.0
 * @category references
 */
export const CurrentAttempt: Context.Reference<
  { readonly attempt: number; readonly maxAttempts: number } | undefined
> = Context.Reference<{ readonly attempt: number; readonly maxAttempts: number } | undefined>(
  "@sluice/core/RetryPolicy/CurrentAttempt",
  { defaultValue: () => undefined }
)

/**
 * What a retry may be told beside its policy.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryCallOptions<in A, in E> {
  /** Asked before the `Classifier` reference. A success that it calls a failure is tried again as well. */
  readonly classify?: Classify<A, E> | undefined
}

/**
 * Runs an effect until it succeeds or the policy is exhausted.
 *
 * **Details**
 *
 * Types pass unchanged: it fails with the last attempt's own error, and its cause says why there was no further attempt.
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
 * @since 0.1.0
 * @category combinators
 */
export const retry: {
  <A, E>(
    policy: RetryPolicy,
    options?: RetryCallOptions<A, E>
  ): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    policy: RetryPolicy,
    options?: RetryCallOptions<A, E>
  ): Effect.Effect<A, E, R>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    policy: RetryPolicy,
    options?: RetryCallOptions<A, E>
  ): Effect.Effect<A, E, R> => retryWith(() => self, policy, options?.classify)
)

/**
 * Runs a stream until its first element, or the policy is exhausted; from the first element on its failures are final.
 *
 * **Details**
 *
 * Each attempt has a scope of its own, which is closed before the next begins. A stream that ends without an element has
 * succeeded.
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
  ): Stream.Stream<A, E, R> => retryStreamWith(() => self, policy, options?.classify)
)

/**
 * `retry` for whoever makes each attempt anew: the loop under `retry` and `Sluice`.
 *
 * @internal
 */
export const retryWith = <A, E, R>(
  attemptAt: (attempt: number) => Effect.Effect<A, E, R>,
  policy: RetryPolicy,
  classify: Classify<A, E> | undefined,
  pause: (delay: Duration.Duration) => Effect.Effect<void, E> = Effect.sleep
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const attempts = new Attempts(policy, classify, fiber)
    const next = (attempt: number): Effect.Effect<A, E, R> => {
      attempts.begin()
      return Effect.flatMap(
        Effect.exit(attempts.announce(attempt, attemptAt(attempt))),
        (exit): Effect.Effect<A, E, R> => {
          const decision = attempts.end(attempt, exit)
          if (decision._tag === "Done") return decision.exit
          return Effect.andThen(pause(decision.delay), Effect.suspend(() => next(attempt + 1)))
        }
      )
    }
    return next(1)
  })

/**
 * `retryStream` for whoever makes each attempt anew.
 *
 * @internal
 */
export const retryStreamWith = <A, E, R>(
  attemptAt: (attempt: number) => Stream.Stream<A, E, R>,
  policy: RetryPolicy,
  classify: Classify<void, E> | undefined,
  pause: (delay: Duration.Duration) => Effect.Effect<void, E> = Effect.sleep
): Stream.Stream<A, E, R> =>
  Stream.unwrap(Effect.withFiber((fiber) => {
    const attempts = new Attempts<void, E>(policy, classify, fiber)
    return Effect.succeed(reopenUntilFirst<A, E, R>({
      open: (attempt) => {
        attempts.begin()
        return attempts.announceStream(attempt, attemptAt(attempt))
      },
      onFailure: (cause, attempt) => {
        const decision = attempts.end(attempt, Exit.failCause(cause))
        return decision._tag === "Wait" ? pause(decision.delay) : Effect.asVoid(decision.exit)
      }
    }))
  }))

/** The attempts of one call: what each says, and whether there is another after it. */
class Attempts<A, E> {
  private readonly policy: RetryPolicy
  private readonly classify: Classify<A, E> | undefined
  private readonly fiber: Fiber.Fiber<unknown, unknown>
  private readonly clock: Clock.Clock
  private readonly nested: boolean
  private startedAt = 0

  constructor(policy: RetryPolicy, classify: Classify<A, E> | undefined, fiber: Fiber.Fiber<unknown, unknown>) {
    this.policy = policy
    this.classify = classify
    this.fiber = fiber
    this.clock = fiber.getRef(Clock.Clock)
    this.nested = fiber.getRef(CurrentAttempt) !== undefined
  }

  begin(): void {
    this.startedAt = this.clock.currentTimeMillisUnsafe()
  }

  // A first attempt is announced only where an outer retry's number would show through: most calls never pay for it.
  announce<R>(attempt: number, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return attempt > 1 || this.nested ? Effect.provideService(self, CurrentAttempt, this.current(attempt)) : self
  }

  announceStream<B, R>(attempt: number, self: Stream.Stream<B, E, R>): Stream.Stream<B, E, R> {
    return attempt > 1 || this.nested ? Stream.provideService(self, CurrentAttempt, this.current(attempt)) : self
  }

  end(attempt: number, exit: Exit.Exit<A, E>): Decision<A, E> {
    const elapsedMillis = this.clock.currentTimeMillisUnsafe() - this.startedAt
    const outcome = this.classify?.(exit, elapsedMillis) ?? this.fiber.getRef(Classifier)(exit, elapsedMillis)
    if (outcome._tag === "Success") return { _tag: "Done", exit }
    const wait = decide(this.policy, attempt, outcome, this.fiber)
    if (typeof wait === "number") return { _tag: "Wait", delay: Duration.millis(wait) }
    return { _tag: "Done", exit: annotate(exit, { why: wait, attempts: attempt }) }
  }

  private current(attempt: number) {
    return { attempt, maxAttempts: this.policy.maxAttempts }
  }
}

type Decision<A, E> =
  | { readonly _tag: "Done"; readonly exit: Exit.Exit<A, E> }
  | { readonly _tag: "Wait"; readonly delay: Duration.Duration }

/** The milliseconds to wait before the next attempt, or why there is none. */
const decide = (
  policy: RetryPolicy,
  attempt: number,
  outcome: Outcome,
  fiber: Fiber.Fiber<unknown, unknown>
): number | RetryStopped["Service"]["why"] => {
  if (outcome._tag !== "Throttled" && !(outcome._tag === "Failure" && outcome.retryable)) return "Final"
  // Not `>=`: a maximum of NaN would never be reached.
  if (!(attempt < policy.maxAttempts)) return "Attempts"
  const hint = outcome.retryAfter === undefined ? 0 : Math.max(0, Duration.toMillis(outcome.retryAfter))
  if (hint > Duration.toMillis(policy.maxRetryAfter)) return "RetryAfterTooLong"
  const backoff = backoffMillis(policy, attempt)
  // A hint is a floor and the jitter stands above it, so that those who were sent away together do not return together.
  const delay = policy.jitter === "none"
    ? Math.max(hint, backoff)
    : hint + fiber.getRef(Random.Random).nextDoubleUnsafe() * backoff
  const deadline = fiber.getRef(Deadline)
  if (deadline !== undefined && fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + delay >= deadline.at) {
    return "Deadline"
  }
  return delay
}

// Of two retries, one inside the other, the outer one gave up last.
const annotate = <A, E>(exit: Exit.Exit<A, E>, why: RetryStopped["Service"]): Exit.Exit<A, E> =>
  Exit.isSuccess(exit)
    ? exit
    : Exit.failCause(Cause.annotate(exit.cause, Context.make(RetryStopped, why), { overwrite: true }))
