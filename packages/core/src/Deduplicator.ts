/**
 * Lets callers who ask the same thing at the same time share one run, and keeps its result for those who ask later.
 *
 * Callers with the same key share a flight: the effect runs once, in a fiber of its own, and everybody waits for it.
 * Whoever waits may leave, the one who came first included; the others still get their answer. The last one to leave stops
 * the work.
 *
 * **When to use**
 *
 * For calls that are slow or cost money and that are asked for more than once: the same prompt from two users, a request
 * that a client repeats. Not for calls that are meant to differ each time, and not for calls that change something unless
 * changing it once is what every caller wants.
 *
 * **Details**
 *
 * | option | default | reason |
 * |---|---|---|
 * | `capacity` | 10,000 | results kept; at 10 KB an answer that is 100 MB. What was not used for longest goes first. Flights do not count, and none is ever dropped |
 * | `timeToLive` | 0 | only flights are shared: to serve an old answer is a decision, and an operation may take it for itself |
 * | `maxReplay` | 4,096 | parts of a stream kept for those who join late: more than most answers have |
 *
 * Success, typed failure and defect are shared alike. A failure is kept only if the operation's `timeToLive` is a function
 * and says so; an interruption and a refusal of a policy (`CircuitOpen` and the like) never are. A result whose time to
 * live is exactly over is not served.
 *
 * The flight runs with the context of the caller who started it, in a scope of its own, and without a parent span. Its
 * `Deadline` is the latest among those who wait at that moment; each caller leaves when its own passes.
 *
 * **Gotchas**
 *
 * - An operation's name belongs to one operation: two of the same name share answers, whatever their types.
 * - Tenants share: put the tenant into the operation (`tenant`), or into its key, where the answers are not for all.
 * - Everybody gets the same value, not a copy. Do not change it.
 * - What the first caller provided only for itself, a layer that ends with it for instance, is gone when it leaves while the
 *   flight goes on for others.
 * - Resources that the effect acquires are released when the flight ends, not with the caller's scope.
 *
 * **Example** (Three callers, one call)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Deduplicator from "@sluice/core/Deduplicator"
 *
 * const Summary = Deduplicator.operation<string>()("summary", { key: (input: { readonly text: string }) => input })
 *
 * let calls = 0
 * const ask = Effect.delay(Effect.sync(() => `answer ${++calls}`), "10 millis")
 *
 * const program = Effect.gen(function*() {
 *   const { dedupe } = yield* Deduplicator.Deduplicator
 *   const call = ask.pipe(dedupe(Summary({ text: "a long text" })))
 *   return yield* Effect.all([call, call, call], { concurrency: "unbounded" })
 * }).pipe(Effect.provide(Deduplicator.layer()))
 *
 * console.log((await Effect.runPromise(program)).join(", ")) // => answer 1, answer 1, answer 1
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Counters, Flight, Landing, Restore } from "./internal/flights.ts"
import { Flights } from "./internal/flights.ts"
import { Options } from "./internal/options.ts"
import { RefusalTypeId } from "./internal/refusal.ts"
import type { RequestKey } from "./internal/requestKey.ts"
import { KeyTypeId } from "./internal/requestKey.ts"
import { stackless } from "./internal/stackless.ts"
import { StreamFlights } from "./internal/streamFlights.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { keyOf } from "./KeyHash.ts"

/**
 * The flight ended without an answer: its claim's scope closed before it was completed, or everybody who waited left.
 *
 * @since 0.1.0
 * @category errors
 */
export class FlightAbandoned extends Schema.Error<FlightAbandoned>("@sluice/core/FlightAbandoned")({
  _tag: Schema.tag("FlightAbandoned"),
  operation: Schema.String
}) {
  get [RefusalTypeId](): true {
    return true
  }
  override get message(): string {
    return `the flight of operation ${this.operation} ended without an answer`
  }
}

/**
 * What a deduplicator is built from.
 *
 * @since 0.1.0
 * @category models
 */
export interface DeduplicatorOptions {
  /** How many results are kept. Default 10,000. */
  readonly capacity?: number | undefined
  /** How long a success is kept whose operation says nothing else. Default 0: only flights are shared. */
  readonly timeToLive?: Duration.Input | undefined
  /**
   * How many parts of a stream are kept for those who join it late. Default 4,096. After that nobody joins, and the stream
   * waits for a reader that falls this far behind.
   */
  readonly maxReplay?: number | undefined
}

