import { CircuitBreakerStore, makeMemory, StoreError } from "@sluice/core/CircuitBreakerStore"
import { Effect, Layer } from "effect"

type Store = CircuitBreakerStore["Service"]
type Verb = "read" | "lease" | "record" | "transition"

/** A memory store whose replies take a round trip: half of it before the verb, half after. */
export const remoteStore = (roundTripMillis: number): Layer.Layer<CircuitBreakerStore> =>
  Layer.effect(
    CircuitBreakerStore,
    Effect.map(makeMemory(), (memory) => {
      const remote = <A, E>(verb: Effect.Effect<A, E>) =>
        Effect.andThen(
          Effect.sleep(roundTripMillis / 2),
          Effect.tap(verb, () => Effect.sleep(roundTripMillis / 2))
        )
      return CircuitBreakerStore.of({
        read: (options) => remote(memory.read(options)),
        lease: (options) => remote(memory.lease(options)),
        record: (options) => remote(memory.record(options)),
        transition: (options) => remote(memory.transition(options)),
        list: (options) => remote(memory.list(options))
      })
    })
  )

/** A memory store whose verbs can be made to fail. */
export interface FaultyStore {
  readonly store: Store
  readonly breakDown: (...verbs: ReadonlyArray<Verb>) => void
  readonly recover: () => void
}

export const faultyStore: Effect.Effect<FaultyStore> = Effect.map(makeMemory(), (memory) => {
  const broken = new Set<Verb>()
  const unless = <A, E>(operation: Verb, verb: Effect.Effect<A, E>): Effect.Effect<A, E | StoreError> =>
    Effect.suspend((): Effect.Effect<A, E | StoreError> =>
      broken.has(operation) ? Effect.fail(new StoreError({ operation, description: "connection refused" })) : verb
    )
  return {
    store: CircuitBreakerStore.of({
      read: (options) => unless("read", memory.read(options)),
      lease: (options) => unless("lease", memory.lease(options)),
      record: (options) => unless("record", memory.record(options)),
      transition: (options) => unless("transition", memory.transition(options)),
      list: memory.list
    }),
    breakDown: (...verbs) => verbs.forEach((verb) => broken.add(verb)),
    recover: () => broken.clear()
  }
})
