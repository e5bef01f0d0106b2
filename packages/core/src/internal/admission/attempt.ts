import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { Classifier, type Classify, fromExit, ignored, type Outcome } from "../../Outcome.ts"
import type { Breaker } from "../circuit/breaker.ts"
import type { CircuitOpen } from "../circuit/circuitOpen.ts"
import type { CircuitAdmission } from "../circuit/circuits.ts"
import type { LocalCircuits } from "../circuit/local.ts"
import type { CircuitRefusal, MemoryCircuit } from "../circuit/memory.ts"
import { CurrentProbe, probeOf } from "../circuit/probe.ts"
import { type AnyEffect, Primitive } from "../kit/primitive.ts"
import {
  granted,
  type PermitRequest,
  type Permits,
  type Request as QueueRequest,
  whenGranted
} from "../permits/permits.ts"

export type AnyFiber = Fiber.Fiber<unknown, unknown>
type AnyExit = Exit.Exit<unknown, unknown>
type AnyContext = AnyFiber["context"]

/** The permits and the breaker that admit attempts: both, one or neither. Built once. */
export interface Gate<E> {
  readonly permits: Permits<E> | undefined
  readonly breaker: Breaker | undefined
  /** The default of a request's `maxWaitMillis`. */
  readonly maxWaitMillis?: number | undefined
  /** Called when the scope of the permits closes. */
  readonly onClose?: Set<() => void> | undefined
}

/** What the owner of an attempt adds to its admission. Each is read where it is needed. */
export interface Hooks<E> {
  /** The first classifier of the chain. */
  readonly classify?: Classify<unknown, unknown> | undefined
  /** Whether `classify` reads every success as `Success`, and no elapsed time. Then it is not called for a success. */
  readonly trustsSuccess?: boolean | undefined
  /** Before anything is taken. Returns a refusal if the attempt must not request admission. */
  readonly arrive?: (() => Effect.Effect<never, E> | undefined) | undefined
  /** Wraps the wait for permits. */
  readonly wait?: ((self: Effect.Effect<void, E>) => Effect.Effect<void, E>) | undefined
  /** Succeeds when an attempt that an open circuit refused may try again. Without it the attempt fails with `CircuitOpen`. */
  readonly refused?: ((open: CircuitOpen) => Effect.Effect<void, E>) | undefined
  /** After the admission. Returns a refusal if it came too late. */
  readonly begin?: (() => Effect.Effect<never, E> | undefined) | undefined
  /** Called by `run` with the exit of the attempt, also if it never began. May return a defect, which becomes the exit. */
  readonly onExit?: ((exit: AnyExit, context: AnyContext | undefined) => Effect.Effect<void> | undefined) | undefined
}

/** Everything that the admission of one kind of attempt depends on. */
export interface AdmissionRequest<E> {
  readonly gate: Gate<E>
  /** Of the circuit. */
  readonly key: string
  readonly hooks: Hooks<E>
  readonly permits: PermitRequest
}

/** What is requested of a gate without permits. */
export const onePermit: PermitRequest = { permits: 1, maxWaitMillis: undefined, where: undefined }

/** The permits that an attempt holds: none, those that it took at once, or those of its request in the queue. */
type HeldPermits<E> = "None" | "Taken" | QueueRequest<E>

/**
 * One attempt: requests admission, runs its body, settles. It is run once; a retry is another `Attempt`.
 *
 * The order is: check the circuit if the attempt would have to queue; take permits; enter the circuit; begin. Each step is recorded
 * in the same synchronous step: the permits in `permits`, the circuit in `isInCircuit`. The finalizer is registered before the
 * first step, so an interruption anywhere gives everything back.
 *
 * One object has three parts, since every further object would slow down each call: the effect that admits and runs the attempt,
 * the state of its permits and circuit, and the record that a circuit keeps of the call (`CircuitAdmission`).
 */
export class Attempt<E> extends Primitive implements CircuitAdmission {
  // Declared, and assigned by the constructor: fields with initializers cost 5 ns each.

  // The record of the circuit. The last three are set by shared circuits only.
  declare readonly key: string
  declare generation: number
  declare lease: string | undefined
  declare startedAt: number
  declare circuit: CircuitAdmission["circuit"]
  declare stopRenewing: CircuitAdmission["stopRenewing"]
  declare progressAt: number
  declare storeMillis: CircuitAdmission["storeMillis"]

  declare private readonly request: AdmissionRequest<E>
  declare private readonly body: AnyEffect
  declare private readonly context: AnyContext | undefined
  /** Whether a success needs no classifier. Then the elapsed time is not needed either, and the start is not recorded. */
  declare private trustsSuccess: boolean
  declare private permits: HeldPermits<E>
  declare private isInCircuit: boolean

