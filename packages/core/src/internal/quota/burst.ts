/**
 * Limits how fast a window may be used up: a token bucket with `factor` times the rate of the limit. Providers that state a limit
 * for a minute often enforce it over one second or ten. A rejected call halves the factor, down to 1. At 1 a window of a minute
 * admits half a second of its rate at once, and 59/60 of the rate after that.
 */
export class Burst {
  factor: number
  private readonly windowMillis: number
  private level: number
  private at = Number.NEGATIVE_INFINITY
  private capacity = 0
  private perMilli = 0
  private limit: number

  constructor(limit: number, windowMillis: number, factor: number) {
    this.limit = limit
    this.windowMillis = windowMillis
    this.factor = factor
    this.shape()
    this.level = this.capacity
  }

  /**
   * The milliseconds until an amount may pass, after all of `ahead` has passed, with a burst for this limit. An amount above the
   * capacity passes when the level is full.
   */
  wait(now: number, amount: number, limit: number, ahead = 0): number {
    this.refill(now)
    if (limit !== this.limit) this.setLimit(limit)
    const missing = ahead + Math.min(amount, this.capacity) - this.level
    return missing <= 1e-6 ? 0 : Math.max(1, Math.ceil(missing / this.perMilli))
  }

  /** The amount that can pass within a time. */
  passes(now: number, millis: number): number {
    this.refill(now)
    return Math.max(0, this.level) + millis * this.perMilli
  }

  take(now: number, amount: number): void {
    this.refill(now)
    this.level -= amount
  }

  giveBack(now: number, amount: number): void {
    this.refill(now)
    this.level = Math.min(this.capacity, this.level + amount)
  }

  /** The shortest time to use a whole window, as the option `burst`. */
  get fullAfterMillis(): number {
    return Math.round(this.windowMillis / this.factor)
  }

  /** Returns `false` if the factor was 1 already. */
  halve(now: number): boolean {
    if (this.factor <= 1) return false
    this.refill(now)
    this.factor = Math.max(1, this.factor / 2)
    this.shape()
    this.level = Math.min(0, this.level)
    return true
  }

  private setLimit(limit: number): void {
    this.limit = limit
    this.shape()
    this.level = Math.min(this.capacity, this.level)
  }

  private refill(now: number): void {
    if (now <= this.at) return
    this.level = Math.min(this.capacity, this.level + Math.min(now - this.at, this.windowMillis) * this.perMilli)
    this.at = now
  }

  private shape(): void {
    const { factor, limit, windowMillis } = this
    const isCut = factor <= 1
    this.capacity = Math.max(1, limit * factor / 60 * (isCut ? 0.5 : 1))
    this.perMilli = limit * factor / windowMillis * (isCut ? 59 / 60 : 1)
  }
}
