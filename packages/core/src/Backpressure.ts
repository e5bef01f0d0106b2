/**
 * Bounds how many calls run at once, and what becomes of the others: refused at once, or kept in a bounded line.
 *
 * A call holds a permit while it runs and gives it back exactly once, however it ends: success, failure, defect,
 * interruption. At capacity a call is refused with `BackpressureShed`, unless a `queue` is configured: then that many may
 * wait, first come, first served, for at most `maxWait`.
 *
 * **When to use**
 *
 * In front of a service that gets slower the more is asked of it, or that bills for concurrency. To be told when a service
 * is down, use a circuit breaker. To keep a rate per second, use a rate limiter: a permit bounds how many, not how often.
 *
 * **Details**
 *
 * | option | default | reason |
 * |---|---|---|
 * | `capacity` | 16 | enough to hide the latency of a model, few enough for the concurrency limit of a small account |
 * | `queue` | 0 | work that waits invisibly is the start of an overload: waiting is asked for |
 * | `maxWait` | none | the bound of the line bounds the wait; how long an answer is still of use, only the caller knows |
 * | `softLimit` | none | |
 * | `softRelease` | three quarters of `softLimit` | calls that come and go at the limit are not a crossing each |
 *
 * - A call may take several permits (`withPermits`). Nobody overtakes: while the first in line waits for four, one that needs
 *   one waits behind it. A call that asks for more than the capacity is refused at once, as `TooLarge`.
 * - Who waits goes on in a turn of the scheduler, never inside the call that gave the permit back.
 * - To come, to wait and to leave cost the same in a line of a hundred and of ten thousand.
 *
 * **Gotchas**
 *
 * - A permit belongs to a call, not to a number: there is no `release` that could be forgotten or run twice.
 * - A call that takes a permit inside another permit of the same service can wait for itself.
 * - A stream holds its permit until it ends, fails, or its consumer leaves, not only until it is opened.
 * - When the scope of `make`, or of the layer, closes, it drains: who waits is refused. What runs goes on.
 *
 * **Example** (One runs, one waits, one is shed)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Backpressure from "@sluice/core/Backpressure"
 *
 * const program = Effect.gen(function*() {
 *   const { withPermit } = yield* Backpressure.Backpressure
 *   const call = Effect.delay(Effect.succeed("answered"), "10 millis").pipe(
 *     withPermit,
 *     Effect.catchTag("BackpressureShed", (shed) => Effect.succeed(`${shed.why}, ${shed.queued} waiting`))
 *   )
 *   return yield* Effect.all([call, call, call], { concurrency: "unbounded" })
 * }).pipe(Effect.provide(Backpressure.layer({ capacity: 1, queue: 1 })))
 *
 * console.log((await Effect.runPromise(program)).join("; ")) // => answered; answered; Full, 1 waiting
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual, identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Hub } from "./internal/hub.ts"
import { show, type Source } from "./internal/metrics.ts"
import { Options } from "./internal/options.ts"
import { acquire, type Ask, Gauge, guard, Pace, Permits, type Refusal, type Why } from "./internal/permits.ts"
import { RefusalTypeId } from "./internal/refusal.ts"
import { stackless } from "./internal/stackless.ts"
import { bracketed } from "./internal/streams.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"

/**
 * There was no permit for the call: it was not made.
 *
 * **Details**
 *
 * | `why` | meaning | what to change |
 * |---|---|---|
 * | `Full` | no permit was free, and there was no room in the line or it may not wait | `capacity`, `queue`, or send less at once |
 * | `MaxWait` | it has waited for as long as it may | `maxWait`, `capacity`, or send less at once |
 * | `Draining` | nothing starts any more, until `resume` | send it elsewhere |
 * | `TooLarge` | it asks for more permits than there are | ask for fewer, or a larger `capacity` |
 *
 * `retryAfter` is there where it can be known: of a call that found no permit (`Full`, `MaxWait`), once as many permits have
 * come back as there are since it became full. It is the time in which, at that pace, those who wait now and one more get
 * their permits.
 *
 * @since 0.1.0
 * @category errors
 */
