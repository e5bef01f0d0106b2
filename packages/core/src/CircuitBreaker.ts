/**
 * Stops calling a dependency that is down, and lets probes through to find out when it is back.
 *
 * A breaker keeps one circuit for each key. While the circuit is closed, calls run and their outcomes are counted. When a trip
 * policy holds, the circuit opens: calls fail fast with `CircuitOpen`, which has the evidence and the time to retry after. When
 * the open time has elapsed the circuit is half-open: a few calls are let through as probes, and their outcomes close the
 * circuit or open it again.
 *
 * **When to use**
 *
 * Around every attempt at a service that can be down: inside the retry, outside the timeout, so that a call that hangs counts
 * as a failure. For a service that is only slow or busy, use backpressure.
 *
 * **Details**
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `trip` | `consecutive(5)` | detects an outage quickly at any call rate; add `failureRate` if some calls succeed during an outage |
 * | `openFor` | 30 seconds | about the time of a restart or a failover |
 * | `openJitter` | 0 | with circuits in many processes, 0.2 keeps their probes apart |
 * | `maxOpenFor` | 1 hour | caps what a Retry-After or a schedule can ask for |
 * | `probes` | 1 | one call shows whether the dependency is back |
 * | `probesToClose` | all of `probes` | one failure of a service that was just down is reason to wait longer |
 * | `probeLease` | 60 seconds | a probe without an outcome by then hangs, and another call may try |
 * | `rampUp` | 0: none | for a service that a rush would take down again |
 * | `slowAfter` | 30 seconds | from when `slowCallRate` counts a call as slow, and a probe as failed |
 * | `storeTimeout` | 100 millis | how long a shared store may delay a call in all |
 * | `staleness` | 5 seconds | how long an idle process trusts its copy of a shared circuit |
 * | `heartbeat` | 10 seconds | how long a shared store keeps the probe slot of a process that died |
 *
 * The classifier chain decides what counts (see `Outcome`). `Throttled` and `Ignored` do not count; as a probe they free the
 * slot for the next call, which waits for a Retry-After. A failure with a `retryAfter` makes the opening last at least that long,
 * up to `maxOpenFor`. The refusal has the whole hint.
 *
 * **Gotchas**
 *
 * - Calls that were admitted before the circuit moved run to their end, but their outcomes no longer count. A late Retry-After
 *   can still lengthen an opening.
 * - "Consecutive" is in the order in which calls end.
 * - `probeLease` must be longer than the slowest call: an outcome after the lease does not count. A stream renews its lease
 *   with every part.
 * - A stream is judged by upstream: whether it failed, ended, or `isComplete` held. A consumer that leaves early counts as
 *   `Ignored`.
 * - A call that is guarded twice under one key counts twice while the circuit is closed.
 * - A window of time is divided into ten buckets, so it covers between nine tenths and all of its time.
 * - A store that is slow or down fails no call. Circuits of this process are used, one warning is logged, and the store is tried
 *   again once a second.
 *
 * **Example** (Refused, once the circuit is open)
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
 * }).pipe(Effect.provide(CircuitBreaker.layer({ trip: CircuitBreaker.consecutive(1), openFor: "30 seconds" })))
 *
 * console.log((await Effect.runPromise(program)).join(", ")) // => 503, CircuitOpen
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Store from "./CircuitBreakerStore.ts"
import { setGate } from "./internal/admission/attempt.ts"
import { makeBreakerService } from "./internal/admission/circuitBreaker.ts"
import type { CircuitOpen } from "./internal/circuit/circuitOpen.ts"
import { CircuitJournal } from "./internal/circuit/journal.ts"
import { readBreaker } from "./internal/circuit/options.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { OptionsReader } from "./OptionsReader.ts"
import type { Classify, Outcome } from "./Outcome.ts"

export { CircuitOpen } from "./internal/circuit/circuitOpen.ts"

/**
 * When a circuit opens. Made by `consecutive`, `failureRate` and `slowCallRate`.
 *
 * @since 0.1.0
 * @category models
 */
export type TripPolicy =
  | { readonly _tag: "Consecutive"; readonly failures: number }
  | {
    readonly _tag: "FailureRate" | "SlowCallRate"
    readonly rate: number
    /** The window is this many last calls, unless it is a time. */
    readonly calls: number | undefined
    /** The window is this much time. */
    readonly within: Duration.Input | undefined
    /** With fewer calls in the window the rate is not computed. */
    readonly minimum: number
  }

