import type { Window } from "@sluice/core/CircuitBreakerStore"
import { mostMillis } from "./circuitTarget.ts"

// Redis takes back nothing of a script that fails half-way: what makes no sense never gets there. A number that is none would
// leave a key without an expiry, and a generation that no number holds one which nobody can read.

/** Whether something is a window as the contract has it. */
export const isWindow = ({ bucketMillis, buckets, calls }: Window): boolean =>
  isWithin(calls, 1_000) && isWithin(bucketMillis, mostMillis) && isWithin(buckets, mostMillis) &&
  (buckets === 0 || bucketMillis > 0) && bucketMillis * buckets <= mostMillis

/** Whether a circuit may have the generation, and one after it. */
export const isGeneration = (generation: number): boolean => isWithin(generation, Number.MAX_SAFE_INTEGER - 1)

/** Whether a text is made of samples. */
export const areSamples = (samples: string): boolean => typeof samples === "string" && !noSample.test(samples)

const noSample = /[^0-Y]/

const isWithin = (count: number, most: number): boolean => Number.isSafeInteger(count) && count >= 0 && count <= most
