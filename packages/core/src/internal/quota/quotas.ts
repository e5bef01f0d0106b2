import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Hub } from "../../Hub.ts"
import type { InvalidOptions } from "../../InvalidOptions.ts"
import { OptionsReader } from "../../OptionsReader.ts"
import type { Amount, Amounts, Change, QuotaExceeded as Exceeded, Snapshot } from "../../Quota.ts"
import type { QuotaStore } from "../../QuotaStore.ts"
import { registerMetrics, type Source, sourcesOf } from "../kit/metrics.ts"
import { type Account, Accounts, type CounterOf, type KeyLimits } from "./account.ts"
import { makeCounter } from "./counter.ts"
import type { Dimension } from "./dimension.ts"
import { Hold, type HoldHost } from "./hold.ts"
import { memoryOf } from "./memory.ts"
import { type CheckedDimension, readAmounts, type Settings } from "./options.ts"
import type { Seen } from "./remaining.ts"
import { SharedQuotas } from "./shared.ts"
import { Ticks } from "./ticks.ts"
import { once } from "./warning.ts"

/** A queue of waiting calls. `hasRoom` asks its heads again. */
export interface Waiting {
  readonly ticketed: number
  hasRoom(lane: string, row: string): void
}

const noAmounts: Amounts = {}

let quotasMade = 0

/** The limits of all keys and tenants, and the counters of their calls. */
export class Quotas implements HoldHost {
  readonly settings: Settings
  readonly name: string
  readonly overtake: number
  readonly processes: number
  readonly refusesEstimates: boolean
  readonly changes = new Hub<Change>()
  readonly counts = { reserved: 0, settled: 0, refunded: 0, throttled: 0 }
  readonly exceeded: Record<Exceeded["why"], number> = {
    Full: 0,
    MaxWait: 0,
    Deadline: 0,
    TooLarge: 0,
    Spent: 0,
    Draining: 0,
    StoreDown: 0
  }
  shared: HoldHost["shared"] = undefined
  readonly accounts: Accounts
  /** Lets a store in this process forget the keys. */
  readonly close: () => void
  /** The queues in which calls of this quota wait. */
  readonly waiting = new Set<Waiting>()
  private readonly ticks: Ticks
  private readonly names: ReadonlySet<string>

  /** Keys and tenants that were forgotten while they counted. */
  forgotten = 0

  /** `warn` is called when the first key or tenant is forgotten while it counts. */
  constructor(settings: Settings, clock: Clock.Clock, store: QuotaStore["Service"], warn: () => void) {
    this.settings = settings
    this.name = settings.name
    this.names = new Set([...settings.limits, ...settings.tenantLimits].map(({ name }) => name))
    this.overtake = settings.overtake
    this.processes = settings.processes
    this.refusesEstimates = settings.oversize === "refuse"
    const memory = memoryOf(store)
    const id = quotasMade++
    this.ticks = memory?.ticks ?? new Ticks(clock)
    this.accounts = new Accounts({
      settings,
      laneOf: (key) => `${id} ${key}`,
      counterOf: memory === undefined ? ownCounter : (...of) => memory.counterOf(...of),
      now: this.now,
      onChange: (change) => this.changes.publish(change),
      onKey: (key, isKept) => isKept ? memory?.enter(key) : memory?.leave(key),
      onForgotten: () => {
        this.forgotten++
        warn()
      }
    })
    this.close = () => {
      for (const { key } of this.accounts.all()) memory?.leave(key)
    }
  }

  readonly now = (): number => this.ticks.now()
  readonly at = (epochMillis: number): number => this.ticks.at(epochMillis)

  hold(key = "default", tenant?: string, amounts: Amounts = noAmounts, isLook = false): Hold {
    return new Hold(this, this.accounts.use(key, tenant), amounts, isLook)
  }

  /** The error of invalid amounts, `undefined` if they are valid. Valid amounts build no reader. */
  invalid(amounts: Amounts | undefined): InvalidOptions | undefined {
    if (amounts === undefined || isValid(amounts, this.names)) return undefined
    const reader = new OptionsReader("Sluice")
    readAmounts(reader, "amounts", amounts, this.settings)
    return reader.invalid
  }

  onRoom({ limits: { lane }, tenant }: Account): void {
    for (const line of this.waiting) line.hasRoom(lane, tenant ?? "")
  }

  onExceeded(why: Exceeded["why"]): void {
    this.exceeded[why]++
  }

  observe(key: string, seen: ReadonlyArray<Seen & { readonly dimension: string }>): void {
    const account = this.accounts.use(key, undefined)
    const now = this.now()
    for (const one of seen) {
      for (const dimension of account.limits.dimensions) {
        if (dimension.spec.name === one.dimension && dimension.spec.isRate) {
          dimension.observe(now, { ...one, sentAt: this.at(one.sentAt) })
        }
      }
    }
    this.onRoom(account)
  }