/**
 * Opens after this many failures without a success in between.
 *
 * @since 0.1.0
 * @category trip policies
 */
export const consecutive = (failures: number): TripPolicy => ({ _tag: "Consecutive", failures })

/**
 * Options for `failureRate` and `slowCallRate`.
 *
 * **Details**
 *
 * - `rate`: the share of calls that opens the circuit, above 0 and at most 1.
 * - `calls`: the window is this many last calls. Default 20.
 * - `within`: the window is this much time, instead of `calls`.
 * - `minimum`: with fewer calls the rate is not computed. Default half of `calls`, or 10 of a time.
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
 * Opens when this share of the calls failed.
 *
 * **Example** (Half of the calls of the last 30 seconds, if there were 20)
 *
 * ```ts
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 *
 * const layer = CircuitBreaker.layer({
 *   trip: [CircuitBreaker.consecutive(5), CircuitBreaker.failureRate({ rate: 0.5, within: "30 seconds", minimum: 20 })]
 * })
 * ```
 *
 * @since 0.1.0
 * @category trip policies
 */
export const failureRate = (options: RateOptions): TripPolicy => rateOf("FailureRate", options)

/**
 * Opens when this share of the calls took longer than `slowAfter`, whether they failed or not.
 *
 * **When to use**
 *
 * For a service that gets slow before it fails. Calls that pile up behind it cost more than calls that are refused.
 *
 * @since 0.1.0
 * @category trip policies
 */
export const slowCallRate = (options: RateOptions): TripPolicy => rateOf("SlowCallRate", options)

// Keeps options of unknown names, so that the breaker can refuse them.
const rateOf = (_tag: "FailureRate" | "SlowCallRate", options: RateOptions): TripPolicy => {
  const { calls, minimum, within } = options
  // Only an absent option has a default. null, which JSON can contain, is refused like any wrong value.
  if (within !== undefined) return { ...options, _tag, calls, within, minimum: minimum === undefined ? 10 : minimum }
  const last = calls === undefined ? 20 : calls
  // A `calls` that is not a number is refused where a breaker is built.
  const half = typeof last === "number" ? Math.ceil(last / 2) : 1
  return { ...options, _tag, calls: last, within, minimum: minimum === undefined ? half : minimum }
}

/**
 * Options for `CircuitBreaker.make`. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface CircuitBreakerOptions {
  /** Used in refusals, logs and metrics. Default `"circuit breaker"`. */
  readonly name?: string | undefined
  /** One policy, or several of which any opens the circuit. Default `consecutive(5)`. */
  readonly trip?: TripPolicy | ReadonlyArray<TripPolicy> | undefined
  /**
   * How long the circuit stays open before probes are let through. Default 30 seconds. 0 probes at once.
   *
   * A duration is the same for every opening. Of a schedule, the n-th delay is for the n-th opening in a row; after its end the
   * last delay is used. A circuit that stays closed for as long as it was last open starts from the first again. The delays
   * are computed without waiting. A schedule whose first step waits is refused. A later step that waits repeats the last delay.
   */
  readonly openFor?: Duration.Input | Schedule.Schedule<unknown, number> | undefined
  /** Adds up to this share of the open time at random: 0 to 1. Default 0. */
  readonly openJitter?: number | undefined
  /** The longest opening, whatever a schedule or a Retry-After says. Default 1 hour. */
  readonly maxOpenFor?: Duration.Input | undefined
  /** How many probes are let through when the open time has elapsed: 1 to 100. Default 1. */
  readonly probes?: number | undefined
  /** How many probes have to succeed to close the circuit. Default all. */
  readonly probesToClose?: number | undefined
  /** How long a probe may take before its slot is free for another call. Default 60 seconds. */
  readonly probeLease?: Duration.Input | undefined
  /** After closing, the share of admitted calls grows over this time, from 1 % to all. Default 0: all at once. */
  readonly rampUp?: Duration.Input | undefined
  /** A call that takes longer is slow, for `slowCallRate`. Default 30 seconds. In a policy: less than its `attemptTimeout`. */
  readonly slowAfter?: Duration.Input | undefined
  /** How long a call waits for a shared store in all, before it uses circuits of this process. Default 100 millis. */
  readonly storeTimeout?: Duration.Input | undefined
  /** How long a cached snapshot of a shared circuit is trusted before it is read again. Default 5 seconds. */
  readonly staleness?: Duration.Input | undefined
  /** How long a shared store keeps the probe slot of a process that died. A live process renews it. Default 10 seconds. */
  readonly heartbeat?: Duration.Input | undefined
  /** The second classifier of the chain: after a call's own, before the `Classifier` reference. */
  readonly classify?: Classify<unknown, unknown> | undefined
}

