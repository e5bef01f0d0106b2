import type { Control, Mode, Target } from "@sluice/core/CircuitBreakerStore"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

// Redis is told a time as a whole number; above 2^50 milliseconds, which is 35,000 years, a sum with the present would not
// be one that Lua can write down.
export const mostMillis = 2 ** 50

const Amount = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: mostMillis }))
const modes: ReadonlyArray<Mode> = ["ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"]

/** What was wished of a circuit is kept as it was wished: scripts look at the few fields that stand beside it. */
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

/** What stands, made of what was wished and of what the server added: its time, and who wished it. */
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

/** A circuit that is not there. */
export const untouched: Control = controlOf(untouchedTarget, { since: 0, until: 0, by: "" })

/** What a circuit is wished to be that is made by its first outcome. */
export const untouchedJson: string = JSON.stringify(untouchedTarget)

/** What a script has to know of a wish. */
export interface Wish {
  readonly target: string
  readonly state: Target["_tag"]
  readonly forMillis: number
  /** Whether outcomes of calls that are no probes count: 1 or 0. */
  readonly counts: 0 | 1
  /** How long the circuit must be remembered, whether it is used or not. */
  readonly rememberMillis: number
}

/** `undefined` for what cannot be kept, as an endless time. */
export const wishOf = (to: Target): Wish | undefined => {
  const whole = inWholeMillis(to)
  const target = Option.getOrUndefined(encodeTarget(whole))
  if (target === undefined) return undefined
  const state = whole._tag
  switch (whole._tag) {
    case "Closed": {
      const { lastOpen, rampMillis } = whole
      return { target, state, forMillis: rampMillis, counts: 1, rememberMillis: Math.max(rampMillis, lastOpen) }
    }
    case "Open": {
      const { forMillis, hintMillis } = whole
      return { target, state, forMillis, counts: 0, rememberMillis: Math.max(forMillis, hintMillis) }
    }
    case "Forced": {
      const { forMillis, mode } = whole
      return { target, state, forMillis, counts: mode === "Disabled" ? 0 : 1, rememberMillis: forMillis }
    }
  }
}

// Rounded up: never shorter than it was wished.
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
