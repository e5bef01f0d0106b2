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
 * - A store may forget a circuit that nobody used for a while, though none whose open or forced time runs, and none with a
 *   lease that lives.
 * - Times are the store's own epoch milliseconds. A breaker sends durations only, so that its clock never matters.
 * - `lease`, `record` and `transition` answer with the snapshot that then stands, also when they changed nothing (`ok: false`).
 *
 * **Gotchas**
 *
 * - A transition keeps the leases that live: a probe that still runs holds its place, or more than `limit` would run.
 * - A repeated `lease` with a live id renews it, a repeated `transition` with the same `by` is `ok`: a caller whose reply was
 *   lost may ask again.
 * - The window is part of the evidence's address. Two breakers that look back differently share the control of a key, not
 *   its evidence: during a rolling deploy neither spoils what the other counts.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { MemoryCircuits, setMemory } from "./internal/memoryCircuits.ts"

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
  readonly slow: number
}

/**
 * What somebody set a circuit to, whatever its evidence says: it refuses every call, lets every call through, or does so and
 * counts nothing either.
 *
 * | mode | calls | outcomes |
 * |---|---|---|
 * | `ForcedOpen` | are refused | |
 * | `ForcedClosed` | run | are kept as evidence, and decide nothing |
 * | `Disabled` | run | are not kept |
 * | `ObserveOnly` | run | are kept as evidence; the breaker tells where it would have opened |
 *
 * @since 0.1.0
 * @category models
 */
export type Mode = "ForcedOpen" | "ForcedClosed" | "Disabled" | "ObserveOnly"

/**
 * What stands for a circuit. Times are epoch milliseconds of the store. There is no half-open: it is what `Open` is called
 * once `now >= until`.
 *
 * @since 0.1.0
 * @category models
 */
export type Control =
  | {
    readonly _tag: "Closed"
    readonly since: number
    /** The end of the ramp in which ever more calls are let through; 0 if there is none. */
    readonly until: number
    /** Openings in a row before it closed. A circuit that stays closed as long as it was last open starts anew. */
    readonly openings: number
    /** How long it was open before it closed. */
    readonly lastOpen: number
    /** Why, where somebody reset it; empty where it closed by its evidence. */
    readonly reason: string
    /** The id of the transition that led here. */
    readonly by: string
  }
  | {
    readonly _tag: "Open"
    readonly since: number
    /** From here on probes are let through. */
    readonly until: number
    /** Openings in a row: 1, and one more for each round of probes that failed. */
    readonly openings: number
    /** When the dependency itself asked to be called again, which may be later than `until`; 0 if it did not say. */
    readonly hinted: number
    readonly because: Tally
    readonly by: string
  }
  | {
    readonly _tag: "Forced"
    readonly since: number
    /** When it is lifted by itself; 0 for only when somebody lifts it. */
    readonly until: number
    readonly mode: Mode
    readonly reason: string
    readonly by: string
  }

/**
 * What is wished of a circuit. Relative: only the store turns a duration into a time.
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
    /** 0 if the dependency gave no hint. */
    readonly hintMillis: number
    readonly because: Tally
  }
  | {
    readonly _tag: "Forced"
    /** 0 for only when somebody lifts it. */
    readonly forMillis: number
    readonly mode: Mode
    readonly reason: string
  }

/**
 * How much evidence a breaker wants to be kept. Part of the evidence's address.
 *
 * @since 0.1.0
 * @category models
 */
export interface Window {
  /** The last so many outcomes, 0 to 1,000. */
  readonly calls: number
  /** The width of a bucket of time; 0 if none are kept. */
  readonly bucketMillis: number
  /** How many buckets are kept, the newest (which is not full yet) included; 0 if none are. */
  readonly buckets: number
}

/**
 * What happened in a stretch of time. Failures are in twentieths of one, since a failure has a weight.
 *
 * @since 0.1.0
 * @category models
 */
export interface Bucket {
  /** When it begins, in epoch milliseconds of the store: a multiple of the width. */
  readonly at: number
  readonly calls: number
  /** Sum of the weights, in twentieths. */
  readonly failures: number
  readonly slow: number
}

/**
 * What is known of a circuit's current generation. Raw: the store appends, trims and returns; the breaker counts.
 *
 * **Details**
 *
 * `ring` has the last outcomes, oldest first, one character each, of the code `48 + 2 * weight + slow`: `weight` is the
 * failure's in twentieths (0 to 20), `slow` is 0 or 1. So `0` is a success, `1` a slow one, `X` a whole failure, `Y` a slow one.
 * Plain ASCII goes through every protocol as it is, and batches are strings put together.
 *
 * `wheel` has the buckets that are younger than the window and not empty, oldest first.
 *
 * @since 0.1.0
 * @category models
 */
export interface Evidence {
  readonly ring: string
  readonly wheel: ReadonlyArray<Bucket>
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
  /**
   * A place for a probe, if the generation stands, the open time is over and fewer than `limit` live or have answered. Asked
   * again with an id that lives, it renews that lease.
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
   * Adds samples to the ring and to the bucket of the store's present.
   *
   * Without a lease they count if the generation stands and the circuit is not open, and not `Disabled`. Generation 0 is that
   * of a key that was not there: it counts as long as the circuit that was made since has not moved (its control's `by` is
   * empty). A key that is not there is made, and counts: after an expiry the first failure is not lost. With a lease they count while it lives and the generation stands, and it is freed in any case: no samples only
   * free it.
   */
  readonly record: (options: {
    readonly key: string
    readonly window: Window
    readonly generation: number
    readonly lease?: string | undefined
    readonly samples: string
  }) => Effect.Effect<Answer, StoreError>
  /**
   * Changes the control, if exactly this generation stands (0: if the key is not there). The next generation is greater than
   * any that the key had before, also where it was forgotten in between. Evidence starts empty; leases stay.
   */
  readonly transition: (options: {
    readonly key: string
    readonly window: Window
    readonly generation: number
    readonly by: string
    readonly to: Target
  }) => Effect.Effect<Answer, StoreError>
  /** Circuits in the order of their keys (by code unit), from behind `after`, each with the evidence of the window. */
  readonly list: (options: {
    readonly window: Window
    readonly after?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<Snapshot>, StoreError>
}>()("@sluice/core/CircuitBreakerStore") {}

/**
 * Builds a store with state of its own, in memory.
 *
 * **Details**
 *
 * It keeps at most `capacity` circuits (default 10,000). Beyond that the one that was used longest ago goes; its next call
 * finds a closed circuit. One whose open time runs, that is forced or has a probe under way is passed over, as long as one
 * of the ten that were used longest ago is none of that.
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
      lease: (asked) => Effect.sync(() => circuits.lease(asked, now())),
      record: (samples) => Effect.sync(() => circuits.record(samples, now())),
      transition: (wish) => Effect.sync(() => circuits.transition(wish, now())),
      list: (page) => Effect.sync(() => circuits.list(page, now()))
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
