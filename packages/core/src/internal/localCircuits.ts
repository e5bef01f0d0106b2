import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { CircuitOpen } from "../CircuitBreaker.ts"
import type { Control, Snapshot, Target } from "../CircuitBreakerStore.ts"
import type { Outcome } from "../Outcome.ts"
import type { MemoryEvidence } from "./circuitEvidence.ts"
import type { CircuitJournal } from "./circuitJournal.ts"
import type { Said, View, Wish } from "./circuitMachine.ts"
import { admission, decide, isHalfOpen, tally, target, tripped } from "./circuitMachine.ts"
import type { Refuse, Settings } from "./circuits.ts"
import { codeOf, nameOf, Passage, probeResultMillis, refusalOf, saidBy } from "./circuits.ts"
import type { MemoryCircuit, MemoryCircuits } from "./memoryCircuits.ts"
import { controlOf, release, takesSamples, tryLease } from "./memoryCircuits.ts"

import { isWithinProbe } from "./probes.ts"

/**
 * A breaker over circuits in this process. Every step is synchronous: what it costs a call that nothing is wrong with is two
 * lookups and a count.
 */
export class LocalCircuits {
  /** Whether a call has to be timed even where no classifier asks. */
  readonly isTimed: boolean
  private readonly settings: Settings
  private readonly circuits: MemoryCircuits
  private readonly clock: Clock.Clock
  private readonly chance: () => number
  private readonly journal: CircuitJournal
  private readonly refuse: Refuse
  private readonly nextId: () => string

  constructor(options: {
    readonly settings: Settings
    readonly circuits: MemoryCircuits
    readonly clock: Clock.Clock
    /** A number from 0 to 1. */
    readonly chance: () => number
    readonly journal: CircuitJournal
    readonly refuse: Refuse
    readonly nextId: () => string
  }) {
    this.settings = options.settings
    this.circuits = options.circuits
    this.clock = options.clock
    this.chance = options.chance
    this.journal = options.journal
    this.refuse = options.refuse
    this.nextId = options.nextId
    this.isTimed = Number.isFinite(options.settings.slowMillis)
  }

  /** The same for whoever does not mind an effect more. */
  readonly asCircuits = {
    enter: (passage: Passage): Effect.Effect<void, CircuitOpen> =>
      Effect.suspend(() => this.enter(passage) ?? Effect.void),
    leave: (passage: Passage, outcome: Outcome, isSlow: boolean): Effect.Effect<void> =>
      Effect.sync(() => this.leave(passage, outcome, isSlow)),
    progress: (passage: Passage): void => this.progress(passage),
    look: (key: string): Effect.Effect<CircuitOpen | undefined> => Effect.sync(() => this.look(key)),
    read: (key: string): Effect.Effect<Snapshot> => Effect.sync(() => this.read(key)),
    list: (after: string | undefined, limit: number): Effect.Effect<ReadonlyArray<Snapshot>> =>
      Effect.sync(() => this.list(after, limit)),
    set: (key: string, to: Target): Effect.Effect<void> => Effect.sync(() => this.set(key, to))
  }

  /** Lets the call in, or tells with what it is to fail. */
  enter(passage: Passage): Effect.Effect<never, CircuitOpen> | undefined {
    const circuit = this.circuits.use(passage.key, this.settings.policy.window, this.clock)
    passage.circuit = circuit
    passage.generation = circuit.generation
    if (!circuit.isHot) return this.enterCold(passage, circuit)
    passage.startedAt = this.now()
    if (this.journal.decisions.hasReaders) this.tellAdmitted(passage, false)
    return undefined
  }

  /** The circuit, if it lets every call in and nobody wants to be told: the path of nearly every call. */
  hot(key: string): MemoryCircuit | undefined {
    const circuit = this.circuits.use(key, this.settings.policy.window, this.clock)
    return circuit.isHot && !this.journal.decisions.hasReaders ? circuit : undefined
  }

