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

/** What the store has said to a hold. */
type Asked =
  | { readonly _tag: "Asking" }
  | { readonly _tag: "Granted"; readonly id: string; readonly asks: ReadonlyArray<Ask> }
  | { readonly _tag: "Wait"; readonly until: number }

export interface SharedOptions {
  readonly settings: Settings
  readonly store: QuotaStore["Service"]
  readonly clock: Clock.Clock
  /** Where the store is called, and where timers run. */
  readonly context: Context.Context<never>
  readonly now: () => number
  /** The store has answered a hold: its line may ask again. */
  readonly onAnswer: (hold: Hold) => void
}

const storeTimeout = Duration.seconds(1)
const downMillis = 1_000
const soonMillis = 50

/**
 * The part of a quota that a store shares between processes. The line stays synchronous: a hold at the head starts a request to
 * the store, and is asked again when the answer is there. While the store is down, each process keeps to its part of the rates, and
 * budgets refuse. One warning is logged, and the store is asked again once a second.
 */
export class SharedQuotas implements SharedSide {
  private readonly options: SharedOptions
  private readonly asked = new WeakMap<Hold, Asked>()
  /** Ids that this process holds, by target: their leases are renewed. */
  private readonly held = new Map<string, Set<string>>()
  private readonly running = new Set<Fiber.Fiber<unknown, unknown>>()
  /** What was spent while the store was down, by target. Bounded by one entry for each sum. */
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

  /** The hold was interrupted or refused before it had what the store granted. */
  abandoned(hold: Hold): void {
    const asked = this.asked.get(hold)
    this.asked.delete(hold)
    if (asked?._tag === "Granted") this.release(hold.lane, asked.id, asked.asks, undefined)
  }

  /** Waits for what is under way to the store. */
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
        // It may have been granted, and only the reply was lost.
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
    // A store can answer at once, before the hold is in the queue.
    return this.isAsking(hold) ? Number.POSITIVE_INFINITY : this.take(hold, this.options.now())
  }

  // Between processes nobody is told of room: the wait for what is held at once is spread.
  private waitOf(millis: number): number {
    const spread = Context.get(this.options.context, Random.Random).nextDoubleUnsafe()
    return Math.max(1, Math.ceil(millis <= soonMillis ? soonMillis * (1 + spread) : millis))
  }

  /** `undefined`: gives everything back. */
  private release(target: string, id: string, asks: ReadonlyArray<Ask>, actual: Used | undefined): void {
    this.held.get(target)?.delete(id)
    const amounts = asks.flatMap(({ dimension, scope }) => {
      const amount = actual === undefined ? 0 : actual[nameOf(dimension)]
      return amount === undefined ? [] : [{ scope, dimension, amount }]
    })
    // If it fails, what was reserved stays, and the lease frees what is held at once.
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

// Whether a provider counts by the maximum is part of the sum's name: processes that differ do not mix their sums.
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

/** A window of a shared store has fewer buckets: a script looks at each. */
const sharedBuckets = bucketsOfWindow / 4
