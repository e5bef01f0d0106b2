/**
 * The contract of circuit breaker stores as the shortest program that keeps it.
 *
 * Plain data, a pure function for each verb, and the time as an argument. It keeps every sample it was ever given and counts
 * anew for each answer, so that nothing has to be trimmed, advanced or invalidated, and a reader can see that it is right.
 *
 * **When to use**
 *
 * To test what speaks to a store (`make`), to compare a store of your own with (`CircuitBreakerStoreContract.compare` does),
 * or to look up what the contract means.
 *
 * **Gotchas**
 *
 * It forgets nothing and takes longer with every sample: not for production.
 *
 * **Example** (A circuit opens, and lets a probe through when its time is over)
 *
 * ```ts
 * import * as ReferenceStore from "@sluice/testing/ReferenceStore"
 *
 * const circuit = { key: "openai", window: { calls: 10, bucketMillis: 0, buckets: 0 } }
 * const because = { calls: 1, failures: 1, slow: 0 }
 *
 * const [opened, circuits] = ReferenceStore.transition(ReferenceStore.empty, {
 *   ...circuit,
 *   generation: 0,
 *   by: "me",
 *   to: { _tag: "Open", forMillis: 1_000, openings: 1, hintMillis: 0, because }
 * }, 5_000)
 *
 * const probe = { ...circuit, generation: opened.snapshot.generation, id: "a probe", limit: 1, ttlMillis: 500 }
 * const granted = [5_999, 6_000].map((now) => ReferenceStore.lease(circuits, probe, now)[0].ok)
 *
 * console.log(granted.join(", ")) // => false, true
 * ```
 *
 * @since 0.1.0
 */
import type {
  Answer,
  Bucket,
  CircuitBreakerStore,
  Control,
  Snapshot,
  Target,
  Window
} from "@sluice/core/CircuitBreakerStore"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

type Service = CircuitBreakerStore["Service"]
type Asked<Verb extends keyof Service> = Parameters<Service[Verb]>[0]

/**
 * One sample, as it came.
 *
 * @since 0.1.0
 * @category models
 */
export interface Sample {
  /** The character that stands for it in a ring. */
  readonly code: string
  /** When it came, in epoch milliseconds. */
  readonly at: number
  /** The window it was recorded for. */
  readonly window: string
}

/**
 * One circuit.
 *
 * @since 0.1.0
 * @category models
 */
export interface Circuit {
  readonly generation: number
  readonly control: Control
  /** All of this generation, in the order in which they came. */
  readonly samples: ReadonlyArray<Sample>
  /** When a lease lapses, by its id. Those that have lapsed may still be there. */
  readonly leases: ReadonlyMap<string, number>
}

/**
 * Everything that a store holds.
 *
 * @since 0.1.0
 * @category models
 */
export type Circuits = ReadonlyMap<string, Circuit>

/**
 * What a verb answers, and what the store holds after it.
 *
 * @since 0.1.0
 * @category models
 */
export type Step = readonly [answer: Answer, after: Circuits]

/**
 * A store in which nothing was ever done.
 *
 * @since 0.1.0
 * @category constructors
 */
export const empty: Circuits = new Map()

/**
 * What stands at the time `now`.
 *
 * @since 0.1.0
 * @category verbs
 */
export const read = (circuits: Circuits, { key, window }: Asked<"read">, now: number): Snapshot => {
  const { control, generation, leases, samples } = circuits.get(key) ?? missing
  const lapses = [...leases.values()].filter((at) => now < at)
  return {
    key,
    generation,
    control,
    evidence: { ring: ringOf(samples, window), wheel: wheelOf(samples, window, now) },
    probing: lapses.length,
    leaseMillis: lapses.length === 0 ? 0 : Math.min(...lapses) - now,
    now
  }
}

/**
 * A place for a probe, for as long as `ttlMillis`.
 *
 * @since 0.1.0
 * @category verbs
 */
export const lease = (circuits: Circuits, asked: Asked<"lease">, now: number): Step => {
  const { evidence, probing } = read(circuits, asked, now)
  const circuit = circuits.get(asked.key) ?? missing
  const mayProbe = circuit.generation === asked.generation &&
    circuit.control._tag === "Open" && now >= circuit.control.until
  const isFree = probing + evidence.ring.length < asked.limit
  if (!mayProbe || !(isFree || isLive(circuit, asked.id, now))) return refuse(circuits, asked, now)
  const leases = new Map(circuit.leases).set(asked.id, now + asked.ttlMillis)
  return done(circuits, asked, now, { ...circuit, leases })
}

/**
 * Adds samples, if they count.
 *
 * @since 0.1.0
 * @category verbs
 */
export const record = (circuits: Circuits, given: Asked<"record">, now: number): Step => {
  const known = circuits.get(given.key)
  if (given.lease !== undefined) return recordProbe(circuits, given, given.lease, now)
  if (known === undefined) {
    const made = { ...missing, generation: nextGeneration(given.generation, now) }
    return done(circuits, given, now, added(made, given, now))
  }
  const hasNeverMoved = known.control.by === ""
  const stands = given.generation === known.generation || (given.generation === 0 && hasNeverMoved)
  return stands && keepsSamples(known.control)
    ? done(circuits, given, now, added(known, given, now))
    : refuse(circuits, given, now)
}

