/**
 * A sample is one outcome in a circuit's evidence: the weight of the failure in twentieths, and whether the call was slow.
 * Its code is `2 * weight + slow`. A store holds it as the character of code 48 (`0`) plus that.
 */
const zero = "0".charCodeAt(0)

/** The code of a sample. `weight` is from 0 to 1. Less than a twentieth counts as one, since 0 would be a success. */
export const sampleCode = (weight: number, isSlow: boolean): number =>
  2 * (weight > 0 ? Math.max(1, Math.round(weight * 20)) : 0) + (isSlow ? 1 : 0)

/** A sample in the form of the store. */
export const encodeSample = (code: number): string => String.fromCharCode(zero + code)

/** A sample of a store's string, or of anything that can be read like one. */
export const codeAt = (samples: { charCodeAt(index: number): number }, index: number): number =>
  samples.charCodeAt(index) - zero

/** The codes of a batch of samples. */
export const codesOf = (samples: string): ReadonlyArray<number> =>
  Array.from({ length: samples.length }, (_, index) => codeAt(samples, index))

/** Twentieths of a failure. Their sums stay whole numbers, which ten times 0.1 is not. */
export const weightOf = (code: number): number => code >> 1

export const slowOf = (code: number): number => code & 1
