import type * as Clock from "effect/Clock"
import type * as Effect from "effect/Effect"
import type { Answer, CircuitBreakerStore, Control, Snapshot, Target, Window } from "../../CircuitBreakerStore.ts"
import { type Linked, LinkedList } from "../kit/linkedList.ts"
import type { CircuitOpen } from "./circuitOpen.ts"
import { MemoryEvidence, noEvidence } from "./evidence.ts"
import { isLifted } from "./machine.ts"
import { codesOf } from "./sample.ts"

/** The request of a store's verb. */
type RequestOf<Verb extends "lease" | "list" | "record" | "transition"> = Parameters<
  CircuitBreakerStore["Service"][Verb]
>[0]

const untouched: Control = { _tag: "Closed", since: 0, until: 0, openings: 0, lastOpen: 0, reason: "", by: "" }

/** A refusal, as a value and as an effect. Kept by the circuit, since calls refused in the same millisecond get the same. */
export interface CircuitRefusal {
  /** The breaker that refused. */
  readonly by: object
  readonly at: number
  readonly retryAfterMillis: number
  readonly open: CircuitOpen
  readonly effect: Effect.Effect<never, CircuitOpen>
}

/** One circuit. Breakers with other windows have their own evidence in it, but nearly always there is one. */
export class MemoryCircuit implements Linked<MemoryCircuit> {
  readonly key: string
  generation: number
  control: Control = untouched
  /** Closed and not ramping up: every call is admitted, without reading the clock. */
  admitsAll = true
  /** Evicted. Outcomes of calls that it admitted are counted by its successor. */
  isEvicted = false
  refusal: CircuitRefusal | undefined = undefined
  /** The generation of which the first probe was let through. */
  probedIn = 0
  /** When each lease expires. */
  leases: Map<string, number> | undefined
  /** When a lease was last granted. */
  private leasedAt = 0
  previous: MemoryCircuit | undefined = undefined
  next: MemoryCircuit | undefined = undefined
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

  private evidenceIfAny(window: Window): MemoryEvidence | undefined {
    return isSame(this.main.window, window)
      ? this.main
      : this.others?.find((evidence) => isSame(evidence.window, window))
  }

  // One for each breaker with other options on this key. The developer makes those, so there are few.
  private otherEvidence(window: Window): MemoryEvidence {
    const known = this.evidenceIfAny(window)
    if (known !== undefined) return known
    const evidence = new MemoryEvidence(window)
    ;(this.others ??= []).push(evidence)
    return evidence
  }

  /** Changes the control. Outcomes of calls admitted before no longer count. */
  moveTo(control: Control, now: number): void {
    this.adjustToClock(now)
    this.generation = nextGeneration(this.generation, now)
    this.control = control
    this.admitsAll = control._tag === "Closed" && control.until === 0
    this.refusal = undefined
    this.main.clear()
    this.others = undefined
  }

  /**
   * If the clock was set back, shifts all times by as much. Otherwise an opening or a lease of a second would last an hour
   * longer after the clock was set back by an hour.
   */
  adjustToClock(now: number): void {
    const ahead = Math.max(this.control.since, this.leasedAt) - now
    if (ahead <= 0) return
    this.control = shifted(this.control, -ahead)
    this.leasedAt -= ahead
    this.refusal = undefined
    for (const [id, at] of this.leases ?? []) this.leases?.set(id, at - ahead)
  }

  /** How many leases are alive. */
  probing(now: number): number {
    if (this.leases === undefined) return 0
    for (const [id, at] of this.leases) if (at <= now) this.leases.delete(id)
    return this.leases.size
  }

  /** Milliseconds until the next lease expires. 0 if there is none. */
  leaseMillis(now: number): number {
    let next = Number.POSITIVE_INFINITY
    for (const at of this.leases?.values() ?? []) if (at > now) next = Math.min(next, at)
    return Number.isFinite(next) ? next - now : 0
  }

  /** Grants a probe slot, or renews the lease that has this id. */
  lease({ id, limit, ttlMillis, window }: LeaseRequest, now: number): boolean {
    this.adjustToClock(now)
    const { control } = this
    if (control._tag !== "Open" || now < control.until) return false
    const live = this.probing(now)
    const leases = this.leases ??= new Map()
    // A probe that has reported keeps its slot, so that no more than `limit` outcomes decide a round.
    if (!leases.has(id) && live + this.evidence(window).ring.length >= limit) return false
    leases.set(id, now + ttlMillis)
    this.leasedAt = now
    return true
  }

  /** Renews a lease that is alive. */
  renew(id: string, ttlMillis: number, now: number): void {
    this.adjustToClock(now)
    const expiresAt = this.leases?.get(id)
    if (expiresAt === undefined || now >= expiresAt) return
    this.leases?.set(id, now + ttlMillis)
    this.leasedAt = now
  }

  /** Frees a lease. Returns whether it was alive. */
  release(id: string, now: number): boolean {
    const expiresAt = this.leases?.get(id)
    if (expiresAt === undefined) return false
    this.leases?.delete(id)
    return now < expiresAt
  }

  snapshot(window: Window, now: number): Snapshot {
    this.adjustToClock(now)
    const { control, generation, key } = this
    const evidence = this.evidenceIfAny(window)?.encode(now) ?? noEvidence
    return { key, generation, control, evidence, probing: this.probing(now), leaseMillis: this.leaseMillis(now), now }
  }
}

type LeaseRequest = Pick<RequestOf<"lease">, "id" | "limit" | "ttlMillis" | "window">

const isSame = (a: Window, b: Window): boolean =>
  a === b || (a.calls === b.calls && a.bucketMillis === b.bucketMillis && a.buckets === b.buckets)

