import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Control, Snapshot, Target } from "../../CircuitBreakerStore.ts"
import type { Outcome } from "../../Outcome.ts"
import type { CircuitOpen } from "./circuitOpen.ts"
import {
  type CircuitAdmission,
  type Circuits,
  codeOf,
  hintOf,
  movesWithoutSample,
  notAdmitted,
  refusalOf,
  type Refuse,
  retryAfterProbesMillis
} from "./circuits.ts"
import type { MemoryEvidence } from "./evidence.ts"
import type { CircuitJournal } from "./journal.ts"
import { answer, decide, tally, targetOf, tripped } from "./machine.ts"
import { type CircuitRefusal, controlOf, type MemoryCircuit, type MemoryCircuits, takesSamples } from "./memory.ts"
import { isHalfOpen, type OutcomeHint, type Settings, stateName, type View } from "./model.ts"
import { isWithinProbe } from "./probe.ts"

export interface LocalOptions {
  readonly settings: Settings
  readonly circuits: MemoryCircuits
  readonly clock: Clock.Clock
  /** A random number from 0 to 1. */
  readonly random: () => number
  readonly journal: CircuitJournal
  readonly refuse: Refuse
  readonly nextId: () => string
}

/** A breaker over circuits in this process. Everything is synchronous: a successful call costs two lookups and a count. */
export class LocalCircuits {
  /** Whether calls are timed even if no classifier reads the time. */
  readonly isTimed: boolean
  private readonly settings: Settings
  private readonly circuits: MemoryCircuits
  private readonly clock: Clock.Clock
  private readonly random: () => number
  private readonly journal: CircuitJournal
  private readonly refuse: Refuse
  private readonly nextId: () => string

  constructor(options: LocalOptions) {
    this.settings = options.settings
    this.circuits = options.circuits
    this.clock = options.clock
    this.random = options.random
    this.journal = options.journal
    this.refuse = options.refuse
    this.nextId = options.nextId
    this.isTimed = Number.isFinite(options.settings.slowMillis)
  }

  /** The same methods, as effects. */
  readonly asCircuits: Circuits = {
    enter: (call) => Effect.suspend(() => this.enter(call)?.effect ?? Effect.void),
    leave: (call, outcome, isSlow) => Effect.sync(() => this.leave(call, outcome, isSlow)),
    progress: (call) => this.progress(call),
    look: (key) => Effect.sync(() => this.look(key)),
    read: (key) => Effect.sync(() => this.read(key)),
    list: (after, limit) => Effect.sync(() => this.list(after, limit)),
    set: (key, to) => Effect.sync(() => this.set(key, to))
  }

  // ---------- calls

  /** Admits the call, or returns the refusal. */
  enter(call: CircuitAdmission): CircuitRefusal | undefined {
    const circuit = this.circuits.use(call.key, this.settings.policy.window, this.clock)
    call.circuit = circuit
    call.generation = circuit.generation
    if (!circuit.admitsAll) return this.enterByControl(call, circuit)
    call.startedAt = this.now()
    this.publishAdmitted(call, false)
    return undefined
  }

  /** The circuit, if it admits every call and no reader wants events: the path of nearly every call. */
  circuitAdmittingAll(key: string): MemoryCircuit | undefined {
    const circuit = this.circuits.use(key, this.settings.policy.window, this.clock)
    return circuit.admitsAll && !this.journal.decisions.hasReaders ? circuit : undefined
  }

  /** Counts a quick success, if it cannot change the circuit and events have no reader. Returns whether it counted. */
  recordQuickSuccess(circuit: MemoryCircuit, generation: number, startedAt: number): boolean {
    if (circuit.generation !== generation || !circuit.admitsAll || circuit.isEvicted) return false
    const { policy: { window }, slowMillis } = this.settings
    const now = this.isTimed || window.buckets > 0 ? this.now() : 0
    if (this.isTimed && now - startedAt > slowMillis) return false
    const evidence = circuit.evidence(window)
    // Evidence of quick successes alone cannot trip.
    if (evidence.isTainted() || this.journal.decisions.hasReaders) return false
    evidence.add(0, now)
    this.journal.outcomes.Success++
    return true
  }

