/** The circuits of a run's targets, as they are seen from outside. */
import type { TargetState } from "@sluice/ai/ResilientModel"
import * as Duration from "effect/Duration"

/** The state of the circuit before one target. */
export type Circuit =
  | { readonly state: "closed" }
  /** `probeAt`, in epoch milliseconds: from then on one call is let through, and the circuit moves when it has told. */
  | { readonly state: "open"; readonly probeAt: number }

/** A circuit has changed. */
export interface Change {
  readonly target: string
  /** Epoch milliseconds. */
  readonly at: number
  readonly circuit: Circuit
}

/** Tells what has changed from one look to the next. */
export class Watch {
  private readonly generations = new Map<string, number>()

  changes(states: ReadonlyArray<TargetState>, now: number): ReadonlyArray<Change> {
    return states.flatMap(({ circuit, name }) => {
      if (circuit === undefined || circuit.generation === (this.generations.get(name) ?? 0)) return []
      const isNew = !this.generations.has(name)
      this.generations.set(name, circuit.generation)
      const change = { target: name, at: now, circuit: read(circuit, now) }
      // The first calls of a circuit make it; it was closed before.
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

/** While a probe runs nobody else is let through; how long it takes is not known. */
const probingMillis = 250

/** The milliseconds until the circuit of a target lets a call through; 0 if one does now. */
export const closedIn = (states: ReadonlyArray<TargetState>): number => {
  const waits = states
    // One whose key is refused does not count: nobody waits for it.
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
