/** The pause after a rate limit, and how often the rate changes. Providers count calls per second or per minute. */
const pauseMillis = 1_000
const longestIntervalMillis = 10_000

/** The first rate, as a share of the rate that the provider accepted. */
const belowMeasured = 0.9
const slowDown = 0.7
const speedUp = 1.1

/**
 * Paces the calls to a target that limits the rate without a Retry-After. Each rate limit lowers the rate by 30 %. Answers
 * raise it by 10 %, at most once a second. Without a rate limit, calls are not paced.
 */
export class Pace {
  /** Milliseconds between two calls. 0: unlimited. */
  private interval = 0
  private nextAt = 0
  private loweredAt = Number.NEGATIVE_INFINITY
  private raisedAt = Number.NEGATIVE_INFINITY
  /** Answers in the current second and in the one before. */
  private second = 0
  private answers = 0
  private answersBefore = 0

  /** Returns the milliseconds until the next call may start. Reserves that start if it is at most `most` away. */
  reserve(now: number, most: number): number {
    if (this.interval === 0 && this.nextAt <= now) return 0
    const at = Math.max(now, this.nextAt)
    if (at - now <= most) this.nextAt = at + this.interval
    return at - now
  }

  answered(now: number): void {
    this.turnTo(now)
    this.answers++
    if (this.interval === 0 || now - Math.max(this.loweredAt, this.raisedAt) < pauseMillis) return
    this.raisedAt = now
    this.interval /= speedUp
    if (this.interval < 1) this.interval = 0
  }

  /** Records a rate limit. Returns the milliseconds until the next call. */
  refused(now: number): number {
    // Further refusals within the pause are for calls that were sent at the old rate.
    if (now - this.loweredAt >= pauseMillis) {
      this.turnTo(now)
      const perSecond = this.interval === 0
        ? Math.max(1, this.answers, this.answersBefore) * belowMeasured
        : slowDown * 1_000 / this.interval
      this.interval = Math.min(longestIntervalMillis, 1_000 / perSecond)
      this.loweredAt = now
      this.nextAt = Math.max(this.nextAt, now + pauseMillis)
    }
    return Math.max(1, this.nextAt - now)
  }

  private turnTo(now: number): void {
    const second = Math.floor(now / 1_000)
    if (second === this.second) return
    this.answersBefore = second === this.second + 1 ? this.answers : 0
    this.answers = 0
    this.second = second
  }
}