  leave(call: CircuitAdmission, outcome: Outcome, isSlow: boolean): void {
    this.journal.ended(outcome)
    const counted = this.count(call, codeOf(outcome, isSlow), hintOf(outcome))
    if (this.journal.decisions.hasReaders) {
      this.journal.decisions.publish({
        _tag: "Counted",
        key: call.key,
        outcome: outcome._tag,
        counted,
        at: this.now()
      })
    }
  }

  /** Counts the outcome of a call that another store admitted. */
  observe(key: string, code: number, hint: OutcomeHint | undefined): boolean {
    const now = this.now()
    const circuit = this.circuits.use(key, this.settings.policy.window, this.clock)
    const call = notAdmitted(key)
    call.circuit = circuit
    call.generation = circuit.generation
    circuit.adjustToClock(now)
    if (isHalfOpen(circuit.control, now)) {
      const lease = this.leaseProbe(circuit, now)
      if (lease === undefined) return false
      call.lease = lease
    }
    return this.count(call, code, hint)
  }

  progress({ circuit, lease }: CircuitAdmission): void {
    if (lease === undefined || circuit?.leases?.has(lease) !== true) return
    circuit.renew(lease, this.settings.probeLeaseMillis, this.now())
  }

  // ---------- circuits

  look(key: string): CircuitOpen | undefined {
    if (this.circuits.admitsAll(key)) return undefined
    const snapshot = this.read(key)
    const refused = refusalOf(snapshot, this.settings.policy)
    return refused === undefined || isWithinProbe(key, snapshot.generation) ? undefined : this.refuse(refused)
  }

  read(key: string): Snapshot {
    return this.circuits.read(key, this.settings.policy.window, this.now())
  }

  list(after: string | undefined, limit: number): ReadonlyArray<Snapshot> {
    return this.circuits.list({ after, limit, window: this.settings.policy.window }, this.now())
  }

  set(key: string, to: Target): void {
    const { window } = this.settings.policy
    const circuit = this.circuits.use(key, window, this.clock)
    this.transition(circuit, circuit.evidence(window), to, this.now())
  }

  /** Copies the control of a shared circuit, shifted to this process's clock. Reports nothing, since nothing moved. */
  adopt(key: string, control: Control): void {
    this.circuits.use(key, this.settings.policy.window, this.clock).moveTo(control, this.now())
  }

  now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  // ---------- admission

  private enterByControl(call: CircuitAdmission, circuit: MemoryCircuit): CircuitRefusal | undefined {
    const now = this.now()
    call.startedAt = now
    circuit.adjustToClock(now)
    const evidence = circuit.evidence(this.settings.policy.window)
    this.decide(circuit, evidence, undefined, now)
    call.generation = circuit.generation
    const { control } = circuit
    const answered = answer(control, now)
    switch (answered._tag) {
      case "Admitted":
        circuit.admitsAll = control._tag === "Closed"
        this.publishAdmitted(call, false)
        return undefined
      case "Ramp":
        if (this.random() >= answered.probability) {
          return this.refusal(circuit, evidence, answered.retryAfterMillis, now)
        }
        this.publishAdmitted(call, false)
        return undefined
      case "Probe":
        return this.enterProbe(call, circuit, evidence, now)
      case "Refused":
        return this.refusal(circuit, evidence, answered.retryAfterMillis, now)
    }
  }

  private enterProbe(
    call: CircuitAdmission,
    circuit: MemoryCircuit,
    evidence: MemoryEvidence,
    now: number
  ): CircuitRefusal | undefined {
    if (isWithinProbe(circuit.key, circuit.generation)) return undefined
    const lease = this.leaseProbe(circuit, now)
    if (lease === undefined) {
      return this.refusal(circuit, evidence, retryAfterProbesMillis(circuit.control, circuit.leaseMillis(now)), now)
    }
    call.lease = lease
    if (circuit.probedIn !== circuit.generation) {
      circuit.probedIn = circuit.generation
      this.journal.probed(circuit.key, circuit.control, now)
    }
    this.publishAdmitted(call, true)
    return undefined
  }

  private leaseProbe(circuit: MemoryCircuit, now: number): string | undefined {
    const { policy: { probes, window }, probeLeaseMillis } = this.settings
    const id = this.nextId()
    return circuit.lease({ id, limit: probes, ttlMillis: probeLeaseMillis, window }, now) ? id : undefined
  }

