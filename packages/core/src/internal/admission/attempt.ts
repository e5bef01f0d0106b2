import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { Classifier, type Classify, fromExit, ignored, type Outcome } from "../../Outcome.ts"
import type { Breaker } from "../circuit/breaker.ts"
import type { CircuitOpen } from "../circuit/circuitOpen.ts"
import type { CircuitAdmission } from "../circuit/circuits.ts"
import type { LocalCircuits } from "../circuit/local.ts"
import type { CircuitRefusal, MemoryCircuit } from "../circuit/memory.ts"
import { CurrentProbe, probeOf } from "../circuit/probe.ts"
import { type AnyEffect, Primitive } from "../kit/primitive.ts"
import { granted, type PermitRequest, type Permits, type Request, whenGranted } from "../permits/permits.ts"

export type AnyFiber = Fiber.Fiber<unknown, unknown>
type AnyExit = Exit.Exit<unknown, unknown>

/** The permits and the breaker that admit attempts: both, one or neither. Built once. */
export interface Gate<E> {
  readonly permits: Permits<E> | undefined
  readonly breaker: Breaker | undefined
  /** The default of a request's `maxWaitMillis`. */
  readonly maxWaitMillis?: number | undefined
}

/** What the owner of an attempt adds to its admission. Each is read where it is needed. */
export interface Hooks<E> {
  /** The first classifier of the chain. */
  readonly classify?: Classify<unknown, unknown> | undefined
  /** Whether `classify` reads every success as `Success`, so that it need not be called for one. */
  readonly trustsSuccess?: boolean | undefined
  /** Before anything is taken. Returns a refusal if the attempt must not request admission. */
  readonly arrive?: (() => Effect.Effect<never, E> | undefined) | undefined
  /** Wraps the wait for permits. */
  readonly wait?: ((self: Effect.Effect<void, E>) => Effect.Effect<void, E>) | undefined
  /** Succeeds when an attempt that an open circuit refused may try again. Without it the attempt fails with `CircuitOpen`. */
  readonly refused?: ((open: CircuitOpen) => Effect.Effect<void, E>) | undefined
  /** After the admission. Returns a refusal if it came too late. */
  readonly begin?: (() => Effect.Effect<never, E> | undefined) | undefined
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

/**
 * One attempt: requests admission, runs its body, settles. It holds its permits, its place in the queue and its probe slot.
 *
 * The order is: look at the circuit if the attempt would have to queue; take permits; pass the circuit; begin. Whatever is
 * taken is recorded on this object in the same synchronous step. The finalizer is registered before the first step, so an
 * interruption anywhere gives everything back.
 *
 * The object is also the effect: it is evaluated to request admission, and again when it leaves the queue.
 */
export class Attempt<E> extends Primitive implements CircuitAdmission {
  // Declared, and assigned by the constructor: fields with initializers cost 5 ns each.
  declare readonly key: string
  declare generation: number
  declare lease: string | undefined
  declare startedAt: number
  declare circuit: CircuitAdmission["circuit"]
  // Set by shared circuits only.
  declare stopRenewing: CircuitAdmission["stopRenewing"]
  declare progressAt: number
  declare private readonly asked: AdmissionRequest<E>
  declare private readonly body: AnyEffect
  declare private readonly fiber: AnyFiber | undefined
  declare private isInCircuit: boolean
  declare private isPlain: boolean
  declare private hasPermits: boolean
  declare private request: Request<E> | undefined

  /** `fiber`: where the attempt runs. `undefined`: it is driven by callbacks. */
  constructor(asked: AdmissionRequest<E>, body: AnyEffect, fiber: AnyFiber | undefined) {
    super()
    this.key = asked.key
    this.generation = 0
    this.lease = undefined
    this.startedAt = 0
    this.circuit = undefined
    this.asked = asked
    this.body = body
    this.fiber = fiber
    this.isInCircuit = false
    this.isPlain = false
    this.hasPermits = false
    this.request = undefined
  }

  /** The admission, the body, and the settlement by its exit. */
  run(): AnyEffect {
    return Effect.onExitPrimitive(this, (exit) => this.settle(this.reportExit(exit)))
  }

  // ---------- admission

  override evaluate(): AnyEffect {
    if (this.request !== undefined) return this.passCircuit()
    const { gate: { permits }, hooks } = this.asked
    const refusal = hooks.arrive?.()
    if (refusal !== undefined) return refusal
    return permits === undefined || this.take(permits) ? this.passCircuit() : this.lookAndQueue(permits)
  }

  private take(permits: Permits<E>): boolean {
    return this.hasPermits = permits.take(this.asked.permits)
  }

