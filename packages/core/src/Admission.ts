/**
 * The right to make one attempt: a quota, permits and the circuit's admission, taken together and settled once.
 *
 * `guard` and `guardStream` are `Backpressure` and `CircuitBreaker` in one step. `acquire` and `tryAcquireUnsafe` hand out the
 * admission itself, for an attempt that outlives the effect which began it: a relay of bytes, a callback, a job.
 *
 * **When to use**
 *
 * In an adapter or a gateway that drives its attempts itself: this is the breaker in two steps that other libraries call
 * `allow` and `done`. For calls that are effects or streams, with retries and deadlines, use `Sluice`.
 *
 * **Details**
 *
 * An attempt fails fast if it would have to queue and the circuit is open. Then it takes its permits and reserves its quota in
 * one step, and enters the circuit. A refusal or an interruption gives back what was taken. An attempt that waits for its quota
 * holds no permit and no probe slot.
 *
 * An admission is settled with an `Outcome`, or with an `Exit` that the classifier chain reads. The first settlement counts.
 * An admission whose scope closes first is settled as `Ignored`, also if the scope fails or is interrupted. A settled admission
 * leaves its scope, so a scope can hold any number of attempts one after the other.
 *
 * The chain is `classify`, the breaker's classifier, and the `Classifier` that the fiber had when it requested admission. In a
 * callback outside of a fiber it ends with `Outcome.fromExit`.
 *
 * **Gotchas**
 *
 * - An open circuit or a full queue is a `Refusal` in the error channel. Invalid options of one attempt (`permits: 0`) are a
 *   defect with `InvalidOptions` when it runs, so that `InvalidOptions` is not among the errors of every attempt.
 *   `tryAcquireUnsafe` throws it.
 * - Settle as soon as the verdict is known. Until then the permit is taken and a probe slot is held.
 * - A long attempt that admits a probe has to call `progress`, or its lease expires and its outcome does not count. An effect
 *   under `guard` gets this function from `progressOf`.
 *
 * **Example** (Held by a callback)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Admission from "@sluice/core/Admission"
 * import * as Backpressure from "@sluice/core/Backpressure"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
 * import * as Outcome from "@sluice/core/Outcome"
 *
 * const program = Effect.gen(function*() {
 *   const permits = yield* Backpressure.make({ capacity: 1 })
 *   const breaker = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(1) })
 *   const admission = yield* Admission.make({ breaker, permits, key: "openai" })
 *
 *   const first = admission.tryAcquireUnsafe()
 *   console.log(first?._tag) // => Admitted
 *   console.log(admission.tryAcquireUnsafe()?._tag) // => BackpressureShed
 *   if (first?._tag === "Admitted") first.settleUnsafe(Outcome.failure())
 *   console.log(admission.tryAcquireUnsafe()?._tag) // => CircuitOpen
 * })
 *
 * await Effect.runPromise(Effect.scoped(Effect.provide(program, CircuitBreakerStore.layerMemory)))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Backpressure, BackpressureShed, PermitOptions } from "./Backpressure.ts"
import type { CircuitBreaker, CircuitOpen, GuardStreamOptions } from "./CircuitBreaker.ts"
import {
  type AdmissionRequest,
  type AnyFiber,
  Attempt,
  type Gate,
  type GateKind,
  gateOf,
  GuardedEffect,
  type Hooks
} from "./internal/admission/attempt.ts"
import { guardStream } from "./internal/admission/guardStream.ts"
import { acquire, Held } from "./internal/admission/held.ts"
import { CurrentProbe } from "./internal/circuit/probe.ts"
import type { AnyEffect } from "./internal/kit/primitive.ts"
import { readPermitOptions } from "./internal/permits/options.ts"
import type { PermitRequest } from "./internal/permits/permits.ts"
import type { Hold } from "./internal/quota/hold.ts"
import { type Quotas, quotasOf } from "./internal/quota/quotas.ts"
import { reservationOf } from "./internal/quota/reservation.ts"
import { InvalidOptions } from "./InvalidOptions.ts"
import { type Known, OptionsReader } from "./OptionsReader.ts"
import type { Classify, Outcome } from "./Outcome.ts"
import { type AskOptions, noop as noopQuota, type Quota, type QuotaExceeded, type Reservation } from "./Quota.ts"

/**
 * Why an attempt was not admitted.
 *
 * @since 0.1.0
 * @category models
 */
