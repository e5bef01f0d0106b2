/**
 * The contract of circuit breaker stores as the shortest program that keeps it.
 *
 * Plain data, a pure function for each verb, and the time as an argument. It keeps every sample and counts anew for each answer.
 * So it has nothing to trim or to invalidate, and can be checked by reading it.
 *
 * **When to use**
 *
 * To test code that uses a store (`make`), to compare your own store with it (`CircuitBreakerStoreContract.compare` does), or to
 * look up the meaning of the contract.
 *
 * **Gotchas**
 *
 * It never evicts anything and gets slower with every sample. Do not use it in production.
 *
 * **Example** (A circuit opens, and admits a probe when it is half-open)
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
type RequestOf<Verb extends keyof Service> = Parameters<Service[Verb]>[0]

/**
 * One sample, as it was recorded.
 *
 * @since 0.1.0
 * @category models
 */
export interface Sample {
  /** Its character in the ring. */
  readonly code: string
  /** When it was recorded, in epoch milliseconds. */
  readonly at: number
  /** The window that it was recorded for. */
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
  /** All samples of this generation, oldest first. */
  readonly samples: ReadonlyArray<Sample>
  /** When each lease expires, by id. May contain expired leases. */
  readonly leases: ReadonlyMap<string, number>
  /** When a lease was last granted. 0 if none was. */
  readonly leasedAt: number
  /** When a verb last used the circuit. */
  readonly usedAt: number
}

/**
 * All circuits of a store, by key.
 *
 * @since 0.1.0
 * @category models
 */
export type Circuits = ReadonlyMap<string, Circuit>

/**
 * The answer of a verb, and the circuits after it.
 *
 * @since 0.1.0
 * @category models
 */
export type Step = readonly [answer: Answer, after: Circuits]

/**
 * A store without circuits.
 *
 * @since 0.1.0
 * @category constructors
 */
export const empty: Circuits = new Map()

/**
 * Records the time. If the clock was set back, so that the start of the control or the last lease is after `now`, shifts the times
 * of the circuit by as much. Expired leases stay expired. The other verbs begin with it.
 *
 * @since 0.1.0
 * @category verbs
 */
export const adjustToClock = (circuits: Circuits, key: string, now: number): Circuits => {
  const known = circuits.get(key)
  if (known === undefined) return circuits
  const { control, leasedAt, leases, usedAt } = known
  if (now >= usedAt) return new Map(circuits).set(key, { ...known, usedAt: now })
  const ahead = Math.max(0, control.since - now, leasedAt - now)
  return new Map(circuits).set(key, {
    ...known,
    control: ahead === 0 ? control : earlier(control, ahead),
    leases: new Map([...leases].filter(([, at]) => usedAt < at).map(([id, at]) => [id, at - ahead])),
    leasedAt: leasedAt - ahead,
    usedAt: now
  })
}

/**
 * Returns the circuit at the time `now`.
 *
 * @since 0.1.0
 * @category verbs
 */
export const read = (circuits: Circuits, { key, window }: RequestOf<"read">, now: number): Snapshot => {
  const { control, generation, leases, samples } = adjustToClock(circuits, key, now).get(key) ?? missing
  const expiries = [...leases.values()].filter((at) => now < at)
  return {
    key,
    generation,
    control,
    evidence: { ring: ringOf(samples, window), wheel: wheelOf(samples, window, now) },
    probing: expiries.length,
    leaseMillis: expiries.length === 0 ? 0 : Math.min(...expiries) - now,
    now
  }
}

/**
 * Grants a probe slot for `ttlMillis`, if one is free.
 *
 * @since 0.1.0
 * @category verbs
 */
export const lease = (before: Circuits, request: RequestOf<"lease">, now: number): Step => {
  const circuits = adjustToClock(before, request.key, now)
  const { evidence, probing } = read(circuits, request, now)
  const circuit = circuits.get(request.key) ?? missing
  const mayProbe = circuit.generation === request.generation &&
    circuit.control._tag === "Open" && now >= circuit.control.until
  const isFree = probing + evidence.ring.length < request.limit
  if (!mayProbe || !(isFree || isLive(circuit, request.id, now))) return refuse(circuits, request, now)
  const leases = new Map(circuit.leases).set(request.id, now + request.ttlMillis)
  return done(circuits, request, now, { ...circuit, leases, leasedAt: now })
}

/**
 * Adds samples, if they count.
 *
 * @since 0.1.0
 * @category verbs
 */
