/**
 * The contract of a store for the sums of quotas: amounts in windows of time, and amounts held at once.
 *
 * A store keeps sums and no limits of its own. It adds amounts if they fit under the limits of the request, replaces them by the
 * actual use, and drops them when their window has passed. So quotas with different limits can share it, also between processes.
 *
 * **When to use**
 *
 * `layerMemory` keeps the sums in this process. `@sluice/redis` shares them between processes. To share them elsewhere, implement
 * the contract below, and test it with the contract suite of `@sluice/testing`.
 *
 * **Details**
 *
 * - An amount belongs to the bucket of its latest possible arrival: `guardMillis` after the reservation. `settle` with `agoMillis`
 *   can move it to an earlier bucket, never to a later one. It is dropped when the end of its bucket is `windowMillis` ago.
 * - With `windowMillis` 0, amounts are held at once: an amount is dropped when its id is settled or its lease ends. With Infinity it
 *   is never dropped.
 * - An id belongs to one attempt, or to one slice: an amount that a process reserves for its next calls. A second `reserve` of a
 *   live id is `ok` and adds nothing, so a request can be repeated if its reply was lost.
 * - With `least`, an ask is also satisfied by less than its `amount`. The verdict states what was `granted`.
 * - An amount above its limit fits if the sum is 0. A settlement above the reservation can raise the sum above the limit.
 * - `limit` shares a limit that one process has learned. Every verdict of the target repeats it, so that the other processes
 *   need no request of their own. The store does not apply it.
 * - Amounts are whole numbers: requests, tokens, millionths of a currency. Times are the store's own epoch milliseconds.
 * - The end of a lease frees the amounts that a dead process held at once. Its amounts in windows stay until the window passes.
 * - The store's time never goes back: if its clock is set back, the time continues from the latest time used.
 *
 * **Gotchas**
 *
 * - The window and the quantum are part of the address of a sum. A deployment with another window starts a new sum.
 * - A store must not forget a sum before it has been unused for longer than its window.
 *
 * **Example** (33 places for 40 calls)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as QuotaStore from "@sluice/core/QuotaStore"
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* QuotaStore.QuotaStore
 *   const ask = { scope: "all", dimension: "requests", limit: 33, windowMillis: 60_000, quantumMillis: 1_000, amount: 1 }
 *   const reserve = (id: number) =>
 *     store.reserve({ target: "openai", id: `${id}`, leaseMillis: 60_000, guardMillis: 1_000, asks: [ask] })
 *   const verdicts = yield* Effect.forEach(Array.from({ length: 40 }, (_, id) => id), reserve)
 *   return verdicts.filter(({ ok }) => ok).length
 * }).pipe(Effect.provide(QuotaStore.layerMemory))
 *
 * console.log(await Effect.runPromise(program)) // => 33
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { StoreError } from "./internal/circuit/storeError.ts"
import { MemoryQuotas, setMemory } from "./internal/quota/memory.ts"
import { Ticks } from "./internal/quota/ticks.ts"
import { byHand, sharedName } from "./internal/quota/names.ts"
import { once } from "./internal/quota/warning.ts"

/**
 * One amount that a call asks for.
 *
 * @since 0.1.0
 * @category models
 */
export interface Ask {
  /** The owner of the limit: `all` for the key, otherwise a tenant. */
  readonly scope: string
  readonly dimension: string
  /** The maximum sum. Infinity: the amount is counted and never refused. */
  readonly limit: number
  /** The length of the window. 0: held at once. Infinity: never dropped. */
  readonly windowMillis: number
  /** The length of a bucket of the window. */
  readonly quantumMillis: number
  readonly amount: number
  /** The smallest useful amount, granted if `amount` does not fit. Default `amount`. */
  readonly least?: number | undefined
}

/**
 * An amount that was used without a reservation.
 *
 * @since 0.1.0
 * @category models
 */
export interface Recorded extends Ask {
  /** How long ago the call had reached the provider at the latest. Default 0. */
  readonly agoMillis?: number | undefined
}

