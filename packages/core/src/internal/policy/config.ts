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
import type { RetryOptions, RetryPolicy } from "../../RetryPolicy.ts"
import { exponential } from "../../RetryPolicy.ts"
import type { SluiceOptions } from "../../Sluice.ts"

type Leaves = Readonly<Record<string, Config.Config<unknown>>>

/** What is set, by the names that it has in the code; nothing for what is not. */
type Read<L extends Leaves> = { readonly [K in keyof L]?: Config.Success<L[K]> }

/**
 * Reads each by its own key, one by one: a wrong value inside an optional struct would be taken for one that is not there.
 */
const read = <L extends Leaves>(prefix: string, leaves: L): Config.Config<Read<L> | undefined> => {
  const entries = Object.entries(leaves).map(([name, leaf]) =>
    Config.map(Config.option(Config.nested(leaf, `${prefix}_${constantCase(name)}`)), (value) => [name, value] as const)
  )
  return Config.map(Config.all(entries), (all) => {
    const set = all.flatMap(([name, value]) => Option.isSome(value) ? [[name, value.value]] : [])
    // Each value comes from the leaf of its name.
    return set.length === 0 ? undefined : Object.fromEntries(set) as Read<L>
  })
}

const constantCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()

const isTime = (text: string): boolean => Option.isSome(Duration.fromInput(text as Duration.Input)) // it looks itself

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

type Given = NonNullable<CircuitBreakerOptions["trip"]>

/** The policies that are given, with what is set in them; `undefined` where nothing is set. */
const trip = (prefix: string, given: Given | undefined): Config.Config<ReadonlyArray<TripPolicy> | undefined> =>
  Config.all([
    read(prefix, { consecutive: Config.Int() }),
    rates(`${prefix}_FAILURE`),
    rates(`${prefix}_SLOW`)
  ]).pipe(Config.mapEffect(([inARow, failing, slow]) =>
    Effect.gen(function*() {
      if (inARow === undefined && failing === undefined && slow === undefined) return undefined
      const policies = given === undefined ? [] : isList(given) ? [...given] : [given]
      if (inARow?.consecutive !== undefined) put(policies, consecutive(inARow.consecutive))
      if (failing !== undefined) put(policies, yield* rateOver(policies, "FailureRate", failing, `${prefix}_FAILURE`))
      if (slow !== undefined) put(policies, yield* rateOver(policies, "SlowCallRate", slow, `${prefix}_SLOW`))
      return policies
    })
  ))

const isList = (given: Given): given is ReadonlyArray<TripPolicy> => Array.isArray(given)

// What the code gives is checked later, and may be anything.
const placeOf = (policies: ReadonlyArray<TripPolicy>, tag: TripPolicy["_tag"]): number =>
  policies.findIndex((policy) => Predicate.isTagged(policy, tag))

const put = (policies: Array<TripPolicy>, policy: TripPolicy): void => {
  const place = placeOf(policies, policy._tag)
  if (place < 0) policies.push(policy)
  else policies[place] = policy
}

const rateOver = (
  policies: ReadonlyArray<TripPolicy>,
  tag: "FailureRate" | "SlowCallRate",
  set: Rates,
  prefix: string
): Effect.Effect<TripPolicy, Config.ConfigError> => {
  // Of calls and a time at once is no `RateOptions`, which the check says.
  const make = (rate: object) => (tag === "FailureRate" ? failureRate : slowCallRate)(rate as RateOptions)
  const given = policies[placeOf(policies, tag)]
  if (given === undefined || given._tag === "Consecutive") {
    return set.rate === undefined ? Effect.fail(lacksRate(prefix, set)) : Effect.succeed(make(set))
  }
  const { _tag, minimum: least, ...rest } = given
  const isDefault = Equal.equals(make(rest), given)
  const span = set.calls === undefined && set.within === undefined ? {} : { calls: undefined, within: undefined }
  return Effect.succeed(make({ ...rest, ...(isDefault ? {} : { minimum: least }), ...span, ...set }))
}

const lacksRate = (prefix: string, set: Rates): Config.ConfigError => {
  const keys = Object.keys(set).map((name) => `${prefix}_${constantCase(name)}`).join(", ")
  const message = `${keys}: set ${prefix}_RATE too, or give the policy such a rate: there is none to change`
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

const deduplicator = (prefix: string) =>
  read(prefix, {
    capacity: Config.Int(),
    timeToLive: time,
    maxWaiters: Config.Int(),
    maxReplay: Config.Int()
  })

const times = (prefix: string) => read(prefix, { attemptTimeout: time, minTimeout: time, deadline: time })

/** Options from a configuration, over those that are given: what is set there wins, one by one. */
export const sluiceConfig = (prefix: string, options: SluiceOptions): Config.Config<SluiceOptions> =>
  Config.map(
    Config.all({
      retry: retry(`${prefix}_RETRY`),
      breaker: breaker(`${prefix}_BREAKER`),
      trip: trip(`${prefix}_BREAKER`, options.breaker?.trip),
      backpressure: backpressure(`${prefix}_BACKPRESSURE`),
      deduplicator: deduplicator(`${prefix}_DEDUPLICATOR`),
      times: times(prefix)
    }),
    (set): SluiceOptions => ({
      ...options,
      ...set.times,
      retry: merged<RetryPolicy>(
        options.retry,
        set.retry === undefined ? undefined : exponentialOver(options.retry, set.retry)
      ),
      breaker: merged<Omit<CircuitBreakerOptions, "name" | "classify">>(
        options.breaker,
        set.trip === undefined ? set.breaker : { ...set.breaker, trip: set.trip }
      ),
      backpressure: merged<Omit<BackpressureOptions, "name">>(options.backpressure, set.backpressure),
      deduplicator: merged<Omit<DeduplicatorOptions, "name">>(options.deduplicator, set.deduplicator)
    })
  )

const exponentialOver = (given: RetryPolicy | undefined, set: RetryOptions): RetryPolicy =>
  // What is set is defined.
  given === undefined ? exponential(set) : { ...given, ...set } as RetryPolicy

// A part that neither names is not built.
const merged = <A extends object>(given: A | undefined, set: Partial<A> | undefined): A | undefined =>
  set === undefined ? given : { ...given, ...set } as A
