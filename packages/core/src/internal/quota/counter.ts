/** The sum against one limit, and the time until it has room. Amounts are whole numbers; times are epoch milliseconds. */
export interface Counter {
  /** The amount that counts at `now`. */
  used(now: number): number
  /**
   * The milliseconds until an amount fits under a limit: 0 if it fits now, at least 1 otherwise. Infinity if only a settlement can
   * make room. An amount above the limit fits if the sum is 0.
   */
  wait(now: number, amount: number, limit: number): number
  /** Counts an amount that arrives at `arrivesBy` at the latest. Returns its bucket, for `change`. */
  add(now: number, amount: number, arrivesBy: number): number
  /**
   * Replaces an amount that was added before, and moves it to `arrivedBy`, by which it had arrived. Does nothing if its bucket has
   * left the window. Returns its bucket.
   */
  change(now: number, bucket: number, from: number, to: number, arrivedBy: number): number
}

/** The number of buckets of a window. */
export const bucketsOfWindow = 240

/** How much longer than the window a bucket counts, for clocks that drift. */
export const driftMillis = 50

/** The longest time from a reservation to its arrival that a window can represent, as a share of the window. */
export const maxGuardShare = 0.25

/**
 * A sliding window of buckets. An amount belongs to the bucket of its latest possible arrival: a guard after its reservation, or
 * earlier if the answer shows it. It leaves when the end of that bucket is a window and the drift ago.
 */
export class Window implements Counter {
  private readonly windowMillis: number
  private readonly bucketMillis: number
  private readonly ring: Float64Array
  private sum = 0
  /** The oldest bucket that counts, and its place in the ring. */
  private oldest = Number.NEGATIVE_INFINITY
  private first = 0
  /** When the oldest bucket leaves the window. */
  private leavesAt = Number.NEGATIVE_INFINITY

  constructor(windowMillis: number, bucketMillis: number = windowMillis / bucketsOfWindow) {
    this.windowMillis = windowMillis
    this.bucketMillis = bucketMillis
    this.ring = new Float64Array(Math.ceil((windowMillis * (1 + maxGuardShare) + driftMillis) / bucketMillis) + 3)
  }

  used(now: number): number {
    this.trim(now)
    return this.sum
  }

  wait(now: number, amount: number, limit: number): number {
    this.trim(now)
    let over = amount > limit ? this.sum : this.sum + amount - limit
    if (over <= 0) return 0
    const { bucketMillis, oldest, ring, windowMillis } = this
    for (let bucket = oldest; bucket < oldest + ring.length; bucket++) {
      over -= this.at(bucket)
      if (over <= 0) return Math.max(1, Math.ceil((bucket + 1) * bucketMillis + windowMillis + driftMillis - now))
    }
    return Math.ceil(windowMillis)
  }

  add(now: number, amount: number, arrivesBy: number): number {
    this.trim(now)
    const latest = Math.min(arrivesBy, now + this.windowMillis * maxGuardShare)
    const bucket = Math.max(this.oldest, Math.floor(latest / this.bucketMillis))
    this.put(bucket, amount)
    return bucket
  }

  change(now: number, bucket: number, from: number, to: number, arrivedBy: number): number {
    this.trim(now)
    if (bucket < this.oldest) return bucket
    const arrived = Math.max(this.oldest, Math.floor(arrivedBy / this.bucketMillis))
    const moved = Math.min(bucket, arrived)
    this.put(bucket, -from)
    this.put(moved, to)
    return moved
  }

  private at(bucket: number): number {
    return this.ring[this.indexOf(bucket)] ?? 0
  }

  // Counted from the oldest: the remainder of a bucket's number, which exceeds 32 bits, would cost more than all else here.
  private indexOf(bucket: number): number {
    const index = this.first + (bucket - this.oldest)
    return index < this.ring.length ? index : index - this.ring.length
  }

  private put(bucket: number, amount: number): void {
    const index = this.indexOf(bucket)
    this.ring[index] = (this.ring[index] ?? 0) + amount
    this.sum += amount
  }

  private trim(now: number): void {
    if (now < this.leavesAt) return
    const { bucketMillis, ring, windowMillis } = this
    const oldest = Math.floor((now - windowMillis - driftMillis) / bucketMillis)
    if (oldest - this.oldest >= ring.length) {
      ring.fill(0)
      this.sum = 0
      this.oldest = oldest
      this.first = 0
    }
    while (this.oldest < oldest) {
      this.sum -= ring[this.first] ?? 0
      ring[this.first] = 0
      this.oldest++
      this.first = this.first + 1 < ring.length ? this.first + 1 : 0
    }
    this.leavesAt = (this.oldest + 1) * bucketMillis + windowMillis + driftMillis
  }
}

/** A sum without a window, for calls at once and for budgets that never reset: only a settlement makes room. */
export class Gauge implements Counter {
  private sum = 0
  used(): number {
    return this.sum
  }
  wait(_now: number, amount: number, limit: number): number {
    return this.sum + amount <= limit || amount > limit && this.sum === 0 ? 0 : Number.POSITIVE_INFINITY
  }
  add(_now: number, amount: number): number {
    this.sum += amount
    return 0
  }
  change(_now: number, _bucket: number, from: number, to: number): number {
    this.sum += to - from
    return 0
  }
}

/** Makes the counter of a window. 0: for calls at once. Infinity: for a budget that never resets. */
export const makeCounter = (windowMillis: number, bucketMillis?: number): Counter =>
  windowMillis > 0 && windowMillis < Number.POSITIVE_INFINITY ? new Window(windowMillis, bucketMillis) : new Gauge()
