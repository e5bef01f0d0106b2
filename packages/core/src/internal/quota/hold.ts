import * as Duration from "effect/Duration"
import type { Amounts, QuotaExceeded as Exceeded, Used } from "../../Quota.ts"
import { withoutStack } from "../../Refusal.ts"
import type { Why } from "../permits/permits.ts"
import type { Ticket } from "../permits/ticket.ts"
import { type Account, amountOf } from "./account.ts"
import type { Dimension, Portion } from "./dimension.ts"
import { QuotaExceeded } from "./exceeded.ts"

/** What a hold needs of its quota. */
export interface HoldHost {
  readonly name: string
  readonly overtake: number
  readonly refusesEstimates: boolean
  readonly now: () => number
  /** A time of the clock on the scale of `now`. */
  readonly at: (epochMillis: number) => number
  readonly counts: Record<"reserved" | "settled" | "refunded" | "throttled", number>
  /** Something of these limits was given back, or may be. */
  readonly onRoom: (account: Account) => void
  readonly onExceeded: (why: Exceeded["why"]) => void
  readonly shared: SharedSide | undefined
}

/** The part of a hold that a shared store has to agree to. */
export interface SharedSide {
  /** 0 if the store has agreed. Otherwise the milliseconds until it is worth asking again; Infinity while it is asked; -1 if it is down and must agree. */
  readonly take: (hold: Hold, now: number) => number
  readonly settled: (hold: Hold, actual: Used | undefined) => void
  readonly abandoned: (hold: Hold) => void
  readonly isAsking: (hold: Hold) => boolean
  readonly isDown: boolean
}

const noneUsed: Used = {}
const mostOfAll = 0.9

/**
 * The amounts of one attempt: asked for, reserved, then settled once. It reserves all dimensions or none, in one synchronous
 * step, and gives back what was reserved if the attempt never began.
 */
export class Hold implements Ticket {
  readonly account: Account
  readonly amounts: Amounts
  readonly overtake: number
  isRowBlocked = false
  /** When the call must have begun, in epoch milliseconds. */
  deadlineAt: number | undefined = undefined
  /** It asks whether there is room, and takes nothing. */
  readonly isLook: boolean
  sentAt = 0
  private state: "Idle" | "Reserved" | "Begun" | "Done" = "Idle"
  private portions: ReadonlyArray<Portion> = []
  private blockedBy: Dimension | undefined = undefined
  private why: Exceeded["why"] | undefined = undefined
  private cachedSize = -1
  /** It may wait for an answer of the store, and for nothing else. */
  private isImmediate = false
  private queuedAmounts: ReadonlyArray<number> = []
  private readonly host: HoldHost

  constructor(host: HoldHost, account: Account, amounts: Amounts, isLook = false) {
    this.host = host
    this.account = account
    this.amounts = amounts
    this.overtake = host.overtake
    this.isLook = isLook
  }