  // An attempt that the circuit will refuse must not queue.
  private lookAndQueue(permits: Permits<E>): AnyEffect {
    const { breaker } = this.asked.gate
    return breaker === undefined ? this.queue(permits) : Effect.flatMap(
      breaker.circuits.look(this.key),
      (open) => open === undefined ? this.queue(permits) : this.refusedBy(open)
    )
  }

  private queue(permits: Permits<E>): AnyEffect {
    const { hooks, permits: asked } = this.asked
    const request = permits.request(asked)
    if (request.refusal !== undefined) return request.refusal
    this.request = request
    if (request.state === "Granted") return this.passCircuit()
    return hooks.wait === undefined ? whenGranted(request, this) : Effect.andThen(hooks.wait(granted(request)), this)
  }

  private passCircuit(): AnyEffect {
    const { breaker } = this.asked.gate
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
    if (this.asked.hooks.refused !== undefined) return this.beginAfter(refused.effect)
    this.release()
    return refused.effect
  }

  /** Enters a circuit that is kept in this process. */
  private enterLocally(breaker: Breaker, local: LocalCircuits): CircuitRefusal | undefined {
    this.isPlain = isPlain(this.asked.hooks, breaker, this.fiber)
    const circuit = local.hot(this.key)
    if (circuit !== undefined) {
      this.enterClosed(circuit, circuit.generation, local.isTimed || !this.isPlain ? local.now() : 0)
      return undefined
    }
    const refused = local.enter(this)
    this.isInCircuit = refused === undefined
    return refused
  }

  /** Notes that a closed circuit admitted the attempt. */
  enterClosed(circuit: MemoryCircuit, generation: number, startedAt: number): void {
    this.circuit = circuit
    this.generation = generation
    this.startedAt = startedAt
    this.isInCircuit = true
  }

  private beginAfter(entered: Effect.Effect<void, CircuitOpen>): AnyEffect {
    return Effect.matchEffect(entered, {
      onSuccess: () => this.begin(),
      onFailure: (open) => this.refusedBy(open)
    })
  }

  private begin(): AnyEffect {
    return this.asked.hooks.begin?.() ?? this.within(this.body)
  }

  private refusedBy(open: CircuitOpen): AnyEffect {
    this.release()
    const { hooks } = this.asked
    return hooks.refused === undefined ? Effect.fail(open) : Effect.andThen(hooks.refused(open), this)
  }

  /** Requests admission without an effect. Returns the refusal; `"Wait"` where only an effect can answer; `undefined` if admitted. */
  tryEnter(): E | CircuitOpen | "Wait" | undefined {
    const { gate: { breaker, permits }, permits: asked } = this.asked
    if (breaker !== undefined && breaker.local === undefined) return "Wait"
    if (permits !== undefined && !this.take(permits)) {
      const open = breaker?.local?.look(this.key)
      if (open !== undefined) return open
      return permits.wouldQueue(asked) ? "Wait" : permits.refusalNow(asked)
    }
    const refused = breaker?.local === undefined ? undefined : this.enterLocally(breaker, breaker.local)
    if (refused === undefined) return undefined
    this.release()
    return refused.open
  }

  // ---------- while it runs

  get isProbe(): boolean {
    return this.lease !== undefined
  }

  /** Renews the lease of a probe: it makes progress. */
  progress(): void {
    if (this.lease !== undefined) this.asked.gate.breaker?.circuits.progress(this)
  }

  /** Marks what runs inside as part of this probe. A nested guard of the same circuit would refuse it otherwise. */
  within<A, E2, R>(self: Effect.Effect<A, E2, R>): Effect.Effect<A, E2, R> {
    return this.isProbe ? Effect.provideService(self, CurrentProbe, probeOf(this)) : self
  }

  // ---------- settlement

  /** Reports the outcome to the circuit. Only the first report counts. */
  report(outcome: Outcome): Effect.Effect<void> | undefined {
    const { breaker } = this.asked.gate
    if (!this.isInCircuit || breaker === undefined) return undefined
    if (outcome._tag === "Success" && this.leaveGood(breaker)) return undefined
    const { slowMillis } = breaker.settings
    return this.leave(breaker, outcome, slowMillis < Infinity && breaker.now() - this.startedAt > slowMillis)
  }

  /** Classifies an exit and reports its outcome. */
  reportExit(exit: AnyExit): Effect.Effect<void> | undefined {
    const { gate: { breaker }, hooks } = this.asked
    if (!this.isInCircuit || breaker === undefined) return undefined
    if (this.isPlain && exit._tag === "Success" && this.leaveGood(breaker)) return undefined
    const elapsedMillis = breaker.now() - this.startedAt
    let outcome: Outcome
    try {
      outcome = hooks.classify?.(exit, elapsedMillis) ?? breaker.classify?.(exit, elapsedMillis) ??
        classifierOf(this.fiber)(exit, elapsedMillis)
    } catch (defect) {
      // A classifier that throws still gives everything back. The throw stays a defect.
      return Effect.andThen(this.leave(breaker, ignored, false) ?? Effect.void, Effect.die(defect))
    }
    return this.leave(breaker, outcome, elapsedMillis > breaker.settings.slowMillis)
  }

