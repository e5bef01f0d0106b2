/**
 * Shares one run among concurrent callers with the same key, and can cache its result.
 *
 * Callers with the same key share a flight: the effect runs once, in a fiber of its own, and all of them wait for it. Each may
 * leave, the first one included, and the others still get the answer. The last one to leave stops the work.
 *
 * **When to use**
 *
 * For calls that are slow or cost money, and that several callers make: the same prompt from two users, a request that a
 * client repeats. Not for calls whose answers should differ, and not for calls with side effects, unless doing it once is what
 * every caller wants.
 *
 * **Details**
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `capacity` | 10,000 | cached results, at 10 KB an answer 100 MB; evicts the least recently used; flights do not count |
 * | `maxBytes` | none | of all cached results, by the operation's `size`; set it if answers can be large |
 * | `timeToLive` | 0 | nothing is cached, only flights are shared; an operation can have its own |
 * | `maxWaiters` | 10,000 | callers of one flight, each about 1 KB; more are usually one caller in a loop |
 * | `maxReplay` | 4,096 | parts of a stream that are kept for late readers: more than most answers have |
 * | `name` | `"deduplicator"` | used in refusals and metrics |
 * | `shared` | false | processes share nothing unless you ask: results then leave the process |
 * | `lease` | 10 seconds | longer than most pauses of a process; after a crash the others wait for at most this |
 * | `maxResultBytes` | 1 MiB | more than most answers have; larger results stay in their process |
 *
 * Success, typed failure and defect are shared alike. A failure is cached only if the operation's `timeToLive` is a function and
 * returns a positive duration for it. Interruptions and refusals (`CircuitOpen` and the like) are never cached. A result whose time to live is exactly
 * over is not served.
 *
 * The flight runs with the context of the caller that started it, except for the scope, which is its own, and the parent span.
 * Its `Deadline` is the latest one among its callers. Each caller leaves when its own deadline passes.
 *
 * With `shared`, or `layerStore`, processes share the flights of operations with a `success` codec through a `FlightStore`. One process
 * leads, by a lease, and the others wait for its result. If it dies, another takes over when the lease has lapsed. Each process asks the
 * store for one of its callers only. If the store is down, each process shares flights by itself. Streams and claims stay within a process.
 *
 * A caller that finds `maxWaiters` others is refused with `TooManyWaiters`. Running its effect separately would be the stampede
 * that sharing prevents.
 *
 * Metrics, with the attribute `policy`: `sluice_deduplicator_flights`, `_waiting`, `_cached` (gauges), `_led_total`,
 * `_joined_total`, `_hits_total`, `_evicted_total`, `_refused_total`, `_undecodable_total`, `_followed_total`, `_store_errors_total`
 * (counters).
 *
 * **Gotchas**
 *
 * - Two operations of the same name share results, whatever their types. Give each its own name.
 * - Tenants share results. To separate them, set `tenant`, or put the tenant into the key.
 * - All callers get the same value, not a copy. Do not mutate it.
 * - A resource that only the first caller provides, such as a layer of its own, is released when that caller leaves. The
 *   flight continues for the others.
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
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { FlightStore } from "./FlightStore.ts"
import { makeDeduplicator } from "./internal/dedupe/deduplicator.ts"
import type { StoreError } from "./internal/circuit/storeError.ts"
import type { Dumped } from "./internal/dedupe/dumped.ts"
import type { FlightAbandoned, TooManyWaiters } from "./internal/dedupe/errors.ts"
import { tenantId } from "./internal/dedupe/storedFlights.ts"
import { type Declares, hashOf, KeyTypeId, type RequestKey, slotFor } from "./internal/dedupe/requestKey.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { InvalidKey, noTenant } from "./KeyHash.ts"
import { type Known, OptionsReader, toMillis } from "./OptionsReader.ts"

export { Dumped } from "./internal/dedupe/dumped.ts"
export { FlightAbandoned, TooManyWaiters } from "./internal/dedupe/errors.ts"

/**
 * Options for `Deduplicator.make`. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface DeduplicatorOptions {
  /** Used in refusals and metrics. Default `"deduplicator"`. */
  readonly name?: string | undefined
  /** How many results are cached. Default 10,000. */
  readonly capacity?: number | undefined
  /**
   * The bytes that all cached results may have together, by the `size` of their operations. Above it the least recently used
   * results are evicted. A result that is larger by itself is not cached. Flights and streams do not count. Default: no limit.
   */
  readonly maxBytes?: number | undefined
  /** How long a success is cached if its operation does not say. Default 0: nothing is cached, flights are shared. */
  readonly timeToLive?: Duration.Input | undefined
  /** How many callers may wait for one flight. Default 10,000. */
  readonly maxWaiters?: number | undefined
  /**
   * How many parts of a stream are kept for late readers. Default 4,096. After that no reader can join, and the stream waits
   * for a reader that falls this far behind.
   */
  readonly maxReplay?: number | undefined
  /**
   * Whether flights and results are shared with other processes, through the `FlightStore` in the context. Only operations with a
   * `success` codec are. Default false: results then leave the process.
   */
  readonly shared?: boolean | undefined
  /**
   * How long the lease of a process that leads lasts without a renewal, 1 second to 1 hour. It is renewed three times in that time.
   * Default 10 seconds: longer than most pauses of a process. When a process dies, the others wait for at most this.
   */
  readonly lease?: Duration.Input | undefined
  /**
   * The largest encoded result that is shared, in bytes. Default 1 MiB. If a result is larger, each process that waited runs a call of
   * its own.
   */
  readonly maxResultBytes?: number | undefined
}

