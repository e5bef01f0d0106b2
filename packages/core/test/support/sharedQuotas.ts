import { StoreError } from "@sluice/core/CircuitBreakerStore"
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import * as ReferenceQuotaStore from "@sluice/testing/ReferenceQuotaStore"
import { Clock, Effect, Latch } from "effect"

type Service = QuotaStore.QuotaStore["Service"]

/** The state of a shared store in a test. */
export interface StoreState {
  /** Requests fail. `hangs`: they get no answer. */
  isDown: boolean | "hangs"
  /** How many requests are carried out, with their replies lost. */
  lostReplies: number
  /** Requests by verb. */
  readonly sent: Record<keyof Service, number>
}

/** Opened when the scope of a quota closes: the clock of the test stands still then, and the quota waits for its requests. */
const ends = new WeakMap<Service, Latch.Latch>()

/** A store that is not in memory: the reference store, with 5 ms for each answer. `store` answers at once, whatever the state. */
export const sharedStore = Effect.map(ReferenceQuotaStore.make, (store) => {
  const state: StoreState = {
    isDown: false,
    lostReplies: 0,
    sent: { reserve: 0, settle: 0, record: 0, renew: 0, limit: 0, read: 0, targets: 0 }
  }
  const end = Latch.makeUnsafe()
  const failed = Effect.suspend(() => Effect.fail(new StoreError({ operation: "any", description: "down" })))
  const slow = <A, E>(verb: keyof Service, effect: Effect.Effect<A, E>) =>
    Effect.suspend((): Effect.Effect<A, E | StoreError> => {
      state.sent[verb]++
      if (state.isDown === true) return failed
      if (state.isDown === "hangs") return Effect.andThen(end.await, failed)
      if (state.lostReplies > 0) {
        state.lostReplies--
        return Effect.andThen(effect, failed)
      }
      return end.isOpen() ? effect : Effect.andThen(Effect.raceFirst(Effect.sleep("5 millis"), end.await), effect)
    })
  const service: Service = {
    reserve: (request) => slow("reserve", store.reserve(request)),
    settle: (request) => slow("settle", store.settle(request)),
    record: (request) => slow("record", store.record(request)),
    renew: (request) => slow("renew", store.renew(request)),
    limit: (request) => slow("limit", store.limit(request)),
    read: (request) => slow("read", store.read(request)),
    targets: (request) => slow("targets", store.targets(request))
  }
  ends.set(service, end)
  return { service, state, store }
})

/** A quota of a process on a store. */
export const makeOn = (store: Service, options: Quota.QuotaOptions) =>
  Effect.tap(
    Effect.orDie(Effect.provideService(Quota.make(options), QuotaStore.QuotaStore, store)),
    // It runs before the finalizers of the quota.
    Effect.addFinalizer(() => Effect.sync(() => ends.get(store)?.openUnsafe()))
  )

/** The sum of a dimension in a store. */
export const usedIn = (store: Service, dimension: string) =>
  Effect.map(
    Effect.orDie(store.read({ target: "default", scopes: ["all"] })),
    (levels) => levels.find((level) => level.dimension.startsWith(`${dimension}:`))?.used ?? 0
  )

/** The times at which calls arrived at a provider. */
export class Journal {
  readonly times: Array<number> = []

  /** A call that takes this long. */
  call(millis: number): Effect.Effect<void> {
    return Effect.andThen(
      Effect.map(Clock.currentTimeMillis, (now) => this.times.push(now)),
      Effect.sleep(millis)
    )
  }

  /** The most calls in any window. */
  most(windowMillis: number): number {
    const times = this.times.toSorted((a, b) => a - b)
    let most = 0
    let first = 0
    for (const [last, time] of times.entries()) {
      while ((times[first] ?? 0) <= time - windowMillis) first++
      most = Math.max(most, last - first + 1)
    }
    return most
  }
}
