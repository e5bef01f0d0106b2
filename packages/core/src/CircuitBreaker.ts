/**
 * Stops calling a dependency that is down, and finds out when it is back.
 *
 * A breaker keeps one circuit for each key. While it is closed, calls run and their outcomes are counted. When a trip policy
 * holds, it opens: calls fail at once with `CircuitOpen`, which says on what evidence and when to come back. When the open
 * time is over the circuit is half-open: a few calls are let through as probes, the others are still refused, and what the
 * probes meet closes the circuit or opens it again.
 *
 * **When to use**
 *
 * Around every attempt at a service that can be down: inside the retry, outside the timeout, so that a call that hangs counts
 * as the failure that it is. To hold back a service that is only slow or busy, use backpressure.
 *
 * **Details**
 *
 * | option | default | reason |
 * |---|---|---|
 * | `trip` | `consecutive(5)` | five in a row are no accident, and are soon seen at any rate of calls |
 * | `openFor` | 30 seconds | the time in which a restart or a failover is done |
 * | `openJitter` | 0 | an opening lasts as long as you said; where many processes have circuits of their own, 0.2 keeps their probes apart |
 * | `maxOpenFor` | 1 hour | bounds what a Retry-After or a schedule may ask for |
 * | `probes` | 1 | the fewest calls that can tell |
 * | `probesToClose` | all of `probes` | one failure of a dependency that has just been down is enough to wait longer |
 * | `probeLease` | 60 seconds | a probe that has not told by then hangs, and another call may try |
 * | `rampUp` | 0 | a closed circuit lets every call through; where a rush would knock the dependency over again, let it grow |
 * | `slowAfter` | 30 seconds | what `slowCallRate` calls slow |
 * | `storeTimeout` | 100 millis | what a store may cost a call, see `CircuitBreakerStore` |
 * | `staleness` | 5 seconds | how long an idle process believes what it last heard from a shared store |
 * | `heartbeat` | 10 seconds | how long a shared store keeps the probe's place of a process that died |
 *
 * What counts is for the classifier chain to say (see `Outcome`). `Throttled` and `Ignored` count nowhere: as a probe
 * they free the place for the next one. A failure that carries a `retryAfter` makes the opening last at least that long, up
 * to `maxOpenFor`; the refusal tells the whole hint.
 *
 * **Gotchas**
 *
 * - Calls that were admitted before the circuit moved run to their end, but their outcomes change nothing any more, except
 *   that a later Retry-After may lengthen an opening.
 * - "Consecutive" counts in the order in which calls end.
 * - Give `probeLease` more time than the slowest call takes: an answer that comes after the lease has lapsed does not count.
 *   A stream's lease begins anew with every part.
 * - A stream's verdict is upstream's: failed, or ended, or `isComplete` was seen. A consumer that leaves early says nothing.
 * - A call that is guarded twice under one key counts twice while the circuit is closed.
 * - A window of time is looked back on in ten buckets: between nine tenths and the whole of it.
 * - A store that fails or is slow fails no call: circuits in this process stand in for it, one warning is logged, and the
 *   store is asked again once a second.
 *
 * **Example** (Refused, then let through)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 *
 * const program = Effect.gen(function*() {
 *   const breaker = yield* CircuitBreaker.CircuitBreaker
 *   const broken = Effect.fail("503" as const).pipe(breaker.guard({ key: "openai" }), Effect.flip)
 *   const first = yield* broken
 *   const second = yield* broken
 *   return [first, second].map((error) => typeof error === "string" ? error : error._tag)
 * }).pipe(Effect.provide(CircuitBreaker.layerMemory({ trip: CircuitBreaker.consecutive(1), openFor: "30 seconds" })))
 *
 * console.log((await Effect.runPromise(program)).join(", ")) // => 503, CircuitOpen
 * ```
 *
 * @since 0.1.0
 */
