import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { CircuitOpen } from "../CircuitBreaker.ts"
import * as Deadline from "../Deadline.ts"
import type { Served } from "../Deduplicator.ts"
import { type Classify, failure, ignored, type Outcome } from "../Outcome.ts"
import type { RetryPolicy } from "../RetryPolicy.ts"
import { isMoving, lastMomentOf } from "./launch.ts"
import type { Permits } from "./permits.ts"
import { sleepUntil } from "./sleepUntil.ts"
import type { PolicyJournal } from "./policyJournal.ts"
import { AttemptTimeout, Rejected } from "./rejections.ts"
import { stackless } from "./stackless.ts"
import type { Limit } from "./timeout.ts"

/** A policy's options, checked and read. */
export interface Settings {
  readonly name: string
  readonly retry: RetryPolicy
  readonly attemptTimeoutMillis: number | undefined
  readonly minTimeoutMillis: number
  readonly deadline: Duration.Input | undefined
  readonly classify: Classify<unknown, unknown> | undefined
}

/** What `withReport` gathers of a call. */
export interface Collector {
  served: Served
  attempts: number
  waitedMillis: number
}

export const CurrentCollector: Context.Reference<Collector | undefined> = Context.Reference<Collector | undefined>(
  "@sluice/core/Sluice/CurrentCollector",
  { defaultValue: () => undefined }
)

/** One call on its way through the policy: what it was told, and which refusals in its exits are the policy's own. */
export class Call<in A, in E> implements Limit<AttemptTimeout | Rejected> {
  readonly key: string
  readonly collector: Collector | undefined
  deadline: Deadline.Deadline | undefined
  startedAt = 0
  /** Whether it is in: it runs, waits, or will come back for another attempt. */
  hasPlace = false
  private readonly settings: Settings
  private readonly own: Classify<A, E> | undefined
  private readonly clock: Clock.Clock
  private readonly journal: PolicyJournal
  // Remembered by identity: what another policy refuses inside the call looks the same.
  private raised: AttemptTimeout | Rejected | undefined = undefined

  constructor(
    settings: Settings,
    journal: PolicyJournal,
    options: { readonly key?: string | undefined; readonly classify?: Classify<A, E> | undefined },
    clock: Clock.Clock,
    fiber: Fiber.Fiber<unknown, unknown>
  ) {
    this.settings = settings
    this.journal = journal
    this.key = options.key ?? settings.name
    this.own = options.classify
    this.clock = clock
    this.collector = fiber.getRef(CurrentCollector)
    this.deadline = fiber.getRef(Deadline.Deadline)
  }

  /** Whether nobody but the `Classifier` has to be asked what an exit says. */
  get isPlain(): boolean {
    return this.own === undefined && this.settings.classify === undefined
  }

  /** Takes a place, unless it has one. Whoever ends the call gives it back. */
  takePlace(permits: Permits<Rejected>): boolean {
    this.hasPlace ||= permits.enter()
    return this.hasPlace
  }

  /** An attempt reaches the dependency, unless it is too late for that. */
  begin(): Effect.Effect<never, Rejected> | undefined {
    this.startedAt = this.clock.currentTimeMillisUnsafe()
    const { collector, deadline } = this
    if (deadline !== undefined && deadline.at <= this.startedAt) return Effect.fail(this.exceeded(deadline, "Queue"))
    if (collector !== undefined) collector.attempts++
    this.journal.attempts++
    return undefined
  }

  get beginning(): Effect.Effect<void, Rejected> {
    return Effect.suspend(() => this.begin() ?? Effect.void)
  }

  // Made where somebody needs it: as a field it would cost each call a closure.
  get classify(): Classify<A, E | Rejected | AttemptTimeout> {
    return (exit) => this.read(exit)
  }

  /** Breaker and retry both ask, and get the same answer: the time that counts is the attempt's, without its waits. */
  private read(exit: Exit.Exit<A, E | Rejected | AttemptTimeout>): Outcome | undefined {
    const now = this.clock.currentTimeMillisUnsafe()
    const elapsedMillis = now - this.startedAt
    if (Exit.isFailure(exit)) {
      const { deadline, raised } = this
      if (raised !== undefined && failsWith(exit.cause, (error) => error === raised)) {
        return this.outcomeOf(raised, elapsedMillis)
      }
      if (failsWith(exit.cause, (error) => this.journal.isShed(error))) return ignored
      // Whoever keeps the deadline outside of the policy may have been the first to interrupt.
      const isLate = deadline !== undefined && now >= lastMomentOf(deadline)
      if (isLate && Cause.hasInterruptsOnly(exit.cause)) return this.cutShort(elapsedMillis)
    }
    // Whatever the policy did not raise is the call's own.
    const own = exit as Exit.Exit<A, E>
    return this.own?.(own, elapsedMillis) ?? this.settings.classify?.(own, elapsedMillis)
  }

