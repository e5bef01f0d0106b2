import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type {
  Claim,
  DedupeOptions,
  Deduplicator,
  DeduplicatorOptions,
  Key,
  Restored,
  Served,
  Stats,
  StorableOperation
} from "../../Deduplicator.ts"
import type { FlightStore } from "../../FlightStore.ts"
import type { InvalidOptions } from "../../InvalidOptions.ts"
import { OptionsReader } from "../../OptionsReader.ts"
import { withoutStack } from "../../Refusal.ts"
import { registerMetrics, type Source, sourcesOf } from "../kit/metrics.ts"
import { Dumped } from "./dumped.ts"
import { FlightAbandoned, TooManyWaiters } from "./errors.ts"
import {
  type Counters,
  DedupedEffect,
  Flight,
  Flights,
  type FlightWaiter,
  type Landing,
  type Refuse
} from "./flights.ts"
import { readDeduplicator } from "./options.ts"
import { hashOf, KeyTypeId, slotOf } from "./requestKey.ts"
import { SharedRuns } from "./sharedRun.ts"
import { operationId, StoredFlights, tenantId } from "./storedFlights.ts"
import { StreamFlights } from "./streamFlights.ts"

/** The service, and what a policy uses of it. */
export interface Parts {
  readonly service: Deduplicator["Service"]
  /** `dedupe` that calls back with how the caller is served, before it waits, and again if its flight is abandoned. */
  readonly share: <A, E, R, E2>(
    self: Effect.Effect<A, E, R>,
    key: Key<A, E>,
    onServed: (served: Served) => void,
    refuse: Refuse<E2>
  ) => Effect.Effect<A, E | E2, Exclude<R, Scope.Scope>>
  /** `dedupeStream` that calls back with how the reader is served, when it opens the stream. */
  readonly shareStream: <A, E, R, E2>(
    self: Stream.Stream<A, E, R>,
    key: Key<A, E>,
    onServed: (served: Served) => void,
    refuse: Refuse<E2>
  ) => Stream.Stream<A, E | E2, Exclude<R, Scope.Scope>>
}

export const makeDeduplicator = Effect.fnUntraced(function*(
  input: DeduplicatorOptions,
  store: FlightStore["Service"] | undefined
): Effect.fn.Return<Parts, InvalidOptions, Scope.Scope> {
  const options = new OptionsReader("Deduplicator")
  const read = readDeduplicator(options, input, "")
  if (read.shared && store === undefined) options.refuse("shared", true, needsStore)
  const { capacity, leaseMillis, maxBytes, maxReplay, maxResultBytes, maxWaiters, name, shared, timeToLiveMillis } =
    yield* options.check(read)
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const now = () => clock.currentTimeMillisUnsafe()
  const stored = shared && store !== undefined
    ? new StoredFlights({ name, store, leaseMillis, maxResultBytes, now, context })
    : undefined
  // Runs that are interrupted release their leases, so those are waited for last.
  if (stored !== undefined) yield* Effect.addFinalizer(() => stored.close)
  const runs = new SharedRuns()
  yield* Effect.addFinalizer(() => runs.close)
  const counters: Counters = { flights: 0, waiting: 0, led: 0, joined: 0, hits: 0, evicted: 0, refused: 0 }
  let undecodable = 0
  const refusal = (operation: string, waiting: number): TooManyWaiters =>
    withoutStack(() => new TooManyWaiters({ policy: name, operation, waiting, maxWaiters }))
  const fork = Effect.runForkWith(context)
  const warned = new Set<string>()
  const onInvalid = (operation: string, option: "timeToLive" | "size"): void => {
    if (warned.has(operation)) return
    warned.add(operation)
    const expected = option === "size" ? "number of bytes" : "finite duration"
    fork(Effect.logWarning(
      `deduplicator ${name}: ${option} of operation ${operation} threw, or returned no ${expected}; ` +
        "such results are not cached"
    ))
  }
  const flights = new Flights(
    { capacity, maxBytes, timeToLiveMillis, maxWaiters, clock, runs, stored, refusal, onInvalid },
    counters
  )
  const streams = new StreamFlights({ maxReplay, maxWaiters, runs, refusal }, counters)
  const stats = (): Stats => ({
    ...counters,
    cached: flights.cached,
    undecodable: undecodable + (stored?.counters.undecodable ?? 0),
    followed: stored?.counters.followed ?? 0,
    storeErrors: stored?.counters.storeErrors ?? 0
  })
  // An entry that could not be deleted is counted, and logged once.
  const purge = (by: "key" | "operation", hash: () => string) =>
    stored === undefined ? Effect.void : Effect.ignore(Effect.suspend(() => stored.purge({ by, hash: hash() })))
  yield* registerMetrics(metricsOf(name, stats))

  const share: Parts["share"] = <A, E, R, E2>(
    self: Effect.Effect<A, E, R>,
    key: Key<A, E>,
    onServed: (served: Served) => void,
    refuse: Refuse<E2>
  ) =>
    // Its requirements, apart from the scope, are in the context of the caller that leads.
    new DedupedEffect(flights, self, key, onServed, refuse) as Effect.Effect<A, E | E2, Exclude<R, Scope.Scope>>

  const shareStream: Parts["shareStream"] = (self, key, onServed, refuse) => streams.share(self, key, onServed, refuse)

  const claim = <A, E>(key: Key<A, E>): Effect.Effect<Claim<A, E>, never, Scope.Scope> =>
    Effect.uninterruptible(Effect.flatMap(Effect.scope, (holder): Effect.Effect<Claim<A, E>> => {
      const { defect } = key[KeyTypeId]
      if (defect !== undefined) return Effect.die(defect.error)
      const found = flights.find(key)
      if (found === undefined) return lease(flights.open(key, undefined), holder)
      return Effect.succeed(
        found instanceof Flight
          ? { _tag: "InProgress", await: awaitFlight(found) }
          : { _tag: "Cached", exit: found }
      )
    }))

  const awaitFlight = <A, E>(flight: Flight<A, E>): Effect.Effect<A, E | FlightAbandoned | TooManyWaiters> => {
    const { operation } = flight.key
    const abandoned = Effect.suspend(() => Effect.fail(withoutStack(() => new FlightAbandoned({ operation }))))
    const enter = (waiter: FlightWaiter) =>
      flights.isFull(flight) ? Effect.fail(flights.refusal(flight)) : flights.join(flight, waiter, abandoned)
    // It ends as the flight does, or with one of these two.
    return Effect.withFiber((fiber) => flights.enter(fiber, { enter })) as Effect.Effect<
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
      return flights.cachedOf(operation).flatMap(({ exit, expiresAt, slot }) =>
        Option.toArray(Option.map(encode(exit), (exit) => ({ operation, key: hashOf(slot), expiresAt, exit })))
      )
    })

  const restore = <I, A, E>({ codec, operation, size }: StorableOperation<I, A, E>, dump: ReadonlyArray<unknown>) =>
    Effect.sync((): Restored => {
      const decode = Schema.decodeUnknownOption(codec)
      const now = clock.currentTimeMillisUnsafe()
      const counts = { restored: 0, present: 0, expired: 0, undecodable: 0 }
      const restoreOne = (encoded: unknown): keyof Restored => {
        const dumped = Option.getOrUndefined(decodeDumped(encoded))
        // A result of another operation would be served with types that it does not have.
        if (dumped === undefined || dumped.operation !== operation) return "undecodable"
        const { expiresAt, key } = dumped
        if (expiresAt <= now) return "expired"
        return Option.match(decode(dumped.exit), {
          onNone: () => "undecodable",
          onSome: (exit) =>
            flights.restore(operation, { slot: slotOf(key), exit, expiresAt }, size) ? "restored" : "present"
        })
      }
      for (const encoded of dump) counts[restoreOne(encoded)]++
      undecodable += counts.undecodable
      return counts
    })

  return {
    share,
    shareStream,
    service: {
      dedupe: dedupeWith(share),
      dedupeStream: dual(
        (args) => Stream.isStream(args[0]),
        <A, E, R>(self: Stream.Stream<A, E, R>, key: Key<A, E>, options?: DedupeOptions) =>
          shareStream(self, key, options?.onServed ?? ignore, Effect.fail)
      ),
      claim,
      invalidate: (key) =>
        Effect.suspend(() => {
          flights.invalidate(key)
          streams.invalidate(key)
          return purge("key", () => hashOf(key.slot))
        }),
      invalidateOperation: ({ operation }) =>
        Effect.suspend(() => {
          flights.invalidateOperation(operation)
          streams.invalidateOperation(operation)
          return purge("operation", () => operationId(operation))
        }),
      purgeTenant: (tenant) =>
        stored === undefined
          ? Effect.succeed(0)
          : Effect.suspend(() => stored.purge({ by: "tenant", hash: tenantId(tenant) })),
      dump,
      restore,
      stats: Effect.sync(stats)
    }
  }
})

