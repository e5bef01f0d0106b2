import type * as Clock from "effect/Clock"
import type * as Effect from "effect/Effect"
import type { CircuitOpen } from "../CircuitBreaker.ts"
import type { Answer, CircuitBreakerStore, Control, Snapshot, Target, Window } from "../CircuitBreakerStore.ts"
import { codesOf, MemoryEvidence, noEvidence } from "./circuitEvidence.ts"
import type { Linked } from "./lru.ts"
import { Chain } from "./lru.ts"

/** What the contract's verb is asked. */
type Asked<Verb extends "lease" | "list" | "record" | "transition"> = Parameters<
  CircuitBreakerStore["Service"][Verb]
>[0]

const untouched: Control = { _tag: "Closed", since: 0, until: 0, openings: 0, lastOpen: 0, reason: "", by: "" }

/** The last refusal of a circuit: who refuses again in the same millisecond says the same. */
interface Refusal {
  readonly by: object
  readonly at: number
  readonly retryAfterMillis: number
  readonly open: CircuitOpen
  readonly effect: Effect.Effect<never, CircuitOpen>
}

/** One circuit, with what it has seen for each window that is asked for; nearly always that is one. */
export class MemoryCircuit implements Linked<MemoryCircuit> {
  readonly key: string
  generation: number
  control: Control = untouched
  /** Closed, and not in a ramp: whoever comes is let in without a look at the clock. */
  isHot = true
  /** It made room for others, and counts no more. */
  isForgotten = false
  refusal: Refusal | undefined = undefined
  /** The generation whose first probe was let through. */
  probedIn = 0
  /** Lease id to the time at which it lapses. */
  leases: Map<string, number> | undefined
  newer: MemoryCircuit | undefined = undefined
  older: MemoryCircuit | undefined = undefined
  private main: MemoryEvidence
  private others: Array<MemoryEvidence> | undefined

  constructor(key: string, window: Window, generation: number) {
    this.key = key
    this.generation = generation
    this.main = new MemoryEvidence(window)
  }

  evidence(window: Window): MemoryEvidence {
    return isSame(this.main.window, window) ? this.main : this.otherEvidence(window)
  }

  private known(window: Window): MemoryEvidence | undefined {
    return isSame(this.main.window, window)
      ? this.main
      : this.others?.find((evidence) => isSame(evidence.window, window))
  }

  // As many as there are breakers of different settings on one key: the developer's, few.
  private otherEvidence(window: Window): MemoryEvidence {
    const known = this.known(window)
    if (known !== undefined) return known
    const evidence = new MemoryEvidence(window)
    ;(this.others ??= []).push(evidence)
    return evidence
  }

  /** Moves the circuit: what was admitted before changes nothing any more. */
  stand(control: Control, now: number): void {
    this.generation = nextGeneration(this.generation, now)
    this.control = control
    this.isHot = control._tag === "Closed" && control.until === 0
    this.refusal = undefined
    this.main.clear()
    this.others = undefined
  }

  /**
   * What began in the future began before the clock was set back. It counts from now on: an opening of a second would else last
   * for as much longer as the clock was set back.
   */
  mend(now: number): void {
    const ahead = this.control.since - now
    if (ahead <= 0) return
    this.control = shifted(this.control, -ahead)
    this.refusal = undefined
    for (const [id, at] of this.leases ?? []) this.leases?.set(id, at - ahead)
  }

  /** Leases that live. */
  probing(now: number): number {
    if (this.leases === undefined) return 0
    for (const [id, at] of this.leases) if (at <= now) this.leases.delete(id)
    return this.leases.size
  }

  /** Time until the next of them lapses; 0 if there is none. */
  leaseMillis(now: number): number {
    let next = Number.POSITIVE_INFINITY
    for (const at of this.leases?.values() ?? []) if (at > now) next = Math.min(next, at)
    return Number.isFinite(next) ? next - now : 0
  }

  snapshot(window: Window, now: number): Snapshot {
    this.mend(now)
    const { control, generation, key } = this
    const evidence = this.known(window)?.toRaw(now) ?? noEvidence
    return { key, generation, control, evidence, probing: this.probing(now), leaseMillis: this.leaseMillis(now), now }
  }
}

