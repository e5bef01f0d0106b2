import * as Admission from "@sluice/core/Admission"
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Outcome from "@sluice/core/Outcome"
import * as Effect from "effect/Effect"
import * as EffectCircuitBreaker from "effect/persistence/CircuitBreaker"
import * as Semaphore from "effect/Semaphore"
import { ofEffect, ofFunction, timed } from "../measure.ts"
import { call, ignore } from "./bodies.ts"
import type { Builders } from "./builders.ts"

const capacity = 100

const sluice = Effect.gen(function*() {
  const breaker = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(5) })
  const permits = yield* Backpressure.make({ capacity })
  return yield* Admission.make({ breaker, permits, key: "bench" })
}).pipe(Effect.provide(CircuitBreakerStore.layerMemory))

const classify = () => Outcome.success

export const builders: Builders<"admission"> = {
  "admission-sync": Effect.gen(function*() {
    const ours = yield* sluice
    const breaker = yield* Effect.provide(
      EffectCircuitBreaker.make({ tripPolicy: EffectCircuitBreaker.consecutive(5), openDuration: "1 hour" }),
      EffectCircuitBreaker.layerStoreMemory()
    )
    const semaphore = yield* Semaphore.make(capacity)
    const key = { key: "bench" }
    return timed({
      "the effect alone": ofEffect(() => call),
      "Sluice": ofEffect(() => ours.guard(call, { classify })),
      "Effect": ofEffect(() => semaphore.withPermit(breaker.execute(call, key)))
    })
  }),

  "admission-callbacks": Effect.map(sluice, (ours) =>
    timed({
      "an empty call": ofFunction(ignore),
      "Sluice": ofFunction(() => {
        const admitted = ours.tryAcquireUnsafe()
        if (admitted?._tag !== "Admitted") throw new Error("not admitted")
        admitted.settleUnsafe(Outcome.success)
      })
    })),

  "admission-scope": Effect.map(sluice, (ours) =>
    timed({
      "an empty scope": ofEffect(() => Effect.scoped(Effect.void)),
      "Sluice": ofEffect(() => Effect.scoped(Effect.flatMap(ours.acquire(), (held) => held.settle(Outcome.success))))
    }))
}