// Not by `dual`, whose predicate costs half of a cache hit.
const dedupeWith = (share: Parts["share"]): Deduplicator["Service"]["dedupe"] => {
  function dedupe<A, E>(
    key: Key<A, E>,
    options?: DedupeOptions
  ): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | TooManyWaiters, Exclude<R, Scope.Scope>>
  function dedupe<A, E, R>(
    self: Effect.Effect<A, E, R>,
    key: Key<A, E>,
    options?: DedupeOptions
  ): Effect.Effect<A, E | TooManyWaiters, Exclude<R, Scope.Scope>>
  function dedupe<A, E, R>(
    first: Effect.Effect<A, E, R> | Key<A, E>,
    second?: Key<A, E> | DedupeOptions,
    third?: DedupeOptions
  ) {
    // The overloads say what the other arguments are.
    return Effect.isEffect(first)
      ? share(first, second as Key<A, E>, third?.onServed ?? ignore, Effect.fail)
      : <R>(self: Effect.Effect<A, E, R>) =>
        share(self, first, (second as DedupeOptions | undefined)?.onServed ?? ignore, Effect.fail)
  }
  return dedupe
}

const needsStore = "needs a FlightStore in the context, such as that of RedisStores.layer or SqlStores.layer"

const ignore = (): void => {}

const decodeDumped = Schema.decodeUnknownOption(Dumped)

const metricsOf = (name: string, stats: () => Stats): ReadonlyArray<Source> => {
  const { counter, gauge } = sourcesOf(name)
  const gaugeOf = (stat: keyof Stats, description: string) =>
    gauge(`sluice_deduplicator_${stat}`, description, () => stats()[stat])
  const counterOf = (stat: keyof Stats, description: string) =>
    counter(`sluice_deduplicator_${snakeCase(stat)}_total`, description, () => stats()[stat])
  return [
    gaugeOf("flights", "Flights in progress"),
    gaugeOf("waiting", "Callers that wait for a flight"),
    gaugeOf("cached", "Cached results"),
    counterOf("led", "Callers that started a flight"),
    counterOf("joined", "Callers that joined a flight"),
    counterOf("hits", "Callers that got a cached result"),
    counterOf("evicted", "Results evicted before they expired"),
    counterOf("refused", "Callers refused because too many waited"),
    counterOf("undecodable", "Results that could not be restored or read from the store"),
    counterOf("followed", "Flights that got the result of another process"),
    counterOf("storeErrors", "Requests to the store that failed")
  ]
}

const snakeCase = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