  /** Counts a call that went well, if that is all that is to be done. */
  leaveGood(circuit: MemoryCircuit, generation: number, startedAt: number): boolean {
    if (circuit.generation !== generation || !circuit.isHot || circuit.isForgotten) return false
    const { policy: { window }, slowMillis } = this.settings
    const now = this.isTimed || window.buckets > 0 ? this.now() : 0
    if (this.isTimed && now - startedAt > slowMillis) return false
    const evidence = circuit.evidence(window)
    // Only what has seen something bad can trip.
    if (evidence.isTainted() || this.journal.decisions.hasReaders) return false
    evidence.add(0, now)
    this.journal.outcomes.Success++
    return true
  }

  leave(passage: Passage, outcome: Outcome, isSlow: boolean): void {
    this.journal.ended(outcome)
    const counted = this.count(passage, codeOf(outcome, isSlow), saidBy(outcome))
    if (this.journal.decisions.hasReaders) this.tellCounted(passage, outcome, counted)
  }

  /** Frees what the call held, and counts its sample if the circuit stands as the call met it. */
  count(passage: Passage, code: number, said: Said | undefined): boolean {
    const now = this.now()
    const circuit = this.standing(passage)
    const { lease } = passage
    passage.lease = undefined
    const isLive = lease === undefined || release(circuit, lease, now)
    if (code < 0 && said?.openMillis === undefined) return false
    const stands = circuit.generation === passage.generation
    const counts = stands && isLive && (lease !== undefined || takesSamples(circuit.control))
    const evidence = circuit.evidence(this.settings.policy.window)
    if (counts && code >= 0) evidence.add(code, now)
    // A late outcome decides nothing, but its hint may lengthen an opening.
    if (counts || (circuit.control._tag === "Open" && now < circuit.control.until)) {
      this.decide(circuit, evidence, said, now)
    }
    return counts
  }

  /** Counts what a call met that was let in elsewhere. */
  observe(key: string, code: number, said: Said | undefined): boolean {
    const now = this.now()
    const circuit = this.circuits.use(key, this.settings.policy.window, this.clock)
    const passage = new Passage(key)
    passage.circuit = circuit
    passage.generation = circuit.generation
    circuit.mend(now)
    if (isHalfOpen(circuit.control, now)) {
      const { policy: { probes, window }, probeLeaseMillis } = this.settings
      const id = this.nextId()
      if (!tryLease(circuit, { id, limit: probes, ttlMillis: probeLeaseMillis, window }, now)) return false
      passage.lease = id
    }
    return this.count(passage, code, said)
  }

  /** The call shows that it does not hang: a probe keeps its place. */
  progress(passage: Passage): void {
    const { circuit, lease } = passage
    if (lease === undefined || circuit?.leases?.has(lease) !== true) return
    const now = this.now()
    if (now < (circuit.leases.get(lease) ?? 0)) circuit.leases.set(lease, now + this.settings.probeLeaseMillis)
  }

