import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import { Effect, type Exit } from "effect"
import { failureOf } from "./effects.ts"

export const makeQuota = (options: Quota.QuotaOptions) =>
  Effect.orDie(Effect.provide(Quota.make(options), QuotaStore.layerMemory))

export type Subject = Quota.Quota["Service"]

export const exceededIn = (exit: Exit.Exit<unknown, unknown>): Quota.QuotaExceeded | undefined => {
  const error = failureOf(exit)
  return error instanceof Quota.QuotaExceeded ? error : undefined
}

/** The sum of a limit of a key. */
export const usedOf = (quota: Subject, dimension: string, key = "default", tenant?: string) =>
  Effect.map(
    quota.snapshot(key),
    ({ levels }) => levels.find((level) => level.dimension === dimension && level.tenant === tenant)?.used ?? 0
  )
