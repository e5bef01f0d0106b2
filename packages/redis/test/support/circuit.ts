import type { CircuitBreakerStore, Mode, Target, Window } from "@sluice/core/CircuitBreakerStore"

type Store = CircuitBreakerStore["Service"]

export const window: Window = { calls: 10, bucketMillis: 0, buckets: 0 }

export const hour = 3_600_000

export const closed = { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" } satisfies Target

export const open = (forMillis: number, hintMillis = 0): Target => ({
  _tag: "Open",
  forMillis,
  openings: 1,
  hintMillis,
  because: { calls: 4, failures: 3, slow: 0 }
})

export const forced = (mode: Mode, forMillis = 0): Target => ({ _tag: "Forced", forMillis, mode, reason: "a test" })

/** The verbs of a store on one circuit, with defaults for the arguments that rarely differ. */
export const circuitOf = (store: Store, key: string, through: Window = window) => {
  const circuit = { key, window: through }
  return {
    key,
    read: store.read(circuit),
    record: (generation: number, samples: string, lease?: string) =>
      store.record({ ...circuit, generation, samples, lease }),
    lease: (generation: number, id: string, ttlMillis = hour, limit = 1) =>
      store.lease({ ...circuit, generation, id, limit, ttlMillis }),
    move: (generation: number, to: Target, by = "me") => store.transition({ ...circuit, generation, by, to })
  }
}