import * as Channel from "effect/Channel"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import type * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Store from "./CircuitBreakerStore.ts"
import { checkBreaker, type Checked, replayed } from "./internal/breakerOptions.ts"
import { CircuitJournal } from "./internal/circuitJournal.ts"
import type { Policy } from "./internal/circuitMachine.ts"
import { isHalfOpen, streak, tally } from "./internal/circuitMachine.ts"
import type { Refused, Settings } from "./internal/circuits.ts"
import { nameOf, Passage } from "./internal/circuits.ts"
import { guardLocally, setLocal } from "./internal/guardLocally.ts"
import { LocalCircuits } from "./internal/localCircuits.ts"
import { MemoryCircuits, memoryOf } from "./internal/memoryCircuits.ts"
import * as metrics from "./internal/metrics.ts"
import { Options } from "./internal/options.ts"
import { CurrentProbe, probeOf } from "./internal/probes.ts"
import { RefusalTypeId } from "./internal/refusal.ts"
import { SharedCircuits } from "./internal/sharedCircuits.ts"
import { stackless } from "./internal/stackless.ts"
import { withoutDone } from "./internal/streams.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { Classifier, type Classify, ignored, type Outcome } from "./Outcome.ts"

/**
 * The circuit of this key lets no call through now: this one was not made.
 *
 * | state | |
 * |---|---|
 * | `Open` | the dependency was seen to fail, and is left alone |
 * | `HalfOpen` | probes are under way, and this call was not one of them |
 * | `Ramp` | the circuit has closed and lets ever more calls through; this one was not among them |
 * | `ForcedOpen` | somebody has opened the circuit by hand |
 *
 * @since 0.1.0
 * @category errors
 */
export class CircuitOpen extends Schema.Error<CircuitOpen>("@sluice/core/CircuitOpen")({
  _tag: Schema.tag("CircuitOpen"),
  /** The name of the policy that refused. */
  policy: Schema.String,
  /** The dependency key. A field only: it stays out of `message`, which reaches logs and spans. */
  key: Schema.String,
  state: Schema.Literals(["Open", "HalfOpen", "Ramp", "ForcedOpen"]),
  /**
   * Time after which a call may be let through, more than zero. Of a circuit that is forced open until somebody lifts it
   * nobody knows: it is the time after which to look again.
   */
  retryAfter: Schema.DurationFromMillis,
  /** What the dependency itself asked to be left alone for, where that is longer. */
  hint: Schema.optional(Schema.DurationFromMillis),
  /** Calls that were looked at when the circuit opened. */
  calls: Schema.Int,
  /** How many of them had failed. */
  failures: Schema.Int,
  /** How many of them were slow. */
  slow: Schema.Int,
  /** Why, in the words of who forced it open. A field only, as they may name what is not for every log. */
  reason: Schema.optional(Schema.String)
}) {
  get [RefusalTypeId](): true {
    return true
  }
  override get message(): string {
    const retryAfter = Duration.format(this.retryAfter)
    const refused = `${this.policy} refused: circuit`
    if (this.state === "ForcedOpen") return `${refused} forced open by hand; look again in ${retryAfter}`
    const slow = this.slow === 0 ? "" : `, ${this.slow} slow`
    const evidence = `${this.failures} of ${this.calls} failed${slow}`
    return `${refused} ${inWords[this.state]} (${evidence}); retry in ${retryAfter}`
  }
}

const inWords = {
  Open: "open",
  HalfOpen: "half-open, its probes are under way",
  Ramp: "closed again, not every call is let through yet"
}

/**
 * When a circuit opens. Make one with `consecutive`, `failureRate` or `slowCallRate`.
 *
 * @since 0.1.0
 * @category models
 */
export type TripPolicy =
  | { readonly _tag: "Consecutive"; readonly failures: number }
  | {
    readonly _tag: "FailureRate" | "SlowCallRate"
    readonly rate: number
    /** The last so many calls; or, in its place, `within`. */
    readonly calls: number | undefined
    /** The calls of the last so much time. */
    readonly within: Duration.Input | undefined
    /** Fewer calls than that say nothing. */
    readonly minimum: number
  }

/**
 * Opens after so many failures without a success in between.
 *
 * @since 0.1.0
 * @category trip policies
 */
export const consecutive = (failures: number): TripPolicy => ({ _tag: "Consecutive", failures })

/**
 * What a rate is of: the last `calls` calls (default 20), or all calls of the time `within`.
 *
 * **Details**
 *
 * `rate` is above 0, up to 1. `minimum` calls say nothing yet: of a number of calls it defaults to half of them, of a time
 * to 10.
 *
 * @since 0.1.0
 * @category models
 */
