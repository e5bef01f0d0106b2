import type * as Clock from "effect/Clock"

const checkMillis = 1_000
const jumpMillis = 500

/**
 * Epoch milliseconds that never go back, and advance no faster than real time. With the system clock alone, windows would keep
 * their amounts too long after it is set back, and drop them at once after it jumps forward. The time is compared with the
 * monotonic clock once a second, and at each step back.
 */
export class Ticks {
  private readonly clock: Clock.Clock
  /** The correction that is added to the clock. */
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

  /** Converts a time of the clock to this scale. */
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
