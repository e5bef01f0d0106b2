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
 * | `factor` | 2 | a service that did not recover in one back-off needs more than the same again |
 * | `maxDelay` | 60 seconds | a longer back-off is an outage: that is the circuit breaker's work |
 * | `maxRetryAfter` | 60 seconds | a longer hint is better told to the caller than slept through |
 * | `jitter` | `"full"` | spreads callers that failed together best |
 *
 * The jitters are those of "Exponential Backoff And Jitter", AWS Architecture Blog, of a back-off `b` that is at most
 * `maxDelay`:
 *
 * | jitter | waits |
 * |---|---|
 * | `"none"` | `b` |
 * | `"full"` | between 0 and `b` |
 * | `"equal"` | between half of `b` and `b`: never nearly nothing |
 * | `"decorrelated"` | between `baseDelay` and three times the wait before, at most `maxDelay`; it reads no `factor` |
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
 * - `none` has no attempts to share: it neither bounds nor counts what is retried inside of it.
 * - A fiber that is forked inside belongs to the retry as long as that runs, a daemon included. So does a run that
 *   `Deduplicator` shares: it spends the attempts of the caller that began it.
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
import { Backoff, backoffMillis, millisOf } from "./internal/backoff.ts"
import { Options } from "./internal/options.ts"
import { Primitive } from "./internal/primitive.ts"
import { checkRetryPolicy } from "./internal/retryOptions.ts"
import { reopenUntilFirst } from "./internal/streams.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import type { Classify, Outcome } from "./Outcome.ts"
import { Classifier, fromExit, success } from "./Outcome.ts"

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
  readonly jitter: Jitter
}

/**
 * How chance spreads the back-offs, see the module's table.
 *
 * @since 0.1.0
 * @category models
 */
export type Jitter = "none" | "full" | "equal" | "decorrelated"

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
  readonly jitter?: Jitter | undefined
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
  checkRetryPolicy(options, self, "")
  return options.check(self)
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
  // Built anew for each run: a wait may depend on the one before.
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
 * Why a retry gave up, as an annotation of the cause that it failed with. Read it with `stopped`.
 *
 * | why | |
 * |---|---|
 * | `Final` | the outcome is not retryable |
 * | `Attempts` | all attempts were used, by this retry and by those inside of it |
 * | `OuterAttempts` | a retry around this one has no attempt left to give |
 * | `Deadline` | the next attempt would begin past the deadline |
 * | `RetryAfterTooLong` | the dependency asks for a longer wait than `maxRetryAfter` |
 * | `Refused` | a policy refused the next attempt beforehand: `Sluice`, whose circuit stays open for longer than the wait |
 *
 * @since 0.1.0
 * @category models
 */
export class RetryStopped extends Context.Service<RetryStopped, {
  readonly why: "Final" | "Attempts" | "OuterAttempts" | "Deadline" | "RetryAfterTooLong" | "Refused"
  /** Attempts that were made, those of retries inside included. */
  readonly attempts: number
}>()("@sluice/core/RetryPolicy/RetryStopped") {}

type Why = RetryStopped["Service"]["why"]

/**
 * Why the retry that this cause comes from gave up. Of two retries, one inside the other, the outer one gave up last.
 *
 * @since 0.1.0
 * @category accessors
 */
export const stopped = (cause: Cause.Cause<unknown>): Option.Option<RetryStopped["Service"]> =>
  Context.getOption(Cause.annotations(cause), RetryStopped)

/**
 * Which attempt the running fiber is in, from the second on; `undefined` in a first attempt that is inside no other.
 *
 * **Details**
 *
 * A retry inside another one goes on with its numbers, as it goes on with its attempts: inside the second of three it
 * begins with "2 of 3".
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
 * What became of one attempt, and what follows.
 *
 * @since 0.1.0
 * @category models
 */
export interface AttemptEvent {
  /** As in `CurrentAttempt`; the first is 1. */
  readonly attempt: number
  readonly maxAttempts: number
  readonly outcome: Outcome
  readonly elapsedMillis: number
  readonly next:
    /** The outcome is a success. */
    | { readonly _tag: "Done" }
    /** Another attempt after so much time. */
    | { readonly _tag: "Wait"; readonly delay: Duration.Duration }
    /** No other attempt, and why. */
    | { readonly _tag: "Stop"; readonly why: RetryStopped["Service"]["why"] }
}

