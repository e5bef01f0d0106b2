import type { Ask, Ceiling, Learned, QuotaStore, StoredLevel, Verdict } from "../../QuotaStore.ts"
import { type Linked, LinkedList } from "../kit/linkedList.ts"
import { bucketsOfWindow, type Counter, makeCounter } from "./counter.ts"
import type { CheckedDimension } from "./options.ts"
import type { Ticks } from "./ticks.ts"

type RequestOf<K extends keyof QuotaStore["Service"]> = Parameters<QuotaStore["Service"][K]>[0]

/** The amount that an id holds for one ask. */
interface Part {
  readonly scope: string
  readonly dimension: string
  readonly windowMillis: number
  readonly counter: Counter
  amount: number
  bucket: number
}

interface Held {
  readonly parts: ReadonlyArray<Part>
  leaseUntil: number
}

interface Sum {
  readonly scope: string
  readonly dimension: string
  readonly windowMillis: number
  readonly counter: Counter
}

interface KeptCeiling {
  limit: number
  at: number
  restUntil: number
}

class Target implements Linked<Target> {
  readonly name: string
  readonly sums = new Map<string, Sum>()
  readonly held = new Map<string, Held>()
  readonly ceilings = new Map<string, KeptCeiling>()
  /** Quotas of this process that use its sums directly. */
  users = 0
  previous: Target | undefined = undefined
  next: Target | undefined = undefined

  constructor(name: string) {
    this.name = name
  }

  /** Whether it has ids, amounts or a rest that would be lost with it. */
  counts(now: number): boolean {
    if (this.held.size > 0) return true
    for (const { counter } of this.sums.values()) if (counter.used(now) > 0) return true
    for (const { restUntil } of this.ceilings.values()) if (restUntil > now) return true
    return false
  }
}

const maxSums = 10_000

/** The sums of a store in this process. */
export class MemoryQuotas {
  readonly ticks: Ticks
  private readonly capacity: number
  private readonly onForgotten: () => void
  private readonly targets = new Map<string, Target>()
  private readonly recency = new LinkedList<Target>()

  /** `onForgotten` is called for each target that is forgotten while it counts. */
  constructor(capacity: number, ticks: Ticks, onForgotten: () => void) {
    this.capacity = capacity
    this.ticks = ticks
    this.onForgotten = onForgotten
  }

  /** Keeps the sums of a key while a quota of this process uses them. Pair it with `leave`. */
  enter(key: string): void {
    this.use(key).users++
  }

  leave(key: string): void {
    const target = this.targets.get(key)
    if (target !== undefined) target.users--
  }

  /** The sum that a quota of this process uses without going through the store. */
  counterOf(key: string, tenant: string | undefined, { name, windowMillis }: CheckedDimension, mode: string): Counter {
    // The sums of tenants stay outside the store, since the quota bounds how many there are.
    if (tenant !== undefined) return makeCounter(windowMillis)
    // Each mode has its own sum.
    return this.sumOf(this.use(key), "all", `${name}:${mode}`, windowMillis, windowMillis / bucketsOfWindow).counter
  }

  reserve({ asks, guardMillis, id, leaseMillis, target: name }: RequestOf<"reserve">): Verdict {
    const now = this.ticks.now()
    const target = this.use(name)
    this.lapse(target, now)
    const verdict = (granted: ReadonlyArray<number>, waitMillis = 0, blockedBy = -1): Verdict => {
      const used = this.usedOf(target, asks, now)
      return { ok: waitMillis === 0, waitMillis, blockedBy, granted, used, now, learned: learnedOf(target, now) }
    }
    const live = target.held.get(id)
    if (live !== undefined) return verdict(asks.map((ask) => live.parts.find((part) => isSame(part, ask))?.amount ?? 0))
    let waitMillis = 0
    let blockedBy = -1
    for (const [index, ask] of asks.entries()) {
      // Only a settlement makes room for a call at once, and its time is unknown: the caller asks again soon.
      const millis = this.sumOfAsk(target, ask).counter.wait(now, ask.least ?? ask.amount, ask.limit)
      const wait = millis === Number.POSITIVE_INFINITY ? soonMillis : millis
      if (wait > waitMillis) {
        waitMillis = wait
        blockedBy = index
      }
    }
    if (waitMillis > 0) return verdict(asks.map(() => 0), waitMillis, blockedBy)
    const parts = asks.map((ask): Part => {
      const { counter } = this.sumOfAsk(target, ask)
      const { dimension, scope, windowMillis } = ask
      const amount = grantOf(ask, counter.used(now))
      return { scope, dimension, windowMillis, counter, amount, bucket: counter.add(now, amount, now + guardMillis) }
    })
    target.held.set(id, { parts, leaseUntil: now + leaseMillis })
    return verdict(parts.map(({ amount }) => amount))
  }

