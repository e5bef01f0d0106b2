import * as DateTime from "effect/DateTime"
import type { Wire } from "./refusals.ts"

/** Limits of a provider. `undefined`: not limited. */
export interface Rules {
  readonly requestsPerMinute: number | undefined
  readonly tokensPerMinute: number | undefined
  readonly concurrent: number | undefined
}

export interface Limited {
  readonly limit: "requests" | "tokens" | "concurrent"
  readonly retryAfterMillis: number
}

const minute = 60_000

/** A token bucket for one minute. A long answer can overdraw it. */
class Bucket {
  readonly capacity: number
  private level: number
  private at: number

  constructor(capacity: number, now: number) {
    this.capacity = capacity
    this.level = capacity
    this.at = now
  }

  /** Milliseconds until it holds this amount. More than its capacity waits until it is full. */
  waitFor(amount: number, now: number): number {
    return this.timeFor(Math.min(amount, this.capacity) - this.refilled(now))
  }

  take(amount: number, now: number): void {
    this.level = this.refilled(now) - amount
  }

  remaining(now: number): number {
    return Math.max(0, Math.floor(this.refilled(now)))
  }

  untilFull(now: number): number {
    return this.timeFor(this.capacity - this.refilled(now))
  }

  private refilled(now: number): number {
    this.level = Math.min(this.capacity, this.level + (now - this.at) * this.capacity / minute)
    this.at = now
    return this.level
  }

  private timeFor(amount: number): number {
    // A rounding error of a millionth must not cause a wait.
    return amount <= 1e-6 ? 0 : Math.ceil(amount * minute / this.capacity)
  }
}

export class Limits {
  private readonly rules: Rules
  private requests: Bucket | undefined
  private tokens: Bucket | undefined
  private running = 0

  constructor(rules: Rules, now: number) {
    this.rules = rules
    this.clear(now)
  }

  clear(now: number): void {
    const { requestsPerMinute, tokensPerMinute } = this.rules
    this.requests = requestsPerMinute === undefined ? undefined : new Bucket(requestsPerMinute, now)
    this.tokens = tokensPerMinute === undefined ? undefined : new Bucket(tokensPerMinute, now)
  }

  /** Admits a request, or returns why it is refused. Pair an admitted one with `leave`. */
  enter(inputTokens: number, now: number): Limited | undefined {
    const { concurrent } = this.rules
    // It is not known when a request will end. Providers send one second.
    if (concurrent !== undefined && this.running >= concurrent) return { limit: "concurrent", retryAfterMillis: 1000 }
    const requests = this.requests?.waitFor(1, now) ?? 0
    if (requests > 0) return { limit: "requests", retryAfterMillis: requests }
    const tokens = this.tokens?.waitFor(inputTokens, now) ?? 0
    if (tokens > 0) return { limit: "tokens", retryAfterMillis: tokens }
    this.requests?.take(1, now)
    this.tokens?.take(inputTokens, now)
    this.running++
    return undefined
  }

  leave(outputTokens: number, now: number): void {
    this.tokens?.take(outputTokens, now)
    this.running--
  }

  /** The headers with which each format reports its limits. */
  headers(
    wire: Wire,
    now: { readonly monotonic: number; readonly epoch: number }
  ): { readonly [name: string]: string } {
    const headers: { [name: string]: string } = {}
    const note = (what: "requests" | "tokens", bucket: Bucket | undefined) => {
      if (bucket === undefined) return
      const { capacity } = bucket
      const remaining = String(bucket.remaining(now.monotonic))
      const reset = bucket.untilFull(now.monotonic)
      if (wire === "openai") {
        headers[`x-ratelimit-limit-${what}`] = String(capacity)
        headers[`x-ratelimit-remaining-${what}`] = remaining
        headers[`x-ratelimit-reset-${what}`] = inUnits(reset)
      } else {
        headers[`anthropic-ratelimit-${what}-limit`] = String(capacity)
        headers[`anthropic-ratelimit-${what}-remaining`] = remaining
        headers[`anthropic-ratelimit-${what}-reset`] = DateTime.formatIso(DateTime.makeUnsafe(now.epoch + reset))
      }
    }
    note("requests", this.requests)
    note("tokens", this.tokens)
    return headers
  }
}

/** `634ms`, `8.5s`, `1m0s`. */
const inUnits = (millis: number): string => {
  if (millis < 1000) return `${millis}ms`
  const minutes = Math.floor(millis / minute)
  const seconds = (millis - minutes * minute) / 1000
  return minutes === 0 ? `${seconds}s` : `${minutes}m${seconds}s`
}