export type RateOptions =
  | {
    readonly rate: number
    readonly calls?: number | undefined
    readonly within?: undefined
    readonly minimum?: number | undefined
  }
  | {
    readonly rate: number
    readonly calls?: undefined
    readonly within: Duration.Input
    readonly minimum?: number | undefined
  }

/**
 * Opens when so large a part of the calls has failed.
 *
 * **Example** (Half of the calls of the last 30 seconds, if there were 20)
 *
 * ```ts
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 *
 * const layer = CircuitBreaker.layerMemory({
 *   trip: [CircuitBreaker.consecutive(5), CircuitBreaker.failureRate({ rate: 0.5, within: "30 seconds", minimum: 20 })]
 * })
 * ```
 *
 * @since 0.1.0
 * @category trip policies
 */
export const failureRate = (options: RateOptions): TripPolicy => rateOf("FailureRate", options)

/**
 * Opens when so large a part of the calls took longer than the breaker's `slowAfter`, whether they failed or not.
 *
 * **When to use**
 *
 * For a dependency that shows its trouble by being slow: calls that pile up behind it cost more than calls that it refuses.
 *
 * @since 0.1.0
 * @category trip policies
 */
export const slowCallRate = (options: RateOptions): TripPolicy => rateOf("SlowCallRate", options)

const rateOf = (_tag: "FailureRate" | "SlowCallRate", { calls, minimum, rate, within }: RateOptions): TripPolicy => {
  // Only what is not there is the default: null, as out of JSON, is refused like any other wrong value.
  if (within !== undefined) return { _tag, rate, calls, within, minimum: minimum === undefined ? 10 : minimum }
  const last = calls === undefined ? 20 : calls
  // What is no number is refused by itself, where a breaker is built.
  const half = typeof last === "number" ? Math.ceil(last / 2) : 1
  return { _tag, rate, calls: last, within, minimum: minimum === undefined ? half : minimum }
}

/**
 * What a breaker is built from. The defaults and their reasons are in the module's table.
 *
 * @since 0.1.0
 * @category models
 */
export interface CircuitBreakerOptions {
  /** Named in refusals, logs and metrics. Default `"circuit breaker"`. */
  readonly name?: string | undefined
  /** One policy, or several of which any opens the circuit. Default `consecutive(5)`. */
  readonly trip?: TripPolicy | ReadonlyArray<TripPolicy> | undefined
  /**
   * How long the circuit stays open before probes are let through: always as long, or the n-th opening in a row as long as
   * the schedule's n-th delay (its last one where it ends before). A circuit that stays closed for as long as it was last
   * open begins anew. Default 30 seconds; 0 probes at once.
   *
   * The schedule is run on a clock of its own, in one go: its delays are computed, never waited for.
   */
  readonly openFor?: Duration.Input | Schedule.Schedule<unknown, number> | undefined
  /** Up to this part of the open time is added at random: 0 to 1. Default 0. */
  readonly openJitter?: number | undefined
  /** The longest opening, whatever a schedule or a Retry-After says. Default 1 hour. */
  readonly maxOpenFor?: Duration.Input | undefined
  /** How many calls are let through when the open time is over. Default 1, at most 100. */
  readonly probes?: number | undefined
  /** How many of them must succeed to close the circuit. Default all. */
  readonly probesToClose?: number | undefined
  /** How long a probe may take before its place is free for another call. Default 60 seconds. */
  readonly probeLease?: Duration.Input | undefined
  /** A circuit that has closed lets through ever more calls over this time, from 1 in 100 to all. Default 0: all at once. */
  readonly rampUp?: Duration.Input | undefined
  /** A call that takes longer than this is slow, for `slowCallRate`. Default 30 seconds. */
  readonly slowAfter?: Duration.Input | undefined
  /** How long a call waits for a store that others share, before it goes on with this process's own circuits. Default 100 millis. */
  readonly storeTimeout?: Duration.Input | undefined
  /** How old what was last heard of a shared circuit may be before a call reads it again. Default 5 seconds. */
  readonly staleness?: Duration.Input | undefined
  /** How long a shared store keeps the place of a probe whose process has died; a living one renews it. Default 10 seconds. */
  readonly heartbeat?: Duration.Input | undefined
  /** Asked after a call's own `classify` and before the `Classifier` reference. */
  readonly classify?: Classify<unknown, unknown> | undefined
}

/**
 * What a guarded call may be told.
 *
 * @since 0.1.0
 * @category models
 */
