import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Deadline from "../../Deadline.ts"
import type { Served } from "../../Deduplicator.ts"
import { type Classify, failure, ignored, type Outcome } from "../../Outcome.ts"
import { withoutStack } from "../../Refusal.ts"
import type { RetryPolicy } from "../../RetryPolicy.ts"
import type { AdmissionRequest, AnyFiber, Gate, Hooks } from "../admission/attempt.ts"
import type { CircuitOpen } from "../circuit/circuitOpen.ts"
import { isMoving, lastMomentOf } from "../deadline/shared.ts"
import { sleepUntil } from "../deadline/sleepUntil.ts"
import type { Limit } from "../deadline/timeout.ts"
import type { PermitRequest } from "../permits/permits.ts"
import type { PolicyJournal } from "./journal.ts"
import { AttemptTimeout, Rejected } from "./rejections.ts"

/** The checked options of a policy. */
export interface Settings {
  readonly name: string
  readonly retry: RetryPolicy
  readonly attemptTimeoutMillis: number | undefined
  readonly minTimeoutMillis: number
  readonly deadline: Duration.Input | undefined
  readonly classify: Classify<unknown, unknown> | undefined
}

/** What the calls of a policy share. */
export interface Shared {
  readonly settings: Settings
  readonly journal: PolicyJournal
  readonly clock: Clock.Clock
  /** The permits and the breaker that admit every attempt. */
  readonly gate: Gate<Rejected>
  /** The permits that a call's first attempt requests, and those of each further one. */
  readonly first: PermitRequest
  readonly again: PermitRequest
}

/** What `withReport` collects of a call. */
export interface Collector {
  served: Served
  attempts: number
  waitedMillis: number
}

export const CurrentCollector: Context.Reference<Collector | undefined> = Context.Reference<Collector | undefined>(
  "@sluice/core/Sluice/CurrentCollector",
  { defaultValue: () => undefined }
)

/**
 * One call under a policy: the hooks of its attempts' admission, and the limit of their time. It recognises the errors that
 * the policy itself raised by identity, since a policy inside the call raises errors of the same form.
 */
export class Call<in A, in E> implements Limit<AttemptTimeout | Rejected>, Hooks<Rejected> {
  readonly key: string
  readonly collector: Collector | undefined
  readonly deadline: Deadline.Deadline | undefined
  private startedAt = 0
  private readonly policy: Shared
  private readonly ownClassify: Classify<A, E> | undefined
  private hasSlot = false
  private raised: AttemptTimeout | Rejected | undefined = undefined

  constructor(
    policy: Shared,
    options: { readonly key?: string | undefined; readonly classify?: Classify<A, E> | undefined },
    fiber: AnyFiber
  ) {
    this.policy = policy
    this.key = options.key ?? policy.settings.name
    this.ownClassify = options.classify
    this.collector = fiber.getRef(CurrentCollector)
    this.deadline = fiber.getRef(Deadline.Deadline)
  }

  /** Records how the call ended. */
  end(exit: Exit.Exit<unknown, unknown>): void {
    const { journal } = this.policy
    journal.ended(this.key, exit, (error) => error === this.raised || journal.isShed(error))
  }

  private now(): number {
    return this.policy.clock.currentTimeMillisUnsafe()
  }

  // ---------- admission

  /** The first attempt joins the queue at its end. The next ones join at the head: the call has waited its turn before. */
  request(attempt: number): AdmissionRequest<Rejected> {
    const { again, first, gate } = this.policy
    return { gate, key: this.key, hooks: this, permits: attempt > 1 ? again : first }
  }

  /** Takes a slot, unless the call has one. `leave` gives it back. */
  arrive(): Effect.Effect<never, Rejected> | undefined {
    const { permits } = this.policy.gate
    if (this.hasSlot || permits === undefined) return undefined
    this.hasSlot = permits.takeSlot()
    return this.hasSlot ? undefined : permits.refuse(permits.isDraining ? "Draining" : "Full", 1)
  }

  leave(): void {
    if (this.hasSlot) this.policy.gate.permits?.leaveSlot()
    this.hasSlot = false
  }

  /** Ends the wait in the queue at the deadline. */
  wait(self: Effect.Effect<void, Rejected>): Effect.Effect<void, Rejected> {
    const { deadline } = this
    if (deadline === undefined) return this.counted(self)
    const late = Effect.flatMap(
      Effect.suspend(() => {
        const startedAt = this.now()
        return sleepUntil(deadline, () => momentFrom(startedAt, deadline))
      }),
      () => Effect.fail(this.exceeded(deadline, "Queue"))
    )
    return this.counted(Effect.raceFirst(self, late))
  }

  /** Waits for an open circuit if it can close before the deadline. Fails with the refusal otherwise. */
  refused(open: CircuitOpen): Effect.Effect<void, Rejected> {
    return Effect.suspend(() => {
      const due = this.now() + Duration.toMillis(open.retryAfter)
      // The deadline of a shared run without deadlines is infinitely far.
      const at = this.deadline?.at ?? Number.POSITIVE_INFINITY
      return due < at && at < Number.POSITIVE_INFINITY
        ? this.counted(Effect.sleep(open.retryAfter))
        : Effect.fail(this.rejected(open))
    })
  }

  /** Starts an attempt, unless the deadline has passed. */
  begin(): Effect.Effect<never, Rejected> | undefined {
    this.startedAt = this.now()
    const { collector, deadline } = this
    if (deadline !== undefined && deadline.at <= this.startedAt) return Effect.fail(this.exceeded(deadline, "Queue"))
    if (collector !== undefined) collector.attempts++
    this.policy.journal.attempts++
    return undefined
  }