  get lane(): string {
    return this.account.limits.key
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
    let ofKey = Math.max(0, limits.restUntil - now)
    let ofRow = 0
    this.blockedBy = undefined
    if (ofKey > 0) this.blockedBy = dimensions[0]
    for (let index = 0; index < dimensions.length; index++) {
      // The index is within the dimensions.
      const dimension = dimensions[index] as Dimension
      const amount = amountOf(amounts, dimension.spec)
      if (dimension.isTooLarge(amount, host.refusesEstimates)) return this.never(dimension, "TooLarge")
      const wait = dimension.wait(now, amount)
      if (wait === 0) continue
      if (wait === Number.POSITIVE_INFINITY && dimension.isSpent(now, amount)) return this.never(dimension, "Spent")
      if (wait > Math.max(ofKey, ofRow)) this.blockedBy = dimension
      if (index < shared) ofKey = Math.max(ofKey, wait)
      else ofRow = Math.max(ofRow, wait)
    }
    this.isRowBlocked = ofKey === 0 && ofRow > 0
    const wait = Math.max(ofKey, ofRow)
    if (wait > 0 && this.isImmediate) return this.never(this.blockedBy ?? dimensions[0] as Dimension, "Full")
    if (wait > 0) return Math.max(1, Math.ceil(wait))
    if (this.isLook) return 0
    if (host.shared !== undefined) {
      const wasDown = host.shared.isDown
      const byStore = host.shared.take(this, now)
      // The store failed at once: from here on this process's part of the limits counts.
      if (byStore === 0 && !wasDown && host.shared.isDown) return this.tryTake()
      if (byStore !== 0) {
        // There is at least one dimension.
        const first = dimensions[0] as Dimension
        this.blockedBy ??= first
        if (byStore < 0) {
          return this.never(dimensions.find(({ spec }) => spec.whenStoreFails === "refuse") ?? first, "StoreDown")
        }
        return this.isImmediate && byStore < Number.POSITIVE_INFINITY ? this.never(this.blockedBy, "Full") : byStore
      }
    }
    // New, since an attempt that waited for its circuit takes again what it had given back.
    const portions: Array<Portion> = []
    for (let index = 0; index < dimensions.length; index++) {
      const dimension = dimensions[index] as Dimension
      dimension.take(now, amountOf(amounts, dimension.spec), portions)
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
    // It waits for the answer of the store, not for room.
    this.isImmediate = maxWaitMillis === 0 && this.isPending
    if (this.why !== undefined) return this.why === "TooLarge" ? "TooLarge" : "Full"
    const now = this.host.now()
    const millis = this.predict(now)
    // What is held at once can come back at any time.
    if (millis === 0 || millis === Number.POSITIVE_INFINITY) return undefined
    if (this.deadlineAt !== undefined && now + millis >= this.host.at(this.deadlineAt)) {
      this.why = "Deadline"
      return "MaxWait"
    }
    return maxWaitMillis !== undefined && maxWaitMillis > 0 && millis > maxWaitMillis ? "MaxWait" : undefined
  }

  queued(): void {
    this.account.inUse++
    if (this.isLook) return
    const { account: { dimensions }, amounts } = this
    // Kept, since an estimate may have moved when the call leaves the queue.
    this.queuedAmounts = dimensions.map((dimension) => dimension.asked(amountOf(amounts, dimension.spec)))
    for (const [index, amount] of this.queuedAmounts.entries()) (dimensions[index] as Dimension).queued += amount
  }

  left(): void {
    this.account.inUse--
    if (this.state !== "Reserved") this.host.shared?.abandoned(this)
    for (const [index, amount] of this.queuedAmounts.entries()) {
      const dimension = this.account.dimensions[index]
      if (dimension !== undefined) dimension.queued -= amount
    }
  }

  /** The refusal, if it was the quota that had no room. */
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

  // ---------- the call: the first of these counts

  /** The call begins: from here on what was reserved may be used. */
  begun(): void {
    if (this.state === "Reserved") this.state = "Begun"
  }

  /** Records what was used. What is not named stays as reserved. `arrivedBy`: when the provider had surely got the call. */
  settle(actual: Used = noneUsed, arrivedBy?: number): void {
    if (!this.end()) return
    const now = this.host.now()
    const arrived = arrivedBy === undefined ? now : Math.min(now, this.host.at(arrivedBy))
    for (const portion of this.portions) {
      const used = actual[portion.dimension.spec.name]
      portion.dimension.settle(now, portion, used, arrived)
    }
    this.host.counts.settled++
    this.host.shared?.settled(this, actual)
    this.host.onRoom(this.account)
  }

  /** Gives everything back: the call was not sent. */
  refund(): void {
    if (!this.end()) return
    const now = this.host.now()
    for (const portion of this.portions) portion.dimension.giveBack(now, portion)
    this.host.counts.refunded++
    this.host.shared?.settled(this, undefined)
    this.host.onRoom(this.account)
  }

  /** The provider rejected the call for its rate: the request counts, its tokens do not. Teaches the fullest limits. */
  throttled(retryAfterMillis: number | undefined): void {
    if (!this.end()) return
    const { account: { dimensions, limits, shared }, host } = this
    const now = host.now()
    let fullest = 0
    for (let index = 0; index < shared; index++) fullest = Math.max(fullest, dimensions[index]?.fill(now) ?? 0)
    for (let index = 0; index < shared; index++) {
      const dimension = dimensions[index] as Dimension
      if (dimension.spec.isRate && dimension.fill(now) >= fullest * mostOfAll) dimension.throttled(now, this.sentAt)
    }
    for (const portion of this.portions) {
      if (portion.dimension.spec.perCall > 0) portion.dimension.settle(now, portion, undefined, now)
      else portion.dimension.giveBack(now, portion)
    }
    if (retryAfterMillis !== undefined) limits.restUntil = Math.max(limits.restUntil, now + retryAfterMillis)
    host.counts.throttled++
    host.shared?.settled(this, undefined)
    host.onRoom(this.account)
  }

  ended(): void {
    if (this.state === "Reserved") this.refund()
    else if (this.state === "Begun") this.settle()
    // What a shared store may still grant is not wanted any more.
    else this.host.shared?.abandoned(this)
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

  /** How long it would wait behind the queued calls. */
  private predict(now: number): number {
    const { dimensions, limits } = this.account
    let millis = Math.max(0, limits.restUntil - now)
    for (const dimension of dimensions) millis = Math.max(millis, this.predictOf(dimension, now))
    return Math.ceil(millis)
  }

  private predictOf(dimension: Dimension, now: number): number {
    return dimension.predict(now, amountOf(this.amounts, dimension.spec))
  }

  /** The dimension that it would wait for. `undefined` if it waits for calls that wait for permits. */
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
