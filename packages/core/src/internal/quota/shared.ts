import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import type { Ask, QuotaStore, Verdict } from "../../QuotaStore.ts"
import { callAfter } from "../../Timer.ts"
import { type Account, amountOf } from "./account.ts"
import { Ceilings } from "./ceilings.ts"
import { bucketsOfWindow } from "./counter.ts"
import type { Dimension } from "./dimension.ts"
import type { Hold, SharedSide } from "./hold.ts"
import type { Settings } from "./options.ts"
import { Slice } from "./slice.ts"
import { Unrecorded } from "./unrecorded.ts"

type RequestOf<Verb extends keyof QuotaStore["Service"]> = Parameters<QuotaStore["Service"][Verb]>[0]

/** The state of a hold's request to the store. */
type Asked =
  | { readonly _tag: "Asking" }
  | { readonly _tag: "Granted"; readonly id: string; readonly asks: ReadonlyArray<Ask> }
  | { readonly _tag: "Sliced"; readonly slice: Slice; readonly amounts: ReadonlyArray<number> }
  | { readonly _tag: "Wait"; readonly until: number }
  /** The store is down, so this process decided. */
  | { readonly _tag: "Local"; readonly asks: ReadonlyArray<Ask> }

/** The slices of an account: of a key, or of one tenant of it. */
interface Desk {
  readonly rates: ReadonlyArray<Dimension>
  slice: Slice | undefined
  isAsking: boolean
  /** What the calls of the last slice would have used in one life. */
  uses: ReadonlyArray<number>
  /** The last refusal: no call that needs as much of the limit may fit before. */
  full: { readonly until: number; readonly index: number; readonly amount: number } | undefined
}

export interface SharedOptions {
  readonly settings: Settings
  readonly store: QuotaStore["Service"]
  /** The context of requests to the store and of timers. */
  readonly context: Context.Context<never>
  readonly now: () => number
  /** Asks the queues of an account again. */
  readonly onRoom: (account: Account) => void
  /** Asks all queues again, since the store has answered after an outage. */
  readonly onRecovered: () => void
}

const storeTimeout = Duration.seconds(1)
const downMillis = 1_000
const soonMillis = 50
/** A smaller rest of a slice is given back when its last call has ended, to save a request. */
const restShare = 0.1
/** Settlements that are kept for a store that is down. Without its settlement, a call stays counted as reserved. */
const maxUnsettled = 10_000

/**
 * The requests of a quota to a store that processes share. The queue stays synchronous: a hold at the head starts a request, and is
 * asked again when the answer arrives.
 *
 * Calls that need only rates start from a slice, which the store grants for many calls at once. A call that needs a budget or a
 * place at once is asked for alone. While the store is down, each process uses its slices and then its part of the rates, and budgets
 * refuse. One warning is logged for each outage, and the store is tried again every second.
 */
export class SharedQuotas implements SharedSide {
  isDown = false
  private readonly options: SharedOptions
  private readonly asked = new WeakMap<Hold, Asked>()
  private readonly desks = new WeakMap<Account, Desk>()
  private readonly ceilings: Ceilings
  /** The ids that this process holds, by target. Their leases are renewed. */
  private readonly held = new Map<string, Set<string>>()
  private readonly slices = new Set<Slice>()
  private readonly running = new Set<Fiber.Fiber<unknown, unknown>>()
  /** The calls in flight that this process admitted while the store was down. */
  private readonly local = new Set<Hold>()
  private readonly unrecorded = new Unrecorded()
  private unsettled: Array<{ readonly request: RequestOf<"settle">; readonly at: number }> = []
  private isClosed = false
  private cancelRenewal: (() => void) | undefined = undefined
  private cancelTry: (() => void) | undefined = undefined
  /** Until a reservation is granted. A read-only store answers the request that asks whether the outage is over. */
  private hasWarned = false
  private nextId = 0
  private readonly idPrefix: string

