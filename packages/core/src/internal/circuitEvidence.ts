import type { Bucket, Evidence, Window } from "../CircuitBreakerStore.ts"
import { slowOf, weightOf } from "./circuitMachine.ts"

/**
 * The last outcomes. As long as all of them are good and quick there is nothing to keep but their number: a circuit that has
 * never seen a failure has no array.
 */
export class Ring {
  length = 0
  /** How many of them are not simply good. */
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

  /** As of a string of samples, oldest first. */
  charCodeAt(index: number): number {
    if (this.codes === undefined) return 48
    const at = this.next - this.length + index
    return 48 + (this.codes[at < 0 ? at + this.capacity : at] ?? 0)
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

/** What a circuit in memory has seen, for breakers that look back equally far. */
export class MemoryEvidence {
  readonly window: Window
  readonly ring: Ring
  /** Oldest first; what is too old is dropped when something is added. */
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

  /** Whether anything but good and quick calls is known. If not, nothing can trip. */
  isTainted(): boolean {
    return this.ring.tainted > 0 || this.wheel.some((bucket) => bucket.failures > 0 || bucket.slow > 0)
  }

  clear(): void {
    this.ring.clear()
    this.wheel.length = 0
  }

  toRaw(now: number): Evidence {
    const from = this.oldest(now)
    return { ring: this.ring.toString(), wheel: this.wheel.filter((bucket) => bucket.at >= from).map(copy) }
  }

  private bucketAt(now: number): MutableBucket {
    const { wheel } = this
    const at = Math.floor(now / this.window.bucketMillis) * this.window.bucketMillis
    const newest = wheel[wheel.length - 1]
    // A clock that goes back adds to the newest. By more than is looked back on, it was wrong before: what it saw is dropped, or
    // the newest would take in everything until the clock is there again.
    if (newest !== undefined && newest.at - at >= this.window.bucketMillis * this.window.buckets) wheel.length = 0
    else if (newest !== undefined && newest.at >= at) return newest
    const from = this.oldest(now)
    while (wheel[0] !== undefined && wheel[0].at < from) wheel.shift()
    const bucket = { at, calls: 0, failures: 0, slow: 0 }
    wheel.push(bucket)
    return bucket
  }

  private oldest(now: number): number {
    const { bucketMillis, buckets } = this.window
    return buckets === 0 ? 0 : (Math.floor(now / bucketMillis) - buckets + 1) * bucketMillis
  }
}

const copy = ({ at, calls, failures, slow }: Bucket): Bucket => ({ at, calls, failures, slow })

/** The samples of a batch, one code each. */
export const codesOf = (samples: string): ReadonlyArray<number> =>
  Array.from({ length: samples.length }, (_, index) => samples.charCodeAt(index) - 48)

export const noEvidence: Evidence = { ring: "", wheel: [] }
