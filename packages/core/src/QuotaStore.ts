/**
 * The contract of a store that keeps what counts against quotas: sums over windows of time, and what is held at once.
 *
 * A store holds sums, never a policy. It adds amounts if they fit under limits that the caller names, replaces them by what was
 * used, and forgets them when their window has passed. So quotas with different limits, in one process or in many, can share it.
 *
 * **When to use**
 *
 * `layerMemory` keeps the sums in this process. `@sluice/redis` shares them between processes. To share them elsewhere, implement
 * the contract below, and test it with the contract suite of `@sluice/testing`.
 *
 * **Details**
 *
 * - An amount is in the bucket of the latest time at which it can have arrived: `guardMillis` after the reservation. `settle` moves
 *   it to an earlier bucket if `agoMillis` says so, never to a later one. It leaves when the end of its bucket is `windowMillis` ago.
 * - `windowMillis` 0 is what is held at once: an amount leaves when its id is settled or its lease ends. Infinity never leaves.
 * - Ids are of one attempt. A live id again is `ok` and takes nothing, so a caller whose reply was lost can repeat its request.
 * - An amount above its limit fits if nothing else counts. A settlement above the reservation makes the sum exceed the limit.
 * - Amounts are whole numbers: requests, tokens, millionths of a currency. Times are the store's own epoch milliseconds.
 * - `lease` frees what is held at once by a process that died. Windows forget by themselves, so their amounts stay.
 *
 * **Gotchas**
 *
 * - The window and the quantum are part of a sum's address. A deploy with another window starts a new sum.
 * - A store may forget a sum that was not used for longer than its window, and nothing else.
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

/**
 * One amount that a call asks for.
 *
 * @since 0.1.0
 * @category models
 */
export interface Ask {
  /** Whose limit it is: `all`, or a tenant's. */
  readonly scope: string
  readonly dimension: string
  /** The most that may count. Infinity: it is only counted. */
  readonly limit: number
  /** 0: held at once. Infinity: for good. */
  readonly windowMillis: number
  /** How long a bucket of the window is. */
  readonly quantumMillis: number
  readonly amount: number
}

/**
 * The answer to `reserve`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Verdict {
  readonly ok: boolean
  /** How long until the asks may fit, at least 1 if they do not fit now. What is held at once may be free at any time. */
  readonly waitMillis: number
  /** The index of the ask that has to wait longest. -1 if none. */
  readonly blockedBy: number
  /** What counts for each ask after the request. */
  readonly used: ReadonlyArray<number>
  /** Epoch milliseconds of the store. */
  readonly now: number
}

/**
 * The limit that all processes keep to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Ceiling {
  /** At most the stated limit. */
  readonly limit: number
  /** How long ago it was learned. */
  readonly ageMillis: number
  /** How long the provider asked to be left alone. */
  readonly restMillis: number
}

/**
 * What counts for one dimension of a scope.
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
 * Keeps what counts against quotas.
 *
 * @since 0.1.0
 * @category services
 */
export class QuotaStore extends Context.Service<QuotaStore, {
  /** Adds all amounts or none. The same id again, while it lives, is `ok` and takes nothing. */
  readonly reserve: (options: {
    readonly target: string
    readonly id: string
    readonly leaseMillis: number
    readonly guardMillis: number
    readonly asks: ReadonlyArray<Ask>
  }) => Effect.Effect<Verdict, StoreError>
  /**
   * Replaces the amounts of an id by what was used, and frees what it holds at once. Asks that are not named keep their amount.
   * `false`, and nothing changed, for an id that does not live.
   */
  readonly settle: (options: {
    readonly target: string
    readonly id: string
    readonly actual: ReadonlyArray<{ readonly scope: string; readonly dimension: string; readonly amount: number }>
    /** How long ago the provider had surely got the call. Default 0. */
    readonly agoMillis?: number | undefined
  }) => Effect.Effect<boolean, StoreError>
  /** Adds without asking: what was spent while the store was away. */
  readonly record: (options: {
    readonly target: string
    readonly asks: ReadonlyArray<Ask>
    readonly agoMillis?: number | undefined
  }) => Effect.Effect<void, StoreError>
  /** Prolongs leases. A stream may take longer than one. */
  readonly renew: (options: {
    readonly target: string
    readonly ids: ReadonlyArray<string>
    readonly leaseMillis: number
  }) => Effect.Effect<void, StoreError>
  /** Returns the limit that all processes keep to. With `seen` or `restMillis` it is set before. */
  readonly limit: (options: {
    readonly target: string
    readonly dimension: string
    readonly stated: number
    readonly seen?: number | undefined
    readonly restMillis?: number | undefined
  }) => Effect.Effect<Ceiling, StoreError>
  /** Returns what counts, by scope, dimension and window. A sum that was never used may be missing. */
  readonly read: (options: {
    readonly target: string
    readonly scopes: ReadonlyArray<string>
  }) => Effect.Effect<ReadonlyArray<StoredLevel>, StoreError>
}>()("@sluice/core/QuotaStore") {}

/**
 * Builds a store with its own state, in memory.
 *
 * **Details**
 *
 * It keeps at most `capacity` targets (default 10,000). To make room it forgets the least recently used one that holds nothing.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeMemory = (
  options?: { readonly capacity?: number | undefined }
): Effect.Effect<QuotaStore["Service"]> =>
  Effect.map(Clock.Clock, (clock) => {
    const quotas = new MemoryQuotas(options?.capacity ?? 10_000, new Ticks(clock))
    const store = QuotaStore.of({
      reserve: (request) => Effect.sync(() => quotas.reserve(request)),
      settle: (request) => Effect.sync(() => quotas.settle(request)),
      record: (request) => Effect.sync(() => quotas.record(request)),
      renew: (request) => Effect.sync(() => quotas.renew(request)),
      limit: (request) => Effect.sync(() => quotas.limit(request)),
      read: (request) => Effect.sync(() => quotas.read(request))
    })
    setMemory(store, quotas)
    return store
  })

/**
 * Keeps what counts in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory: Layer.Layer<QuotaStore> = Layer.effect(QuotaStore, makeMemory())
