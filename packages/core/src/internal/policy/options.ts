import * as Duration from "effect/Duration"
import * as Schedule from "effect/Schedule"
import { type CircuitBreakerOptions, consecutive, type TripPolicy } from "../../CircuitBreaker.ts"
import type { DeduplicatorOptions } from "../../Deduplicator.ts"
import type { OptionsReader } from "../../OptionsReader.ts"
import { none, type RetryPolicy } from "../../RetryPolicy.ts"
import type { SluiceOptions } from "../../Sluice.ts"
import { readBreaker } from "../circuit/options.ts"
import { readDeduplicator } from "../dedupe/options.ts"
import { readBackpressure, type Settings as BackpressureSettings } from "../permits/options.ts"
import { checkRetryPolicy } from "../retry/options.ts"
import type { Settings } from "./call.ts"

/** An attempt that the deadline ends after less time than this is no evidence about the service. */
export const defaultMinTimeout: Duration.Duration = Duration.seconds(1)

export interface CheckedPolicy {
  readonly settings: Settings
  readonly breaker: CircuitBreakerOptions | undefined
  readonly backpressure: BackpressureSettings | undefined
  readonly deduplicator: DeduplicatorOptions
}

export const readPolicy = (options: OptionsReader, input: SluiceOptions): CheckedPolicy => {
  if (typeof input !== "object" || input === null) {
    options.refuse("options", input, "must be an object")
    return readPolicy(options, { name: "?" })
  }
  const {
    attemptTimeout,
    backpressure,
    breaker,
    classify,
    deadline,
    deduplicator,
    minTimeout = defaultMinTimeout,
    name
  } = input
  // Not a default: null, which JSON can contain, is refused.
  const retry = input.retry === undefined ? none : input.retry
  options.nonEmptyString("name", name)
  options.optionalFunction("classify", classify)
  checkRetryPolicy(options, retry, "retry.")
  if (breaker !== undefined) readBreaker(options, breaker, "breaker.")
  if (deduplicator !== undefined) readDeduplicator(options, deduplicator, "deduplicator.")
  if (deadline !== undefined) options.millis("deadline", deadline, 1)
  return {
    settings: {
      name,
      retry,
      attemptTimeoutMillis: attemptTimeout === undefined
        ? undefined
        : options.millis("attemptTimeout", attemptTimeout, 1),
      minTimeoutMillis: options.millis("minTimeout", minTimeout, 0),
      deadline,
      classify
    },
    breaker: breaker === undefined ? undefined : { ...breaker, name },
    backpressure: backpressure === undefined
      ? undefined
      : { ...readBackpressure(options, backpressure, "backpressure."), name },
    deduplicator: { ...deduplicator, name }
  }
}

/** What a call goes through, outermost first, one line each. */
export const describe = ({ backpressure, breaker, deduplicator, settings }: CheckedPolicy): ReadonlyArray<string> => {
  const { attemptTimeoutMillis, deadline, retry } = settings
  const lines: Array<string> = []
  if (deadline !== undefined) lines.push(`deadline: ${format(deadline)}, for calls that set none`)
  const timeToLive = format(deduplicator.timeToLive ?? 0)
  lines.push(`deduplicate: one run for a key${timeToLive === "0" ? "" : `, results cached for ${timeToLive}`}`)
  if (backpressure !== undefined) {
    lines.push(`slots: ${backpressure.capacity} running and ${backpressure.queue} queued`)
  }
  if (retry.maxAttempts > 1) lines.push(`retry: ${retry.maxAttempts} attempts, ${describeDelays(retry)}`)
  if (backpressure !== undefined) lines.push(`permits: ${backpressure.capacity} at once`)
  if (breaker !== undefined) lines.push(`circuit: one for each key, ${describeOpenings(breaker)}`)
  if (attemptTimeoutMillis !== undefined) lines.push(`attempt timeout: ${format(attemptTimeoutMillis)}`)
  return lines
}

const format = (duration: Duration.Input): string => Duration.format(Duration.fromInputUnsafe(duration))

const describeDelays = ({ baseDelay, factor, jitter, maxDelay }: RetryPolicy): string => {
  const growth = factor === 1 ? "" : `, then times ${factor}, at most ${format(maxDelay)}`
  return `first delay ${format(baseDelay)}${growth}, jitter ${jitter}`
}

const describeOpenings = ({ openFor = "30 seconds", trip = consecutive(5) }: CircuitBreakerOptions): string => {
  const trips = isList(trip) ? trip : [trip]
  const time = Schedule.isSchedule(openFor) ? "a time by its schedule" : format(openFor)
  return `opens for ${time} after ${trips.map(describeTrip).join(", or ")}`
}

const describeTrip = (trip: TripPolicy): string => {
  if (trip._tag === "Consecutive") return `${trip.failures} ${trip.failures === 1 ? "failure" : "failures"} in a row`
  const what = trip._tag === "FailureRate" ? "failures" : "slow calls"
  const window = trip.within === undefined ? `${trip.calls} calls` : format(trip.within)
  return `${Math.round(trip.rate * 100)}% ${what} in the last ${window} (of at least ${trip.minimum} calls)`
}

const isList = <A>(one: A | ReadonlyArray<A>): one is ReadonlyArray<A> => Array.isArray(one)
