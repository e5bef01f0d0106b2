import type { Control, Mode, Target } from "@sluice/core/CircuitBreakerStore"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

// 35,000 years. Scripts add durations to the present, and a larger sum would not be exact in Lua.
export const maxMillis = 2 ** 50

const Amount = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: maxMillis }))
const modes: ReadonlyArray<Mode> = ["ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"]

/** A target as JSON. Redis stores it as it was requested; scripts read only the fields that are stored beside it. */
export const TargetJson: Schema.Codec<Target, string> = Schema.fromJsonString(Schema.Union([
  Schema.Struct({
    _tag: Schema.tag("Closed"),
    rampMillis: Amount,
    openings: Amount,
    lastOpen: Amount,
    reason: Schema.String
  }),
  Schema.Struct({
    _tag: Schema.tag("Open"),
    forMillis: Amount,
    openings: Amount,
    hintMillis: Amount,
    because: Schema.Struct({ calls: Amount, failures: Amount, slow: Amount })
  }),
  Schema.Struct({
    _tag: Schema.tag("Forced"),
    forMillis: Amount,
    mode: Schema.Literals(modes),
    reason: Schema.String
  })
]))

const encodeTarget = Schema.encodeUnknownOption(TargetJson)

/** The control that a stored target describes, with the server's times and the id of the transition. */
export const controlOf = (to: Target, stamp: { since: number; until: number; by: string }): Control => {
  switch (to._tag) {
    case "Closed":
      return { _tag: "Closed", ...stamp, openings: to.openings, lastOpen: to.lastOpen, reason: to.reason }
    case "Open": {
      const hinted = to.hintMillis === 0 ? 0 : stamp.since + to.hintMillis
      return { _tag: "Open", ...stamp, openings: to.openings, hinted, because: to.because }
    }
    case "Forced":
      return { _tag: "Forced", ...stamp, mode: to.mode, reason: to.reason }
  }
}

const untouchedTarget: Target = { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" }

/** The control of a missing circuit. */
export const untouched: Control = controlOf(untouchedTarget, { since: 0, until: 0, by: "" })

/** The target of a circuit that its first outcome makes. */
export const untouchedJson: string = JSON.stringify(untouchedTarget)

/** The fields that the transition script stores of a target. */
export interface TransitionFields {
  readonly target: string
  readonly state: Target["_tag"]
  readonly forMillis: number
  /** Whether outcomes of calls that are not probes count: 1 or 0. */
  readonly counts: 0 | 1
  /** How long the circuit must not be evicted, used or not. */
  readonly rememberMillis: number
}

/** `undefined` for a target that cannot be stored, such as one with an infinite duration. */
export const transitionFields = (to: Target): TransitionFields | undefined => {
  const rounded = inWholeMillis(to)
  const target = Option.getOrUndefined(encodeTarget(rounded))
  if (target === undefined) return undefined
  const state = rounded._tag
  switch (rounded._tag) {
    case "Closed": {
      const { lastOpen, rampMillis } = rounded
      return { target, state, forMillis: rampMillis, counts: 1, rememberMillis: Math.max(rampMillis, lastOpen) }
    }
    case "Open": {
      const { forMillis, hintMillis } = rounded
      return { target, state, forMillis, counts: 0, rememberMillis: Math.max(forMillis, hintMillis) }
    }
    case "Forced": {
      const { forMillis, mode } = rounded
      return { target, state, forMillis, counts: mode === "Disabled" ? 0 : 1, rememberMillis: forMillis }
    }
  }
}

// Rounds up, so that no duration becomes shorter than requested.
const inWholeMillis = (to: Target): Target => {
  switch (to._tag) {
    case "Closed":
      return { ...to, rampMillis: Math.ceil(to.rampMillis) }
    case "Open":
      return { ...to, forMillis: Math.ceil(to.forMillis), hintMillis: Math.ceil(to.hintMillis) }
    case "Forced":
      return { ...to, forMillis: Math.ceil(to.forMillis) }
  }
}
