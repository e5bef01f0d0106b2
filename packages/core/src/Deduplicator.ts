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
 * | `maxWaiters` | 10,000 | callers who wait for one flight: a waiting fiber takes about 1 KB. So many for one answer are a loop, not a crowd |
 * | `maxReplay` | 4,096 | parts of a stream kept for those who join late: more than most answers have |
 * | `name` | `"deduplicator"` | what refusals and metrics call it |
 *
 * Success, typed failure and defect are shared alike. A failure is kept only if the operation's `timeToLive` is a function
 * and says so; an interruption and a refusal of a policy (`CircuitOpen` and the like) never are. A result whose time to
 * live is exactly over is not served.
 *
 * The flight runs with the context of the caller who started it, in a scope of its own, and without a parent span. Its
 * `Deadline` is the latest among those who wait at that moment; each caller leaves when its own passes.
 *
 * Who comes when `maxWaiters` wait already is refused with `TooManyWaiters`. To run it by itself would let through the very
 * stampede that sharing is for.
 *
 * Metrics, with the attribute `policy`: `sluice_deduplicator_flights`, `_waiting`, `_cached` (gauges), `_led_total`,
 * `_joined_total`, `_hits_total`, `_evicted_total`, `_refused_total`, `_undecodable_total` (counters).
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
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { checkDeduplicator } from "./internal/deduplicatorOptions.ts"
import type { Counters, Landing, Refuse, Seat } from "./internal/flights.ts"
import { Deduped, Flight, Flights } from "./internal/flights.ts"
import { Fleet } from "./internal/launch.ts"
import * as metrics from "./internal/metrics.ts"
import { Options, toMillis } from "./internal/options.ts"
import { RefusalTypeId } from "./internal/refusal.ts"
import type { RequestKey } from "./internal/requestKey.ts"
import { hashOf, KeyTypeId, slotOf } from "./internal/requestKey.ts"
import { stackless } from "./internal/stackless.ts"
import { StreamFlights } from "./internal/streamFlights.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { InvalidKey, slotFor } from "./KeyHash.ts"

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
 * As many callers wait for one run as may. Nothing was run for this one.
 *
 * **Details**
 *
 * It says nothing about the dependency: no retry repeats it and no circuit counts it. Ask again once the run has ended, which
 * nobody can foretell. If the crowd is real, raise `maxWaiters`; mostly it is one caller who asks in a loop.
 *
 * @since 0.1.0
 * @category errors
 */
export class TooManyWaiters extends Schema.Error<TooManyWaiters>("@sluice/core/TooManyWaiters")({
  _tag: Schema.tag("TooManyWaiters"),
  /** The name of the policy that refused. */
  policy: Schema.String,
  operation: Schema.String,
  /** Callers who were waiting for the run. */
  waiting: Schema.Int,
  maxWaiters: Schema.Int
}) {
  get [RefusalTypeId](): true {
    return true
  }
  override get message(): string {
    return `${this.policy} refused: ${this.waiting} of ${this.maxWaiters} callers wait for one run of operation ` +
      `${this.operation}; ask again when it has ended, or raise maxWaiters`
  }
}

/**
 * What a deduplicator is built from.
 *
 * @since 0.1.0
 * @category models
 */
export interface DeduplicatorOptions {
  /** Named in refusals and metrics. Default `"deduplicator"`. */
  readonly name?: string | undefined
  /** How many results are kept. Default 10,000. */
  readonly capacity?: number | undefined
  /** How long a success is kept whose operation says nothing else. Default 0: only flights are shared. */
  readonly timeToLive?: Duration.Input | undefined
  /** How many callers may wait for one flight. Default 10,000. */
  readonly maxWaiters?: number | undefined
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
  /** The hash of the operation's name, its tenant and its input, as the `KeyHash` gave it. */
  readonly id: string
}

class HashedKey<A, E> implements Key<A, E> {
  readonly [KeyTypeId]: Key<A, E>[typeof KeyTypeId]
  readonly operation: string
  readonly slot: string

  constructor(of: Key<A, E>[typeof KeyTypeId], operation: string, slot: string) {
    this[KeyTypeId] = of
    this.operation = operation
    this.slot = slot
  }