export type Refused = CircuitOpen | BackpressureShed | QuotaExceeded

/**
 * Options for `Admission.make`.
 *
 * @since 0.1.0
 * @category models
 */
export interface AdmissionOptions {
  /** Default none: no circuit refuses an attempt. */
  readonly breaker?: CircuitBreaker["Service"] | undefined
  /** Default none: every attempt runs at once. */
  readonly permits?: Backpressure["Service"] | undefined
  /**
   * The quota of the attempts. Default none: an attempt reserves nothing. Attempts wait in the queue of the permits, or without
   * `permits` in the queue of the quota.
   */
  readonly quota?: Quota["Service"] | undefined
  /** Names the circuit. Default `"default"`. */
  readonly key?: string | undefined
}

/**
 * What one attempt reserves of the quota.
 *
 * @since 0.1.0
 * @category models
 */
export interface ReserveOptions extends Omit<AskOptions, "maxWait"> {
  /**
   * The latest start of the attempt, in epoch milliseconds. An attempt that would wait longer is refused at once. Default
   * none.
   */
  readonly deadlineAt?: number | undefined
  /**
   * Called when the attempt starts. Settle the reservation before the attempt is settled. Otherwise the reserved amounts stay
   * counted.
   */
  readonly onReserved?: ((reservation: Reservation) => void) | undefined
}

/**
 * Options for one attempt.
 *
 * @since 0.1.0
 * @category models
 */
export interface AdmitOptions<in A, in E> extends PermitOptions {
  /** The first classifier of the chain. */
  readonly classify?: Classify<A, E> | undefined
  /** The amounts to reserve. Default: the `perCall` of each limit, for the key `"default"`. Ignored without a quota. */
  readonly reserve?: ReserveOptions | undefined
}

/**
 * The admission of one attempt. `A` and `E` are the types of the exits that its classifier reads.
 *
 * @since 0.1.0
 * @category models
 */
export interface Admitted<in A = unknown, in E = unknown> {
  readonly _tag: "Admitted"
  /** Whether it holds a probe slot of a half-open circuit. */
  readonly isProbe: boolean
  /** Renews the probe lease. Does nothing for other attempts. */
  progress(): void
  /** Reports the outcome and gives everything back. */
  settle(outcome: Outcome): Effect.Effect<void>
  /** Classifies the exit, reports its outcome and gives everything back. */
  settleExit(exit: Exit.Exit<A, E>): Effect.Effect<void>
  /** `settle` for callbacks. A shared store is updated in the background. */
  settleUnsafe(outcome: Outcome): void
  /** Marks an effect as part of this attempt. A nested guard of the same circuit would refuse a probe otherwise. */
  within<B, E2, R>(self: Effect.Effect<B, E2, R>): Effect.Effect<B, E2, R>
}

/**
 * Admits attempts.
 *
 * @since 0.1.0
 * @category models
 */
export interface Admission {
  /** Admits an attempt, after queueing if it has to. Held until it is settled or the scope closes. */
  readonly acquire: <A = unknown, E = unknown>(
    options?: AdmitOptions<A, E>
  ) => Effect.Effect<Admitted<A, E>, Refused, Scope.Scope>
  /**
   * Admits an attempt now, or returns the refusal. `undefined` where only `acquire` can answer: the attempt would queue, or the
   * circuits or the quota are shared. An `Admitted` has to be settled.
   */
  readonly tryAcquireUnsafe: <A = unknown, E = unknown>(
    options?: AdmitOptions<A, E>
  ) => Admitted<A, E> | Refused | undefined
  /** Runs the effect if it is admitted, and settles with its exit. */
  readonly guard: <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: AdmitOptions<A, E>
  ) => Effect.Effect<A, E | Refused, R>
  /**
   * Runs the stream if it is admitted, reports how upstream ended, and gives the permits back when the stream is closed. A
   * consumer that leaves first is reported as `Ignored`. If it fails or is interrupted, the classifiers get an interruption.
   */
  readonly guardStream: <A, E, R>(
    self: Stream.Stream<A, E, R>,
    options?: AdmitOptions<void, E> & Pick<GuardStreamOptions<A, E>, "isComplete">
  ) => Stream.Stream<A, E | Refused, R>
}

