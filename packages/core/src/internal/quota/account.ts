import type { Amount, Amounts, Change, Level } from "../../Quota.ts"
import { type Linked, LinkedList } from "../kit/linkedList.ts"
import type { Counter } from "./counter.ts"
import { Dimension } from "./dimension.ts"
import type { CheckedDimension, Settings } from "./options.ts"

/** The limits of a key, which all its tenants share. */
export interface KeyLimits {
  readonly key: string
  /** Its lane in the queues. Several quotas can use one queue. */
  readonly lane: string
  readonly dimensions: ReadonlyArray<Dimension>
  /** The end of the provider's Retry-After. No call of the key starts before. */
  restUntil: number
  /** Requests to the store that are on their way for calls of this key. */
  asking: number
  readonly accounts: Map<string | undefined, Account>
}

/** The limits that apply to one tenant of a key: those of the key, then its own. */
export class Account implements Linked<Account> {
  readonly limits: KeyLimits
  readonly tenant: string | undefined
  readonly dimensions: ReadonlyArray<Dimension>
  /** How many of the dimensions are the key's. */
  readonly shared: number
  /** Calls that hold amounts of the account or wait for them. An account with such calls is not evicted. */
  inUse = 0
  previous: Account | undefined = undefined
  next: Account | undefined = undefined

  constructor(limits: KeyLimits, tenant: string | undefined, own: ReadonlyArray<Dimension>) {
    this.limits = limits
    this.tenant = tenant
    this.dimensions = own.length === 0 ? limits.dimensions : [...limits.dimensions, ...own]
    this.shared = limits.dimensions.length
  }

  /** Whether it has amounts or a rest that would be lost with it. The last account of a key has those of the key too. */
  counts(now: number): boolean {
    const { dimensions, limits, shared } = this
    const isLast = limits.accounts.size === 1
    if (isLast && limits.restUntil > now) return true
    for (let index = isLast ? 0 : shared; index < dimensions.length; index++) {
      if ((dimensions[index]?.usedHere(now) ?? 0) > 0) return true
    }
    return false
  }
}

/** The amount that a call asks of a dimension. */
export const amountOf = (amounts: Amounts, { name, perCall }: CheckedDimension): Amount => amounts[name] ?? perCall

export type CounterOf = (key: string, tenant: string | undefined, spec: CheckedDimension, mode: string) => Counter

export interface AccountsOptions {
  readonly settings: Settings
  readonly laneOf: (key: string) => string
  readonly counterOf: CounterOf
  readonly now: () => number
  readonly onChange: (change: Change) => void
  /** Called when the first account of a key is made, and when its last one is forgotten. */
  readonly onKey: (key: string, isKept: boolean) => void
  /** Called for each account that is forgotten while it counts. */
  readonly onForgotten: () => void
}

const fewLooks = 32

/** The most recently used accounts. A forgotten one loses its learned limits, and a tenant's its sums in this process too. */
export class Accounts {
  private readonly options: AccountsOptions
  private readonly keys = new Map<string, KeyLimits>()
  private readonly recency = new LinkedList<Account>()
  private allCountUntil = Number.NEGATIVE_INFINITY

  constructor(options: AccountsOptions) {
    this.options = options
  }

  use(key: string, tenant: string | undefined): Account {
    const known = this.keys.get(key)?.accounts.get(tenant)
    if (known === undefined) return this.make(key, tenant)
    this.recency.moveToLast(known)
    return known
  }

  limitsOf(key: string): KeyLimits | undefined {
    return this.keys.get(key)
  }

  all(): Iterable<KeyLimits> {
    return this.keys.values()
  }

  levels({ accounts, dimensions, key }: KeyLimits): ReadonlyArray<Level> {
    const levels = dimensions.map((dimension) => this.level(key, undefined, dimension))
    for (const account of accounts.values()) {
      for (const dimension of account.dimensions.slice(account.shared)) {
        levels.push(this.level(key, account.tenant, dimension))
      }
    }
    return levels
  }

  private level(key: string, tenant: string | undefined, dimension: Dimension): Level {
    const { limit, mode, queued, spec: { name, windowMillis } } = dimension
    const now = this.options.now()
    const current = dimension.limitAt(now)
    const used = dimension.used(now)
    return {
      key,
      tenant,
      dimension: name,
      limit: current,
      stated: limit.stated,
      used,
      windowMillis,
      counts: mode,
      queued
    }
  }

  private make(key: string, tenant: string | undefined): Account {
    // Accounts with calls are kept, so there can be too many. Two for one bring their number down again.
    if (this.evict()) this.evict()
    const { settings } = this.options
    let limits = this.keys.get(key)
    if (limits === undefined) {
      limits = {
        key,
        lane: this.options.laneOf(key),
        dimensions: settings.limits.map((spec) => this.dimension(key, undefined, spec)),
        restUntil: Number.NEGATIVE_INFINITY,
        asking: 0,
        accounts: new Map()
      }
      this.keys.set(key, limits)
      this.options.onKey(key, true)
    }
    const own = tenant === undefined ? [] : settings.tenantLimits.map((spec) => this.dimension(key, tenant, spec))
    const account = new Account(limits, tenant, own)
    limits.accounts.set(tenant, account)
    this.recency.append(account)
    return account
  }

  private dimension(key: string, tenant: string | undefined, spec: CheckedDimension): Dimension {
    const { counterOf, onChange, settings: { adapts, guardMillis } } = this.options
    return new Dimension({
      spec,
      guardMillis,
      adapts: adapts && tenant === undefined,
      counterOf: (one, mode) => counterOf(key, tenant, one, mode),
      onChange: (change) => onChange({ key, dimension: spec.name, windowMillis: spec.windowMillis, ...change })
    })
  }

  /**
   * Forgets the least recently used account that counts nothing, or else the least recently used one without calls. Returns whether
   * it has. Accounts are examined in that order. After an eviction that has examined all in vain, the next second examines a few.
   */
  private evict(): boolean {
    if (this.recency.size < this.options.settings.capacityOfKeys) return false
    const now = this.options.now()
    let looks = now < this.allCountUntil ? fewLooks : Number.POSITIVE_INFINITY
    const found = this.recency.find((account) => looks-- <= 0 || account.inUse === 0 && !account.counts(now))
    const empty = looks < 0 ? undefined : found
    if (found === undefined) this.allCountUntil = now + 1_000
    const victim = empty ?? this.recency.find(({ inUse }) => inUse === 0)
    if (victim === undefined) return false
    if (empty === undefined) this.options.onForgotten()
    this.recency.remove(victim)
    const { limits, tenant } = victim
    limits.accounts.delete(tenant)
    if (limits.accounts.size > 0) return true
    this.keys.delete(limits.key)
    this.options.onKey(limits.key, false)
    return true
  }
}
