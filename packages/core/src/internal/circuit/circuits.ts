import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Control, Snapshot, StoreError, Tally, Target } from "../../CircuitBreakerStore.ts"
import type { Outcome } from "../../Outcome.ts"
import type { CircuitOpen } from "./circuitOpen.ts"
import { answer, tally } from "./machine.ts"
import type { MemoryCircuit } from "./memory.ts"
import type { OutcomeHint, Policy, View } from "./model.ts"
import { sampleCode } from "./sample.ts"

/** The record of an admitted call. Every admitted call leaves once. */
export interface CircuitAdmission {
  readonly key: string
  generation: number
  /** The probe slot that the call holds. */
  lease: string | undefined
  startedAt: number
  /** The circuit, if it is kept in this process. */
  circuit: MemoryCircuit | undefined
  /** Shared circuits: stops renewing the lease. */
  stopRenewing: Effect.Effect<void> | undefined
  /** Shared circuits: when the call last made progress. */
  progressAt: number
  /** Shared circuits: how long the call has waited for the store. */
  storeMillis?: number | undefined
}

/** The circuits of a breaker, shared or not. */
export interface Circuits {
  /** Runs uninterruptibly. Every call that enters must leave. */
  readonly enter: (call: CircuitAdmission) => Effect.Effect<void, CircuitOpen>
  /** Runs uninterruptibly, once for each call that entered. */
  readonly leave: (call: CircuitAdmission, outcome: Outcome, isSlow: boolean) => Effect.Effect<void>
  /** The call made progress: its probe lease is renewed. */
  readonly progress: (call: CircuitAdmission) => void
  /** The refusal that a call would get now. Changes no state. `call`: the call that asks, if there is one. */
  readonly look: (key: string, call?: CircuitAdmission) => Effect.Effect<CircuitOpen | undefined>
  readonly read: (key: string) => Effect.Effect<Snapshot, StoreError>
  readonly list: (
    after: string | undefined,
    limit: number
  ) => Effect.Effect<ReadonlyArray<Snapshot>, StoreError>
  readonly set: (key: string, to: Target) => Effect.Effect<void, StoreError>
}

/** What a `CircuitOpen` is built from. */
export interface Refused {
  readonly key: string
  readonly control: Control
  readonly now: number
  readonly retryAfterMillis: number
  readonly because: Tally
}

export type Refuse = (refused: Refused) => CircuitOpen

/** The code of an outcome's sample. -1 if the outcome is not counted. */
export const codeOf = (outcome: Outcome, isSlow: boolean): number => {
  switch (outcome._tag) {
    case "Success":
      return sampleCode(0, isSlow)
    case "Failure":
      return outcome.weight > 0 ? sampleCode(Math.min(outcome.weight, 1), isSlow) : -1
    default:
      return -1
  }
}

export const hintOf = (outcome: Outcome): OutcomeHint | undefined => {
  if (outcome._tag !== "Failure" && outcome._tag !== "Throttled") return undefined
  const { retryAfter } = outcome
  const open = outcome._tag === "Failure" ? outcome.open : undefined
  if (open === undefined && retryAfter === undefined) return undefined
  return { openMillis: millisOf(open), retryAfterMillis: millisOf(retryAfter) }
}

/** Whether an outcome without a sample can change the circuit: it opens the circuit, or a probe got a Retry-After. */
export const movesWithoutSample = ({ lease }: CircuitAdmission, hint: OutcomeHint | undefined): boolean =>
  hint !== undefined && (hint.openMillis !== undefined || lease !== undefined)

// A hundred years. Every store has to be able to hold a hint.
const longestHintMillis = 100 * 365 * 86_400_000

// A classifier's outcome can be made by hand. What is not a duration counts as absent.
const millisOf = (duration: Duration.Duration | undefined): number | undefined =>
  Duration.isDuration(duration) ? Math.min(Duration.toMillis(duration), longestHintMillis) : undefined

/** The refusal that a call would get now. `undefined` if it would be admitted. */
export const refusalOf = (
  { key, leaseMillis, probing, ...view }: View & Pick<Snapshot, "key" | "leaseMillis" | "probing">,
  policy: Policy
): Refused | undefined => {
  const { control, now } = view
  const answered = answer(control, now)
  const refused = (retryAfterMillis: number): Refused => ({
    key,
    control,
    now,
    retryAfterMillis,
    because: control._tag === "Open" ? control.because : tally(view, policy)
  })
  if (answered._tag === "Refused") return refused(answered.retryAfterMillis)
  // A lease that has expired since the snapshot has freed its slot.
  const hasSlot = probing + view.evidence.ring.length < policy.probes || (probing > 0 && leaseMillis === 0)
  if (answered._tag !== "Probe" || hasSlot) return undefined
  return refused(retryAfterProbesMillis(control, leaseMillis))
}

/** Retry-after when every probe slot is taken: the length of the opening, or less if a lease expires sooner. */
export const retryAfterProbesMillis = (control: Control, leaseMillis: number): number => {
  const openMillis = control._tag === "Open" ? control.until - control.since : 0
  return Math.max(1, leaseMillis === 0 ? openMillis : Math.min(leaseMillis, openMillis))
}

/** A call that nothing has admitted yet. */
export const notAdmitted = (key: string): CircuitAdmission => ({
  key,
  generation: 0,
  lease: undefined,
  startedAt: 0,
  circuit: undefined,
  stopRenewing: undefined,
  progressAt: 0
})
