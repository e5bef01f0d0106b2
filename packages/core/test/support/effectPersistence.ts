import * as Ours from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as EffectCircuitBreaker from "@sluice/core/EffectCircuitBreaker"
import { Effect, Layer } from "effect"
import * as Theirs from "effect/persistence/CircuitBreaker"

type Options = Parameters<typeof Theirs.make>[0]

const make = ({ maxOpenDuration, openDuration, tripPolicy }: Options) =>
  Ours.make({
    trip: tripPolicy._tag === "Consecutive"
      ? Ours.consecutive(tripPolicy.failures)
      : Ours.failureRate({
        rate: tripPolicy.threshold,
        calls: tripPolicy.size,
        minimum: tripPolicy.minimumCalls
      }),
    openFor: openDuration,
    maxOpenFor: maxOpenDuration
  }).pipe(Effect.orDie, Effect.map(EffectCircuitBreaker.fromBreaker))

export * from "effect/persistence"

/** Effect's module on top of our breaker and our store. */
export const CircuitBreaker = {
  ...Theirs,
  make,
  layer: (options: Options) => Layer.effect(Theirs.CircuitBreaker, make(options)),
  layerStoreMemory: () => Layer.fresh(CircuitBreakerStore.layerMemory)
}