  get id(): string {
    return hashOf(this.slot)
  }
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
 * An operation whose results can be written down and read again: it has a codec for its answer.
 *
 * @since 0.1.0
 * @category models
 */
export interface StorableOperation<in I, in out A, in out E> extends Operation<I, A, E> {
  /** Between a result and JSON. A failure has a form only where the operation has a codec for it; a defect never has. */
  readonly codec: Schema.Codec<Exit.Exit<A, E>, Schema.Json>
}

/**
 * What an operation is made of.
 *
 * @since 0.1.0
 * @category models
 */
export interface OperationOptions<in I, in out A, in out E> {
  /** What of the input the answer depends on. Equal keys share an answer; see `KeyHash` for what is equal. */
  readonly key: (input: I) => unknown
  /**
   * How long a success is kept; or, as a function, how long any exit is. Default: the deduplicator's. A result of which the
   * function throws, or gives no finite duration, is handed out and not kept; each operation is warned about once.
   */
  readonly timeToLive?: Duration.Input | ((exit: Exit.Exit<A, E>) => Duration.Input) | undefined
  /** Whose answer it is: only calls of one tenant share. An input that has none is a defect. Default: everybody's. */
  readonly tenant?: ((input: I) => string) | undefined
  /**
   * How an answer is written down where it leaves the process, as in `dump`. Default: it never leaves it. In memory an answer
   * is kept as it is, and needs none.
   */
  readonly success?: Schema.Codec<A, unknown> | undefined
  /** The same for a typed failure. Default: no failure leaves the process. */
  readonly error?: Schema.Codec<E, unknown> | undefined
}

/**
 * Defines an operation. The answer's types are given first, the input's are inferred.
 *
 * **Gotchas**
 *
 * - The name stands for the operation wherever keys meet. Define each operation once.
 * - An operation never throws. A key that cannot be made (`InvalidKey`, or what `key` threw) is a defect where it is used, and
 *   so are options that make no sense (`InvalidOptions`).
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
export const operation = <A, E = never>() => {
  function define<I>(
    name: string,
    options: OperationOptions<I, A, E> & { readonly success: Schema.Codec<A, unknown> }
  ): StorableOperation<I, A, E>
  function define<I>(name: string, options: OperationOptions<I, A, E>): Operation<I, A, E>
  function define<I>(name: string, options: OperationOptions<I, A, E>): Operation<I, A, E> {
    const invalid = invalidOperation(name, options)
    // Told before a call is made and paid for, by every key of the operation.
    if (invalid !== undefined) {
      return Object.assign(() => keyless<A, E>(name, invalid), { operation: name, codec: Schema.Never })
    }
    const of = { timeToLive: readTimeToLive(options.timeToLive), defect: undefined }
    // Without one it would share with everybody.
    const tenantOf = (input: I): string | undefined => {
      const tenant: unknown = options.tenant?.(input)
      if (options.tenant === undefined || typeof tenant === "string") return tenant as string | undefined
      throw new InvalidKey({ operation: name, path: "", found: "no tenant" })
    }
    const make = (input: I): Key<A, E> => {
      try {
        return new HashedKey(of, name, slotFor(name, tenantOf(input), options.key(input)))
      } catch (defect) {
        return keyless(name, defect)
      }
    }
    const { error = Schema.Never, success } = options
    return success === undefined
      ? Object.assign(make, { operation: name })
      : Object.assign(make, {
        operation: name,
        codec: Schema.toCodecJson(Schema.Exit(success, error, Schema.Never))
      })
  }
  return define
}

/** The key of a call that has none: whoever uses it dies of the defect. */
const keyless = <A, E>(operation: string, error: unknown): Key<A, E> =>
  new HashedKey({ timeToLive: undefined, defect: { error } }, operation, "")

const readTimeToLive = <A, E>(
  timeToLive: OperationOptions<never, A, E>["timeToLive"]
): Key<A, E>[typeof KeyTypeId]["timeToLive"] => {
  if (timeToLive === undefined) return undefined
  if (typeof timeToLive === "function") return (exit) => toMillis(timeToLive(exit))
  const millis = toMillis(timeToLive)
  return (exit) => Exit.isSuccess(exit) ? millis : 0
}

/** What of an operation's options makes no sense. */
const invalidOperation = (name: unknown, input: unknown): InvalidOptions | undefined => {
  const options = new Options("Deduplicator.operation")
  if (typeof name !== "string" || name === "") options.refuse("name", name, "a text that is not empty")
  if (typeof input !== "object" || input === null) {
    options.refuse("options", input, "an object")
    return options.invalid
  }
  const { error, key, success, tenant, timeToLive } = input as Partial<AnyOptions>
  if (typeof key !== "function") options.refuse("key", key, "a function")
  if (tenant !== undefined && typeof tenant !== "function") options.refuse("tenant", tenant, "a function")
  if (timeToLive !== undefined && typeof timeToLive !== "function") options.millis("timeToLive", timeToLive, 0)
  if (success !== undefined && !Schema.isSchema(success)) options.refuse("success", success, "a schema")
  if (error !== undefined && !Schema.isSchema(error)) options.refuse("error", error, "a schema")
  return options.invalid
}

type AnyOptions = OperationOptions<never, unknown, unknown>

/**
 * The form in which one kept result leaves the process, and comes back.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Dumped: Schema.Struct<{
  readonly operation: Schema.String
  readonly key: Schema.String
  readonly expiresAt: Schema.Finite
  readonly exit: typeof Schema.Json
}> = Schema.Struct({
  operation: Schema.String,
  /** The `id` of its key. */
  key: Schema.String,
  /** Epoch milliseconds. */
  expiresAt: Schema.Finite,
  /** What the operation's codec made of the result. */
  exit: Schema.Json
})