  constructor(options: SharedOptions) {
    this.options = options
    this.ceilings = new Ceilings(options.now, (request) => {
      this.fork(inTime(Effect.suspend(() => options.store.limit(request))), (exit) => {
        if (Exit.isFailure(exit)) this.fail()
      })
    })
    // Ids of processes must differ. `Random` is the context's, so that a test with a seed repeats.
    const random = Context.get(options.context, Random.Random)
    this.idPrefix = `${random.nextIntUnsafe().toString(36)}${random.nextIntUnsafe().toString(36)}`
  }

  // ---------- before a call

  /** Whether the store has granted the hold already, alone or with a slice. */
  isGranted(hold: Hold, now: number): boolean {
    const asked = this.asked.get(hold)
    if (asked !== undefined) return asked._tag === "Granted" || asked._tag === "Sliced"
    const desk = this.desks.get(hold.account)
    return desk?.slice !== undefined && this.usesSlices(hold) && desk.slice.fits(now, askedOf(hold, desk.rates))
  }

  take(hold: Hold, now: number): number {
    const asked = this.asked.get(hold)
    if (asked?._tag === "Granted" || asked?._tag === "Sliced") return 0
    if (asked?._tag === "Asking") return Number.POSITIVE_INFINITY
    const desk = this.usesSlices(hold) ? this.deskOf(hold.account) : undefined
    if (desk !== undefined && this.takeFromSlice(hold, desk, now)) return 0
    if (this.isDown) return this.takeLocal(hold)
    if (asked?._tag === "Wait" && now < asked.until) return asked.until - now
    // An answer of this moment may have told of a rest.
    const restMillis = hold.account.limits.restUntil - now
    if (restMillis > 0) return restMillis
    if (desk === undefined) return this.ask(hold)
    if (desk.isAsking) return Number.POSITIVE_INFINITY
    const { full } = desk
    if (full !== undefined && now < full.until && (askedOf(hold, desk.rates)[full.index] ?? 0) >= full.amount) {
      return full.until - now
    }
    return this.askForSlice(hold, desk, now)
  }

  isAsking(hold: Hold): boolean {
    const asked = this.asked.get(hold)
    // Only the head of a queue asks. Those behind it ask once it has its answer.
    return asked === undefined ? hold.account.limits.asking > 0 : asked._tag === "Asking"
  }

  /** The hold was interrupted or refused before it took the store's grant. */
  abandoned(hold: Hold): void {
    this.settled(hold, undefined, this.options.now())
  }

  private takeFromSlice(hold: Hold, desk: Desk, now: number): boolean {
    const { slice } = desk
    if (slice === undefined) return false
    const amounts = askedOf(hold, desk.rates)
    if (!slice.fits(now, amounts)) return false
    slice.take(amounts)
    this.asked.set(hold, { _tag: "Sliced", slice, amounts })
    return true
  }

  private takeLocal(hold: Hold): number {
    this.asked.set(hold, { _tag: "Local", asks: asksOf(hold, this.options.now()) })
    this.local.add(hold)
    return 0
  }

  // ---------- the end of a call

  settled(hold: Hold, counted: ReadonlyArray<number> | undefined, arrivedBy: number): void {
    const asked = this.asked.get(hold)
    this.asked.delete(hold)
    if (asked?._tag === "Granted") this.settle(hold.key, asked.id, actualOf(asked.asks, counted), arrivedBy)
    else if (asked?._tag === "Sliced") {
      const { amounts, slice } = asked
      const { account: { dimensions } } = hold
      slice.end(amounts, counted?.filter((_, index) => dimensions[index]?.spec.isRate === true), arrivedBy)
      if (!slice.isOpen && slice.calls === 0) this.settleSlice(slice)
    } else if (asked?._tag === "Local") {
      this.local.delete(hold)
      for (const [index, ask] of asked.asks.entries()) {
        this.unrecorded.add(hold.key, ask, counted?.[index] ?? 0, arrivedBy)
      }
    }
  }

