import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Deadline from "../../Deadline.ts"
import type { Classify } from "../../Outcome.ts"
import type { Amounts, Used } from "../../Quota.ts"
import { withoutStack } from "../../Refusal.ts"
import { type AdmissionRequest, type AnyFiber, classifierOf, type Gate, type Hooks } from "../admission/attempt.ts"
import type { CircuitOpen } from "../circuit/circuitOpen.ts"
import { sleepUntil } from "../deadline/sleepUntil.ts"
import type { PermitRequest } from "../permits/permits.ts"
import type { Hold } from "../quota/hold.ts"
import type { Quotas } from "../quota/quotas.ts"
import { settleByOutcome, settleByUsage } from "../quota/settleByExit.ts"
import { AttemptLimit, momentFrom } from "./attemptLimit.ts"
import { attemptOutcome } from "./attemptOutcome.ts"
import { type Collector, CurrentCollector } from "./collector.ts"
import type { PolicyJournal } from "./journal.ts"
import type { Settings } from "./options.ts"
import { AttemptTimeout, Rejected } from "./rejections.ts"

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
  /** The quota that every attempt reserves. `undefined` without one. */
  readonly quotas: Quotas | undefined
}

/** The options of a call that its attempts read. */
export interface CallParts<in A, in E> {
  readonly key?: string | undefined
  readonly classify?: Classify<A, E> | undefined
  readonly tenant?: string | undefined
  readonly amounts?: Amounts | undefined
}

/** The step in which a call is when its deadline passes. */
type Doing = Deadline.DeadlineExceeded["at"]

/** One call under a policy: the admission and the time of its attempts, and the refusals of both. */
export class Call<in A, in E> implements Hooks<Rejected> {
  readonly key: string
  readonly policy: Shared
  readonly collector: Collector | undefined
  readonly deadline: Deadline.Deadline | undefined
  readonly ownClassify: Classify<A, E> | undefined
  /** The reservation of the running attempt. */
  hold: Hold | undefined = undefined
  private readonly options: CallParts<A, E>
  private readonly usage: ((value: A) => Used) | undefined
  /** When the running attempt began. */
  startedAt = 0
  /**
   * The last error that this policy raised in the call. It is recognised by identity, since a policy inside the call raises errors
   * of the same form.
   */
  raised: AttemptTimeout | Rejected | undefined = undefined
  private hasSlot = false
  /** The last step in which the call waited. */
  private lastWait: Doing = "Start"

  constructor(
    policy: Shared,
    options: CallParts<A, E>,
    fiber: AnyFiber,
    usage?: (value: A) => Used
  ) {
    this.options = options
    this.usage = usage
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

  now(): number {
    return this.policy.clock.currentTimeMillisUnsafe()
  }

  // ---------- admission

  /** The first attempt joins the queue at its end. The next ones join at the head: the call has waited its turn before. */
  request(attempt: number): AdmissionRequest<Rejected> {
    const { again, first, gate, quotas } = this.policy
    const permits = attempt > 1 ? again : first
    return {
      gate,
      key: this.key,
      hooks: this,
      permits: quotas === undefined ? permits : this.ticketed(permits, quotas)
    }
  }

  /** Each attempt reserves anew, since the reservation of the last one is settled. */
  private ticketed(permits: PermitRequest, quotas: Quotas): PermitRequest {
    const { amounts, tenant } = this.options
    const ticket = quotas.hold(this.key, tenant, amounts)
    ticket.deadlineAt = this.deadline?.at
    this.hold = ticket
    const { maxWaitMillis, where } = permits
    return { permits: 1, maxWaitMillis, where, ticket }
  }

  /** Settles the reservation of the attempt by its exit. Returns the defect of a `usage` that throws. */
  onExit(exit: Exit.Exit<unknown, unknown>, context: AnyFiber["context"] | undefined): Effect.Effect<void> | undefined {
    const { hold } = this
    // An attempt that never began gives its reservation back with its permits.
    if (hold === undefined || !hold.isBegun) return undefined
    // `usage` is an option of the call whose exit this is.
    if (exit._tag === "Success") return settleByUsage(hold, exit.value as A, this.usage)
    // An attempt that the policy itself ended was sent, so the reserved amounts stay.
    const isRaised = exit.cause.reasons.some((reason) => Cause.isFailReason(reason) && reason.error === this.raised)
    if (isRaised || Cause.hasInterruptsOnly(exit.cause)) hold.settle()
    else {
      const elapsedMillis = this.now() - this.startedAt
      const outcome = this.classify(exit, elapsedMillis) ?? classifierOf(context)(exit, elapsedMillis)
      settleByOutcome(hold, exit.cause, outcome)
    }
    return undefined
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
    this.lastWait = "Queue"
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
        ? this.sleep(open.retryAfter, "Circuit")
        : Effect.fail(this.rejected(open))
    })
  }

  /** Starts an attempt, unless the deadline has passed. */
  begin(): Effect.Effect<never, Rejected> | undefined {
    this.startedAt = this.now()
    const { collector, deadline } = this
    if (deadline !== undefined && deadline.at <= this.startedAt) {
      return Effect.fail(this.exceeded(deadline, this.lastWait))
    }
    if (collector !== undefined) collector.attempts++
    this.policy.journal.attempts++
    this.hold?.begun()
    return undefined
  }

  /** Sleeps. If the policy drains, the call ends instead, since its next attempt would be refused. */
  sleep(delay: Duration.Duration, doing: "Backoff" | "Circuit"): Effect.Effect<void, Rejected> {
    this.lastWait = doing
    const { permits } = this.policy.gate
    const sleep = Effect.sleep(delay)
    if (permits === undefined) return this.counted(sleep)
    const drained = Effect.flatMap(permits.untilDrain, () => permits.refuse("Draining", 1))
    return this.counted(Effect.raceFirst(sleep, drained))
  }

  /** Adds the effect's duration to `waitedMillis`. */
  private counted<B, E2, R>(self: Effect.Effect<B, E2, R>): Effect.Effect<B, E2, R> {
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

  /** The limit of each attempt. `undefined` if there is none. */
  limit(): AttemptLimit | undefined {
    const { attemptTimeoutMillis } = this.policy.settings
    if (attemptTimeoutMillis === undefined && this.deadline === undefined) return undefined
    return new AttemptLimit(this, attemptTimeoutMillis ?? Number.POSITIVE_INFINITY)
  }

  timedOut(afterMillis: number): AttemptTimeout {
    const policy = this.policy.settings.name
    const timeout = withoutStack(() => new AttemptTimeout({ after: Duration.millis(afterMillis), policy }))
    this.raised = timeout
    return timeout
  }

  // ---------- refusals

  exceeded(deadline: Deadline.Deadline, at: Doing): Rejected {
    return this.rejected(Deadline.exceeded(deadline, at, this.policy.settings.name))
  }

  private rejected(reason: Rejected["reason"]): Rejected {
    const rejected = withoutStack(() => new Rejected({ reason }))
    this.raised = rejected
    return rejected
  }

  // ---------- outcomes

  /** Whether only the `Classifier` can change the outcome of a success: call and policy have no classifier. */
  get trustsSuccess(): boolean {
    return this.ownClassify === undefined && this.policy.settings.classify === undefined
  }

  // A getter, since a closure as a field would cost every call.
  get classify(): Classify<unknown, unknown> {
    // The exit is that of an attempt of this call, which the policy wraps.
    return (exit) => attemptOutcome(this, exit as Exit.Exit<A, E | Rejected | AttemptTimeout>)
  }
}