/**
 * What a retry may be told beside its policy.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryCallOptions<in A, in E> {
  /** Asked before the `Classifier` reference. A success that it calls a failure is tried again as well. */
  readonly classify?: Classify<A, E> | undefined
  /**
   * Whether a retry inside another one spends the other's attempts (`"share"`, the default) or counts for itself (`"own"`).
   * Shared, since attempts multiply: three retries of 3 on top of each other ask a service in trouble 27 times.
   */
  readonly nested?: "share" | "own" | undefined
  /**
   * Called at the end of each attempt, before the wait. Called in the middle of the call: hand the event on and return. An
   * attempt that is interrupted from outside ends without one.
   */
  readonly onAttempt?: ((event: AttemptEvent) => void) | undefined
  /**
   * The wait before the next attempt, where the call knows better than its policy: it goes elsewhere, say, where nobody asked
   * to be left alone. Told what the policy would wait, with its jitter. Default: just that.
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
 * **Example** (An event per attempt)
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
// Not by `dual`, which costs 80 ns where a predicate has to tell the two apart: a quarter of a call. By the overloads, what
// stands second is known by what stands first.
export function retry<A, E, R>(
  first: Effect.Effect<A, E, R> | RetryPolicy,
  second?: RetryPolicy | RetryCallOptions<A, E>,
  third?: RetryCallOptions<A, E>
): Effect.Effect<A, E, R> | (<R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>) {
  return Effect.isEffect(first)
    ? retryEffect(first, second as RetryPolicy, third)
    : (self) => retryEffect(self, first, second as RetryCallOptions<A, E> | undefined)
}

const retryEffect = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  policy: RetryPolicy,
  options: RetryCallOptions<A, E> | undefined
): Effect.Effect<A, E, R> => typed(new RetriedEffect(self, policy, options?.classify, undefined, options))

/**
 * Runs a stream until its first element, or the policy is exhausted; from the first element on its failures are final.
 *
 * **Details**
 *
 * Each attempt has a scope of its own, which is closed before the next begins. A stream that ends without an element has
 * succeeded. With its first element an attempt has succeeded, as far as this retry is concerned: it ends there for
 * `onAttempt`, and what is retried further down the stream has attempts of its own.
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
  ): Stream.Stream<A, E, R> => retryStreamWith(() => self, policy, options?.classify, undefined, options)
)

/** Waits between two attempts, or fails with why there will be no other. */
type Pause<E> = (delay: Duration.Duration) => Effect.Effect<void, E>

type OwnOptions<A, E> = Pick<RetryCallOptions<A, E>, "nested" | "onAttempt" | "delay">

/**
 * `retry` for whoever makes each attempt anew: the loop under `retry` and `Sluice`.
 *
 * @internal
 */
export const retryWith = <A, E, R>(
  attemptAt: (attempt: number) => Effect.Effect<A, E, R>,
  policy: RetryPolicy,
  classify: Classify<A, E> | undefined,
  pause?: Pause<E>,
  options?: OwnOptions<A, E>
): Effect.Effect<A, E, R> & Loop<A, E, R> => typed(new RetriedAttempts(attemptAt, policy, classify, pause, options))

/**
 * What `retryWith` runs, for whoever makes the first attempt without it: `Sluice`, which needs it only if that attempt fails. It
 * announces the attempt by a `Call`, and hands both to `end`.
 *
 * @internal
 */
export interface Loop<A, E, R> extends Rules {
  end(fiber: AnyFiber, call: Call, attempt: number, exit: Exit.Exit<A, E>): Effect.Effect<A, E, R>
}

/**
 * `retryStream` for whoever makes each attempt anew.
 *
 * @internal
 */
