/**
 * The contract of quota stores as the shortest program that keeps it.
 *
 * It uses plain lists, and takes the time as an argument. It keeps every amount and adds them up for each answer, so that a reader
 * can verify it.
 *
 * **When to use**
 *
 * To test code that uses a store (`make`), to compare your own store with it (`QuotaStoreContract.compare` does), or to look up the
 * meaning of the contract.
 *
 * **Gotchas**
 *
 * It never forgets anything and gets slower with every amount. Do not use it in production.
 *
 * **Example** (A window has room again)
 *
 * ```ts
 * import { ReferenceQuotas } from "@sluice/testing/ReferenceQuotaStore"
 *
 * const quotas = new ReferenceQuotas()
 * const ask = { scope: "all", dimension: "requests", limit: 1, windowMillis: 60_000, quantumMillis: 1_000, amount: 1 }
 * const reserve = (id: string, now: number) =>
 *   quotas.reserve({ target: "openai", id, leaseMillis: 60_000, guardMillis: 0, asks: [ask] }, now)
 *
 * console.log(reserve("a", 0).ok, reserve("b", 60_000).waitMillis, reserve("c", 62_000).ok) // => true 1050 true
 * ```
 *
 * @since 0.1.0
 */
import type { Ask, Ceiling, StoredLevel, Verdict } from "@sluice/core/QuotaStore"
import { QuotaStore } from "@sluice/core/QuotaStore"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

type Service = QuotaStore["Service"]
type RequestOf<Verb extends keyof Service> = Parameters<Service[Verb]>[0]

interface Entry {
  readonly target: string
  readonly ask: Ask
  /** `undefined` if it was recorded or is settled. */
  id: string | undefined
  bucket: number
  amount: number
}

/** How much longer than its window an amount counts, for clocks that drift. */
const driftMillis = 50

/** The wait for a call at once, whose end is unknown. */
const soonMillis = 50

/**
 * The state of the reference store, and a function for each verb.
 *
 * @since 0.1.0
 * @category models
 */
export class ReferenceQuotas {
  private entries: Array<Entry> = []
  private readonly leases = new Map<string, number>()
  private readonly ceilings = new Map<string, { readonly limit: number; readonly at: number }>()
  private readonly rests = new Map<string, number>()

  /** See `QuotaStore.reserve`. */
  reserve({ asks, guardMillis, id, leaseMillis, target }: RequestOf<"reserve">, now: number): Verdict {
    this.lapse(now)
    const used = () => asks.map((ask) => this.used(target, ask, now))
    const address = JSON.stringify([target, id])
    if (this.leases.has(address)) return { ok: true, waitMillis: 0, blockedBy: -1, used: used(), now }
    const waits = asks.map((ask) => this.wait(target, ask, now))
    const waitMillis = Math.max(0, ...waits)
    if (waitMillis > 0) return { ok: false, waitMillis, blockedBy: waits.indexOf(waitMillis), used: used(), now }
    for (const ask of asks) {
      const latest = now + Math.min(guardMillis, ask.windowMillis / 4)
      this.entries.push({ target, ask, id, bucket: bucketOf(ask, latest), amount: ask.amount })
    }
    this.leases.set(address, now + leaseMillis)
    return { ok: true, waitMillis: 0, blockedBy: -1, used: used(), now }
  }

  /** See `QuotaStore.settle`. */
  settle({ actual, agoMillis = 0, id, target }: RequestOf<"settle">, now: number): boolean {
    this.lapse(now)
    if (!this.leases.delete(JSON.stringify([target, id]))) return false
    for (const entry of this.entries.filter((one) => one.target === target && one.id === id)) {
      const { ask } = entry
      const named = actual.find(({ dimension, scope }) => scope === ask.scope && dimension === ask.dimension)
      if (this.isLive(entry, now)) entry.amount = ask.windowMillis === 0 ? 0 : named?.amount ?? entry.amount
      entry.bucket = Math.min(entry.bucket, bucketOf(ask, now - agoMillis))
      entry.id = undefined
    }
    return true
  }

  /** See `QuotaStore.record`. */
  record({ agoMillis = 0, asks, target }: RequestOf<"record">, now: number): void {
    for (const ask of asks) {
      this.entries.push({ target, ask, id: undefined, bucket: bucketOf(ask, now - agoMillis), amount: ask.amount })
    }
  }