/**
 * The form in which one kept result leaves the process, and comes back.
 *
 * @since 0.1.0
 * @category models
 */
export type Dumped = typeof Dumped.Type

/**
 * What became of the results that were to be restored.
 *
 * @since 0.1.0
 * @category models
 */
export interface Restored {
  /** Kept again. */
  readonly restored: number
  /** Left out: there is a run or a result for the key already, and it is newer. */
  readonly present: number
  /** Left out: their time is over. */
  readonly expired: number
  /** Left out: of another operation, or not what its codec reads. Each is a call that will be made again. */
  readonly undecodable: number
}

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
  | { readonly _tag: "InProgress"; readonly await: Effect.Effect<A, E | FlightAbandoned | TooManyWaiters> }
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
  /** Callers who wait for a flight now. */
  readonly waiting: number
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
  /** Callers who were refused because too many waited. */
  readonly refused: number
  /** Results that could not be restored because they could not be read. */
  readonly undecodable: number
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
    <A, E>(
      key: Key<A, E>
    ): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | TooManyWaiters, Exclude<R, Scope.Scope>>
    <A, E, R>(
      self: Effect.Effect<A, E, R>,
      key: Key<A, E>
    ): Effect.Effect<A, E | TooManyWaiters, Exclude<R, Scope.Scope>>
  }
  /**
   * Reads the stream, or the stream that runs for another caller with the same key, from its beginning. Its elements are
   * not kept once it has ended.
   *
   * The stream is pulled when the fastest reader wants more. After `maxReplay` parts nobody joins it any more (who comes then
   * starts another), and a reader that is `maxReplay` parts behind is waited for by all.
   */
  readonly dedupeStream: {
    <A, E>(
      key: Key<A, E>
    ): <R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | TooManyWaiters, Exclude<R, Scope.Scope>>
    <A, E, R>(
      self: Stream.Stream<A, E, R>,
      key: Key<A, E>
    ): Stream.Stream<A, E | TooManyWaiters, Exclude<R, Scope.Scope>>
  }
  /**
   * `dedupe` that says how the caller is served, before it waits; again if the flight it waited for is abandoned. What it
   * fails with when too many wait is made by `refuse`; without it nobody is refused.
   */
  readonly dedupeWith: <A, E, R, E2 = never>(
    self: Effect.Effect<A, E, R>,
    key: Key<A, E>,
    onServed: (served: Served) => void,
    refuse?: ((refusal: TooManyWaiters) => Effect.Effect<never, E2>) | undefined
  ) => Effect.Effect<A, E | E2, Exclude<R, Scope.Scope>>
  /** `dedupeStream` that says how the caller is served, when its stream is opened; and `refuse` as in `dedupeWith`. */
  readonly dedupeStreamWith: <A, E, R, E2 = never>(
    self: Stream.Stream<A, E, R>,
    key: Key<A, E>,
    onServed: (served: Served) => void,
    refuse?: ((refusal: TooManyWaiters) => Effect.Effect<never, E2>) | undefined
  ) => Stream.Stream<A, E | E2, Exclude<R, Scope.Scope>>
  /**
   * Looks at the key without running anything. Whoever finds it free gets a lease, and answers through it; if the scope
   * closes first, those who wait get `FlightAbandoned`, and callers of `dedupe` run their own effect. A claim never expires.
   * Its holder must not wait for its own key, by `dedupe` for instance: nobody else would answer.
   */
  readonly claim: <A, E>(key: Key<A, E>) => Effect.Effect<Claim<A, E>, never, Scope.Scope>
  /** Forgets the key's result. What runs for it goes on for those who wait, is joined by nobody, and is not kept. */
  readonly invalidate: <A, E>(key: Key<A, E>) => Effect.Effect<void>
  /** The same for all keys of an operation. It looks at everything that is kept: not for every call. */
  readonly invalidateOperation: <I, A, E>(operation: Operation<I, A, E>) => Effect.Effect<void>
  /**
   * What is kept of an operation, to be written to a file and restored by the next process. It holds the answers as they are,
   * and of their inputs the hash. Left out is what the operation has no codec for, and whatever died. It looks at everything
   * that is kept.
   */
  readonly dump: <I, A, E>(
    operation: StorableOperation<I, A, E>
  ) => Effect.Effect<ReadonlyArray<Dumped>>
  /**
   * Keeps what `dump` wrote, for the rest of its time to live. Whatever cannot be read is left out and counted: the call is
   * made again.
   */
  readonly restore: <I, A, E>(
    operation: StorableOperation<I, A, E>,
    dump: ReadonlyArray<unknown>
  ) => Effect.Effect<Restored>
  readonly stats: Effect.Effect<Stats>
}>()("@sluice/core/Deduplicator") {}

