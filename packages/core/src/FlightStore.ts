/**
 * The contract of a store that lets processes share flights: one process runs a call, and the others get its result.
 *
 * A store keeps one entry for each key: the lease of the process that leads, and the last result. It runs nothing and knows no types:
 * results are texts.
 *
 * **When to use**
 *
 * `@sluice/redis` and `@sluice/sql` share flights between processes, by `Deduplicator.layerStore` or the option `shared` of a policy.
 * To share them elsewhere, implement the contract below, and test it with the contract suite of `@sluice/testing`. `layerMemory` shares
 * between the deduplicators of one process, for tests.
 *
 * **Details**
 *
 * - `claim` either leads, follows the leader, or gets the result. It can be repeated: the leader's own `id` renews its lease. So a request
 *   whose reply was lost is sent again, and a follower learns of the result, or takes over, by the next claim.
 * - A lease lapses by the store's clock. Then the next claim leads. `renew`, `complete` and `release` of a lapsed lease change nothing and
 *   return `false`. So a late leader never replaces the result of its successor.
 * - Every lease has a generation, a number that only grows. A follower passes the generation that it follows, and gets the result of that
 *   lease or of a later one. Another claim gets a result only while it is fresh.
 * - A result is kept for `keepMillis` for followers, and is fresh for `freshMillis`. An empty result says that the leader has ended, and
 *   its result cannot be shared.
 * - Keys, operations and tenants are hashes. Times are the store's own. If its clock is set back, the times of an entry are shifted by as
 *   much at the next claim or renewal.
 *
 * **Gotchas**
 *
 * - An id belongs to one flight of one process. Do not use it again.
 * - `finished` may lose keys and repeat them. It makes followers faster, and nothing depends on it.
 *
 * **Example** (The second process follows the first)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as FlightStore from "@sluice/core/FlightStore"
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* FlightStore.FlightStore
 *   const flight = (id: string) => ({ key: "a hash", operation: "summary", tenant: "", id, leaseMillis: 10_000 })
 *   const first = yield* store.claim(flight("process 1"))
 *   const second = yield* store.claim(flight("process 2"))
 *   yield* store.complete({ ...flight("process 1"), result: "42", freshMillis: 0, keepMillis: 10_000 })
 *   const again = yield* store.claim({ ...flight("process 2"), following: second.generation })
 *   return [first._tag, second._tag, again._tag === "Result" ? again.result : ""]
 * }).pipe(Effect.provide(FlightStore.layerMemory))
 *
 * console.log(await Effect.runPromise(program)) // => [ 'Lead', 'Follow', '42' ]
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import type { StoreError } from "./internal/circuit/storeError.ts"
import { MemoryFlights } from "./internal/dedupe/memory.ts"

/**
 * A flight of a process.
 *
 * @since 0.1.0
 * @category models
 */
export interface Flight {
  /** The hash of the call. */
  readonly key: string
  /** The hash of the operation's name, for `purge`. */
  readonly operation: string
  /** The hash of the tenant, for `purge`. Empty without a tenant. */
  readonly tenant: string
  /** Differs from the ids of all other flights of the key. */
  readonly id: string
}

/**
 * The request of `claim`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClaimRequest extends Flight {
  readonly leaseMillis: number
  /** The generation that the caller has followed. Default none: only a fresh result is returned. */
  readonly following?: number | undefined
}

/**
 * The answer to `claim`.
 *
 * | answer | meaning |
 * |---|---|
 * | `Lead` | the caller has the lease: it runs the call, and completes or releases |
 * | `Follow` | another has the lease, for `leaseMillis` if it is not renewed |
 * | `Result` | the result, which is fresh for `freshMillis`. 0: only for those who followed |
 *
 * @since 0.1.0
 * @category models
 */
export type Claimed =
  | { readonly _tag: "Lead"; readonly generation: number }
  | { readonly _tag: "Follow"; readonly generation: number; readonly leaseMillis: number }
  | { readonly _tag: "Result"; readonly generation: number; readonly result: string; readonly freshMillis: number }

/**
 * Keeps the leases and results of flights.
 *
 * @since 0.1.0
 * @category services
 */
export class FlightStore extends Context.Service<FlightStore, {
  /** Returns the result of the key, or the lease if it is free, or whom to follow. */
  readonly claim: (request: ClaimRequest) => Effect.Effect<Claimed, StoreError>
  /** Renews a lease. Returns `false` if it has lapsed. */
  readonly renew: (options: Flight & { readonly leaseMillis: number }) => Effect.Effect<boolean, StoreError>
  /** Ends a lease with a result. Returns `false`, and stores nothing, if it has lapsed. Repeated, it returns `true` again. */
  readonly complete: (
    options: Flight & {
      /** Empty: the result cannot be shared, and every follower runs its own call. */
      readonly result: string
      /** How long every claim gets it. 0: only those who followed. */
      readonly freshMillis: number
      /** How long those who followed get it. */
      readonly keepMillis: number
    }
  ) => Effect.Effect<boolean, StoreError>
  /** Ends a lease without a result: the next claim leads. Returns `false` if it has lapsed. */
  readonly release: (flight: Flight) => Effect.Effect<boolean, StoreError>
  /**
   * Deletes the entries of a key, an operation or a tenant, by its hash, and returns how many. Leases end too: what their holders
   * complete later is not stored.
   */
  readonly purge: (options: {
    readonly by: "key" | "operation" | "tenant"
    readonly hash: string
  }) => Effect.Effect<number, StoreError>
  /** Keys whose lease has ended while others followed. `undefined`: the store cannot tell, and followers claim more often. */
  readonly finished: Stream.Stream<string, StoreError> | undefined
}>()("@sluice/core/FlightStore") {}

/**
 * Builds a store with its own state, in memory.
 *
 * **Details**
 *
 * It keeps at most `capacity` entries (default 10,000). To stay below, it forgets the one that was not claimed for longest. If that had a
 * lease, its holder completes nothing, and another call is made.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeMemory = (
  options?: { readonly capacity?: number | undefined }
): Effect.Effect<FlightStore["Service"]> =>
  Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const finished = yield* PubSub.sliding<string>(1_024)
    const flights = new MemoryFlights(
      options?.capacity ?? 10_000,
      () => clock.currentTimeMillisUnsafe(),
      (key) => void PubSub.publishUnsafe(finished, key)
    )
    return FlightStore.of({
      claim: (request) => Effect.sync(() => flights.claim(request)),
      renew: (request) => Effect.sync(() => flights.renew(request)),
      complete: (request) => Effect.sync(() => flights.complete(request)),
      release: (request) => Effect.sync(() => flights.release(request)),
      purge: (request) => Effect.sync(() => flights.purge(request)),
      finished: Stream.fromPubSub(finished)
    })
  })

/**
 * Provides a `FlightStore` in the memory of this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory: Layer.Layer<FlightStore> = Layer.effect(FlightStore, makeMemory())
