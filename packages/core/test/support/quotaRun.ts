import * as Quota from "@sluice/core/Quota"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { ProviderCall, StrictProvider } from "./strictProvider.ts"

export interface QuotaRun {
  readonly options: Quota.QuotaOptions
  readonly provider: StrictProvider
  readonly calls: ReadonlyArray<ProviderCall>
  /** One way on the network. */
  readonly delay: () => number
  /** Calls that want to run at once. */
  readonly concurrency: number
  readonly amounts?: (call: ProviderCall) => Quota.Amounts
  readonly used?: (call: ProviderCall) => Quota.Used
  /** How long an answer takes, and its headers. */
  readonly latency?: (call: ProviderCall) => number
  /** Headers, if the quota is to follow them. */
  readonly seen?: (provider: StrictProvider, sentAt: number) => ReadonlyArray<Quota.Seen>
}

export interface QuotaResult {
  /** How long after the start the last call was accepted. */
  readonly lastStart: number
  /** The share of rejected calls. */
  readonly rejected: number
  readonly snapshot: Quota.Snapshot
}

const headersMillis = 250

/** Sends all calls to the provider under the quota, each again until it is accepted. */
export const runQuota = (run: QuotaRun): Effect.Effect<QuotaResult> =>
  Effect.gen(function*() {
    const {
      amounts = () => ({}),
      calls,
      concurrency,
      delay,
      latency = () => 3_300,
      provider,
      seen,
      used = () => ({})
    } = run
    const quota = yield* Quota.Quota
    const startedAt = yield* Clock.currentTimeMillis
    const once = (call: ProviderCall) =>
      Effect.scoped(Effect.gen(function*() {
        const reservation = yield* quota.reserve({ amounts: amounts(call) })
        const sentAt = yield* Clock.currentTimeMillis
        yield* Effect.sleep(delay())
        const { end, retryMillis } = provider.arrive(yield* Clock.currentTimeMillis, call)
        const headers = seen?.(provider, sentAt) ?? []
        if (retryMillis > 0) {
          yield* Effect.sleep(delay())
          if (headers.length > 0) yield* quota.observe("default", headers)
          yield* reservation.throttled(retryMillis)
          return false
        }
        yield* Effect.sleep(headersMillis)
        const headersAt = (yield* Clock.currentTimeMillis) + delay()
        if (headers.length > 0) yield* quota.observe("default", headers)
        yield* Effect.sleep(latency(call) - headersMillis)
        end(yield* Clock.currentTimeMillis)
        yield* Effect.sleep(delay())
        yield* reservation.settle(used(call), headersAt)
        return true
      }))
    const untilAccepted = (call: ProviderCall): Effect.Effect<void, unknown> =>
      Effect.flatMap(once(call), (isAccepted) => isAccepted ? Effect.void : untilAccepted(call))
    const all = yield* Effect.forkChild(Effect.forEach(calls, untilAccepted, { concurrency, discard: true }))
    while (all.pollUnsafe() === undefined) yield* TestClock.adjust("10 seconds")
    yield* Fiber.join(all)
    return {
      lastStart: (provider.accepted.at(-1) ?? 0) - startedAt,
      rejected: 1 - provider.accepted.length / provider.arrived,
      snapshot: yield* quota.snapshot()
    }
  }).pipe(Effect.provide(Quota.layerMemory({ queue: 100_000, ...run.options })), Effect.orDie)
