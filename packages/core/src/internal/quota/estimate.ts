import { type Linked, LinkedList } from "../kit/linkedList.ts"

/** One call in flight, from whose use the estimate learns. */
export interface Sample extends Linked<Sample> {
  /** The used share of the span from the least to the greatest use, from 0 to 1. `undefined` while in flight. */
  ratio: number | undefined
  /** Whether it ended without a known use. */
  isLost: boolean
}

const warmUp = 20
const weight = 0.02
const maxInFlight = 1_000

/**
 * Learns which share of their maximum calls use. Calls in flight are longer than the mean, since short ones have ended. So the
 * estimate is the mean weighted by length, E[x^2]/E[x], plus a quarter of the standard deviation. Until 20 calls have ended it is
 * the maximum. Samples are learned in the order of sending, since the first calls to end are the shortest.
 */
export class Estimate {
  private mean = 0
  private square = 0
  private count = 0
  private readonly inFlight = new LinkedList<Sample>()

  /** The share of the maximum to reserve. */
  get ratio(): number {
    const { count, mean, square } = this
    if (count < warmUp || mean <= 0) return 1
    return Math.min(1, square / mean + 0.25 * Math.sqrt(Math.max(0, square - mean * mean)))
  }

  sent(): Sample {
    const sample: Sample = { ratio: undefined, isLost: false, previous: undefined, next: undefined }
    this.inFlight.append(sample)
    // Otherwise a call that never ends would keep all later samples from being learned.
    if (this.inFlight.size > maxInFlight) this.leave()
    return sample
  }

  ended(sample: Sample, ratio: number | undefined): void {
    sample.ratio = ratio
    sample.isLost = ratio === undefined
    for (let { first } = this.inFlight; first !== undefined; { first } = this.inFlight) {
      if (first.ratio === undefined && !first.isLost) return
      if (first.ratio !== undefined) this.learn(first.ratio)
      this.leave()
    }
  }

  private leave(): void {
    const { first } = this.inFlight
    if (first !== undefined) this.inFlight.remove(first)
  }

  private learn(ratio: number): void {
    this.count++
    const share = Math.max(weight, 1 / this.count)
    this.mean += share * (ratio - this.mean)
    this.square += share * (ratio * ratio - this.square)
  }
}
