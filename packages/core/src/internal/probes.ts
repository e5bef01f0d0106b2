import * as Context from "effect/Context"
import * as Fiber from "effect/Fiber"

/** A probe that the running fiber is part of. */
export interface Probe {
  readonly key: string
  /** Of the opening that it probes. Generations are microseconds: no two circuits of one key have the same. */
  readonly generation: number
  readonly parent: Probe | undefined
}

/**
 * The probes that the running fiber is part of. A call that is guarded twice under one key, by a policy inside another one for
 * instance, would else be refused by itself: the outer guard has the only place, and the circuit would never close.
 */
export const CurrentProbe: Context.Reference<Probe | undefined> = Context.Reference<Probe | undefined>(
  "@sluice/core/internal/CurrentProbe",
  { defaultValue: () => undefined }
)

/** Whether the running fiber is what probes this opening. It needs no place of its own, and is counted once. */
export const isWithinProbe = (key: string, generation: number): boolean => {
  let probe = Fiber.getCurrent()?.getRef(CurrentProbe)
  while (probe !== undefined && !(probe.key === key && probe.generation === generation)) probe = probe.parent
  return probe !== undefined
}

export const probeOf = (passage: { readonly key: string; readonly generation: number }): Probe => {
  const { generation, key } = passage
  return { key, generation, parent: Fiber.getCurrent()?.getRef(CurrentProbe) }
}
