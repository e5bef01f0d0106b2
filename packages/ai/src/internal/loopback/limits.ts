import * as DateTime from "effect/DateTime"
import type { Wire } from "./refusals.ts"

/** Limits of a provider. `undefined`: not limited. */
export interface Rules {
  readonly requestsPerMinute: number | undefined
  readonly tokensPerMinute: number | undefined
  readonly concurrent: number | undefined
  /** How the limits of a minute are counted. */
  readonly enforcement: Enforcement
  /** The window over which they are enforced, in milliseconds: 600 a minute over a second are 10 a second. */
  readonly windowMillis: number
}

export type Enforcement = "bucket" | "fixedWindow" | "log"

export interface Limited {
  readonly limit: "requests" | "tokens" | "concurrent"
  readonly retryAfterMillis: number
}

const minute = 60_000

/** Counts amounts over time. A long answer can exceed the capacity. */
interface Counter {
  readonly capacity: number
  /** Milliseconds until this amount is admitted. More than the capacity waits until nothing else is counted. */
  waitFor(amount: number, now: number): number
  take(amount: number, now: number): void
  remaining(now: number): number
  untilFull(now: number): number
}

/** A token bucket. */
class Bucket implements Counter {
  readonly capacity: number
  private readonly windowMillis: number
  private level: number
  private at: number

  constructor(capacity: number, windowMillis: number, now: number) {
    this.capacity = capacity
    this.windowMillis = windowMillis
    this.level = capacity
    this.at = now
  }

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
    this.level = Math.min(this.capacity, this.level + (now - this.at) * this.capacity / this.windowMillis)
    this.at = now
    return this.level
  }

  private timeFor(amount: number): number {
    // A rounding error of a millionth must not cause a wait.
    return amount <= 1e-6 ? 0 : Math.ceil(amount * this.windowMillis / this.capacity)
  }
}

/** Windows of equal length, one after the other. Each begins at 0. */
class FixedWindow implements Counter {
  readonly capacity: number
  private readonly windowMillis: number
  private beganAt: number
  private used = 0

  constructor(capacity: number, windowMillis: number, now: number) {
    this.capacity = capacity
    this.windowMillis = windowMillis
    this.beganAt = now
  }

  waitFor(amount: number, now: number): number {
    this.turnTo(now)
    return this.used === 0 || this.used + amount <= this.capacity ? 0 : this.untilFull(now)
  }

  take(amount: number, now: number): void {
    this.turnTo(now)
    this.used += amount
  }

  remaining(now: number): number {
    this.turnTo(now)
    return Math.max(0, this.capacity - this.used)
  }

  untilFull(now: number): number {
    this.turnTo(now)
    return this.used === 0 ? 0 : Math.ceil(this.beganAt + this.windowMillis - now)
  }

  private turnTo(now: number): void {
    const windows = Math.floor((now - this.beganAt) / this.windowMillis)
    if (windows <= 0) return
    this.beganAt += windows * this.windowMillis
    this.used = 0
  }
}

/** A log of all amounts: the sum of the last window at any moment. */
class Log implements Counter {
  readonly capacity: number
  private readonly windowMillis: number
  private entries: Array<{ readonly at: number; readonly amount: number }> = []

  constructor(capacity: number, windowMillis: number) {
    this.capacity = capacity
    this.windowMillis = windowMillis
  }

  waitFor(amount: number, now: number): number {
    this.forget(now)
    let over = this.used + Math.min(amount, this.capacity) - this.capacity
    for (const entry of this.entries) {
      if (over <= 0) return 0
      over -= entry.amount
      if (over <= 0) return Math.ceil(entry.at + this.windowMillis - now)
    }
    return 0
  }

  take(amount: number, now: number): void {
    this.forget(now)
    this.entries.push({ at: now, amount })
  }

  remaining(now: number): number {
    this.forget(now)
    return Math.max(0, this.capacity - this.used)
  }

  untilFull(now: number): number {
    this.forget(now)
    return this.entries.length === 0 ? 0 : Math.ceil((this.entries.at(-1)?.at ?? now) + this.windowMillis - now)
  }

  private get used(): number {
    return this.entries.reduce((sum, { amount }) => sum + amount, 0)
  }

  private forget(now: number): void {
    const first = this.entries.findIndex(({ at }) => at > now - this.windowMillis)
    this.entries = first === -1 ? [] : this.entries.slice(first)
  }
}

export class Limits {
  private readonly rules: Rules
  private requests: Counter | undefined
  private tokens: Counter | undefined
  private running = 0

  constructor(rules: Rules, now: number) {
    this.rules = rules
    this.clear(now)
  }

  clear(now: number): void {
    const { requestsPerMinute, tokensPerMinute } = this.rules
    this.requests = this.counterOf(requestsPerMinute, now)
    this.tokens = this.counterOf(tokensPerMinute, now)
  }

  private counterOf(perMinute: number | undefined, now: number): Counter | undefined {
    if (perMinute === undefined) return undefined
    const { enforcement, windowMillis } = this.rules
    const capacity = Math.max(1, Math.floor(perMinute * windowMillis / minute))
    switch (enforcement) {
      case "bucket":
        return new Bucket(capacity, windowMillis, now)
      case "fixedWindow":
        return new FixedWindow(capacity, windowMillis, now)
      case "log":
        return new Log(capacity, windowMillis)
    }
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
    const note = (what: "requests" | "tokens", bucket: Counter | undefined) => {
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