/**
 * Returns a function that renews the lease of the probe that runs with this context, and of the probes around it. Returns
 * `undefined` outside of a probe, as for almost all calls.
 *
 * **When to use**
 *
 * In a long effect under `guard` or a policy, to report progress. `acquire` returns `Admitted.progress` instead, and
 * `guardStream` renews the lease with every part.
 *
 * **Example** (An effect that renews its lease)
 *
 * ```ts
 * import { type Context, Effect } from "effect"
 * import * as Admission from "@sluice/core/Admission"
 *
 * const received = (pieces: ReadonlyArray<string>) =>
 *   Effect.contextWith((context: Context.Context<never>) => {
 *     const progress = Admission.progressOf(context)
 *     return Effect.forEach(pieces, (piece) =>
 *       Effect.sync(() => {
 *         progress?.()
 *         return piece
 *       }))
 *   })
 *
 * console.log(await Effect.runPromise(received(["a", "b"]))) // => [ 'a', 'b' ]
 * ```
 *
 * @since 0.1.0
 * @category probes
 */
export const progressOf = (context: Context.Context<never>): (() => void) | undefined => {
  const probe = Context.get(context, CurrentProbe)
  return probe === undefined ? undefined : () => {
    for (let each: typeof probe | undefined = probe; each !== undefined; each = each.parent) each.progress()
  }
}

const admissionOptions: Known<AdmissionOptions> = { breaker: true, permits: true, quota: true, key: true }
const admitOptions = { permits: true, maxWait: true, classify: true, reserve: true, isComplete: true } as const
const reserveOptions: Known<ReserveOptions> = {
  key: true,
  tenant: true,
  amounts: true,
  deadlineAt: true,
  onReserved: true
}

/**
 * Builds an admission from a breaker, permits and a quota, or from some of them.
 *
 * **Details**
 *
 * They have to be made by `CircuitBreaker`, `Backpressure` and `Quota` themselves. A service that you implemented, or a changed copy of
 * one, is refused with `InvalidOptions`, since it would be bypassed.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: AdmissionOptions): Effect.Effect<Admission, InvalidOptions> =>
  Effect.suspend(() => {
    const reader = new OptionsReader("Admission")
    const { breaker, key = "default", permits, quota } = reader.object("options", options, admissionOptions)
    reader.string("key", key)
    const breakerGate = readGate(reader, "breaker", breaker, "CircuitBreaker")
    const permitsGate = readGate(reader, "permits", permits, "Backpressure")
    const quotaGate = readGate(reader, "quota", quota === noopQuota ? undefined : quota, "Quota")
    const quotas = quotaGate === undefined || quota === undefined ? undefined : quotasOf(quota)
    const gate: Gate<BackpressureShed> = {
      breaker: breakerGate?.breaker,
      // The quota's own permits have no capacity: they only queue.
      permits: permitsGate?.permits ?? quotaGate?.permits,
      maxWaitMillis: permitsGate?.maxWaitMillis ?? quotaGate?.maxWaitMillis
    }
    if (quotas !== undefined && permitsGate?.permits !== undefined) awaitRoom(quotas, permitsGate)
    return reader.check(admissionOf(gate, key, quotas))
  })

/** Wakes the calls that wait in the queue of the permits when the quota has capacity. */
const awaitRoom = ({ waiting }: Quotas, { onClose, permits }: Gate<BackpressureShed>): void => {
  if (permits === undefined || waiting.has(permits)) return
  waiting.add(permits)
  onClose?.add(() => waiting.delete(permits))
}

const readGate = (
  reader: OptionsReader,
  option: string,
  service: object | undefined,
  kind: GateKind
): Gate<BackpressureShed> | undefined => {
  if (service === undefined) return undefined
  const gate = typeof service === "object" && service !== null ? gateOf<BackpressureShed>(service, kind) : undefined
  if (gate === undefined) {
    reader.refuse(option, service, `must be a service that ${kind} made (make, layer, noop), and not a copy of one`)
  }
  return gate
}

type AnyOptions = AdmitOptions<never, never>

