import type { Amount, Change, Counts } from "../../Quota.ts"
import { Burst } from "./burst.ts"
import { Concurrency } from "./concurrency.ts"
import { bucketsOfWindow, type Counter, driftMillis } from "./counter.ts"
import { Estimate, type Sample } from "./estimate.ts"
import { LearnedLimit } from "./limit.ts"
import type { CheckedDimension } from "./options.ts"
import { isOfWindow, Remaining, type Seen } from "./remaining.ts"

/** How a sum counts a call while it runs, and after it has ended. */
type Mode = Exclude<Counts, "learned">

/** The sum against the limit, if the provider counts in this mode. */
interface Sum {
  readonly mode: Mode
  readonly counter: Counter
}

/** The amount that one call holds in one sum of a dimension. */
export interface Portion {
  readonly dimension: Dimension
  /** The index of the sum. */
  readonly sum: number
  /** Whether `held` includes it: its sum was the active one when it was taken. */
  readonly isHeld: boolean
  readonly asked: Amount
  /** The counted amount, and its bucket. */
  amount: number
  bucket: number
  readonly sample: Sample | undefined
  /** The next portion of the call. */
  readonly next: Portion | undefined
}

export interface DimensionOptions {
  readonly spec: CheckedDimension
  /** The longest time from sending a call to its arrival. */
  readonly guardMillis: number
  readonly adapts: boolean
  readonly counterOf: (spec: CheckedDimension, mode: string) => Counter
  readonly onChange: (change: Pick<Change, "of" | "from" | "to" | "why">) => void
}

const modes: ReadonlyArray<Mode> = ["actual", "reservedThenActual", "reserved"]

/** The used share of the span from the least to the greatest use. `undefined` if there is no span. */
const usedShare = (asked: Amount, actual: number): number | undefined => {
  if (typeof asked === "number" || asked.atMost <= asked.known) return undefined
  return Math.min(1, Math.max(0, actual - asked.known) / (asked.atMost - asked.known))
}

/** How long the sum of calls at once in a shared store is trusted. */
const seenMillis = 1_000

/** Most calls end within this time, and settle what they hold of a budget. */
const settledMillis = 60_000

/** From this share of the limit on, a rejection is due to a wrong estimate, not to the mode. */
const estimatedBadly = 0.9
/** A stricter mode explains a rejection if its sum has reached this share of the limit. */
const explained = 0.97

/**
 * One limit of a key or tenant: its sums, its burst, and the limit learned from rejected calls. With `learned` it keeps a sum for
 * each mode, and admits by the loosest mode that no rejection has ruled out.
 */
export class Dimension {
  readonly spec: CheckedDimension
  readonly limit: LearnedLimit
  /** The sum of the amounts of queued calls. */
  queued = 0
  /** The sum of the amounts of calls that have not ended. */
  held = 0
  /** The limit after the last reported change. */
  private lastMove: number
  /** The average time from a reservation to the end of its bucket. */
  private lagMillis: number
  private readonly guardMillis: number
  private readonly sums: ReadonlyArray<Sum>
  private active = 0
  private readonly burst: Burst | undefined
  private readonly estimate: Estimate | undefined
  private readonly remaining: Remaining | undefined
  /** Learns how many calls may run at once. */
  private readonly concurrency: Concurrency<Portion> | undefined
  private readonly onChange: DimensionOptions["onChange"]
  /** The amount in a shared store that is not of this process, when it answered last. */
  private elsewhere = 0
  /** When that amount changed last. */
  private elsewhereSince = Number.NEGATIVE_INFINITY
  private seenAt = Number.NEGATIVE_INFINITY
  /** The limit by hand, and its end. */
  private heldLimit = Number.POSITIVE_INFINITY
  private heldUntil = Number.NEGATIVE_INFINITY
  /** Until when a shared store has no room, by its last refusal. */
  private fullUntil = Number.NEGATIVE_INFINITY