  settle({ actual, agoMillis = 0, id, keep = false, target: name }: RequestOf<"settle">): boolean {
    const now = this.ticks.now()
    const target = this.use(name)
    this.lapse(target, now)
    const held = target.held.get(id)
    if (held === undefined) return false
    if (!keep) target.held.delete(id)
    const arrivedBy = keep ? Number.POSITIVE_INFINITY : now - agoMillis
    for (const part of held.parts) {
      const { amount, bucket, counter, dimension, scope, windowMillis } = part
      if (keep && windowMillis === 0) continue
      const used = windowMillis === 0
        ? 0
        : actual.find((one) => one.scope === scope && one.dimension === dimension)?.amount ?? amount
      part.bucket = counter.change(now, bucket, amount, used, arrivedBy)
      part.amount = used
    }
    return true
  }

  record({ asks, target: name }: RequestOf<"record">): void {
    const now = this.ticks.now()
    const target = this.use(name)
    for (const ask of asks) {
      const { agoMillis = 0, amount, windowMillis } = ask
      // An amount that has left its window is not counted.
      if (windowMillis === 0 || agoMillis <= windowMillis) {
        this.sumOfAsk(target, ask).counter.add(now, amount, now - agoMillis)
      }
    }
  }

  renew({ ids, leaseMillis, target: name }: RequestOf<"renew">): void {
    const now = this.ticks.now()
    const target = this.use(name)
    this.lapse(target, now)
    for (const id of ids) {
      const held = target.held.get(id)
      if (held !== undefined) held.leaseUntil = now + leaseMillis
    }
  }

  limit({ dimension, restMillis, seen, target: name }: RequestOf<"limit">): Ceiling {
    const now = this.ticks.now()
    const { ceilings } = this.use(name)
    const ceiling = ceilings.get(dimension) ?? { limit: Number.POSITIVE_INFINITY, at: now, restUntil: 0 }
    if (seen !== undefined) {
      ceiling.limit = seen
      ceiling.at = now
    }
    if (restMillis !== undefined) ceiling.restUntil = Math.max(ceiling.restUntil, now + restMillis)
    if (seen !== undefined || restMillis !== undefined) ceilings.set(dimension, ceiling)
    return ceilingOf(ceiling, now)
  }

  read({ scopes, target: name }: RequestOf<"read">): ReadonlyArray<StoredLevel> {
    const now = this.ticks.now()
    const target = this.targets.get(name)
    if (target === undefined) return []
    this.lapse(target, now)
    const sums = [...target.sums.values()].filter(({ scope }) => scopes.includes(scope))
    return sums.map(({ counter, dimension, scope, windowMillis }) => ({
      scope,
      dimension,
      windowMillis,
      used: counter.used(now)
    })).sort(byAddress)
  }

  list({ after = "", limit }: RequestOf<"targets">): ReadonlyArray<string> {
    return [...this.targets.keys()].filter((name) => name > after).sort().slice(0, limit)
  }

  private lapse(target: Target, now: number): void {
    let freed = 0
    for (const [id, held] of target.held) {
      if (held.leaseUntil > now) continue
      if (freed++ === lapsedAtOnce) return
      target.held.delete(id)
      for (const { amount, bucket, counter, windowMillis } of held.parts) {
        if (windowMillis === 0) counter.change(now, bucket, amount, 0, now)
      }
    }
  }

