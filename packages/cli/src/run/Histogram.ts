// Each bucket is 5 % wider than the previous: quantiles are exact to 2.5 %, and 400 buckets hold three days.
const growth = 1.05
const lastBucket = 400

/** A histogram of durations, for quantiles in bounded memory. */
export class Histogram {
  private readonly buckets: Array<number> = Array.from({ length: lastBucket + 1 }, () => 0)
  private count = 0
  private largest = 0

  add(millis: number): void {
    const bucket = millis <= 1 ? 0 : Math.min(lastBucket, Math.ceil(Math.log(millis) / Math.log(growth)))
    this.buckets[bucket] = (this.buckets[bucket] ?? 0) + 1
    this.count++
    this.largest = Math.max(this.largest, millis)
  }

  /** Returns the duration that this share of all does not exceed. `undefined` if empty. */
  quantile(share: number): number | undefined {
    if (this.count === 0) return undefined
    let left = Math.max(1, Math.ceil(share * this.count))
    for (const [bucket, count] of this.buckets.entries()) {
      left -= count
      if (left <= 0) return Math.min(this.largest, Math.round(growth ** (bucket - 0.5)))
    }
    return this.largest
  }
}