export const retryStreamWith = <A, E, R>(
  attemptAt: (attempt: number) => Stream.Stream<A, E, R>,
  policy: RetryPolicy,
  classify: Classify<void, E> | undefined,
  pause?: Pause<E>,
  options?: OwnOptions<void, E>
): Stream.Stream<A, E, R> =>
  Stream.unwrap(Effect.withFiber((fiber) => {
    const retry = new RetriedStream(policy, classify, pause, options)
    const call = new Call(retry, fiber)
    const committed = Effect.sync(() => retry.commit(call))
    return Effect.succeed(reopenUntilFirst<A, E, R>({
      open: (attempt) => {
        call.begin()
        return attemptAt(attempt).pipe(
          Stream.onFirst(() => committed),
          Stream.onEnd(committed),
          Stream.updateContext((context: Context.Context<R>) => call.announce(context, attempt))
        )
      },
      onFailure: (cause, attempt) => Effect.withFiber((fiber) => retry.end(fiber, call, attempt, Exit.failCause(cause)))
    }))
  }))

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** What became of an attempt. */
interface Ended<A, E> {
  readonly call: Call
  /** Counted by its own retry, the first is 1. */
  readonly attempt: number
  readonly exit: Exit.Exit<A, E>
  readonly outcome: Outcome
  readonly elapsedMillis: number
}

/**
 * An effect with its retry: one object that is the effect and holds what it was told, since nearly every call ends with its
 * first attempt. To build the same out of Effect's operators costs half as much again.
 */
abstract class Retry<A, E, R> extends Primitive {
  // Declared, here and below, where the constructor assigns them: a field that is defined first costs 5 ns, and a call has
  // ten of them.
  declare readonly policy: RetryPolicy
  declare readonly nested: "share" | "own"
  declare readonly classify: Classify<A, E> | undefined
  declare readonly onAttempt: RetryCallOptions<A, E>["onAttempt"]
  declare private readonly delay: RetryCallOptions<A, E>["delay"]
  declare private readonly pause: Pause<E> | undefined

  constructor(
    policy: RetryPolicy,
    classify: Classify<A, E> | undefined,
    pause: Pause<E> | undefined,
    options: OwnOptions<A, E> | undefined
  ) {
    super()
    this.policy = policy
    this.classify = classify
    this.pause = pause
    this.nested = options?.nested ?? "share"
    this.onAttempt = options?.onAttempt
    this.delay = options?.delay
  }

  protected abstract attemptAt(attempt: number): Effect.Effect<A, E, R>

  override evaluate(fiber: AnyFiber): Effect.Effect<A, E, R> {
    const call = new Call(this, fiber)
    return this.nested === "share" && this.policy.maxAttempts > 1
      ? this.tryFirst(fiber, call)
      : this.tryAt(fiber, call, 1)
  }

  /**
   * The first attempt of most calls, without the finalizer that puts back the fiber's context after the others: it alone
   * would cost 170 ns, half of all this. Only where the fiber is interrupted is the context not put back: its finalizers
   * may still see the call, which `isAbandoned` is for.
   */
  private tryFirst(fiber: AnyFiber, call: Call): Effect.Effect<A, E, R> {
    const { context } = fiber
    fiber.setContext(Context.add(context, CurrentCall, call))
    call.begin()
    return Effect.matchCauseEffect(this.attemptAt(1), {
      onSuccess: (value) => {
        fiber.setContext(context)
        return this.end(fiber, call, 1, Exit.succeed(value))
      },
      onFailure: (cause) => {
        fiber.setContext(context)
        return this.end(fiber, call, 1, Exit.failCause(cause))
      }
    })
  }

  protected tryAt(fiber: AnyFiber, call: Call, attempt: number): Effect.Effect<A, E, R> {
    call.begin()
    return Effect.matchCauseEffect(
      Effect.updateContext(this.attemptAt(attempt), (context: Context.Context<R>) => call.announce(context, attempt)),
      {
        onSuccess: (value) => this.end(fiber, call, attempt, Exit.succeed(value)),
        onFailure: (cause) => this.end(fiber, call, attempt, Exit.failCause(cause))
      }
    )
  }