export const record = (before: Circuits, request: RequestOf<"record">, now: number): Step => {
  const circuits = adjustToClock(before, request.key, now)
  const known = circuits.get(request.key)
  if (request.lease !== undefined) return recordProbe(circuits, request, request.lease, now)
  if (known === undefined) {
    const made = { ...missing, generation: nextGeneration(request.generation, now), usedAt: now }
    return done(circuits, request, now, added(made, request, now))
  }
  const isUntouched = known.control.by === ""
  const isCurrent = request.generation === known.generation || (request.generation === 0 && isUntouched)
  return isCurrent && keepsSamples(known.control)
    ? done(circuits, request, now, added(known, request, now))
    : refuse(circuits, request, now)
}

const recordProbe = (circuits: Circuits, request: RequestOf<"record">, lease: string, now: number): Step => {
  const known = circuits.get(request.key)
  if (known === undefined) return refuse(circuits, request, now)
  const counts = isLive(known, lease, now) && request.generation === known.generation
  const freed = { ...known, leases: new Map([...known.leases].filter(([id]) => id !== lease)) }
  return counts
    ? done(circuits, request, now, added(freed, request, now))
    : refuse(new Map(circuits).set(request.key, freed), request, now)
}

/**
 * Changes the control, if the generation is current.
 *
 * @since 0.1.0
 * @category verbs
 */
export const transition = (before: Circuits, request: RequestOf<"transition">, now: number): Step => {
  const circuits = adjustToClock(before, request.key, now)
  const known = circuits.get(request.key) ?? missing
  if (known.generation === request.generation) {
    return done(circuits, request, now, {
      generation: nextGeneration(known.generation, now),
      control: controlOf(request.to, request.by, now),
      samples: [],
      leases: known.leases,
      leasedAt: known.leasedAt,
      usedAt: now
    })
  }
  const isRepeated = known.control.by === request.by
  return [{ ok: isRepeated, snapshot: read(circuits, request, now) }, circuits]
}

/**
 * Returns circuits after the key `after`, in the order of their keys.
 *
 * @since 0.1.0
 * @category verbs
 */
export const list = (
  circuits: Circuits,
  { after, limit, window }: RequestOf<"list">,
  now: number
): ReadonlyArray<Snapshot> =>
  [...circuits.keys()]
    .filter((key) => after === undefined || key > after)
    .sort()
    .slice(0, limit)
    .map((key) => read(circuits, { key, window }, now))

/**
 * Builds a store with its own state, on `Clock`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<Service> = Effect.map(Clock.Clock, (clock) => {
  let circuits = empty
  const now = () => clock.currentTimeMillisUnsafe()
  const commit = ([answer, after]: Step): Answer => {
    circuits = after
    return answer
  }
  return {
    read: (request) =>
      Effect.sync(() => {
        circuits = adjustToClock(circuits, request.key, now())
        return read(circuits, request, now())
      }),
    lease: (request) => Effect.sync(() => commit(lease(circuits, request, now()))),
    record: (request) => Effect.sync(() => commit(record(circuits, request, now()))),
    transition: (request) => Effect.sync(() => commit(transition(circuits, request, now()))),
    list: (page) =>
      Effect.sync(() => {
        const listed = list(circuits, page, now())
        for (const { key } of listed) circuits = adjustToClock(circuits, key, now())
        return listed
      })
  }
})

const missing: Circuit = {
  generation: 0,
  control: { _tag: "Closed", since: 0, until: 0, openings: 0, lastOpen: 0, reason: "", by: "" },
  samples: [],
  leases: new Map(),
  leasedAt: 0,
  usedAt: 0
}

const done = (circuits: Circuits, request: RequestOf<"read">, now: number, next: Circuit): Step => {
  const after = new Map(circuits).set(request.key, next)
  return [{ ok: true, snapshot: read(after, request, now) }, after]
}

const refuse = (after: Circuits, request: RequestOf<"read">, now: number): Step => [
  { ok: false, snapshot: read(after, request, now) },
  after
]

const isLive = ({ leases }: Circuit, id: string, now: number): boolean => now < (leases.get(id) ?? now)

const keepsSamples = (control: Control): boolean =>
  control._tag === "Closed" || (control._tag === "Forced" && control.mode !== "Disabled")

const added = (circuit: Circuit, { samples, window }: RequestOf<"record">, now: number): Circuit => ({
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

const earlier = (control: Control, millis: number): Control => {
  const before = (at: number) => at === 0 ? 0 : at - millis
  const shifted = { since: control.since - millis, until: before(control.until) }
  return control._tag === "Open"
    ? { ...control, ...shifted, hinted: before(control.hinted) }
    : { ...control, ...shifted }
}

// Microseconds, so that a circuit that was evicted and comes back never reuses a generation.
const nextGeneration = (previous: number, now: number): number => Math.max(previous + 1, Math.floor(now * 1_000))