const isSame = (a: Window, b: Window): boolean =>
  a === b || (a.calls === b.calls && a.bucketMillis === b.bucketMillis && a.buckets === b.buckets)

/** The store's contract in memory: every verb runs in one go, so that nothing comes between its look and its change. */
export class MemoryCircuits {
  private readonly capacity: number
  private readonly circuits = new Map<string, MemoryCircuit>()
  private readonly recency = new Chain<MemoryCircuit>()

  constructor(capacity: number) {
    this.capacity = capacity
  }

  get size(): number {
    return this.circuits.size
  }

  /** The circuit of the key, which counts as used; made if there is none. */
  use(key: string, window: Window, clock: Clock.Clock): MemoryCircuit {
    // Most programs call one dependency many times in a row.
    const newest = this.recency.newest
    if (newest !== undefined && newest.key === key) return newest
    const known = this.circuits.get(key)
    if (known !== undefined) {
      this.recency.touch(known)
      return known
    }
    const now = clock.currentTimeMillisUnsafe()
    return this.make(key, window, nextGeneration(0, now), now)
  }

  read(key: string, window: Window, now: number): Snapshot {
    return this.circuits.get(key)?.snapshot(window, now) ?? missing(key, now)
  }

  lease(asked: Asked<"lease">, now: number): Answer {
    const circuit = this.circuits.get(asked.key)
    if (circuit === undefined) return { ok: false, snapshot: missing(asked.key, now) }
    this.recency.touch(circuit)
    const ok = circuit.generation === asked.generation && tryLease(circuit, asked, now)
    return { ok, snapshot: circuit.snapshot(asked.window, now) }
  }

  record(given: Asked<"record">, now: number): Answer {
    const known = this.circuits.get(given.key)
    if (known === undefined) {
      if (given.lease !== undefined) return { ok: false, snapshot: missing(given.key, now) }
      const made = this.make(given.key, given.window, nextGeneration(given.generation, now), now)
      return this.answer(made, given, now)
    }
    this.recency.touch(known)
    const stands = known.generation === given.generation
    const counts = given.lease === undefined
      ? takesSamples(known.control) && (stands || (given.generation === 0 && known.control === untouched))
      : release(known, given.lease, now) && stands
    return counts ? this.answer(known, given, now) : { ok: false, snapshot: known.snapshot(given.window, now) }
  }

  transition(wish: Asked<"transition">, now: number): Answer {
    const known = this.circuits.get(wish.key)
    if (known === undefined && wish.generation !== 0) return { ok: false, snapshot: missing(wish.key, now) }
    const circuit = known ?? this.make(wish.key, wish.window, 0, now)
    this.recency.touch(circuit)
    const stands = circuit.generation === wish.generation
    if (stands) circuit.stand(controlOf(wish.to, wish.by, now), now)
    return { ok: stands || circuit.control.by === wish.by, snapshot: circuit.snapshot(wish.window, now) }
  }

  list({ after, limit, window }: Asked<"list">, now: number): ReadonlyArray<Snapshot> {
    const keys = [...this.circuits.keys()].filter((key) => after === undefined || key > after).sort()
    return keys.slice(0, limit).map((key) => this.read(key, window, now))
  }

  private answer(circuit: MemoryCircuit, { samples, window }: Asked<"record">, now: number): Answer {
    const evidence = circuit.evidence(window)
    for (const code of codesOf(samples)) evidence.add(code, now)
    return { ok: true, snapshot: circuit.snapshot(window, now) }
  }

  private make(key: string, window: Window, generation: number, now: number): MemoryCircuit {
    this.forgetOldest(now)
    const circuit = new MemoryCircuit(key, window, generation)
    this.circuits.set(key, circuit)
    this.recency.add(circuit)
    return circuit
  }

