/**
 * The contract of a store that keeps the circuits of breakers: their evidence, and whether calls are admitted.
 *
 * A store holds evidence and a control, never a policy. It appends outcomes, grants probe slots, and changes the control when
 * a breaker asks for it. The breaker reads the evidence and decides. So breakers with different options, in one process or in
 * many, can share a circuit, and a store is five small atomic operations.
 *
 * **When to use**
 *
 * `layerMemory` keeps circuits in this process. `@sluice/redis` shares them between processes. To share them elsewhere,
 * implement the contract below, and test it with the contract suite of `@sluice/testing`.
 *
 * **Details**
 *
 * - Every circuit has a generation, a number that only grows. Each transition changes it, and outcomes of calls that were
 *   admitted under an older one do not count. A missing key reads as `Closed`, generation 0.
 * - Half-open is not stored. An open circuit whose time has elapsed is half-open. `lease` itself refuses before that.
 * - A store may evict a circuit that was not used for a while, but none that is open or forced, and none with a live lease.
 * - Times are the store's own epoch milliseconds. A breaker sends only durations, so its clock does not matter.
 * - If the store's clock was set back, the start of a control or the last lease is in the future. Then the next request shifts the
 *   times of the circuit by as much, so that no opening and no lease lasts longer than it was set to last.
 * - `lease`, `record` and `transition` return the snapshot after the request, also if they changed nothing (`ok: false`).
 *
 * **Gotchas**
 *
 * - A transition keeps live leases. A probe that still runs holds its slot, or more than `limit` would run.
 * - A caller whose reply was lost can repeat its request: `lease` with a live id renews that lease, `transition` with the same
 *   `by` is `ok`.
 * - The window is part of the evidence's address. Two breakers with different windows share the control of a key, not its
 *   evidence. So a rolling deploy with other options does not mix evidence.
 *
 * **Example** (Two breakers share a circuit)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
 *
 * const program = Effect.gen(function*() {
 *   const first = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(1) })
 *   const second = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(1) })
 *   yield* Effect.exit(first.guard(Effect.fail("503"), { key: "openai" }))
 *   return (yield* second.state("openai"))._tag
 * }).pipe(Effect.scoped, Effect.provide(CircuitBreakerStore.layerMemory))
 *
 * console.log(await Effect.runPromise(program)) // => Open
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { MemoryCircuits, setMemory } from "./internal/circuit/memory.ts"
import type { StoreError } from "./internal/circuit/storeError.ts"

export { StoreError } from "./internal/circuit/storeError.ts"

/**
 * Counts of calls: all, failed and slow.
 *
 * @since 0.1.0
 * @category models
 */
export interface Tally {
  readonly calls: number
  readonly failures: number
  readonly slow: number
}

/**
 * A state that an operator forces, whatever the evidence.
 *
 * | mode | calls | outcomes |
 * |---|---|---|
 * | `ForcedOpen` | refused | |
 * | `ForcedClosed` | admitted | kept as evidence, decide nothing |
 * | `Disabled` | admitted | not kept |
 * | `ObserveOnly` | admitted | kept as evidence; `decisions` reports when the circuit would have opened |
 *
 * @since 0.1.0
 * @category models
 */
export type Mode = "ForcedOpen" | "ForcedClosed" | "Disabled" | "ObserveOnly"

/**
 * The state of a circuit. Times are epoch milliseconds of the store.
 *
 * @since 0.1.0
 * @category models
 */
export type Control =
  | {
    readonly _tag: "Closed"
    readonly since: number
    /** The end of the ramp, during which only a growing share of the calls is admitted. 0 without a ramp. */
    readonly until: number
    /** Openings in a row before it closed. A circuit that stays closed for as long as it was last open starts from 0. */
    readonly openings: number
    /** How long it was open before it closed. */
    readonly lastOpen: number
    /** Why an operator reset it. Empty if it closed by its evidence. */
    readonly reason: string
    /** The id of the transition that led here. */
    readonly by: string
  }
  | {
    readonly _tag: "Open"
    readonly since: number
    /** From here on probes are admitted. */
    readonly until: number
    /** Openings in a row: 1, plus one for each failed round of probes. */
    readonly openings: number
    /** When the Retry-After of the dependency ends, which can be later than `until`. 0 without one. */
    readonly hinted: number
    readonly because: Tally
    readonly by: string
  }
  | {
    readonly _tag: "Forced"
    readonly since: number
    /** When it is lifted. 0: when an operator lifts it. */
    readonly until: number
    readonly mode: Mode
    readonly reason: string
    readonly by: string
  }

/**
 * The control that a transition sets. Times are durations, which the store adds to its own clock.
 *
 * @since 0.1.0
 * @category models
 */
export type Target =
  | {
    readonly _tag: "Closed"
    readonly rampMillis: number
    readonly openings: number
    readonly lastOpen: number
    readonly reason: string
  }
  | {
    readonly _tag: "Open"
    readonly forMillis: number
    readonly openings: number
    /** The Retry-After of the dependency. 0 without one. */
    readonly hintMillis: number
    readonly because: Tally
  }
  | {
    readonly _tag: "Forced"
    /** 0: until an operator lifts it. */
    readonly forMillis: number
    readonly mode: Mode
    readonly reason: string
  }