  // One error serves all calls that are refused in the same millisecond. Its retryAfter is exact for all of them, and the
  // refusal costs a sixth of one with a new error.
  private refusal(
    circuit: MemoryCircuit,
    evidence: MemoryEvidence,
    retryAfterMillis: number,
    now: number
  ): CircuitRefusal {
    this.journal.refused++
    const { control, key } = circuit
    let { refusal } = circuit
    if (
      refusal === undefined || refusal.by !== this || refusal.at !== now ||
      refusal.retryAfterMillis !== retryAfterMillis
    ) {
      const because = control._tag === "Open"
        ? control.because
        : tally(viewOf(circuit, evidence, now), this.settings.policy)
      const open = this.refuse({ key, control, now, retryAfterMillis, because })
      refusal = { by: this, at: now, retryAfterMillis, open, effect: Effect.fail(open) }
      circuit.refusal = refusal
    }
    if (this.journal.decisions.hasReaders) {
      const { retryAfter, state } = refusal.open
      this.journal.decisions.publish({ _tag: "Refused", key, state, retryAfter, at: now })
    }
    return refusal
  }

  // ---------- outcomes

  /** Frees what the call holds, and counts its sample if the circuit has not moved since the call was admitted. */
  private count(call: CircuitAdmission, code: number, hint: OutcomeHint | undefined): boolean {
    const now = this.now()
    const circuit = this.circuitOf(call)
    const { lease } = call
    const moves = code >= 0 || movesWithoutSample(call, hint)
    call.lease = undefined
    circuit.adjustToClock(now)
    const isLive = lease === undefined || circuit.release(lease, now)
    if (!moves) return false
    const isCurrent = circuit.generation === call.generation
    const counts = isCurrent && isLive && (lease !== undefined || takesSamples(circuit.control))
    const evidence = circuit.evidence(this.settings.policy.window)
    if (counts && code >= 0) evidence.add(code, now)
    // A late outcome does not count, but its hint can lengthen an opening.
    if (counts || (circuit.control._tag === "Open" && now < circuit.control.until)) {
      this.decide(circuit, evidence, hint, now)
    }
    return counts && (code >= 0 || hint?.openMillis !== undefined)
  }

  // If the circuit was evicted while the call ran, its successor counts the outcome: no failure is lost to a full store.
  private circuitOf(call: CircuitAdmission): MemoryCircuit {
    const { circuit } = call
    if (circuit !== undefined && !circuit.isEvicted) return circuit
    const successor = this.circuits.use(call.key, this.settings.policy.window, this.clock)
    // A successor that has moved is another generation, in which the outcome does not count.
    if (successor.control.by === "" && call.lease === undefined) call.generation = successor.generation
    call.circuit = successor
    return successor
  }

  private decide(
    circuit: MemoryCircuit,
    evidence: MemoryEvidence,
    hint: OutcomeHint | undefined,
    now: number
  ): void {
    const { openMillis, policy } = this.settings
    const view = viewOf(circuit, evidence, now)
    const move = decide(policy, view, hint)
    if (move !== undefined) return this.transition(circuit, evidence, targetOf(policy, move, openMillis), now)
    const { control } = circuit
    if (control._tag === "Forced" && control.mode === "ObserveOnly" && this.journal.decisions.hasReaders) {
      const because = tripped(policy, view)
      if (because !== undefined) {
        this.journal.decisions.publish({ _tag: "WouldOpen", key: circuit.key, evidence: because, at: now })
      }
    }
  }

  private transition(circuit: MemoryCircuit, evidence: MemoryEvidence, to: Target, now: number): void {
    const from = stateName(circuit.control, now)
    const counted = tally(viewOf(circuit, evidence, now), this.settings.policy)
    circuit.moveTo(controlOf(to, this.nextId(), now), now)
    this.journal.moved(circuit.key, from, counted, to, now)
  }

  private publishAdmitted({ key }: CircuitAdmission, isProbe: boolean): void {
    if (this.journal.decisions.hasReaders) {
      this.journal.decisions.publish({ _tag: "Admitted", key, isProbe, at: this.now() })
    }
  }
}

const viewOf = ({ control }: MemoryCircuit, evidence: MemoryEvidence, now: number): View => ({ control, evidence, now })