  // A circuit whose open time runs, that is forced or has a live probe is passed over and counts as used, as long as there are
  // others among the oldest: ten looks at most, so that one call never pays for all. Then the oldest goes whatever it is.
  private forgetOldest(now: number): void {
    if (this.circuits.size < this.capacity) return
    for (let looks = 0; looks < 10; looks++) {
      const { oldest } = this.recency
      if (oldest === undefined || isForgettable(oldest, now)) break
      this.recency.touch(oldest)
    }
    const { oldest } = this.recency
    if (oldest === undefined) return
    this.recency.remove(oldest)
    this.circuits.delete(oldest.key)
    oldest.isForgotten = true
  }
}

/** Stores whose circuits are in this process, and the clock that they keep: a breaker needs no requests to such a one. */
const inMemory = new WeakMap<object, { readonly circuits: MemoryCircuits; readonly clock: Clock.Clock }>()

export const memoryOf = (store: CircuitBreakerStore["Service"]) => inMemory.get(store)

export const setMemory = (
  store: CircuitBreakerStore["Service"],
  circuits: MemoryCircuits,
  clock: Clock.Clock
): void => {
  inMemory.set(store, { circuits, clock })
}

const isForgettable = (circuit: MemoryCircuit, now: number): boolean => {
  const { control } = circuit
  const isOver = control._tag === "Forced" ? control.until !== 0 && now >= control.until : now >= control.until
  return isOver && circuit.probing(now) === 0
}

/** A place for a probe: also for who has it already. */
export const tryLease = (
  circuit: MemoryCircuit,
  { id, limit, ttlMillis, window }: Pick<Asked<"lease">, "id" | "limit" | "ttlMillis" | "window">,
  now: number
): boolean => {
  circuit.mend(now)
  const { control } = circuit
  if (control._tag !== "Open" || now < control.until) return false
  const live = circuit.probing(now)
  const leases = circuit.leases ??= new Map()
  // Outcomes already counted keep their place, so that no more than `limit` decide a round.
  if (!leases.has(id) && live + circuit.evidence(window).ring.length >= limit) return false
  leases.set(id, now + ttlMillis)
  return true
}

/** Frees a lease, and tells whether it lived. */
export const release = (circuit: MemoryCircuit, id: string, now: number): boolean => {
  const lapsesAt = circuit.leases?.get(id)
  if (lapsesAt === undefined) return false
  circuit.leases?.delete(id)
  return now < lapsesAt
}

/** Whether outcomes of calls that are no probes are kept. */
export const takesSamples = (control: Control): boolean =>
  control._tag === "Closed" || (control._tag === "Forced" && control.mode !== "Disabled")

const missing = (key: string, now: number): Snapshot => ({
  key,
  generation: 0,
  control: untouched,
  evidence: noEvidence,
  probing: 0,
  leaseMillis: 0,
  now
})

/** What stands once a wish is granted. */
export const controlOf = (to: Target, by: string, since: number): Control => {
  switch (to._tag) {
    case "Closed": {
      const { lastOpen, openings, rampMillis, reason } = to
      return { _tag: "Closed", since, until: rampMillis === 0 ? 0 : since + rampMillis, openings, lastOpen, reason, by }
    }
    case "Open": {
      const { because, forMillis, hintMillis, openings } = to
      const hinted = hintMillis === 0 ? 0 : since + hintMillis
      return { _tag: "Open", since, until: since + forMillis, openings, hinted, because, by }
    }
    case "Forced": {
      const { forMillis, mode, reason } = to
      return { _tag: "Forced", since, until: forMillis === 0 ? 0 : since + forMillis, mode, reason, by }
    }
  }
}

// Microseconds, so that a circuit that was forgotten and comes back never reissues a generation of its former life.
const nextGeneration = (previous: number, now: number): number => Math.max(previous + 1, Math.floor(now * 1_000))

/** The same by a clock that shows so much more. */
export const shifted = (control: Control, by: number): Control => {
  const until = control.until === 0 ? 0 : control.until + by
  return control._tag === "Open"
    ? { ...control, since: control.since + by, until, hinted: control.hinted === 0 ? 0 : control.hinted + by }
    : { ...control, since: control.since + by, until }
}