/**
 * The answer to `reserve`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Verdict {
  readonly ok: boolean
  /** The time until the asks may fit: 0 if they fit now, otherwise at least 1. An amount held at once may be freed before. */
  readonly waitMillis: number
  /** The index of the ask that has to wait longest. -1 if none has to wait. */
  readonly blockedBy: number
  /** The amount of each ask that the id holds: at least its `least` if `ok`, otherwise 0. */
  readonly granted: ReadonlyArray<number>
  /** The sum of each ask after the request. */
  readonly used: ReadonlyArray<number>
  /** The time of the store, in epoch milliseconds. */
  readonly now: number
  /** What processes have set with `limit` for this target, by dimension. Usually empty. */
  readonly learned: ReadonlyArray<Learned>
}

/**
 * The limit that all processes observe.
 *
 * @since 0.1.0
 * @category models
 */
export interface Ceiling {
  /** The last learned limit. Infinity: none was learned. */
  readonly limit: number
  /** How long ago the limit was learned. 0: never. */
  readonly ageMillis: number
  /** How long no call may start, by the provider's Retry-After. */
  readonly restMillis: number
}

/**
 * A ceiling of a target.
 *
 * @since 0.1.0
 * @category models
 */
export interface Learned extends Ceiling {
  readonly dimension: string
}

/**
 * The sum of one dimension of a scope.
 *
 * @since 0.1.0
 * @category models
 */
export interface StoredLevel {
  readonly scope: string
  readonly dimension: string
  readonly windowMillis: number
  readonly used: number
}

/**
 * Keeps the sums of quotas.
 *
 * @since 0.1.0
 * @category services
 */