/**
 * How a caller is served: it started the flight, joined one, or got a cached result, here or in another process.
 *
 * @since 0.1.0
 * @category models
 */
export type Served = "Led" | "Joined" | "Cached"

/**
 * Options for `dedupe` and `dedupeStream`.
 *
 * @since 0.1.0
 * @category models
 */
export interface DedupeOptions {
  /**
   * Called with how the caller is served, before it waits; again if its flight is abandoned, or another process serves it. It runs within the call, so it has
   * to return quickly.
   */
  readonly onServed?: ((served: Served) => void) | undefined
}

/**
 * Names a request and carries the types of its answer. Made by an `Operation`. It has a hash of the input, never the input.
 *
 * @since 0.1.0
 * @category models
 */
export interface Key<in out A, in out E> extends RequestKey<A, E> {
  readonly operation: string
  /** The hash of the operation's name, its tenant and its input, as `KeyHash` returned it. */
  readonly id: string
}

class HashedKey<A, E> implements Key<A, E> {
  readonly [KeyTypeId]: Key<A, E>[typeof KeyTypeId]
  readonly operation: string
  readonly slot: string
  readonly tenant: string | undefined

  constructor(of: Key<A, E>[typeof KeyTypeId], operation: string, slot: string, tenant?: string) {
    this[KeyTypeId] = of
    this.operation = operation
    this.slot = slot
    this.tenant = tenant
  }

  get id(): string {
    return hashOf(this.slot)
  }
}

/**
 * A kind of call: a function from its input to its key.
 *
 * @since 0.1.0
 * @category models
 */
export interface Operation<in I, in out A, in out E> {
  (input: I): Key<A, E>
  readonly operation: string
}

/**
 * An operation with a codec for its results, which `dump` and `restore` need.
 *
 * @since 0.1.0
 * @category models
 */
export interface StorableOperation<in I, in out A, in out E> extends Operation<I, A, E> {
  /** Encodes a result as JSON. A failure only if the operation has a codec for it, a defect never. */
  readonly codec: Schema.Codec<Exit.Exit<A, E>, Schema.Json>
  /** The size of a restored success in bytes. */
  readonly size?: ((value: unknown) => number) | undefined
}

