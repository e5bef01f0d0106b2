/** A provider that enforces limits a minute strictly, and a network with jitter, for tests of quotas on the test's clock. */

const minute = 60_000

/** Random numbers from a seed, from 0 to 1. */
export const randomOf = (seed: number): () => number => {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** One way on the network: 30 ms, an exponential tail, and 1 % of 200 to 800 ms. */
export const wan = (random: () => number) => (): number =>
  Math.round(30 - 15 * Math.log(1 - random()) + (random() < 0.01 ? 200 + random() * 600 : 0))

/** How the provider enforces its limit: a bucket that holds a whole minute, ten seconds or one second, a log, or a window. */
export type Enforcement = "fixed" | "bucket" | "bucket10" | "bucket1" | "log"

/** How it counts tokens: the actual ones, the maximum until the call ends, or the maximum. */
export type Counting = "actual" | "reservedThenActual" | "reserved"

interface Entry {
  readonly at: number
  amount: number
}

/** One limit. */
class Strict {
  private readonly kind: Enforcement
  private readonly limit: number
  private readonly phase: number
  private readonly capacity: number
  private readonly log: Array<Entry> = []
  private sum = 0
  private first = 0
  private window = -1
  private level: number
  private at = 0

  constructor(kind: Enforcement, limit: number, phase: number) {
    this.kind = kind
    this.limit = limit
    this.phase = phase
    this.capacity = kind === "bucket10" ? limit / 6 : kind === "bucket1" ? Math.max(1, limit / 60) : limit
    this.level = this.capacity
  }

  room(now: number): number {
    if (this.kind === "fixed") {
      const window = Math.floor((now + this.phase) / minute)
      if (window !== this.window) this.sum = 0
      this.window = window
      return this.limit - this.sum
    }
    if (this.kind === "log") {
      for (
        let entry = this.log[this.first];
        entry !== undefined && entry.at <= now - minute;
        entry = this.log[this.first]
      ) {
        this.sum -= entry.amount
        this.first++
      }
      return this.limit - this.sum
    }
    this.level = Math.min(this.capacity, this.level + (now - this.at) * this.limit / minute)
    this.at = now
    return this.level
  }

  take(now: number, amount: number): Entry {
    const entry = { at: now, amount }
    this.level -= amount
    this.sum += amount
    if (this.kind === "log") this.log.push(entry)
    return entry
  }

  /** Replaces the taken amount. A window that is over gets nothing back. */
  correct(now: number, entry: Entry, amount: number): void {
    this.room(now)
    const isOver = this.kind === "fixed"
      ? Math.floor((entry.at + this.phase) / minute) !== this.window
      : this.kind === "log" && entry.at <= now - minute
    if (isOver && amount < entry.amount) return
    this.sum += amount - entry.amount
    this.level = Math.min(this.capacity, this.level - (amount - entry.amount))
    entry.amount = amount
  }

  /** Milliseconds until an amount fits. */
  until(now: number, amount: number): number {
    const room = this.room(now)
    if (room >= amount - 1e-9) return 0
    if (this.kind === "fixed") return minute - (now + this.phase) % minute + 1
    if (this.kind === "log") {
      let missing = amount - room
      for (let index = this.first; index < this.log.length; index++) {
        const { amount: gone, at } = this.log[index]!
        missing -= gone
        if (missing <= 1e-9) return at + minute - now + 1
      }
      return minute
    }
    return Math.ceil((Math.min(amount, this.capacity) - room) * minute / this.limit) + 1
  }
}

export interface ProviderCall {
  readonly input: number
  readonly output: number
  readonly max: number
}

export interface ProviderOptions {
  readonly kind: Enforcement
  readonly rpm: number
  readonly tpm?: number
  readonly phase: number
  readonly counting?: Counting
}

/** Accepts or rejects calls, and keeps a journal of all that arrived. */
export class StrictProvider {
  /** When each call was accepted, and how many requests arrived in all. */
  readonly accepted: Array<number> = []
  readonly tokens: Array<readonly [at: number, amount: number]> = []
  arrived = 0
  private readonly requests: Strict
  private readonly tokensOf: Strict | undefined
  private readonly counting: Counting

  constructor({ counting = "actual", kind, phase, rpm, tpm }: ProviderOptions) {
    this.requests = new Strict(kind, rpm, phase)
    this.tokensOf = tpm === undefined ? undefined : new Strict(kind, tpm, phase)
    this.counting = counting
  }

  /** 0 if the call is accepted, otherwise its Retry-After. `end` is called when it has ended. */
  arrive(now: number, call: ProviderCall): { readonly retryMillis: number; readonly end: (now: number) => void } {
    this.arrived++
    const { input, max, output } = call
    const asked = this.counting === "actual" ? input : input + max
    const retryMillis = Math.max(this.requests.until(now, 1), this.tokensOf?.until(now, asked) ?? 0)
    if (retryMillis > 0) return { retryMillis, end: () => {} }
    this.requests.take(now, 1)
    const entry = this.tokensOf?.take(now, asked)
    this.accepted.push(now)
    this.tokens.push([now, input + output])
    return {
      retryMillis: 0,
      end: (at) => {
        if (entry === undefined || this.tokensOf === undefined) return
        if (this.counting === "reservedThenActual") this.tokensOf.correct(at, entry, input + output)
        else if (this.counting === "actual") {
          this.tokensOf.room(at)
          this.tokensOf.take(at, output)
        }
      }
    }
  }

  get remaining(): number {
    return Math.max(0, Math.floor(this.requests.room(this.accepted.at(-1) ?? 0)))
  }
}

/** The most that arrived within any minute. */
export const mostInAMinute = (arrivals: ReadonlyArray<readonly [at: number, amount: number]>): number => {
  const sorted = arrivals.toSorted(([a], [b]) => a - b)
  let most = 0
  let sum = 0
  let first = 0
  for (const [at, amount] of sorted) {
    sum += amount
    for (let [old, gone] = sorted[first]!; old <= at - minute; [old, gone] = sorted[first]!) {
      sum -= gone
      first++
    }
    most = Math.max(most, sum)
  }
  return most
}

/** The start of the last call if a provider that enforces this way is used as well as it can be. */
export const minimumMillis = (kind: Enforcement, limit: number, amount: number): number => {
  const capacity = kind === "bucket10" ? limit / 6 : kind === "bucket1" ? limit / 60 : limit
  return kind === "log" || kind === "fixed"
    ? (Math.ceil(amount / limit) - 1) * minute
    : (amount - capacity) / limit * minute
}

/** Calls with about 400 input and 250 output tokens, lognormal. */
export const callsOf = (count: number, random: () => number, max = 1_024, sigma = 0.8): ReadonlyArray<ProviderCall> => {
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const lognormal = (mean: number) => Math.max(1, Math.round(mean * Math.exp(sigma * normal() - sigma * sigma / 2)))
  return Array.from({ length: count }, () => ({ input: lognormal(400), output: Math.min(max, lognormal(250)), max }))
}