export interface GuardOptions<in A, in E> {
  /** Names the dependency, and so the circuit: the developer's, one of few. Default `"default"`. */
  readonly key?: string | undefined
  /** Asked first for what an exit says about the dependency. */
  readonly classify?: Classify<A, E> | undefined
}

/**
 * What a guarded stream may be told.
 *
 * @since 0.1.0
 * @category models
 */
export interface GuardStreamOptions<in A, in E> extends GuardOptions<void, E> {
  /** Knows the part that completes an answer: the verdict is `Success` then, whatever the consumer does after it. */
  readonly isComplete?: ((part: A) => boolean) | undefined
}

/**
 * A circuit, as its callers meet it.
 *
 * @since 0.1.0
 * @category models
 */
export type State =
  & {
    /** Grows with every move. */
    readonly generation: number
    /** Failures in a row; of an open circuit those that opened it. */
    readonly failures: number
    /** What is counted now; of an open circuit, what opened it. */
    readonly evidence: Store.Tally
  }
  & (
    | {
      readonly _tag: "Closed"
      /** Time until every call is let through again; `undefined` where it is. */
      readonly rampsFor: Duration.Duration | undefined
      /** Why, where somebody reset it; empty where it closed by its evidence. */
      readonly reason: string
    }
    | {
      readonly _tag: "Open"
      /** Openings in a row. */
      readonly openings: number
      /** Time until probes are let through. */
      readonly retryAfter: Duration.Duration
      /** What the dependency itself asked for, where that is longer. */
      readonly hint: Duration.Duration | undefined
    }
    | { readonly _tag: "HalfOpen"; readonly openings: number; readonly probing: number }
    | {
      readonly _tag: Store.Mode
      readonly reason: string
      /** Time until it is lifted by itself; `undefined` where somebody has to. */
      readonly liftedIn: Duration.Duration | undefined
    }
  )

/**
 * A circuit moved.
 *
 * @since 0.1.0
 * @category models
 */
export interface Transition {
  readonly key: string
  readonly from: State["_tag"]
  /** `HalfOpen`: this breaker has let the first probe through. Nothing is written for that, so others tell it as well. */
  readonly to: State["_tag"]
  /** What was counted when it moved; to half-open, what had opened it. */
  readonly evidence: Store.Tally
  /** Openings in a row, with this one. */
  readonly openings: number
  /** How long it is open; `undefined` where it moved to something else. */
  readonly openFor: Duration.Duration | undefined
  /** Why, where somebody moved it by hand; else empty. */
  readonly reason: string
  /** Epoch milliseconds of the store. */
  readonly at: number
}

/**
 * What the breaker decided about a call, or what came of one.
 *
 * | | |
 * |---|---|
 * | `Admitted` | a call was let through, perhaps as a probe |
 * | `Refused` | a call was not made |
 * | `Counted` | a call ended; `counted` tells whether its outcome was kept: a late one is not |
 * | `WouldOpen` | a circuit that is only observed would have opened on this evidence |
 *
 * @since 0.1.0
 * @category models
 */
export type Decision =
  | { readonly _tag: "Admitted"; readonly key: string; readonly isProbe: boolean; readonly at: number }
  | {
    readonly _tag: "Refused"
    readonly key: string
    readonly state: CircuitOpen["state"]
    readonly retryAfter: Duration.Duration
    readonly at: number
  }
  | {
    readonly _tag: "Counted"
    readonly key: string
    readonly outcome: Outcome["_tag"]
    readonly counted: boolean
    readonly at: number
  }
  | { readonly _tag: "WouldOpen"; readonly key: string; readonly evidence: Store.Tally; readonly at: number }

/**
 * What a breaker has done since it was made, over all its circuits.
 *
 * @since 0.1.0
 * @category models
 */
export interface Stats {
  /** Calls that were let through, by what they said. */
  readonly outcomes: Readonly<Record<Outcome["_tag"], number>>
  readonly refused: number
  /** Moves, by where to. */
  readonly moves: Readonly<Record<Transition["to"], number>>
  /** Requests that a shared store did not answer. */
  readonly storeFailures: number
  /** Transitions and decisions that a slow reader of their streams missed. */
  readonly missed: number
}

/**
 * What somebody sets a circuit to.
 *
 * @since 0.1.0
 * @category models
 */
