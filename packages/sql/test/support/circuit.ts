import type { CircuitBreakerStore, Target, Window } from "@sluice/core/CircuitBreakerStore"

export const window: Window = { calls: 10, bucketMillis: 1_000, buckets: 10 }

export const closed: Target = { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" }

export const open = (forMillis: number): Target => ({
  _tag: "Open",
  forMillis,
  openings: 1,
  hintMillis: 0,
  because: { calls: 4, failures: 4, slow: 0 }
})

/** The verbs of a store on one circuit. */
export const circuitOf = (store: CircuitBreakerStore["Service"], key: string, of: Window = window) => ({
  read: store.read({ key, window: of }),
  record: (generation: number, samples: string, lease?: string) =>
    store.record({ key, window: of, generation, samples, lease }),
  lease: (generation: number, id: string, ttlMillis = 600_000) =>
    store.lease({ key, window: of, generation, id, limit: 1, ttlMillis }),
  move: (generation: number, to: Target, by = "me") => store.transition({ key, window: of, generation, by, to })
})