  /** A provider has rejected a call: shares the limits that this has lowered, and the Retry-After. */
  throttled({ account: { limits } }: Hold, lowered: ReadonlyArray<Dimension>, restMillis: number): void {
    this.ceilings.share(limits, lowered, restMillis)
  }

  /** Closes the slices, and waits for the requests in flight, for a second at most. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isClosed = true
    this.cancelRenewal?.()
    this.cancelTry?.()
    for (const slice of this.slices) this.closeSlice(slice)
    return Effect.forEach([...this.running], (fiber) => Effect.exit(fiberExit(fiber)), { discard: true }).pipe(
      Effect.timeoutOption(storeTimeout),
      Effect.asVoid
    )
  })

  // ---------- requests for one call

  private ask(hold: Hold): number {
    const { settings: { guardMillis, leaseMillis } } = this.options
    const id = this.makeId()
    const now = this.options.now()
    const asks = asksOf(hold, now)
    this.asked.set(hold, { _tag: "Asking" })
    this.reserve({ target: hold.key, id, leaseMillis, guardMillis, asks }, hold.account, (verdict) => {
      const isWanted = this.asked.get(hold)?._tag === "Asking"
      if (isWanted) this.asked.delete(hold)
      // The store may have granted the request, with only the reply lost.
      if (verdict === undefined) this.settle(hold.key, id, actualOf(asks, undefined), now)
      else {
        const isNews = this.heed(hold.account, hold.account.dimensions, asks, verdict)
        if (!verdict.ok) {
          if (isWanted) this.asked.set(hold, { _tag: "Wait", until: this.options.now() + this.waitOf(verdict) })
        } else if (!isWanted || isNews) this.settle(hold.key, id, actualOf(asks, undefined), now)
        else {
          this.asked.set(hold, { _tag: "Granted", id, asks })
          this.keep(hold.key, id)
        }
      }
    })
    return this.afterAsk(hold)
  }

  private afterAsk(hold: Hold): number {
    if (this.asked.get(hold)?._tag === "Asking") return Number.POSITIVE_INFINITY
    // A store can answer before the hold is in the queue. If it has failed, the hold looks at this process's part of the limits.
    return this.isDown ? 0 : this.take(hold, this.options.now())
  }

  /** A request that was lost, or whose reply was lost, is repeated once with the same id. Then the account is asked again. */
  private reserve(
    request: RequestOf<"reserve">,
    account: Account,
    onVerdict: (verdict: Verdict | undefined) => void
  ): void {
    let isAsking = true
    account.limits.asking++
    const reserve = Effect.retry(Effect.suspend(() => this.options.store.reserve(request)), { times: 1 })
    this.fork(inTime(reserve), (exit) => {
      account.limits.asking--
      if (Exit.isFailure(exit)) this.fail()
      else if (exit.value.ok) this.hasWarned = false
      onVerdict(Exit.isSuccess(exit) ? exit.value : undefined)
      // If the store answers at once, the hold is being asked right now. Asked again, it would take its amounts twice.
      if (!isAsking) this.options.onRoom(account)
    })
    isAsking = false
  }

  /** Notes the sums of all processes, and what others have learned. Returns whether the request was for an outdated limit. */
  private heed(
    { limits }: Account,
    dimensions: ReadonlyArray<Dimension>,
    asks: ReadonlyArray<Ask>,
    { blockedBy, granted, learned, ok, used, waitMillis }: Verdict
  ): boolean {
    const now = this.options.now()
    for (const [index, dimension] of dimensions.entries()) {
      const others = (used[index] ?? 0) - (granted[index] ?? 0)
      dimension.seen(now, others, !ok && index === blockedBy && asks[index]?.windowMillis !== 0 ? waitMillis : 0)
    }
    return this.ceilings.heed(limits, learned)
  }

