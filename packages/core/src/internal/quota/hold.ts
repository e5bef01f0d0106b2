import * as Duration from "effect/Duration"
import type { Amounts, QuotaExceeded as Exceeded, Used } from "../../Quota.ts"
import { withoutStack } from "../../Refusal.ts"
import type { Why } from "../permits/permits.ts"
import type { Ticket } from "../permits/ticket.ts"
import { type Account, amountOf } from "./account.ts"
import type { Dimension, Portion } from "./dimension.ts"
import { QuotaExceeded } from "./exceeded.ts"

/** The parts of a quota that its holds use. */
export interface HoldHost {
  readonly name: string
  readonly overtake: number
  /** How many processes share the store. */
  readonly processes: number
  readonly refusesEstimates: boolean
  readonly now: () => number
  /** Converts a time of the clock to the scale of `now`. */
  readonly at: (epochMillis: number) => number
  readonly counts: Record<"reserved" | "settled" | "refunded" | "throttled", number>
  /** Asks waiting calls again, since an amount of the account may have been given back. */
  readonly onRoom: (account: Account) => void
  readonly onExceeded: (why: Exceeded["why"]) => void
  readonly shared: SharedSide | undefined
}

/** The side of a quota that a shared store decides. */
export interface SharedSide {
  /**
   * 0 if the store has granted the hold, or is down. Otherwise the milliseconds until the next request; Infinity while a request is
   * in flight.
   */
  readonly take: (hold: Hold, now: number) => number
  /** Whether the store has granted it already. */
  readonly isGranted: (hold: Hold, now: number) => boolean
  /** `counted`: its use of each dimension. `undefined`: it was not sent. */
  readonly settled: (hold: Hold, counted: ReadonlyArray<number> | undefined, arrivedBy: number) => void
  /** A rejected call has lowered limits, and lets the key rest. */
  readonly throttled: (hold: Hold, lowered: ReadonlyArray<Dimension>, restMillis: number) => void
  readonly abandoned: (hold: Hold) => void
  readonly isAsking: (hold: Hold) => boolean
  readonly isDown: boolean
}

const noAmounts: ReadonlyArray<number> = []
const mostOfAll = 0.9

/** A used amount as a whole number. `undefined` for what is no amount, such as NaN: it would make the sum useless. */
const amountIn = (used: number | undefined): number | undefined =>
  used !== undefined && used >= 0 && used <= Number.MAX_SAFE_INTEGER ? Math.ceil(used) : undefined

/**
 * The amounts of one attempt: requested, reserved, then settled once. It reserves all dimensions or none, in one synchronous step,
 * and gives them back if the attempt never began.
 */
export class Hold implements Ticket {
  // Declared, and assigned by the constructor: fields with initializers cost 5 ns each.

  declare readonly account: Account
  declare readonly amounts: Amounts
  declare isRowBlocked: boolean
  /** When the call must have begun, in epoch milliseconds. */
  declare deadlineAt: number | undefined
  /** Whether it only checks for room, and reserves nothing. */
  declare readonly isLook: boolean
  declare sentAt: number
  /** The limit that it waited for last, and how long it has queued. `undefined` if it never queued. */
  declare waited: { dimension: string; since: number; millis: number } | undefined
  declare private state: "Idle" | "Reserved" | "Begun" | "Done"
  declare private portions: Portion | undefined
  declare private blockedBy: Dimension | undefined
  declare private why: Exceeded["why"] | undefined
  declare private cachedSize: number
  /** Whether it may wait for the answer of the store, but not for room. */
  declare private isImmediate: boolean
  declare private queuedAmounts: ReadonlyArray<number>
  declare private readonly host: HoldHost

  constructor(host: HoldHost, account: Account, amounts: Amounts, isLook = false) {
    this.host = host
    this.account = account
    this.amounts = amounts
    this.isLook = isLook
    this.isRowBlocked = false
    this.deadlineAt = undefined
    this.sentAt = Number.NEGATIVE_INFINITY
    this.waited = undefined
    this.state = "Idle"
    this.portions = undefined
    this.blockedBy = undefined
    this.why = undefined
    this.cachedSize = -1
    this.isImmediate = false
    this.queuedAmounts = noAmounts
  }

  get overtake(): number {
    return this.host.overtake
  }

  get key(): string {
    return this.account.limits.key
  }

  get lane(): string {
    return this.account.limits.lane
  }

  get row(): string {
    return this.account.tenant ?? ""
  }