/**
 * How a caller is served: it started the run, it waits for the run of another, or it gets a result that was kept.
 *
 * @since 0.1.0
 * @category models
 */
export type Served = "Led" | "Joined" | "Cached"

/**
 * Names a request, and knows the types of its answer. Made by an `Operation`; holds a hash of the input, never the input.
 *
 * @since 0.1.0
 * @category models
 */
export interface Key<in out A, in out E> extends RequestKey<A, E> {
  readonly operation: string
  /** The hash of the operation's name, its tenant and its input. */
  readonly id: string
}

/**
 * A kind of call: makes the key of each from its input.
 *
 * @since 0.1.0
 * @category models
 */
export interface Operation<in I, in out A, in out E> {
  (input: I): Key<A, E>
  readonly operation: string
}

/**
 * What an operation is made of.
 *
 * @since 0.1.0
 * @category models
 */
export interface OperationOptions<in I, in A, in E> {
  /** What of the input the answer depends on. Equal keys share an answer; see `KeyHash` for what is equal. */
  readonly key: (input: I) => unknown
  /**
   * How long a success is kept; or, as a function, how long any exit is. Default: the deduplicator's.
   */
  readonly timeToLive?: Duration.Input | ((exit: Exit.Exit<A, E>) => Duration.Input) | undefined
  /** Whose answer it is: only calls of one tenant share. Default: everybody's. */
  readonly tenant?: ((input: I) => string) | undefined
}

/**
 * Defines an operation. The answer's types are given first, the input's are inferred.
 *
 * **Gotchas**
 *
 * - The name stands for the operation wherever keys meet. Define each operation once.
 * - An operation never throws. A key that cannot be made (`InvalidKey`, or what `key` threw) is a defect where it is used.
 *
 * **Example** (Kept for an hour, per customer; a refusal of the prompt for a minute)
 *
 * ```ts
 * import { Exit } from "effect"
 * import * as Deduplicator from "@sluice/core/Deduplicator"
 *
 * const Summary = Deduplicator.operation<string, "refused">()("summary", {
 *   key: (input: { readonly customer: string; readonly text: string }) => input.text,
 *   tenant: (input) => input.customer,
 *   timeToLive: (exit) => Exit.isSuccess(exit) ? "1 hour" : "1 minute"
 * })
 *
 * const ours = Summary({ customer: "a", text: "hello" })
 * const theirs = Summary({ customer: "b", text: "hello" })
 * console.log(ours.id === theirs.id) // => false
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const operation =
  <A, E = never>() => <I>(name: string, options: OperationOptions<I, A, E>): Operation<I, A, E> => {
    const usable = readTimeToLive(options.timeToLive)
    const make = (input: I): Key<A, E> => {
      try {
        const id = keyOf(name, options.tenant?.(input), options.key(input))
        return { [KeyTypeId]: usable, operation: name, id }
      } catch (error) {
        return { [KeyTypeId]: { ...usable, defect: { error } }, operation: name, id: "" }
      }
    }
    return Object.assign(make, { operation: name })
  }

const readTimeToLive = <A, E>(timeToLive: OperationOptions<never, A, E>["timeToLive"]): Key<A, E>[typeof KeyTypeId] => {
  if (timeToLive === undefined) return { timeToLive: undefined, defect: undefined }
  if (typeof timeToLive === "function") return { timeToLive: (exit) => toMillis(timeToLive(exit)), defect: undefined }
  try {
    const millis = toMillis(timeToLive)
    return { timeToLive: (exit) => Exit.isSuccess(exit) ? millis : 0, defect: undefined }
  } catch (error) {
    // Told before a call is made and paid for, by every key of the operation.
    return { timeToLive: undefined, defect: { error } }
  }
}

const toMillis = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input))

/**
 * The right to answer for a key, until the scope of its claim closes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lease<in A, in E> {
  /** Answers everybody who waits, and keeps the answer. False if the lease was used before, lapsed, or was invalidated. */
  readonly complete: (value: A) => Effect.Effect<boolean>
  /** Fails everybody who waits. False if the lease was used before, lapsed, or was invalidated. */
  readonly fail: (error: E) => Effect.Effect<boolean>
}

/**
 * What stands for a key: nothing yet, and the caller may answer; a run to wait for; or a result that was kept.
 *
 * @since 0.1.0
 * @category models
 */
export type Claim<A, E> =
  | { readonly _tag: "New"; readonly lease: Lease<A, E> }
  | { readonly _tag: "InProgress"; readonly await: Effect.Effect<A, E | FlightAbandoned> }
  | { readonly _tag: "Cached"; readonly exit: Exit.Exit<A, E> }

