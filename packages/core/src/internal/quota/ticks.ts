import type * as Clock from "effect/Clock"

const checkMillis = 1_000
const jumpMillis = 500

/**
 * Epoch milliseconds that only move forward, and no faster than time passes. If the system clock is set back, windows would stand
 * still; if it jumps forward, they would be empty at once. A step of more than a second is checked against the monotonic clock.
 */
export class Ticks {
  private readonly clock: Clock.Clock
  /** What is added to the clock. */
  private offset = 0
  private last = Number.NEGATIVE_INFINITY
  private checkedAt = Number.NEGATIVE_INFINITY
  private checkedNanos = 0n

  constructor(clock: Clock.Clock) {
    this.clock = clock
  }

  now(): number {
    const now = this.clock.currentTimeMillisUnsafe() + this.offset
    if (now >= this.last && now - this.checkedAt < checkMillis) return this.last = now
    return this.check(now)
  }

  /** A time of the clock, on this scale. */
  at(epochMillis: number): number {
    return epochMillis + this.offset
  }

  private check(now: number): number {
    const nanos = this.clock.monotonicTimeNanosUnsafe()
    if (this.checkedAt > Number.NEGATIVE_INFINITY) {
      const expected = this.checkedAt + Number((nanos - this.checkedNanos) / 1_000_000n)
      if (Math.abs(now - expected) > jumpMillis) this.offset += expected - now
    }
    this.last = Math.max(this.last, this.clock.currentTimeMillisUnsafe() + this.offset)
    this.checkedAt = this.last
    this.checkedNanos = nanos
    return this.last
  }
}
