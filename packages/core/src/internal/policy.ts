import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Limiter } from "../Backpressure.ts"
import * as CircuitBreaker from "../CircuitBreaker.ts"
import * as Deadline from "../Deadline.ts"
import type * as Deduplicator from "../Deduplicator.ts"
import * as RetryPolicy from "../RetryPolicy.ts"
import type { CallOptions, StreamCallOptions } from "../Sluice.ts"
import { Passage } from "./circuits.ts"
import type { Breaker } from "./guardLocally.ts"
import { leaveExit } from "./guardLocally.ts"
import { SharedDeadline } from "./launch.ts"
import type { MemoryCircuit } from "./memoryCircuits.ts"
import { granted, type Permits } from "./permits.ts"
import { Call, type Collector, CurrentCollector, type Settings } from "./policyCall.ts"
import type { PolicyJournal } from "./policyJournal.ts"
import type { AnyEffect } from "./primitive.ts"
import { Primitive } from "./primitive.ts"
import { AttemptTimeout, Rejected } from "./rejections.ts"
import { KeyTypeId } from "./requestKey.ts"
import { sleepUntil } from "./sleepUntil.ts"
import { stackless } from "./stackless.ts"
import { bracketed } from "./streams.ts"
import { alarm, ended, timeout } from "./timeout.ts"

/** What a call may be told, of a stream or not. */
type Options<A, E> = Pick<CallOptions<A, E>, "classify" | "deadline" | "key">
type AnyOptions = Options<unknown, unknown>
type AnyCall = Call<unknown, unknown>
type Attempts = AnyEffect & RetryPolicy.Loop<unknown, unknown, unknown>

/** What one policy holds, and what one call of it goes through. */
export class Policy {
  readonly settings: Settings
  readonly journal: PolicyJournal
  readonly clock: Clock.Clock
  /** `undefined` where the policy has none. */
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"] | undefined
  /** Its circuits, where they are in this process. */
  readonly local: Breaker | undefined
  readonly permits: Permits<Rejected> | undefined
  /** The retry of a call that nobody listens to, and that has nobody of its own to ask what an exit says. */
  readonly plainRetry: RetryPolicy.Rules
  private readonly deduplicator: Deduplicator.Deduplicator["Service"]

  constructor(options: {
    readonly settings: Settings
    readonly journal: PolicyJournal
    readonly clock: Clock.Clock
    readonly breaker: CircuitBreaker.CircuitBreaker["Service"] | undefined
    readonly local: Breaker | undefined
    readonly limiter: Limiter<Rejected> | undefined
    readonly deduplicator: Deduplicator.Deduplicator["Service"]
  }) {
    this.settings = options.settings
    this.journal = options.journal
    this.clock = options.clock
    this.breaker = options.breaker
    this.local = options.local
    this.permits = options.limiter?.permits
    this.plainRetry = { policy: options.settings.retry, nested: "share", classify: undefined, onAttempt: undefined }
    this.deduplicator = options.deduplicator
  }