/**
 * Options for `operation`.
 *
 * @since 0.1.0
 * @category models
 */
export interface OperationOptions<in I, in out A, in out E> {
  /** The part of the input that the answer depends on. Equal keys share an answer. `KeyHash` says what is equal. */
  readonly key: (input: I) => unknown
  /**
   * How long a success is cached; as a function, how long any exit is. Default: the deduplicator's. If the function throws or
   * returns no finite duration, the result is not cached, and a warning is logged once for the operation.
   */
  readonly timeToLive?: Duration.Input | ((exit: Exit.Exit<A, E>) => Duration.Input) | undefined
  /**
   * Returns the size of a success in bytes, for `maxBytes` of the deduplicator. With that limit it is called once for each result.
   * Failures do not count. If it throws or returns no number from 0, the result is not cached, and a warning is logged once for
   * the operation. Default: results do not count.
   */
  readonly size?: ((value: A) => number) | undefined
  /** The tenant of a call. Only calls of one tenant share results. An input without one is a defect. Default: all share. */
  readonly tenant?: ((input: I) => string) | undefined
  /** Encodes an answer that leaves the process, as in `dump` or to a store. In memory no codec is needed. Default: none leaves it. */
  readonly success?: Schema.Codec<A, unknown> | undefined
  /** The same for a typed failure. Default: no failure leaves the process. */
  readonly error?: Schema.Codec<E, unknown> | undefined
}

/**
 * Defines an operation. The types of the answer are given first, the type of the input is inferred.
 *
 * **Gotchas**
 *
 * - The name identifies the operation. Define each operation once.
 * - An operation never throws. A key that cannot be made (`InvalidKey`, or what `key` threw) and invalid options
 *   (`InvalidOptions`) are defects where the key is used.
 *
 * **Example** (Cached for an hour, per customer; a refused prompt for a minute)
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
export const operation = <A, E = never>() => {
  function define<I>(
    name: string,
    options: OperationOptions<I, A, E> & { readonly success: Schema.Codec<A, unknown> }
  ): StorableOperation<I, A, E>
  function define<I>(name: string, options: OperationOptions<I, A, E>): Operation<I, A, E>
  function define<I>(name: string, options: OperationOptions<I, A, E>): Operation<I, A, E> {
    const invalid = invalidOperation(name, options)
    // Every key of the operation fails with it, before a call is made and paid for.
    if (invalid !== undefined) {
      return Object.assign(() => defective<A, E>(name, invalid), { operation: name, codec: Schema.Never })
    }
    // A key gets only results of its own type.
    const size = options.size as ((value: unknown) => number) | undefined
    const { error = Schema.Never, success } = options
    const codec = success === undefined
      ? undefined
      : Schema.toCodecJson(Schema.Exit(success, error, Schema.Never))
    const of = {
      timeToLive: readTimeToLive(options.timeToLive),
      size,
      codec: codec as Key<A, E>[typeof KeyTypeId]["codec"],
      defect: undefined
    }
    // An input without a tenant would share with all tenants.
    const tenantOf = (input: I): string | undefined => {
      const tenant: unknown = options.tenant?.(input)
      if (options.tenant === undefined || typeof tenant === "string") return tenant as string | undefined
      throw new InvalidKey({ operation: name, path: "", found: noTenant })
    }
    const make = (input: I): Key<A, E> => {
      try {
        const tenant = tenantOf(input)
        const tenantHash = codec === undefined || tenant === undefined ? undefined : tenantId(tenant)
        return new HashedKey(of, name, slotFor(name, tenant, options.key(input)), tenantHash)
      } catch (defect) {
        return defective(name, defect)
      }
    }
    return codec === undefined
      ? Object.assign(make, { operation: name })
      : Object.assign(make, { operation: name, codec, size })
  }
  return define
}

/** A key whose use is a defect. */
const defective = <A, E>(operation: string, error: unknown): Key<A, E> =>
  new HashedKey({ timeToLive: undefined, defect: { error } }, operation, "")