  get size(): number {
    if (this.cachedSize < 0) this.cachedSize = this.sizeNow()
    return this.cachedSize
  }

  // ---------- before the call

  tryTake(): number {
    const { account: { dimensions, limits, shared }, amounts, host } = this
    const now = host.now()
    const isAlone = host.shared?.isDown === true && !host.shared.isGranted(this, now)
    const budget = isAlone
      ? dimensions.find(({ spec }) => spec.whenStoreFails === "refuse" && amountOf(amounts, spec) !== 0)
      : undefined
    if (budget !== undefined) return this.never(budget, "StoreDown")
    const share = isAlone ? 1 / host.processes : 1
    let ofKey = Math.max(0, limits.restUntil - now)
    let ofRow = 0
    this.blockedBy = undefined
    if (ofKey > 0) this.blockedBy = dimensions[0]
    for (let index = 0; index < dimensions.length; index++) {
      // The index is within the dimensions.
      const dimension = dimensions[index] as Dimension
      const amount = amountOf(amounts, dimension.spec)
      const asked = dimension.asked(amount)
      if (asked > dimension.limit.stated && dimension.isTooLarge(amount, host.refusesEstimates)) {
        return this.never(dimension, "TooLarge")
      }
      const wait = dimension.wait(now, asked, share)
      if (wait === 0) continue
      if (wait === Number.POSITIVE_INFINITY && dimension.isSpent(now, amount)) return this.never(dimension, "Spent")
      if (wait > Math.max(ofKey, ofRow)) this.blockedBy = dimension
      if (index < shared) ofKey = Math.max(ofKey, wait)
      else ofRow = Math.max(ofRow, wait)
    }
    this.isRowBlocked = ofKey === 0 && ofRow > 0
    const wait = Math.max(ofKey, ofRow)
    if (wait > 0 && this.isImmediate) return this.never(this.blockedBy ?? dimensions[0] as Dimension, "Full")
    if (wait > 0) {
      if (this.waited !== undefined && this.blockedBy !== undefined) this.waited.dimension = this.blockedBy.spec.name
      return Math.max(1, Math.ceil(wait))
    }
    if (this.isLook) return host.shared === undefined || host.shared.isDown ? 0 : this.fullElsewhere(now)
    if (host.shared !== undefined) {
      const wasDown = host.shared.isDown
      const byStore = host.shared.take(this, now)
      // The store failed at once, so this process's part of the limits applies now.
      if (byStore === 0 && !wasDown && host.shared.isDown) return this.tryTake()
      if (byStore !== 0) {
        // There is at least one dimension.
        this.blockedBy ??= dimensions.find((one) => one.fullFor(now) > 0) ?? dimensions[0] as Dimension
        const spent = dimensions.find((one) => one.isSpent(now, amountOf(amounts, one.spec)))
        if (spent !== undefined && byStore < Number.POSITIVE_INFINITY) return this.never(spent, "Spent")
        if (this.isImmediate && byStore < Number.POSITIVE_INFINITY) return this.never(this.blockedBy, "Full")
        return Math.max(1, Math.ceil(byStore))
      }
    }
    // A new list: an attempt that waited for its circuit gave its first portions back.
    let portions: Portion | undefined
    for (let index = 0; index < dimensions.length; index++) {
      const dimension = dimensions[index] as Dimension
      portions = dimension.take(now, amountOf(amounts, dimension.spec), portions)
    }
    this.portions = portions
    this.sentAt = now
    this.state = "Reserved"
    this.account.inUse++
    host.counts.reserved++
    return 0
  }

  get isPending(): boolean {
    return this.host.shared?.isAsking(this) ?? false
  }

  outlook(maxWaitMillis: number | undefined): Why | undefined {
    // With a wait of 0 it may still wait for an answer of the store that is on its way.
    this.isImmediate = maxWaitMillis === 0 && this.isPending
    if (this.why !== undefined) return this.why === "TooLarge" ? "TooLarge" : "Full"
    const now = this.host.now()
    const millis = this.predict(now)
    // A call at once can end at any time.
    if (millis === 0 || millis === Number.POSITIVE_INFINITY) return undefined
    if (this.deadlineAt !== undefined && now + millis >= this.host.at(this.deadlineAt)) {
      this.why = "Deadline"
      return "MaxWait"
    }
    return maxWaitMillis !== undefined && maxWaitMillis > 0 && millis > maxWaitMillis ? "MaxWait" : undefined
  }

