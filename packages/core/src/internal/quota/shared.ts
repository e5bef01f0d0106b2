import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import type { Used } from "../../Quota.ts"
import type { Ask, QuotaStore } from "../../QuotaStore.ts"
import { callAfter } from "../../Timer.ts"
import { bucketsOfWindow } from "./counter.ts"
import type { Dimension } from "./dimension.ts"
import { amountOf } from "./account.ts"
import type { Hold, SharedSide } from "./hold.ts"
import type { Settings } from "./options.ts"

type Reserve = Parameters<QuotaStore["Service"]["reserve"]>[0]

/** The state of a hold's request to the store. */
type Asked =
  | { readonly _tag: "Asking" }
  | { readonly _tag: "Granted"; readonly id: string; readonly asks: ReadonlyArray<Ask> }
  | { readonly _tag: "Wait"; readonly until: number }

export interface SharedOptions {
  readonly settings: Settings
  readonly store: QuotaStore["Service"]
  readonly clock: Clock.Clock
  /** The context of requests to the store and of timers. */
  readonly context: Context.Context<never>
  readonly now: () => number
  /** Called when the store has answered a hold, so that its queue asks it again. */
  readonly onAnswer: (hold: Hold) => void
}

const storeTimeout = Duration.seconds(1)
const downMillis = 1_000
const soonMillis = 50

/**
 * The requests of a quota to a store that processes share. The queue stays synchronous: a hold at the head starts a request, and is
 * asked again when the answer arrives. While the store is down, each process uses its part of the rates, and budgets refuse. One
 * warning is logged for each outage, and the store is tried again after a second.
 */
export class SharedQuotas implements SharedSide {
  private readonly options: SharedOptions
  private readonly asked = new WeakMap<Hold, Asked>()
  /** The ids that this process holds, by target. Their leases are renewed. */
  private readonly held = new Map<string, Set<string>>()
  private readonly running = new Set<Fiber.Fiber<unknown, unknown>>()
  /** The use while the store was down, by target: one entry for each sum. */
  private readonly unrecorded = new Map<string, Map<string, Ask>>()
  private downUntil = Number.NEGATIVE_INFINITY
  private hasWarned = false
  private isRenewing = false
  private nextId = 0
  private readonly idPrefix: string

  constructor(options: SharedOptions) {
    this.options = options
    // Ids of processes must differ. `Random` is the context's, so that a test with a seed repeats.
    const random = Context.get(options.context, Random.Random)
    this.idPrefix = `${random.nextIntUnsafe().toString(36)}${random.nextIntUnsafe().toString(36)}`
  }

  get isDown(): boolean {
    return this.options.now() < this.downUntil
  }

  take(hold: Hold, now: number): number {
    if (now < this.downUntil) return hold.account.dimensions.some((one) => refuses(one, hold)) ? -1 : 0
    const asked = this.asked.get(hold)
    if (asked === undefined) return this.ask(hold)
    if (asked._tag === "Asking") return Number.POSITIVE_INFINITY
    if (asked._tag === "Granted") return 0
    return now < asked.until ? asked.until - now : this.ask(hold)
  }

  isAsking(hold: Hold): boolean {
    return this.asked.get(hold)?._tag === "Asking"
  }

  settled(hold: Hold, actual: Used | undefined): void {
    const asked = this.asked.get(hold)
    this.asked.delete(hold)
    if (asked?._tag === "Granted") this.release(hold.lane, asked.id, asked.asks, actual)
    else if (asked === undefined) this.keepForLater(hold, actual)
  }

  /** The hold was interrupted or refused before it took the store's grant. */
  abandoned(hold: Hold): void {
    const asked = this.asked.get(hold)
    this.asked.delete(hold)
    if (asked?._tag === "Granted") this.release(hold.lane, asked.id, asked.asks, undefined)
  }

