import * as Context from "effect/Context"
import type { Served } from "../../Deduplicator.ts"

/** The facts that `withReport` collects of a call. */
export interface Collector {
  served: Served
  attempts: number
  waitedMillis: number
}

export const CurrentCollector: Context.Reference<Collector | undefined> = Context.Reference<Collector | undefined>(
  "@sluice/core/Sluice/CurrentCollector",
  { defaultValue: () => undefined }
)
