/**
 * Caps how many calls run at once. A call over the cap is refused, or waits in a bounded queue.
 *
 * A call holds a permit while it runs and gives it back exactly once, however it ends: success, failure, defect or
 * interruption. At capacity a call fails with `BackpressureShed`. With a `queue`, that many calls wait instead, first come,
 * first served, for at most `maxWait`.
 *
 * **When to use**
 *
 * For a service that gets slower under load, or whose account limits concurrency. To notice that a service is down, use a
 * circuit breaker. To keep a rate, use `Quota`: permits cap how many calls run, not how often.
 *
 * **Details**
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `capacity` | 16 | hides the latency of a model, and fits the concurrency limit of a small account |
 * | `queue` | 0 | an implicit queue would hide an overload |
 * | `maxWait` | none | the queue bounds the wait; set it if an answer is useless after some time |
 * | `softLimit` | none | the permits in use at which `pressure` reports `Soft` |
 * | `softRelease` | three quarters of `softLimit` | keeps calls that come and go at the limit from crossing it each time |
 *
 * - A call can take several permits (`withPermits`). Nothing overtakes the head of the queue: a call that needs one permit
 *   waits behind one that needs four. A call that needs more than `capacity` is refused at once, as `TooLarge`.
 * - A queued call resumes in a turn of the scheduler, not inside the call that gave the permit back.
 * - Queueing, leaving and resuming cost the same with a hundred queued calls and with ten thousand.
 *
 * **Gotchas**
 *
 * - A permit belongs to a call. There is no `release` that could be forgotten or called twice.
 * - A call that takes a permit inside a permit of the same service can wait for itself.
 * - A stream holds its permit until it ends, fails, or its consumer leaves.
 * - When the scope of `make`, or of the layer, closes, it drains: queued calls are refused, running calls continue.
 *
 * **Example** (One runs, one is queued, one is shed)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Backpressure from "@sluice/core/Backpressure"
 *
 * const program = Effect.gen(function*() {
 *   const { withPermit } = yield* Backpressure.Backpressure
 *   const call = Effect.delay(Effect.succeed("answered"), "10 millis").pipe(
 *     withPermit,
 *     Effect.catchTag("BackpressureShed", (shed) => Effect.succeed(`${shed.why}, ${shed.queued} queued`))
 *   )
 *   return yield* Effect.all([call, call, call], { concurrency: "unbounded" })
 * }).pipe(Effect.provide(Backpressure.layer({ capacity: 1, queue: 1 })))
 *
 * console.log((await Effect.runPromise(program)).join("; ")) // => answered; answered; Full, 1 queued
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual, identity } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Gate, GuardedEffect, type Hooks, setGate } from "./internal/admission/attempt.ts"
import { guardStream } from "./internal/admission/guardStream.ts"
import { acquire } from "./internal/admission/held.ts"
import type { AnyEffect } from "./internal/kit/primitive.ts"
import { type Limiter, makeLimiter } from "./internal/permits/limiter.ts"
import { readBackpressure, readPermitOptions, type Settings } from "./internal/permits/options.ts"
import type { PermitRefusal, PermitRequest } from "./internal/permits/permits.ts"
import type { BackpressureShed } from "./internal/permits/shed.ts"
import type { Hold } from "./internal/quota/hold.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { OptionsReader } from "./OptionsReader.ts"

export { BackpressureShed } from "./internal/permits/shed.ts"

/**
 * Options for `Backpressure.make`. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface BackpressureOptions {
  /** Used in refusals and metrics. Default `"backpressure"`. */
  readonly name?: string | undefined
  /** How many permits there are, and so how many calls of one permit run at once. Default 16. */
  readonly capacity?: number | undefined
  /** How many more calls may be queued. Default 0: a call that cannot run is shed. */
  readonly queue?: number | undefined
  /** How long a call may be queued. 0: no call queues. Default: without a limit. */
  readonly maxWait?: Duration.Input | undefined
  /** The permits in use at which the level becomes `Soft`. At least 1, below `capacity`. Default none. */
  readonly softLimit?: number | undefined
  /** The permits in use at which the level is `Normal` again. Below `softLimit`. Default three quarters of it, rounded down. */
  readonly softRelease?: number | undefined
}

/**
 * Options for one call.
 *
 * @since 0.1.0
 * @category models
 */
export interface PermitOptions {
  /** How many permits the call takes, at least 1. Default 1. Give a heavier call more. */
  readonly permits?: number | undefined
  /** How long the call may be queued. 0: it runs at once or is shed. Default: the policy's `maxWait`. */
  readonly maxWait?: Duration.Input | undefined
}

