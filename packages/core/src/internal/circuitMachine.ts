import type { Bucket, Control, Tally, Target, Window } from "../CircuitBreakerStore.ts"

/** When a circuit opens, with all durations read. */
export type Trip =
  | { readonly _tag: "Consecutive"; readonly failures: number }
  | {
    readonly _tag: "Rate"
    readonly of: "failures" | "slow"
    readonly rate: number
    /** The fewest calls that say anything. */
    readonly minimum: number
    /** The last so many calls; 0 where it looks back over time. */
    readonly calls: number
    /** The last so many buckets of the window; 0 where it looks back over calls. */
    readonly buckets: number
  }

/** All that the machine needs to know of a breaker. */
export interface Policy {
  /** Any of them opens. */
  readonly trip: ReadonlyArray<Trip>
  readonly window: Window
  /** The longest opening. */
  readonly maxOpenMillis: number
  readonly probes: number
  /** Successful probes that close the circuit. */
  readonly probesToClose: number
  readonly rampMillis: number
}

/** The last outcomes, oldest first: a string of samples, or what a store in memory keeps in its place. */
export interface Samples {
  readonly length: number
  charCodeAt(index: number): number
}

/** What the machine looks at: a snapshot of a store, or a circuit in memory. `now` is the store's. */
export interface View {
  readonly control: Control
  readonly evidence: { readonly ring: Samples; readonly wheel: ReadonlyArray<Bucket> }
  readonly now: number
}

/** What one outcome says beyond its sample. */
export interface Said {
  /** Open at once, for so long. */
  readonly openMillis: number | undefined
  /** The dependency asks to be called again after so long. */
  readonly hintMillis: number | undefined
}

/**
 * Where a circuit ought to be. How long an opening lasts is for the breaker to say, unless `forMillis` does: a schedule may
 * have to be asked.
 */
export type Wish =
  | Extract<Target, { readonly _tag: "Closed" }>
  | {
    readonly _tag: "Open"
    readonly openings: number
    readonly hintMillis: number
    readonly because: Tally
    readonly forMillis: number | undefined
  }

/** What a circuit says to a call that asks to be let in. */
export type Admission =
  | { readonly _tag: "Admitted" }
  /** Half-open: if a place can be leased. */
  | { readonly _tag: "Probe" }
  /** Let in by chance, with the probability that is given. */
  | { readonly _tag: "Ramp"; readonly probability: number; readonly retryAfterMillis: number }
  | { readonly _tag: "Refused"; readonly retryAfterMillis: number }

const admitted: Admission = { _tag: "Admitted" }
const probe: Admission = { _tag: "Probe" }

export const isHalfOpen = (control: Control, now: number): boolean => control._tag === "Open" && now >= control.until

export const admission = (control: Control, now: number): Admission => {
  switch (control._tag) {
    case "Closed":
      return now >= control.until ? admitted : ramp(control, now)
    case "Open":
      return now >= control.until ? probe : { _tag: "Refused", retryAfterMillis: control.until - now }
    case "Forced":
      // 0 means that nobody can say when it is lifted.
      return control.mode === "ForcedOpen"
        ? { _tag: "Refused", retryAfterMillis: control.until === 0 ? 0 : Math.max(0, control.until - now) }
        : admitted
  }
}

// At least one call in a hundred: a ramp that lets nobody through learns nothing.
const ramp = ({ since, until }: { readonly since: number; readonly until: number }, now: number): Admission => ({
  _tag: "Ramp",
  probability: Math.max(0.01, (now - since) / (until - since)),
  retryAfterMillis: until - now
})

const zero = 48

/** The code of a sample: weight of the failure from 0 to 1, in twentieths, and whether the call was slow. */
export const sampleCode = (weight: number, slow: boolean): number => 2 * Math.round(weight * 20) + (slow ? 1 : 0)

/** A sample as a store takes it. */
export const sample = (code: number): string => String.fromCharCode(zero + code)

/** Twentieths of a failure. Sums of them stay whole numbers: ten times 0.1 is not 1. */
export const weightOf = (code: number): number => code >> 1

export const slowOf = (code: number): number => code & 1

const codeAt = (ring: Samples, index: number): number => ring.charCodeAt(index) - zero

/** The failures at the end of the evidence that no success interrupts, in twentieths, and how many calls they are. */
export const unbroken = (
  ring: Samples
): { readonly calls: number; readonly twentieths: number; readonly slow: number } => {
  let calls = 0
  let twentieths = 0
  let slow = 0
  for (let i = ring.length - 1; i >= 0; i--) {
    const code = codeAt(ring, i)
    if (weightOf(code) === 0) break
    calls++
    twentieths += weightOf(code)
    slow += slowOf(code)
  }
  return { calls, twentieths, slow }
}

interface Sum {
  readonly calls: number
  readonly twentieths: number
  readonly slow: number
}

const sumOfRing = (ring: Samples, calls: number): Sum => {
  const from = Math.max(0, ring.length - calls)
  let twentieths = 0
  let slow = 0
  for (let i = from; i < ring.length; i++) {
    const code = codeAt(ring, i)
    twentieths += weightOf(code)
    slow += slowOf(code)
  }
  return { calls: ring.length - from, twentieths, slow }
}

