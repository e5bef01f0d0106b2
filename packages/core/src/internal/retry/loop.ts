import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import { Deadline } from "../../Deadline.ts"
import { toMillis } from "../../OptionsReader.ts"
import type { Classify, Outcome } from "../../Outcome.ts"
import { success } from "../../Outcome.ts"
import type { AttemptEvent, RetryCallOptions, RetryPolicy } from "../../RetryPolicy.ts"
import { Primitive } from "../kit/primitive.ts"
import { reopenUntilFirst } from "../kit/streams.ts"
import { refusalIn, refusalInside } from "./refused.ts"
import { type AnyFiber, CurrentRetry, RetryState } from "./state.ts"
import { RetryStopped, type Why } from "./stopped.ts"

/** Waits before the next attempt, or fails with the reason not to make it. Default `Effect.sleep`. */
type Pause<E> = (delay: Duration.Duration) => Effect.Effect<void, E>

/** Adds what an attempt can see of its retry to a context. */
export type ProvideAttempt = <R>(context: Context.Context<R>) => Context.Context<R>

/** Makes an attempt, for the fiber that will run it. */
export type MakeAttempt<A, E, R> = (
  attempt: number,
  provide: ProvideAttempt,
  fiber: AnyFiber
) => Effect.Effect<A, E, R>

/** Retries an effect. */
export const retryEffect = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  policy: RetryPolicy,
  options: RetryCallOptions<A, E> | undefined
): Effect.Effect<A, E, R> => typed(new RetriedEffect(self, policy, options))

/** Retries by making each attempt anew. `makeAttempt` applies `provide` to the context of its attempt. */
export const retryAttempts = <A, E, R>(
  makeAttempt: MakeAttempt<A, E, R>,
  policy: RetryPolicy,
  options: RetryCallOptions<A, E>,
  pause: Pause<E>
): Effect.Effect<A, E, R> => typed(new RetriedAttempts(makeAttempt, policy, options, pause))

/** Retries a stream until its first element, by making each attempt anew. */
export const retryStreams = <A, E, R>(
  makeAttempt: (attempt: number) => Stream.Stream<A, E, R>,
  policy: RetryPolicy,
  options: RetryCallOptions<void, E> | undefined,
  pause?: Pause<E>
): Stream.Stream<A, E, R> =>
  Stream.unwrap(Effect.withFiber((fiber) => {
    const retry = new RetriedStream(policy, options, pause)
    const state = new RetryState(retry, fiber)
    const commit = Effect.sync(() => retry.commit(state))
    return Effect.succeed(reopenUntilFirst<A, E, R>({
      open: (attempt) => {
        state.beginAttempt()
        return makeAttempt(attempt).pipe(
          Stream.onFirst(() => commit),
          Stream.onEnd(commit),
          Stream.updateContext((context: Context.Context<R>) => state.provideTo(context, attempt))
        )
      },
      onFailure: (cause, attempt) =>
        Effect.withFiber((fiber) => retry.afterAttempt(fiber, state, attempt, Exit.failCause(cause), retry.lastMade))
    }))
  }))

/** An attempt that has ended. */
interface Ended<A, E> {
  readonly state: RetryState
  /** Counted by this retry. The first is 1. */
  readonly attempt: number
  readonly exit: Exit.Exit<A, E>
  readonly outcome: Outcome
  readonly elapsedMillis: number
  /** The exit of the last attempt that reached the dependency. `undefined` if every attempt was refused. */
  readonly lastMade: Exit.Exit<A, E> | undefined
}

/**
 * An effect with its retry: one object that is the effect and holds its options, since nearly every retry ends with its first
 * attempt. Composed of Effect's operators it would cost half as much again.
 */
abstract class Retry<A, E, R> extends Primitive {
  // Declared, and assigned by the constructor: fields with initializers cost 5 ns each.
  declare readonly policy: RetryPolicy
  declare readonly nested: "share" | "own"
  declare readonly classify: Classify<A, E> | undefined
  declare readonly onAttempt: RetryCallOptions<A, E>["onAttempt"]
  declare private readonly delay: RetryCallOptions<A, E>["delay"]
  declare private readonly pause: Pause<E> | undefined