export class BackpressureShed extends Schema.Error<BackpressureShed>("@sluice/core/BackpressureShed")({
  _tag: Schema.tag("BackpressureShed"),
  /** The name of the policy that refused. */
  policy: Schema.String,
  why: Schema.Literals(["Full", "MaxWait", "Draining", "TooLarge"]),
  /** How many permits the call asked for. */
  permits: Schema.Int,
  /** Permits that were in use. */
  depth: Schema.Int,
  /** Calls that were waiting; this one is not among them. */
  queued: Schema.Int,
  /** How many permits there are. */
  capacity: Schema.Int,
  /** How long the call had waited; absent where it never was in the line. */
  waited: Schema.optionalKey(Schema.DurationFromMillis),
  /** When to come back, more than zero; absent where that cannot be known. */
  retryAfter: Schema.optionalKey(Schema.DurationFromMillis)
}) {
  get [RefusalTypeId](): true {
    return true
  }
  override get message(): string {
    const { capacity, depth, permits, policy, queued, retryAfter, waited } = this
    const asked = permits === 1 ? "" : `asks for ${permits}, `
    const load = `${asked}${depth} of ${capacity} running, ${queued} waiting`
    const back = retryAfter === undefined ? "" : `; at this pace come back in ${Duration.format(retryAfter)}`
    switch (this.why) {
      case "Full":
        return `${policy} shed: ${load}${back}; raise capacity or queue, or send less at once`
      case "MaxWait": {
        const after = waited === undefined ? "" : ` after ${Duration.format(waited)} in the line`
        return `${policy} shed${after}: ${load}${back}; raise maxWait or capacity, or send less at once`
      }
      case "Draining":
        return `${policy} shed: draining, ${load}; send it elsewhere, or after resume`
      case "TooLarge":
        return `${policy} shed: asks for ${permits} of ${capacity} permits; ask for fewer, or raise capacity`
    }
  }
}

/**
 * What backpressure is built from.
 *
 * @since 0.1.0
 * @category models
 */
export interface BackpressureOptions {
  /** Named in refusals and metrics. Default `"backpressure"`. */
  readonly name?: string | undefined
  /** How many permits there are: how many calls of one permit run at once. Default 16. */
  readonly capacity?: number | undefined
  /** How many more calls may wait, first come, first served. Default 0: a call that cannot run is shed. */
  readonly queue?: number | undefined
  /** How long a call may wait. Default none: as long as it takes. With 0 nobody waits. */
  readonly maxWait?: Duration.Input | undefined
  /** From this depth on the level is `Soft`. At least 1 and below `capacity`. Default none. */
  readonly softLimit?: number | undefined
  /**
   * At this depth and below the level is no longer `Soft`. Below `softLimit`. Default three quarters of it, rounded down: a
   * depth that goes up and down by one at the limit crosses it once.
   */
  readonly softRelease?: number | undefined
}

/**
 * What one call may be told.
 *
 * @since 0.1.0
 * @category models
 */
export interface PermitOptions {
  /** How many permits the call takes, at least 1. Default 1. Give a call that weighs more on the service more. */
  readonly permits?: number | undefined
  /** How long the call may wait, instead of what the policy says. With 0 it runs at once or not at all. */
  readonly maxWait?: Duration.Input | undefined
}

/**
 * A change of level.
 *
 * **Details**
 *
 * | level | reached | left |
 * |---|---|---|
 * | `Full` | every permit is in use, or somebody waits | nobody waits, and at most three quarters of the permits are in use |
 * | `Soft` | the depth is at the soft limit or above | the depth is at `softRelease` or below |
 * | `Normal` | otherwise | |
 *
 * @since 0.1.0
 * @category models
 */
export interface Pressure {
  readonly level: "Normal" | "Soft" | "Full"
  /** Permits in use. */
  readonly depth: number
  /** Epoch milliseconds. */
  readonly at: number
}

/**
 * Everything there is to see at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  readonly capacity: number
  /** Permits in use. */
  readonly running: number
  /** Calls in the line. */
  readonly queued: number
  /** How many may be in the line. */
  readonly queue: number
  /** Calls that are in: they run, or wait. */
  readonly places: number
  readonly level: Pressure["level"]
  readonly draining: boolean
  /** Calls that were given their permits, counted as they start. */
  readonly admitted: number
  /** Calls that were refused. */
  readonly shed: { readonly [why in BackpressureShed["why"]]: number }
  /** Calls that left the line before their turn came, by an interruption. */
  readonly abandoned: number
  /** Changes of level that a reader of `pressure` was too slow for. */
  readonly dropped: number
}

/**
 * Bounds how many calls run at once.
 *
 * @since 0.1.0
 * @category services
 */