/**
 * Options for `guard`.
 *
 * @since 0.1.0
 * @category models
 */
export interface GuardOptions<in A, in E> {
  /** Names the dependency, and so the circuit. Chosen by the developer, one of few. Default `"default"`. */
  readonly key?: string | undefined
  /** The first classifier of the chain. */
  readonly classify?: Classify<A, E> | undefined
}

/**
 * Options for `guardStream`.
 *
 * @since 0.1.0
 * @category models
 */
export interface GuardStreamOptions<in A, in E> extends GuardOptions<void, E> {
  /** Recognises the part that completes the answer. From it on the outcome is `Success`, whatever the consumer does. */
  readonly isComplete?: ((part: A) => boolean) | undefined
}

/**
 * The state of a circuit.
 *
 * @since 0.1.0
 * @category models
 */
export type State =
  & {
    /** Grows with every transition. */
    readonly generation: number
    /** Failures in a row. Of an open circuit, those that opened it. */
    readonly failures: number
    /** What is counted now. Of an open circuit, what opened it. */
    readonly evidence: Store.Tally
  }
  & (
    | {
      readonly _tag: "Closed"
      /** Time until every call is admitted. `undefined` without a ramp. */
      readonly rampsFor: Duration.Duration | undefined
      /** Why an operator reset it. Empty if it closed by its evidence. */
      readonly reason: string
    }
    | {
      readonly _tag: "Open"
      /** Openings in a row. */
      readonly openings: number
      /** Time until probes are let through. */
      readonly retryAfter: Duration.Duration
      /** The Retry-After of the dependency, if that is longer. */
      readonly hint: Duration.Duration | undefined
    }
    | { readonly _tag: "HalfOpen"; readonly openings: number; readonly probing: number }
    | {
      readonly _tag: Store.Mode
      readonly reason: string
      /** Time until it is lifted. `undefined`: when an operator lifts it. */
      readonly liftedIn: Duration.Duration | undefined
    }
  )

/**
 * A transition of a circuit.
 *
 * @since 0.1.0
 * @category models
 */
export interface Transition {
  readonly key: string
  readonly from: State["_tag"]
  /** `HalfOpen`: this breaker let the first probe through. It is not stored, so every process reports its own. */
  readonly to: State["_tag"]
  /** What was counted when it moved. To half-open: what had opened it. */
  readonly evidence: Store.Tally
  /** Openings in a row, with this one. */
  readonly openings: number
  /** How long it is open. `undefined` if it moved to another state. */
  readonly openFor: Duration.Duration | undefined
  /** Why an operator moved it. Empty otherwise. */
  readonly reason: string
  /** Epoch milliseconds of the store. */
  readonly at: number
}

/**
 * A decision of the breaker about a call.
 *
 * | tag | meaning |
 * |---|---|
 * | `Admitted` | a call was let through, `isProbe` as a probe |
 * | `Refused` | a call was not made |
 * | `Counted` | a call ended; a late outcome is not `counted` |
 * | `WouldOpen` | a circuit in `ObserveOnly` would have opened on this evidence |
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
 * Counters of a breaker, over all its circuits, since it was made.
 *
 * @since 0.1.0
 * @category models
 */
export interface Stats {
  /** Admitted calls, by outcome. */
  readonly outcomes: Readonly<Record<Outcome["_tag"], number>>
  readonly refused: number
  /** Transitions, by the new state. */
  readonly moves: Readonly<Record<Transition["to"], number>>
  /** Requests to a shared store that failed. */
  readonly storeFailures: number
  /** Transitions and decisions that slow readers have lost. */
  readonly dropped: number
}