  look(key: string): CircuitOpen | undefined {
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

  /** Sets the circuit to what somebody wishes of it. */
  set(key: string, to: Target): void {
    const now = this.now()
    const circuit = this.circuits.use(key, this.settings.policy.window, this.clock)
    this.transition(circuit, circuit.evidence(this.settings.policy.window), to, now)
  }

  /** Takes over how a circuit stood elsewhere, by this process's clock. Tells nobody: nothing has moved. */
  adopt(key: string, control: Control): void {
    const circuit = this.circuits.use(key, this.settings.policy.window, this.clock)
    circuit.stand(control, this.now())
  }

  private enterCold(passage: Passage, circuit: MemoryCircuit): Effect.Effect<never, CircuitOpen> | undefined {
    const now = this.now()
    passage.startedAt = now
    circuit.mend(now)
    const evidence = circuit.evidence(this.settings.policy.window)
    this.decide(circuit, evidence, undefined, now)
    passage.generation = circuit.generation
    const { control } = circuit
    const answer = admission(control, now)
    switch (answer._tag) {
      case "Admitted":
        circuit.isHot = control._tag === "Closed"
        if (this.journal.decisions.hasReaders) this.tellAdmitted(passage, false)
        return undefined
      case "Ramp":
        if (this.chance() >= answer.probability) return this.refused(circuit, evidence, answer.retryAfterMillis, now)
        if (this.journal.decisions.hasReaders) this.tellAdmitted(passage, false)
        return undefined
      case "Probe":
        return this.enterProbe(passage, circuit, evidence, now)
      case "Refused":
        return this.refused(circuit, evidence, answer.retryAfterMillis, now)
    }
  }

  private enterProbe(
    passage: Passage,
    circuit: MemoryCircuit,
    evidence: MemoryEvidence,
    now: number
  ): Effect.Effect<never, CircuitOpen> | undefined {
    if (isWithinProbe(circuit.key, circuit.generation)) return undefined
    const { policy: { probes, window }, probeLeaseMillis } = this.settings
    const id = this.nextId()
    if (tryLease(circuit, { id, limit: probes, ttlMillis: probeLeaseMillis, window }, now)) {
      passage.lease = id
      if (circuit.probedIn !== circuit.generation) {
        circuit.probedIn = circuit.generation
        this.journal.probed(circuit.key, circuit.control, now)
      }
      if (this.journal.decisions.hasReaders) this.tellAdmitted(passage, true)
      return undefined
    }
    return this.refused(circuit, evidence, probeResultMillis(circuit.control, circuit.leaseMillis(now)), now)
  }

  // One error serves all that are refused in the same millisecond: its retryAfter is still exact, and it costs a sixth.
  private refused(
    circuit: MemoryCircuit,
    evidence: MemoryEvidence,
    retryAfterMillis: number,
    now: number
  ): Effect.Effect<never, CircuitOpen> {
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
    const { open } = refusal
    if (this.journal.decisions.hasReaders) {
      this.journal.decisions.publish({ _tag: "Refused", key, state: open.state, retryAfter: open.retryAfter, at: now })
    }
    return refusal.effect
  }

  // A circuit that was forgotten while the call ran begins anew with its outcome: no failure is lost to a full store.
  private standing(passage: Passage): MemoryCircuit {
    const { circuit } = passage
    if (circuit !== undefined && !circuit.isForgotten) return circuit
    const anew = this.circuits.use(passage.key, this.settings.policy.window, this.clock)
    // One that has moved since is another life, in which an old outcome counts nowhere.
    if (anew.control.by === "" && passage.lease === undefined) passage.generation = anew.generation
    passage.circuit = anew
    return anew
  }

  private decide(circuit: MemoryCircuit, evidence: MemoryEvidence, said: Said | undefined, now: number): void {
    const { policy } = this.settings
    const view = viewOf(circuit, evidence, now)
    const wish = decide(policy, view, said)
    if (wish !== undefined) return this.transition(circuit, evidence, this.targetOf(wish), now)
    if (
      circuit.control._tag === "Forced" && circuit.control.mode === "ObserveOnly" && this.journal.decisions.hasReaders
    ) {
      const because = tripped(policy, view)
      if (because !== undefined) {
        this.journal.decisions.publish({ _tag: "WouldOpen", key: circuit.key, evidence: because, at: now })
      }
    }
  }

  private targetOf(wish: Wish): Target {
    const { openMillis, policy } = this.settings
    return target(policy, wish, wish._tag === "Open" ? openMillis(wish.openings) : 0)
  }

  private transition(circuit: MemoryCircuit, evidence: MemoryEvidence, to: Target, now: number): void {
    const view = viewOf(circuit, evidence, now)
    const from = nameOf(circuit.control, now)
    const counted = tally(view, this.settings.policy)
    circuit.stand(controlOf(to, this.nextId(), now), now)
    this.journal.moved(circuit.key, from, counted, to, now)
  }

  private tellAdmitted(passage: Passage, isProbe: boolean): void {
    this.journal.decisions.publish({ _tag: "Admitted", key: passage.key, isProbe, at: this.now() })
  }

  private tellCounted(passage: Passage, outcome: Outcome, counted: boolean): void {
    this.journal.decisions.publish({
      _tag: "Counted",
      key: passage.key,
      outcome: outcome._tag,
      counted,
      at: this.now()
    })
  }

  now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }
}

const viewOf = ({ control }: MemoryCircuit, evidence: MemoryEvidence, now: number): View => ({ control, evidence, now })