/**
 * A change of level.
 *
 * **Details**
 *
 * | level | reached | left |
 * |---|---|---|
 * | `Full` | every permit is in use, or a call is queued | no call is queued, and at most three quarters of the permits are in use |
 * | `Soft` | permits in use are at `softLimit` or above | permits in use are at `softRelease` or below |
 * | `Normal` | otherwise | |
 *
 * @since 0.1.0
 * @category models
 */
export interface Pressure {
  readonly level: "Normal" | "Soft" | "Full"
  /** Permits in use. */
  readonly running: number
  /** Epoch milliseconds. */
  readonly at: number
}

/**
 * The state and the counters at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  readonly capacity: number
  /** Permits in use. */
  readonly running: number
  /** Calls in the queue. */
  readonly queued: number
  /** How many calls fit in the queue. */
  readonly queue: number
  /** Calls that run, are queued, or, under a policy, back off between attempts. */
  readonly slots: number
  readonly level: Pressure["level"]
  readonly draining: boolean
  /** Calls that got their permits. */
  readonly admitted: number
  /** Calls that were refused. */
  readonly shed: { readonly [why in BackpressureShed["why"]]: number }
  /** Calls that left the queue before their turn: interrupted, or past their deadline. */
  readonly abandoned: number
  /** Changes of level that slow readers of `pressure` have lost. */
  readonly dropped: number
}

/**
 * Caps how many calls run at once.
 *
 * @since 0.1.0
 * @category services
 */