  /** Adds the effect's duration to `waitedMillis`. */
  counted<B, E2, R>(self: Effect.Effect<B, E2, R>): Effect.Effect<B, E2, R> {
    const { collector } = this
    if (collector === undefined) return self
    return Effect.suspend(() => {
      const startedAt = this.now()
      return Effect.onExitPrimitive(self, () => {
        collector.waitedMillis += this.now() - startedAt
        return undefined
      })
    })
  }

  // ---------- the limit of an attempt

  get isLimited(): boolean {
    return this.policy.settings.attemptTimeoutMillis !== undefined || this.deadline !== undefined
  }

  /** When the attempt times out. */
  at(): number {
    const { attemptTimeoutMillis = Number.POSITIVE_INFINITY } = this.policy.settings
    const timesOutAt = this.startedAt + attemptTimeoutMillis
    return this.deadline === undefined ? timesOutAt : Math.min(timesOutAt, momentFrom(this.startedAt, this.deadline))
  }

  get watch(): ((onEarlier: () => void) => () => void) | undefined {
    const { deadline } = this
    return deadline !== undefined && isMoving(deadline) ? (onEarlier) => deadline.watch(onEarlier) : undefined
  }

  error(now: number): AttemptTimeout | Rejected {
    const { attemptTimeoutMillis, name } = this.policy.settings
    const timesOutAt = this.startedAt + (attemptTimeoutMillis ?? Number.POSITIVE_INFINITY)
    const { deadline } = this
    // If the clock was set back, both moments are ahead. Then the nearer one was reached.
    const isByDeadline = attemptTimeoutMillis === undefined ||
      (now < timesOutAt && deadline !== undefined && momentFrom(this.startedAt, deadline) < timesOutAt)
    if (isByDeadline && deadline !== undefined) return this.exceeded(deadline, "Attempt")
    const timeout = withoutStack(() =>
      new AttemptTimeout({ after: Duration.millis(attemptTimeoutMillis ?? 0), policy: name })
    )
    this.raised = timeout
    return timeout
  }

  // ---------- refusals

  rejected(reason: Rejected["reason"]): Rejected {
    const rejected = withoutStack(() => new Rejected({ reason }))
    this.raised = rejected
    return rejected
  }

  private exceeded(deadline: Deadline.Deadline, at: Deadline.DeadlineExceeded["at"]): Rejected {
    return this.rejected(Deadline.exceeded(deadline, at, this.policy.settings.name))
  }

  // ---------- outcomes

  /** Whether only the `Classifier` can change the outcome of a success: call and policy have no classifier. */
  get trustsSuccess(): boolean {
    return this.ownClassify === undefined && this.policy.settings.classify === undefined
  }

  // A getter, since a closure as a field would cost every call.
  get classify(): Classify<unknown, unknown> {
    // The exit is that of an attempt of this call, which the policy wraps.
    return (exit) => this.outcomeOf(exit as Exit.Exit<A, E | Rejected | AttemptTimeout>)
  }

  /** The outcome for the breaker and the retry. The elapsed time is the attempt's, without the waits before it. */
  private outcomeOf(exit: Exit.Exit<A, E | Rejected | AttemptTimeout>): Outcome | undefined {
    const now = this.now()
    const elapsedMillis = now - this.startedAt
    if (Exit.isFailure(exit)) {
      const { deadline, policy: { journal }, raised } = this
      if (raised !== undefined && failsWith(exit.cause, (error) => error === raised)) {
        return this.outcomeOfRaised(raised, elapsedMillis)
      }
      if (failsWith(exit.cause, (error) => journal.isShed(error))) return ignored
      // A `Deadline.within` around the policy can interrupt the attempt before the policy's own timer fires.
      const isLate = deadline !== undefined && now >= lastMomentOf(deadline)
      if (isLate && Cause.hasInterruptsOnly(exit.cause)) return this.outcomeOfLate(elapsedMillis)
    }
    // An error that the policy did not raise is the call's own.
    const own = exit as Exit.Exit<A, E>
    return this.ownClassify?.(own, elapsedMillis) ?? this.policy.settings.classify?.(own, elapsedMillis)
  }

  private outcomeOfRaised(raised: AttemptTimeout | Rejected, elapsedMillis: number): Outcome {
    if (raised._tag === "AttemptTimeout") return failure()
    const { reason } = raised
    const wasTried = reason._tag === "DeadlineExceeded" && reason.at === "Attempt"
    return wasTried ? this.outcomeOfLate(elapsedMillis) : ignored
  }

  // An attempt that the deadline ended is not repeated, and is evidence only if it had enough time to answer.
  private outcomeOfLate(elapsedMillis: number): Outcome {
    return elapsedMillis >= this.policy.settings.minTimeoutMillis ? failure({ retryable: false }) : ignored
  }
}

/**
 * The moment of a deadline, for something that began at `startedAt`. A deadline that is further away than its budget was set
 * by a clock that has been set back. Only the deadline of a shared run can be, through a caller that joined later.
 */
const momentFrom = (startedAt: number, deadline: Deadline.Deadline): number =>
  isMoving(deadline) ? deadline.at : Math.min(deadline.at, startedAt + deadline.budgetMillis)

const failsWith = (cause: Cause.Cause<unknown>, is: (error: unknown) => boolean): boolean =>
  cause.reasons.some((reason) => Cause.isFailReason(reason) && is(reason.error))
