/**
 * One policy out of all primitives, in the order in which they belong.
 *
 * deduplicate -> place in the queue -> retry -> per attempt: look at the circuit -> permit -> admit to the circuit ->
 * attempt timeout -> the call.
 *
 * **When to use**
 *
 * For every call of one kind to one kind of service: give it a policy as a service of its own, and protect each call with
 * it. What is left out of the options is not built.
 *
 * **Details**
 *
 * - A call that sleeps between attempts keeps its place in the queue, never a permit, and comes back at the head.
 * - The attempt timeout is raised inside the circuit, so that a service that hangs is seen to be down.
 * - An open circuit ends the call at once, unless its retryAfter fits before the call's deadline: then the call waits for it.
 * - Refusals of this policy arrive as `Rejected`, with the refusal as its `reason`: a new kind of refusal renames nobody's
 *   error type. The call's own errors keep theirs.
 *
 * **Gotchas**
 *
 * - Deduplication is off unless a call names its `dedupe` key.
 * - `attemptTimeout` without `retry` still counts: it bounds the only attempt.
 * - A stream's attempt lasts as long as the stream: `attemptTimeout` bounds the whole of it.
 *
 * **Example** (A policy as a service)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 * import * as Sluice from "@sluice/core/Sluice"
 *
 * class Gpt extends Sluice.Service<Gpt>()("app/Gpt", {
 *   name: "gpt",
 *   retry: RetryPolicy.exponential({ maxAttempts: 3, baseDelay: "5 millis" }),
 *   breaker: { trip: CircuitBreaker.consecutive(5), openFor: "30 seconds" },
 *   backpressure: { capacity: 8, queue: 100 },
 *   attemptTimeout: "20 seconds"
 * }) {}
 *
 * let calls = 0
 * const ask = Effect.suspend(() => ++calls < 3 ? Effect.fail("503" as const) : Effect.succeed("an answer"))
 *
 * const program = Gpt.use((gpt) => ask.pipe(gpt.protect({ key: "openai" }), Sluice.withReport)).pipe(
 *   Effect.map(([exit, report]) => `${exit._tag} after ${report.attempts} attempts`),
 *   Effect.provide(Gpt.layerMemory)
 * )
 *
 * console.log(await Effect.runPromise(program)) // => Success after 3 attempts
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
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Backpressure from "./Backpressure.ts"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import * as CircuitBreakerStore from "./CircuitBreakerStore.ts"
import * as Deadline from "./Deadline.ts"
import * as Deduplicator from "./Deduplicator.ts"
import { Options } from "./internal/options.ts"
import { granted, Permits } from "./internal/permits.ts"
import { RefusalTypeId } from "./internal/refusal.ts"
import { KeyTypeId } from "./internal/requestKey.ts"
import { stackless } from "./internal/stackless.ts"
import { bracketed } from "./internal/streams.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { type Classify, failure, ignored, type Outcome } from "./Outcome.ts"
import * as RetryPolicy from "./RetryPolicy.ts"

/**
 * The policy did not make the call, or did not make it again: its `reason` says why.
 *
 * **Example** (Coming back when the circuit says so)
 *
 * ```ts
 * import { Duration, Effect } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as Sluice from "@sluice/core/Sluice"
 *
 * const program = Effect.gen(function*() {
 *   const gpt = yield* Sluice.make({ name: "gpt", breaker: { trip: CircuitBreaker.consecutive(1), openFor: "30 seconds" } })
 *   yield* Effect.exit(gpt.protect(Effect.fail("503")))
 *   return yield* gpt.protect(Effect.succeed("an answer")).pipe(
 *     Effect.catchReason("Rejected", "CircuitOpen", (open) => Effect.succeed(`in ${Math.ceil(Duration.toSeconds(open.retryAfter))} s`))
 *   )
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Sluice.layerStoresMemory))))
 * // => in 30 s
 * ```
 *
 * @since 0.1.0
 * @category errors
 */
export class Rejected extends Schema.Error<Rejected>("@sluice/core/Rejected")({
  _tag: Schema.tag("Rejected"),
  reason: Schema.Union([CircuitBreaker.CircuitOpen, Backpressure.BackpressureShed, Deadline.DeadlineExceeded])
}) {
  get [RefusalTypeId](): true {
    return true
  }
  override get message(): string {
    return this.reason.message
  }
}

