import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import { Classifier, fromExit, type Outcome } from "../../Outcome.ts"
import type { AttemptEvent, RetryPolicy } from "../../RetryPolicy.ts"
import { Backoff } from "./backoff.ts"
import { CurrentAttempt, type Why } from "./stopped.ts"

export type AnyFiber = Fiber.Fiber<unknown, unknown>

/** The options of a retry that its state depends on. */
export interface RetryRules {
  readonly policy: RetryPolicy
  readonly nested: "share" | "own"
  readonly classify: unknown
  readonly onAttempt: ((event: AttemptEvent) => void) | undefined
}

/** The innermost retry that the running fiber is in. */
export const CurrentRetry: Context.Reference<RetryState | undefined> = Context.Reference<RetryState | undefined>(
  "@sluice/core/RetryPolicy/CurrentRetry",
  { defaultValue: () => undefined }
)

/** One run of a retry: the attempts it has made and has left, which nested retries share. */
export class RetryState {
  /** Attempts that have begun or are about to, with those of nested retries. */
  spent = 1
  // Declared, and assigned by the constructor: fields with initializers cost 5 ns each.
  declare readonly classifier: (exit: Exit.Exit<unknown, unknown>, elapsedMillis: number) => Outcome
  declare private readonly rules: RetryRules
  // Only if something reads the time of an attempt. Reading the clock twice costs as much as the rest of a retry.
  declare private readonly clock: Clock.Clock | undefined
  private startedAt = 0
  private spentBefore = 0
  // Looked up at the first failure. null until then.
  private outerOrUnknown: RetryState | undefined | null = null
  private backoff: Backoff | undefined = undefined
  // Dropped at the end, so that a fiber that outlives the retry does not keep these alive.
  declare private fiber: AnyFiber | undefined
  declare private context: Context.Context<never> | undefined

  constructor(rules: RetryRules, fiber: AnyFiber) {
    this.rules = rules
    this.fiber = fiber
    this.context = fiber.context
    this.classifier = fiber.getRef(Classifier)
    const needsTime = rules.classify !== undefined || rules.onAttempt !== undefined || this.classifier !== fromExit
    this.clock = needsTime ? fiber.getRef(Clock.Clock) : undefined
  }

  /** Adds what an attempt can see of its retry to its context. */
  provideTo<R>(context: Context.Context<R>, attempt: number): Context.Context<R> {
    // A retry of one attempt has nothing to share. Not `<=`: a maximum of NaN is one attempt.
    if (!(this.rules.policy.maxAttempts > 1)) return context
    const provided = Context.add(context, CurrentRetry, this)
    const isNumbered = attempt > 1 ||
      (this.rules.nested === "own" && Context.get(context, CurrentAttempt) !== undefined)
    return isNumbered ? Context.add(provided, CurrentAttempt, this.current()) : provided
  }

  beginAttempt(): void {
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

  // An interrupted retry never gets to `end`, but its fiber ends.
  isOver(): boolean {
    return this.fiber === undefined || this.fiber.pollUnsafe() !== undefined
  }

  /** The retry around this one, whose attempts it spends as well. */
  get outer(): RetryState | undefined {
    if (this.outerOrUnknown === null) {
      const context = this.rules.nested === "share" ? this.context : undefined
      this.outerOrUnknown = context === undefined ? undefined : innermostLive(Context.get(context, CurrentRetry))
    }
    return this.outerOrUnknown
  }

  /** In a finalizer of an interrupted fiber: the retries around this one in that fiber will not try again. */
  leaveOuter(fiber: AnyFiber): void {
    while (this.outer?.isOf(fiber) === true) this.outerOrUnknown = this.outer.outer
  }

  isOf(fiber: AnyFiber): boolean {
    return this.fiber === fiber
  }

  /** The current attempt, as the outermost retry counts. */
  current(): { readonly attempt: number; readonly maxAttempts: number } {
    const outer = this.outer?.current()
    return {
      attempt: (outer?.attempt ?? 1) + this.spentBefore,
      maxAttempts: outer?.maxAttempts ?? this.rules.policy.maxAttempts
    }
  }

  /** Why no attempt is left. */
  exhausted(): Why | undefined {
    if (!this.hasAttempts()) return "Attempts"
    for (let outer = innermostLive(this.outer); outer !== undefined; outer = innermostLive(outer.outer)) {
      if (!outer.hasAttempts()) return "OuterAttempts"
    }
    return undefined
  }

  /** Counts attempts here and in all retries around. */
  spend(attempts: number): void {
    this.spent += attempts
    this.outer?.spend(attempts)
  }

  /** The delay before the next attempt. */
  delayAfter(attempt: number, retryAfterMillis: number, fiber: AnyFiber): number {
    this.backoff ??= new Backoff(this.rules.policy)
    return this.backoff.next(attempt, retryAfterMillis, fiber.getRef(Random.Random))
  }

  // Not `>=`: a maximum of NaN would never be reached.
  private hasAttempts(): boolean {
    return this.spent < this.rules.policy.maxAttempts
  }
}

const innermostLive = (retry: RetryState | undefined): RetryState | undefined => {
  while (retry?.isOver() === true) retry = retry.outer
  return retry
}