const readTimeToLive = <A, E>(
  timeToLive: OperationOptions<never, A, E>["timeToLive"]
): Key<A, E>[typeof KeyTypeId]["timeToLive"] => {
  if (timeToLive === undefined) return undefined
  // A key gets only exits of its own types.
  if (typeof timeToLive === "function") return (exit) => toMillis(timeToLive(exit as Exit.Exit<A, E>))
  const millis = toMillis(timeToLive)
  return (exit) => Exit.isSuccess(exit) ? millis : 0
}

const operationOptions: Known<OperationOptions<never, unknown, unknown>> = {
  key: true,
  tenant: true,
  timeToLive: true,
  size: true,
  success: true,
  error: true
}

const invalidOperation = (name: unknown, input: unknown): InvalidOptions | undefined => {
  const options = new OptionsReader("Deduplicator.operation")
  options.nonEmptyString("name", name)
  const given = options.object("options", input as OperationOptions<never, unknown, unknown>, operationOptions)
  if (typeof input !== "object" || input === null) return options.invalid
  const { error, key, size, success, tenant, timeToLive } = given
  if (typeof key !== "function") options.refuse("key", key, "must be a function")
  options.optionalFunction("tenant", tenant)
  options.optionalFunction("size", size)
  if (timeToLive !== undefined && typeof timeToLive !== "function") options.millis("timeToLive", timeToLive, 0)
  if (success !== undefined && !Schema.isSchema(success)) options.refuse("success", success, "must be a schema")
  if (error !== undefined && !Schema.isSchema(error)) options.refuse("error", error, "must be a schema")
  return options.invalid
}

/**
 * How many results were restored, or why not.
 *
 * @since 0.1.0
 * @category models
 */
export interface Restored {
  /** Cached again. */
  readonly restored: number
  /** Results that were skipped: the key has a flight or a newer result, or the result is larger than `maxBytes`. */
  readonly present: number
  /** Skipped: expired. */
  readonly expired: number
  /** Skipped: of another operation, or not readable by its codec. Each of these calls will be made again. */
  readonly undecodable: number
}

/**
 * The right to provide the result of a key, until the scope of the claim closes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lease<in A, in E> {
  /** Returns the value to all waiting callers, and caches it. `false` if the lease was used, has ended, or was invalidated. */
  readonly complete: (value: A) => Effect.Effect<boolean>
  /** Fails all waiting callers. `false` if the lease was used, has ended, or was invalidated. */
  readonly fail: (error: E) => Effect.Effect<boolean>
}

/**
 * The entry of a key: none, and the caller may provide the result; a flight to wait for; or a cached result.
 *
 * @since 0.1.0
 * @category models
 */
export type Claim<A, E> =
  | { readonly _tag: "New"; readonly lease: Lease<A, E> }
  | { readonly _tag: "InProgress"; readonly await: Effect.Effect<A, E | FlightAbandoned | TooManyWaiters> }
  | { readonly _tag: "Cached"; readonly exit: Exit.Exit<A, E> }

/**
 * Counters of a deduplicator, of effects and streams together.
 *
 * @since 0.1.0
 * @category models
 */
export interface Stats {
  /** Flights in progress. */
  readonly flights: number
  /** Callers that wait for a flight. */
  readonly waiting: number
  /** Cached results, with expired ones that are not swept yet. */
  readonly cached: number
  /** Callers that started a flight. */
  readonly led: number
  /** Callers that joined one. */
  readonly joined: number
  /** Callers that got a cached result. */
  readonly hits: number
  /** Results evicted before they expired. */
  readonly evicted: number
  /** Callers refused because too many waited. */
  readonly refused: number
  /** Results that could not be restored, or not be read from the store. */
  readonly undecodable: number
  /** Flights that got the result of another process. */
  readonly followed: number
  /** Requests to the store that failed. For a second after each, this process shares flights by itself. */
  readonly storeErrors: number
}