// The newest bucket is not full yet, so the time looked back on is between `buckets - 1` and `buckets` widths.
const sumOfWheel = (wheel: ReadonlyArray<Bucket>, buckets: number, window: Window, now: number): Sum => {
  const width = window.bucketMillis
  const from = Math.floor(now / width) * width - (buckets - 1) * width
  let calls = 0
  let twentieths = 0
  let slow = 0
  for (const bucket of wheel) {
    if (bucket.at < from) continue
    calls += bucket.calls
    twentieths += bucket.failures
    slow += bucket.slow
  }
  return { calls, twentieths, slow }
}

const tallyOf = ({ calls, slow, twentieths }: Sum): Tally => ({ calls, failures: Math.round(twentieths / 20), slow })

const looked = (trip: Trip, policy: Policy, { evidence: { ring, wheel }, now }: View): Sum => {
  if (trip._tag === "Consecutive") return unbroken(ring)
  return trip.calls > 0 ? sumOfRing(ring, trip.calls) : sumOfWheel(wheel, trip.buckets, policy.window, now)
}

const holds = (trip: Trip, sum: Sum): boolean => {
  if (trip._tag === "Consecutive") return sum.twentieths >= trip.failures * 20
  if (sum.calls < trip.minimum) return false
  const share = trip.of === "slow" ? sum.slow : sum.twentieths / 20
  return share > 0 && share / sum.calls >= trip.rate
}

/** What is counted now: by the policy that counts the most calls, or of the probes. */
export const tally = (view: View, policy: Policy): Tally => {
  if (view.control._tag === "Open") return tallyOf(sumOfRing(view.evidence.ring, policy.probes))
  let most: Sum = { calls: 0, twentieths: 0, slow: 0 }
  for (const trip of policy.trip) {
    const sum = trip._tag === "Consecutive"
      ? sumOfRing(view.evidence.ring, policy.window.calls)
      : looked(trip, policy, view)
    if (sum.calls > most.calls) most = sum
  }
  return tallyOf(most)
}

/** The failures in a row at the end of the evidence. */
export const streak = (ring: Samples): number => Math.round(unbroken(ring).twentieths / 20)

/** What trips on this evidence, if anything does. */
export const tripped = (policy: Policy, view: View): Tally | undefined => {
  for (const trip of policy.trip) {
    const sum = looked(trip, policy, view)
    if (holds(trip, sum)) return tallyOf(sum)
  }
  return undefined
}

/** A late hint that would lengthen an opening by less changes nothing. */
const hintMarginMillis = 50

/**
 * Whether the circuit must move, on any snapshot that arrives: whoever died between a record and its transition is so
 * replaced by the next caller.
 */
export const decide = (policy: Policy, view: View, said: Said | undefined): Wish | undefined => {
  const { control, now } = view
  switch (control._tag) {
    case "Forced":
      return control.until !== 0 && now >= control.until ? closed(0, 0, 0) : undefined
    case "Closed": {
      const because = tripped(policy, view)
      if (because === undefined && said?.openMillis === undefined) return undefined
      // A circuit that has stayed closed as long as it was last open has recovered: its openings count anew.
      const before = now - control.since >= control.lastOpen ? 0 : control.openings
      return open(before + 1, said, because ?? tally(view, policy))
    }
    case "Open":
      return now >= control.until ? decideHalfOpen(policy, view, control, said) : lengthen(policy, control, said, now)
  }
}

const decideHalfOpen = (
  policy: Policy,
  view: View,
  control: Extract<Control, { readonly _tag: "Open" }>,
  said: Said | undefined
): Wish | undefined => {
  const { ring } = view.evidence
  let failed = 0
  for (let i = 0; i < ring.length; i++) if (weightOf(codeAt(ring, i)) > 0) failed++
  const again = said?.openMillis !== undefined || failed > policy.probes - policy.probesToClose
  if (again) return open(control.openings + 1, said, tallyOf(sumOfRing(ring, ring.length)))
  return ring.length - failed >= policy.probesToClose
    ? closed(policy.rampMillis, control.openings, view.now - control.since)
    : undefined
}

/** A late outcome may lengthen an opening, never shorten it. */
const lengthen = (
  policy: Policy,
  control: Extract<Control, { readonly _tag: "Open" }>,
  said: Said | undefined,
  now: number
): Wish | undefined => {
  const hintMillis = Math.max(said?.hintMillis ?? 0, said?.openMillis ?? 0)
  const forMillis = Math.min(hintMillis, policy.maxOpenMillis)
  return now + forMillis > control.until + hintMarginMillis
    ? { _tag: "Open", openings: control.openings, hintMillis, because: control.because, forMillis }
    : undefined
}

const closed = (rampMillis: number, openings: number, lastOpen: number, reason = ""): Wish => ({
  _tag: "Closed",
  rampMillis,
  openings,
  lastOpen,
  reason
})

const open = (openings: number, said: Said | undefined, because: Tally): Wish => ({
  _tag: "Open",
  openings,
  hintMillis: said?.hintMillis ?? 0,
  because,
  forMillis: said?.openMillis
})

/** The opening that is wished for, in the store's terms. `openMillis` is what the breaker's own setting says. */
export const target = (policy: Policy, wish: Wish, openMillis: number): Target => {
  if (wish._tag === "Closed") return wish
  const forMillis = Math.min(Math.max(wish.forMillis ?? openMillis, wish.hintMillis), policy.maxOpenMillis)
  return { _tag: "Open", forMillis, openings: wish.openings, hintMillis: wish.hintMillis, because: wish.because }
}
