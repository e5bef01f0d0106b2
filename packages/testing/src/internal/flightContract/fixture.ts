import type { StoreError } from "@sluice/core/CircuitBreakerStore"
import type { Claimed, FlightStore } from "@sluice/core/FlightStore"
import * as Effect from "effect/Effect"
import type { Subject } from "../../FlightStoreContract.ts"
import { type CheckBodies as Bodies, freshPrefix, long } from "../frame.ts"

export type CheckBodies = Bodies<Fixture>

/** What differs from the flights of the other calls of a check. */
interface FlightOptions {
  readonly key?: string
  readonly operation?: string
  readonly tenant?: string
}

interface ClaimOptions extends FlightOptions {
  readonly leaseMillis?: number
  readonly following?: number
}

interface CompleteOptions extends FlightOptions {
  readonly freshMillis?: number
  readonly keepMillis?: number
}

/** The store under test, and a key that only this check uses. */
export interface Fixture {
  readonly store: FlightStore["Service"]
  readonly sleep: Subject["sleep"]
  readonly setBack: Subject["setBack"]
  /** Every name of this check begins with it. */
  readonly prefix: string
  readonly key: string
  readonly claim: (id: string, options?: ClaimOptions) => Effect.Effect<Claimed, StoreError>
  readonly renew: (id: string, leaseMillis?: number) => Effect.Effect<boolean, StoreError>
  readonly complete: (id: string, result: string, options?: CompleteOptions) => Effect.Effect<boolean, StoreError>
  readonly release: (id: string) => Effect.Effect<boolean, StoreError>
}

export const makeFixture = (subject: Subject): Effect.Effect<Fixture> =>
  // At time 0 a check could not distinguish a duration from a time.
  Effect.map(Effect.andThen(subject.sleep(3), freshPrefix), (prefix) => fixtureOf(subject, prefix))

const fixtureOf = ({ setBack, sleep, store }: Subject, prefix: string): Fixture => {
  const own = `${prefix}key`
  const flight = (id: string, options: FlightOptions = {}) => {
    const { key = own, operation = `${prefix}o`, tenant = `${prefix}t` } = options
    return { key, operation, tenant, id: `${prefix}${id}` }
  }
  return {
    store,
    sleep,
    setBack,
    prefix,
    key: own,
    claim: (id, { following, leaseMillis = long, ...options } = {}) =>
      store.claim({ ...flight(id, options), leaseMillis, following }),
    renew: (id, leaseMillis = long) => store.renew({ ...flight(id), leaseMillis }),
    complete: (id, result, { freshMillis = 0, keepMillis = long, ...options } = {}) =>
      store.complete({ ...flight(id, options), result, freshMillis, keepMillis }),
    release: (id) => store.release(flight(id))
  }
}