export class Backpressure extends Context.Service<Backpressure, {
  /** Runs the effect with a permit: at once, after a wait in the line, or not at all (`BackpressureShed`). */
  readonly withPermit: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | BackpressureShed, R>
  /** Runs the effect with as many permits as it says, after no longer a wait than it says. */
  readonly withPermits: {
    (
      options: PermitOptions
    ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | BackpressureShed | InvalidOptions, R>
    <A, E, R>(
      self: Effect.Effect<A, E, R>,
      options: PermitOptions
    ): Effect.Effect<A, E | BackpressureShed | InvalidOptions, R>
  }
  /** Runs the stream with a permit, which it holds until it ends, fails, or its consumer leaves. */
  readonly withPermitStream: <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | BackpressureShed, R>
  /** Runs the stream with as many permits as it says, after no longer a wait than it says. */
  readonly withPermitsStream: {
    (
      options: PermitOptions
    ): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | BackpressureShed | InvalidOptions, R>
    <A, E, R>(
      self: Stream.Stream<A, E, R>,
      options: PermitOptions
    ): Stream.Stream<A, E | BackpressureShed | InvalidOptions, R>
  }
  /** Takes a permit for as long as the scope lives. Never waits. */
  readonly tryAcquire: Effect.Effect<void, BackpressureShed, Scope.Scope>
  /** How many permits are in use. */
  readonly depth: Effect.Effect<number>
  /** How many calls wait. */
  readonly queued: Effect.Effect<number>
  /** Depth over soft limit: above 1 when the soft limit is exceeded, 0 when there is none. */
  readonly softDepthRatio: Effect.Effect<number>
  /**
   * Every change of level, up and down, from the moment of subscribing. A reader that falls 256 behind misses the oldest;
   * `snapshot` counts them. It ends with the scope of the service.
   */
  readonly pressure: Stream.Stream<Pressure>
  readonly snapshot: Effect.Effect<Snapshot>
  /**
   * Changes the capacity. What runs goes on, and a smaller capacity admits nobody until it fits; a larger one lets waiters in
   * at once. Who waits for more permits than there are now is refused as `TooLarge`. The soft limit stays where it is.
   */
  readonly resize: (capacity: number) => Effect.Effect<void, InvalidOptions>
  /**
   * From now on nothing starts: who comes is refused as `Draining`, and so is who waits, since it has not begun and may go
   * elsewhere. Waits until all that runs is over, and succeeds with `true`; with `false` if `resume` came before that.
   * Interrupting it ends the wait only. A call that drains the service whose permit it holds waits for itself.
   */
  readonly drain: Effect.Effect<boolean>
  /** Lets calls in again after `drain`. */
  readonly resume: Effect.Effect<void>
}>()("@sluice/core/Backpressure") {}

/**
 * Builds backpressure with state of its own.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = Effect.fnUntraced(function*(input: BackpressureOptions = {}) {
  const options = new Options("Backpressure")
  const settings = yield* options.check(check(options, input))
  return serviceOf(yield* limit(settings, identity), settings)
})

const serviceOf = (limiter: Limiter<BackpressureShed>, settings: Settings): Backpressure["Service"] => {
  const { drain, permits, pressure, resize, resume, snapshot } = limiter
  const { maxWaitMillis, softLimit } = settings
  const single: Ask = { permits: 1, maxWaitMillis }
  const guardStream = <A, E, R>(ask: Ask, self: Stream.Stream<A, E, R>) =>
    bracketed(self, (scope) => acquire(permits, ask, scope))
  return Backpressure.of({
    withPermit: (self) => guard(permits, single, self),
    withPermits: dual(
      (args) => Effect.isEffect(args[0]),
      <A, E, R>(
        self: Effect.Effect<A, E, R>,
        options: PermitOptions
      ): Effect.Effect<A, E | BackpressureShed | InvalidOptions, R> =>
        Effect.flatMapEager(readAsk(options, maxWaitMillis), (ask) => guard(permits, ask, self))
    ),
    withPermitStream: (self) => guardStream(single, self),
    withPermitsStream: dual(
      (args) => Stream.isStream(args[0]),
      <A, E, R>(
        self: Stream.Stream<A, E, R>,
        options: PermitOptions
      ): Stream.Stream<A, E | BackpressureShed | InvalidOptions, R> =>
        Stream.unwrap(Effect.map(readAsk(options, maxWaitMillis), (ask) => guardStream(ask, self)))
    ),
    tryAcquire: Effect.flatMap(Effect.scope, (scope) => acquire(permits, { permits: 1, maxWaitMillis: 0 }, scope)),
    depth: Effect.sync(() => permits.running),
    queued: Effect.sync(() => permits.queued),
    softDepthRatio: Effect.sync(() => softLimit === undefined ? 0 : permits.running / softLimit),
    pressure,
    snapshot,
    resize,
    drain,
    resume
  })
}

// Read where the call is wrapped, not each time that it runs.
const readAsk = (input: PermitOptions, maxWaitMillis: number | undefined): Effect.Effect<Ask, InvalidOptions> => {
  const options = new Options("Backpressure")
  const { maxWait, permits = 1 } = objectOr(options, "options", input)
  return options.check({
    permits: options.integer("permits", permits, 1),
    maxWaitMillis: maxWait === undefined ? maxWaitMillis : options.millis("maxWait", maxWait, 0)
  })
}

/**
 * Options that were read.
 *
 * @internal
 */
export interface Settings {
  readonly name: string
  readonly capacity: number
  readonly queue: number
  readonly maxWaitMillis: number | undefined
  readonly softLimit: number | undefined
  readonly softRelease: number | undefined
}

/**
 * Reads options, for whatever composes backpressure into something larger.
 *
 * @internal
 */
export const check = (options: Options, input: BackpressureOptions, prefix = ""): Settings => {
  const given = objectOr(options, prefix === "" ? "options" : prefix.slice(0, -1), input)
  const { capacity = 16, maxWait, name = "backpressure", queue = 0, softLimit, softRelease } = given
  if (typeof name !== "string") options.refuse(`${prefix}name`, name, "a string")
  options.integer(`${prefix}capacity`, capacity, 1)
  options.integer(`${prefix}queue`, queue, 0)
  if (softLimit !== undefined && !isWithin(softLimit, 1, capacity)) {
    options.refuse(`${prefix}softLimit`, softLimit, "a whole number from 1 to below capacity")
  }
  if (softRelease !== undefined && !isWithin(softRelease, 0, softLimit)) {
    options.refuse(`${prefix}softRelease`, softRelease, "a whole number from 0 to below softLimit")
  }
  return {
    name,
    capacity,
    queue,
    maxWaitMillis: maxWait === undefined ? undefined : options.millis(`${prefix}maxWait`, maxWait, 0),
    softLimit,
    softRelease
  }
}

const isWithin = (actual: number, minimum: number, below: number | undefined): boolean =>
  Number.isInteger(actual) && actual >= minimum && typeof below === "number" && actual < below

// Configuration comes from untyped places: what is no object has no options, and says so as any wrong option does.
const objectOr = <A extends object>(options: Options, path: string, input: A): Partial<A> => {
  if (typeof input === "object" && input !== null) return input
  options.refuse(path, input, "an object")
  return {}
}

/**
 * Permits, and all that tells of them.
 *
 * @internal
 */
export interface Limiter<E> {
  readonly permits: Permits<E>
  readonly pressure: Stream.Stream<Pressure>
  readonly snapshot: Effect.Effect<Snapshot>
  readonly resize: (capacity: number) => Effect.Effect<void, InvalidOptions>
  readonly drain: Effect.Effect<boolean>
  readonly resume: Effect.Effect<void>
}

/**
 * Builds permits from options that were read. `error` turns a refusal into what calls are to fail with.
 *
 * @internal
 */
export const limit = Effect.fnUntraced(function*<E>(
  { capacity, maxWaitMillis, name, queue, softLimit = Number.POSITIVE_INFINITY, softRelease }: Settings,
  error: (shed: BackpressureShed) => E
): Effect.fn.Return<Limiter<E>, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const changes = new Hub<Pressure>()
  const pace = new Pace()
  const now = () => clock.currentTimeMillisUnsafe()

  const gauge = new Gauge(softLimit, softRelease ?? Math.floor(softLimit * 3 / 4), (level) => {
    pace.forget()
    if (changes.hasReaders) changes.publish({ level, depth: permits.running, at: now() })
  })
  const permits: Permits<E> = new Permits(capacity, queue, () => gauge.read(permits), {
    clock,
    fork,
    maxWaitMillis,
    error: (refusal) => error(shedOf(name, refusal, retryAfterMillis(refusal)))
  })
  const retryAfterMillis = (refusal: Refusal): number | undefined => {
    const { why } = refusal
    if (why === "Draining" || why === "TooLarge" || gauge.level !== "Full") return undefined
    const missing = permits.wanted + refusal.permits + permits.running - permits.capacity
    return pace.millisFor(Math.max(1, missing), permits, now())
  }

  yield* show(sourcesOf(name, permits, gauge))
  yield* Effect.addFinalizer(() => Effect.andThen(Effect.sync(() => permits.drain()), changes.close))
  return {
    permits,
    pressure: changes.stream,
    snapshot: Effect.sync(() => snapshotOf(permits, gauge, changes)),
    resize: (capacity) =>
      Effect.map(readCapacity(capacity), (read) => {
        // What was seen of the pace is of another number of permits.
        pace.forget()
        permits.resize(read)
      }),
    drain: permits.rest,
    resume: Effect.sync(() => permits.resume())
  }
})

