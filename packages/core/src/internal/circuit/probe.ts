import * as Context from "effect/Context"
import * as Fiber from "effect/Fiber"

/** A probe that the running fiber is part of. */
export interface Probe {
  readonly key: string
  /** Of the opening that is probed. Generations are microseconds, so no two circuits of one key share one. */
  readonly generation: number
  readonly parent: Probe | undefined
  /** Renews its lease. */
  readonly progress: () => void
}

/**
 * The probes that the running fiber is part of. Without it, a call that is guarded twice under one key, as by a policy inside
 * another one, would never close the circuit: the outer guard holds the only slot, so the inner one would refuse the call.
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

/** The probe that an attempt makes. */
export const probeOf = (
  attempt: { readonly key: string; readonly generation: number; progress(): void }
): Probe => ({
  key: attempt.key,
  generation: attempt.generation,
  parent: Fiber.getCurrent()?.getRef(CurrentProbe),
  progress: () => attempt.progress()
})