  setLimit(key: string, spec: CheckedDimension, limit: number): void {
    const account = this.accounts.use(key, undefined)
    account.limits.dimensions[this.settings.limits.indexOf(spec)]?.setLimit(limit)
    this.onRoom(account)
  }

  snapshot(key: string | undefined): Snapshot {
    const one = key === undefined ? undefined : this.accounts.limitsOf(key)
    const keys: Iterable<KeyLimits> = key === undefined ? this.accounts.all() : one === undefined ? [] : [one]
    const levels = [...keys].flatMap((limits) => this.accounts.levels(limits))
    const { counts, exceeded, forgotten } = this
    const { dropped } = this.changes
    return { levels, waiting: this.waitingCalls, ...counts, exceeded: { ...exceeded }, forgotten, dropped }
  }

  get waitingCalls(): number {
    let calls = 0
    for (const { ticketed } of this.waiting) calls += ticketed
    return calls
  }
}

const isValid = (amounts: Amounts, names: ReadonlySet<string>): boolean => {
  for (const name in amounts) if (!names.has(name) || !isAmount(amounts[name])) return false
  return true
}

const isAmount = (amount: Amount | undefined): boolean => {
  if (typeof amount !== "object" || amount === null) return isWhole(amount)
  for (const field in amount) if (field !== "known" && field !== "atMost") return false
  return isWhole(amount.known) && isWhole(amount.atMost) && amount.known <= amount.atMost
}

const isWhole = (amount: number | undefined): boolean =>
  amount !== undefined && Number.isSafeInteger(amount) && amount >= 0

const ownCounter: CounterOf = (_key, _tenant, { windowMillis }) => makeCounter(windowMillis)

/** Builds the quotas of a service, with their metrics and changes. */
export const makeQuotas = Effect.fnUntraced(function*(
  settings: Settings,
  store: QuotaStore["Service"]
): Effect.fn.Return<Quotas, never, Scope.Scope> {
  const { capacityOfKeys, name } = settings
  const warn = once(
    yield* Effect.context<never>(),
    `${name}: ${capacityOfKeys} keys and tenants are remembered, and more count at once. Raise capacityOfKeys`
  )
  const quotas = new Quotas(settings, yield* Clock.Clock, store, warn)
  yield* registerMetrics(metricsOf(quotas))
  yield* Effect.addFinalizer(() => Effect.sync(quotas.close))
  if (memoryOf(store) === undefined) {
    const shared = new SharedQuotas({
      settings,
      store,
      context: yield* Effect.context<never>(),
      now: quotas.now,
      onRoom: (account) => quotas.onRoom(account),
      onRecovered: () => {
        for (const { accounts } of quotas.accounts.all()) {
          for (const account of accounts.values()) quotas.onRoom(account)
        }
      }
    })
    quotas.shared = shared
    yield* Effect.addFinalizer(() => shared.close)
  }
  yield* Effect.addFinalizer(() => quotas.changes.close)
  return quotas
})

const reasons: ReadonlyArray<Exceeded["why"]> = [
  "Full",
  "MaxWait",
  "Deadline",
  "TooLarge",
  "Spent",
  "Draining",
  "StoreDown"
]
const ends = ["reserved", "settled", "refunded", "throttled"] as const

const metricsOf = (quotas: Quotas): ReadonlyArray<Source> => {
  const { accounts, counts, exceeded, name, now, settings } = quotas
  const { counter, gauge } = sourcesOf(name)
  const sumOf = (dimension: string, read: (one: Dimension) => number) => () => {
    let sum = 0
    for (const { dimensions } of accounts.all()) {
      for (const one of dimensions) if (one.spec.name === dimension) sum += read(one)
    }
    return sum
  }
  const names = [...new Set(settings.limits.map((limit) => limit.name))]
  return [
    ...ends.map((end) => counter(`sluice_quota_${end}_total`, `Calls whose amounts were ${end}`, () => counts[end])),
    gauge("sluice_quota_waiting", "Calls in the queue", () => quotas.waitingCalls),
    counter(
      "sluice_quota_forgotten_total",
      "Keys and tenants that were forgotten while they counted",
      () => quotas.forgotten
    ),
    ...reasons.map((why) => counter("sluice_quota_exceeded_total", "Calls refused", () => exceeded[why], { why })),
    ...names.flatMap((dimension) => [
      gauge(
        "sluice_quota_used",
        "The amounts that count now, of all keys",
        sumOf(dimension, (one) => one.used(now())),
        {
          dimension
        }
      ),
      gauge(
        "sluice_quota_limit",
        "The enforced limits, of all keys",
        sumOf(dimension, (one) => one.limitAt(now())),
        {
          dimension
        }
      )
    ])
  ]
}

/** The quotas of a service. A policy uses them directly, without the effects of the service. */
const behind = new WeakMap<object, Quotas>()

export const quotasOf = (service: object): Quotas | undefined => behind.get(service)

export const setQuotas = <Service extends object>(service: Service, quotas: Quotas): Service => {
  behind.set(service, quotas)
  return service
}