  constructor({ adapts, counterOf, guardMillis, onChange, spec }: DimensionOptions) {
    this.spec = spec
    const { burstFactor, counts, isRate, limit, windowMillis } = spec
    const kept = counts === "learned" ? modes : [counts]
    this.sums = kept.map((mode) => ({ mode, counter: counterOf(spec, mode) }))
    this.limit = new LearnedLimit(limit, adapts && isRate)
    this.lastMove = limit
    this.guardMillis = Math.min(guardMillis, windowMillis / 8)
    this.lagMillis = this.guardMillis + windowMillis / bucketsOfWindow / 2
    this.burst = burstFactor === undefined ? undefined : new Burst(limit, windowMillis, burstFactor)
    this.estimate = kept.includes("actual") && isRate ? new Estimate() : undefined
    this.remaining = isRate ? new Remaining(windowMillis) : undefined
    this.concurrency = spec.start === undefined ? undefined : new Concurrency(spec.start)
    this.onChange = onChange
  }

  /** How the provider counts. With `learned`, as far as it is learned. */
  get mode(): Mode {
    return this.sum.mode
  }

  used(now: number): number {
    return this.usedHere(now) + this.usedElsewhere(now)
  }

  /** The amount of this process. */
  usedHere(now: number): number {
    return this.sum.counter.used(now)
  }

  /** Notes the sum in a shared store, and for how long it has no room for a call. */
  seen(now: number, used: number, waitMillis: number): void {
    const elsewhere = Math.max(0, used - this.usedHere(now))
    if (elsewhere !== this.elsewhere) this.elsewhereSince = now
    this.elsewhere = elsewhere
    this.seenAt = now
    this.fullUntil = now + waitMillis
  }

  /** The milliseconds for which a shared store has no room. */
  fullFor(now: number): number {
    return Math.max(0, this.fullUntil - now)
  }

  /** The amount that the burst lets through within a time. */
  passes(now: number, millis: number): number {
    return this.burst?.passes(now, millis) ?? Number.POSITIVE_INFINITY
  }

  /** Follows a limit that another process has lowered. Returns whether it is lower than before. */
  follow(now: number, limit: number, at: number): boolean {
    const before = this.limitAt(now)
    this.limit.followCut(limit, at)
    const after = this.limitAt(now)
    if (after !== before) this.moved(before, "Throttled")
    return after < before
  }

  /** Follows a limit that was set by hand. Returns whether it lowers the limit of now. */
  hold(now: number, limit: number, until: number): boolean {
    const before = this.limitAt(now)
    this.heldLimit = Math.max(1, limit)
    this.heldUntil = until
    const after = this.limitAt(now)
    if (after !== before) this.onChange({ of: "limit", from: before, to: after, why: "Set" })
    return after < before
  }

  limitAt(now: number): number {
    const limit = this.ownLimitAt(now)
    return now < this.heldUntil ? Math.min(limit, this.heldLimit) : limit
  }

  private ownLimitAt(now: number): number {
    const { concurrency, limit } = this
    if (concurrency !== undefined) return concurrency.limit(limit.stated)
    if (limit.current === limit.stated) return limit.current
    const wasLower = limit.current < limit.stated
    const current = limit.at(now)
    if (wasLower && limit.current === limit.stated) this.moved(this.lastMove, "Recovered")
    return current
  }

  /** The limit for the sum of all processes. Each of them finds by itself how many calls it may run at once. */
  limitOfAll(now: number): number {
    if (this.concurrency === undefined) return this.limitAt(now)
    return now < this.heldUntil ? Math.min(this.limit.stated, this.heldLimit) : this.limit.stated
  }

  /** The number that is reserved for an amount. */
  asked(amount: Amount): number {
    return typeof amount === "number" ? amount : this.amountOf(this.mode, amount)
  }

  /** The part of the limit that an amount needs: all of it, if it is above the limit. */
  needs(now: number, amount: Amount): number {
    return Math.min(this.asked(amount), this.limitAt(now))
  }

  /** The milliseconds until a reserved number fits in a share of the limit: 0 if now, Infinity if only a settlement can make room. */
  wait(now: number, asked: number, share: number): number {
    if (asked === 0) return 0
    const limit = this.limitAt(now)
    const byWindow = this.sum.counter.wait(now, asked, share === 1 ? limit : Math.max(1, Math.floor(limit * share)))
    if (this.burst === undefined) return byWindow
    return Math.max(byWindow, this.burst.wait(now, asked, limit), this.remaining?.wait(now, asked, limit) ?? 0)
  }