  /** See `QuotaStore.renew`. */
  renew({ ids, leaseMillis, target }: RequestOf<"renew">, now: number): void {
    this.lapse(now)
    for (const id of ids) {
      const address = JSON.stringify([target, id])
      if (this.leases.has(address)) this.leases.set(address, now + leaseMillis)
    }
  }

  /** See `QuotaStore.limit`. */
  limit({ dimension, restMillis, seen, stated, target }: RequestOf<"limit">, now: number): Ceiling {
    const address = JSON.stringify([target, dimension])
    if (seen !== undefined) this.ceilings.set(address, { limit: seen, at: now })
    if (restMillis !== undefined) this.rests.set(address, Math.max(this.rests.get(address) ?? 0, now + restMillis))
    const ceiling = this.ceilings.get(address)
    return {
      limit: Math.min(stated, ceiling?.limit ?? stated),
      ageMillis: ceiling === undefined ? 0 : now - ceiling.at,
      restMillis: Math.max(0, (this.rests.get(address) ?? 0) - now)
    }
  }

  /** See `QuotaStore.read`. */
  read({ scopes, target }: RequestOf<"read">, now: number): ReadonlyArray<StoredLevel> {
    this.lapse(now)
    const levels = new Map<string, StoredLevel>()
    for (const { ask, target: of } of this.entries) {
      const { dimension, scope, windowMillis } = ask
      if (of !== target || !scopes.includes(scope)) continue
      const used = this.used(target, ask, now)
      levels.set(JSON.stringify([scope, dimension, windowMillis]), { scope, dimension, windowMillis, used })
    }
    return [...levels].toSorted(([a], [b]) => a < b ? -1 : 1).map(([, level]) => level)
  }

  /** Frees the calls at once of ids whose lease has ended. */
  private lapse(now: number): void {
    for (const [address, until] of this.leases) {
      if (until > now) continue
      this.leases.delete(address)
      for (const entry of this.entries) {
        if (entry.id === undefined || JSON.stringify([entry.target, entry.id]) !== address) continue
        if (entry.ask.windowMillis === 0) entry.amount = 0
        entry.id = undefined
      }
    }
  }

  private isLive({ ask: { quantumMillis, windowMillis }, bucket }: Entry, now: number): boolean {
    if (windowMillis === 0 || windowMillis === Number.POSITIVE_INFINITY) return true
    return bucket >= Math.floor((now - windowMillis - driftMillis) / quantumMillis)
  }

  private live(target: string, ask: Ask, now: number): ReadonlyArray<Entry> {
    return this.entries.filter((entry) =>
      entry.target === target && entry.ask.scope === ask.scope && entry.ask.dimension === ask.dimension &&
      entry.ask.windowMillis === ask.windowMillis && entry.ask.quantumMillis === ask.quantumMillis &&
      this.isLive(entry, now)
    )
  }

  private used(target: string, ask: Ask, now: number): number {
    return this.live(target, ask, now).reduce((sum, { amount }) => sum + amount, 0)
  }

  private wait(target: string, ask: Ask, now: number): number {
    const { amount, limit, quantumMillis, windowMillis } = ask
    const used = this.used(target, ask, now)
    let over = amount > limit ? used : used + amount - limit
    if (over <= 0) return 0
    if (windowMillis === 0 || windowMillis === Number.POSITIVE_INFINITY) return soonMillis
    for (const entry of this.live(target, ask, now).toSorted((a, b) => a.bucket - b.bucket)) {
      over -= entry.amount
      const leavesAt = (entry.bucket + 1) * quantumMillis + windowMillis + driftMillis
      if (over <= 0) return Math.max(1, Math.ceil(leavesAt - now))
    }
    return windowMillis
  }
}

const bucketOf = ({ quantumMillis, windowMillis }: Ask, at: number): number =>
  windowMillis === 0 || windowMillis === Number.POSITIVE_INFINITY ? 0 : Math.floor(at / quantumMillis)

/**
 * Builds a store on the reference, with the time of `Clock`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<Service> = Effect.map(Clock.Clock, (clock) => {
  const quotas = new ReferenceQuotas()
  const now = () => clock.currentTimeMillisUnsafe()
  return QuotaStore.of({
    reserve: (request) => Effect.sync(() => quotas.reserve(request, now())),
    settle: (request) => Effect.sync(() => quotas.settle(request, now())),
    record: (request) => Effect.sync(() => quotas.record(request, now())),
    renew: (request) => Effect.sync(() => quotas.renew(request, now())),
    limit: (request) => Effect.sync(() => quotas.limit(request, now())),
    read: (request) => Effect.sync(() => quotas.read(request, now()))
  })
})