  queued(): void {
    this.account.inUse++
    const now = this.host.now()
    // Without a limit that lacks room it waits only for permits.
    const blocking = this.blockedBy ?? this.slowest(now)
    if (blocking !== undefined) this.waited = { dimension: blocking.spec.name, since: now, millis: 0 }
    if (this.isLook) return
    const { account: { dimensions }, amounts } = this
    // Kept, since the estimate may have changed when the call leaves the queue.
    this.queuedAmounts = dimensions.map((dimension) => dimension.needs(now, amountOf(amounts, dimension.spec)))
    for (const [index, amount] of this.queuedAmounts.entries()) (dimensions[index] as Dimension).queued += amount
  }

  left(): void {
    this.account.inUse--
    if (this.waited !== undefined) this.waited.millis = this.host.now() - this.waited.since
    if (this.state !== "Reserved") this.host.shared?.abandoned(this)
    for (const [index, amount] of this.queuedAmounts.entries()) {
      const dimension = this.account.dimensions[index]
      if (dimension !== undefined) dimension.queued -= amount
    }
  }

  /** The refusal, if the quota had no room. */
  refusal(why: Why, queued: number, waitedMillis: number | undefined): QuotaExceeded | undefined {
    const dimension = this.blockedBy ?? this.slowest(this.host.now())
    return dimension === undefined ? undefined : this.refusalBy(dimension, why, queued, waitedMillis)
  }

  /** The refusal of a quota that is used without permits. */
  refusalAlone(why: Why, queued: number, waitedMillis: number | undefined): QuotaExceeded {
    // There is at least one dimension.
    const dimension = this.blockedBy ?? this.slowest(this.host.now()) ?? this.account.dimensions[0] as Dimension
    return this.refusalBy(dimension, why, queued, waitedMillis)
  }

  private refusalBy(
    dimension: Dimension,
    why: Why,
    queued: number,
    waitedMillis: number | undefined
  ): QuotaExceeded {
    const { host } = this
    const now = host.now()
    const { spec: { name, windowMillis } } = dimension
    const reason = this.why ?? why
    const isFinal = reason === "TooLarge" || reason === "Spent" || reason === "Draining"
    const retryMillis = isFinal ? Number.POSITIVE_INFINITY : this.predict(now)
    host.onExceeded(reason)
    return withoutStack(() =>
      new QuotaExceeded({
        policy: host.name,
        why: reason,
        dimension: name,
        asked: dimension.asked(amountOf(this.amounts, dimension.spec)),
        used: dimension.used(now),
        limit: dimension.limitAt(now),
        ...(windowMillis === Number.POSITIVE_INFINITY ? undefined : { windowMillis }),
        queued,
        ...(waitedMillis === undefined ? undefined : { waited: Duration.millis(waitedMillis) }),
        ...(retryMillis > 0 && retryMillis < Number.POSITIVE_INFINITY
          ? { retryAfter: Duration.millis(retryMillis) }
          : undefined)
      })
    )
  }

  // ---------- the end of the call: only the first of settle, refund and throttled takes effect

  /** The call begins: from here on the reserved amounts may be used. */
  begun(): void {
    if (this.state === "Reserved") this.state = "Begun"
  }

  get isBegun(): boolean {
    return this.state === "Begun"
  }

  /** Records the actual use. Amounts that it does not name stay reserved. `arrivedBy`: the latest time of the call's arrival. */
  settle(actual?: Used, arrivedBy: number = Number.POSITIVE_INFINITY): void {
    if (!this.end()) return
    const now = this.host.now()
    const arrivedAt = this.host.at(arrivedBy)
    const arrived = arrivedAt < now ? arrivedAt : now
    for (let portion = this.portions; portion !== undefined; portion = portion.next) {
      portion.dimension.settle(now, portion, amountIn(actual?.[portion.dimension.spec.name]), arrived)
    }
    this.host.counts.settled++
    this.host.shared?.settled(this, this.counted, arrived)
    this.host.onRoom(this.account)
  }

  /** Gives everything back, for a call that was not sent. */
  refund(): void {
    if (!this.end()) return
    const now = this.host.now()
    for (let portion = this.portions; portion !== undefined; portion = portion.next) {
      portion.dimension.giveBack(now, portion)
    }
    this.host.counts.refunded++
    this.host.shared?.settled(this, undefined, now)
    this.host.onRoom(this.account)
  }

