/**
 * Stops calling a dependency that is down, and finds out when it is back.
 *
 * A breaker keeps one circuit for each key. While it is closed, calls run and their outcomes are counted. When a trip policy
 * holds, it opens: calls fail at once with `CircuitOpen`, which says on what evidence and when to come back. When the open
 * time is over the circuit is half-open: one call is let through as a probe, the others are still refused, and its outcome
 * closes the circuit or opens it again.
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
 * | `probeLease` | 60 seconds | a probe that has not told by then hangs, and another call may try |
 *
 * What counts is for the classifier chain to say (see `Outcome`). `Throttled` and `Ignored` count nowhere: as a probe
 * they free the place for the next one.
 *
 * **Gotchas**
 *
 * - Calls that were admitted before the circuit moved run to their end, but their outcomes change nothing any more.
 * - "Consecutive" counts in the order in which calls end.
 * - Give `probeLease` more time than the slowest call takes: an answer that comes after the lease has lapsed does not count.
 * - A stream's verdict is upstream's: failed, or ended, or `isComplete` was seen. A consumer that leaves early says nothing.
 * - A store that fails lets calls through, and logs a warning.
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
import * as PubSub from "effect/PubSub"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Store from "./CircuitBreakerStore.ts"
import {
  admission,
  decide,
  isHalfOpen,
  type Policy,
  sample,
  streak,
  tally,
  windowOf
} from "./internal/circuitMachine.ts"
import * as machine from "./internal/circuitMachine.ts"
import { Options } from "./internal/options.ts"
import { RefusalTypeId } from "./internal/refusal.ts"
import { stackless } from "./internal/stackless.ts"
import { withoutDone } from "./internal/streams.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { Classifier, type Classify, ignored, type Outcome } from "./Outcome.ts"

/**
 * The circuit of this key is open: the call was not made.
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
  /** `HalfOpen`: a probe is under way, and this call was not it. */
  state: Schema.Literals(["Open", "HalfOpen"]),
  /** Time after which a call may be let through, more than zero. */
  retryAfter: Schema.DurationFromMillis,
  /** Calls that were looked at when the circuit opened. */
  calls: Schema.Int,
  /** How many of them had failed. */
  failures: Schema.Int
}) {
  get [RefusalTypeId](): true {
    return true
  }
  override get message(): string {
    const state = this.state === "Open" ? "circuit open" : "circuit half-open, a probe is under way"
    return `${state}: ${this.failures} of ${this.calls} failed; retry in ${Duration.format(this.retryAfter)}`
  }
}

/**
 * When a circuit opens. Make one with `consecutive` or `failureRate`.
 *
 * @since 0.1.0
 * @category models
 */
export type TripPolicy = machine.TripPolicy

/**
 * Opens after so many failures without a success in between.
 *
 * @since 0.1.0
 * @category trip policies
 */
export const consecutive = (failures: number): TripPolicy => ({ _tag: "Consecutive", failures })

/**
 * Opens when so large a part of the last `calls` calls has failed.
 *
 * **Details**
 *
 * `rate` is from 0 to 1. `calls` defaults to 20; `minimum` to half of it: fewer calls than that say nothing about a rate.
 *
 * @since 0.1.0
 * @category trip policies
 */
export const failureRate = (options: {
  readonly rate: number
  readonly calls?: number | undefined
  readonly minimum?: number | undefined
}): TripPolicy => {
  const calls = options.calls ?? 20
  return { _tag: "FailureRate", rate: options.rate, calls, minimum: options.minimum ?? Math.ceil(calls / 2) }
}

/**
 * What a breaker is built from.
 *
 * @since 0.1.0
 * @category models
 */
