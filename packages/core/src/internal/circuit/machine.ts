/** The state machine of a circuit: pure functions of its current state. */
import type { Bucket, Control, Tally, Target, Window } from "../../CircuitBreakerStore.ts"
import { isHalfOpen, type Move, type OutcomeHint, type Policy, type Samples, type Trip, type View } from "./model.ts"
import { codeAt, slowOf, weightOf } from "./sample.ts"

// ---------- admission

/** The decision of a circuit about a call. */
export type Answer =
  | { readonly _tag: "Admitted" }
  /** Half-open. The call needs a probe slot. */
  | { readonly _tag: "Probe" }
  /** Admitted with this probability. */
  | { readonly _tag: "Ramp"; readonly probability: number; readonly retryAfterMillis: number }
  | { readonly _tag: "Refused"; readonly retryAfterMillis: number }

const admitted: Answer = { _tag: "Admitted" }
const probe: Answer = { _tag: "Probe" }

export const answer = (control: Control, now: number): Answer => {
  switch (control._tag) {
    case "Closed":
      return now >= control.until ? admitted : ramp(control, now)
    case "Open":
      return now >= control.until ? probe : { _tag: "Refused", retryAfterMillis: control.until - now }
    case "Forced":
      return control.mode !== "ForcedOpen" || isLifted(control, now)
        ? admitted
        : { _tag: "Refused", retryAfterMillis: control.until === 0 ? 0 : control.until - now }
  }
}

/** Whether the time of a forced mode is over. The next call stores that. `until` is 0 if only an operator lifts it. */
export const isLifted = ({ until }: { readonly until: number }, now: number): boolean => until !== 0 && now >= until

// At least 1 % of calls pass, so that the ramp gathers evidence.
const ramp = ({ since, until }: { readonly since: number; readonly until: number }, now: number): Answer => ({
  _tag: "Ramp",
  probability: Math.max(0.01, (now - since) / (until - since)),
  retryAfterMillis: until - now
})

// ---------- evidence

interface Sum {
  readonly calls: number
  readonly twentieths: number
  readonly slow: number
}

