const keptShare = 0.97
const growthPerMinute = 0.02
const cleanMillis = 60_000
const nearlyEmpty = 0.2

/**
 * The limit that calls are held to. A rejected call that the burst does not explain lowers it to just below what the window held,
 * since the true limit is at most that. After a clean minute it rises again by 2 % a minute, up to the stated limit, or to the
 * limit that the provider names.
 */
export class LearnedLimit {
  current: number
  stated: number
  /** The lower of the stated limit and the one that headers name. */
  private named: number
  private readonly adapts: boolean
  private cutAt = Number.NEGATIVE_INFINITY
  private grownAt = Number.NEGATIVE_INFINITY

  constructor(stated: number, adapts: boolean) {
    this.current = stated
    this.stated = stated
    this.named = stated
    this.adapts = adapts
  }

  /** The limit at this time, a whole number. */
  at(now: number): number {
    if (this.current < this.named) this.grow(now)
    return Math.floor(this.current)
  }

  /** Whether a call was sent after the last cut. Others were in flight then, and say nothing new. */
  isNews(sentAt: number): boolean {
    return this.adapts && sentAt > this.cutAt
  }

  /** Records that a rejected call taught something. */
  learned(now: number): void {
    this.cutAt = this.grownAt = now
  }

  /**
   * Lowers the limit by what counted when a call was rejected. A window that is nearly empty explains no rejection: then the
   * provider enforces the limit over a shorter time.
   */
  cut(used: number): void {
    if (used >= this.current * nearlyEmpty) this.current = Math.max(1, Math.min(this.current, used * keptShare))
  }

  /** Follows a limit that a header names. It never exceeds the stated one, and does not undo a cut. */
  follow(limit: number): void {
    const wasCut = this.current < this.named
    this.named = Math.max(1, Math.min(this.stated, limit))
    this.current = wasCut ? Math.min(this.current, this.named) : this.named
  }

  /** Sets the stated limit, and forgets what was learned. */
  set(stated: number): void {
    this.stated = this.current = this.named = stated
    this.cutAt = Number.NEGATIVE_INFINITY
  }

  private grow(now: number): void {
    const from = Math.max(this.grownAt, this.cutAt + cleanMillis)
    if (now <= from) return
    this.current = Math.min(this.named, this.current + this.stated * growthPerMinute * (now - from) / 60_000)
    this.grownAt = now
  }
}
