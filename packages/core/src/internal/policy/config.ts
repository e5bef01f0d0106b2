import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { BackpressureOptions } from "../../Backpressure.ts"
import type { CircuitBreakerOptions, RateOptions, TripPolicy } from "../../CircuitBreaker.ts"
import { consecutive, failureRate, slowCallRate } from "../../CircuitBreaker.ts"
import type { DeduplicatorOptions } from "../../Deduplicator.ts"
import type { Dimension, QuotaOptions } from "../../Quota.ts"
import { atOnce, inputTokensPerMinute, outputTokensPerMinute, requestsPerMinute, tokensPerMinute } from "../../Quota.ts"
import type { RetryOptions, RetryPolicy } from "../../RetryPolicy.ts"
import { exponential } from "../../RetryPolicy.ts"
import type { SluiceOptions } from "../../Sluice.ts"
import { quotasOf } from "../quota/quotas.ts"

type Leaves = Readonly<Record<string, Config.Config<unknown>>>

/** The options that are set, by their names in the code. */
type Read<L extends Leaves> = { readonly [K in keyof L]?: Config.Success<L[K]> }

/** Reads each option by its own key. Inside an optional struct an invalid value would count as missing. */
const read = <L extends Leaves>(prefix: string, leaves: L): Config.Config<Read<L> | undefined> => {
  const entries = Object.entries(leaves).map(([name, leaf]) =>
    Config.map(Config.option(Config.nested(leaf, `${prefix}_${constantCase(name)}`)), (value) => [name, value] as const)
  )
  return Config.map(Config.all(entries), (all) => {
    const set = all.flatMap(([name, value]) => Option.isSome(value) ? [[name, value.value]] : [])
    // Each value was read by the config of its name.
    return set.length === 0 ? undefined : Object.fromEntries(set) as Read<L>
  })
}

const constantCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()

// `fromInput` accepts any string and checks it.
const isTime = (text: string): boolean => Option.isSome(Duration.fromInput(text as Duration.Input))

const time = Config.schema(
  Schema.String
    .check(Schema.makeFilter(isTime, { expected: `a time such as "30 seconds", "500 millis" or "1 hour"` }))
    .pipe(Schema.decodeTo(Schema.DurationFromString))
)

const retry = (prefix: string) =>
  read(prefix, {
    maxAttempts: Config.Int(),
    baseDelay: time,
    factor: Config.Number(),
    maxDelay: time,
    maxRetryAfter: time,
    jitter: Config.Literals(["none", "full", "equal", "decorrelated"])
  })

const breaker = (prefix: string) =>
  read(prefix, {
    openFor: time,
    openJitter: Config.Number(),
    maxOpenFor: time,
    probes: Config.Int(),
    probesToClose: Config.Int(),
    probeLease: time,
    rampUp: time,
    slowAfter: time,
    storeTimeout: time,
    staleness: time,
    heartbeat: time
  })

const rates = (prefix: string) =>
  read(prefix, { rate: Config.Number(), calls: Config.Int(), within: time, minimum: Config.Int() })

type Rates = NonNullable<Config.Success<ReturnType<typeof rates>>>

type Trip = NonNullable<CircuitBreakerOptions["trip"]>

/** The trip policies of the options, changed by the configuration. `undefined` if it sets nothing. */
const trip = (prefix: string, fromCode: Trip | undefined): Config.Config<ReadonlyArray<TripPolicy> | undefined> =>
  Config.all([
    read(prefix, { consecutive: Config.Int() }),
    rates(`${prefix}_FAILURE`),
    rates(`${prefix}_SLOW`)
  ]).pipe(Config.mapEffect(([streak, failing, slow]) =>
    Effect.gen(function*() {
      if (streak === undefined && failing === undefined && slow === undefined) return undefined
      const policies = fromCode === undefined ? [] : isList(fromCode) ? [...fromCode] : [fromCode]
      if (streak?.consecutive !== undefined) replaceOrAdd(policies, consecutive(streak.consecutive))
      if (failing !== undefined) {
        replaceOrAdd(policies, yield* changedRate(policies, "FailureRate", failing, `${prefix}_FAILURE`))
      }
      if (slow !== undefined) {
        replaceOrAdd(policies, yield* changedRate(policies, "SlowCallRate", slow, `${prefix}_SLOW`))
      }
      return policies
    })
  ))

const isList = (trip: Trip): trip is ReadonlyArray<TripPolicy> => Array.isArray(trip)

// The options from the code are validated later, and can be anything here.
const indexOf = (policies: ReadonlyArray<TripPolicy>, tag: TripPolicy["_tag"]): number =>
  policies.findIndex((policy) => Predicate.isTagged(policy, tag))

const replaceOrAdd = (policies: Array<TripPolicy>, policy: TripPolicy): void => {
  const index = indexOf(policies, policy._tag)
  if (index < 0) policies.push(policy)
  else policies[index] = policy
}