  // The store does not notify a process of room, so it asks again soon. A random delay spreads the requests of the processes.
  private waitOf({ waitMillis }: Verdict): number {
    const spread = Context.get(this.options.context, Random.Random).nextDoubleUnsafe()
    return Math.ceil(waitMillis > soonMillis ? waitMillis : soonMillis * (1 + spread))
  }

  private settle(
    target: string,
    id: string,
    actual: RequestOf<"settle">["actual"],
    arrivedBy: number,
    keep = false
  ): void {
    if (!keep) this.held.get(target)?.delete(id)
    this.sendSettle({ target, id, actual, keep }, arrivedBy)
  }

  private sendSettle(request: RequestOf<"settle">, at: number): void {
    const agoMillis = Math.max(0, this.options.now() - at)
    this.fork(
      inTime(Effect.suspend(() => this.options.store.settle({ ...request, agoMillis }))),
      (exit) => {
        if (Exit.isSuccess(exit)) return
        if (this.unsettled.length < maxUnsettled) this.unsettled.push({ request, at })
        this.fail()
      }
    )
  }

  // ---------- slices

  /** Whether a call needs only rates: budgets and calls at once are asked for one by one, so that none is kept unused. */
  private usesSlices({ account: { dimensions }, amounts }: Hold): boolean {
    if (this.options.settings.slice === undefined) return false
    for (const { spec } of dimensions) if (!spec.isRate && amountOf(amounts, spec) !== 0) return false
    return true
  }

  private deskOf(account: Account): Desk {
    let desk = this.desks.get(account)
    if (desk === undefined) {
      const rates = account.dimensions.filter(({ spec }) => spec.isRate)
      desk = { rates, slice: undefined, isAsking: false, uses: [], full: undefined }
      this.desks.set(account, desk)
    }
    return desk
  }

  private askForSlice(hold: Hold, desk: Desk, now: number): number {
    const { settings: { guardMillis, leaseMillis, slice } } = this.options
    const lifeMillis = slice?.lifeMillis ?? 0
    const { account, key: target } = hold
    if (desk.slice?.isOpen === true) {
      desk.uses = desk.slice.usesIn(lifeMillis, now)
      this.closeSlice(desk.slice)
    }
    const own = askedOf(hold, desk.rates)
    const asks = desk.rates.map((dimension, index): Ask => {
      const least = own[index] ?? 0
      const limit = dimension.limitAt(now)
      // A queue uses more than the calls before it did. But the burst lets only so much through.
      const queued = account.tenant === undefined ? dimension.queued : 0
      const wanted = Math.min(Math.max(desk.uses[index] ?? 0, queued), dimension.passes(now, lifeMillis))
      const amount = Math.max(least, Math.min(Math.ceil(wanted), Math.floor(limit * (slice?.share ?? 0))))
      return askOf(account, dimension, limit, amount, least)
    })
    const id = this.makeId()
    desk.isAsking = true
    this.asked.set(hold, { _tag: "Asking" })
    // The store counts the slice as arriving after its life, which has begun: no call of it arrives later.
    this.reserve({ target, id, leaseMillis, guardMillis: guardMillis + lifeMillis, asks }, account, (verdict) => {
      desk.isAsking = false
      const isWanted = this.asked.get(hold)?._tag === "Asking"
      if (isWanted) this.asked.delete(hold)
      if (verdict === undefined) this.settle(target, id, actualOf(asks, undefined), now)
      else {
        const isNews = this.heed(account, desk.rates, asks, verdict)
        if (!verdict.ok) {
          const until = this.options.now() + this.waitOf(verdict)
          desk.full = { until, index: verdict.blockedBy, amount: asks[verdict.blockedBy]?.least ?? 0 }
        } else if (isNews) this.settle(target, id, actualOf(asks, undefined), now)
        else {
          const { rates } = desk
          const { granted } = verdict
          const slice = new Slice({ target, id, asks, rates, granted, openedAt: now, until: now + lifeMillis })
          this.openSlice(slice, desk)
          // The guard covers a reply that took longer than the life of the slice.
          if (isWanted) {
            slice.take(own)
            this.asked.set(hold, { _tag: "Sliced", slice, amounts: own })
          }
        }
      }
    })
    return this.afterAsk(hold)
  }