  /** The next attempt, or the exit that there is. */
  end(fiber: AnyFiber, call: Call, attempt: number, exit: Exit.Exit<A, E>): Effect.Effect<A, E, R> {
    if (exit._tag === "Success" && !call.isTimed) {
      call.end()
      return exit
    }
    const elapsedMillis = call.elapsedMillis()
    const outcome = this.classify?.(exit, elapsedMillis) ?? call.classifier(exit, elapsedMillis)
    if (outcome._tag === "Success") {
      this.tell(call, outcome, elapsedMillis, done)
      call.end()
      return exit
    }
    const ended = { call, attempt, exit, outcome, elapsedMillis }
    return this.pause === undefined && call.outer === undefined ? this.next(fiber, ended) : this.nextOfSeveral(ended)
  }

  private next(fiber: AnyFiber, ended: Ended<A, E>): Effect.Effect<A, E, R> {
    const { attempt, call } = ended
    const decision = this.decide(fiber, ended)
    if (typeof decision === "string") return this.stop(ended, decision)
    const wait = this.wait(ended, decision)
    return decision === 0
      ? this.tryAt(fiber, call, attempt + 1)
      : Effect.andThen(wait, Effect.suspend(() => this.tryAt(fiber, call, attempt + 1)))
  }

  /** `next` where others are concerned: who refuses an attempt, and the retries that have their attempts in common. */
  private nextOfSeveral(ended: Ended<A, E>): Effect.Effect<A, E, R> {
    const { attempt, call } = ended
    let decision: number | Why = "Final"
    const decided = Effect.withFiber<void, E>((fiber) => {
      decision = this.decide(fiber, ended)
      if (decision !== "OuterAttempts" || call.outer?.isOf(fiber) !== true) return this.wait(ended, decision)
      return Effect.flatMap(isAbandoned, (isAbandoned) => {
        if (isAbandoned) call.leaveOuter(fiber)
        decision = this.decide(fiber, ended)
        return this.wait(ended, decision)
      })
    })
    // An attempt that was taken and is not made, since the wait for it was interrupted or refused, is there for others.
    const waited = Effect.onExitPrimitive(decided, (exit) => {
      if (typeof decision === "number" && Exit.isFailure(exit)) charge(call, -1)
      return undefined
    })
    return Effect.matchCauseEffect(waited, {
      onSuccess: () =>
        typeof decision === "string"
          ? this.stop(ended, decision)
          : Effect.withFiber((fiber) => this.tryAt(fiber, call, attempt + 1)),
      onFailure: (cause) => {
        call.end()
        return annotate(Exit.failCause(cause), { why: "Refused", attempts: call.spent })
      }
    })
  }

  /** The milliseconds to wait before the next attempt, or why there is none. */
  private decide(fiber: AnyFiber, ended: Ended<A, E>): number | Why {
    const { attempt, call, outcome } = ended
    if (outcome._tag !== "Throttled" && !(outcome._tag === "Failure" && outcome.retryable)) return "Final"
    const exhausted = call.exhausted()
    if (exhausted !== undefined) return exhausted
    const hint = outcome.retryAfter === undefined ? 0 : Math.max(0, Duration.toMillis(outcome.retryAfter))
    if (hint > this.longestHint()) return "RetryAfterTooLong"
    const backoff = call.waitAfter(attempt, hint, fiber)
    const asked = this.delay === undefined
      ? backoff
      : millisOf(this.delay({ attempt, outcome, delay: Duration.millis(backoff) }))
    const wait = asked >= 0 ? Math.min(asked, Number.MAX_VALUE) : backoff
    const deadline = fiber.getRef(Deadline)
    const isLate = deadline !== undefined && fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + wait >= deadline.at
    return isLate ? "Deadline" : wait
  }

  // A maximum that is no number allows no hint, and what never comes is not waited for.
  private longestHint(): number {
    const longest = millisOf(this.policy.maxRetryAfter)
    return longest >= 0 ? Math.min(longest, Number.MAX_VALUE) : 0
  }

  /** Takes the next attempt and waits for its time, if there is one. */
  private wait({ call, elapsedMillis, outcome }: Ended<A, E>, decision: number | Why): Effect.Effect<void, E> {
    if (typeof decision === "string") return Effect.void
    charge(call, 1)
    const delay = Duration.millis(decision)
    this.tell(call, outcome, elapsedMillis, { _tag: "Wait", delay })
    if (this.pause !== undefined) return this.pause(delay)
    return decision === 0 ? Effect.void : Effect.sleep(delay)
  }