const recordProbe = (circuits: Circuits, given: Asked<"record">, lease: string, now: number): Step => {
  const known = circuits.get(given.key)
  if (known === undefined) return refuse(circuits, given, now)
  const counts = isLive(known, lease, now) && given.generation === known.generation
  const freed = { ...known, leases: new Map([...known.leases].filter(([id]) => id !== lease)) }
  return counts
    ? done(circuits, given, now, added(freed, given, now))
    : refuse(new Map(circuits).set(given.key, freed), given, now)
}

/**
 * Changes the control, if the generation stands.
 *
 * @since 0.1.0
 * @category verbs
 */
export const transition = (circuits: Circuits, wish: Asked<"transition">, now: number): Step => {
  const known = circuits.get(wish.key) ?? missing
  if (known.generation === wish.generation) {
    return done(circuits, wish, now, {
      generation: nextGeneration(known.generation, now),
      control: controlOf(wish.to, wish.by, now),
      samples: [],
      leases: known.leases
    })
  }
  const isRepeated = known.control.by === wish.by
  return [{ ok: isRepeated, snapshot: read(circuits, wish, now) }, circuits]
}

/**
 * Circuits from behind `after`, in the order of their keys.
 *
 * @since 0.1.0
 * @category verbs
 */
export const list = (
  circuits: Circuits,
  { after, limit, window }: Asked<"list">,
  now: number
): ReadonlyArray<Snapshot> =>
  [...circuits.keys()]
    .filter((key) => after === undefined || key > after)
    .sort()
    .slice(0, limit)
    .map((key) => read(circuits, { key, window }, now))

/**
 * A store with state of its own, on `Clock`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<Service> = Effect.map(Clock.Clock, (clock) => {
  let circuits = empty
  const now = () => clock.currentTimeMillisUnsafe()
  const take = ([answer, after]: Step): Answer => {
    circuits = after
    return answer
  }
  return {
    read: (asked) => Effect.sync(() => read(circuits, asked, now())),
    lease: (asked) => Effect.sync(() => take(lease(circuits, asked, now()))),
    record: (given) => Effect.sync(() => take(record(circuits, given, now()))),
    transition: (wish) => Effect.sync(() => take(transition(circuits, wish, now()))),
    list: (page) => Effect.sync(() => list(circuits, page, now()))
  }
})

const missing: Circuit = {
  generation: 0,
  control: { _tag: "Closed", since: 0, until: 0, openings: 0, lastOpen: 0, reason: "", by: "" },
  samples: [],
  leases: new Map()
}

const done = (circuits: Circuits, asked: Asked<"read">, now: number, next: Circuit): Step => {
  const after = new Map(circuits).set(asked.key, next)
  return [{ ok: true, snapshot: read(after, asked, now) }, after]
}

const refuse = (after: Circuits, asked: Asked<"read">, now: number): Step => [
  { ok: false, snapshot: read(after, asked, now) },
  after
]

const isLive = ({ leases }: Circuit, id: string, now: number): boolean => now < (leases.get(id) ?? now)

const keepsSamples = (control: Control): boolean =>
  control._tag === "Closed" || (control._tag === "Forced" && control.mode !== "Disabled")

const added = (circuit: Circuit, { samples, window }: Asked<"record">, now: number): Circuit => ({
  ...circuit,
  samples: [...circuit.samples, ...[...samples].map((code) => ({ code, at: now, window: addressOf(window) }))]
})

const addressOf = ({ bucketMillis, buckets, calls }: Window): string => `${calls}/${bucketMillis}/${buckets}`

const ringOf = (samples: ReadonlyArray<Sample>, window: Window): string => {
  const ring = samples.filter((sample) => sample.window === addressOf(window)).map(({ code }) => code)
  return ring.slice(Math.max(0, ring.length - window.calls)).join("")
}

const wheelOf = (samples: ReadonlyArray<Sample>, window: Window, now: number): ReadonlyArray<Bucket> => {
  const { bucketMillis, buckets } = window
  const ofWindow = samples.filter((sample) => sample.window === addressOf(window))
  return Array.from({ length: buckets }, (_, nth) => {
    const at = (Math.floor(now / bucketMillis) - buckets + 1 + nth) * bucketMillis
    const inside = ofWindow.filter((sample) => at <= sample.at && sample.at < at + bucketMillis)
    return { at, calls: inside.length, failures: sum(inside.map(weightOf)), slow: sum(inside.map(slowOf)) }
  }).filter(({ calls }) => calls > 0)
}

const weightOf = ({ code }: Sample): number => Math.floor((code.charCodeAt(0) - 48) / 2)
const slowOf = ({ code }: Sample): number => (code.charCodeAt(0) - 48) % 2
const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((sum, number) => sum + number, 0)

const controlOf = (to: Target, by: string, now: number): Control => {
  const inFuture = (millis: number) => millis === 0 ? 0 : now + millis
  switch (to._tag) {
    case "Closed": {
      const { lastOpen, openings, reason } = to
      return { _tag: "Closed", since: now, until: inFuture(to.rampMillis), openings, lastOpen, reason, by }
    }
    case "Open": {
      const { because, openings } = to
      return {
        _tag: "Open",
        since: now,
        until: now + to.forMillis,
        openings,
        hinted: inFuture(to.hintMillis),
        because,
        by
      }
    }
    case "Forced": {
      const { mode, reason } = to
      return { _tag: "Forced", since: now, until: inFuture(to.forMillis), mode, reason, by }
    }
  }
}

// Microseconds: a circuit that was forgotten in between does not come back with a generation that it had.
const nextGeneration = (previous: number, now: number): number => Math.max(previous + 1, Math.floor(now * 1_000))