  /** Waits for the requests in flight, for a second at most. */
  readonly flush: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach([...this.running], (fiber) => Effect.exit(fiberExit(fiber)), { discard: true }).pipe(
      Effect.timeoutOption(storeTimeout),
      Effect.asVoid
    )
  )

  private ask(hold: Hold): number {
    const { settings: { guardMillis, leaseMillis }, store } = this.options
    const id = `${this.idPrefix}-${this.nextId++}`
    const request: Reserve = { target: hold.lane, id, leaseMillis, guardMillis, asks: asksOf(hold, this.options.now()) }
    this.asked.set(hold, { _tag: "Asking" })
    this.fork(Effect.timeout(store.reserve(request), storeTimeout), (exit) => {
      const isWanted = this.asked.get(hold)?._tag === "Asking"
      if (Exit.isFailure(exit)) {
        this.asked.delete(hold)
        this.fail()
        // The store may have granted the request, with only the reply lost.
        this.release(hold.lane, id, request.asks, undefined)
      } else if (!exit.value.ok) {
        if (isWanted) {
          this.asked.set(hold, { _tag: "Wait", until: this.options.now() + this.waitOf(exit.value.waitMillis) })
        }
        this.recover()
      } else if (isWanted) {
        this.asked.set(hold, { _tag: "Granted", id, asks: request.asks })
        this.keep(hold.lane, id)
        this.recover()
      } else this.release(hold.lane, id, request.asks, undefined)
      this.options.onAnswer(hold)
    })
    // A store can answer before the hold is in the queue.
    return this.isAsking(hold) ? Number.POSITIVE_INFINITY : this.take(hold, this.options.now())
  }

  // The store does not notify a process of room, so it asks again soon. A random delay spreads the requests of the processes.
  private waitOf(millis: number): number {
    const spread = Context.get(this.options.context, Random.Random).nextDoubleUnsafe()
    return Math.max(1, Math.ceil(millis <= soonMillis ? soonMillis * (1 + spread) : millis))
  }

  /** Settles an id in the store. Without `actual` it gives everything back. */
  private release(target: string, id: string, asks: ReadonlyArray<Ask>, actual: Used | undefined): void {
    this.held.get(target)?.delete(id)
    const amounts = asks.flatMap(({ dimension, scope }) => {
      const amount = actual === undefined ? 0 : actual[nameOf(dimension)]
      return amount === undefined ? [] : [{ scope, dimension, amount }]
    })
    // If the request fails, amounts in windows stay reserved, and the end of the lease frees calls at once.
    this.fork(Effect.timeout(this.options.store.settle({ target, id, actual: amounts }), storeTimeout), () => {})
  }

  private keep(target: string, id: string): void {
    let ids = this.held.get(target)
    if (ids === undefined) this.held.set(target, ids = new Set())
    ids.add(id)
    if (!this.isRenewing) this.renewLater()
  }

  private renewLater(): void {
    const { context, settings: { leaseMillis }, store } = this.options
    this.isRenewing = true
    callAfter(context, leaseMillis / 3, () => {
      this.isRenewing = false
      for (const [target, ids] of this.held) {
        if (ids.size === 0) this.held.delete(target)
        else this.fork(Effect.timeout(store.renew({ target, ids: [...ids], leaseMillis }), storeTimeout), () => {})
      }
      if (this.held.size > 0) this.renewLater()
    })
  }

  private keepForLater(hold: Hold, actual: Used | undefined): void {
    if (actual === undefined) return
    let sums = this.unrecorded.get(hold.lane)
    if (sums === undefined) this.unrecorded.set(hold.lane, sums = new Map())
    for (const ask of asksOf(hold, this.options.now())) {
      if (ask.windowMillis === 0) continue
      const address = JSON.stringify([ask.scope, ask.dimension, ask.windowMillis])
      const amount = (sums.get(address)?.amount ?? 0) + (actual[nameOf(ask.dimension)] ?? ask.amount)
      sums.set(address, { ...ask, amount })
    }
  }

  private fail(): void {
    this.downUntil = this.options.now() + downMillis
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

  private recover(): void {
    this.hasWarned = false
    for (const [target, sums] of this.unrecorded) {
      this.unrecorded.delete(target)
      this.fork(this.options.store.record({ target, asks: [...sums.values()] }), () => {})
    }
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

const fiberExit = (fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    fiber.addObserver(() => resume(Effect.void))
  })

const refuses = ({ spec }: Dimension, hold: Hold): boolean =>
  spec.whenStoreFails === "refuse" && amountOf(hold.amounts, spec) !== 0

// The mode is part of a sum's name, so that processes in different modes do not mix their sums.
const nameOf = (dimension: string): string => dimension.slice(0, dimension.lastIndexOf(":"))

const asksOf = ({ account: { dimensions, shared, tenant }, amounts }: Hold, now: number): ReadonlyArray<Ask> =>
  dimensions.map((dimension, index) => {
    const { name, windowMillis } = dimension.spec
    return {
      scope: index < shared ? "all" : `t:${tenant}`,
      dimension: `${name}:${dimension.mode}`,
      limit: dimension.limitAt(now),
      windowMillis,
      quantumMillis: windowMillis > 0 && windowMillis < Number.POSITIVE_INFINITY ? windowMillis / sharedBuckets : 1,
      amount: dimension.asked(amountOf(amounts, dimension.spec))
    }
  })

/** A window of a shared store has fewer buckets, since a script reads each one. */
const sharedBuckets = bucketsOfWindow / 4
