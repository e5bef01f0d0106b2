/** The circuits of a run's targets, read from snapshots. */
import type { TargetState } from "@sluice/ai/ResilientModel"
import * as Duration from "effect/Duration"

export type Circuit =
  | { readonly state: "closed" }
  /** `probeAt`, in epoch milliseconds: from then on a probe is admitted, whose outcome closes or reopens the circuit. */
  | { readonly state: "open"; readonly probeAt: number }

export interface Change {
  readonly target: string
  /** Epoch milliseconds. */
  readonly at: number
  readonly circuit: Circuit
}

/** Detects changes between snapshots. */
export class Watch {
  private readonly generations = new Map<string, number>()

  changes(states: ReadonlyArray<TargetState>, now: number): ReadonlyArray<Change> {
    return states.flatMap(({ circuit, name }) => {
      if (circuit === undefined || circuit.generation === (this.generations.get(name) ?? 0)) return []
      const isNew = !this.generations.has(name)
      this.generations.set(name, circuit.generation)
      const change = { target: name, at: now, circuit: read(circuit, now) }
      // A circuit appears with its first calls, and was closed before.
      return isNew && change.circuit.state === "closed" ? [] : [change]
    })
  }
}

const read = (circuit: NonNullable<TargetState["circuit"]>, now: number): Circuit => {
  switch (circuit._tag) {
    case "Open":
      return { state: "open", probeAt: now + Duration.toMillis(circuit.retryAfter) }
    case "HalfOpen":
      return { state: "open", probeAt: now }
    default:
      return { state: "closed" }
  }
}

/** While a probe runs, no other call is admitted. Its duration is unknown, so this is when to look again. */
const probingMillis = 250

/** Returns the milliseconds until a circuit admits a call. 0 if one does now. */
export const millisToCall = (states: ReadonlyArray<TargetState>): number => {
  const waits = states
    // A target whose key was refused does not count: no call waits for it.
    .filter(({ credentialRestsFor }) => credentialRestsFor === undefined)
    .map(({ circuit }) => {
      switch (circuit?._tag) {
        case "Open":
          return Duration.toMillis(circuit.retryAfter)
        case "HalfOpen":
          return circuit.probing > 0 ? probingMillis : 0
        default:
          return 0
      }
    })
  return waits.length === 0 ? 0 : Math.min(...waits)
}