  /**
   * `fiber` runs the attempt. It is `undefined` if callbacks drive the attempt. The classifier of its present context is used: a
   * classifier of the settlement could need a start that was not recorded.
   */
  constructor(
    request: AdmissionRequest<E>,
    body: AnyEffect,
    fiber: Pick<AnyFiber, "context"> | undefined
  ) {
    super()
    this.key = request.key
    this.generation = 0
    this.lease = undefined
    this.startedAt = 0
    this.circuit = undefined
    this.request = request
    this.body = body
    this.context = (fiber ?? Fiber.getCurrent())?.context
    this.trustsSuccess = false
    this.permits = "None"
    this.isInCircuit = false
  }

  /** The admission, the body, and the settlement by its exit. */
  run(): AnyEffect {
    return Effect.onExitPrimitive(this, (exit) => this.end(exit))
  }

  private end(exit: AnyExit): Effect.Effect<void> | undefined {
    const { hooks } = this.request
    if (hooks.onExit === undefined) return this.settleExit(exit)
    let defect: Effect.Effect<void> | undefined
    try {
      defect = hooks.onExit(exit, this.context)
    } catch (thrown) {
      defect = Effect.die(thrown)
    }
    const settled = this.settleExit(exit)
    return defect === undefined || settled === undefined ? settled ?? defect : Effect.andThen(settled, defect)
  }

  // ---------- admission

  /**
   * Requests admission. It is evaluated again when the attempt leaves the queue, or has waited for an open circuit: a separate
   * effect for that would add an eighth to the cost of a waiting call.
   */
  override evaluate(): AnyEffect {
    return typeof this.permits === "object" ? this.passCircuit() : this.arrive()
  }

  private arrive(): AnyEffect {
    const { gate: { permits }, hooks } = this.request
    const refusal = hooks.arrive?.()
    if (refusal !== undefined) return refusal
    return permits === undefined || this.take(permits) ? this.passCircuit() : this.lookAndQueue(permits)
  }

  private take(permits: Permits<E>): boolean {
    const isTaken = permits.take(this.request.permits)
    this.permits = isTaken ? "Taken" : "None"
    return isTaken
  }

  // An attempt that the circuit will refuse must not queue.
  private lookAndQueue(permits: Permits<E>): AnyEffect {
    const { breaker } = this.request.gate
    return breaker === undefined ? this.queue(permits) : Effect.flatMap(
      breaker.circuits.look(this.key, this),
      (open) => open === undefined ? this.queue(permits) : this.refusedBy(open)
    )
  }

  private queue(permits: Permits<E>): AnyEffect {
    const { hooks, permits: permitRequest } = this.request
    const queued = permits.request(permitRequest)
    if (queued.refusal !== undefined) return queued.refusal
    this.permits = queued
    if (queued.state === "Granted") return this.passCircuit()
    return hooks.wait === undefined ? whenGranted(queued, this) : Effect.andThen(hooks.wait(granted(queued)), this)
  }

  private passCircuit(): AnyEffect {
    const { breaker } = this.request.gate
    if (breaker === undefined) return this.begin()
    const { circuits, local } = breaker
    if (local === undefined) {
      const entered = Effect.map(circuits.enter(this), () => {
        this.isInCircuit = true
      })
      return this.beginAfter(Effect.uninterruptible(entered))
    }
    const refused = this.enterLocally(breaker, local)
    if (refused === undefined) return this.begin()
    if (this.request.hooks.refused !== undefined) return this.beginAfter(refused.effect)
    this.release()
    return refused.effect
  }

  /** Enters a circuit that is kept in this process. */
  private enterLocally(breaker: Breaker, local: LocalCircuits): CircuitRefusal | undefined {
    const trusts = trustsSuccess(this.request.hooks, breaker, this.context)
    const circuit = local.circuitAdmittingAll(this.key)
    if (circuit !== undefined) {
      this.enterClosed(circuit, circuit.generation, local.isTimed || !trusts ? local.now() : 0, trusts)
      return undefined
    }
    this.trustsSuccess = trusts
    const refused = local.enter(this)
    this.isInCircuit = refused === undefined
    return refused
  }

  /** Records that a closed circuit admitted the attempt. */
  enterClosed(circuit: MemoryCircuit, generation: number, startedAt: number, trusts: boolean): void {
    this.circuit = circuit
    this.generation = generation
    this.startedAt = startedAt
    this.trustsSuccess = trusts
    this.isInCircuit = true
  }

