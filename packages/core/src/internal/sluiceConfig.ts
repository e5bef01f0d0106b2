import * as Config from "effect/Config"
import * as Option from "effect/Option"
import type { BackpressureOptions } from "../Backpressure.ts"
import type { CircuitBreakerOptions, RateOptions, TripPolicy } from "../CircuitBreaker.ts"
import { consecutive, failureRate, slowCallRate } from "../CircuitBreaker.ts"
import type { DeduplicatorOptions } from "../Deduplicator.ts"
import type { RetryOptions, RetryPolicy } from "../RetryPolicy.ts"
import { exponential } from "../RetryPolicy.ts"
import type { SluiceOptions } from "../Sluice.ts"

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

const retry = (prefix: string) =>
  read(prefix, {
    maxAttempts: Config.Int(),
    baseDelay: Config.Duration(),
    factor: Config.Number(),
    maxDelay: Config.Duration(),
    maxRetryAfter: Config.Duration(),
    jitter: Config.Literals(["none", "full", "equal", "decorrelated"])
  })

const breaker = (prefix: string) =>
  read(prefix, {
    openFor: Config.Duration(),
    openJitter: Config.Number(),
    maxOpenFor: Config.Duration(),
    probes: Config.Int(),
    probesToClose: Config.Int(),
    probeLease: Config.Duration(),
    rampUp: Config.Duration(),
    slowAfter: Config.Duration(),
    storeTimeout: Config.Duration(),
    staleness: Config.Duration(),
    heartbeat: Config.Duration()
  })

const rates = (prefix: string) =>
  read(prefix, { rate: Config.Number(), calls: Config.Int(), within: Config.Duration(), minimum: Config.Int() })

const trip = (prefix: string): Config.Config<ReadonlyArray<TripPolicy> | undefined> =>
  Config.map(
    Config.all([
      read(prefix, { consecutive: Config.Int() }),
      rates(`${prefix}_FAILURE`),
      rates(`${prefix}_SLOW`)
    ]),
    ([inARow, failing, slow]) => {
      const policies = [
        ...(inARow?.consecutive === undefined ? [] : [consecutive(inARow.consecutive)]),
        ...(failing === undefined ? [] : [failureRate(rateOptions(failing))]),
        ...(slow === undefined ? [] : [slowCallRate(rateOptions(slow))])
      ]
      return policies.length === 0 ? undefined : policies
    }
  )

// A rate of which only the rest is set is half of the calls. Of calls and a time at once the check refuses the calls.
const rateOptions = (set: NonNullable<Config.Success<ReturnType<typeof rates>>>): RateOptions =>
  // Both at once is no `RateOptions`, which the check says.
  ({ rate: 0.5, ...set }) as unknown as RateOptions

const backpressure = (prefix: string) =>
  read(prefix, {
    capacity: Config.Int(),
    queue: Config.Int(),
    maxWait: Config.Duration(),
    softLimit: Config.Int(),
    softRelease: Config.Int()
  })

const deduplicator = (prefix: string) =>
  read(prefix, {
    capacity: Config.Int(),
    timeToLive: Config.Duration(),
    maxWaiters: Config.Int(),
    maxReplay: Config.Int()
  })

const times = (prefix: string) =>
  read(prefix, { attemptTimeout: Config.Duration(), minTimeout: Config.Duration(), deadline: Config.Duration() })

/** Options from a configuration, over those that are given: what is set there wins, one by one. */
export const sluiceConfig = (prefix: string, options: SluiceOptions): Config.Config<SluiceOptions> =>
  Config.map(
    Config.all({
      retry: retry(`${prefix}_RETRY`),
      breaker: breaker(`${prefix}_BREAKER`),
      trip: trip(`${prefix}_BREAKER`),
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