/**
 * Counts since the deduplicator was made, and what it holds now. Effects and streams together.
 *
 * @since 0.1.0
 * @category models
 */
export interface Stats {
  /** Flights that run now. */
  readonly flights: number
  /** Results that are held now, those that expired and were not yet swept included. */
  readonly cached: number
  /** Callers who started a flight. */
  readonly led: number
  /** Callers who joined one. */
  readonly joined: number
  /** Callers who got a result that was kept. */
  readonly hits: number
  /** Results that made room for others before their time was over. */
  readonly evicted: number
}

/**
 * Shares runs among callers with the same key, and keeps their results.
 *
 * @since 0.1.0
 * @category services
 */
export class Deduplicator extends Context.Service<Deduplicator, {
  /** Runs the effect, or waits for the run of another caller with the same key, or hands out its kept result. */
  readonly dedupe: {
    <A, E>(key: Key<A, E>): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Scope.Scope>>
    <A, E, R>(self: Effect.Effect<A, E, R>, key: Key<A, E>): Effect.Effect<A, E, Exclude<R, Scope.Scope>>
  }
  /**
   * Reads the stream, or the stream that runs for another caller with the same key, from its beginning. Its elements are
   * not kept once it has ended.
   *
   * The stream is pulled when the fastest reader wants more. After `maxReplay` parts nobody joins it any more (who comes then
   * starts another), and a reader that is `maxReplay` parts behind is waited for by all.
   */
  readonly dedupeStream: {
    <A, E>(key: Key<A, E>): <R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E, Exclude<R, Scope.Scope>>
    <A, E, R>(self: Stream.Stream<A, E, R>, key: Key<A, E>): Stream.Stream<A, E, Exclude<R, Scope.Scope>>
  }
  /** `dedupe` that says how the caller is served, before it waits; again if the flight it waited for is abandoned. */
  readonly dedupeWith: <A, E, R>(
    self: Effect.Effect<A, E, R>,
    key: Key<A, E>,
    onServed: (served: Served) => void
  ) => Effect.Effect<A, E, Exclude<R, Scope.Scope>>
  /** `dedupeStream` that says how the caller is served, when its stream is opened. */
  readonly dedupeStreamWith: <A, E, R>(
    self: Stream.Stream<A, E, R>,
    key: Key<A, E>,
    onServed: (served: Served) => void
  ) => Stream.Stream<A, E, Exclude<R, Scope.Scope>>
  /**
   * Looks at the key without running anything. Whoever finds it free gets a lease, and answers through it; if the scope
   * closes first, those who wait get `FlightAbandoned`, and callers of `dedupe` run their own effect. A claim never expires.
   */
  readonly claim: <A, E>(key: Key<A, E>) => Effect.Effect<Claim<A, E>, never, Scope.Scope>
  /** Forgets the key's result. What runs for it goes on for those who wait, is joined by nobody, and is not kept. */
  readonly invalidate: <A, E>(key: Key<A, E>) => Effect.Effect<void>
  readonly stats: Effect.Effect<Stats>
}>()("@sluice/core/Deduplicator") {}