/** The failures at the end of the ring that no success interrupts. */
const unbroken = (ring: Samples): Sum => {
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

// The newest bucket is not full yet, so the window covers between `buckets - 1` and `buckets` widths.
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

const sumFor = (trip: Trip, policy: Policy, { evidence: { ring, wheel }, now }: View): Sum => {
  if (trip._tag === "Consecutive") return unbroken(ring)
  return trip.calls > 0 ? sumOfRing(ring, trip.calls) : sumOfWheel(wheel, trip.buckets, policy.window, now)
}

const holds = (trip: Trip, sum: Sum): boolean => {
  if (trip._tag === "Consecutive") return sum.twentieths >= trip.failures * 20
  if (sum.calls < trip.minimum) return false
  const share = trip.of === "slow" ? sum.slow : sum.twentieths / 20
  return share > 0 && share / sum.calls >= trip.rate
}

/** The evidence that is counted now: of the trip policy that counts the most calls, or of the probes. */
export const tally = (view: View, policy: Policy): Tally => {
  if (view.control._tag === "Open") return tallyOf(sumOfRing(view.evidence.ring, policy.probes))
  let most: Sum = { calls: 0, twentieths: 0, slow: 0 }
  for (const trip of policy.trip) {
    const sum = trip._tag === "Consecutive"
      ? sumOfRing(view.evidence.ring, policy.window.calls)
      : sumFor(trip, policy, view)
    if (sum.calls > most.calls) most = sum
  }
  return tallyOf(most)
}

/** How many failures in a row the evidence ends with. */
export const streak = (ring: Samples): number => Math.round(unbroken(ring).twentieths / 20)

/** The evidence that trips the circuit, or `undefined`. */
export const tripped = (policy: Policy, view: View): Tally | undefined => {
  for (const trip of policy.trip) {
    const sum = sumFor(trip, policy, view)
    if (holds(trip, sum)) return tallyOf(sum)
  }
  return undefined
}

// ---------- transitions

/** A late hint that would lengthen an opening by less than this changes nothing. */
const hintMarginMillis = 50

/**
 * The move that a circuit has to make, or `undefined`. It is decided on every snapshot, so that the next caller makes the
 * move of a process that died between its record and its transition.
 */
export const decide = (policy: Policy, view: View, hint: OutcomeHint | undefined): Move | undefined => {
  const { control, now } = view
  switch (control._tag) {
    case "Forced":
      return isLifted(control, now) ? closed(0, 0, 0) : undefined
    case "Closed": {
      const because = tripped(policy, view)
      if (because === undefined && hint?.openMillis === undefined) return undefined
      // A circuit that stays closed for as long as it was last open has recovered. Its openings are counted from 0 again.
      const openings = now - control.since >= control.lastOpen ? 0 : control.openings
      return open(openings + 1, hint, because ?? tally(view, policy))
    }
    case "Open":
      return isHalfOpen(control, now)
        ? decideHalfOpen(policy, view, control, hint)
        : lengthen(policy, control, hint, now)
  }
}

type Opened = Extract<Control, { readonly _tag: "Open" }>

const decideHalfOpen = (
  policy: Policy,
  view: View,
  control: Opened,
  hint: OutcomeHint | undefined
): Move | undefined => {
  const { ring } = view.evidence
  const failed = failedTwentieths(policy, ring)
  const cannotClose = failed > (policy.probes - policy.probesToClose) * 20
  if (hint?.openMillis !== undefined || cannotClose) {
    return open(control.openings + 1, hint, tallyOf(sumOfRing(ring, ring.length)))
  }
  if (ring.length * 20 - failed >= policy.probesToClose * 20) {
    return closed(policy.rampMillis, control.openings, view.now - control.since)
  }
  // A probe got a Retry-After, and the round is not decided. The next probe waits for it.
  const retryAfterMillis = hint?.retryAfterMillis ?? 0
  return retryAfterMillis > 0
    ? {
      _tag: "Open",
      openings: control.openings,
      retryAfterMillis,
      because: control.because,
      forMillis: retryAfterMillis
    }
    : undefined
}

/**
 * The failures of the probes, in twentieths. A policy that opens a circuit for slow calls must not close it with a slow probe, so
 * a slow probe counts as a whole failure there.
 */
const failedTwentieths = ({ trip }: Policy, ring: Samples): number => {
  const mustBeQuick = trip.some((trip) => trip._tag === "Rate" && trip.of === "slow")
  let failed = 0
  for (let i = 0; i < ring.length; i++) {
    const code = codeAt(ring, i)
    failed += mustBeQuick && slowOf(code) === 1 ? 20 : weightOf(code)
  }
  return failed
}

/** A late outcome can lengthen an opening, never shorten it. */
const lengthen = (
  policy: Policy,
  control: Opened,
  hint: OutcomeHint | undefined,
  now: number
): Move | undefined => {
  const retryAfterMillis = Math.max(hint?.retryAfterMillis ?? 0, hint?.openMillis ?? 0)
  const forMillis = Math.min(retryAfterMillis, policy.maxOpenMillis)
  return now + forMillis > control.until + hintMarginMillis
    ? { _tag: "Open", openings: control.openings, retryAfterMillis, because: control.because, forMillis }
    : undefined
}

const closed = (rampMillis: number, openings: number, lastOpen: number): Move => ({
  _tag: "Closed",
  rampMillis,
  openings,
  lastOpen,
  reason: ""
})

const open = (openings: number, hint: OutcomeHint | undefined, because: Tally): Move => ({
  _tag: "Open",
  openings,
  retryAfterMillis: hint?.retryAfterMillis ?? 0,
  because,
  forMillis: hint?.openMillis
})

/** A move in the store's terms. `openMillis` says how long the n-th opening in a row lasts. */
export const targetOf = (policy: Policy, move: Move, openMillis: (openings: number) => number): Target => {
  if (move._tag === "Closed") return move
  const { because, openings, retryAfterMillis } = move
  const forMillis = Math.min(
    Math.max(move.forMillis ?? openMillis(openings), retryAfterMillis),
    policy.maxOpenMillis
  )
  return { _tag: "Open", forMillis, openings, hintMillis: retryAfterMillis, because }
}