  /** Whether a call can never be admitted: its least use is above the limit, or its greatest use is above a budget. */
  isTooLarge(amount: Amount, refusesEstimates: boolean): boolean {
    const known = typeof amount === "number" ? amount : amount.known
    const isStrict = refusesEstimates || !this.spec.isRate && this.spec.windowMillis > 0
    return (isStrict ? this.asked(amount) : known) > this.limit.stated
  }

  /**
   * Whether a budget is used up, and the running calls cannot give enough of it back. What other processes hold of it is unknown, so
   * their amount counts as used once it has not changed for a minute.
   */
  isSpent(now: number, amount: Amount): boolean {
    if (this.spec.windowMillis !== Number.POSITIVE_INFINITY) return false
    const elsewhere = now - this.elsewhereSince >= settledMillis ? this.elsewhere : 0
    return this.usedHere(now) - this.held + elsewhere + this.asked(amount) > this.limitAt(now)
  }

  /** The used share of the limit, by the strictest sum. */
  fill(now: number): number {
    if (!this.spec.isRate) return 0
    let used = this.used(now)
    for (const { counter } of this.sums) used = Math.max(used, counter.used(now))
    return used / this.limitAt(now)
  }

  /** The milliseconds that a call would wait behind the queued ones: whole windows first, then until the rest fits. */
  predict(now: number, amount: Amount): number {
    const asked = this.needs(now, amount)
    if (asked === 0) return 0
    const limit = this.limitAt(now)
    const need = asked + this.queued
    const { windowMillis } = this.spec
    const isWindow = windowMillis > 0 && windowMillis < Number.POSITIVE_INFINITY
    // A call that is behind a full limit of queued amounts starts a window later.
    const windows = isWindow ? Math.ceil(need / limit) - 1 : 0
    const first = need - windows * limit
    const own = Math.min(asked, first)
    const millis = Math.max(
      this.sum.counter.wait(now, first, limit),
      this.burst?.wait(now, own, limit, first - own) ?? 0,
      this.remaining?.wait(now, first, limit) ?? 0
    )
    const all = windows === 0 ? millis : millis + windows * (windowMillis + this.lagMillis + driftMillis)
    return Math.max(all, this.fullFor(now))
  }

  /** Adds the amount of a call to every sum. Returns its portions, which precede `next`. */
  take(now: number, amount: Amount, next: Portion | undefined): Portion | undefined {
    const arrivesBy = now + this.guardMillis
    let portions = next
    for (let sum = 0; sum < this.sums.length; sum++) {
      // The index is within the sums.
      const { counter, mode } = this.sums[sum] as Sum
      const counted = typeof amount === "number" ? amount : this.amountOf(mode, amount)
      const bucket = counter.add(now, counted, arrivesBy)
      const sample = sum === 0 && typeof amount !== "number" ? this.estimate?.sent() : undefined
      const isHeld = sum === this.active
      portions = { dimension: this, sum, isHeld, asked: amount, amount: counted, bucket, sample, next: portions }
      if (isHeld) {
        this.held += counted
        this.concurrency?.sent(portions, this.limit.stated)
        this.burst?.take(now, counted)
        this.remaining?.took(now, counted)
      }
    }
    return portions
  }

  /** Replaces the reserved amount by the actual use. `undefined`: the use is unknown, so the reserved amount stays. */
  settle(now: number, portion: Portion, actual: number | undefined, arrivedBy: number): void {
    const { asked, sample, sum } = portion
    if (sample !== undefined) this.estimate?.ended(sample, actual === undefined ? undefined : usedShare(asked, actual))
    if (portion.isHeld) this.held -= portion.amount
    if (this.spec.windowMillis === 0) {
      this.concurrency?.ended(portion, true, this.limit.stated)
      return this.change(now, portion, 0, arrivedBy)
    }
    const keeps = actual === undefined || this.sums[sum]?.mode === "reserved"
    this.change(now, portion, keeps ? portion.amount : actual, arrivedBy)
  }

  /** Gives the amount back, for a call that was not sent, or that the provider does not count. */
  giveBack(now: number, portion: Portion): void {
    if (portion.sample !== undefined) this.estimate?.ended(portion.sample, undefined)
    if (portion.isHeld) this.held -= portion.amount
    this.concurrency?.ended(portion, false, this.limit.stated)
    this.change(now, portion, 0, Number.POSITIVE_INFINITY)
  }