/**
 * Builds a deduplicator with state of its own. When the scope closes, its flights are interrupted.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = Effect.fnUntraced(function*(options?: DeduplicatorOptions) {
  const { capacity, maxReplay, timeToLiveMillis } = yield* readOptions(options)
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const counters: Counters = { flights: 0, led: 0, joined: 0, hits: 0, evicted: 0 }
  const flights = new Flights({ capacity, timeToLiveMillis, clock, scope }, counters)
  const streams = new StreamFlights({ maxReplay, scope }, counters)

  const dedupeWith = <A, E, R>(
    self: Effect.Effect<A, E, R>,
    key: Key<A, E>,
    onServed: (served: Served) => void
  ): Effect.Effect<A, E, Exclude<R, Scope.Scope>> => {
    const call: Effect.Effect<A, E, Exclude<R, Scope.Scope>> = Effect.withFiber((fiber) => {
      const { defect } = key[KeyTypeId]
      if (defect !== undefined) return Effect.die(defect.error)
      const found = flights.find(key)
      if (found !== undefined && found._tag !== "Flight") {
        onServed("Cached")
        return found
      }
      // Only who waits needs a mask, and what stands for the key may change on the way into it.
      return Effect.uninterruptibleMask((restore) => enter(fiber, restore))
    })
    const enter = (fiber: Fiber.Fiber<unknown, unknown>, restore: Restore) => {
      const found = flights.find(key)
      if (found === undefined) {
        onServed("Led")
        return flights.lead(self, key, fiber, restore)
      }
      if (found._tag !== "Flight") {
        onServed("Cached")
        return found
      }
      onServed("Joined")
      return flights.join(found, fiber, restore, call)
    }
    return call
  }

  const claim = <A, E>(key: Key<A, E>): Effect.Effect<Claim<A, E>, never, Scope.Scope> =>
    Effect.uninterruptible(Effect.flatMap(Effect.scope, (holder): Effect.Effect<Claim<A, E>> => {
      const { defect } = key[KeyTypeId]
      if (defect !== undefined) return Effect.die(defect.error)
      const found = flights.find(key)
      if (found === undefined) return lease(flights.open(key), holder)
      if (found._tag !== "Flight") return Effect.succeed({ _tag: "Cached", exit: found })
      const abandoned = Effect.suspend(() => Effect.fail(abandonedError(key.operation)))
      const joined = Effect.uninterruptibleMask((restore) =>
        Effect.withFiber((fiber) => flights.join(found, fiber, restore, abandoned))
      )
      return Effect.succeed({ _tag: "InProgress", await: joined })
    }))

  const lease = <A, E>(flight: Flight<A, E>, holder: Scope.Scope): Effect.Effect<Claim<A, E>> => {
    const settle = (landing: Landing<A, E>) => Effect.sync(() => flights.settle(flight, landing))
    return Effect.as(Scope.addFinalizer(holder, settle("Abandoned")), {
      _tag: "New",
      lease: { complete: (value) => settle(Exit.succeed(value)), fail: (error) => settle(Exit.fail(error)) }
    })
  }

  return Deduplicator.of({
    dedupe: dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, key: Key<A, E>) => dedupeWith(self, key, ignore)),
    dedupeStream: dual(2, <A, E, R>(self: Stream.Stream<A, E, R>, key: Key<A, E>) => streams.share(self, key, ignore)),
    dedupeWith,
    dedupeStreamWith: (self, key, onServed) => streams.share(self, key, onServed),
    claim,
    invalidate: (key) =>
      Effect.sync(() => {
        flights.invalidate(key)
        streams.invalidate(key)
      }),
    stats: Effect.sync(() => ({ ...counters, cached: flights.cached }))
  })
})

const ignore = (): void => {}

const abandonedError = (operation: string): FlightAbandoned => stackless(() => new FlightAbandoned({ operation }))

const readOptions = (input: DeduplicatorOptions = {}) => {
  const options = new Options("Deduplicator")
  return options.check(check(options, input, ""))
}

/** Reads a deduplicator's numbers into a list of issues, each option under the path that is given. */
export const check = (options: Options, input: DeduplicatorOptions, path: string) => ({
  capacity: options.integer(`${path}capacity`, input.capacity ?? 10_000, 1),
  timeToLiveMillis: options.millis(`${path}timeToLive`, input.timeToLive ?? 0, 0),
  maxReplay: options.integer(`${path}maxReplay`, input.maxReplay ?? 4096, 1)
})

/**
 * Provides `Deduplicator`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: DeduplicatorOptions): Layer.Layer<Deduplicator, InvalidOptions> =>
  Layer.effect(Deduplicator, make(options))

/**
 * Runs every call by itself.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: Deduplicator["Service"] = Deduplicator.of({
  dedupe: dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, _: Key<A, E>) => Effect.scoped(self)),
  dedupeStream: dual(2, <A, E, R>(self: Stream.Stream<A, E, R>, _: Key<A, E>) => Stream.scoped(self)),
  dedupeWith: (self, _, onServed) =>
    Effect.suspend(() => {
      onServed("Led")
      return Effect.scoped(self)
    }),
  dedupeStreamWith: (self, _, onServed) =>
    Stream.suspend(() => {
      onServed("Led")
      return Stream.scoped(self)
    }),
  claim: () =>
    Effect.sync(() => {
      let held = true
      const settle = Effect.sync(() => {
        const was = held
        held = false
        return was
      })
      return { _tag: "New", lease: { complete: () => settle, fail: () => settle } }
    }),
  invalidate: () => Effect.void,
  stats: Effect.succeed({ flights: 0, cached: 0, led: 0, joined: 0, hits: 0, evicted: 0 })
})

/**
 * Runs every call by itself, for tests and for switching the policy off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<Deduplicator> = Layer.succeed(Deduplicator, noop)
