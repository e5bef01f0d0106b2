import type { Answer, CircuitBreakerStore, Control, Snapshot, Target, Window } from "../CircuitBreakerStore.ts"

/** What the contract's verb is asked. */
type Asked<Verb extends "lease" | "record" | "transition"> = Parameters<CircuitBreakerStore["Service"][Verb]>[0]

interface Circuit {
  generation: number
  control: Control
  ring: string
  /** How much evidence is kept: as much as the breaker that looks back the furthest wants. */
  calls: number
  /** Lease id to the time at which it lapses. */
  readonly leases: Map<string, number>
}

const allOfIt: Window = { calls: Infinity }
const untouched: Control = { _tag: "Closed", since: 0, by: "" }

/** The store's contract in memory: every verb runs in one go, so that nothing comes between its look and its change. */
export class MemoryCircuits {
  private readonly capacity: number
  // In the order of last use, so that the first one is the one to forget.
  private readonly circuits = new Map<string, Circuit>()

  constructor(capacity: number) {
    this.capacity = capacity
  }

  read(key: string, window: Window, now: number): Snapshot {
    return snapshot(key, this.circuits.get(key), window, now)
  }

  lease(
    asked: Asked<"lease">,
    now: number
  ): Answer {
    const circuit = this.circuits.get(asked.key)
    if (circuit === undefined) return { ok: false, snapshot: snapshot(asked.key, undefined, asked.window, now) }
    lapse(circuit, now)
    const ready = circuit.generation === asked.generation && circuit.control._tag === "Open" &&
      now >= circuit.control.until
    // Outcomes already counted keep their place, so that no more than `limit` decide a round.
    const ok = ready && (circuit.leases.has(asked.id) || circuit.leases.size + circuit.ring.length < asked.limit)
    if (ok) circuit.leases.set(asked.id, now + asked.ttlMillis)
    return { ok, snapshot: snapshot(asked.key, circuit, asked.window, now) }
  }

  record(
    given: Asked<"record">,
    now: number
  ): Answer {
    const known = this.circuits.has(given.key)
    const circuit = this.use(given.key, given.lease === undefined, given.generation, now)
    if (circuit === undefined) return { ok: false, snapshot: snapshot(given.key, undefined, given.window, now) }
    lapse(circuit, now)
    // A circuit that was forgotten begins anew with this outcome: the first failure after a pause is not lost.
    const stands = circuit.generation === given.generation || !known
    const ok = given.lease === undefined
      ? circuit.control._tag === "Closed" && (stands || (given.generation === 0 && circuit.control === untouched))
      : circuit.leases.delete(given.lease) && stands
    if (ok) {
      circuit.calls = Math.max(circuit.calls, given.window.calls)
      circuit.ring = (circuit.ring + given.samples).slice(-circuit.calls)
    }
    return { ok, snapshot: snapshot(given.key, circuit, given.window, now) }
  }

  transition(
    wish: Asked<"transition">,
    now: number
  ): Answer {
    const circuit = this.use(wish.key, wish.generation === 0, 0, now)
    if (circuit === undefined) return { ok: false, snapshot: snapshot(wish.key, undefined, wish.window, now) }
    const stands = circuit.generation === wish.generation || (wish.generation === 0 && circuit.control === untouched)
    if (stands) {
      circuit.generation = nextGeneration(circuit.generation, now)
      circuit.control = control(wish.to, wish.by, now)
      circuit.ring = ""
    }
    return { ok: stands || circuit.control.by === wish.by, snapshot: snapshot(wish.key, circuit, wish.window, now) }
  }

  list(after: string | undefined, limit: number, now: number): ReadonlyArray<Snapshot> {
    const keys = [...this.circuits.keys()].filter((key) => after === undefined || key > after).sort()
    return keys.slice(0, limit).map((key) => this.read(key, allOfIt, now))
  }

  private use(key: string, create: boolean, generation: number, now: number): Circuit | undefined {
    let circuit = this.circuits.get(key)
    if (circuit !== undefined) this.circuits.delete(key)
    else if (!create) return undefined
    else {
      this.forgetOldest(now)
      circuit = {
        generation: nextGeneration(generation, now),
        control: untouched,
        ring: "",
        calls: 0,
        leases: new Map()
      }
    }
    this.circuits.set(key, circuit)
    return circuit
  }

  // A circuit with a live probe is passed over and counts as used. Ten looks at most: one call never pays for all.
  private forgetOldest(now: number): void {
    for (let looks = 0; this.circuits.size >= this.capacity && looks < 10; looks++) {
      for (const [key, circuit] of this.circuits) {
        this.circuits.delete(key)
        lapse(circuit, now)
        if (circuit.leases.size > 0) this.circuits.set(key, circuit)
        break
      }
    }
  }
}

const lapse = (circuit: Circuit, now: number): void => {
  for (const [id, at] of circuit.leases) if (at <= now) circuit.leases.delete(id)
}

const snapshot = (key: string, circuit: Circuit | undefined, window: Window, now: number): Snapshot => {
  if (circuit === undefined) {
    return { key, generation: 0, control: untouched, evidence: { ring: "" }, probing: 0, leaseMillis: 0, now }
  }
  let probing = 0
  let leaseMillis = 0
  for (const at of circuit.leases.values()) {
    if (at <= now) continue
    leaseMillis = probing === 0 ? at - now : Math.min(leaseMillis, at - now)
    probing++
  }
  const { control, generation, ring } = circuit
  return { key, generation, control, evidence: { ring: ring.slice(-window.calls) }, probing, leaseMillis, now }
}

const control = (to: Target, by: string, now: number): Control =>
  to._tag === "Closed"
    ? { _tag: "Closed", since: now, by }
    : { _tag: "Open", since: now, until: now + to.forMillis, openings: to.openings, because: to.because, by }

// Microseconds, so that a circuit that was forgotten and comes back never reissues a generation of its former life.
const nextGeneration = (previous: number, now: number): number => Math.max(previous + 1, Math.floor(now * 1_000))