const admissionOf = (gate: Gate<BackpressureShed>, key: string, quotas: Quotas | undefined): Admission => {
  const single: PermitRequest = { permits: 1, maxWaitMillis: gate.maxWaitMillis, where: undefined }
  const plain: AdmissionRequest<BackpressureShed> = { gate, key, hooks: noHooks, permits: single }

  const permitsOf = (options: AnyOptions | undefined): PermitRequest | InvalidOptions => {
    if (options !== null && options?.permits === undefined && options?.maxWait === undefined) return single
    const reader = new OptionsReader("Admission")
    const read = readPermitOptions(reader, options, gate.maxWaitMillis, admitOptions)
    return reader.invalid ?? read
  }
  const requestOf = (options: AnyOptions | undefined): AdmissionRequest<BackpressureShed> | InvalidOptions => {
    if (options === undefined && quotas === undefined) return plain
    const permits = permitsOf(options)
    if (permits instanceof InvalidOptions) return permits
    if (quotas === undefined) return { gate, key, hooks: hooksOf(options), permits }
    const hold = holdOf(quotas, options?.reserve)
    if (hold instanceof InvalidOptions) return hold
    return { gate, key, hooks: hooksOf(options, hold), permits: { ...permits, ticket: hold } }
  }
  const withRequest = <A, E, R>(
    options: AnyOptions | undefined,
    use: (request: AdmissionRequest<BackpressureShed>, fiber: AnyFiber) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R> =>
    Effect.withFiber((fiber) => {
      const request = requestOf(options)
      return request instanceof InvalidOptions ? Effect.die(request) : use(request, fiber)
    })

  return {
    acquire: <A, E>(options?: AdmitOptions<A, E>): Effect.Effect<Admitted<A, E>, Refused, Scope.Scope> => {
      if (quotas !== undefined) return withRequest(options, (request) => acquire<A, E, BackpressureShed>(request))
      const request = requestOf(options)
      return request instanceof InvalidOptions ? Effect.die(request) : acquire<A, E, BackpressureShed>(request)
    },
    tryAcquireUnsafe: <A, E>(options?: AdmitOptions<A, E>): Admitted<A, E> | Refused | undefined => {
      const request = requestOf(options)
      if (request instanceof InvalidOptions) throw request
      const attempt = new Attempt(request, Effect.void, undefined)
      const refused = attempt.tryEnter()
      if (refused === undefined) return new Held<A, E>(attempt, undefined)
      return refused === "Wait" ? undefined : refused
    },
    guard: <A, E, R>(self: Effect.Effect<A, E, R>, options?: AdmitOptions<A, E>): Effect.Effect<A, E | Refused, R> => {
      if (quotas !== undefined) {
        // The result has the types of this effect, as below.
        return withRequest(
          options,
          (request, fiber) => new Attempt(request, self as AnyEffect, fiber).run() as Effect.Effect<A, E | Refused, R>
        )
      }
      const permits = permitsOf(options)
      if (permits instanceof InvalidOptions) return Effect.die(permits)
      // The classifier gets only exits of this effect, and the result has its types.
      return new GuardedEffect(gate, self, key, hooksOf(options), permits) as AnyEffect as Effect.Effect<
        A,
        E | Refused,
        R
      >
    },
    guardStream: (self, options) => {
      if (quotas !== undefined) {
        return Stream.unwrap(
          withRequest(options, (request) => Effect.succeed(guardStream(request, self, options?.isComplete)))
        )
      }
      const request = requestOf(options)
      return request instanceof InvalidOptions ? Stream.die(request) : guardStream(request, self, options?.isComplete)
    }
  }
}

/** Returns the hold of one attempt, or the error of invalid options. */
const holdOf = (quotas: Quotas, reserve: ReserveOptions = {}): Hold | InvalidOptions => {
  const reader = new OptionsReader("Admission")
  const { amounts, deadlineAt, key, tenant } = reader.object("reserve", reserve, reserveOptions)
  const invalid = reader.invalid ?? quotas.invalid(amounts)
  if (invalid !== undefined) return invalid
  const hold = quotas.hold(key, tenant, amounts)
  hold.deadlineAt = deadlineAt
  return hold
}

// `classify` and `onReserved` alone are taken: an attempt would call other fields of a user's object as hooks.
const hooksOf = (options: AnyOptions | undefined, hold?: Hold): Hooks<BackpressureShed> => {
  // The classifier gets only exits of the attempt that it was passed with.
  const classify = options?.classify as Classify<unknown, unknown> | undefined
  if (hold === undefined) return classify === undefined ? noHooks : { classify }
  return {
    classify,
    begin: () => {
      hold.begun()
      options?.reserve?.onReserved?.(reservationOf(hold))
      return undefined
    }
  }
}

const noHooks: Hooks<BackpressureShed> = {}