  constructor(policy: RetryPolicy, options: RetryCallOptions<A, E> | undefined, pause: Pause<E> | undefined) {
    super()
    this.policy = policy
    this.classify = options?.classify
    this.pause = pause
    this.nested = options?.nested ?? "share"
    this.onAttempt = options?.onAttempt
    this.delay = options?.delay
  }

  protected abstract makeAttempt(attempt: number, provide: ProvideAttempt, fiber: AnyFiber): Effect.Effect<A, E, R>

  override evaluate(fiber: AnyFiber): Effect.Effect<A, E, R> {
    return this.tryOnce(fiber, new RetryState(this, fiber), 1)
  }

  protected tryOnce(
    fiber: AnyFiber,
    state: RetryState,
    attempt: number,
    lastMade?: Exit.Exit<A, E>
  ): Effect.Effect<A, E, R> {
    state.beginAttempt()
    return Effect.matchCauseEffect(
      this.makeAttempt(attempt, (context) => state.provideTo(context, attempt), fiber),
      {
        onSuccess: (value) => this.afterAttempt(fiber, state, attempt, Exit.succeed(value), lastMade),
        onFailure: (cause) => this.afterAttempt(fiber, state, attempt, Exit.failCause(cause), lastMade)
      }
    )
  }

  /** The next attempt, or the exit if there is none. */
  afterAttempt(
    fiber: AnyFiber,
    state: RetryState,
    attempt: number,
    exit: Exit.Exit<A, E>,
    lastMade: Exit.Exit<A, E> | undefined
  ): Effect.Effect<A, E, R> {
    if (exit._tag === "Success" && !state.isTimed) {
      state.end()
      return exit
    }
    const elapsedMillis = state.elapsedMillis()
    const outcome = this.classify?.(exit, elapsedMillis) ?? state.classifier(exit, elapsedMillis)
    if (outcome._tag === "Success") {
      this.report(state, outcome, elapsedMillis, done)
      state.end()
      return exit
    }
    const ended = { state, attempt, exit, outcome, elapsedMillis, lastMade }
    return this.pause === undefined && state.outer === undefined ? this.next(fiber, ended) : this.nextOfShared(ended)
  }

  private next(fiber: AnyFiber, ended: Ended<A, E>): Effect.Effect<A, E, R> {
    const { attempt, state } = ended
    const decision = this.decide(fiber, ended)
    if (typeof decision === "string") return this.stop(ended, decision)
    const wait = this.wait(ended, decision)
    const lastMade = lastMadeOf(ended)
    return decision === 0
      ? this.tryOnce(fiber, state, attempt + 1, lastMade)
      : Effect.andThen(wait, Effect.suspend(() => this.tryOnce(fiber, state, attempt + 1, lastMade)))
  }

  /** `next` for a pause that can fail, and for attempts that are shared with retries around. */
  private nextOfShared(ended: Ended<A, E>): Effect.Effect<A, E, R> {
    const { attempt, state } = ended
    let decision: number | Why = "Final"
    const decided = Effect.withFiber<void, E>((fiber) => {
      decision = this.decide(fiber, ended)
      if (decision !== "OuterAttempts" || state.outer?.isOf(fiber) !== true) return this.wait(ended, decision)
      return Effect.flatMap(isBeingInterrupted, (isBeingInterrupted) => {
        if (isBeingInterrupted) state.leaveOuter(fiber)
        decision = this.decide(fiber, ended)
        return this.wait(ended, decision)
      })
    })
    // If the wait is interrupted or refused, the attempt it was for is given back.
    const waited = Effect.onExitPrimitive(decided, (exit) => {
      if (typeof decision === "number" && Exit.isFailure(exit)) state.spend(-1)
      return undefined
    })
    return Effect.matchCauseEffect(waited, {
      onSuccess: () =>
        typeof decision === "string"
          ? this.stop(ended, decision)
          : Effect.withFiber((fiber) => this.tryOnce(fiber, state, attempt + 1, lastMadeOf(ended))),
      onFailure: (cause) => {
        state.end()
        return this.exitOf(Exit.failCause(cause), lastMadeOf(ended), "Refused", state)
      }
    })
  }

