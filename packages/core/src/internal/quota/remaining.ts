/** The headers of a provider about one limit. */
export interface Seen {
  /** The window, if the header names it. */
  readonly windowMillis?: number | undefined
  readonly limit?: number | undefined
  readonly remaining?: number | undefined
  /** The time until the whole limit is available again. */
  readonly resetMillis?: number | undefined
  /** When the call of this answer was sent, in epoch milliseconds. */
  readonly sentAt: number
}

const samples = 256
const nearZero = 0.1

/**
 * Limits calls by the `remaining` header when it is near zero: to the amount in the header, plus the refill since then, minus the
 * amounts sent after its call. The answer to the call that was sent last counts.
 */
export class Remaining {
  private readonly windowMillis: number
  private room = Number.POSITIVE_INFINITY
  private sentAt = Number.NEGATIVE_INFINITY
  private seenAt = 0
  private sentThen = 0
  /** The sum of all sent amounts, and its value at the times of the last sends. */
  private sent = 0
  private readonly times = new Float64Array(samples).fill(Number.POSITIVE_INFINITY)
  private readonly sums = new Float64Array(samples)
  private next = 0

  constructor(windowMillis: number) {
    this.windowMillis = windowMillis
  }

  took(now: number, amount: number): void {
    const last = (this.next + samples - 1) % samples
    const index = this.times[last] === now ? last : this.next
    this.sent += amount
    this.times[index] = now
    this.sums[index] = this.sent
    if (index === this.next) this.next = (this.next + 1) % samples
  }

  wait(now: number, amount: number, limit: number): number {
    if (this.room >= limit * nearZero) return 0
    const since = Math.max(0, now - this.seenAt)
    if (since >= this.windowMillis) return 0
    const room = this.room + since * limit / this.windowMillis - (this.sent - this.sentThen)
    return room >= amount
      ? 0
      : Math.max(1, Math.min(this.windowMillis - since, Math.ceil((amount - room) * this.windowMillis / limit)))
  }

  observe(now: number, remaining: number, sentAt: number): void {
    if (sentAt < this.sentAt) return
    this.sentAt = sentAt
    this.room = Math.max(0, remaining)
    this.seenAt = now
    this.sentThen = this.sentBy(sentAt)
  }

  private sentBy(at: number): number {
    for (let back = 1; back <= samples; back++) {
      const index = (this.next + samples - back) % samples
      const time = this.times[index]
      if (time !== undefined && time <= at) return this.sums[index] ?? 0
    }
    return this.sent
  }
}

/** Whether a header is about a limit of this window. Some providers send the daily limit in the header of the minute. */
export const isOfWindow = (seen: Seen, windowMillis: number): boolean => {
  const { limit, remaining, resetMillis } = seen
  if (seen.windowMillis !== undefined) return seen.windowMillis === windowMillis
  if (limit === undefined || remaining === undefined || resetMillis === undefined) return true
  const used = limit - remaining
  if (used <= 0 || resetMillis <= 0) return false
  const asBucket = resetMillis * limit / used
  return asBucket > windowMillis / 2 && asBucket < windowMillis * 2 ||
    resetMillis <= windowMillis * 1.05 && resetMillis > windowMillis / 60
}