export interface ControlOptions {
  /** Default `"default"`. */
  readonly key?: string | undefined
  /** `Auto` lifts what was forced: the circuit closes and counts anew. */
  readonly mode: Store.Mode | "Auto"
  /** Why, for whoever finds the circuit so. It is kept in the store, told by `state`, and in no log. */
  readonly reason: string
  /** Lifts it after this time. Default: somebody has to lift it. */
  readonly for?: Duration.Input | undefined
}

/**
 * Keeps a circuit for each key.
 *
 * @since 0.1.0
 * @category services
 */
export class CircuitBreaker extends Context.Service<CircuitBreaker, {
  /** Runs the effect if its circuit lets it, else fails with `CircuitOpen` without running it. */
  readonly guard: {
    <A, E>(
      options?: GuardOptions<A, E>
    ): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | CircuitOpen, R>
    <A, E, R>(self: Effect.Effect<A, E, R>, options?: GuardOptions<A, E>): Effect.Effect<A, E | CircuitOpen, R>
  }
  /** Runs the stream if its circuit lets it, and records what became of it upstream. */
  readonly guardStream: {
    <A, E>(
      options?: GuardStreamOptions<A, E>
    ): <R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | CircuitOpen, R>
    <A, E, R>(
      self: Stream.Stream<A, E, R>,
      options?: GuardStreamOptions<A, E>
    ): Stream.Stream<A, E | CircuitOpen, R>
  }
  /** Fails with `CircuitOpen` if a call would be refused now. A look: it moves nothing and takes no place. */
  readonly check: (key?: string) => Effect.Effect<void, CircuitOpen>
  /** How the circuit stands. A look: it moves nothing. */
  readonly state: (key?: string) => Effect.Effect<State, Store.StoreError>
  /** How all circuits of the store stand, in the order of their keys, from behind `after`. Default 100 at a time. */
  readonly states: (
    page?: { readonly after?: string | undefined; readonly limit?: number | undefined }
  ) => Effect.Effect<ReadonlyArray<{ readonly key: string; readonly state: State }>, Store.StoreError>
  /** Failures in a row while closed; while open, those that opened it. */
  readonly failureCount: (key?: string) => Effect.Effect<number, Store.StoreError>
  /** What this breaker moved, from the moment of subscribing. A slow reader misses the oldest ones; `stats` counts them. */
  readonly transitions: Stream.Stream<Transition>
  /** What this breaker decided about each call, from the moment of subscribing. Costs nothing while nobody reads it. */
  readonly decisions: Stream.Stream<Decision>
  /** Forces the circuit open or closed, or switches it off, for everybody who shares it; or lifts that. */
  readonly control: (options: ControlOptions) => Effect.Effect<void, Store.StoreError | InvalidOptions>
  /** Closes the circuit and forgets what was counted. What was admitted before changes nothing any more. */
  readonly reset: (key?: string, reason?: string) => Effect.Effect<void, Store.StoreError>
  readonly stats: Effect.Effect<Stats>
}>()("@sluice/core/CircuitBreaker") {}

const defaultKey = "default"

/** What makes the circuits of one process, or those that it shares, look the same to streams and to those who only look. */
interface Circuits {
  /** Runs uninterruptibly: whoever is let in must leave. */
  readonly enter: (passage: Passage) => Effect.Effect<void, CircuitOpen>
  /** Runs uninterruptibly, once for each call that was let in. */
  readonly leave: (passage: Passage, outcome: Outcome, isSlow: boolean) => Effect.Effect<void>
  /** The call shows that it does not hang. */
  readonly progress: (passage: Passage) => void
  /** What a call would be told now. */
  readonly look: (key: string) => Effect.Effect<CircuitOpen | undefined>
  readonly read: (key: string) => Effect.Effect<Store.Snapshot, Store.StoreError>
  readonly list: (
    after: string | undefined,
    limit: number
  ) => Effect.Effect<ReadonlyArray<Store.Snapshot>, Store.StoreError>
  readonly set: (key: string, to: Store.Target) => Effect.Effect<void, Store.StoreError>
}