/**
 * Shares runs among callers with the same key, and caches their results.
 *
 * @since 0.1.0
 * @category services
 */
export class Deduplicator extends Context.Service<Deduplicator, {
  /** Runs the effect, waits for the flight of another caller with the same key, or returns its cached result. */
  readonly dedupe: {
    <A, E>(
      key: Key<A, E>,
      options?: DedupeOptions
    ): <E2, R>(
      self: Effect.Effect<A, E2, R> & Declares<E, E2>
    ) => Effect.Effect<A, E | TooManyWaiters, Exclude<R, Scope.Scope>>
    <A, E, R>(
      self: Effect.Effect<A, E, R>,
      key: Key<A, E>,
      options?: DedupeOptions
    ): Effect.Effect<A, E | TooManyWaiters, Exclude<R, Scope.Scope>>
  }
  /**
   * Reads the stream, or the stream that runs for another caller with the same key, from its beginning. Its elements are not
   * cached after it has ended.
   *
   * The stream is pulled when the fastest reader wants more. After `maxReplay` parts no reader can join (the next one starts
   * another), and all wait for a reader that is `maxReplay` parts behind.
   */
  readonly dedupeStream: {
    <A, E>(
      key: Key<A, E>,
      options?: DedupeOptions
    ): <E2, R>(
      self: Stream.Stream<A, E2, R> & Declares<E, E2>
    ) => Stream.Stream<A, E | TooManyWaiters, Exclude<R, Scope.Scope>>
    <A, E, R>(
      self: Stream.Stream<A, E, R>,
      key: Key<A, E>,
      options?: DedupeOptions
    ): Stream.Stream<A, E | TooManyWaiters, Exclude<R, Scope.Scope>>
  }
  /**
   * Looks at a key without running anything. If the key is free, the caller gets a lease and answers through it. If the scope
   * closes first, callers that wait get `FlightAbandoned`, and callers of `dedupe` run their own effect. A claim has no time
   * limit. Its holder must not wait for its own key, for example by `dedupe`: it would wait for itself.
   */
  readonly claim: <A, E>(key: Key<A, E>) => Effect.Effect<Claim<A, E>, never, Scope.Scope>
  /**
   * Removes the key's cached result, here and in the store. A flight continues for its callers, but is not joined or cached any more.
   * What other processes have in their memory stays until its time to live.
   */
  readonly invalidate: <A, E>(key: Key<A, E>) => Effect.Effect<void>
  /** Invalidates all keys of an operation. It looks at every cached result, so do not use it for every call. */
  readonly invalidateOperation: <I, A, E>(operation: Operation<I, A, E>) => Effect.Effect<void>
  /**
   * Returns the cached results of an operation, for a file that the next process restores. It has the results in clear text, and
   * the hashes of their inputs. Results that the codec cannot encode, and defects, are skipped. It looks at every cached result.
   */
  readonly dump: <I, A, E>(
    operation: StorableOperation<I, A, E>
  ) => Effect.Effect<ReadonlyArray<Dumped>>
  /** Caches what `dump` returned, for the rest of its time to live. Skips and counts what it cannot read. */
  readonly restore: <I, A, E>(
    operation: StorableOperation<I, A, E>,
    dump: ReadonlyArray<unknown>
  ) => Effect.Effect<Restored>
  /**
   * Deletes the results of a tenant from the store, and returns how many. What processes have in their memory stays until its time to
   * live. Without a store it deletes nothing.
   */
  readonly purgeTenant: (tenant: string) => Effect.Effect<number, StoreError>
  readonly stats: Effect.Effect<Stats>
}>()("@sluice/core/Deduplicator") {}