  private stop({ call, elapsedMillis, exit, outcome }: Ended<A, E>, why: Why): Exit.Exit<A, E> {
    this.tell(call, outcome, elapsedMillis, { _tag: "Stop", why })
    call.end()
    return annotate(exit, { why, attempts: call.spent })
  }

  protected tell(call: Call, outcome: Outcome, elapsedMillis: number, next: AttemptEvent["next"]): void {
    this.onAttempt?.({ ...call.current(), outcome, elapsedMillis, next })
  }
}

class RetriedEffect<A, E, R> extends Retry<A, E, R> {
  declare private readonly self: Effect.Effect<A, E, R>

  constructor(
    self: Effect.Effect<A, E, R>,
    policy: RetryPolicy,
    classify: Classify<A, E> | undefined,
    pause: Pause<E> | undefined,
    options: OwnOptions<A, E> | undefined
  ) {
    super(policy, classify, pause, options)
    this.self = self
  }

  protected override attemptAt(): Effect.Effect<A, E, R> {
    return this.self
  }
}

class RetriedAttempts<A, E, R> extends Retry<A, E, R> {
  declare private readonly make: (attempt: number) => Effect.Effect<A, E, R>

  constructor(
    make: (attempt: number) => Effect.Effect<A, E, R>,
    policy: RetryPolicy,
    classify: Classify<A, E> | undefined,
    pause: Pause<E> | undefined,
    options: OwnOptions<A, E> | undefined
  ) {
    super(policy, classify, pause, options)
    this.make = make
  }

  protected override attemptAt(attempt: number): Effect.Effect<A, E, R> {
    return this.make(attempt)
  }
}

/** Decides for a stream, which opens its attempts by itself. */
class RetriedStream<E> extends Retry<void, E, never> {
  protected override attemptAt(): Effect.Effect<void> {
    return Effect.void
  }

  protected override tryAt(): Effect.Effect<void> {
    return Effect.void
  }

  /** The first element, or the end without one: there is no further attempt. */
  commit(call: Call): void {
    if (call.isOver()) return
    this.tell(call, success, call.elapsedMillis(), done)
    call.end()
  }
}

// What the base of it cannot say: the types are those of the attempts.
const typed = <A, E, R>(retry: Retry<A, E, R>): Effect.Effect<A, E, R> & Retry<A, E, R> =>
  retry as Effect.Effect<A, E, R> & Retry<A, E, R>

const done: AttemptEvent["next"] = { _tag: "Done" }

// Whether the calls around this one, in the same fiber, will not try again, since the fiber was interrupted: then it cannot
// be made interruptible and go on.
const isAbandoned: Effect.Effect<boolean> = Effect.map(
  Effect.exit(Effect.interruptible(Effect.void)),
  Exit.isFailure
)

// Of two retries, one inside the other, the outer one gave up last.
const annotate = <A, E>(exit: Exit.Exit<A, E>, why: RetryStopped["Service"]): Exit.Exit<A, E> =>
  Exit.isSuccess(exit)
    ? exit
    : Exit.failCause(Cause.annotate(exit.cause, Context.make(RetryStopped, why), { overwrite: true }))

/** The innermost retry that the running fiber is in. */
const CurrentCall: Context.Reference<Call | undefined> = Context.Reference<Call | undefined>(
  "@sluice/core/RetryPolicy/CurrentCall",
  { defaultValue: () => undefined }
)

/**
 * What a call has to know of its retry.
 *
 * @internal
 */
export interface Rules extends Pick<Retry<never, never, unknown>, "policy" | "nested" | "onAttempt"> {
  readonly classify: unknown
}

/**
 * One run of a retry: the attempts that were made and that are left, also for the retries inside of it.
 *
 * @internal
 */