/**
 * How much evidence a breaker needs. Part of the evidence's address.
 *
 * @since 0.1.0
 * @category models
 */
export interface Window {
  /** How many last outcomes are kept, 0 to 1,000. */
  readonly calls: number
  /** The width of a bucket of time. 0 if no buckets are kept. */
  readonly bucketMillis: number
  /** How many buckets are kept, with the newest, which is not full yet. 0 if none are. */
  readonly buckets: number
}

/**
 * The outcomes within one interval.
 *
 * @since 0.1.0
 * @category models
 */
export interface Bucket {
  /** Its start, in epoch milliseconds of the store: a multiple of the width. */
  readonly at: number
  readonly calls: number
  /** The sum of the failures' weights, in twentieths. */
  readonly failures: number
  readonly slow: number
}

/**
 * The outcomes of a circuit's current generation. The store appends and trims. The breaker counts.
 *
 * **Details**
 *
 * `ring` is the last outcomes, oldest first, one character each with code `48 + 2 * weight + slow`. `weight` is the failure's,
 * in twentieths (0 to 20). `slow` is 0 or 1. So `0` is a success, `1` a slow one, `X` a whole failure and `Y` a slow one. Plain
 * ASCII survives every protocol, and a batch is a concatenation.
 *
 * `wheel` is the buckets within the window that are not empty, oldest first.
 *
 * @since 0.1.0
 * @category models
 */
export interface Evidence {
  readonly ring: string
  readonly wheel: ReadonlyArray<Bucket>
}

/**
 * A circuit at the moment `now`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  readonly key: string
  readonly generation: number
  readonly control: Control
  readonly evidence: Evidence
  /** How many leases are live. */
  readonly probing: number
  /** Milliseconds until the next lease expires. 0 if there is none. */
  readonly leaseMillis: number
  readonly now: number
}

/**
 * Whether a request was granted, and the circuit after it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Answer {
  readonly ok: boolean
  readonly snapshot: Snapshot
}

/**
 * A store of circuits.
 *
 * @since 0.1.0
 * @category services
 */
export class CircuitBreakerStore extends Context.Service<CircuitBreakerStore, {
  /** Returns the circuit. Writes nothing, except times shifted after the store's clock was set back. */
  readonly read: (options: { readonly key: string; readonly window: Window }) => Effect.Effect<Snapshot, StoreError>
  /**
   * Grants a probe slot if the generation is current, the open time has elapsed, and fewer than `limit` probes are live or have
   * reported. With the id of a live lease it renews that lease.
   */
  readonly lease: (options: {
    readonly key: string
    readonly window: Window
    readonly generation: number
    readonly id: string
    readonly limit: number
    readonly ttlMillis: number
  }) => Effect.Effect<Answer, StoreError>
  /**
   * Appends samples to the ring, and to the bucket of the store's present.
   *
   * With a lease, the samples count if the lease is live and the generation is current. The lease is freed in any case; empty
   * `samples` only free it.
   *
   * Without a lease, they count if the generation is current and the circuit is neither open nor `Disabled`. Generation 0 means
   * that the key was missing when the call was admitted: then they count unless the circuit has moved since it was made (its
   * `by` is not empty). A missing key is made, and counts, so that the first failure after an expiry is not lost.
   */
  readonly record: (options: {
    readonly key: string
    readonly window: Window
    readonly generation: number
    readonly lease?: string | undefined
    readonly samples: string
  }) => Effect.Effect<Answer, StoreError>
  /**
   * Changes the control if the generation is current (0: if the key is missing). The next generation is greater than any that
   * the key ever had, also if it was evicted in between. Evidence starts empty. Leases stay.
   */
  readonly transition: (options: {
    readonly key: string
    readonly window: Window
    readonly generation: number
    readonly by: string
    readonly to: Target
  }) => Effect.Effect<Answer, StoreError>
  /** Returns circuits in the order of their keys (by code unit), after `after`, each with the evidence of the window. */
  readonly list: (options: {
    readonly window: Window
    readonly after?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<Snapshot>, StoreError>
}>()("@sluice/core/CircuitBreakerStore") {}

/**
 * Builds a store with its own state, in memory.
 *
 * **Details**
 *
 * It keeps at most `capacity` circuits (default 10,000). To make room it evicts the least recently used one, whose next call
 * finds a closed circuit. It skips circuits that are open, forced or probed, if another one is among the ten least recently
 * used.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeMemory = (
  options?: { readonly capacity?: number | undefined }
): Effect.Effect<CircuitBreakerStore["Service"]> =>
  Effect.map(Clock.Clock, (clock) => {
    const circuits = new MemoryCircuits(options?.capacity ?? 10_000)
    const now = () => clock.currentTimeMillisUnsafe()
    const store = CircuitBreakerStore.of({
      read: ({ key, window }) => Effect.sync(() => circuits.read(key, window, now())),
      lease: (request) => Effect.sync(() => circuits.lease(request, now())),
      record: (request) => Effect.sync(() => circuits.record(request, now())),
      transition: (request) => Effect.sync(() => circuits.transition(request, now())),
      list: (request) => Effect.sync(() => circuits.list(request, now()))
    })
    setMemory(store, circuits, clock)
    return store
  })

/**
 * Keeps circuits in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory: Layer.Layer<CircuitBreakerStore> = Layer.effect(CircuitBreakerStore, makeMemory())