/**
 * Options for `control`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ControlOptions {
  /** Default `"default"`. */
  readonly key?: string | undefined
  /** `Auto` lifts a forced mode: the circuit closes, without evidence. */
  readonly mode: Store.Mode | "Auto"
  /** Why, for the next operator. It is kept in the store and part of `state`, and is not logged. */
  readonly reason: string
  /** Lifts the mode after this time. Default: when an operator lifts it. */
  readonly for?: Duration.Input | undefined
}

/**
 * A circuit breaker.
 *
 * @since 0.1.0
 * @category services
 */
export class CircuitBreaker extends Context.Service<CircuitBreaker, {
  /** Runs the effect if its circuit admits it. Fails with `CircuitOpen` otherwise. */
  readonly guard: {
    <A, E>(
      options?: GuardOptions<A, E>
    ): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | CircuitOpen, R>
    <A, E, R>(self: Effect.Effect<A, E, R>, options?: GuardOptions<A, E>): Effect.Effect<A, E | CircuitOpen, R>
  }
  /** Runs the stream if its circuit admits it, and records how upstream ended. */
  readonly guardStream: {
    <A, E>(
      options?: GuardStreamOptions<A, E>
    ): <R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | CircuitOpen, R>
    <A, E, R>(
      self: Stream.Stream<A, E, R>,
      options?: GuardStreamOptions<A, E>
    ): Stream.Stream<A, E | CircuitOpen, R>
  }
  /** Fails with `CircuitOpen` if a call would be refused now. Changes nothing and takes no slot. */
  readonly check: (key?: string) => Effect.Effect<void, CircuitOpen>
  /** Returns the state of a circuit. Changes nothing. */
  readonly state: (key?: string) => Effect.Effect<State, Store.StoreError>
  /** Returns the state of all circuits of the store, ordered by key, after `after`. Default 100 at a time. */
  readonly states: (
    page?: { readonly after?: string | undefined; readonly limit?: number | undefined }
  ) => Effect.Effect<ReadonlyArray<{ readonly key: string; readonly state: State }>, Store.StoreError>
  /** Failures in a row while closed. While open, those that opened the circuit. */
  readonly failureCount: (key?: string) => Effect.Effect<number, Store.StoreError>
  /** The transitions that this breaker makes, from now on. A slow reader loses the oldest; `stats` counts them. */
  readonly transitions: Stream.Stream<Transition>
  /** The decisions of this breaker, from now on. Costs nothing without a reader. */
  readonly decisions: Stream.Stream<Decision>
  /** Forces the circuit open or closed, switches it off, or lifts that: for every process that shares it. */
  readonly control: (options: ControlOptions) => Effect.Effect<void, Store.StoreError | InvalidOptions>
  /** Closes the circuit and drops its evidence. Outcomes of calls admitted before no longer count. */
  readonly reset: (key?: string, reason?: string) => Effect.Effect<void, Store.StoreError>
  readonly stats: Effect.Effect<Stats>
}>()("@sluice/core/CircuitBreaker") {}

/**
 * Builds a breaker over the store in the context.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (
  options?: CircuitBreakerOptions
) => Effect.Effect<CircuitBreaker["Service"], InvalidOptions, Store.CircuitBreakerStore | Scope.Scope> = (
  options = {}
) =>
  Effect.flatMap(Store.CircuitBreakerStore, (store) => {
    const reader = new OptionsReader("CircuitBreaker")
    return Effect.flatMap(
      reader.check(readBreaker(reader, options, "")),
      (checked) => makeBreakerService(checked, options.classify, store)
    )
  })

/**
 * Provides a `CircuitBreaker` whose circuits are kept in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: CircuitBreakerOptions): Layer.Layer<CircuitBreaker, InvalidOptions> =>
  Layer.provide(layerStore(options), Layer.fresh(Store.layerMemory))

/**
 * Provides a `CircuitBreaker` over the `CircuitBreakerStore` in the context, which others can share.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStore = (
  options?: CircuitBreakerOptions
): Layer.Layer<CircuitBreaker, InvalidOptions, Store.CircuitBreakerStore> => Layer.effect(CircuitBreaker, make(options))

/**
 * A breaker that admits every call.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: CircuitBreaker["Service"] = setGate(
  CircuitBreaker.of({
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
  }),
  "CircuitBreaker",
  { breaker: undefined, permits: undefined }
)

/**
 * Provides a breaker that admits every call, for tests and to switch the breaker off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<CircuitBreaker> = Layer.succeed(CircuitBreaker, noop)