export class Call {
  /** Attempts that were begun or are about to be, by this retry and by those inside of it. */
  spent = 1
  declare readonly classifier: (exit: Exit.Exit<unknown, unknown>, elapsedMillis: number) => Outcome
  declare private readonly rules: Rules
  // Only where somebody asks for the time of an attempt: reading it twice costs as much as the rest of a call.
  declare private readonly clock: Clock.Clock | undefined
  private startedAt = 0
  private spentBefore = 0
  // Looked for when there is a failure: null until then.
  private around: Call | undefined | null = null
  private waits: Backoff | undefined = undefined
  // Until the call is over: a fiber that outlives it, and knows of it, shall not keep these alive.
  declare private fiber: AnyFiber | undefined
  declare private context: Context.Context<never> | undefined

  constructor(rules: Rules, fiber: AnyFiber) {
    this.rules = rules
    this.fiber = fiber
    this.context = fiber.context
    this.classifier = fiber.getRef(Classifier)
    const isHeard = rules.classify !== undefined || rules.onAttempt !== undefined || this.classifier !== fromExit
    this.clock = isHeard ? fiber.getRef(Clock.Clock) : undefined
  }

  /** What an attempt is given, beside what the call has. */
  announce<R>(context: Context.Context<R>, attempt: number): Context.Context<R> {
    // One that tries once has nothing to share. Not `<=`: a maximum of NaN is one.
    if (!(this.rules.policy.maxAttempts > 1)) return context
    const entered = Context.add(context, CurrentCall, this)
    const isNumbered = attempt > 1 ||
      (this.rules.nested === "own" && Context.get(context, CurrentAttempt) !== undefined)
    return isNumbered ? Context.add(entered, CurrentAttempt, this.current()) : entered
  }

  begin(): void {
    this.spentBefore = this.spent - 1
    if (this.clock !== undefined) this.startedAt = this.clock.currentTimeMillisUnsafe()
  }

  get isTimed(): boolean {
    return this.clock !== undefined
  }

  elapsedMillis(): number {
    return this.clock === undefined ? 0 : this.clock.currentTimeMillisUnsafe() - this.startedAt
  }

  end(): void {
    this.fiber = undefined
    this.context = undefined
  }

  // An interrupted call does not come to its end, but its fiber does.
  isOver(): boolean {
    return this.fiber === undefined || this.fiber.pollUnsafe() !== undefined
  }

  /** The retry around this one, whose attempts it spends as well. */
  get outer(): Call | undefined {
    if (this.around === null) {
      const context = this.rules.nested === "share" ? this.context : undefined
      this.around = context === undefined ? undefined : running(Context.get(context, CurrentCall))
    }
    return this.around
  }

  /** For a call in a finalizer of a fiber that was interrupted: what is around it in that fiber will not try again. */
  leaveOuter(fiber: AnyFiber): void {
    while (this.outer?.isOf(fiber) === true) this.around = this.outer.outer
  }

  isOf(fiber: AnyFiber): boolean {
    return this.fiber === fiber
  }

  /** Which attempt it is, as the outermost retry counts. */
  current(): { readonly attempt: number; readonly maxAttempts: number } {
    const outer = this.outer?.current()
    return {
      attempt: (outer?.attempt ?? 1) + this.spentBefore,
      maxAttempts: outer?.maxAttempts ?? this.rules.policy.maxAttempts
    }
  }

  /** Why there is no attempt left. */
  exhausted(): Why | undefined {
    if (!this.hasMore()) return "Attempts"
    for (let outer = running(this.outer); outer !== undefined; outer = running(outer.outer)) {
      if (!outer.hasMore()) return "OuterAttempts"
    }
    return undefined
  }

  waitAfter(attempt: number, hint: number, fiber: AnyFiber): number {
    this.waits ??= new Backoff(this.rules.policy)
    return this.waits.next(attempt, hint, fiber.getRef(Random.Random))
  }

  // Not `>=`: a maximum of NaN would never be reached.
  private hasMore(): boolean {
    return this.spent < this.rules.policy.maxAttempts
  }
}

/** Counts attempts for a call and for all that it is inside of. */
const charge = (call: Call | undefined, attempts: number): void => {
  for (; call !== undefined; call = call.outer) call.spent += attempts
}

/** The innermost call that is not over. */
const running = (call: Call | undefined): Call | undefined => {
  while (call?.isOver() === true) call = call.outer
  return call
}
