import * as Duration from "effect/Duration"
import * as Schedule from "effect/Schedule"
import type { RetryPolicy } from "../../RetryPolicy.ts"
import type { Dimension } from "../../Quota.ts"
import type { Window } from "../../CircuitBreakerStore.ts"
import type { Trip } from "../circuit/model.ts"
import type { CheckedBreaker } from "../circuit/options.ts"
import type { Settings as QuotaSettings } from "../quota/options.ts"
import type { CheckedPolicy } from "./options.ts"

/** The steps of a call, outermost first, one line each. */
export const describe = (
  { backpressure, breaker, deduplicator, quota, settings }: CheckedPolicy
): ReadonlyArray<string> => {
  const { attemptTimeoutMillis, deadline, retry } = settings
  const lines: Array<string> = []
  if (deadline !== undefined) lines.push(`deadline: ${format(deadline)}, for calls that set none`)
  const timeToLive = format(deduplicator.timeToLive ?? 0)
  const across = deduplicator.shared === true ? ", shared with other processes" : ""
  lines.push(`deduplicate: one run for a key${across}${timeToLive === "0" ? "" : `, results cached for ${timeToLive}`}`)
  if (backpressure !== undefined) {
    lines.push(`slots: ${backpressure.capacity} running and ${backpressure.queue} queued`)
  }
  if (retry.maxAttempts > 1) lines.push(`retry: ${retry.maxAttempts} attempts, ${describeDelays(retry)}`)
  if (backpressure !== undefined) lines.push(`permits: ${backpressure.capacity} at once`)
  if (quota !== undefined) lines.push(`quota: ${describeQuota(quota.settings)}`)
  if (breaker !== undefined) lines.push(`circuit: one for each key, ${describeOpenings(breaker)}`)
  if (attemptTimeoutMillis !== undefined) lines.push(`attempt timeout: ${format(attemptTimeoutMillis)}`)
  return lines
}

const format = (duration: Duration.Input): string => Duration.format(Duration.fromInputUnsafe(duration))

const describeQuota = ({ limits, tenantLimits }: Pick<QuotaSettings, "limits" | "tenantLimits">): string => {
  const ofKey = `${limits.map(describeLimit).join(", ")}, for each key`
  return tenantLimits.length === 0 ? ofKey : `${ofKey}; ${tenantLimits.map(describeLimit).join(", ")}, for each tenant`
}

const describeLimit = ({ limit, name, windowMillis }: Dimension): string => {
  if (windowMillis === 0) return `${limit} ${name}`
  return `${limit} ${name} ${windowMillis === Number.POSITIVE_INFINITY ? "in all" : `in ${format(windowMillis)}`}`
}

const describeDelays = ({ baseDelay, factor, jitter, maxDelay }: RetryPolicy): string => {
  const growth = factor === 1 ? "" : `, then times ${factor}, at most ${format(maxDelay)}`
  return `first delay ${format(baseDelay)}${growth}, jitter ${jitter}`
}

const describeOpenings = ({ openFor, policy: { trip, window } }: CheckedBreaker): string => {
  const time = Schedule.isSchedule(openFor) ? "a time by its schedule" : format(openFor)
  return `opens for ${time} after ${trip.map((one) => describeTrip(one, window)).join(", or ")}`
}

const describeTrip = (trip: Trip, { bucketMillis }: Window): string => {
  if (trip._tag === "Consecutive") return `${trip.failures} ${trip.failures === 1 ? "failure" : "failures"} in a row`
  const what = trip.of === "failures" ? "failures" : "slow calls"
  const window = trip.buckets === 0 ? `${trip.calls} calls` : format(trip.buckets * bucketMillis)
  return `${Math.round(trip.rate * 100)}% ${what} in the last ${window} (of at least ${trip.minimum} calls)`
}
