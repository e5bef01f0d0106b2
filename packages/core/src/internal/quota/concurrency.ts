/**
 * Finds how many calls a provider runs at once. It starts low and doubles in each round trip, up to the first rejected call. Then the
 * limit is the number of the calls in flight that are not rejected, since those were accepted: all others at first, and one less for
 * each of them that is rejected too. From then on it rises by a twentieth of a call in each round trip.
 *
 * A factor instead of that number would either cut too much or leave rejections: 0.7 from 64 takes up to 1.54 times as long.
 */
export class Concurrency<Call extends object> {
  /** The calls that run, in the order of sending, with their numbers. */
  private readonly running = new Map<Call, number>()
  private count = 0
  /** The number of the last call that was sent, or ran, while all places were in use. */
  private fullAt = 0
  private ceiling: number
  private isDoubling = true
  private cutAt = Number.NEGATIVE_INFINITY

  constructor(start: number) {
    this.ceiling = start
  }

  /** The calls that may run at once, a whole number from 1 to `most`. */
  limit(most: number): number {
    return Math.floor(Math.min(this.ceiling, most))
  }

  sent(call: Call, most: number): void {
    this.running.set(call, ++this.count)
    if (this.running.size >= this.limit(most)) this.fullAt = this.count
  }

  /** A call has ended. `isAnswer`: it was not rejected, so more may run if all places were in use while it ran. */
  ended(call: Call, isAnswer: boolean, most: number): void {
    const wasFull = (this.running.get(call) ?? Number.POSITIVE_INFINITY) <= this.fullAt
    this.running.delete(call)
    if (!isAnswer || !wasFull || this.ceiling >= most) return
    this.ceiling = Math.min(most, this.ceiling + (this.isDoubling ? 1 : growth / this.ceiling))
  }

  /** A call was rejected, which still counts as running. */
  rejected(sentAt: number, now: number): void {
    if (sentAt > this.cutAt) {
      this.cutAt = now
      this.isDoubling = false
      this.ceiling = Math.min(this.ceiling, this.running.size - 1)
    } else this.ceiling--
    this.ceiling = Math.max(1, this.ceiling)
  }
}

const growth = 0.05