  private leaveGood({ local }: Breaker): boolean {
    const { circuit, generation, lease, startedAt } = this
    if (lease !== undefined || circuit === undefined || local === undefined) return false
    if (!local.leaveGood(circuit, generation, startedAt)) return false
    this.isInCircuit = false
    return true
  }

  private leave({ circuits, local }: Breaker, outcome: Outcome, isSlow: boolean): Effect.Effect<void> | undefined {
    this.isInCircuit = false
    if (local === undefined) return circuits.leave(this, outcome, isSlow)
    local.leave(this, outcome, isSlow)
    return undefined
  }

  /** Waits for the running report, then gives back what is still held. */
  settle(reported: Effect.Effect<void> | undefined): Effect.Effect<void> | undefined {
    if (reported !== undefined) return Effect.onExitPrimitive(reported, () => this.settle(undefined))
    this.release()
    return undefined
  }

  /** Settles when a scope closes. If it closes with success the consumer left, which is no evidence. */
  close(exit: AnyExit): Effect.Effect<void> | undefined {
    return this.settle(exit._tag === "Success" ? this.report(ignored) : this.reportExit(Exit.interrupt()))
  }

  /** Settles from a callback. A shared store is updated in the background. */
  settleUnsafe(outcome: Outcome): void {
    const reported = this.report(outcome)
    if (reported !== undefined) this.asked.gate.breaker?.fork(reported)
    this.release()
  }

  private release(): void {
    const { gate: { permits }, permits: asked } = this.asked
    if (permits === undefined) return
    const { hasPermits, request } = this
    this.hasPermits = false
    this.request = undefined
    if (request !== undefined) permits.settle(request, asked)
    else if (hasPermits) permits.release(asked)
  }
}

/** Whether every success is a `Success`, so that no classifier has to be called. */
const isPlain = <E>(hooks: Hooks<E>, { classify }: Breaker, fiber: AnyFiber | undefined): boolean =>
  (hooks.trustsSuccess ?? hooks.classify === undefined) && classify === undefined && classifierOf(fiber) === fromExit

const classifierOf = (fiber: AnyFiber | undefined) => (fiber ?? Fiber.getCurrent())?.getRef(Classifier) ?? fromExit

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
    const circuit = permits === undefined && hooks.begin === undefined ? local?.hot(key) : undefined
    if (circuit === undefined || breaker === undefined || local === undefined) {
      return new Attempt(this, self, fiber).run()
    }
    // A closed circuit without permits holds nothing that has to be given back, so a successful call needs no `Attempt`. With
    // one, the breaker would miss its target of 15 times Effect's speed.
    const { generation } = circuit
    const plain = isPlain(hooks, breaker, fiber)
    const startedAt = local.isTimed || !plain ? local.now() : 0
    return Effect.onExitPrimitive(self, (exit) => {
      if (plain && exit._tag === "Success" && local.leaveGood(circuit, generation, startedAt)) return undefined
      const attempt = new Attempt(this, self, fiber)
      attempt.enterClosed(circuit, generation, startedAt)
      return attempt.settle(attempt.reportExit(exit))
    })
  }
}

/** Admits an attempt that is held until the scope closes, or until it is settled. */
export const acquire = <E>(asked: AdmissionRequest<E>): Effect.Effect<Attempt<E>, E | CircuitOpen, Scope.Scope> =>
  Effect.withFiber((fiber) => {
    const attempt: Attempt<E> = new Attempt(asked, Effect.suspend(() => Effect.succeed(attempt)), fiber)
    const scope = Context.getUnsafe(fiber.context, Scope.Scope)
    // An attempt that is interrupted in the queue leaves it now, not when the scope closes.
    const admitted = Effect.onExitPrimitive(attempt, (exit) =>
      exit._tag === "Failure"
        ? attempt.settle(attempt.report(ignored))
        : Scope.addFinalizerExit(scope, (exit) => Effect.suspend(() => attempt.close(exit) ?? Effect.void)))
    // It fails as an admission does, and succeeds with its body's value.
    return admitted as Effect.Effect<Attempt<E>, E | CircuitOpen>
  })

// A gate has the errors of its service, whose type the caller of `gateOf` knows.
const gates = new WeakMap<object, unknown>()

/** The gate of a service, if the service was made here. */
export const gateOf = <E>(service: object): Gate<E> | undefined => gates.get(service) as Gate<E> | undefined

export const setGate = <Service extends object, E>(service: Service, gate: Gate<E>): Service => {
  gates.set(service, gate)
  return service
}