  private usedOf(target: Target, asks: ReadonlyArray<Ask>, now: number): ReadonlyArray<number> {
    return asks.map((ask) => this.sumOfAsk(target, ask).counter.used(now))
  }

  private sumOfAsk(target: Target, { dimension, quantumMillis, scope, windowMillis }: Ask): Sum {
    return this.sumOf(target, scope, dimension, windowMillis, quantumMillis)
  }

  private sumOf(target: Target, scope: string, dimension: string, windowMillis: number, quantumMillis: number): Sum {
    const address = JSON.stringify([scope, dimension, windowMillis, quantumMillis])
    let sum = target.sums.get(address)
    if (sum === undefined) {
      if (target.sums.size >= maxSums) this.evictSum(target)
      target.sums.set(
        address,
        sum = { scope, dimension, windowMillis, counter: makeCounter(windowMillis, quantumMillis) }
      )
    }
    return sum
  }

  /** Forgets the oldest sum that counts nothing, or else the oldest one. */
  private evictSum({ sums }: Target): void {
    const now = this.ticks.now()
    for (const [address, { counter }] of sums) {
      if (counter.used(now) === 0) {
        sums.delete(address)
        return
      }
    }
    for (const address of sums.keys()) {
      sums.delete(address)
      return
    }
  }

  private use(name: string): Target {
    const known = this.targets.get(name)
    if (known !== undefined) {
      this.recency.moveToLast(known)
      return known
    }
    if (this.targets.size >= this.capacity) this.evict()
    const target = new Target(name)
    this.targets.set(name, target)
    this.recency.append(target)
    return target
  }

  /**
   * Forgets the least recently used target that counts nothing, or else the least recently used one. Targets that a quota uses
   * stay: a new target of the same name would have other sums.
   */
  private evict(): void {
    const now = this.ticks.now()
    const empty = this.recency.find((target) => target.users === 0 && !target.counts(now))
    const victim = empty ?? this.recency.find(({ users }) => users === 0)
    if (victim === undefined) return
    if (empty === undefined) this.onForgotten()
    this.recency.remove(victim)
    this.targets.delete(victim.name)
  }
}

/** The granted amount of an ask that fits: all of it, or what there is room for. */
const grantOf = ({ amount, least = amount, limit }: Ask, used: number): number =>
  used + amount <= limit ? amount : Math.max(least, Math.floor(limit - used))

const isSame = (part: Part, { dimension, scope, windowMillis }: Ask): boolean =>
  part.scope === scope && part.dimension === dimension && part.windowMillis === windowMillis

const ceilingOf = ({ at, limit, restUntil }: KeptCeiling, now: number): Ceiling => ({
  limit,
  ageMillis: limit === Number.POSITIVE_INFINITY ? 0 : now - at,
  restMillis: Math.max(0, restUntil - now)
})

const noneLearned: ReadonlyArray<Learned> = []

const learnedOf = ({ ceilings }: Target, now: number): ReadonlyArray<Learned> =>
  ceilings.size === 0
    ? noneLearned
    : [...ceilings].map(([dimension, ceiling]) => Object.assign({ dimension }, ceilingOf(ceiling, now)))

const soonMillis = 50
const lapsedAtOnce = 16

const byAddress = (a: StoredLevel, b: StoredLevel): number => {
  const [left, right] = [
    JSON.stringify([a.scope, a.dimension, a.windowMillis]),
    JSON.stringify([b.scope, b.dimension, b.windowMillis])
  ]
  return left < right ? -1 : left > right ? 1 : 0
}

/** The sums of a store in this process. A quota uses them directly, without the effects of the store. */
const inMemory = new WeakMap<object, MemoryQuotas>()

export const memoryOf = (store: QuotaStore["Service"]): MemoryQuotas | undefined => inMemory.get(store)

export const setMemory = (store: QuotaStore["Service"], quotas: MemoryQuotas): void => {
  inMemory.set(store, quotas)
}
