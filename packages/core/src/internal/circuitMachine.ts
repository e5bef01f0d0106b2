import type { Snapshot, Tally, Target } from "../CircuitBreakerStore.ts"

/** When a circuit opens. */
export type TripPolicy =
  | { readonly _tag: "Consecutive"; readonly failures: number }
  | { readonly _tag: "FailureRate"; readonly rate: number; readonly calls: number; readonly minimum: number }

export interface Policy {
  readonly trip: ReadonlyArray<TripPolicy>
  readonly openMillis: number
}

/** What a snapshot says to a call that asks to be let in. */
export type Admission =
  | { readonly _tag: "Admitted" }
  /** Half-open: if a place can be leased. */
  | { readonly _tag: "Probe" }
  | { readonly _tag: "Refused"; readonly retryAfterMillis: number }

const admitted: Admission = { _tag: "Admitted" }
const probe: Admission = { _tag: "Probe" }

export const isHalfOpen = ({ control, now }: Snapshot): boolean => control._tag === "Open" && now >= control.until

export const admission = (snapshot: Snapshot, policy: Policy): Admission => {
  const { control, now } = snapshot
  if (control._tag === "Closed") return admitted
  if (now < control.until) return { _tag: "Refused", retryAfterMillis: control.until - now }
  return snapshot.probing === 0 ? probe : { _tag: "Refused", retryAfterMillis: probeResultMillis(snapshot, policy) }
}

// Who finds a probe under way: it will have told after the open time, or its lease will have lapsed.
export const probeResultMillis = ({ leaseMillis }: Snapshot, policy: Policy): number =>
  Math.max(1, leaseMillis === 0 ? policy.openMillis : Math.min(leaseMillis, policy.openMillis))

/** One sample of the evidence: failure weight 0 to 1, in twentieths. */
export const sample = (weight: number): string => String.fromCharCode(48 + 2 * Math.round(weight * 20))

// In fortieths, so that sums stay whole numbers: ten times 0.1 is not 1.
const fortiethsAt = (ring: string, index: number): number => ring.charCodeAt(index) - 48

const failuresOf = (ring: string): number => {
  let sum = 0
  for (let i = 0; i < ring.length; i++) sum += fortiethsAt(ring, i)
  return sum / 40
}

/** The end of the evidence that no success interrupts. */
const unbroken = (ring: string): string => {
  let from = ring.length
  while (from > 0 && fortiethsAt(ring, from - 1) > 0) from--
  return ring.slice(from)
}

/** The failures at the end of the evidence that no success interrupts. */
export const streak = (ring: string): number => failuresOf(unbroken(ring))

export const tally = (ring: string): Tally => ({ calls: ring.length, failures: Math.round(failuresOf(ring)) })

/** How many outcomes the policies look back on. A streak may be of failures that weigh a twentieth each. */
export const windowOf = (trip: ReadonlyArray<TripPolicy>): number =>
  Math.max(
    ...trip.map((policy) => policy._tag === "Consecutive" ? Math.min(1_000, policy.failures * 20) : policy.calls)
  )

/**
 * Whether the circuit must move, on any snapshot that arrives: whoever died between a record and its transition is so
 * replaced by the next caller. `open` is what an outcome said of its own: open at once, for this long.
 */
export const decide = (policy: Policy, snapshot: Snapshot, open: number | undefined): Target | undefined => {
  const { control, evidence: { ring } } = snapshot
  if (control._tag === "Closed") {
    const tripped = policy.trip.find((trip) => holds(trip, ring))
    if (open === undefined && tripped === undefined) return undefined
    const because = tally(tripped === undefined ? ring : lookedAt(tripped, ring))
    return { _tag: "Open", forMillis: open ?? policy.openMillis, openings: 1, because }
  }
  if (ring === "" || !isHalfOpen(snapshot)) return undefined
  return open !== undefined || streak(ring) > 0
    ? { _tag: "Open", forMillis: open ?? policy.openMillis, openings: control.openings + 1, because: tally(ring) }
    : { _tag: "Closed" }
}

/** The part of the evidence that a policy decides on. */
const lookedAt = (trip: TripPolicy, ring: string): string =>
  trip._tag === "Consecutive" ? unbroken(ring) : ring.slice(-trip.calls)

const holds = (trip: TripPolicy, ring: string): boolean => {
  const recent = lookedAt(trip, ring)
  if (trip._tag === "Consecutive") return failuresOf(recent) >= trip.failures
  return recent.length >= trip.minimum && failuresOf(recent) / recent.length >= trip.rate
}