  /** Records that the provider rejected the call for its rate: only its request counts. The fullest limits learn from it. */
  throttled(retryAfterMillis: number | undefined): void {
    if (!this.end()) return
    const { account: { dimensions, limits, shared }, host } = this
    const now = host.now()
    let fullest = 0
    for (let index = 0; index < shared; index++) fullest = Math.max(fullest, dimensions[index]?.fill(now) ?? 0)
    const lowered: Array<Dimension> = []
    for (let index = 0; index < shared; index++) {
      const dimension = dimensions[index] as Dimension
      if (!dimension.spec.isRate || dimension.fill(now) < fullest * mostOfAll) continue
      if (dimension.throttled(now, this.sentAt)) lowered.push(dimension)
    }
    for (let portion = this.portions; portion !== undefined; portion = portion.next) {
      const { dimension } = portion
      // A rate that is nearly full explains the rejection, so the calls at once do not.
      if (fullest < mostOfAll) dimension.rejectedAtOnce(now, this.sentAt)
      if (dimension.spec.perCall > 0 && dimension.spec.windowMillis > 0) dimension.settle(now, portion, undefined, now)
      else dimension.giveBack(now, portion)
    }
    const restMillis = retryAfterMillis !== undefined && now + retryAfterMillis > limits.restUntil
      ? retryAfterMillis
      : 0
    limits.restUntil = Math.max(limits.restUntil, now + restMillis)
    host.counts.throttled++
    if (host.shared !== undefined) {
      host.shared.settled(this, this.counted, now)
      host.shared.throttled(this, lowered, restMillis)
    }
    host.onRoom(this.account)
  }

  ended(): void {
    if (this.state === "Reserved") this.refund()
    else if (this.state === "Begun") this.settle()
    // A grant that a shared store may still send is given back.
    else this.host.shared?.abandoned(this)
  }

  /** The amounts that count after its end, of each dimension. */
  private get counted(): ReadonlyArray<number> {
    const amounts: Array<number> = []
    for (let portion = this.portions; portion !== undefined; portion = portion.next) {
      if (portion.isHeld) amounts.push(portion.amount)
    }
    // The portions of the last dimension come first.
    return amounts.toReversed()
  }

  private fullElsewhere(now: number): number {
    let millis = 0
    for (const dimension of this.account.dimensions) millis = Math.max(millis, dimension.fullFor(now))
    return Math.ceil(millis)
  }

  private end(): boolean {
    if (this.state !== "Reserved" && this.state !== "Begun") return false
    this.state = "Done"
    this.account.inUse--
    return true
  }

  private never(dimension: Dimension, why: "TooLarge" | "Spent" | "StoreDown" | "Full"): number {
    this.blockedBy = dimension
    this.why = why
    return -1
  }

  /** The milliseconds that it would wait now. Infinity if it would be refused; `undefined` if a running call has to end first. */
  expectedWait(): number | undefined {
    const now = this.host.now()
    for (const dimension of this.account.dimensions) {
      const amount = amountOf(this.amounts, dimension.spec)
      if (dimension.isTooLarge(amount, this.host.refusesEstimates) || dimension.isSpent(now, amount)) {
        return Number.POSITIVE_INFINITY
      }
    }
    const millis = this.predict(now)
    return millis === Number.POSITIVE_INFINITY ? undefined : millis
  }

  /** The milliseconds that it would wait behind the queued calls. */
  private predict(now: number): number {
    const { dimensions, limits } = this.account
    let millis = Math.max(0, limits.restUntil - now)
    for (const dimension of dimensions) millis = Math.max(millis, this.predictOf(dimension, now))
    return Math.ceil(millis)
  }

  private predictOf(dimension: Dimension, now: number): number {
    return dimension.predict(now, amountOf(this.amounts, dimension.spec))
  }

  /** The dimension with the longest wait. `undefined` if it waits only for calls that wait for permits. */
  private slowest(now: number): Dimension | undefined {
    let slowest: Dimension | undefined
    let millis = 0
    for (const dimension of this.account.dimensions) {
      const wait = this.predictOf(dimension, now)
      if (wait > millis) {
        slowest = dimension
        millis = wait
      }
    }
    return slowest
  }

  private sizeNow(): number {
    const now = this.host.now()
    let size = 0
    for (const dimension of this.account.dimensions) {
      size = Math.max(size, dimension.asked(amountOf(this.amounts, dimension.spec)) / dimension.limitAt(now))
    }
    return size
  }
}