  /** The milliseconds to wait before the next attempt, or why there is none. */
  private decide(fiber: AnyFiber, { attempt, exit, outcome, state }: Ended<A, E>): number | Why {
    if (outcome._tag !== "Throttled" && !(outcome._tag === "Failure" && outcome.retryable)) return "Final"
    // A policy inside that refused its own next attempt would refuse this one as well.
    if (refusalInside(exit) !== undefined) return "Refused"
    const exhausted = state.exhausted()
    if (exhausted !== undefined) return exhausted
    const { retryAfter } = outcome
    const retryAfterMillis = retryAfter === undefined ? 0 : Math.max(0, Duration.toMillis(retryAfter))
    if (retryAfterMillis > this.maxRetryAfterMillis()) return "RetryAfterTooLong"
    const delay = this.delayMillis(attempt, outcome, state.delayAfter(attempt, retryAfterMillis, fiber))
    const deadline = fiber.getRef(Deadline)
    const isLate = deadline !== undefined && fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + delay >= deadline.at
    return isLate ? "Deadline" : delay
  }

  private delayMillis(attempt: number, outcome: Outcome, backoff: number): number {
    if (this.delay === undefined) return backoff
    const chosen = toMillis(this.delay({ attempt, outcome, delay: Duration.millis(backoff) }))
    return chosen >= 0 ? Math.min(chosen, Number.MAX_VALUE) : backoff
  }

  // Finite, so that an infinite Retry-After is not waited for. An invalid maximum allows no Retry-After.
  private maxRetryAfterMillis(): number {
    const max = toMillis(this.policy.maxRetryAfter)
    return max >= 0 ? Math.min(max, Number.MAX_VALUE) : 0
  }

  /** Spends an attempt and waits for it, if there is one. */
  private wait({ elapsedMillis, outcome, state }: Ended<A, E>, decision: number | Why): Effect.Effect<void, E> {
    if (typeof decision === "string") return Effect.void
    state.spend(1)
    const delay = Duration.millis(decision)
    this.report(state, outcome, elapsedMillis, { _tag: "Wait", delay })
    if (this.pause !== undefined) return this.pause(delay)
    return decision === 0 ? Effect.void : Effect.sleep(delay)
  }

  private stop({ elapsedMillis, exit, lastMade, outcome, state }: Ended<A, E>, decision: Why): Exit.Exit<A, E> {
    const isRefused = lastMade !== undefined && refusalIn(exit) !== undefined
    const why = isRefused && decision === "Final" ? "Refused" : decision
    this.report(state, outcome, elapsedMillis, { _tag: "Stop", why })
    // A refused attempt was not made.
    if (isRefused) state.spend(-1)
    state.end()
    return this.exitOf(exit, lastMade, why, state)
  }

  /** The exit of the retry. The error of a dependency that was reached has priority over the refusal of the next attempt. */
  private exitOf(
    exit: Exit.Exit<A, E>,
    lastMade: Exit.Exit<A, E> | undefined,
    why: Why,
    { spent: attempts }: RetryState
  ): Exit.Exit<A, E> {
    const refusal = refusalIn(exit)
    if (refusal !== undefined && lastMade !== undefined) return annotate(lastMade, { why, attempts, refusal })
    const inside = refusalInside(exit)
    return annotate(exit, inside === undefined ? { why, attempts } : { why, attempts, refusal: inside })
  }

  protected report(state: RetryState, outcome: Outcome, elapsedMillis: number, next: AttemptEvent["next"]): void {
    this.onAttempt?.({ ...state.current(), outcome, elapsedMillis, next })
  }
}

class RetriedEffect<A, E, R> extends Retry<A, E, R> {
  declare private readonly self: Effect.Effect<A, E, R>

