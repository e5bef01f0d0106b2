import type * as Metric from "effect/Metric"

/**
 * A histogram with the buckets of one metric. A stream fills one of its own, and adds it to the metric when it ends.
 */
export class Histogram {
  private readonly boundaries: ReadonlyArray<number>
  private readonly counts: Array<number>
  private count = 0
  private sum = 0
  private min = Number.MAX_VALUE
  private max = -Number.MAX_VALUE

  constructor(boundaries: ReadonlyArray<number>) {
    this.boundaries = boundaries
    this.counts = Array.from({ length: boundaries.length + 1 }, () => 0)
  }

  add(value: number, times = 1): void {
    const { boundaries, counts } = this
    let bucket = 0
    while (bucket < boundaries.length && value > (boundaries[bucket] ?? Infinity)) bucket++
    counts[bucket] = (counts[bucket] ?? 0) + times
    this.count += times
    this.sum += value * times
    if (value < this.min) this.min = value
    if (value > this.max) this.max = value
  }

  /** Adds another histogram with the same boundaries. */
  addAll(other: Histogram): void {
    if (other.count === 0) return
    for (const [bucket, count] of other.counts.entries()) this.counts[bucket] = (this.counts[bucket] ?? 0) + count
    this.count += other.count
    this.sum += other.sum
    if (other.min < this.min) this.min = other.min
    if (other.max > this.max) this.max = other.max
  }

  get state(): Metric.HistogramState {
    let atMost = 0
    const buckets = this.boundaries.map((boundary, bucket): [number, number] => {
      atMost += this.counts[bucket] ?? 0
      return [boundary, atMost]
    })
    return { buckets, count: this.count, min: this.min, max: this.max, sum: this.sum }
  }
}