/**
 * Builds a deduplicator with its own state. When the scope closes, its flights are interrupted. With `shared` it takes the
 * `FlightStore` of the context, and fails with `InvalidOptions` if there is none.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: DeduplicatorOptions = {}
): Effect.Effect<Deduplicator["Service"], InvalidOptions, Scope.Scope> =>
  Effect.serviceOption(FlightStore).pipe(
    Effect.flatMap((store) => makeDeduplicator(options, Option.getOrUndefined(store))),
    Effect.map(({ service }) => service)
  )

/**
 * Provides `Deduplicator`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: DeduplicatorOptions): Layer.Layer<Deduplicator, InvalidOptions> =>
  Layer.effect(Deduplicator, make(options))

/**
 * Provides a `Deduplicator` that shares flights with other processes through a `FlightStore`.
 *
 * **Example** (Two deduplicators, as in two processes)
 *
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import * as Deduplicator from "@sluice/core/Deduplicator"
 * import * as FlightStore from "@sluice/core/FlightStore"
 *
 * const Summary = Deduplicator.operation<string>()("summary", { key: (text: string) => text, success: Schema.String })
 *
 * let calls = 0
 * const ask = Effect.delay(Effect.sync(() => `answer ${++calls}`), "10 millis")
 *
 * const summarize = Deduplicator.Deduplicator.use(({ dedupe }) => dedupe(ask, Summary("a long text")))
 * const inOneProcess = Effect.provide(summarize, Layer.fresh(Deduplicator.layerStore()))
 * const program = Effect.all([inOneProcess, inOneProcess], { concurrency: "unbounded" })
 *
 * console.log(await Effect.runPromise(Effect.provide(program, FlightStore.layerMemory))) // => [ 'answer 1', 'answer 1' ]
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStore = (
  options?: Omit<DeduplicatorOptions, "shared">
): Layer.Layer<Deduplicator, InvalidOptions, FlightStore> =>
  Layer.effect(
    Deduplicator,
    Effect.flatMap(FlightStore, (store) =>
      Effect.map(makeDeduplicator({ ...options, shared: true }, store), ({ service }) => service))
  )

/**
 * A deduplicator that runs every call separately.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: Deduplicator["Service"] = Deduplicator.of({
  dedupe: dual(
    (args) => Effect.isEffect(args[0]),
    <A, E, R>(self: Effect.Effect<A, E, R>, _: Key<A, E>, options?: DedupeOptions) =>
      Effect.andThen(Effect.sync(() => options?.onServed?.("Led")), Effect.scoped(self))
  ),
  dedupeStream: dual(
    (args) => Stream.isStream(args[0]),
    <A, E, R>(self: Stream.Stream<A, E, R>, _: Key<A, E>, options?: DedupeOptions) =>
      Stream.suspend(() => {
        options?.onServed?.("Led")
        return Stream.scoped(self)
      })
  ),
  claim: () =>
    Effect.sync(() => {
      let isHeld = true
      const settle = Effect.sync(() => {
        const wasHeld = isHeld
        isHeld = false
        return wasHeld
      })
      return { _tag: "New", lease: { complete: () => settle, fail: () => settle } }
    }),
  invalidate: () => Effect.void,
  invalidateOperation: () => Effect.void,
  dump: () => Effect.succeed([]),
  restore: () => Effect.succeed({ restored: 0, present: 0, expired: 0, undecodable: 0 }),
  purgeTenant: () => Effect.succeed(0),
  stats: Effect.succeed({
    flights: 0,
    waiting: 0,
    cached: 0,
    led: 0,
    joined: 0,
    hits: 0,
    evicted: 0,
    refused: 0,
    undecodable: 0,
    followed: 0,
    storeErrors: 0
  })
})

/**
 * Provides a deduplicator that runs every call separately, for tests and to switch deduplication off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<Deduplicator> = Layer.succeed(Deduplicator, noop)