export interface CircuitBreakerOptions {
  /** Named in refusals. Default `"circuit breaker"`. */
  readonly name?: string | undefined
  /** One policy, or several of which any opens the circuit. Default `consecutive(5)`. */
  readonly trip?: TripPolicy | ReadonlyArray<TripPolicy> | undefined
  /** How long the circuit stays open before a probe is let through. Default 30 seconds; 0 probes at once. */
  readonly openFor?: Duration.Input | undefined
  /** How long a probe may take before its place is free for another call. Default 60 seconds. */
  readonly probeLease?: Duration.Input | undefined
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
  | { readonly _tag: "Closed"; readonly generation: number; readonly failures: number }
  | {
    readonly _tag: "Open"
    readonly generation: number
    readonly failures: number
    /** Time until a probe is let through. */
    readonly retryAfter: Duration.Duration
  }
  | { readonly _tag: "HalfOpen"; readonly generation: number; readonly failures: number; readonly probing: number }

/**
 * A circuit moved.
 *
 * @since 0.1.0
 * @category models
 */
export interface Transition {
  readonly key: string
  readonly from: State["_tag"]
  readonly to: "Closed" | "Open"
  /** What was counted when it moved. */
  readonly evidence: Store.Tally
  /** Epoch milliseconds of the store. */
  readonly at: number
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
  /** Failures in a row while closed; while open, those that opened it. */
  readonly failureCount: (key?: string) => Effect.Effect<number, Store.StoreError>
  /** What this breaker moved, from the moment of subscribing. A slow reader misses the oldest ones. */
  readonly transitions: Stream.Stream<Transition>
  /** Closes the circuit and forgets what was counted. What was admitted before changes nothing any more. */
  readonly reset: (key?: string) => Effect.Effect<void, Store.StoreError>
}>()("@sluice/core/CircuitBreaker") {}

const defaultKey = "default"

/** The right to make one call: under which generation, and for a probe under which lease. */
interface Admitted {
  readonly key: string
  readonly generation: number
  readonly lease: string | undefined
  readonly startedAt: number
}

/**
 * Builds a breaker over the store.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = Effect.fnUntraced(function*(options?: CircuitBreakerOptions) {
  const { classify, name, policy, probeLeaseMillis } = yield* readOptions(options)
  const store = yield* Store.CircuitBreakerStore
  const clock = yield* Clock.Clock
  const transitions = yield* PubSub.sliding<Transition>(256)
  yield* Effect.addFinalizer(() => PubSub.shutdown(transitions))
  const window: Store.Window = { calls: windowOf(policy.trip) }

  // Ids of leases and transitions are made here, so that a request whose reply was lost can be repeated.
  const instance = `${(yield* Random.nextInt).toString(36)}.${(yield* Random.nextInt).toString(36)}`
  let issued = 0
  const nextId = (): string => `${instance}.${++issued}`

  const refuse = (snapshot: Store.Snapshot, retryAfterMillis: number): Effect.Effect<never, CircuitOpen> => {
    const because = snapshot.control._tag === "Open" ? snapshot.control.because : tally(snapshot.evidence.ring)
    return Effect.fail(stackless(() =>
      new CircuitOpen({
        policy: name,
        key: snapshot.key,
        state: isHalfOpen(snapshot) ? "HalfOpen" : "Open",
        retryAfter: Duration.millis(retryAfterMillis),
        calls: because.calls,
        failures: because.failures
      })
    ))
  }

  const admittedNow = (key: string, generation: number, lease: string | undefined): Effect.Effect<Admitted> =>
    Effect.succeed({ key, generation, lease, startedAt: clock.currentTimeMillisUnsafe() })

  /** Runs uninterruptibly: whoever is admitted must settle. */
  const admit = (key: string): Effect.Effect<Admitted, CircuitOpen> =>
    store.read({ key, window }).pipe(
      Effect.flatMap((snapshot): Effect.Effect<Admitted, CircuitOpen | Store.StoreError> => {
        const answer = admission(snapshot, policy)
        if (answer._tag === "Admitted") return admittedNow(key, snapshot.generation, undefined)
        if (answer._tag === "Refused") return refuse(snapshot, answer.retryAfterMillis)
        // Whoever had the probe before may have recorded its outcome and then died or lost the store.
        const left = decide(policy, snapshot, undefined)
        return left === undefined ? admitProbe(snapshot) : Effect.andThen(move(snapshot, left), admit(key))
      }),
      Effect.catchTag("StoreError", (error) => Effect.andThen(warn(error), admittedNow(key, 0, undefined)))
    )

  const admitProbe = (snapshot: Store.Snapshot): Effect.Effect<Admitted, CircuitOpen | Store.StoreError> => {
    const { generation, key } = snapshot
    const id = nextId()
    return Effect.flatMap(
      store.lease({ key, window, generation, id, limit: 1, ttlMillis: probeLeaseMillis }),
      (answer): Effect.Effect<Admitted, CircuitOpen> => {
        if (answer.ok) return admittedNow(key, generation, id)
        const stands = admission(answer.snapshot, policy)
        if (stands._tag === "Admitted") return admittedNow(key, answer.snapshot.generation, undefined)
        return refuse(
          answer.snapshot,
          stands._tag === "Refused" ? stands.retryAfterMillis : machine.probeResultMillis(answer.snapshot, policy)
        )
      }
    )
  }

