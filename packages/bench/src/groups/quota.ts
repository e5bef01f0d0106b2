import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import { ofEffect, type Run, timed } from "../measure.ts"
import { call, callLater } from "./bodies.ts"
import type { Builders } from "./builders.ts"

/** Limits that no round reaches. */
const unreached = 1_000_000_000_000

const two = [Quota.requestsPerMinute(unreached), Quota.tokensPerMinute(unreached)]
const four = [...two, Quota.atOnce(unreached), Quota.perDay("money", unreached)]

const amounts = { tokens: 500 }
const usage = () => ({ tokens: 320 })

const makeQuota = (options: Quota.QuotaOptions) => Effect.provide(Quota.make(options), QuotaStore.layerMemory)

const makePolicy = (quota: Sluice.SluiceOptions["quota"]) =>
  Effect.provide(
    Sluice.make({
      name: "bench",
      retry: RetryPolicy.exponential({ maxAttempts: 3 }),
      breaker: { trip: CircuitBreaker.consecutive(5), openFor: Duration.seconds(30) },
      backpressure: { capacity: 100 },
      attemptTimeout: Duration.minutes(1),
      ...(quota === undefined ? undefined : { quota })
    }),
    Sluice.layerStoresMemory
  )

const policies = Effect.fnUntraced(function*(call: Effect.Effect<number>) {
  const without = yield* makePolicy(undefined)
  const ours = yield* makePolicy({ limits: two })
  return timed({
    "the effect alone": ofEffect(() => call),
    "no quota": ofEffect(() => without.protect(call)),
    "Sluice": ofEffect(() => ours.protect(call, { amounts, usage }))
  })
})

const running = 100
const waiting = 10_000

type WithQuota = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, unknown, R>

/** Concurrent calls, spread over the quotas. Each yields once while it runs. */
const concurrentCalls = (quotas: ReadonlyArray<WithQuota>): Run => (operations) => {
  const calls = Array.from({ length: operations }, (_, index) => quotas[index % quotas.length] ?? identity)
  return Effect.runPromise(
    Effect.forEach(calls, (withQuota) => withQuota(Effect.yieldNow), { concurrency: "unbounded", discard: true })
  )
}

const ofWaiting = (atOnce: number, queue: number) =>
  Effect.map(
    makeQuota({ limits: [Quota.atOnce(atOnce)], queue }),
    ({ withQuota }): WithQuota => withQuota({ usage: () => ({}) })
  )

export const builders: Builders<"quota"> = {
  "quota-sync": policies(call),
  "quota-promise": policies(callLater),

  "quota-two-limits": Effect.gen(function*() {
    const { withQuota } = yield* makeQuota({ limits: two })
    return timed({
      "the effect alone": ofEffect(() => call),
      "Sluice": ofEffect(() => withQuota({ amounts, usage })(call))
    })
  }),

  "quota-four-limits": Effect.gen(function*() {
    const ofTwo = yield* makeQuota({ limits: two })
    const ofFour = yield* makeQuota({ limits: four })
    const asked = { tokens: 500, money: 5_000 }
    const used = () => ({ tokens: 320, money: 3_200 })
    return timed({
      "the effect alone": ofEffect(() => call),
      "two limits": ofEffect(() => ofTwo.withQuota({ amounts, usage })(call)),
      "Sluice": ofEffect(() => ofFour.withQuota({ amounts: asked, usage: used })(call))
    })
  }),

  "quota-waiting": Effect.gen(function*() {
    const one = yield* ofWaiting(running, waiting)
    // As many calls run and wait as with one quota. Only the length of a queue differs.
    const many = yield* Effect.forEach(Array.from({ length: 10 }), () => ofWaiting(running / 10, waiting / 10))
    return {
      _tag: "Batch",
      operations: running + waiting,
      runs: {
        "no limiter": concurrentCalls([identity]),
        "Sluice": concurrentCalls([one]),
        "1,000 waiting": concurrentCalls(many)
      }
    }
  })
}