/**
 * One attempt took longer than the policy gives it.
 *
 * @since 0.1.0
 * @category errors
 */
export class AttemptTimeout extends Schema.Error<AttemptTimeout>("@sluice/core/AttemptTimeout")({
  _tag: Schema.tag("AttemptTimeout"),
  after: Schema.DurationFromMillis
}) {
  override get message(): string {
    return `no answer within ${Duration.format(this.after)}`
  }
}

/**
 * What a policy is made of. What is left out is not built.
 *
 * @since 0.1.0
 * @category models
 */
export interface SluiceOptions {
  /** Named in refusals. */
  readonly name: string
  /** Default `RetryPolicy.none`: whether a call may be repeated is the caller's to say. */
  readonly retry?: RetryPolicy.RetryPolicy | undefined
  readonly breaker?: Omit<CircuitBreaker.CircuitBreakerOptions, "name" | "classify"> | undefined
  readonly backpressure?: Omit<Backpressure.BackpressureOptions, "name" | "softLimit"> | undefined
  /** How results are shared, for calls that name a key. */
  readonly deduplicator?: Deduplicator.DeduplicatorOptions | undefined
  /** How long one attempt may take. Default none. */
  readonly attemptTimeout?: Duration.Input | undefined
  /**
   * An attempt that the deadline cuts short counts against the circuit if it had at least this long. Default 1 second: what
   * takes longer to answer than a caller has left is not thereby down.
   */
  readonly minTimeout?: Duration.Input | undefined
  /** The deadline of calls that bring none. Default none. */
  readonly deadline?: Duration.Input | undefined
  /** Asked after a call's own `classify` and before the `Classifier` reference. */
  readonly classify?: Classify<unknown, unknown> | undefined
}

/**
 * What one call may be told.
 *
 * @since 0.1.0
 * @category models
 */
export interface CallOptions<A, E> {
  /** Names the dependency, and so the circuit. Default the policy's name. */
  readonly key?: string | undefined
  /** Shares the run and its result with calls of the same key. */
  readonly dedupe?: Deduplicator.Key<A, E> | undefined
  /** The time for the call as a whole, with all its waits and attempts. */
  readonly deadline?: Duration.Input | undefined
  /** Asked first for what an exit says about the dependency. */
  readonly classify?: Classify<A, E> | undefined
}

/**
 * What one call of a stream may be told.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamCallOptions<A, E> extends Omit<CallOptions<A, E>, "classify"> {
  /** Asked first for what the end of an attempt says about the dependency. */
  readonly classify?: Classify<void, E> | undefined
  /** Knows the part that completes an answer, see `CircuitBreaker`. */
  readonly isComplete?: ((part: A) => boolean) | undefined
}

/**
 * What became of a call, also when it failed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Report {
  /** Whether the call ran itself, joined a run that was under way, or was answered from what was kept. */
  readonly served: Deduplicator.Served
  /** Attempts that this call made at the dependency: 0 where it joined, was answered from what was kept, or was refused. */
  readonly attempts: number
  /** Time spent in the queue, between attempts, and waiting for the circuit. */
  readonly waitedMillis: number
  readonly elapsedMillis: number
  /** Why the retry gave up; `undefined` where it did not. */
  readonly stopped: RetryPolicy.RetryStopped["Service"]["why"] | undefined
}

/**
 * A policy, ready to protect calls.
 *
 * @since 0.1.0
 * @category models
 */
export interface Sluice {
  /** Runs the effect under the policy. */
  readonly protect: {
    <A, E>(
      options?: CallOptions<A, E>
    ): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Rejected | AttemptTimeout, R>
    <A, E, R>(
      self: Effect.Effect<A, E, R>,
      options?: CallOptions<A, E>
    ): Effect.Effect<A, E | Rejected | AttemptTimeout, R>
  }
  /** Runs the stream under the policy. Attempts are repeated only before its first element. */
  readonly protectStream: {
    <A, E>(
      options?: StreamCallOptions<A, E>
    ): <R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | Rejected | AttemptTimeout, R>
    <A, E, R>(
      self: Stream.Stream<A, E, R>,
      options?: StreamCallOptions<A, E>
    ): Stream.Stream<A, E | Rejected | AttemptTimeout, R>
  }
  /** The policy's breaker; one that lets everything through where it has none. */
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"]
  /** The policy's deduplicator. */
  readonly deduplicator: Deduplicator.Deduplicator["Service"]
  /** What is in the way of a call, outermost first. */
  readonly describe: ReadonlyArray<string>
}