  private beginAfter(entered: Effect.Effect<void, CircuitOpen>): AnyEffect {
    return Effect.matchEffect(entered, {
      onSuccess: () => this.begin(),
      onFailure: (open) => this.refusedBy(open)
    })
  }

  private begin(): AnyEffect {
    return this.request.hooks.begin?.() ?? this.within(this.body)
  }

  private refusedBy(open: CircuitOpen): AnyEffect {
    this.release()
    const { hooks } = this.request
    return hooks.refused === undefined ? Effect.fail(open) : Effect.andThen(hooks.refused(open), this)
  }

  /** Requests admission without an effect. Returns the refusal; `"Wait"` where only an effect can answer; `undefined` if admitted. */
  tryEnter(): E | CircuitOpen | "Wait" | undefined {
    const { gate: { breaker, permits }, permits: permitRequest } = this.request
    if (breaker !== undefined && breaker.local === undefined) return "Wait"
    if (permits !== undefined && !this.take(permits)) {
      const refused = breaker?.local?.look(this.key) ??
        (permits.wouldQueue(permitRequest) ? "Wait" : permits.refusalNow(permitRequest))
      // A shared store may have been asked. Its grant has no owner.
      permitRequest.ticket?.ended()
      return refused
    }
    try {
      const refused = breaker?.local === undefined ? undefined : this.enterLocally(breaker, breaker.local)
      if (refused === undefined) {
        // The hook of an `Admission`, which refuses nothing.
        this.request.hooks.begin?.()
        return undefined
      }
      this.release()
      return refused.open
    } catch (defect) {
      this.release()
      throw defect
    }
  }

  // ---------- while it runs

  get isProbe(): boolean {
    return this.lease !== undefined
  }

  /** Renews the lease of a probe: it makes progress. */
  progress(): void {
    if (this.lease !== undefined) this.request.gate.breaker?.circuits.progress(this)
  }

  /** Marks what runs inside as part of this probe. A nested guard of the same circuit would refuse it otherwise. */
  within<A, E2, R>(self: Effect.Effect<A, E2, R>): Effect.Effect<A, E2, R> {
    return this.isProbe ? Effect.provideService(self, CurrentProbe, probeOf(this)) : self
  }

  // ---------- report to the circuit: only the first one counts

  /** Reports the outcome. Returns the update of a shared store, if there is one. */
  private report(outcome: Outcome): Effect.Effect<void> | undefined {
    const { breaker } = this.request.gate
    if (!this.isInCircuit || breaker === undefined) return undefined
    if (outcome._tag === "Success" && this.recordQuickSuccess(breaker)) return undefined
    const { slowMillis } = breaker.settings
    return this.leave(breaker, outcome, slowMillis < Infinity && breaker.now() - this.startedAt > slowMillis)
  }

  /** Classifies an exit and reports its outcome. The permits are kept. */
  reportExit(exit: AnyExit): Effect.Effect<void> | undefined {
    const { gate: { breaker }, hooks } = this.request
    if (!this.isInCircuit || breaker === undefined) return undefined
    if (this.trustsSuccess && exit._tag === "Success" && this.recordQuickSuccess(breaker)) return undefined
    const elapsedMillis = breaker.now() - this.startedAt
    let outcome: Outcome
    try {
      outcome = hooks.classify?.(exit, elapsedMillis) ?? breaker.classify?.(exit, elapsedMillis) ??
        classifierOf(this.context)(exit, elapsedMillis)
    } catch (defect) {
      // A classifier that throws still gives everything back. The throw stays a defect.
      return Effect.andThen(this.leave(breaker, ignored, false) ?? Effect.void, Effect.die(defect))
    }
    return this.leave(breaker, outcome, elapsedMillis > breaker.settings.slowMillis)
  }

  private recordQuickSuccess({ local }: Breaker): boolean {
    const { circuit, generation, lease, startedAt } = this
    if (lease !== undefined || circuit === undefined || local === undefined) return false
    if (!local.recordQuickSuccess(circuit, generation, startedAt)) return false
    this.isInCircuit = false
    return true
  }

  private leave({ circuits, local }: Breaker, outcome: Outcome, isSlow: boolean): Effect.Effect<void> | undefined {
    let left: Effect.Effect<void> | undefined
    if (local === undefined) left = circuits.leave(this, outcome, isSlow)
    else local.leave(this, outcome, isSlow)
    // Set after the report: if the outcome cannot be read, the attempt is still in the circuit, and `abandon` leaves it.
    this.isInCircuit = false
    return left
  }

  // ---------- settlement: reports, and gives everything back, also if the report throws