export class Backpressure extends Context.Service<Backpressure, {
  /** Runs the effect with one permit: at once, after queueing, or not at all (`BackpressureShed`). */
  readonly withPermit: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | BackpressureShed, R>
  /** Runs the effect with several permits, or with a `maxWait` of its own. */
  readonly withPermits: {
    (
      options: PermitOptions
    ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | BackpressureShed | InvalidOptions, R>
    <A, E, R>(
      self: Effect.Effect<A, E, R>,
      options: PermitOptions
    ): Effect.Effect<A, E | BackpressureShed | InvalidOptions, R>
  }
  /** Runs the stream with one permit, held until the stream ends, fails, or its consumer leaves. */
  readonly withPermitStream: <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | BackpressureShed, R>
  /** Runs the stream with several permits, or with a `maxWait` of its own. */
  readonly withPermitsStream: {
    (
      options: PermitOptions
    ): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | BackpressureShed | InvalidOptions, R>
    <A, E, R>(
      self: Stream.Stream<A, E, R>,
      options: PermitOptions
    ): Stream.Stream<A, E | BackpressureShed | InvalidOptions, R>
  }
  /** Takes a permit until the scope closes. Never queues. */
  readonly tryAcquire: Effect.Effect<void, BackpressureShed, Scope.Scope>
  /** How many permits are in use. */
  readonly running: Effect.Effect<number>
  /** How many calls are queued. */
  readonly queued: Effect.Effect<number>
  /** Permits in use divided by `softLimit`: above 1 over the limit, 0 without one. */
  readonly softLimitRatio: Effect.Effect<number>
  /**
   * The changes of level, up and down, from now on. A reader that falls 256 behind loses the oldest; `snapshot` counts them.
   * Ends with the scope of the service.
   */
  readonly pressure: Stream.Stream<Pressure>
  readonly snapshot: Effect.Effect<Snapshot>
  /**
   * Changes the capacity. Running calls continue. A smaller capacity admits no call until it fits, a larger one admits queued calls
   * at once. A queued call that needs more permits than the new capacity is refused as `TooLarge`. `softLimit` stays as it is.
   */
  readonly resize: (capacity: number) => Effect.Effect<void, InvalidOptions>
  /**
   * Refuses every new and every queued call as `Draining`, and waits until the running calls have ended. `true` then; `false` if
   * `resume` was called before. Interrupting it ends only the wait. A call that drains the service whose permit it holds waits
   * for itself.
   */
  readonly drain: Effect.Effect<boolean>
  /** Admits calls again after `drain`. */
  readonly resume: Effect.Effect<void>
}>()("@sluice/core/Backpressure") {}

/**
 * Builds a limit with its own state.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (
  options?: BackpressureOptions
) => Effect.Effect<Backpressure["Service"], InvalidOptions, Scope.Scope> = Effect.fnUntraced(function*(input = {}) {
  const options = new OptionsReader("Backpressure")
  const settings = yield* options.check(readBackpressure(options, input))
  const limiter = yield* makeLimiter(settings, refusalOf)
  const onClose = new Set<() => void>()
  yield* Effect.addFinalizer(() => Effect.sync(() => onClose.forEach((close) => close())))
  return serviceOf(limiter, settings, onClose)
})

const refusalOf = ({ queued, ticket, waitedMillis, why }: PermitRefusal, shed: () => BackpressureShed) =>
  // Only an `Admission` with a quota passes a ticket, and it expects this error.
  ((ticket as Hold | undefined)?.refusal(why, queued, waitedMillis) as BackpressureShed | undefined) ?? shed()

const serviceOf = (
  { drain, permits, pressure, resize, resume, snapshot }: Limiter<BackpressureShed>,
  { maxWaitMillis, softLimit }: Settings,
  onClose: Set<() => void>
): Backpressure["Service"] => {
  const gate: Gate<BackpressureShed> = { permits, breaker: undefined, maxWaitMillis, onClose }
  const single: PermitRequest = { permits: 1, maxWaitMillis, where: undefined }
  const now: PermitRequest = { ...single, maxWaitMillis: 0 }
  // Without a circuit, the guarded effect has its own types and the errors of the permits.
  const guard = <A, E, R>(asked: PermitRequest, self: Effect.Effect<A, E, R>) =>
    new GuardedEffect(gate, self, "", noHooks, asked) as AnyEffect as Effect.Effect<A, E | BackpressureShed, R>
  const guardAsStream = <A, E, R>(asked: PermitRequest, self: Stream.Stream<A, E, R>) =>
    guardStream({ ...requestOf(gate), permits: asked }, self, undefined) as Stream.Stream<A, E | BackpressureShed, R>
  const read = (options: PermitOptions) => {
    const reader = new OptionsReader("Backpressure")
    return reader.check(readPermitOptions(reader, options, maxWaitMillis))
  }
  const service = Backpressure.of({
    withPermit: (self) => guard(single, self),
    withPermits: dual(
      (args) => Effect.isEffect(args[0]),
      <A, E, R>(
        self: Effect.Effect<A, E, R>,
        options: PermitOptions
      ): Effect.Effect<A, E | BackpressureShed | InvalidOptions, R> =>
        // Read where the call is wrapped, not each time that it runs.
        Effect.flatMapEager(read(options), (asked) => guard(asked, self))
    ),
    withPermitStream: (self) => guardAsStream(single, self),
    withPermitsStream: dual(
      (args) => Stream.isStream(args[0]),
      <A, E, R>(
        self: Stream.Stream<A, E, R>,
        options: PermitOptions
      ): Stream.Stream<A, E | BackpressureShed | InvalidOptions, R> =>
        Stream.unwrap(Effect.map(read(options), (asked) => guardAsStream(asked, self)))
    ),
    // Without a circuit it fails with the errors of the permits only.
    tryAcquire: Effect.asVoid(acquire({ ...requestOf(gate), permits: now })) as Effect.Effect<
      void,
      BackpressureShed,
      Scope.Scope
    >,
    running: Effect.sync(() => permits.running),
    queued: Effect.sync(() => permits.queued),
    softLimitRatio: Effect.sync(() => softLimit === undefined ? 0 : permits.running / softLimit),
    pressure,
    snapshot,
    resize,
    drain,
    resume
  })
  return setGate(service, "Backpressure", gate)
}

const noHooks: Hooks<BackpressureShed> = {}

const requestOf = (gate: Gate<BackpressureShed>) => ({ gate, key: "", hooks: noHooks })

/**
 * Provides `Backpressure`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: BackpressureOptions): Layer.Layer<Backpressure, InvalidOptions> =>
  Layer.effect(Backpressure, make(options))

/**
 * A limit that admits every call at once.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: Backpressure["Service"] = setGate(
  Backpressure.of({
    withPermit: identity,
    withPermits: dual((args) => Effect.isEffect(args[0]), identity),
    withPermitStream: identity,
    withPermitsStream: dual((args) => Stream.isStream(args[0]), identity),
    tryAcquire: Effect.void,
    running: Effect.succeed(0),
    queued: Effect.succeed(0),
    softLimitRatio: Effect.succeed(0),
    pressure: Stream.empty,
    snapshot: Effect.succeed({
      capacity: Number.POSITIVE_INFINITY,
      running: 0,
      queued: 0,
      queue: 0,
      slots: 0,
      level: "Normal",
      draining: false,
      admitted: 0,
      shed: { Full: 0, MaxWait: 0, Draining: 0, TooLarge: 0 },
      abandoned: 0,
      dropped: 0
    }),
    resize: () => Effect.void,
    drain: Effect.succeed(true),
    resume: Effect.void
  }),
  "Backpressure",
  { permits: undefined, breaker: undefined }
)

/**
 * Provides a limit that admits every call at once, for tests and to switch backpressure off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<Backpressure> = Layer.succeed(Backpressure, noop)