const readCapacity = (capacity: number): Effect.Effect<number, InvalidOptions> => {
  const options = new Options("Backpressure")
  return options.check(options.integer("capacity", capacity, 1))
}

const shedOf = (policy: string, refusal: Refusal, retryAfterMillis: number | undefined): BackpressureShed => {
  const { capacity, permits, queued, running, waitedMillis, why } = refusal
  return stackless(() =>
    new BackpressureShed({
      policy,
      why,
      permits,
      depth: running,
      queued,
      capacity,
      ...(waitedMillis === undefined ? undefined : { waited: Duration.millis(waitedMillis) }),
      ...(retryAfterMillis === undefined ? undefined : { retryAfter: Duration.millis(retryAfterMillis) })
    })
  )
}

const snapshotOf = <E>(permits: Permits<E>, gauge: Gauge, changes: Hub<Pressure>): Snapshot => ({
  capacity: permits.capacity,
  running: permits.running,
  queued: permits.queued,
  queue: permits.queue,
  places: permits.places,
  level: gauge.level,
  draining: permits.isDraining,
  admitted: permits.admitted,
  shed: { ...permits.shed },
  abandoned: permits.abandoned,
  dropped: changes.dropped
})

const reasons: ReadonlyArray<Why> = ["Full", "MaxWait", "Draining", "TooLarge"]
const levels: ReadonlyArray<Pressure["level"]> = ["Normal", "Soft", "Full"]

