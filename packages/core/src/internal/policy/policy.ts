import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as CircuitBreaker from "../../CircuitBreaker.ts"
import * as Deadline from "../../Deadline.ts"
import type * as Deduplicator from "../../Deduplicator.ts"
import type { Classify } from "../../Outcome.ts"
import type { Used } from "../../Quota.ts"
import { withoutStack } from "../../Refusal.ts"
import type { AttemptEvent } from "../../RetryPolicy.ts"
import type { CallOptions, StreamCallOptions } from "../../Sluice.ts"
import { type AnyFiber, Attempt, type Gate, gateOf } from "../admission/attempt.ts"
import { guardStream } from "../admission/guardStream.ts"
import type { CircuitOpen } from "../circuit/circuitOpen.ts"
import { sleepUntil } from "../deadline/sleepUntil.ts"
import { failAt, start } from "../deadline/timeout.ts"
import type { Parts as DeduplicatorParts } from "../dedupe/deduplicator.ts"
import { KeyTypeId } from "../dedupe/requestKey.ts"
import { type AnyEffect, Primitive } from "../kit/primitive.ts"
import { bracketed } from "../kit/streams.ts"
import type { PermitRequest } from "../permits/permits.ts"
import type { Quotas } from "../quota/quotas.ts"
import { type ProvideAttempt, retryAttempts, retryStreams } from "../retry/loop.ts"
import { Call, type Shared } from "./call.ts"
import { type Collector, CurrentCollector } from "./collector.ts"
import type { PolicyJournal } from "./journal.ts"
import type { Limits } from "./limits.ts"
import type { Settings } from "./options.ts"
import { AttemptTimeout, Rejected } from "./rejections.ts"

type AnyOptions = Pick<CallOptions<unknown, unknown>, "amounts" | "classify" | "deadline" | "key" | "tenant" | "usage">
type AnyCall = Call<never, never>

export interface PolicyParts {
  readonly settings: Settings
  readonly journal: PolicyJournal
  readonly clock: Clock.Clock
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"] | undefined
  readonly limits: Limits
  readonly deduplicator: DeduplicatorParts
}

/** A policy: what its calls share, and what one call goes through. */
export class Policy implements Shared {
  readonly settings: Settings
  readonly journal: PolicyJournal
  readonly clock: Clock.Clock
  readonly gate: Gate<Rejected>
  readonly first: PermitRequest
  readonly again: PermitRequest
  readonly quotas: Quotas | undefined
  private readonly breaker: CircuitBreaker.CircuitBreaker["Service"] | undefined
  private readonly deduplicator: DeduplicatorParts

  constructor({ breaker, clock, deduplicator, journal, limits, settings }: PolicyParts) {
    const { limiter, maxWaitMillis, quotas } = limits
    this.quotas = quotas
    this.settings = settings
    this.journal = journal
    this.clock = clock
    this.breaker = breaker
    this.gate = {
      permits: limiter?.permits,
      breaker: breaker === undefined ? undefined : gateOf<never>(breaker, "CircuitBreaker")?.breaker
    }
    this.first = { permits: 1, maxWaitMillis, where: "Tail" }
    this.again = { permits: 1, maxWaitMillis, where: "Head" }
    this.deduplicator = deduplicator
  }

  // ---------- effects