  /** Learns from a call that was rejected while so many others ran. */
  rejectedAtOnce(now: number, sentAt: number): void {
    if (this.concurrency === undefined) return
    const { stated } = this.limit
    const from = this.concurrency.limit(stated)
    this.concurrency.rejected(sentAt, now)
    const to = this.concurrency.limit(stated)
    if (to !== from) this.onChange({ of: "limit", from, to, why: "Throttled" })
  }

  /**
   * Learns one thing from a rejected call: a stricter mode if one explains it, otherwise a smaller burst if it can be halved,
   * otherwise a lower limit. Returns whether the limit is lower.
   */
  throttled(now: number, sentAt: number): boolean {
    if (!this.limit.isNews(sentAt)) return false
    this.limit.learned(now)
    if (this.learnMode(now)) return false
    const fullAfter = this.burst?.fullAfterMillis
    if (this.burst?.halve(now) === true) {
      this.onChange({ of: "burst", from: fullAfter ?? 0, to: this.burst.fullAfterMillis, why: "Throttled" })
      return false
    }
    const before = this.limit.current
    this.limit.cut(this.used(now))
    if (this.limit.current === before) return false
    this.moved(before, "Throttled")
    return true
  }

  /** Follows the headers of an answer, unless they are of another window. */
  observe(now: number, seen: Seen): void {
    const { limit, remaining, sentAt } = seen
    if (!isOfWindow(seen, this.spec.windowMillis)) return
    if (remaining !== undefined) this.remaining?.observe(now, remaining, sentAt)
    if (limit === undefined || !(limit >= 1)) return
    const before = this.limit.current
    this.limit.follow(limit)
    if (this.limit.current !== before) this.moved(before, "Header")
  }

  /** Adds an amount that no call of this process reserved. */
  record(now: number, amount: number): void {
    for (const { counter } of this.sums) counter.add(now, amount, now)
  }

  /** Sets the stated limit, and forgets the learned one. */
  setLimit(limit: number): void {
    const before = this.limit.current
    this.limit.set(limit)
    if (limit !== before) this.moved(before, "Set")
  }

  private usedElsewhere(now: number): number {
    if (this.concurrency !== undefined) return 0
    return this.elsewhere > 0 && now - this.seenAt <= Math.max(seenMillis, this.spec.windowMillis) ? this.elsewhere : 0
  }

  private moved(from: number, why: Change["why"]): void {
    this.lastMove = this.limit.current
    this.onChange({ of: "limit", from: Math.floor(from), to: Math.floor(this.limit.current), why })
  }

  private get sum(): Sum {
    // There is at least one sum, and `active` is the index of one.
    return this.sums[this.active] as Sum
  }

  private amountOf(mode: Mode, amount: Amount): number {
    if (typeof amount === "number") return amount
    const { atMost, known } = amount
    const ratio = mode === "actual" && this.estimate !== undefined ? this.estimate.ratio : 1
    return Math.ceil(known + ratio * (atMost - known))
  }

  private change(now: number, portion: Portion, counted: number, arrivedBy: number): void {
    const { amount, bucket, sum } = portion
    portion.bucket = this.sums[sum]?.counter.change(now, bucket, amount, counted, arrivedBy) ?? bucket
    portion.amount = counted
    if (this.spec.isRate && arrivedBy < Number.POSITIVE_INFINITY) {
      const bucketMillis = this.spec.windowMillis / bucketsOfWindow
      const lag = this.guardMillis + bucketMillis / 2 - (bucket - portion.bucket) * bucketMillis
      this.lagMillis += 0.05 * (lag - this.lagMillis)
    }
    if (sum === this.active && counted < amount) this.burst?.giveBack(now, amount - counted)
  }

  private learnMode(now: number): boolean {
    const { active, sums } = this
    const limit = this.limitAt(now)
    if (this.mode === "actual" && this.used(now) >= estimatedBadly * limit) return false
    const stricter = sums.findIndex(({ counter }, index) => index > active && counter.used(now) >= explained * limit)
    if (stricter < 0) return false
    this.active = stricter
    return true
  }
}