  private outcomeOf(raised: AttemptTimeout | Rejected, elapsedMillis: number): Outcome {
    if (raised._tag === "AttemptTimeout") return failure()
    const { reason } = raised
    const wasTried = reason._tag === "DeadlineExceeded" && reason.at === "Attempt"
    return wasTried ? this.cutShort(elapsedMillis) : ignored
  }

  // By the deadline: no more attempts, and evidence only if this one had enough time to answer.
  private cutShort(elapsedMillis: number): Outcome {
    return elapsedMillis >= this.settings.minTimeoutMillis ? failure({ retryable: false }) : ignored
  }

  /** Waits for an open circuit, if its time fits before the deadline, or fails with the refusal. */
  refused(open: CircuitOpen): Effect.Effect<void, Rejected> {
    return Effect.suspend(() => {
      const waitMillis = Duration.toMillis(open.retryAfter)
      const due = this.clock.currentTimeMillisUnsafe() + waitMillis
      // A flight whose callers set no deadline has one that is infinitely far.
      const at = this.deadline?.at ?? Number.POSITIVE_INFINITY
      return due < at && at < Number.POSITIVE_INFINITY
        ? this.wait(Effect.sleep(open.retryAfter))
        : Effect.fail(this.rejected(open))
    })
  }

  /** A wait in the queue, which the deadline ends. */
  beforeDeadline(self: Effect.Effect<void, Rejected>): Effect.Effect<void, Rejected> {
    const { deadline } = this
    if (deadline === undefined) return this.wait(self)
    const late = Effect.flatMap(
      Effect.suspend(() => {
        const startedAt = this.clock.currentTimeMillisUnsafe()
        return sleepUntil(deadline, () => momentFrom(startedAt, deadline))
      }),
      () => Effect.fail(this.exceeded(deadline, "Queue"))
    )
    return this.wait(Effect.raceFirst(self, late))
  }

  /** Whether anything bounds an attempt. */
  get isLimited(): boolean {
    return this.settings.attemptTimeoutMillis !== undefined || this.deadline !== undefined
  }

  /** When the attempt's time is over. */
  at(): number {
    const due = this.startedAt + (this.settings.attemptTimeoutMillis ?? Number.POSITIVE_INFINITY)
    return this.deadline === undefined ? due : Math.min(due, momentFrom(this.startedAt, this.deadline))
  }

  error(now: number): AttemptTimeout | Rejected {
    const { attemptTimeoutMillis } = this.settings
    const due = this.startedAt + (attemptTimeoutMillis ?? Number.POSITIVE_INFINITY)
    // By a clock that was set back both are ahead: the nearer one is what was reached.
    const { deadline } = this
    const isByDeadline = attemptTimeoutMillis === undefined ||
      (now < due && deadline !== undefined && momentFrom(this.startedAt, deadline) < due)
    if (isByDeadline && deadline !== undefined) return this.exceeded(deadline, "Attempt")
    const timeout = stackless(() =>
      new AttemptTimeout({ after: Duration.millis(attemptTimeoutMillis ?? 0), policy: this.settings.name })
    )
    this.raised = timeout
    return timeout
  }

  private exceeded(deadline: Deadline.Deadline, at: Deadline.DeadlineExceeded["at"]): Rejected {
    return this.rejected(Deadline.exceeded(deadline, at, this.settings.name))
  }

  rejected(reason: Rejected["reason"]): Rejected {
    const rejected = stackless(() => new Rejected({ reason }))
    this.raised = rejected
    return rejected
  }

  /** Tells the policy that the call is over. */
  end(exit: Exit.Exit<unknown, unknown>): void {
    this.journal.ended(this.key, exit, (error) => error === this.raised || this.journal.isShed(error))
  }

  /** What waits counts as waiting in the call's report. */
  wait<B, E2, R>(self: Effect.Effect<B, E2, R>): Effect.Effect<B, E2, R> {
    const { clock, collector } = this
    if (collector === undefined) return self
    return Effect.suspend(() => {
      const startedAt = clock.currentTimeMillisUnsafe()
      return Effect.onExitPrimitive(self, () => {
        collector.waitedMillis += clock.currentTimeMillisUnsafe() - startedAt
        return undefined
      })
    })
  }
}

/**
 * The deadline, for what began at a time. Nothing has more than the call as a whole was given: a deadline that is farther away was
 * set by a clock that has been set back since. That of a flight may be, by who joined after the beginning.
 */
const momentFrom = (startedAt: number, deadline: Deadline.Deadline): number =>
  isMoving(deadline) ? deadline.at : Math.min(deadline.at, startedAt + deadline.budgetMillis)

const failsWith = (cause: Cause.Cause<unknown>, is: (error: unknown) => boolean): boolean =>
  cause.reasons.some((reason) => Cause.isFailReason(reason) && is(reason.error))
