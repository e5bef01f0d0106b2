import * as Context from "effect/Context"
import * as Fiber from "effect/Fiber"

/** A probe that the running fiber is part of. */
export interface Probe {
  readonly key: string
  /** Of the opening that is probed. Generations are microseconds, so no two circuits of one key share one. */
  readonly generation: number
  readonly parent: Probe | undefined
}

/**
 * The probes that the running fiber is part of. A call that is guarded twice under one key, by a policy inside another one
 * for instance, would be refused by the inner guard otherwise, since the outer one holds the only slot. The circuit would
 * never close.
 */
export const CurrentProbe: Context.Reference<Probe | undefined> = Context.Reference<Probe | undefined>(
  "@sluice/core/internal/CurrentProbe",
  { defaultValue: () => undefined }
)

/** Whether the running fiber probes this opening already. It needs no slot of its own and is counted once. */
export const isWithinProbe = (key: string, generation: number): boolean => {
  let probe = Fiber.getCurrent()?.getRef(CurrentProbe)
  while (probe !== undefined && !(probe.key === key && probe.generation === generation)) probe = probe.parent
  return probe !== undefined
}

export const probeOf = ({ generation, key }: { readonly key: string; readonly generation: number }): Probe => ({
  key,
  generation,
  parent: Fiber.getCurrent()?.getRef(CurrentProbe)
})
