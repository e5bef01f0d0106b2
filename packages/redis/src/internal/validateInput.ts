import type { Window } from "@sluice/core/CircuitBreakerStore"
import { maxMillis } from "./circuitTarget.ts"

// Redis does not roll back a script that fails half-way, so invalid values are refused before they are sent. A NaN would leave
// a key without an expiry. A generation beyond the safe integers would leave a circuit that cannot be decoded.

/** Whether the store's contract allows the window. */
export const isValidWindow = ({ bucketMillis, buckets, calls }: Window): boolean =>
  isCount(calls, 1_000) && isCount(bucketMillis, maxMillis) && isCount(buckets, maxMillis) &&
  (buckets === 0 || bucketMillis > 0) && bucketMillis * buckets <= maxMillis

/** Whether the generation, and the one after it, are safe integers. */
export const isValidGeneration = (generation: number): boolean => isCount(generation, Number.MAX_SAFE_INTEGER - 1)

export const isValidSamples = (samples: string): boolean => typeof samples === "string" && !notSample.test(samples)

const notSample = /[^0-Y]/

const isCount = (count: number, max: number): boolean => Number.isSafeInteger(count) && count >= 0 && count <= max