interface Collector {
  served: Deduplicator.Served
  attempts: number
  waitedMillis: number
}

const CurrentCollector: Context.Reference<Collector | undefined> = Context.Reference<Collector | undefined>(
  "@sluice/core/Sluice/CurrentCollector",
  { defaultValue: () => undefined }
)

/**
 * The exit of a protected call, and what became of it.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withReport = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<readonly [exit: Exit.Exit<A, E>, report: Report], never, R> =>
  Effect.withFiber((fiber) => {
    const clock = fiber.getRef(Clock.Clock)
    const startedAt = clock.currentTimeMillisUnsafe()
    const collector: Collector = { served: "Led", attempts: 0, waitedMillis: 0 }
    return Effect.map(
      Effect.exit(Effect.provideService(self, CurrentCollector, collector)),
      (exit) =>
        [exit, {
          ...collector,
          elapsedMillis: clock.currentTimeMillisUnsafe() - startedAt,
          stopped: stoppedOf(exit)
        }] as const
    )
  })

const stoppedOf = (exit: Exit.Exit<unknown, unknown>): Report["stopped"] =>
  Exit.isSuccess(exit)
    ? undefined
    : Option.getOrUndefined(Option.map(RetryPolicy.stopped(exit.cause), (stopped) => stopped.why))

/** What one policy holds, and what one call of it goes through. */
class Policy implements Sluice {
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"]
  readonly deduplicator: Deduplicator.Deduplicator["Service"]
  readonly describe: ReadonlyArray<string>
  private readonly settings: Settings
  private readonly permits: Permits | undefined

  constructor(
    settings: Settings,
    breaker: CircuitBreaker.CircuitBreaker["Service"],
    deduplicator: Deduplicator.Deduplicator["Service"]
  ) {
    this.settings = settings
    this.breaker = breaker
    this.deduplicator = deduplicator
    this.permits = settings.backpressure === undefined
      ? undefined
      : new Permits(settings.backpressure.capacity, settings.backpressure.queue, () => {})
    this.describe = describe(settings)
  }