  private openSlice(slice: Slice, desk: Desk): void {
    const { context, now, settings } = this.options
    desk.slice = slice
    desk.full = undefined
    this.slices.add(slice)
    this.keep(slice.target, slice.id)
    slice.cancelTimer = callAfter(context, Math.max(1, slice.until - now()), () => {
      desk.uses = slice.usesIn(settings.slice?.lifeMillis ?? 0, now())
      this.closeSlice(slice)
    })
  }

  /** No more calls start from the slice. Gives the rest back. */
  private closeSlice(slice: Slice): void {
    if (!slice.isOpen) return
    slice.isOpen = false
    slice.cancelTimer?.()
    this.slices.delete(slice)
    if (slice.calls === 0) this.settleSlice(slice)
    else if (slice.rest > restShare) this.settle(slice.target, slice.id, slice.actual, this.options.now(), true)
  }

  private settleSlice(slice: Slice): void {
    this.settle(slice.target, slice.id, slice.actual, Math.min(slice.arrivedBy, this.options.now()))
  }

  // ---------- leases

  private keep(target: string, id: string): void {
    let ids = this.held.get(target)
    if (ids === undefined) this.held.set(target, ids = new Set())
    ids.add(id)
    if (this.cancelRenewal === undefined && !this.isClosed) this.renewLater()
  }

  private renewLater(): void {
    const { context, settings: { leaseMillis }, store } = this.options
    this.cancelRenewal = callAfter(context, leaseMillis / 3, () => {
      this.cancelRenewal = undefined
      for (const [target, ids] of this.held) {
        if (ids.size === 0) this.held.delete(target)
        else {
          this.fork(inTime(store.renew({ target, ids: [...ids], leaseMillis })), (exit) => {
            if (Exit.isFailure(exit)) this.fail()
          })
        }
      }
      if (this.held.size > 0) this.renewLater()
    })
  }

  // ---------- an outage

  private fail(): void {
    if (this.isDown) return
    this.isDown = true
    this.tryLater()
    if (this.hasWarned) return
    this.hasWarned = true
    const { settings: { name } } = this.options
    this.fork(
      Effect.logWarning(
        `${name}: the store of the quota does not answer. This process keeps to its part of the limits`
      ),
      () => {}
    )
  }

  private tryLater(): void {
    if (this.isClosed) return
    this.cancelTry = callAfter(this.options.context, downMillis, () => {
      const ping = inTime(this.options.store.limit({ target: "", dimension: "" }))
      this.fork(Effect.andThen(ping, this.record), (exit) => Exit.isSuccess(exit) ? this.recovered() : this.tryLater())
    })
  }

  /** Tells the store the use of this process while it was down. */
  private readonly record: Effect.Effect<void, unknown> = Effect.suspend(() => {
    const { now, store } = this.options
    const at = now()
    return Effect.forEach(
      this.unrecorded.drain(at),
      ([target, asks]) =>
        Effect.onExit(inTime(store.record({ target, asks })), (exit) =>
          Effect.sync(() => {
            if (Exit.isSuccess(exit)) return
            for (const ask of asks) this.unrecorded.add(target, ask, ask.amount, at - (ask.agoMillis ?? 0))
          })),
      { discard: true, concurrency: "unbounded" }
    )
  })

  private recovered(): void {
    this.isDown = false
    const { unsettled } = this
    const local = [...this.local]
    this.unsettled = []
    this.local.clear()
    // Calls that ended while the record was on its way.
    this.fork(this.record, (exit) => {
      if (Exit.isFailure(exit)) this.fail()
    })
    for (const { at, request } of unsettled) this.sendSettle(request, at)
    for (const hold of local) this.adopt(hold)
    this.options.onRecovered()
  }

