import type * as Script from "../../testing/Script.ts"

type Refusal = Pick<Script.Outage, "how" | "retryAfterSeconds">

/** Decides whether the provider is down for a request. */
export class Outages {
  private readonly outage: Script.Outage | undefined
  private began: number
  private byHand = false
  private firstAttempts = 0
  private phase: "before" | "during" | "after" = "before"
  private downSince = 0
  private refused = 0

  constructor(outage: Script.Outage | undefined, now: number) {
    this.outage = outage
    this.began = now
  }

  setDown(down: boolean): void {
    this.byHand = down
  }

  clear(now: number): void {
    this.began = now
    this.firstAttempts = 0
    this.phase = "before"
    this.refused = 0
  }

  /** Counts the request. Returns how it is refused, or `undefined` if the provider is up. */
  next(attempt: number, now: number): Refusal | undefined {
    if (attempt === 1) this.firstAttempts++
    if (this.byHand) return { how: "unavailable" }
    const { outage } = this
    if (outage === undefined) return undefined
    return (("afterCalls" in outage) ? this.isDownByCount(outage, now) : this.isDownByTime(outage, now))
      ? outage
      : undefined
  }

  private isDownByCount(outage: Extract<Script.Outage, { afterCalls: number }>, now: number): boolean {
    if (this.phase === "before" && this.firstAttempts > outage.afterCalls) {
      this.phase = "during"
      this.downSince = now
    }
    if (this.phase !== "during") return false
    if (this.refused >= outage.requests || now - this.downSince >= outage.atMostMillis) {
      this.phase = "after"
      return false
    }
    this.refused++
    return true
  }

  private isDownByTime(outage: Extract<Script.Outage, { fromMillis: number }>, now: number): boolean {
    const at = now - this.began
    return at >= outage.fromMillis && at < outage.fromMillis + outage.forMillis
  }
}