  constructor(self: Effect.Effect<A, E, R>, policy: RetryPolicy, options: RetryCallOptions<A, E> | undefined) {
    super(policy, options, undefined)
    this.self = self
  }

  override evaluate(fiber: AnyFiber): Effect.Effect<A, E, R> {
    const state = new RetryState(this, fiber)
    return this.nested === "share" && this.policy.maxAttempts > 1
      ? this.tryFirst(fiber, state)
      : this.tryOnce(fiber, state, 1)
  }

  /**
   * The first attempt, with the fiber's context set in place. Providing a context would take a finalizer, which costs 170 ns,
   * half of a retry, and misses the target of five times Effect's. If the fiber is interrupted the context stays set, and its
   * finalizers still see this retry: `isBeingInterrupted` is for that.
   */
  private tryFirst(fiber: AnyFiber, state: RetryState): Effect.Effect<A, E, R> {
    const { context } = fiber
    fiber.setContext(Context.add(context, CurrentRetry, state))
    state.beginAttempt()
    return Effect.matchCauseEffect(this.self, {
      onSuccess: (value) => {
        fiber.setContext(context)
        return this.afterAttempt(fiber, state, 1, Exit.succeed(value), undefined)
      },
      onFailure: (cause) => {
        fiber.setContext(context)
        return this.afterAttempt(fiber, state, 1, Exit.failCause(cause), undefined)
      }
    })
  }

  protected override makeAttempt(_: number, provide: ProvideAttempt): Effect.Effect<A, E, R> {
    return Effect.updateContext(this.self, provide)
  }
}

class RetriedAttempts<A, E, R> extends Retry<A, E, R> {
  declare private readonly make: MakeAttempt<A, E, R>

  constructor(
    make: MakeAttempt<A, E, R>,
    policy: RetryPolicy,
    options: RetryCallOptions<A, E>,
    pause: Pause<E>
  ) {
    super(policy, options, pause)
    this.make = make
  }

  protected override makeAttempt(
    attempt: number,
    provide: ProvideAttempt,
    fiber: AnyFiber
  ): Effect.Effect<A, E, R> {
    return this.make(attempt, provide, fiber)
  }
}

/** The decisions of a stream's retry. The stream opens its attempts itself. */
class RetriedStream<E> extends Retry<void, E, never> {
  lastMade: Exit.Exit<void, E> | undefined = undefined

  protected override makeAttempt(): Effect.Effect<void> {
    return Effect.void
  }

  protected override tryOnce(
    _: AnyFiber,
    __: RetryState,
    ___: number,
    lastMade?: Exit.Exit<void, E>
  ): Effect.Effect<void> {
    this.lastMade = lastMade
    return Effect.void
  }

  /** The first element, or the end without one: there is no further attempt. */
  commit(state: RetryState): void {
    if (state.isOver()) return
    this.report(state, success, state.elapsedMillis(), done)
    state.end()
  }
}

// The base class of effects has no type parameters. A retry has the types of its attempts.
const typed = <A, E, R>(retry: Retry<A, E, R>): Effect.Effect<A, E, R> => retry as Effect.Effect<A, E, R>

const done: AttemptEvent["next"] = { _tag: "Done" }

const lastMadeOf = <A, E>({ exit, lastMade }: Ended<A, E>): Exit.Exit<A, E> | undefined =>
  refusalIn(exit) === undefined ? exit : lastMade

// In an interrupted fiber an interruptible effect fails. The retries around this one in that fiber will not try again then.
const isBeingInterrupted: Effect.Effect<boolean> = Effect.map(
  Effect.exit(Effect.interruptible(Effect.void)),
  Exit.isFailure
)

// Of two nested retries the outer one stopped last, and overwrites the annotation.
const annotate = <A, E>(exit: Exit.Exit<A, E>, stopped: RetryStopped["Service"]): Exit.Exit<A, E> =>
  Exit.isSuccess(exit)
    ? exit
    : Exit.failCause(Cause.annotate(exit.cause, Context.make(RetryStopped, stopped), { overwrite: true }))