/**
 * Builds a deduplicator with state of its own. When the scope closes, its flights are interrupted.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = Effect.fnUntraced(function*(options?: DeduplicatorOptions) {
  const { capacity, maxReplay, maxWaiters, name, timeToLiveMillis } = yield* readOptions(options)
  const clock = yield* Clock.Clock
  const fleet = new Fleet()
  yield* Effect.addFinalizer(() => fleet.close)
  const counters: Counters = { flights: 0, waiting: 0, led: 0, joined: 0, hits: 0, evicted: 0, refused: 0 }
  let undecodable = 0
  const refusal = (operation: string, waiting: number): TooManyWaiters =>
    stackless(() => new TooManyWaiters({ policy: name, operation, waiting, maxWaiters }))
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const untold = new Set<string>()
  const onUntold = (operation: string): void => {
    if (untold.has(operation)) return
    untold.add(operation)
    const told = `deduplicator ${name}: the timeToLive of operation ${operation} threw, or gave no finite duration`
    fork(Effect.logWarning(`${told}; such results are handed out and not kept`))
  }
  const flights = new Flights({ capacity, timeToLiveMillis, maxWaiters, clock, fleet, refusal, onUntold }, counters)
  const streams = new StreamFlights({ maxReplay, maxWaiters, fleet, refusal }, counters)
  const stats = (): Stats => ({ ...counters, cached: flights.cached, undecodable })
  yield* metrics.show(sources(name, stats))

  // What the run asks for besides a scope is in the context of whoever leads it.
  const dedupeWith = <A, E, R, E2 = never>(
    self: Effect.Effect<A, E, R>,
    key: Key<A, E>,
    onServed: (served: Served) => void,
    refuse?: Refuse<E2>
  ) => new Deduped(flights, self, key, onServed, refuse) as Effect.Effect<A, E | E2, Exclude<R, Scope.Scope>>

  const claim = <A, E>(key: Key<A, E>): Effect.Effect<Claim<A, E>, never, Scope.Scope> =>
    Effect.uninterruptible(Effect.flatMap(Effect.scope, (holder): Effect.Effect<Claim<A, E>> => {
      const { defect } = key[KeyTypeId]
      if (defect !== undefined) return Effect.die(defect.error)
      const found = flights.find(key)
      if (found === undefined) return lease(flights.open(key, undefined), holder)
      return Effect.succeed(
        found instanceof Flight
          ? { _tag: "InProgress", await: awaiting(found) }
          : { _tag: "Cached", exit: found }
      )
    }))

  const awaiting = <A, E>(flight: Flight<A, E>): Effect.Effect<A, E | FlightAbandoned | TooManyWaiters> => {
    const { operation } = flight.key
    const abandoned = Effect.suspend(() => Effect.fail(stackless(() => new FlightAbandoned({ operation }))))
    const enter = (seat: Seat) =>
      flights.isFull(flight) ? Effect.fail(flights.refusal(flight)) : flights.join(flight, seat, abandoned)
    // It ends as the flight does, or with one of these two.
    return Effect.withFiber((fiber) => flights.aboard(fiber, { enter })) as Effect.Effect<
      A,
      E | FlightAbandoned | TooManyWaiters
    >
  }

  const lease = <A, E>(flight: Flight<A, E>, holder: Scope.Scope): Effect.Effect<Claim<A, E>> => {
    const settle = (landing: Landing<A, E>) => Effect.sync(() => flights.settle(flight, landing))
    return Effect.as(Scope.addFinalizer(holder, settle("Abandoned")), {
      _tag: "New",
      lease: { complete: (value) => settle(Exit.succeed(value)), fail: (error) => settle(Exit.fail(error)) }
    })
  }

  const dump = <I, A, E>({ codec, operation }: StorableOperation<I, A, E>) =>
    Effect.sync(() => {
      const encode = Schema.encodeUnknownOption(codec)
      return flights.keptOf(operation).flatMap(({ exit, expiresAt, slot }) =>
        Option.toArray(Option.map(encode(exit), (exit) => ({ operation, key: hashOf(slot), expiresAt, exit })))
      )
    })

  const restore = <I, A, E>({ codec, operation }: StorableOperation<I, A, E>, dump: ReadonlyArray<unknown>) =>
    Effect.sync((): Restored => {
      const decode = Schema.decodeUnknownOption(codec)
      const now = clock.currentTimeMillisUnsafe()
      const became = { restored: 0, present: 0, expired: 0, undecodable: 0 }
      const restoreOne = (encoded: unknown): keyof Restored => {
        const dumped = Option.getOrUndefined(decodeDumped(encoded))
        // A result under the key of another operation would be handed out with types that it does not have.
        if (dumped === undefined || dumped.operation !== operation) return "undecodable"
        const { expiresAt, key } = dumped
        if (expiresAt <= now) return "expired"
        return Option.match(decode(dumped.exit), {
          onNone: () => "undecodable",
          onSome: (exit) => flights.restore(operation, { slot: slotOf(key), exit, expiresAt }) ? "restored" : "present"
        })
      }
      for (const encoded of dump) became[restoreOne(encoded)]++
      undecodable += became.undecodable
      return became
    })

  return Deduplicator.of({
    dedupe: dual(
      2,
      <A, E, R>(self: Effect.Effect<A, E, R>, key: Key<A, E>) => dedupeWith(self, key, ignore, Effect.fail)
    ),
    dedupeStream: dual(
      2,
      <A, E, R>(self: Stream.Stream<A, E, R>, key: Key<A, E>) => streams.share(self, key, ignore, Effect.fail)
    ),
    dedupeWith,
    dedupeStreamWith: (self, key, onServed, refuse) => streams.share(self, key, onServed, refuse),
    claim,
    invalidate: (key) =>
      Effect.sync(() => {
        flights.invalidate(key)
        streams.invalidate(key)
      }),
    invalidateOperation: ({ operation }) =>
      Effect.sync(() => {
        flights.invalidateOperation(operation)
        streams.invalidateOperation(operation)
      }),
    dump,
    restore,
    stats: Effect.sync(stats)
  })
})

const ignore = (): void => {}

const decodeDumped = Schema.decodeUnknownOption(Dumped)

const sources = (name: string, stats: () => Stats): ReadonlyArray<metrics.Source> => {
  const source = (kind: metrics.Source["kind"], stat: keyof Stats, description: string): metrics.Source => ({
    kind,
    id: `sluice_deduplicator_${stat}${kind === "Counter" ? "_total" : ""}`,
    description,
    attributes: { policy: name },
    read: () => stats()[stat]
  })
  return [
    source("Gauge", "flights", "Flights that run now"),
    source("Gauge", "waiting", "Callers who wait for a flight now"),
    source("Gauge", "cached", "Results that are held now"),
    source("Counter", "led", "Callers who started a flight"),
    source("Counter", "joined", "Callers who joined a flight"),
    source("Counter", "hits", "Callers who got a result that was kept"),
    source("Counter", "evicted", "Results that made room for others before their time was over"),
    source("Counter", "refused", "Callers who were refused because too many waited"),
    source("Counter", "undecodable", "Results that could not be restored because they could not be read")
  ]
}

const readOptions = (input: DeduplicatorOptions = {}) => {
  const options = new Options("Deduplicator")
  return options.check(checkDeduplicator(options, input, ""))
}

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
  invalidateOperation: () => Effect.void,
  dump: () => Effect.succeed([]),
  restore: () => Effect.succeed({ restored: 0, present: 0, expired: 0, undecodable: 0 }),
  stats: Effect.succeed({
    flights: 0,
    waiting: 0,
    cached: 0,
    led: 0,
    joined: 0,
    hits: 0,
    evicted: 0,
    refused: 0,
    undecodable: 0
  })
})

/**
 * Runs every call by itself, for tests and for switching the policy off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<Deduplicator> = Layer.succeed(Deduplicator, noop)