const changedRate = (
  policies: ReadonlyArray<TripPolicy>,
  tag: "FailureRate" | "SlowCallRate",
  set: Rates,
  prefix: string
): Effect.Effect<TripPolicy, Config.ConfigError> => {
  // `calls` and `within` at once are not valid `RateOptions`. The validation of the options refuses them.
  const make = (rate: object) => (tag === "FailureRate" ? failureRate : slowCallRate)(rate as RateOptions)
  const old = policies[indexOf(policies, tag)]
  if (old === undefined || old._tag === "Consecutive") {
    return set.rate === undefined ? Effect.fail(rateMissing(prefix, set)) : Effect.succeed(make(set))
  }
  const { _tag, minimum, ...rest } = old
  const isDefault = Equal.equals(make(rest), old)
  const window = set.calls === undefined && set.within === undefined ? {} : { calls: undefined, within: undefined }
  return Effect.succeed(make({ ...rest, ...(isDefault ? {} : { minimum }), ...window, ...set }))
}

const rateMissing = (prefix: string, set: Rates): Config.ConfigError => {
  const keys = Object.keys(set).map((name) => `${prefix}_${constantCase(name)}`).join(", ")
  const message = `${keys}: the options have no policy of this kind to change. Set ${prefix}_RATE too`
  return new Config.ConfigError(new ConfigProvider.SourceError({ message }))
}

const backpressure = (prefix: string) =>
  read(prefix, {
    capacity: Config.Int(),
    queue: Config.Int(),
    maxWait: time,
    softLimit: Config.Int(),
    softRelease: Config.Int()
  })

const quota = (prefix: string) =>
  read(prefix, {
    burst: time,
    guard: time,
    queue: Config.Int(),
    maxWait: time,
    overtake: Config.Number(),
    lease: time,
    processes: Config.Int(),
    capacityOfKeys: Config.Int()
  })

const limits = (prefix: string) =>
  read(prefix, {
    requestsPerMinute: Config.Int(),
    tokensPerMinute: Config.Int(),
    inputTokensPerMinute: Config.Int(),
    outputTokensPerMinute: Config.Int(),
    atOnce: Config.Int()
  })

type Limits = NonNullable<Config.Success<ReturnType<typeof limits>>>

/** The quota of the options, changed by the configuration. A quota that is shared as a service stays as it is. */
const changedQuota = (
  fromCode: SluiceOptions["quota"],
  set: Partial<QuotaOptions> | undefined,
  limits: Limits | undefined
): SluiceOptions["quota"] => {
  if (set === undefined && limits === undefined) return fromCode
  if (fromCode !== undefined && quotasOf(fromCode) !== undefined) return fromCode
  // Without a service these are options. They are validated later.
  const given = fromCode as Partial<QuotaOptions> | undefined
  const changed = [...given?.limits ?? []]
  for (const [name, limit] of Object.entries(limits ?? {})) {
    // The configuration has the limits by the names of their constructors.
    const made = makers[name as keyof Limits](limit)
    const index = changed.findIndex((one) => one.name === made.name && one.windowMillis === made.windowMillis)
    const old = changed[index]
    if (old === undefined) changed.push(made)
    else changed[index] = { ...old, limit }
  }
  return { ...given, ...set, limits: changed }
}

const makers: Readonly<Record<keyof Limits, (limit: number) => Dimension>> = {
  requestsPerMinute,
  tokensPerMinute,
  inputTokensPerMinute,
  outputTokensPerMinute,
  atOnce
}

const deduplicator = (prefix: string) =>
  read(prefix, {
    capacity: Config.Int(),
    maxBytes: Config.Int(),
    timeToLive: time,
    maxWaiters: Config.Int(),
    maxReplay: Config.Int(),
    shared: Config.Boolean(),
    lease: time,
    maxResultBytes: Config.Int()
  })

const timeouts = (prefix: string) => read(prefix, { attemptTimeout: time, minTimeout: time, deadline: time })

/** Reads options from a configuration. Each that is set replaces the one from the code. */
export const sluiceConfig = (prefix: string, options: SluiceOptions): Config.Config<SluiceOptions> =>
  Config.map(
    Config.all({
      retry: retry(`${prefix}_RETRY`),
      breaker: breaker(`${prefix}_BREAKER`),
      trip: trip(`${prefix}_BREAKER`, options.breaker?.trip),
      backpressure: backpressure(`${prefix}_BACKPRESSURE`),
      quota: quota(`${prefix}_QUOTA`),
      limits: limits(`${prefix}_QUOTA`),
      deduplicator: deduplicator(`${prefix}_DEDUPLICATOR`),
      timeouts: timeouts(prefix)
    }),
    (set): SluiceOptions => ({
      ...options,
      ...set.timeouts,
      retry: merged<RetryPolicy>(
        options.retry,
        set.retry === undefined ? undefined : changedRetry(options.retry, set.retry)
      ),
      breaker: merged<Omit<CircuitBreakerOptions, "name" | "classify">>(
        options.breaker,
        set.trip === undefined ? set.breaker : { ...set.breaker, trip: set.trip }
      ),
      backpressure: merged<Omit<BackpressureOptions, "name">>(options.backpressure, set.backpressure),
      quota: changedQuota(options.quota, set.quota, set.limits),
      deduplicator: merged<Omit<DeduplicatorOptions, "name">>(options.deduplicator, set.deduplicator)
    })
  )

const changedRetry = (fromCode: RetryPolicy | undefined, set: RetryOptions): RetryPolicy =>
  // `set` contains no `undefined`, so all fields stay defined.
  fromCode === undefined ? exponential(set) : { ...fromCode, ...set } as RetryPolicy

// `undefined` if neither has the part: it is not built.
const merged = <A extends object>(fromCode: A | undefined, set: Partial<A> | undefined): A | undefined =>
  set === undefined ? fromCode : { ...fromCode, ...set } as A