  protect<A, E, R>(
    self: Effect.Effect<A, E, R>,
    options: CallOptions<A, E>
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> {
    // It does what `self` does, is refused, or times out. The classifier gets only exits of `self`.
    const call = new ProtectedEffect(this, self, options as AnyOptions) as AnyEffect as Effect.Effect<
      A,
      E | Rejected | AttemptTimeout,
      R
    >
    const shared = options.dedupe === undefined ? call : this.shared(call, options.dedupe, options.classify)
    const budget = options.deadline ?? this.settings.deadline
    return budget === undefined ? shared : Deadline.provide(shared, budget)
  }

  /** All attempts of a call. */
  attempts(call: AnyCall, self: AnyEffect): AnyEffect {
    return retryAttempts(
      (n, provide, fiber) => new Attempt(call.request(n), limited(self, call, provide), fiber).run(),
      this.settings.retry,
      {
        // Whatever the classifiers say, errors that the policy raises are refusals or final.
        classify: call.trustsSuccess ? undefined : call.classify,
        onAttempt: this.onAttempt(call)
      },
      (delay) => this.pause(call, delay)
    )
  }

  private shared<A, E, R>(
    self: Effect.Effect<A, E | Rejected | AttemptTimeout, R>,
    key: Deduplicator.Key<A, E>,
    classify: Classify<A, E> | undefined
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> {
    return Effect.withFiber((fiber) => {
      const shared = this.deduplicator.share(self, widened(key, this.classifierOf(classify)), onServed(fiber), refuse)
      const deadline = fiber.getRef(Deadline.Deadline)
      // With a fixed key the types stay the same: the run has a scope of its own, and no step here needs one.
      return (deadline === undefined
        ? shared
        : Effect.raceFirst(shared, leaveAt(deadline, this.settings.name))) as typeof self
    })
  }

  /** The classifiers of the call and of the policy. */
  private classifierOf<A, E>(own: Classify<A, E> | undefined): Classify<unknown, unknown> | undefined {
    const { classify } = this.settings
    // A shared result has the types of the call.
    const first = own as Classify<unknown, unknown> | undefined
    if (first === undefined || classify === undefined) return first ?? classify
    return (exit, elapsedMillis) => first(exit, elapsedMillis) ?? classify(exit, elapsedMillis)
  }

  // ---------- streams

  protectStream<A, E, R>(
    self: Stream.Stream<A, E, R>,
    options: StreamCallOptions<A, E>
  ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> {
    const run = Stream.unwrap(Effect.withFiber((fiber) => {
      const invalid = this.quotas?.invalid(options.amounts)
      if (invalid !== undefined) return Effect.die(invalid)
      const call = new Call<void, E>(this, options, fiber)
      const limited = this.limitedStream(self, call)
      const body = this.quotas === undefined ? limited : settledStream(limited, call, options.usage, fiber)
      // An open circuit is the call's to handle, so `CircuitOpen` is never an error of the stream.
      const attempts = retryStreams<A, E | Rejected | AttemptTimeout | CircuitOpen, R>(
        (n) => guardStream(call.request(n), body, options.isComplete),
        this.settings.retry,
        { classify: call.classify, onAttempt: this.onAttempt(call) },
        (delay) => this.pause(call, delay)
      ) as Stream.Stream<A, E | Rejected | AttemptTimeout, R>
      const withSlot = bracketed(attempts, (scope) => Scope.addFinalizer(scope, Effect.sync(() => call.leave())))
      return Effect.succeed(onUpstreamEnd(withSlot, (exit) => call.end(exit)))
    }))
    const shared = options.dedupe === undefined ? run : this.sharedStream(run, options.dedupe)
    const budget = options.deadline ?? this.settings.deadline
    return budget === undefined ? shared : Deadline.provideStream(shared, budget)
  }

  private sharedStream<A, E, R>(
    self: Stream.Stream<A, E | Rejected | AttemptTimeout, R>,
    key: Deduplicator.Key<A, E>
  ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> {
    return Stream.unwrap(Effect.withFiber((fiber) => {
      const shared = this.deduplicator.shareStream(self, widened(key, undefined), onServed(fiber), refuse)
      const deadline = fiber.getRef(Deadline.Deadline)
      return Effect.succeed(
        deadline === undefined
          ? shared
          : Stream.interruptWhen(shared, leaveAt(deadline, this.settings.name))
      )
      // The run has a scope of its own, as in `shared`.
    })) as typeof self
  }

  private limitedStream<A, E, R>(
    self: Stream.Stream<A, E, R>,
    call: AnyCall
  ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> {
    const inner = call.collector === undefined ? self : Stream.provideService(self, CurrentCollector, undefined)
    const limit = call.limit()
    return limit === undefined ? inner : Stream.interruptWhen(inner, failAt(limit))
  }

  // ---------- between attempts

  private onAttempt({ key }: AnyCall): ((event: AttemptEvent) => void) | undefined {
    const { events } = this.journal
    return events.hasReaders
      ? (event) => events.publish({ _tag: "Attempt", key, ...event, at: this.clock.currentTimeMillisUnsafe() })
      : undefined
  }

  // If the circuit is still open after the back-off, the call is refused now, or waits for the circuit.
  private pause(call: AnyCall, delay: Duration.Duration): Effect.Effect<void, Rejected> {
    const sleep = Effect.suspend(() => call.sleep(delay, "Backoff"))
    return this.breaker === undefined ? sleep : Effect.matchEffect(this.breaker.check(call.key), {
      onSuccess: () => sleep,
      onFailure: (open) => Duration.isLessThanOrEqualTo(open.retryAfter, delay) ? sleep : call.refused(open)
    })
  }
}

/**
 * The body of an attempt: with what the retry provides, without the call's collector (policies inside the call must not add to
 * it), and within its time.
 */
const limited = (self: AnyEffect, call: AnyCall, provide: ProvideAttempt): AnyEffect => {
  const provided = (context: Context.Context<unknown>): Context.Context<unknown> =>
    call.collector === undefined ? provide(context) : Context.add(provide(context), CurrentCollector, undefined)
  const limit = call.limit()
  if (limit === undefined) return Effect.updateContext(self, provided)
  return Effect.callback((resume) => {
    // `Effect.callback` runs in a fiber.
    const fiber = Fiber.getCurrent() as AnyFiber
    return start(fiber, self, limit, provided(fiber.context as Context.Context<unknown>), resume)
  })
}

/** A protected call. Each run of it is a `Call`. */
class ProtectedEffect extends Primitive {
  private readonly policy: Policy
  private readonly self: AnyEffect
  private readonly options: AnyOptions

  constructor(policy: Policy, self: AnyEffect, options: AnyOptions) {
    super()
    this.policy = policy
    this.self = self
    this.options = options
  }

  override evaluate(fiber: AnyFiber): AnyEffect {
    const { options, policy } = this
    const invalid = policy.quotas?.invalid(options.amounts)
    if (invalid !== undefined) return Effect.die(invalid)
    const call = new Call(policy, options, fiber, options.usage)
    return Effect.onExitPrimitive(policy.attempts(call, this.self), (exit) => {
      call.leave()
      call.end(exit)
      return undefined
    })
  }
}

/**
 * Calls back once with how the stream itself ended. A consumer that leaves counts as its end, and a consumer that fails as
 * an interruption.
 */
const onUpstreamEnd = <A, E, R>(
  self: Stream.Stream<A, E, R>,
  onEnd: (exit: Exit.Exit<void, E>) => void
): Stream.Stream<A, E, R> =>
  Stream.suspend(() => {
    let isOver = false
    const end = (exit: Exit.Exit<void, E>) =>
      Effect.sync(() => {
        if (isOver) return
        isOver = true
        onEnd(exit)
      })
    return self.pipe(
      Stream.tapCause((cause) => end(Exit.failCause(cause))),
      Stream.onEnd(end(Exit.void)),
      Stream.onExit((exit) => end(Exit.isSuccess(exit) ? Exit.void : Exit.interrupt()))
    )
  })

/** Settles the reservation of a stream's attempt, by the last usage in a part, and by the arrival of the first part. */
const settledStream = <A, E, R>(
  self: Stream.Stream<A, E, R>,
  call: AnyCall,
  usage: ((part: A) => Used | undefined) | undefined,
  fiber: AnyFiber
): Stream.Stream<A, E, R> =>
  Stream.suspend(() => {
    let used: Used | undefined
    let arrivedBy: number | undefined
    // The hold of this attempt, which the next one replaces.
    const { hold } = call
    return self.pipe(
      Stream.map((part) => {
        arrivedBy ??= call.now()
        used = usage?.(part) ?? used
        return part
      }),
      Stream.onExit((exit) =>
        Effect.suspend(() => {
          if (used !== undefined) hold?.settle(used, arrivedBy)
          else if (exit._tag === "Success") hold?.settle({}, arrivedBy)
          else return call.onExit(exit, fiber.context) ?? Effect.void
          return Effect.void
        })
      )
    )
  })

// ---------- sharing

const refuse = (reason: Rejected["reason"]): Effect.Effect<never, Rejected> =>
  Effect.fail(withoutStack(() => new Rejected({ reason })))

// The deadline of a shared run is the latest of its callers' and is raised inside the circuit. The last caller must not leave
// before that, or a service that hangs would never open it.
const leaveMarginMillis = 20

const leaveAt = (deadline: Deadline.Deadline, policy: string): Effect.Effect<never, Rejected> =>
  Effect.flatMap(
    sleepUntil(deadline, () => deadline.at + leaveMarginMillis),
    () => refuse(Deadline.exceeded(deadline, "Attempt", policy))
  )

const onServed = (fiber: AnyFiber) => {
  const collector: Collector | undefined = fiber.getRef(CurrentCollector)
  return (served: Deduplicator.Served): void => {
    if (collector !== undefined) collector.served = served
  }
}

// All callers of a shared run came through this policy, so they share its errors as well. The key's `timeToLive` is not
// called for an `AttemptTimeout`, which is never cached: the next run may succeed.
const widened = <A, E>(
  key: Deduplicator.Key<A, E>,
  classify: Classify<unknown, unknown> | undefined
): Deduplicator.Key<A, E | Rejected | AttemptTimeout> => {
  const { id, operation, slot, tenant } = key
  const { timeToLive } = key[KeyTypeId]
  return {
    id,
    operation,
    slot,
    tenant,
    [KeyTypeId]: {
      ...key[KeyTypeId],
      classify,
      timeToLive: timeToLive === undefined
        ? undefined
        // Refusals of the policy are never cached either, so the rest are exits of the key's own types.
        : (exit) => isAttemptTimeout(exit) ? 0 : timeToLive(exit)
    }
  }
}

const isAttemptTimeout = (exit: Exit.Exit<unknown, unknown>): boolean =>
  exit._tag === "Failure" &&
  exit.cause.reasons.some((reason) => Cause.isFailReason(reason) && reason.error instanceof AttemptTimeout)