export class QuotaStore extends Context.Service<QuotaStore, {
  /** Adds at least the `least` of every ask, or nothing. A live id is `ok` and adds nothing. */
  readonly reserve: (options: {
    readonly target: string
    readonly id: string
    readonly leaseMillis: number
    readonly guardMillis: number
    readonly asks: ReadonlyArray<Ask>
  }) => Effect.Effect<Verdict, StoreError>
  /**
   * Replaces the amounts of an id by the actual use, and frees its amounts held at once. Asks that `actual` does not name keep
   * their amount. Returns `false` and changes nothing for an id that is not live.
   *
   * With `keep` the id stays live, concurrent amounts stay held, and no amount moves to an earlier bucket. So a process can
   * give back the unused part of a slice while its calls run.
   */
  readonly settle: (options: {
    readonly target: string
    readonly id: string
    readonly actual: ReadonlyArray<{ readonly scope: string; readonly dimension: string; readonly amount: number }>
    /** How long ago the call had reached the provider at the latest. Default 0. */
    readonly agoMillis?: number | undefined
    readonly keep?: boolean | undefined
  }) => Effect.Effect<boolean, StoreError>
  /** Adds amounts without a check of the limits: the use while the store was down. */
  readonly record: (options: {
    readonly target: string
    readonly asks: ReadonlyArray<Recorded>
  }) => Effect.Effect<void, StoreError>
  /** Renews leases, for calls that take longer than one lease. */
  readonly renew: (options: {
    readonly target: string
    readonly ids: ReadonlyArray<string>
    readonly leaseMillis: number
  }) => Effect.Effect<void, StoreError>
  /**
   * Sets the learned limit (`seen`) and the rest (`restMillis`) of a dimension, if given, and returns its ceiling. A dimension
   * is any name. A rest is never shortened.
   */
  readonly limit: (options: {
    readonly target: string
    readonly dimension: string
    readonly seen?: number | undefined
    readonly restMillis?: number | undefined
  }) => Effect.Effect<Ceiling, StoreError>
  /** Returns the sums by scope, dimension and window. A sum that was never used may be missing. */
  readonly read: (options: {
    readonly target: string
    readonly scopes: ReadonlyArray<string>
  }) => Effect.Effect<ReadonlyArray<StoredLevel>, StoreError>
  /** Returns the targets that the store has, in the order of their names (by code unit), after `after`. */
  readonly targets: (options: {
    readonly after?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<string>, StoreError>
}>()("@sluice/core/QuotaStore") {}

/**
 * A limit by hand, which `hold` sets.
 *
 * @since 0.1.0
 * @category models
 */
export interface Hold {
  readonly target: string
  /** The name of the limit in the options of `Quota`, such as `requests`. */
  readonly dimension: string
  readonly windowMillis: number
  /** A whole number, at least 1. `Infinity` ends what was set before. */
  readonly limit: number
  readonly forMillis: number
}

/**
 * Lowers a limit by hand, in all processes that share the store.
 *
 * **Details**
 *
 * A quota uses the lower of this limit and its own, until the time is over. Each process follows with its next request to the store,
 * within the life of a slice. Calls that run are not affected. Returns for how long the limit is held.
 *
 * **Gotchas**
 *
 * - A limit that was set for longer keeps its end: the time of the store only grows. To end it, set `Infinity`.
 * - A quota in memory (`Quota.layerMemory`) does not follow it, since no other process can reach its store. Nor do limits of tenants.
 * - A target that is not used for two days is forgotten with its limits by hand.
 *
 * @since 0.1.0
 * @category holds
 */
export const hold = (
  { dimension, forMillis, limit, target, windowMillis }: Hold
): Effect.Effect<{ readonly forMillis: number }, StoreError, QuotaStore> =>
  QuotaStore.use((store) =>
    store.limit({
      target,
      dimension: byHand(sharedName(dimension, windowMillis)),
      // Some stores keep no Infinity.
      seen: Math.min(limit, Number.MAX_SAFE_INTEGER),
      restMillis: forMillis
    })
  ).pipe(Effect.map(({ restMillis }) => ({ forMillis: restMillis })))

/**
 * The lowered limits of a dimension, as `ceilings` returns them. Each is Infinity if there is none.
 *
 * @since 0.1.0
 * @category models
 */
export interface Ceilings {
  /** What a rejected call has taught a process, and how long ago. A process adds 2 % of its own limit for each minute since. */
  readonly learned: { readonly limit: number; readonly ageMillis: number }
  /** What was set by `hold`, and for how long it still holds. */
  readonly byHand: { readonly limit: number; readonly forMillis: number }
}

/**
 * Reads the lowered limits of a dimension.
 *
 * @since 0.1.0
 * @category holds
 */
export const ceilings = (
  { dimension, target, windowMillis }: Pick<Hold, "target" | "dimension" | "windowMillis">
): Effect.Effect<Ceilings, StoreError, QuotaStore> =>
  Effect.gen(function*() {
    const store = yield* QuotaStore
    const name = sharedName(dimension, windowMillis)
    const { ageMillis, limit } = yield* store.limit({ target, dimension: name })
    const hand = yield* store.limit({ target, dimension: byHand(name) })
    const isHeld = hand.restMillis > 0 && hand.limit < Number.MAX_SAFE_INTEGER
    return {
      learned: { limit, ageMillis },
      byHand: isHeld
        ? { limit: hand.limit, forMillis: hand.restMillis }
        : { limit: Number.POSITIVE_INFINITY, forMillis: 0 }
    }
  })

/**
 * Builds a store with its own state, in memory.
 *
 * **Details**
 *
 * The store keeps at most `capacity` targets (default 10,000), and the targets that quotas of this process use. To stay below,
 * it forgets the least recently used target without unsettled ids and amounts. If all have some, it forgets the least recently
 * used target, and logs a warning once.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeMemory = (
  options?: { readonly capacity?: number | undefined }
): Effect.Effect<QuotaStore["Service"]> =>
  Effect.contextWith((context: Context.Context<never>) => {
    const capacity = options?.capacity ?? 10_000
    const warn = once(context, `the quota store keeps ${capacity} keys, and more count at once. Raise its capacity`)
    const quotas = new MemoryQuotas(capacity, new Ticks(Context.get(context, Clock.Clock)), warn)
    const store = QuotaStore.of({
      reserve: (request) => Effect.sync(() => quotas.reserve(request)),
      settle: (request) => Effect.sync(() => quotas.settle(request)),
      record: (request) => Effect.sync(() => quotas.record(request)),
      renew: (request) => Effect.sync(() => quotas.renew(request)),
      limit: (request) => Effect.sync(() => quotas.limit(request)),
      read: (request) => Effect.sync(() => quotas.read(request)),
      targets: (request) => Effect.sync(() => quotas.list(request))
    })
    setMemory(store, quotas)
    return Effect.succeed(store)
  })

/**
 * Provides a `QuotaStore` in the memory of this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory: Layer.Layer<QuotaStore> = Layer.effect(QuotaStore, makeMemory())
