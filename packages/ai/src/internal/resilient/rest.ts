/** A time during which something is not called. Setting the clock back does not make it longer. */
export class Rest {
  private since = 0
  private millis = 0

  /** Rests for this long from now, unless it rests longer already. */
  take(now: number, millis: number): void {
    if (millis <= this.left(now)) return
    this.since = now
    this.millis = millis
  }

  /** The milliseconds that are left. */
  left(now: number): number {
    // If the clock was set back, how much has passed is unknown. At most all of it is left.
    this.since = Math.min(this.since, now)
    return Math.max(0, this.since + this.millis - now)
  }
}
