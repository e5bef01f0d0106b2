/**
 * Where circuits are kept: what has been seen of each dependency, and whether it may be called.
 *
 * A store holds evidence and a control, never a policy. It appends outcomes, hands out probe places and changes the control
 * when asked; the breaker reads the evidence and decides. So breakers of different settings, in one process or in many, can
 * share a circuit, and a store is a few small verbs, each atomic.
 *
 * **When to use**
 *
 * `layerMemory` keeps circuits in the process. Write a store of your own to share them: the contract below is all that a
 * breaker asks for.
 *
 * **Details**
 *
 * - Every circuit has a generation, a number that only grows. It changes with each transition, and what was admitted under
 *   an older one counts nowhere. A key that is not there reads as `Closed`, generation 0.
 * - There is no half-open state: it is what `Open` is called once its time is over. `lease` itself refuses before.
 * - Times are the store's own epoch milliseconds. A breaker sends durations only, so that its clock never matters.
 * - `lease`, `record` and `transition` answer with the snapshot that then stands, also when they changed nothing (`ok: false`).
 *
 * **Gotchas**
 *
 * - A transition keeps the leases that live: a probe that still runs holds its place, or more than `limit` would run.
 * - A repeated `lease` with a live id renews it, a repeated `transition` with the same `by` is `ok`: a caller whose reply was
 *   lost may ask again.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { MemoryCircuits } from "./internal/memoryCircuits.ts"

/**
 * A store could not be reached, or answered what makes no sense.
 *
 * @since 0.1.0
 * @category errors
 */
export class StoreError extends Schema.Error<StoreError>("@sluice/core/StoreError")({
  _tag: Schema.tag("StoreError"),
  /** The verb that failed, as in `"record"`. */
  operation: Schema.String,
  description: Schema.String,
  cause: Schema.optional(Schema.Defect())
}) {
  override get message(): string {
    return `store: ${this.operation} failed: ${this.description}`
  }
}

/**
 * What was counted when a circuit opened.
 *
 * @since 0.1.0
 * @category models
 */
export interface Tally {
  readonly calls: number
  readonly failures: number
}

/**
 * What stands for a circuit.
 *
 * @since 0.1.0
 * @category models
 */
export type Control =
  | { readonly _tag: "Closed"; readonly since: number; readonly by: string }
  | {
    readonly _tag: "Open"
    readonly since: number
    /** From here on probes are let through. */
    readonly until: number
    /** Openings in a row: 1, and one more for each round of probes that failed. */
    readonly openings: number
    readonly because: Tally
    readonly by: string
  }

/**
 * What is wished of a circuit. Relative: only the store turns a duration into a time.
 *
 * @since 0.1.0
 * @category models
 */
export type Target =
  | { readonly _tag: "Closed" }
  | { readonly _tag: "Open"; readonly forMillis: number; readonly openings: number; readonly because: Tally }

/**
 * How much evidence a breaker wants to be kept: the last `calls` outcomes, at most 1,000.
 *
 * @since 0.1.0
 * @category models
 */
export interface Window {
  readonly calls: number
}

/**
 * The outcomes of this generation, oldest first, one character each: its code is `48 + 2 * weight`, the weight of the
 * failure in twentieths. `0` is a success, `X` a whole failure. Plain ASCII goes through every protocol as it is.
 *
 * @since 0.1.0
 * @category models
 */
export interface Evidence {
  readonly ring: string
}

/**
 * A circuit as it stood at `now`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  readonly key: string
  readonly generation: number
  readonly control: Control
  readonly evidence: Evidence
  /** Leases that live. */
  readonly probing: number
  /** Time until the next of them lapses; 0 if there is none. */
  readonly leaseMillis: number
  readonly now: number
}

/**
 * Whether it was done, and what stands now.
 *
 * @since 0.1.0
 * @category models
 */
export interface Answer {
  readonly ok: boolean
  readonly snapshot: Snapshot
}

/**
 * Keeps circuits.
 *
 * @since 0.1.0
 * @category services
 */
export class CircuitBreakerStore extends Context.Service<CircuitBreakerStore, {
  /** What stands. Writes nothing. */
  readonly read: (options: { readonly key: string; readonly window: Window }) => Effect.Effect<Snapshot, StoreError>
  /** A place for a probe, if the generation stands, the open time is over and fewer than `limit` live or have answered. */
  readonly lease: (options: {
    readonly key: string
    readonly window: Window
    readonly generation: number
    readonly id: string
    readonly limit: number
    readonly ttlMillis: number
  }) => Effect.Effect<Answer, StoreError>
  /**
   * Adds samples. Without a lease they count if the generation stands and is closed; generation 0 also in a circuit that has
   * never moved. With a lease they count while it lives, and it is freed in any case: no samples only free it.
   */
  readonly record: (options: {
    readonly key: string
    readonly window: Window
    readonly generation: number
    readonly lease?: string | undefined
    readonly samples: string
  }) => Effect.Effect<Answer, StoreError>
  /** Changes the control, if exactly this generation stands. Evidence starts empty; leases stay. */
  readonly transition: (options: {
    readonly key: string
    readonly window: Window
    readonly generation: number
    readonly by: string
    readonly to: Target
  }) => Effect.Effect<Answer, StoreError>
  /** Circuits in the order of their keys, from behind `after`. */
  readonly list: (options: {
    readonly after?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<Snapshot>, StoreError>
}>()("@sluice/core/CircuitBreakerStore") {}

/**
 * Builds a store with state of its own, in memory.
 *
 * **Details**
 *
 * It keeps at most `capacity` circuits (default 10,000). Beyond that the one that was used longest ago goes, though never
 * one with a probe under way; its next call finds a closed circuit.
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
    return CircuitBreakerStore.of({
      read: ({ key, window }) => Effect.sync(() => circuits.read(key, window, now())),
      lease: (asked) => Effect.sync(() => circuits.lease(asked, now())),
      record: (samples) => Effect.sync(() => circuits.record(samples, now())),
      transition: (wish) => Effect.sync(() => circuits.transition(wish, now())),
      list: ({ after, limit }) => Effect.sync(() => circuits.list(after, limit, now()))
    })
  })

/**
 * Keeps circuits in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory: Layer.Layer<CircuitBreakerStore> = Layer.effect(CircuitBreakerStore, makeMemory())
