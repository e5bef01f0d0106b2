const keptShare = 0.985
const growthPerMinute = 0.02
const cleanMillis = 60_000
const nearlyEmpty = 0.2

/**
 * The enforced limit. A rejected call that the burst does not explain lowers it to 98.5 % of the sum in the window, since the true
 * limit is at most that sum. After a minute without a rejected call it rises by 2 % of the stated limit a minute, up to the stated
 * limit or the one in the provider's headers.
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

  /** Whether a call was sent after the last cut. Earlier calls were in flight at the cut, and show nothing new. */
  isNews(sentAt: number): boolean {
    return this.adapts && sentAt > this.cutAt
  }

  /** Records that the limit, the burst or the mode has learned from a rejected call. */
  learned(now: number): void {
    this.cutAt = this.grownAt = now
  }

  /**
   * Lowers the limit to below the sum at which a call was rejected. A nearly empty window explains no rejection: then the provider
   * enforces the limit over a shorter time, and the limit stays.
   */
  cut(used: number): void {
    if (used >= this.current * nearlyEmpty) this.current = Math.max(1, Math.min(this.current, used * keptShare))
  }

  /** Follows a limit that a header names, up to the stated one. Does not undo a cut. */
  follow(limit: number): void {
    const wasCut = this.current < this.named
    this.named = Math.max(1, Math.min(this.stated, limit))
    this.current = wasCut ? Math.min(this.current, this.named) : this.named
  }

  /** Follows a limit that another process has lowered at this time. From then on it rises as in that process. */
  followCut(limit: number, at: number): void {
    if (!this.adapts) return
    this.current = Math.max(1, Math.min(this.named, limit))
    this.cutAt = Math.max(this.cutAt, at)
    this.grownAt = at
  }

  /** Sets the stated limit, and forgets the learned one. */
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
