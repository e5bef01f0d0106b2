import type { Bucket, Control, Tally, Target, Window } from "../../CircuitBreakerStore.ts"

// ---------- options, as read

/** When a circuit opens. */
export type Trip =
  | { readonly _tag: "Consecutive"; readonly failures: number }
  | {
    readonly _tag: "Rate"
    readonly of: "failures" | "slow"
    readonly rate: number
    /** With fewer calls the rate is not computed. */
    readonly minimum: number
    /** The window is this many last calls. 0 if it is a time. */
    readonly calls: number
    /** The window is this many last buckets. 0 if it is a number of calls. */
    readonly buckets: number
  }

/** What the state machine reads of a breaker's options. */
export interface Policy {
  /** Any of them opens the circuit. */
  readonly trip: ReadonlyArray<Trip>
  readonly window: Window
  readonly maxOpenMillis: number
  readonly probes: number
  /** Successful probes that close the circuit. */
  readonly probesToClose: number
  readonly rampMillis: number
}

export interface Settings {
  readonly name: string
  readonly policy: Policy
  /** How long the n-th opening in a row lasts. */
  readonly openMillis: (openings: number) => number
  readonly probeLeaseMillis: number
  readonly heartbeatMillis: number
  /** A call that takes longer is slow. Infinite if no trip policy counts slow calls. */
  readonly slowMillis: number
  readonly storeTimeoutMillis: number
  readonly stalenessMillis: number
}

// ---------- state

/** The last outcomes, oldest first: a string of samples, or the ring buffer of a circuit in memory. */
export interface Samples {
  readonly length: number
  charCodeAt(index: number): number
}

/** The state that the machine decides on: a store's snapshot, or a circuit in memory. `now` is the store's. */
export interface View {
  readonly control: Control
  readonly evidence: { readonly ring: Samples; readonly wheel: ReadonlyArray<Bucket> }
  readonly now: number
}

/** Half-open is not stored. An open circuit whose time has elapsed is half-open. */
export const isHalfOpen = (control: Control, now: number): boolean => control._tag === "Open" && now >= control.until

/** The state's name in logs, events and refusals. */
export const stateName = (control: Control, now: number) => {
  if (control._tag === "Forced") return control.mode
  return isHalfOpen(control, now) ? "HalfOpen" : control._tag
}

// ---------- transitions

/** What an outcome requests of the circuit, beside the sample it adds. */
export interface OutcomeHint {
  /** Open at once, for this long. */
  readonly openMillis: number | undefined
  /** The Retry-After of the dependency. */
  readonly retryAfterMillis: number | undefined
}

/**
 * A transition that the machine decided on. The breaker computes how long an opening lasts, unless `forMillis` is set, since
 * that can take a schedule.
 */
export type Move =
  | Extract<Target, { readonly _tag: "Closed" }>
  | {
    readonly _tag: "Open"
    readonly openings: number
    readonly retryAfterMillis: number
    readonly because: Tally
    readonly forMillis: number | undefined
  }
