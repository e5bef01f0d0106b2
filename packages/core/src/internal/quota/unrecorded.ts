import type { Ask, Recorded } from "../../QuotaStore.ts"

interface Sum {
  readonly target: string
  readonly ask: Ask
  /** The amounts by bucket, oldest first. */
  readonly buckets: Map<number, number>
}

/** The use of calls that ended while the store was down, by the time of their arrival. Keeps one window of each sum. */
export class Unrecorded {
  private readonly sums = new Map<string, Sum>()

  add(target: string, ask: Ask, amount: number, arrivedBy: number): void {
    if (amount <= 0 || ask.windowMillis === 0) return
    const { dimension, quantumMillis, scope, windowMillis } = ask
    const address = JSON.stringify([target, scope, dimension, windowMillis])
    let sum = this.sums.get(address)
    if (sum === undefined) this.sums.set(address, sum = { target, ask, buckets: new Map() })
    const { buckets } = sum
    const bucket = windowMillis === Number.POSITIVE_INFINITY ? 0 : Math.floor(arrivedBy / quantumMillis)
    buckets.set(bucket, (buckets.get(bucket) ?? 0) + amount)
    for (const first of buckets.keys()) {
      if ((bucket - first) * quantumMillis <= windowMillis + quantumMillis) break
      buckets.delete(first)
    }
  }

  /** Removes everything. Returns the requests that record it, by target. */
  drain(now: number): ReadonlyMap<string, ReadonlyArray<Recorded>> {
    const requests = new Map<string, Array<Recorded>>()
    for (const { ask, buckets, target } of this.sums.values()) {
      let asks = requests.get(target)
      if (asks === undefined) requests.set(target, asks = [])
      for (const [bucket, amount] of buckets) {
        // The end of the bucket: none of its calls arrived later.
        const agoMillis = Math.max(0, now - (bucket + 1) * ask.quantumMillis)
        asks.push({ ...ask, amount, ...ask.windowMillis === Number.POSITIVE_INFINITY ? undefined : { agoMillis } })
      }
    }
    this.sums.clear()
    return requests
  }
}