  /** Runs uninterruptibly, once for each admission. */
  const settle = (admitted: Admitted, outcome: Outcome): Effect.Effect<void> => {
    const samples = samplesOf(outcome)
    if (samples === "" && admitted.lease === undefined) return Effect.void
    const open = outcome._tag === "Failure" && outcome.open !== undefined ? Duration.toMillis(outcome.open) : undefined
    const { generation, key, lease } = admitted
    return store.record({ key, window, generation, lease, samples }).pipe(
      Effect.flatMap(({ ok, snapshot }) => {
        const to = decide(policy, snapshot, ok ? open : undefined)
        return to === undefined ? Effect.void : Effect.asVoid(move(snapshot, to))
      }),
      Effect.catchTag("StoreError", warn)
    )
  }

  /** Whether the circuit was moved: it was not if it has moved on since the snapshot was taken. */
  const move = (snapshot: Store.Snapshot, to: Store.Target): Effect.Effect<boolean, Store.StoreError> => {
    const { generation, key } = snapshot
    return Effect.flatMap(store.transition({ key, window, generation, by: nextId(), to }), (answer) => {
      if (!answer.ok) return Effect.succeed(false)
      const from: State["_tag"] = isHalfOpen(snapshot) ? "HalfOpen" : snapshot.control._tag
      if (from === to._tag && from === "Closed") return Effect.succeed(true)
      const evidence = to._tag === "Open" ? to.because : tally(snapshot.evidence.ring)
      // `publishUnsafe` would drop the newest of a full hub, not the oldest.
      return Effect.as(PubSub.publish(transitions, { key, from, to: to._tag, evidence, at: answer.snapshot.now }), true)
    })
  }

  /** Settles by what the exit says. A classifier that throws frees what was held, and the throw stays a defect. */
  const settleExit = <A, E>(
    admitted: Admitted,
    exit: Exit.Exit<A, E>,
    own: Classify<A, E> | undefined
  ): Effect.Effect<void> => {
    const outcome = Effect.withFiber((fiber) => {
      const elapsedMillis = clock.currentTimeMillisUnsafe() - admitted.startedAt
      return Effect.succeed(
        own?.(exit, elapsedMillis) ?? classify?.(exit, elapsedMillis) ?? fiber.getRef(Classifier)(exit, elapsedMillis)
      )
    })
    return outcome.pipe(
      Effect.onError(() => settle(admitted, ignored)),
      Effect.flatMap((read) => settle(admitted, read))
    )
  }

  const guard = <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: GuardOptions<A, E>
  ): Effect.Effect<A, E | CircuitOpen, R> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(admit(options?.key ?? defaultKey), (admitted) =>
        Effect.flatMap(
          Effect.exit(restore(self)),
          (exit) => Effect.andThen(settleExit(admitted, exit, options?.classify), exit)
        ))
    )

  const guardStream = <A, E, R>(
    self: Stream.Stream<A, E, R>,
    options?: GuardStreamOptions<A, E>
  ): Stream.Stream<A, E | CircuitOpen, R> =>
    Stream.fromChannel(Channel.fromTransformBracket((_, __, scope) => {
      let open: Admitted | undefined
      const settleOnce = (how: (admitted: Admitted) => Effect.Effect<void>): Effect.Effect<void> =>
        Effect.uninterruptible(Effect.suspend(() => {
          if (open === undefined) return Effect.void
          const admitted = open
          open = undefined
          return how(admitted)
        }))
      const ended = (exit: Exit.Exit<void, E>) =>
        settleOnce((admitted) => settleExit(admitted, exit, options?.classify))

      const enter = Effect.uninterruptible(Effect.flatMap(admit(options?.key ?? defaultKey), (admitted) => {
        open = admitted
        // Whatever else closes the stream, a consumer that leaves or an interruption, says nothing.
        return Scope.addFinalizer(scope, settleOnce((left) => settle(left, ignored)))
      }))

      const watch = (pull: Pull.Pull<readonly [A, ...Array<A>], E, void, R>) =>
        Effect.matchCauseEffect(pull, {
          onFailure: (cause) =>
            Effect.andThen(
              ended(Pull.isDoneCause(cause) ? Exit.void : Exit.failCause(withoutDone(cause))),
              Effect.failCause(cause)
            ),
          onSuccess: (parts) =>
            options?.isComplete !== undefined && parts.some(options.isComplete)
              ? Effect.as(ended(Exit.void), parts)
              : Effect.succeed(parts)
        })

      return Effect.andThen(enter, Effect.map(Channel.toPullScoped(Stream.toChannel(self), scope), watch))
    }))

  const read = (key: string | undefined) => store.read({ key: key ?? defaultKey, window })

  const look = (key: string | undefined): Effect.Effect<void, CircuitOpen> =>
    read(key).pipe(
      Effect.flatMap((snapshot): Effect.Effect<void, CircuitOpen> => {
        const answer = admission(snapshot, policy)
        return answer._tag === "Refused" ? refuse(snapshot, answer.retryAfterMillis) : Effect.void
      }),
      Effect.catchTag("StoreError", warn)
    )

  const reset = (key: string | undefined): Effect.Effect<void, Store.StoreError> =>
    Effect.flatMap(
      read(key),
      (snapshot) => Effect.flatMap(move(snapshot, { _tag: "Closed" }), (moved) => moved ? Effect.void : reset(key))
    )

  return CircuitBreaker.of({
    guard: dual((args) => Effect.isEffect(args[0]), guard),
    guardStream: dual((args) => Stream.isStream(args[0]), guardStream),
    check: look,
    state: (key) => Effect.map(read(key), stateOf),
    failureCount: (key) => Effect.map(read(key), failuresOf),
    transitions: Stream.fromPubSub(transitions),
    reset
  })
})