/** The store's contract in memory. Every verb is synchronous, and so atomic. */
export class MemoryCircuits {
  private readonly capacity: number
  private readonly circuits = new Map<string, MemoryCircuit>()
  private readonly recency = new LinkedList<MemoryCircuit>()

  constructor(capacity: number) {
    this.capacity = capacity
  }

  get size(): number {
    return this.circuits.size
  }

  /** The circuit of the key, made if there is none. It becomes the most recently used one. */
  use(key: string, window: Window, clock: Clock.Clock): MemoryCircuit {
    // Most programs call one dependency many times in a row.
    const { last } = this.recency
    if (last !== undefined && last.key === key) return last
    const known = this.circuits.get(key)
    if (known !== undefined) {
      this.recency.moveToLast(known)
      return known
    }
    const now = clock.currentTimeMillisUnsafe()
    return this.make(key, window, nextGeneration(0, now), now)
  }

  /** Whether every call of the key is admitted, without reading the clock. */
  admitsAll(key: string): boolean {
    return this.circuits.get(key)?.admitsAll !== false
  }

  read(key: string, window: Window, now: number): Snapshot {
    return this.circuits.get(key)?.snapshot(window, now) ?? missing(key, now)
  }

  lease(request: RequestOf<"lease">, now: number): Answer {
    const circuit = this.circuits.get(request.key)
    if (circuit === undefined) return { ok: false, snapshot: missing(request.key, now) }
    this.recency.moveToLast(circuit)
    const ok = circuit.generation === request.generation && circuit.lease(request, now)
    return { ok, snapshot: circuit.snapshot(request.window, now) }
  }

  record(request: RequestOf<"record">, now: number): Answer {
    const known = this.circuits.get(request.key)
    if (known === undefined) {
      if (request.lease !== undefined) return { ok: false, snapshot: missing(request.key, now) }
      const made = this.make(request.key, request.window, nextGeneration(request.generation, now), now)
      return this.add(made, request, now)
    }
    this.recency.moveToLast(known)
    known.adjustToClock(now)
    const isCurrent = known.generation === request.generation
    const counts = request.lease === undefined
      ? takesSamples(known.control) && (isCurrent || (request.generation === 0 && known.control === untouched))
      : known.release(request.lease, now) && isCurrent
    return counts ? this.add(known, request, now) : { ok: false, snapshot: known.snapshot(request.window, now) }
  }

  transition(request: RequestOf<"transition">, now: number): Answer {
    const known = this.circuits.get(request.key)
    if (known === undefined && request.generation !== 0) return { ok: false, snapshot: missing(request.key, now) }
    const circuit = known ?? this.make(request.key, request.window, 0, now)
    this.recency.moveToLast(circuit)
    const isCurrent = circuit.generation === request.generation
    if (isCurrent) circuit.moveTo(controlOf(request.to, request.by, now), now)
    return { ok: isCurrent || circuit.control.by === request.by, snapshot: circuit.snapshot(request.window, now) }
  }

  list({ after, limit, window }: RequestOf<"list">, now: number): ReadonlyArray<Snapshot> {
    const keys = [...this.circuits.keys()].filter((key) => after === undefined || key > after).sort()
    return keys.slice(0, limit).map((key) => this.read(key, window, now))
  }

  private add(circuit: MemoryCircuit, { samples, window }: RequestOf<"record">, now: number): Answer {
    const evidence = circuit.evidence(window)
    for (const code of codesOf(samples)) evidence.add(code, now)
    return { ok: true, snapshot: circuit.snapshot(window, now) }
  }

  private make(key: string, window: Window, generation: number, now: number): MemoryCircuit {
    this.evictOne(now)
    const circuit = new MemoryCircuit(key, window, generation)
    this.circuits.set(key, circuit)
    this.recency.append(circuit)
    return circuit
  }

  // Skips circuits that are open, forced or probed, as long as there are others among the ten least recently used. Looking at
  // ten bounds what one call can cost.
  private evictOne(now: number): void {
    if (this.circuits.size < this.capacity) return
    for (let looks = 0; looks < 10; looks++) {
      const { first } = this.recency
      if (first === undefined || isEvictable(first, now)) break
      this.recency.moveToLast(first)
    }
    const { first } = this.recency
    if (first === undefined) return
    this.recency.remove(first)
    this.circuits.delete(first.key)
    first.isEvicted = true
  }
}

/** The circuits behind a store of this process, and its clock. A breaker uses them without going through the store. */
const inMemory = new WeakMap<object, { readonly circuits: MemoryCircuits; readonly clock: Clock.Clock }>()

export const memoryOf = (store: CircuitBreakerStore["Service"]) => inMemory.get(store)

export const setMemory = (
  store: CircuitBreakerStore["Service"],
  circuits: MemoryCircuits,
  clock: Clock.Clock
): void => {
  inMemory.set(store, { circuits, clock })
}

const isEvictable = (circuit: MemoryCircuit, now: number): boolean => {
  const { control } = circuit
  const isOver = control._tag === "Forced" ? isLifted(control, now) : now >= control.until
  return isOver && circuit.probing(now) === 0
}

/** Whether the outcomes of calls that are not probes are kept. */
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

/** The control after a transition. */
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

// Microseconds, so that a circuit that was evicted and comes back never reuses a generation.
const nextGeneration = (previous: number, now: number): number => Math.max(previous + 1, Math.floor(now * 1_000))

/** The same control on a clock that is ahead by `millis`. */
export const shifted = (control: Control, millis: number): Control => {
  const until = control.until === 0 ? 0 : control.until + millis
  return control._tag === "Open"
    ? {
      ...control,
      since: control.since + millis,
      until,
      hinted: control.hinted === 0 ? 0 : control.hinted + millis
    }
    : { ...control, since: control.since + millis, until }
}