/** Read by whoever exports metrics. Labels are the policy's name and words of ours, never a key. */
const sourcesOf = <E>(policy: string, permits: Permits<E>, gauge: Gauge): ReadonlyArray<Source> => {
  const source = (
    kind: Source["kind"],
    name: string,
    description: string,
    read: () => number,
    words?: Readonly<Record<string, string>>
  ): Source => ({
    kind,
    id: `sluice_backpressure_${name}`,
    description,
    attributes: { policy, ...words },
    read
  })
  return [
    source("Gauge", "running", "Permits in use", () => permits.running),
    source("Gauge", "queued", "Calls that wait for a permit", () => permits.queued),
    source("Gauge", "capacity", "How many permits there are", () => permits.capacity),
    source("Counter", "admitted_total", "Calls that were given their permits", () => permits.admitted),
    source("Counter", "abandoned_total", "Calls interrupted while they waited", () => permits.abandoned),
    ...reasons.map((why) =>
      source("Counter", "shed_total", "Calls that were refused", () => permits.shed[why], { why })
    ),
    ...levels.map((level) =>
      source("Counter", "levels_total", "How often each level was reached", () => gauge.reached[level], { level })
    )
  ]
}

/**
 * Provides `Backpressure`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: BackpressureOptions): Layer.Layer<Backpressure, InvalidOptions> =>
  Layer.effect(Backpressure, make(options))

/**
 * Lets everything run at once.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: Backpressure["Service"] = Backpressure.of({
  withPermit: identity,
  withPermits: dual((args) => Effect.isEffect(args[0]), identity),
  withPermitStream: identity,
  withPermitsStream: dual((args) => Stream.isStream(args[0]), identity),
  tryAcquire: Effect.void,
  depth: Effect.succeed(0),
  queued: Effect.succeed(0),
  softDepthRatio: Effect.succeed(0),
  pressure: Stream.empty,
  snapshot: Effect.succeed({
    capacity: Number.POSITIVE_INFINITY,
    running: 0,
    queued: 0,
    queue: 0,
    places: 0,
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
})

/**
 * Lets everything run at once, for tests and for switching the policy off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<Backpressure> = Layer.succeed(Backpressure, noop)