  protect<A, E, R>(
    self: Effect.Effect<A, E, R>,
    options: CallOptions<A, E>
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> {
    // It does what `self` does, is refused or times out; the classifier is asked about its exits and no others.
    const run = new Run(this, self, options as AnyOptions) as AnyEffect as Effect.Effect<
      A,
      E | Rejected | AttemptTimeout,
      R
    >
    const shared = options.dedupe === undefined ? run : this.shared(run, options.dedupe)
    const budget = options.deadline ?? this.settings.deadline
    return budget === undefined ? shared : Deadline.provide(shared, budget)
  }

  protectStream<A, E, R>(
    self: Stream.Stream<A, E, R>,
    options: StreamCallOptions<A, E>
  ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> {
    const run = Stream.unwrap(Effect.withFiber((fiber) => {
      const call = new Call<void, E>(this.settings, this.journal, options, this.clock, fiber)
      const attempt = (n: number) => this.attemptStream(self, call, n, options.isComplete)
      const attempts = RetryPolicy.retryStreamWith(
        attempt,
        this.settings.retry,
        call.classify,
        (delay) => this.pause(call, delay),
        this.journal.events.hasReaders ? this.heard(call) : undefined
      )
      return Effect.succeed(endsWith(this.placedStream(attempts), (exit) => call.end(exit)))
    }))
    const shared = options.dedupe === undefined ? run : this.sharedStream(run, options.dedupe)
    const budget = options.deadline ?? this.settings.deadline
    return budget === undefined ? shared : Deadline.provideStream(shared, budget)
  }

  private shared<A, E, R>(
    self: Effect.Effect<A, E | Rejected | AttemptTimeout, R>,
    key: Deduplicator.Key<A, E>
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> {
    return Effect.withFiber((fiber) => {
      const told = onServed(fiber.getRef(CurrentCollector))
      const shared = this.deduplicator.dedupeWith(self, widened(key), told, refuse)
      const deadline = fiber.getRef(Deadline.Deadline)
      return deadline === undefined ? shared : Effect.raceFirst(shared, leave(deadline, this.settings.name))
    })
  }

  private sharedStream<A, E, R>(
    self: Stream.Stream<A, E | Rejected | AttemptTimeout, R>,
    key: Deduplicator.Key<A, E>
  ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> {
    return Stream.unwrap(Effect.withFiber((fiber) => {
      const told = onServed(fiber.getRef(CurrentCollector))
      const shared = this.deduplicator.dedupeStreamWith(self, widened(key), told, refuse)
      const deadline = fiber.getRef(Deadline.Deadline)
      return Effect.succeed(
        deadline === undefined ? shared : Stream.interruptWhen(shared, leave(deadline, this.settings.name))
      )
    }))
  }

  /** All attempts of a call, or those after its first. */
  attempts(call: AnyCall, self: AnyEffect, isHeard = this.journal.events.hasReaders): Attempts {
    return RetryPolicy.retryWith(
      (number) => this.placed(self, call, number),
      this.settings.retry,
      // What the policy itself raises is refused or final whoever is asked.
      call.isPlain ? undefined : call.classify,
      (delay) => this.pause(call, delay),
      isHeard ? this.heard(call) : undefined
    )
  }

  private placed(self: AnyEffect, call: AnyCall, attempt: number): AnyEffect {
    return Effect.suspend(() => {
      const { permits } = this
      if (permits === undefined || call.takePlace(permits)) return this.attempt(self, call, attempt)
      return noPlace(permits)
    })
  }

  private heard(call: Call<never, never>) {
    return { onAttempt: (event: RetryPolicy.AttemptEvent) => this.tell(call, event) }
  }

  private tell({ key }: Call<never, never>, event: RetryPolicy.AttemptEvent): void {
    this.journal.events.publish({ _tag: "Attempt", key, ...event, at: this.clock.currentTimeMillisUnsafe() })
  }

  private placedStream<A, E, R>(self: Stream.Stream<A, E, R>): Stream.Stream<A, E | Rejected, R> {
    const { permits } = this
    if (permits === undefined) return self
    const enter = (scope: Scope.Scope): Effect.Effect<void, Rejected> =>
      Effect.uninterruptible(
        Effect.suspend(() =>
          permits.enter()
            ? Scope.addFinalizer(scope, Effect.sync(() => permits.leave()))
            : noPlace(permits)
        )
      )
    return bracketed(self, enter)
  }

  /** One attempt, or as many looks at an open circuit as fit before the deadline and then one attempt. */
  attempt<A, E, R>(
    self: Effect.Effect<A, E, R>,
    call: Call<A, E>,
    attempt: number
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> {
    const { breaker } = this
    if (breaker === undefined) return this.permitted(this.begun(self, call), call, attempt)
    return Effect.suspend(() => {
      let ran = false
      const body = Effect.suspend(() => {
        ran = true
        return this.begun(self, call)
      })
      const permitted = this.permitted(breaker.guard(body, call), call, attempt)
      const looked = this.mustWait() ? Effect.andThen(breaker.check(call.key), permitted) : permitted
      return Effect.catchCause(
        looked,
        (cause) =>
          openCircuit(
            cause,
            ran,
            (open) => Effect.andThen(call.refused(open), this.attempt(self, call, attempt)),
            Effect.failCause
          )
      )
    })
  }

  private begun<A, E, R>(
    self: Effect.Effect<A, E, R>,
    call: Call<A, E>
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> {
    return Effect.withFiber((fiber): Effect.Effect<A, E | Rejected | AttemptTimeout, R> =>
      call.begin() ?? this.limited(self, call, fiber)
    )
  }

  private attemptStream<A, E, R>(
    self: Stream.Stream<A, E, R>,
    call: Call<void, E>,
    attempt: number,
    isComplete: ((part: A) => boolean) | undefined
  ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> {
    const { breaker } = this
    const begun = Stream.unwrap(Effect.map(call.beginning, () => this.limitedStream(self, call)))
    if (breaker === undefined) return this.permittedStream(begun, call, attempt)
    return Stream.suspend(() => {
      let ran = false
      const body = Stream.suspend(() => {
        ran = true
        return begun
      })
      const { classify, key } = call
      const guarded = breaker.guardStream(body, { key, classify, isComplete })
      const permitted = this.permittedStream(guarded, call, attempt)
      const looked = this.mustWait() ? Stream.unwrap(Effect.as(breaker.check(key), permitted)) : permitted
      return Stream.catchCause(looked, (cause) =>
        openCircuit(
          cause,
          ran,
          (open) => Stream.unwrap(Effect.as(call.refused(open), this.attemptStream(self, call, attempt, isComplete))),
          Stream.failCause
        ))
    })
  }

  // A back-off at whose end the circuit is still open is not slept: the call is refused now, or waits for the circuit.
  private pause(call: Call<never, never>, delay: Duration.Duration): Effect.Effect<void, Rejected> {
    const sleep = call.wait(Effect.sleep(delay))
    return this.breaker === undefined ? sleep : this.breaker.check(call.key).pipe(
      Effect.andThen(sleep),
      Effect.catch((open) => Duration.isLessThanOrEqualTo(open.retryAfter, delay) ? sleep : call.refused(open))
    )
  }

  // Who would wait for a permit looks at the circuit first: there is no use in waiting for a call that will be refused.
  private mustWait(): boolean {
    return this.permits !== undefined && this.permits.running >= this.permits.capacity
  }

  private permitted<A, E, R>(
    self: Effect.Effect<A, E, R>,
    call: Call<never, never>,
    attempt: number
  ): Effect.Effect<A, E | Rejected, R> {
    const { permits } = this
    if (permits === undefined) return self
    return Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const request = permits.request(attempt > 1 ? "Head" : "Tail")
        const run: Effect.Effect<A, E | Rejected, R> = request.state === "Granted"
          ? self
          : Effect.andThen(call.beforeDeadline(granted(request)), self)
        return Effect.onExitPrimitive(restore(run), () => {
          permits.settle(request)
          return undefined
        })
      })
    )
  }

  private permittedStream<A, E, R>(
    self: Stream.Stream<A, E, R>,
    call: Call<never, never>,
    attempt: number
  ): Stream.Stream<A, E | Rejected, R> {
    const { permits } = this
    if (permits === undefined) return self
    const acquire = (scope: Scope.Scope): Effect.Effect<void, Rejected> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.suspend(() => {
          const request = permits.request(attempt > 1 ? "Head" : "Tail")
          return Effect.andThen(
            Scope.addFinalizer(scope, Effect.sync(() => permits.settle(request))),
            restore(call.beforeDeadline(granted(request)))
          )
        })
      )
    return bracketed(self, acquire)
  }

  /** What other policies do inside the call is none of this call's report. */
  limited<A, E, R>(
    self: Effect.Effect<A, E, R>,
    call: Call<never, never>,
    fiber: Fiber.Fiber<unknown, unknown>
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> {
    const { collector, deadline } = call
    // Only an alarm that stands beside the call hears of a deadline that comes nearer.
    if (deadline instanceof SharedDeadline) return Effect.raceFirst(unseen(self, collector), expiry(call))
    if (!call.isLimited) return unseen(self, collector)
    // The fiber's context has what the effect asks for: it is provided where the call runs.
    const context = fiber.context as Context.Context<R>
    return timeout(
      fiber,
      self,
      call,
      collector === undefined ? context : Context.add(context, CurrentCollector, undefined)
    )
  }

  private limitedStream<A, E, R>(
    self: Stream.Stream<A, E, R>,
    call: Call<never, never>
  ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> {
    const inner = call.collector === undefined ? self : Stream.provideService(self, CurrentCollector, undefined)
    return call.isLimited ? Stream.interruptWhen(inner, expiry(call)) : inner
  }
}

/** Fails when the attempt's time is over. A flight's deadline moves both ways, as callers join it and leave it. */
const expiry = (call: Call<never, never>): Effect.Effect<never, AttemptTimeout | Rejected> => {
  const { deadline } = call
  return deadline === undefined
    ? alarm(call)
    : Effect.flatMap(
      sleepUntil(deadline, () => call.at()),
      () => Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fail(call.error(now)))
    )
}

const unseen = <A, E, R>(self: Effect.Effect<A, E, R>, collector: Collector | undefined): Effect.Effect<A, E, R> =>
  collector === undefined ? self : Effect.provideService(self, CurrentCollector, undefined)

/** A call that runs: what it does as an effect, each time that it is run. */
class Run extends Primitive {
  private readonly policy: Policy
  private readonly self: AnyEffect
  private readonly options: AnyOptions

  constructor(policy: Policy, self: AnyEffect, options: AnyOptions) {
    super()
    this.policy = policy
    this.self = self
    this.options = options
  }

  override evaluate(fiber: Fiber.Fiber<unknown, unknown>): AnyEffect {
    const { options, policy, self } = this
    const call = new Call(policy.settings, policy.journal, options, policy.clock, fiber)
    const first = new FirstAttempt(policy, call, self, fiber)
    return Effect.onExitPrimitive(first, (exit) => first.endCall(exit))
  }
}

/**
 * The first attempt of a call, in one step where nothing is in its way: there is a place, a permit is free and the circuit is
 * closed. Then it takes all of them at once. Whatever has to wait, to look or to be refused goes the long way.
 *
 * Nearly every call ends with it, so it has no finalizer but the call's, and no retry: that is made of an attempt that failed,
 * which gives back all but the place before. With both in place from the start a call costs half as much again.
 */
class FirstAttempt extends Primitive {
  private readonly policy: Policy
  private readonly call: AnyCall
  private readonly self: AnyEffect
  private readonly fiber: Fiber.Fiber<unknown, unknown>
  private retrying: RetryPolicy.Call | undefined = undefined
  private child: Fiber.Fiber<unknown, unknown> | undefined = undefined
  // What it holds until its end: the fiber's own context, in whose place is the attempt's, and what it has to give back.
  private context: Context.Context<never> | undefined = undefined
  private hasPermit = false
  private circuit: MemoryCircuit | undefined = undefined
  private generation = 0

  constructor(policy: Policy, call: AnyCall, self: AnyEffect, fiber: Fiber.Fiber<unknown, unknown>) {
    super()
    this.policy = policy
    this.call = call
    this.self = self
    this.fiber = fiber
  }

  override evaluate(): AnyEffect {
    const { call, fiber, policy, self } = this
    const { permits } = policy
    if (permits !== undefined && !call.takePlace(permits)) return policy.attempts(call, self)
    const circuit = policy.local?.local.hot(call.key)
    const isOpen = policy.breaker !== undefined && circuit === undefined
    if (isOpen || permits?.take(1) === false) return policy.attempts(call, self)
    this.hasPermit = permits !== undefined
    const isPlain = call.isPlain && !policy.journal.events.hasReaders
    const loop = isPlain ? undefined : policy.attempts(call, self)
    const retrying = new RetryPolicy.Call(loop ?? policy.plainRetry, fiber)
    retrying.begin()
    this.retrying = retrying
    this.context = fiber.context
    fiber.setContext(retrying.announce(fiber.context, 1))
    const late = call.begin()
    if (late === undefined && circuit !== undefined) {
      this.circuit = circuit
      this.generation = circuit.generation
    }
    const attempt: AnyEffect = late ?? this.run()
    const onFailure = (cause: Cause.Cause<unknown>) => this.end(retrying, loop, Exit.failCause(cause))
    // Where nobody asks what a success says, it goes straight to the call's finalizer.
    if (!retrying.isTimed) return Effect.catchCause(attempt, onFailure)
    const onSuccess = (value: unknown) => this.end(retrying, loop, Exit.succeed(value))
    return Effect.matchCauseEffect(attempt, { onSuccess, onFailure })
  }

  // As `policy.limited`, but started at once: whatever is left running is stopped where the call ends.
  private run(): AnyEffect {
    const { call, fiber, policy, self } = this
    const isSimple = call.isLimited && call.collector === undefined && !(call.deadline instanceof SharedDeadline)
    if (!isSimple) return policy.limited(self, call, fiber)
    const child = Effect.runForkWith(fiber.context as Context.Context<unknown>)(self)
    const exit = child.pollUnsafe()
    if (exit !== undefined) return exit
    this.child = child
    return ended(fiber, child, call)
  }

  /** The attempt is over, and the retry decides what follows. */
  private end(retrying: RetryPolicy.Call, loop: Attempts | undefined, exit: Exit.Exit<unknown, unknown>): AnyEffect {
    const { call, fiber, policy, self } = this
    const goOn = (exit: Exit.Exit<unknown, unknown>) =>
      (loop ?? policy.attempts(call, self, false)).end(fiber, retrying, 1, exit)
    const died = this.giveBack(exit)
    if (died === undefined) return goOn(exit)
    return Effect.catchCause(Effect.onExitPrimitive(exit, () => died), (cause) => goOn(Exit.failCause(cause)))
  }

  /** The call is over, and with it whatever it is in the middle of. */
  endCall(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    const { call, child, policy } = this
    if (child !== undefined && child.pollUnsafe() === undefined) {
      return Effect.flatMap(Fiber.interrupt(child), () => this.endCall(exit) ?? Effect.void)
    }
    const died = this.giveBack(exit)
    this.retrying?.end()
    if (call.hasPlace) policy.permits?.leave()
    call.end(exit)
    return died
  }

  private giveBack(exit: Exit.Exit<unknown, unknown>): Effect.Effect<never> | undefined {
    const { circuit, context, fiber, hasPermit, policy } = this
    this.circuit = undefined
    this.context = undefined
    this.hasPermit = false
    if (context !== undefined) fiber.setContext(context)
    const died = circuit === undefined ? undefined : this.settle(circuit, exit)
    if (hasPermit) policy.permits?.release(1)
    return died
  }

  private settle(circuit: MemoryCircuit, exit: Exit.Exit<unknown, unknown>): Effect.Effect<never> | undefined {
    const { call, fiber, generation, policy: { local }, retrying } = this
    if (local === undefined) return undefined
    const isGood = exit._tag === "Success" && retrying?.isTimed === false
    if (isGood && local.local.leaveGood(circuit, generation, call.startedAt)) return undefined
    const passage = new Passage(call.key)
    passage.circuit = circuit
    passage.generation = generation
    passage.startedAt = call.startedAt
    return leaveExit(local, call.classify, passage, exit, fiber)
  }
}

/** Tells how the stream itself ended, once. A consumer that leaves has seen enough, and one that fails says nothing about it. */
const endsWith = <A, E, R>(
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

const noPlace = (permits: Permits<Rejected>): Effect.Effect<never, Rejected> =>
  permits.refuse(permits.isDraining ? "Draining" : "Full", 1)

const refuse = (reason: Rejected["reason"]): Effect.Effect<never, Rejected> =>
  Effect.fail(stackless(() => new Rejected({ reason })))

// A run's deadline is the latest of its callers' and is raised inside the circuit. The last caller must not leave before that
// has happened, or a service that hangs would never be seen to be down: a run that is over by then needs no leaving.
const leaveMarginMillis = 20

const leave = (deadline: Deadline.Deadline, policy: string): Effect.Effect<never, Rejected> =>
  Effect.flatMap(
    sleepUntil(deadline, () => deadline.at + leaveMarginMillis),
    () => refuse(Deadline.exceeded(deadline, "Attempt", policy))
  )

const onServed = (collector: Collector | undefined) => (served: Deduplicator.Served): void => {
  if (collector !== undefined) collector.served = served
}

// What a policy adds to the errors of a run, every sharer of the run gets: they all came through this policy. The key's own
// function is not asked about it, and it is not kept: a run that was cut short says nothing about the next one.
const widened = <A, E>(key: Deduplicator.Key<A, E>): Deduplicator.Key<A, E | Rejected | AttemptTimeout> => {
  const { timeToLive } = key[KeyTypeId]
  return {
    ...key,
    [KeyTypeId]: {
      ...key[KeyTypeId],
      timeToLive: timeToLive === undefined
        ? undefined
        : (exit) => isCutShort(exit) ? 0 : timeToLive(exit as Exit.Exit<A, E>)
    }
  }
}

const isCutShort = (exit: Exit.Exit<unknown, unknown>): boolean =>
  exit._tag === "Failure" &&
  exit.cause.reasons.some((reason) => Cause.isFailReason(reason) && reason.error instanceof AttemptTimeout)

/** Tells a refusal of the policy's own circuit, which stood before the call ran, from one that the call itself met. */
const openCircuit = <E, Out>(
  cause: Cause.Cause<E | CircuitBreaker.CircuitOpen>,
  ran: boolean,
  onOpen: (open: CircuitBreaker.CircuitOpen) => Out,
  onOther: (cause: Cause.Cause<E>) => Out
): Out => {
  if (!ran) {
    for (const reason of cause.reasons) {
      if (Cause.isFailReason(reason) && reason.error instanceof CircuitBreaker.CircuitOpen) return onOpen(reason.error)
    }
  }
  // What ran was not refused by this policy: whatever is in its cause is the call's own.
  return onOther(cause as Cause.Cause<E>)
}
