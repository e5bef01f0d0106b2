import type { Bucket, Evidence, Window } from "../../CircuitBreakerStore.ts"
import { encodeSample, slowOf, weightOf } from "./sample.ts"

const successCode = encodeSample(0).charCodeAt(0)

/** The last outcomes, as a ring buffer. While all of them are quick successes it only counts them and has no array. */
export class Ring {
  length = 0
  /** How many of them are not quick successes. */
  tainted = 0
  private readonly capacity: number
  private codes: Uint8Array | undefined
  private next = 0

  constructor(capacity: number) {
    this.capacity = capacity
  }

  push(code: number): void {
    const { capacity } = this
    if (capacity === 0) return
    let { codes } = this
    if (codes === undefined) {
      if (code === 0) {
        if (this.length < capacity) this.length++
        return
      }
      codes = this.codes = new Uint8Array(capacity)
      this.next = this.length % capacity
    }
    if (this.length < capacity) this.length++
    else if (codes[this.next] !== 0) this.tainted--
    if (code !== 0) this.tainted++
    codes[this.next] = code
    this.next = this.next + 1 === capacity ? 0 : this.next + 1
  }

  /** Reads the ring like a store's string of samples, oldest first. */
  charCodeAt(index: number): number {
    if (this.codes === undefined) return successCode
    const at = this.next - this.length + index
    return successCode + (this.codes[at < 0 ? at + this.capacity : at] ?? 0)
  }

  clear(): void {
    this.length = this.tainted = this.next = 0
    this.codes = undefined
  }

  toString(): string {
    let samples = ""
    for (let i = 0; i < this.length; i++) samples += String.fromCharCode(this.charCodeAt(i))
    return samples
  }
}

interface MutableBucket {
  readonly at: number
  calls: number
  failures: number
  slow: number
}

/** The evidence of a circuit in memory, for breakers with the same window. */
export class MemoryEvidence {
  readonly window: Window
  readonly ring: Ring
  /** Oldest first. Adding an outcome drops the buckets that left the window. */
  readonly wheel: Array<MutableBucket> = []

  constructor(window: Window) {
    this.window = window
    this.ring = new Ring(window.calls)
  }

  add(code: number, now: number): void {
    this.ring.push(code)
    if (this.window.buckets === 0) return
    const bucket = this.bucketAt(now)
    bucket.calls++
    bucket.failures += weightOf(code)
    bucket.slow += slowOf(code)
  }

  /** Whether anything but quick successes is known. If not, nothing can trip. */
  isTainted(): boolean {
    return this.ring.tainted > 0 || this.wheel.some((bucket) => bucket.failures > 0 || bucket.slow > 0)
  }

  clear(): void {
    this.ring.clear()
    this.wheel.length = 0
  }

  /** The evidence in the form of the store. */
  encode(now: number): Evidence {
    const from = this.windowStart(now)
    return { ring: this.ring.toString(), wheel: this.wheel.filter((bucket) => bucket.at >= from).map(copy) }
  }

  private bucketAt(now: number): MutableBucket {
    const { wheel } = this
    const at = Math.floor(now / this.window.bucketMillis) * this.window.bucketMillis
    const newest = wheel[wheel.length - 1]
    // If the clock was set back by less than the window, outcomes are added to the newest bucket. If it was set back by more,
    // the buckets are dropped, or the newest one would collect everything until the clock has caught up.
    if (newest !== undefined && newest.at - at >= this.window.bucketMillis * this.window.buckets) wheel.length = 0
    else if (newest !== undefined && newest.at >= at) return newest
    const from = this.windowStart(now)
    while (wheel[0] !== undefined && wheel[0].at < from) wheel.shift()
    const bucket = { at, calls: 0, failures: 0, slow: 0 }
    wheel.push(bucket)
    return bucket
  }

  private windowStart(now: number): number {
    const { bucketMillis, buckets } = this.window
    return buckets === 0 ? 0 : (Math.floor(now / bucketMillis) - buckets + 1) * bucketMillis
  }
}

const copy = ({ at, calls, failures, slow }: Bucket): Bucket => ({ at, calls, failures, slow })

export const noEvidence: Evidence = { ring: "", wheel: [] }