  /** Reserves the amounts of a call in flight that began while the store was down. Limits do not apply to it any more. */
  private adopt(hold: Hold): void {
    const asked = this.asked.get(hold)
    if (asked?._tag !== "Local") return
    const { settings: { guardMillis, leaseMillis } } = this.options
    const id = this.makeId()
    const asks = asked.asks.map((ask) => Object.assign({}, ask, { limit: Number.POSITIVE_INFINITY }))
    const granted: Asked = { _tag: "Granted", id, asks }
    this.asked.set(hold, granted)
    this.keep(hold.key, id)
    this.reserve({ target: hold.key, id, leaseMillis, guardMillis, asks }, hold.account, (verdict) => {
      if (verdict !== undefined || this.asked.get(hold) !== granted) return
      this.asked.set(hold, asked)
      this.local.add(hold)
      this.held.get(hold.key)?.delete(id)
    })
  }

  // ----------

  private makeId(): string {
    return `${this.idPrefix}-${this.nextId++}`
  }

  private fork<A, E>(effect: Effect.Effect<A, E>, onExit: (exit: Exit.Exit<A, E>) => void): void {
    const fiber = Effect.runForkWith(this.options.context)(effect)
    this.running.add(fiber)
    fiber.addObserver((exit) => {
      this.running.delete(fiber)
      onExit(exit)
    })
  }
}

/** Runs a request in a fiber that nothing waits for, so that a store that cannot be interrupted does not hold up a call. */
const inTime = <A, E>(request: Effect.Effect<A, E>): Effect.Effect<A, E | Cause.TimeoutError> =>
  Effect.timeout(
    Effect.withFiber(({ context }) =>
      Effect.callback<A, E>((resume) => {
        const fiber = Effect.runForkWith(context)(request)
        fiber.addObserver(resume)
        return Effect.sync(() => fiber.interruptUnsafe())
      })
    ),
    storeTimeout
  )

const fiberExit = (fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    fiber.addObserver(() => resume(Effect.void))
  })

/** What a settlement sends. `counted` undefined: the call was not sent. */
const actualOf = (
  asks: ReadonlyArray<Ask>,
  counted: ReadonlyArray<number> | undefined
): RequestOf<"settle">["actual"] =>
  asks.map(({ dimension, scope }, index) => ({ scope, dimension, amount: counted?.[index] ?? 0 }))

/** The amounts that a hold asks of some dimensions. */
const askedOf = ({ amounts }: Hold, dimensions: ReadonlyArray<Dimension>): ReadonlyArray<number> =>
  dimensions.map((dimension) => dimension.asked(amountOf(amounts, dimension.spec)))

const asksOf = ({ account, amounts }: Hold, now: number): ReadonlyArray<Ask> =>
  account.dimensions.map((dimension) => {
    const amount = dimension.asked(amountOf(amounts, dimension.spec))
    return askOf(account, dimension, dimension.limitOfAll(now), amount, amount)
  })

const askOf = (
  { dimensions, shared, tenant }: Account,
  dimension: Dimension,
  limit: number,
  amount: number,
  least: number
): Ask => {
  const { name, windowMillis } = dimension.spec
  return {
    scope: dimensions.indexOf(dimension) < shared ? "all" : `t:${tenant}`,
    // The mode is part of a sum's name, so that processes in different modes do not mix their sums.
    dimension: `${name}:${dimension.mode}`,
    limit,
    windowMillis,
    quantumMillis: windowMillis > 0 && windowMillis < Number.POSITIVE_INFINITY ? windowMillis / sharedBuckets : 1,
    amount,
    least
  }
}

/** A window of a shared store has fewer buckets, since a script reads each one. */
const sharedBuckets = bucketsOfWindow / 4
