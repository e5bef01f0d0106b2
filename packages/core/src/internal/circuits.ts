import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { CircuitOpen } from "../CircuitBreaker.ts"
import type { Control, Snapshot, Tally } from "../CircuitBreakerStore.ts"
import type { Outcome } from "../Outcome.ts"
import type { Policy, Said, View } from "./circuitMachine.ts"
import { admission, isHalfOpen, sampleCode, tally } from "./circuitMachine.ts"
import type { MemoryCircuit } from "./memoryCircuits.ts"

/** A breaker's options, checked and read. */
export interface Settings {
  readonly name: string
  readonly policy: Policy
  /** How long the circuit stays open, by how often it has opened in a row. */
  readonly openMillis: (openings: number) => number
  readonly probeLeaseMillis: number
  readonly heartbeatMillis: number
  /** A call that takes longer is slow. Infinite where no policy asks. */
  readonly slowMillis: number
  readonly storeTimeoutMillis: number
  readonly stalenessMillis: number
}

/** One call on its way through a circuit. Whoever is let in must leave, once. */
export class Passage {
  readonly key: string
  generation = 0
  lease: string | undefined = undefined
  startedAt = 0
  /** Where the circuit is kept in this process. */
  circuit: MemoryCircuit | undefined = undefined
  /** Renews the lease where others have to see it. */
  stopRenewing: Effect.Effect<void> | undefined = undefined
  /** When the call last showed that it does not hang. */
  progressAt = 0

  constructor(key: string) {
    this.key = key
  }
}

/** The sample of an outcome; -1 for one that says nothing, as a failure that weighs nothing does. */
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

export const saidBy = (outcome: Outcome): Said | undefined => {
  if (outcome._tag !== "Failure" || (outcome.open === undefined && outcome.retryAfter === undefined)) return undefined
  return { openMillis: millisOf(outcome.open), hintMillis: millisOf(outcome.retryAfter) }
}

// A hint of a lifetime is none that anybody comes back after, but it has to go through every store.
const longestHintMillis = 100 * 365 * 86_400_000

// A classifier's outcome may be made by hand: what is no duration is not there.
const millisOf = (duration: Duration.Duration | undefined): number | undefined =>
  Duration.isDuration(duration) ? Math.min(Duration.toMillis(duration), longestHintMillis) : undefined

/** What a refusal is built from. */
export interface Refused {
  readonly key: string
  readonly control: Control
  readonly now: number
  readonly retryAfterMillis: number
  readonly because: Tally
}

export type Refuse = (refused: Refused) => CircuitOpen

/** What a call would be told now; `undefined` if it would be let in. */
export const refusalOf = (
  { key, leaseMillis, probing, ...view }: View & Pick<Snapshot, "key" | "leaseMillis" | "probing">,
  policy: Policy
): Refused | undefined => {
  const { control, now } = view
  const answer = admission(control, now)
  const refused = (retryAfterMillis: number): Refused => ({
    key,
    control,
    now,
    retryAfterMillis,
    because: control._tag === "Open" ? control.because : tally(view, policy)
  })
  if (answer._tag === "Refused") return refused(answer.retryAfterMillis)
  // A lease that has lapsed since this was seen has left a place.
  const hasPlace = probing + view.evidence.ring.length < policy.probes || (probing > 0 && leaseMillis === 0)
  if (answer._tag !== "Probe" || hasPlace) return undefined
  return refused(probeResultMillis(control, leaseMillis))
}

/** Who finds the probes under way: they will have told after the open time, or a lease will have lapsed. */
export const probeResultMillis = (control: Control, leaseMillis: number): number => {
  const openMillis = control._tag === "Open" ? control.until - control.since : 0
  return Math.max(1, leaseMillis === 0 ? openMillis : Math.min(leaseMillis, openMillis))
}

/** How a control is called where people see it. */
export const nameOf = (control: Control, now: number) => {
  if (control._tag === "Forced") return control.mode
  return isHalfOpen(control, now) ? "HalfOpen" : control._tag
}

export const fail = (open: CircuitOpen): Effect.Effect<never, CircuitOpen> => Effect.fail(open)