const readOptions = (input: CircuitBreakerOptions = {}) => {
  const options = new Options("CircuitBreaker")
  return options.check({
    name: input.name ?? "circuit breaker",
    ...check(options, input, ""),
    classify: input.classify
  })
}

/** Reads a breaker's numbers into a list of issues, each option under the path that is given. */
export const check = (
  options: Options,
  input: CircuitBreakerOptions,
  path: string
): { readonly policy: Policy; readonly probeLeaseMillis: number } => {
  const trip: ReadonlyArray<TripPolicy> = input.trip === undefined
    ? [consecutive(5)]
    : "_tag" in input.trip
    ? [input.trip]
    : input.trip
  if (trip.length === 0) options.refuse(`${path}trip`, "[]", "at least one policy")
  for (const policy of trip) checkTrip(options, policy, `${path}trip`)
  return {
    policy: { trip, openMillis: options.millis(`${path}openFor`, input.openFor ?? Duration.seconds(30), 0) },
    probeLeaseMillis: options.millis(`${path}probeLease`, input.probeLease ?? Duration.seconds(60), 1)
  }
}

const checkTrip = (options: Options, policy: TripPolicy, path: string): void => {
  if (policy._tag === "Consecutive") {
    options.integer(`${path}.failures`, policy.failures, 1, 1_000)
    return
  }
  options.integer(`${path}.calls`, policy.calls, 1, 1_000)
  options.integer(`${path}.minimum`, policy.minimum, 1, policy.calls)
  if (!(policy.rate > 0 && policy.rate <= 1)) options.refuse(`${path}.rate`, policy.rate, "a number above 0, up to 1")
}

const samplesOf = (outcome: Outcome): string => {
  switch (outcome._tag) {
    case "Success":
      return sample(0)
    case "Failure":
      return sample(outcome.weight)
    default:
      return ""
  }
}

const stateOf = (snapshot: Store.Snapshot): State => {
  const { control, generation, now, probing } = snapshot
  const failures = failuresOf(snapshot)
  if (control._tag === "Closed") return { _tag: "Closed", generation, failures }
  return isHalfOpen(snapshot)
    ? { _tag: "HalfOpen", generation, failures, probing }
    : { _tag: "Open", generation, failures, retryAfter: Duration.millis(control.until - now) }
}

const failuresOf = ({ control, evidence }: Store.Snapshot): number =>
  control._tag === "Open" ? control.because.failures : Math.round(streak(evidence.ring))

// The store's own words go into the log, never the call's.
const warn = (error: Store.StoreError): Effect.Effect<void> =>
  Effect.logWarning("circuit breaker: the store failed, the call goes on without it", error.message)

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
  state: () => Effect.succeed({ _tag: "Closed", generation: 0, failures: 0 }),
  failureCount: () => Effect.succeed(0),
  transitions: Stream.empty,
  reset: () => Effect.void
})

/**
 * Lets everything through, for tests and for switching the policy off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<CircuitBreaker> = Layer.succeed(CircuitBreaker, noop)