  readonly protect: Sluice["protect"] = dual(
    (args) => Effect.isEffect(args[0]),
    <A, E, R>(
      self: Effect.Effect<A, E, R>,
      options: CallOptions<A, E> = {}
    ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> => {
      const run = this.placed(Effect.clockWith((clock) => {
        const call = new Call<A, E>(this.settings, options, clock)
        const attempt = (n: number) => this.attempt(self, call, n)
        return RetryPolicy.retryWith(attempt, this.settings.retry, call.classify, this.pause(call))
      }))
      const shared = options.dedupe === undefined ? run : this.shared(run, options.dedupe)
      const budget = options.deadline ?? this.settings.deadline
      return budget === undefined ? shared : Deadline.provide(shared, budget)
    }
  )

  readonly protectStream: Sluice["protectStream"] = dual(
    (args) => Stream.isStream(args[0]),
    <A, E, R>(
      self: Stream.Stream<A, E, R>,
      options: StreamCallOptions<A, E> = {}
    ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> => {
      const run = this.placedStream(Stream.unwrap(Effect.clockWith((clock) => {
        const call = new Call<void, E>(this.settings, options, clock)
        const attempt = (n: number) => this.attemptStream(self, call, n, options.isComplete)
        return Effect.succeed(
          RetryPolicy.retryStreamWith(attempt, this.settings.retry, call.classify, this.pause(call))
        )
      })))
      const shared = options.dedupe === undefined ? run : this.sharedStream(run, options.dedupe)
      const budget = options.deadline ?? this.settings.deadline
      return budget === undefined ? shared : Deadline.provideStream(shared, budget)
    }
  )

  private shared<A, E, R>(
    self: Effect.Effect<A, E | Rejected | AttemptTimeout, R>,
    key: Deduplicator.Key<A, E>
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> {
    return Effect.withFiber((fiber) => {
      const shared = this.deduplicator.dedupeWith(self, widened(key), onServed(fiber.getRef(CurrentCollector)))
      const deadline = fiber.getRef(Deadline.Deadline)
      return deadline === undefined ? shared : Effect.raceFirst(shared, leave(deadline))
    })
  }

  private sharedStream<A, E, R>(
    self: Stream.Stream<A, E | Rejected | AttemptTimeout, R>,
    key: Deduplicator.Key<A, E>
  ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> {
    return Stream.unwrap(Effect.withFiber((fiber) => {
      const told = onServed(fiber.getRef(CurrentCollector))
      const shared = this.deduplicator.dedupeStreamWith(self, widened(key), told)
      const deadline = fiber.getRef(Deadline.Deadline)
      return Effect.succeed(deadline === undefined ? shared : Stream.interruptWhen(shared, leave(deadline)))
    }))
  }

  // The finalizer stands before the place is taken.
  private placed<A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | Rejected, R> {
    const { permits } = this
    if (permits === undefined) return self
    return Effect.suspend(() => {
      let entered = false
      const enter = Effect.suspend((): Effect.Effect<A, E | Rejected, R> => {
        entered = permits.enter()
        return entered ? self : Effect.fail(this.shed(permits))
      })
      return Effect.onExitPrimitive(enter, () => {
        if (entered) permits.leave()
        return undefined
      })
    })
  }

  private placedStream<A, E, R>(self: Stream.Stream<A, E, R>): Stream.Stream<A, E | Rejected, R> {
    const { permits } = this
    if (permits === undefined) return self
    const enter = (scope: Scope.Scope): Effect.Effect<void, Rejected> =>
      Effect.uninterruptible(
        Effect.suspend(() =>
          permits.enter()
            ? Scope.addFinalizer(scope, Effect.sync(() => permits.leave()))
            : Effect.fail(this.shed(permits))
        )
      )
    return bracketed(self, enter)
  }

  private shed(permits: Permits): Rejected {
    return stackless(() => new Rejected({ reason: Backpressure.shedError(this.settings.name, permits) }))
  }

  /** One attempt, or as many looks at an open circuit as fit before the deadline and then one attempt. */
  private attempt<A, E, R>(
    self: Effect.Effect<A, E, R>,
    call: Call<A, E>,
    attempt: number
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> {
    return Effect.suspend(() => {
      let ran = false
      const body = Effect.suspend(() => {
        ran = true
        return Effect.flatMap(call.begin, () => this.limited(self, call))
      })
      const guarded = this.settings.breaker === undefined ? body : this.breaker.guard(body, call)
      const permitted = this.permitted(guarded, call, attempt)
      const looked = this.mustWait() ? Effect.andThen(this.breaker.check(call.key), permitted) : permitted
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

  private attemptStream<A, E, R>(
    self: Stream.Stream<A, E, R>,
    call: Call<void, E>,
    attempt: number,
    isComplete: ((part: A) => boolean) | undefined
  ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> {
    return Stream.suspend(() => {
      let ran = false
      const body = Stream.unwrap(Effect.suspend(() => {
        ran = true
        return Effect.map(call.begin, () => this.limitedStream(self, call))
      }))
      const { classify, key } = call
      const guarded = this.settings.breaker === undefined
        ? body
        : this.breaker.guardStream(body, { key, classify, isComplete })
      const permitted = this.permittedStream(guarded, call, attempt)
      const looked = this.mustWait() ? Stream.unwrap(Effect.as(this.breaker.check(key), permitted)) : permitted
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
  private pause(call: Call<never, never>) {
    return (delay: Duration.Duration): Effect.Effect<void, Rejected> =>
      this.breaker.check(call.key).pipe(
        Effect.andThen(wait(Effect.sleep(delay))),
        Effect.catch((open) =>
          Duration.isLessThanOrEqualTo(open.retryAfter, delay) ? wait(Effect.sleep(delay)) : call.refused(open)
        )
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
      Effect.withFiber((fiber) => {
        const request = permits.request(fiber, attempt > 1 ? "Head" : "Tail")
        const run = request.state === "Granted" ? self : Effect.andThen(call.beforeDeadline(granted(request)), self)
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
        Effect.withFiber((fiber) => {
          const request = permits.request(fiber, attempt > 1 ? "Head" : "Tail")
          return Effect.andThen(
            Scope.addFinalizer(scope, Effect.sync(() => permits.settle(request))),
            restore(call.beforeDeadline(granted(request)))
          )
        })
      )
    return bracketed(self, acquire)
  }

  // What other policies do inside the call is none of this call's report.
  private limited<A, E, R>(
    self: Effect.Effect<A, E, R>,
    call: Call<never, never>
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R> {
    return Effect.withFiber((fiber) => {
      const alarm = call.alarm(fiber.getRef(Deadline.Deadline))
      const unseen = fiber.getRef(CurrentCollector) === undefined
        ? self
        : Effect.provideService(self, CurrentCollector, undefined)
      return alarm === undefined ? unseen : Effect.raceFirst(unseen, alarm)
    })
  }

  private limitedStream<A, E, R>(
    self: Stream.Stream<A, E, R>,
    call: Call<never, never>
  ): Stream.Stream<A, E | Rejected | AttemptTimeout, R> {
    return Stream.unwrap(Effect.withFiber((fiber) => {
      const alarm = call.alarm(fiber.getRef(Deadline.Deadline))
      const unseen = fiber.getRef(CurrentCollector) === undefined
        ? self
        : Stream.provideService(self, CurrentCollector, undefined)
      return Effect.succeed(alarm === undefined ? unseen : Stream.interruptWhen(unseen, alarm))
    }))
  }
}

/** One call on its way through the policy: what it was told, and which refusals in its exits are the policy's own. */
class Call<in A, in E> {
  readonly key: string
  private readonly settings: Settings
  private readonly own: Classify<A, E> | undefined
  private readonly clock: Clock.Clock
  // Remembered by identity: what another policy refuses inside the call looks the same.
  private raised: AttemptTimeout | Rejected | undefined
  private startedAt = 0
  private deadline: Deadline.Deadline | undefined

  constructor(
    settings: Settings,
    options: { readonly key?: string | undefined; readonly classify?: Classify<A, E> | undefined },
    clock: Clock.Clock
  ) {
    this.settings = settings
    this.key = options.key ?? settings.name
    this.own = options.classify
    this.clock = clock
  }

  /** An attempt reaches the dependency, unless it is too late for that. */
  readonly begin: Effect.Effect<void, Rejected> = Effect.withFiber((fiber) => {
    this.startedAt = this.clock.currentTimeMillisUnsafe()
    const deadline = fiber.getRef(Deadline.Deadline)
    this.deadline = deadline
    if (deadline !== undefined && deadline.at <= this.startedAt) return Effect.fail(this.exceeded(deadline, "Queue"))
    const collector = fiber.getRef(CurrentCollector)
    if (collector !== undefined) collector.attempts++
    return Effect.void
  })

  /** Breaker and retry both ask, and get the same answer: the time that counts is the attempt's, without its waits. */
  readonly classify: Classify<A, E | Rejected | AttemptTimeout> = (exit) => {
    const now = this.clock.currentTimeMillisUnsafe()
    const elapsedMillis = now - this.startedAt
    if (Exit.isFailure(exit)) {
      const { deadline, raised } = this
      if (raised !== undefined && failsWith(exit.cause, raised)) return this.outcomeOf(raised, elapsedMillis)
      // Whoever keeps the deadline outside of the policy may have been the first to interrupt.
      const isLate = deadline !== undefined && now >= deadline.at
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
  refused(open: CircuitBreaker.CircuitOpen): Effect.Effect<void, Rejected> {
    return Effect.withFiber((fiber) => {
      const deadline = fiber.getRef(Deadline.Deadline)
      const waitMillis = Duration.toMillis(open.retryAfter)
      const due = this.clock.currentTimeMillisUnsafe() + waitMillis
      // A flight whose callers set no deadline has one that is infinitely far.
      const at = deadline?.at ?? Number.POSITIVE_INFINITY
      return due < at && at < Number.POSITIVE_INFINITY
        ? wait(Effect.sleep(open.retryAfter))
        : Effect.fail(this.rejected(open))
    })
  }

  /** A wait in the queue, which the deadline ends. */
  beforeDeadline(self: Effect.Effect<void>): Effect.Effect<void, Rejected> {
    return Effect.withFiber((fiber) => {
      const deadline = fiber.getRef(Deadline.Deadline)
      if (deadline === undefined) return wait(self)
      const late = until(() => deadline.at, () => Effect.fail(this.exceeded(deadline, "Queue")))
      return wait(Effect.raceFirst(self, late))
    })
  }

  /** Fails when the attempt's time is over; `undefined` where nothing bounds it. */
  alarm(deadline: Deadline.Deadline | undefined): Effect.Effect<never, AttemptTimeout | Rejected> | undefined {
    const { attemptTimeoutMillis } = this.settings
    if (attemptTimeoutMillis === undefined && deadline === undefined) return undefined
    const due = this.startedAt + (attemptTimeoutMillis ?? Number.POSITIVE_INFINITY)
    return until(
      () => Math.min(due, deadline?.at ?? Number.POSITIVE_INFINITY),
      (now): Effect.Effect<never, AttemptTimeout | Rejected> => {
        if (now < due && deadline !== undefined) return Effect.fail(this.exceeded(deadline, "Attempt"))
        const timeout = stackless(() => new AttemptTimeout({ after: Duration.millis(attemptTimeoutMillis ?? 0) }))
        this.raised = timeout
        return Effect.fail(timeout)
      }
    )
  }

  private exceeded(deadline: Deadline.Deadline, at: Deadline.DeadlineExceeded["at"]): Rejected {
    return this.rejected(Deadline.exceeded(deadline, at))
  }

  private rejected(reason: Rejected["reason"]): Rejected {
    const rejected = stackless(() => new Rejected({ reason }))
    this.raised = rejected
    return rejected
  }
}

// The moment is read anew after each sleep: a shared flight's deadline moves as callers join.
const until = <E>(at: () => number, then: (now: number) => Effect.Effect<never, E>): Effect.Effect<never, E> =>
  Effect.flatMap(Clock.currentTimeMillis, (now): Effect.Effect<never, E> => {
    const left = at() - now
    if (left <= 0) return then(now)
    return left === Number.POSITIVE_INFINITY
      ? Effect.never
      : Effect.andThen(Effect.sleep(Duration.millis(left)), until(at, then))
  })

const wait = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const collector = fiber.getRef(CurrentCollector)
    if (collector === undefined) return self
    const clock = fiber.getRef(Clock.Clock)
    const startedAt = clock.currentTimeMillisUnsafe()
    return Effect.onExitPrimitive(self, () => {
      collector.waitedMillis += clock.currentTimeMillisUnsafe() - startedAt
      return undefined
    })
  })

const failsWith = (cause: Cause.Cause<unknown>, error: unknown): boolean =>
  cause.reasons.some((reason) => Cause.isFailReason(reason) && reason.error === error)

// A run's deadline is the latest of its callers' and is raised inside the circuit. The last caller must not leave before that
// has happened, or a service that hangs would never be seen to be down: a run that is over by then needs no leaving.
const leaveMarginMillis = 20

const leave = (deadline: Deadline.Deadline): Effect.Effect<never, Rejected> =>
  until(
    () => deadline.at + leaveMarginMillis,
    () => Effect.fail(stackless(() => new Rejected({ reason: Deadline.exceeded(deadline, "Attempt") })))
  )

const onServed = (collector: Collector | undefined) => (served: Deduplicator.Served): void => {
  if (collector !== undefined) collector.served = served
}

// What a policy adds to the errors of a run, every sharer of the run gets: they all came through this policy. The key's own
// function is not asked about it, and it is not kept: a run that was cut short says nothing about the next one.
const widened = <A, E>(key: Deduplicator.Key<A, E>): Deduplicator.Key<A, E | Rejected | AttemptTimeout> => {
  const { defect, timeToLive } = key[KeyTypeId]
  return {
    ...key,
    [KeyTypeId]: {
      defect,
      timeToLive: timeToLive === undefined
        ? undefined
        : (exit) => isCutShort(exit) ? 0 : timeToLive(exit as Exit.Exit<A, E>)
    }
  }
}

const isCutShort = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) &&
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

interface Settings {
  readonly name: string
  readonly retry: RetryPolicy.RetryPolicy
  readonly breaker: CircuitBreaker.CircuitBreakerOptions | undefined
  readonly backpressure: { readonly capacity: number; readonly queue: number } | undefined
  readonly attemptTimeoutMillis: number | undefined
  readonly minTimeoutMillis: number
  readonly deadline: Duration.Input | undefined
  readonly classify: Classify<unknown, unknown> | undefined
}

const readOptions = (input: SluiceOptions): Effect.Effect<Settings, InvalidOptions> => {
  const options = new Options("Sluice")
  const retry = input.retry ?? RetryPolicy.none
  const { attemptTimeout, backpressure, breaker, deadline, deduplicator } = input
  RetryPolicy.check(options, retry, "retry.")
  if (breaker !== undefined) CircuitBreaker.check(options, breaker, "breaker.")
  if (deduplicator !== undefined) Deduplicator.check(options, deduplicator, "deduplicator.")
  if (deadline !== undefined) options.millis("deadline", deadline, 1)
  return options.check({
    name: input.name,
    retry,
    breaker: breaker === undefined ? undefined : { ...breaker, name: input.name },
    backpressure: backpressure === undefined ? undefined : {
      capacity: options.integer("backpressure.capacity", backpressure.capacity ?? 16, 1),
      queue: options.integer("backpressure.queue", backpressure.queue ?? 0, 0)
    },
    attemptTimeoutMillis: attemptTimeout === undefined
      ? undefined
      : options.millis("attemptTimeout", attemptTimeout, 1),
    minTimeoutMillis: options.millis("minTimeout", input.minTimeout ?? Duration.seconds(1), 0),
    deadline,
    classify: input.classify
  })
}

const describe = (settings: Settings): ReadonlyArray<string> => {
  const { attemptTimeoutMillis, backpressure, breaker, retry } = settings
  const lines = ["share runs of the same key"]
  if (backpressure !== undefined) {
    lines.push(`place: ${backpressure.capacity} running and ${backpressure.queue} waiting`)
  }
  if (retry.maxAttempts > 1) lines.push(`retry: ${retry.maxAttempts} attempts`)
  if (backpressure !== undefined) lines.push(`permit: ${backpressure.capacity} at once`)
  if (breaker !== undefined) lines.push("circuit: one for each key")
  if (attemptTimeoutMillis !== undefined) {
    lines.push(`attempt timeout: ${Duration.format(Duration.millis(attemptTimeoutMillis))}`)
  }
  return lines
}

/**
 * Builds a policy with state of its own; its circuits are kept in the store that is there.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (
  options: SluiceOptions
) => Effect.Effect<Sluice, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore | Scope.Scope> = Effect.fnUntraced(
  function*(options: SluiceOptions) {
    const settings = yield* readOptions(options)
    const breaker = settings.breaker === undefined ? CircuitBreaker.noop : yield* CircuitBreaker.make(settings.breaker)
    const deduplicator = yield* Deduplicator.make(options.deduplicator)
    return new Policy(settings, breaker, deduplicator)
  }
)

/**
 * Every store that a policy may ask for, kept in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStoresMemory: Layer.Layer<CircuitBreakerStore.CircuitBreakerStore> = CircuitBreakerStore.layerMemory

/**
 * A policy that lets everything through as it is.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: Sluice = {
  protect: dual((args) => Effect.isEffect(args[0]), <A, E, R>(self: Effect.Effect<A, E, R>) => self),
  protectStream: dual((args) => Stream.isStream(args[0]), <A, E, R>(self: Stream.Stream<A, E, R>) => self),
  breaker: CircuitBreaker.noop,
  deduplicator: Deduplicator.noop,
  describe: []
}

/**
 * The class of a policy that is a service of its own: one tag for each policy, so that no two are mixed up.
 *
 * **Details**
 *
 * - `layer` keeps its circuits in the `CircuitBreakerStore` that is there, which others may share.
 * - `layerMemory` is complete.
 * - `layerNoop` lets everything through, for tests and for switching the policy off.
 *
 * @since 0.1.0
 * @category services
 */
export const Service = <Self>() =>
<const Id extends string>(
  id: Id,
  options: SluiceOptions
): Context.ServiceClass<Self, Id, Sluice> & {
  readonly layer: Layer.Layer<Self, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore>
  readonly layerMemory: Layer.Layer<Self, InvalidOptions>
  readonly layerNoop: Layer.Layer<Self>
} => {
  const Tag = Context.Service<Self, Sluice>()(id)
  const layer = Layer.effect(Tag, make(options))
  return Object.assign(Tag, {
    layer,
    layerMemory: Layer.provide(layer, Layer.fresh(layerStoresMemory)),
    layerNoop: Layer.succeed(Tag, noop)
  })
}
