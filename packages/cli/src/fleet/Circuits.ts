/** Circuits in words, as on the live page, and for programs. */
import type { Snapshot } from "@sluice/core/CircuitBreakerStore"
import * as Words from "../run/Words.ts"
import * as Terminal from "../Terminal.ts"
import type { Entry } from "./Audit.ts"

type State = "closed" | "open" | "probe" | "ramp" | "forced-open" | "forced-closed" | "disabled" | "observe-only"

const modes = {
  ForcedOpen: "forced-open",
  ForcedClosed: "forced-closed",
  Disabled: "disabled",
  ObserveOnly: "observe-only"
} as const

export const stateOf = ({ control, now }: Snapshot): State => {
  switch (control._tag) {
    case "Closed":
      return control.until > now ? "ramp" : "closed"
    case "Open":
      return control.until > now ? "open" : "probe"
    case "Forced":
      // The next call lifts it.
      return control.until !== 0 && control.until <= now ? "closed" : modes[control.mode]
  }
}

/** What a circuit does, in one line. */
export const words = (snapshot: Snapshot): string => {
  const { control, now, probing } = snapshot
  const down = control._tag !== "Open" || control.openings === 1
    ? ` for ${Words.time(now - control.since)}`
    : `, after ${Words.count(control.openings - 1)} failed ${control.openings === 2 ? "probe" : "rounds of probes"}`
  const held = () =>
    control._tag === "Forced"
      ? `${control.until === 0 ? "without an end" : `until ${moment(control.until, now)}`}${reasonOf(control.reason)}`
      : ""
  switch (stateOf(snapshot)) {
    case "closed":
      return "takes calls"
    case "ramp":
      return `coming back: takes a growing part of its calls, all in ${Words.time(control.until - now)}`
    case "open":
      return `takes no calls${down}, asked again in ${Words.time(control.until - now)}`
    case "probe":
      return probing === 0 ? `takes no calls${down}, asked again at the next call` : `asked again; down${down}`
    case "forced-open":
      return `held open, no calls, ${held()}`
    case "forced-closed":
      return `held closed, all calls, ${held()}`
    case "disabled":
      return `switched off, all calls, ${held()}`
    case "observe-only":
      return `observed only, all calls, ${held()}`
  }
}

const reasonOf = (reason: string): string => reason === "" ? "" : `: ${Terminal.escape(reason)}`

/** A time of day, with its date if that is another day. */
export const moment = (at: number, now: number): string => {
  const date = new Date(at)
  const clock = `${twoDigits(date.getHours())}:${twoDigits(date.getMinutes())}`
  if (date.toDateString() === new Date(now).toDateString()) return clock
  return `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clock}`
}

const twoDigits = (value: number): string => String(value).padStart(2, "0")

/** A circuit for programs. Times are epoch milliseconds of the store, without a value where there is none. */
export const toJson = (snapshot: Snapshot, changed: Entry | undefined): object => {
  const { control, generation, key, now, probing } = snapshot
  const state = stateOf(snapshot)
  return {
    circuit: key,
    state,
    // 0 for a circuit that never moved.
    since: control.since === 0 ? undefined : control.since,
    until: control.until > now ? control.until : undefined,
    reason: "reason" in control && control.reason !== "" ? control.reason : undefined,
    because: control._tag === "Open" ? control.because : undefined,
    openings: control._tag === "Open" ? control.openings : undefined,
    probing,
    generation,
    changed: changed === undefined ? undefined : changeToJson(changed)
  }
}

export const changeToJson = ({ at, forMs, reason, what, who }: Entry): object => ({
  at,
  what,
  reason,
  until: forMs === null ? undefined : at + forMs,
  who
})

const done = new Map([["open", "held open"], ["close", "held closed"], ["drain", "drained"]])

/** A change by hand in one line, after its name. */
export const change = ({ forMs, reason, what, who }: Entry): string =>
  what === "reset"
    ? `left to its circuit by ${Terminal.escape(who)}${reasonOf(reason)}`
    : `${done.get(what) ?? Terminal.escape(what)}${
      forMs !== null ? ` for ${Words.time(forMs)}` : done.has(what) ? " without an end" : ""
    } by ${Terminal.escape(who)}${reasonOf(reason)}`
