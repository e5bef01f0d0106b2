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
import type { Ask, Ceiling, Learned, StoredLevel, Verdict } from "@sluice/core/QuotaStore"
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

interface KeptCeiling {
  readonly target: string
  readonly dimension: string
  readonly seen: number | undefined
  readonly at: number
  readonly restUntil: number
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
  private readonly ceilings: Array<KeptCeiling> = []
  private latest = Number.NEGATIVE_INFINITY
  private behind = 0

  /** See `QuotaStore.reserve`. */
  reserve({ asks, guardMillis, id, leaseMillis, target }: RequestOf<"reserve">, at: number): Verdict {
    const now = this.time(at)
    const verdict = (granted: ReadonlyArray<number>, waitMillis = 0, blockedBy = -1): Verdict => {
      const used = asks.map((ask) => this.used(target, ask, now))
      return { ok: waitMillis === 0, waitMillis, blockedBy, granted, used, now, learned: this.learned(target, now) }
    }
    const address = JSON.stringify([target, id])
    if (this.leases.has(address)) {
      const held = this.entries.filter((one) => one.target === target && one.id === id)
      return verdict(asks.map((ask) => held.find((one) => isSame(one.ask, ask))?.amount ?? 0))
    }
    const waits = asks.map((ask) => this.wait(target, ask, now))
    const waitMillis = Math.max(0, ...waits)
    if (waitMillis > 0) return verdict(asks.map(() => 0), waitMillis, waits.indexOf(waitMillis))
    const granted = asks.map((ask) => grantOf(ask, this.used(target, ask, now)))
    for (const [index, ask] of asks.entries()) {
      const latest = now + Math.min(guardMillis, ask.windowMillis / 4)
      this.entries.push({ target, ask, id, bucket: bucketOf(ask, latest), amount: granted[index] ?? 0 })
    }
    this.leases.set(address, now + leaseMillis)
    return verdict(granted)
  }

  /** See `QuotaStore.settle`. */
  settle({ actual, agoMillis = 0, id, keep = false, target }: RequestOf<"settle">, at: number): boolean {
    const now = this.time(at)
    const address = JSON.stringify([target, id])
    if (!this.leases.has(address)) return false
    if (!keep) this.leases.delete(address)
    for (const entry of this.entries.filter((one) => one.target === target && one.id === id)) {
      const { ask } = entry
      const named = actual.find(({ dimension, scope }) => scope === ask.scope && dimension === ask.dimension)
      if (ask.windowMillis > 0 && this.isLive(entry, now)) entry.amount = named?.amount ?? entry.amount
      if (keep) continue
      if (ask.windowMillis === 0) entry.amount = 0
      entry.bucket = Math.min(entry.bucket, bucketOf(ask, now - agoMillis))
      entry.id = undefined
    }
    return true
  }

  /** See `QuotaStore.record`. */
  record({ asks, target }: RequestOf<"record">, at: number): void {
    const now = this.time(at)
    for (const ask of asks) {
      const bucket = bucketOf(ask, now - (ask.agoMillis ?? 0))
      this.entries.push({ target, ask, id: undefined, bucket, amount: ask.amount })
    }
  }

  /** See `QuotaStore.renew`. */
  renew({ ids, leaseMillis, target }: RequestOf<"renew">, at: number): void {
    const now = this.time(at)
    for (const id of ids) {
      const address = JSON.stringify([target, id])
      if (this.leases.has(address)) this.leases.set(address, now + leaseMillis)
    }
  }

  /** See `QuotaStore.limit`. */
  limit({ dimension, restMillis, seen, target }: RequestOf<"limit">, at: number): Ceiling {
    const now = this.time(at)
    if (seen !== undefined || restMillis !== undefined) {
      this.ceilings.push({ target, dimension, seen, at: now, restUntil: now + (restMillis ?? 0) })
    }
    return this.ceiling(target, dimension, now)
  }

  /** See `QuotaStore.read`. */
  read({ scopes, target }: RequestOf<"read">, at: number): ReadonlyArray<StoredLevel> {
    const now = this.time(at)
    const levels = new Map<string, StoredLevel>()
    for (const { ask, target: of } of this.entries) {
      const { dimension, scope, windowMillis } = ask
      if (of !== target || !scopes.includes(scope)) continue
      const used = this.used(target, ask, now)
      levels.set(JSON.stringify([scope, dimension, windowMillis]), { scope, dimension, windowMillis, used })
    }
    return [...levels].toSorted(([a], [b]) => a < b ? -1 : 1).map(([, level]) => level)
  }

  /** See `QuotaStore.targets`. */
  list({ after = "", limit }: RequestOf<"targets">): ReadonlyArray<string> {
    const names = new Set([...this.entries, ...this.ceilings].map(({ target }) => target))
    return [...names].filter((name) => name > after).sort().slice(0, limit)
  }

  /** The time of the store, which never goes back. Leases that have ended by then are over. */
  private time(at: number): number {
    this.behind = Math.max(this.behind, this.latest - at)
    this.latest = at + this.behind
    this.lapse(this.latest)
    return this.latest
  }

  /** The last learned limit, and the longest rest. */
  private ceiling(target: string, dimension: string, now: number): Ceiling {
    const set = this.ceilings.filter((one) => one.target === target && one.dimension === dimension)
    const last = set.findLast(({ seen }) => seen !== undefined)
    return {
      limit: last?.seen ?? Number.POSITIVE_INFINITY,
      ageMillis: last === undefined ? 0 : now - last.at,
      restMillis: Math.max(0, ...set.map(({ restUntil }) => restUntil - now))
    }
  }

  private learned(target: string, now: number): ReadonlyArray<Learned> {
    const names = new Set(this.ceilings.filter((one) => one.target === target).map(({ dimension }) => dimension))
    return [...names].map((dimension) => Object.assign({ dimension }, this.ceiling(target, dimension, now)))
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
    return this.entries.filter((entry) => entry.target === target && isSame(entry.ask, ask) && this.isLive(entry, now))
  }

  private used(target: string, ask: Ask, now: number): number {
    return this.live(target, ask, now).reduce((sum, { amount }) => sum + amount, 0)
  }

  private wait(target: string, ask: Ask, now: number): number {
    const { amount, least = amount, limit, quantumMillis, windowMillis } = ask
    const used = this.used(target, ask, now)
    let over = least > limit ? used : used + least - limit
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

const isSame = (a: Ask, b: Ask): boolean =>
  a.scope === b.scope && a.dimension === b.dimension && a.windowMillis === b.windowMillis &&
  a.quantumMillis === b.quantumMillis

/** Returns the granted amount of an ask that fits: all of it, or as much as fits. */
const grantOf = ({ amount, least = amount, limit }: Ask, used: number): number =>
  used + amount <= limit ? amount : Math.max(least, Math.floor(limit - used))

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
    read: (request) => Effect.sync(() => quotas.read(request, now())),
    targets: (request) => Effect.sync(() => quotas.list(request))
  })
})