/**
 * Builds a breaker over the store.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = Effect.fnUntraced(function*(options?: CircuitBreakerOptions) {
  const { classify, settings: checked } = yield* readOptions(options)
  const store = yield* Store.CircuitBreakerStore
  const context = yield* Effect.context<never>()
  const scope = yield* Effect.scope
  const random = yield* Random.Random
  const settings: Settings = { ...checked, openMillis: openTime(checked, context, () => random.nextDoubleUnsafe()) }
  const { policy } = settings
  const journal = new CircuitJournal()
  yield* Effect.addFinalizer(() => Effect.andThen(journal.transitions.close, journal.decisions.close))
  yield* metrics.show(journal.sources(settings.name))

  // Ids of leases and transitions are made here, so that a request whose reply was lost can be repeated.
  const instance = `${random.nextIntUnsafe().toString(36)}.${random.nextIntUnsafe().toString(36)}`
  let issued = 0
  const shared = memoryOf(store)
  const clock = shared?.clock ?? (yield* Clock.Clock)
  const parts = {
    settings,
    journal,
    clock,
    chance: () => random.nextDoubleUnsafe(),
    refuse: (refused: Refused) => circuitOpen(settings, refused),
    nextId: () => `${instance}.${++issued}`
  }
  const local = new LocalCircuits({ ...parts, circuits: shared?.circuits ?? new MemoryCircuits(fallbackCapacity) })
  const circuits: Circuits = shared === undefined
    ? new SharedCircuits({ ...parts, store, local, context, scope })
    : local.asCircuits

  const leaveExit = <A, E>(
    passage: Passage,
    exit: Exit.Exit<A, E>,
    own: Classify<A, E> | undefined
  ): Effect.Effect<void> =>
    Effect.withFiber((fiber) => {
      const elapsedMillis = clock.currentTimeMillisUnsafe() - passage.startedAt
      let outcome: Outcome
      try {
        outcome = own?.(exit, elapsedMillis) ?? classify?.(exit, elapsedMillis) ??
          fiber.getRef(Classifier)(exit, elapsedMillis)
      } catch (defect) {
        // It frees what was held, and the throw stays a defect.
        return Effect.andThen(circuits.leave(passage, ignored, false), Effect.die(defect))
      }
      return circuits.leave(passage, outcome, elapsedMillis > settings.slowMillis)
    })

  const guardShared = <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: GuardOptions<A, E>
  ): Effect.Effect<A, E | CircuitOpen, R> =>
    Effect.uninterruptibleMask((restore) => {
      const passage = new Passage(options?.key ?? defaultKey)
      return Effect.flatMap(circuits.enter(passage), () => {
        const body = passage.lease === undefined ? self : Effect.provideService(self, CurrentProbe, probeOf(passage))
        return Effect.onExitPrimitive(restore(body), (exit) => leaveExit(passage, exit, options?.classify))
      })
    })

  const guardStream = <A, E, R>(
    self: Stream.Stream<A, E, R>,
    options?: GuardStreamOptions<A, E>
  ): Stream.Stream<A, E | CircuitOpen, R> =>
    Stream.fromChannel(Channel.fromTransformBracket((_, __, scope) => {
      const passage = new Passage(options?.key ?? defaultKey)
      let isIn = false
      const leaveOnce = (how: () => Effect.Effect<void>): Effect.Effect<void> =>
        Effect.uninterruptible(Effect.suspend(() => {
          if (!isIn) return Effect.void
          isIn = false
          return how()
        }))
      const ended = (exit: Exit.Exit<void, E>) => leaveOnce(() => leaveExit(passage, exit, options?.classify))

      const enter = Effect.uninterruptible(Effect.flatMap(circuits.enter(passage), () => {
        isIn = true
        // Whatever else closes the stream, a consumer that leaves or an interruption, says nothing by itself; but a classifier
        // may know that it was too slow.
        return Scope.addFinalizerExit(scope, (exit) =>
          Exit.isSuccess(exit)
            ? leaveOnce(() => circuits.leave(passage, ignored, false))
            : ended(Exit.interrupt()))
      }))

      const watch = (pull: Pull.Pull<readonly [A, ...Array<A>], E, void, R>) =>
        Effect.matchCauseEffect(pull, {
          onFailure: (cause) =>
            Effect.andThen(
              ended(Pull.isDoneCause(cause) ? Exit.void : Exit.failCause(withoutDone(cause))),
              Effect.failCause(cause)
            ),
          onSuccess: (parts) => {
            if (passage.lease !== undefined) circuits.progress(passage)
            return options?.isComplete !== undefined && parts.some(options.isComplete)
              ? Effect.as(ended(Exit.void), parts)
              : Effect.succeed(parts)
          }
        })

      const body = Effect.suspend(() =>
        Channel.toPullScoped(
          Stream.toChannel(
            passage.lease === undefined ? self : Stream.provideService(self, CurrentProbe, probeOf(passage))
          ),
          scope
        )
      )
      return Effect.andThen(enter, Effect.map(body, watch))
    }))

  const read = (key: string | undefined) => circuits.read(key ?? defaultKey)
  const stateOf = (snapshot: Store.Snapshot): State => describeState(snapshot, policy)

  const inProcess = { local, settings, classify }
  const service = CircuitBreaker.of({
    guard: eitherOrder(shared === undefined ? guardShared : guardLocally(inProcess, defaultKey)),
    guardStream: dual((args) => Stream.isStream(args[0]), guardStream),
    check: (key) =>
      Effect.flatMap(circuits.look(key ?? defaultKey), (open) => open === undefined ? Effect.void : Effect.fail(open)),
    state: (key) => Effect.map(read(key), stateOf),
    states: (page) =>
      Effect.map(
        circuits.list(page?.after, page?.limit ?? 100),
        (snapshots) => snapshots.map((snapshot) => ({ key: snapshot.key, state: stateOf(snapshot) }))
      ),
    failureCount: (key) => Effect.map(read(key), (snapshot) => stateOf(snapshot).failures),
    transitions: journal.transitions.stream,
    decisions: journal.decisions.stream,
    control: (wish) => Effect.flatMap(readControl(wish), (to) => forced(circuits, wish.key ?? defaultKey, to)),
    reset: (key, reason) => circuits.set(key ?? defaultKey, closedBecause(reason ?? "")),
    stats: Effect.sync(() => journal.stats)
  })
  return shared === undefined ? service : setLocal(service, inProcess)
})

type Guard = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  options?: GuardOptions<A, E>
) => Effect.Effect<A, E | CircuitOpen, R>

// `dual` looks at an array of its arguments, which takes 60 of the 370 ns of a call that is guarded anew each time.
const eitherOrder = (guard: Guard): CircuitBreaker["Service"]["guard"] =>
  // Overloads are for the caller to tell apart; here the first argument does.
  ((
    first?: Effect.Effect<unknown, unknown> | GuardOptions<unknown, unknown>,
    options?: GuardOptions<unknown, unknown>
  ) =>
    Effect.isEffect(first)
      ? guard(first, options)
      : (self: Effect.Effect<unknown, unknown>) => guard(self, first)) as unknown as CircuitBreaker["Service"]["guard"]

// Circuits that stand in for a store that is down: as many as a store in memory keeps.
const fallbackCapacity = 10_000

const closedBecause = (reason: string): Store.Target => ({
  _tag: "Closed",
  rampMillis: 0,
  openings: 0,
  lastOpen: 0,
  reason
})

const readControl = (wish: ControlOptions): Effect.Effect<Store.Target, InvalidOptions> => {
  const options = new Options("CircuitBreaker")
  if (typeof wish !== "object" || wish === null) {
    options.refuse("options", wish, "an object")
    return options.check(closedBecause(""))
  }
  options.oneOf("mode", wish.mode, ["Auto", "ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"])
  const forMillis = wish.for === undefined ? 0 : options.millis("for", wish.for, 1)
  const { mode, reason } = wish
  if (typeof reason !== "string") options.refuse("reason", reason, "a text")
  if (wish.key !== undefined && typeof wish.key !== "string") options.refuse("key", wish.key, "a text")
  return options.check(mode === "Auto" ? closedBecause(reason) : { _tag: "Forced", forMillis, mode, reason })
}

// `Auto` lifts what was forced, and leaves alone what was not.
const forced = (circuits: Circuits, key: string, to: Store.Target): Effect.Effect<void, Store.StoreError> =>
  to._tag === "Forced"
    ? circuits.set(key, to)
    : Effect.flatMap(
      circuits.read(key),
      ({ control }) => control._tag === "Forced" ? circuits.set(key, to) : Effect.void
    )

const circuitOpen = (
  { name, openMillis }: Settings,
  { because, control, key, now, retryAfterMillis }: Refused
): CircuitOpen => {
  const hintMillis = control._tag === "Open" ? control.hinted - now : 0
  const millis = retryAfterMillis > 0 ? retryAfterMillis : openMillis(1)
  const state = nameOf(control, now)
  return stackless(() =>
    new CircuitOpen({
      policy: name,
      key,
      state: state === "Open" || state === "HalfOpen" || state === "ForcedOpen" ? state : "Ramp",
      retryAfter: Duration.millis(Math.max(1, millis)),
      ...(hintMillis > millis ? { hint: Duration.millis(hintMillis) } : undefined),
      ...because,
      ...(control._tag === "Forced" ? { reason: control.reason } : undefined)
    })
  )
}

const describeState = (snapshot: Store.Snapshot, policy: Policy): State => {
  const { control, evidence, generation, now, probing } = snapshot
  const common = {
    generation,
    failures: control._tag === "Open" ? control.because.failures : streak(evidence.ring),
    evidence: control._tag === "Open" ? control.because : tally(snapshot, policy)
  }
  const left = (until: number) => until > now ? Duration.millis(until - now) : undefined
  if (control._tag === "Forced") {
    return { ...common, _tag: control.mode, reason: control.reason, liftedIn: left(control.until) }
  }
  if (control._tag === "Closed") {
    return { ...common, _tag: "Closed", rampsFor: left(control.until), reason: control.reason }
  }
  const { openings } = control
  return isHalfOpen(control, now)
    ? { ...common, _tag: "HalfOpen", openings, probing }
    : {
      ...common,
      _tag: "Open",
      openings,
      retryAfter: Duration.millis(control.until - now),
      hint: left(control.hinted)
    }
}

const readOptions = (
  input: CircuitBreakerOptions = {}
): Effect.Effect<
  { readonly settings: Checked; readonly classify: CircuitBreakerOptions["classify"] },
  InvalidOptions
> => {
  const options = new Options("CircuitBreaker")
  const settings = checkBreaker(options, input, "")
  return options.check({ settings, classify: input?.classify })
}

// A schedule that never ends is not followed for ever: after so many openings in a row its delay is what it is.
const mostOpenings = 1_000

const openTime = (
  { openFor, openJitter }: Checked,
  context: Context.Context<never>,
  chance: () => number
): (openings: number) => number => {
  const jittered = (millis: number) => openJitter === 0 ? millis : Math.round(millis * (1 + openJitter * chance()))
  if (typeof openFor === "number") return () => jittered(openFor)
  return (openings) => {
    const millis = Effect.runSyncWith(context)(replayed(openFor, Math.min(openings, mostOpenings)))
    return jittered(Number.isFinite(millis) ? millis : Number.MAX_SAFE_INTEGER)
  }
}

/**
 * Provides `CircuitBreaker` over the store that is there.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: CircuitBreakerOptions
): Layer.Layer<CircuitBreaker, InvalidOptions, Store.CircuitBreakerStore> => Layer.effect(CircuitBreaker, make(options))

/**
 * Provides `CircuitBreaker` with circuits of its own, kept in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory = (options?: CircuitBreakerOptions): Layer.Layer<CircuitBreaker, InvalidOptions> =>
  Layer.provide(layer(options), Layer.fresh(Store.layerMemory))

/**
 * A breaker that lets everything through.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: CircuitBreaker["Service"] = CircuitBreaker.of({
  guard: dual((args) => Effect.isEffect(args[0]), <A, E, R>(self: Effect.Effect<A, E, R>) => self),
  guardStream: dual((args) => Stream.isStream(args[0]), <A, E, R>(self: Stream.Stream<A, E, R>) => self),
  check: () => Effect.void,
  state: () =>
    Effect.succeed({
      _tag: "Closed",
      generation: 0,
      failures: 0,
      evidence: { calls: 0, failures: 0, slow: 0 },
      rampsFor: undefined,
      reason: ""
    }),
  states: () => Effect.succeed([]),
  failureCount: () => Effect.succeed(0),
  transitions: Stream.empty,
  decisions: Stream.empty,
  control: () => Effect.void,
  reset: () => Effect.void,
  stats: Effect.sync(() => new CircuitJournal().stats)
})

/**
 * Lets everything through, for tests and for switching the policy off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<CircuitBreaker> = Layer.succeed(CircuitBreaker, noop)