  /** Settles with an outcome. Returns the update of a shared store, if there is one. */
  settle(outcome: Outcome): Effect.Effect<void> | undefined {
    try {
      return this.waitThenRelease(this.report(outcome))
    } catch (defect) {
      this.abandon()
      throw defect
    }
  }

  /** Settles with the outcome of an exit. Returns the update of a shared store, if there is one. */
  settleExit(exit: AnyExit): Effect.Effect<void> | undefined {
    try {
      return this.waitThenRelease(this.reportExit(exit))
    } catch (defect) {
      this.abandon()
      throw defect
    }
  }

  /** Settles from a callback. A shared store is updated in the background. */
  settleUnsafe(outcome: Outcome): void {
    try {
      const reported = this.report(outcome)
      if (reported !== undefined) this.request.gate.breaker?.fork(reported)
      this.release()
    } catch (defect) {
      this.abandon()
      throw defect
    }
  }

  private waitThenRelease(reported: Effect.Effect<void> | undefined): Effect.Effect<void> | undefined {
    if (reported === undefined) {
      this.release()
      return undefined
    }
    return Effect.onExitPrimitive(reported, () => {
      this.release()
      return undefined
    })
  }

  /** Gives everything back without evidence, after a report that threw. */
  private abandon(): void {
    try {
      const { breaker } = this.request.gate
      const left = this.isInCircuit && breaker !== undefined ? this.leave(breaker, ignored, false) : undefined
      if (left !== undefined) breaker?.fork(left)
    } finally {
      this.release()
    }
  }

  private release(): void {
    const { permits: held, request: { gate: { permits }, permits: permitRequest } } = this
    if (held === "None" || permits === undefined) return permitRequest.ticket?.ended()
    this.permits = "None"
    if (held === "Taken") permits.release(permitRequest)
    else permits.settle(held, permitRequest)
  }
}

/** The classifier that ends the chain. */
export const classifierOf = (context: AnyContext | undefined) =>
  context === undefined ? fromExit : Context.get(context, Classifier)

/** Whether every success is a `Success`, so that no classifier has to be called for one. */
const trustsSuccess = <E>(hooks: Hooks<E>, { classify }: Breaker, context: AnyContext | undefined): boolean =>
  (hooks.trustsSuccess ?? hooks.classify === undefined) && classify === undefined && classifierOf(context) === fromExit

/** An effect that has to be admitted, each time that it runs. */
export class GuardedEffect<E> extends Primitive implements AdmissionRequest<E> {
  declare readonly gate: Gate<E>
  declare readonly self: AnyEffect
  declare readonly key: string
  declare readonly hooks: Hooks<E>
  declare readonly permits: PermitRequest

  constructor(gate: Gate<E>, self: AnyEffect, key: string, hooks: Hooks<E>, permits: PermitRequest) {
    super()
    this.gate = gate
    this.self = self
    this.key = key
    this.hooks = hooks
    this.permits = permits
  }

  override evaluate(fiber: AnyFiber): AnyEffect {
    const { gate: { breaker, permits }, hooks, key, self } = this
    const local = breaker?.local
    const circuit = permits === undefined && hooks.begin === undefined ? local?.circuitAdmittingAll(key) : undefined
    if (circuit === undefined || breaker === undefined || local === undefined) {
      return new Attempt(this, self, fiber).run()
    }
    // A closed circuit without permits holds nothing that has to be given back, so a successful call needs no `Attempt`. With
    // one, the breaker would miss its target of 15 times Effect's speed.
    const { generation } = circuit
    const { context } = fiber
    const trusts = trustsSuccess(hooks, breaker, context)
    const startedAt = local.isTimed || !trusts ? local.now() : 0
    return Effect.onExitPrimitive(self, (exit) => {
      if (trusts && exit._tag === "Success" && local.recordQuickSuccess(circuit, generation, startedAt)) {
        return undefined
      }
      const attempt = new Attempt(this, self, { context })
      attempt.enterClosed(circuit, generation, startedAt, trusts)
      return attempt.settleExit(exit)
    })
  }
}

// ---------- gates of services

/** The module that made a service. */
export type GateKind = "Backpressure" | "CircuitBreaker" | "Quota"

// A gate has the errors of its service, whose type the caller of `gateOf` knows.
const gates = new WeakMap<object, { readonly kind: GateKind; readonly gate: unknown }>()

/** The gate of a service, if the module of this kind made the service. */
export const gateOf = <E>(service: object, kind: GateKind): Gate<E> | undefined => {
  const known = gates.get(service)
  return known?.kind === kind ? known.gate as Gate<E> : undefined
}

export const setGate = <Service extends object, E>(service: Service, kind: GateKind, gate: Gate<E>): Service => {
  gates.set(service, { kind, gate })
  return service
}
