import type { StoreError } from "@sluice/core/CircuitBreakerStore"
import type { Ask, QuotaStore, Verdict } from "@sluice/core/QuotaStore"
import * as Effect from "effect/Effect"
import type { Subject } from "../../QuotaStoreContract.ts"
import { type CheckBodies as Bodies, freshPrefix } from "../frame.ts"

export type CheckBodies = Bodies<Fixture>

/** Milliseconds that do not elapse during a check, even on a slow machine. */
export const long = 600_000

/** A window of ten minutes for a check that does not wait. */
export const requests = (limit: number, amount = 1, more: Partial<Ask> = {}): Ask => ({
  scope: "all",
  dimension: "requests",
  limit,
  windowMillis: long,
  quantumMillis: 10_000,
  amount,
  ...more
})

export const atOnce = (limit: number, amount = 1): Ask =>
  requests(limit, amount, { dimension: "atOnce", windowMillis: 0, quantumMillis: 1 })

/** The store under test, and a target that only this check uses. */
export interface Fixture {
  readonly store: QuotaStore["Service"]
  readonly sleep: Subject["sleep"]
  readonly setBack: Subject["setBack"]
  readonly target: string
  readonly reserve: (
    id: string,
    asks: ReadonlyArray<Ask>,
    more?: { readonly leaseMillis?: number; readonly guardMillis?: number }
  ) => Effect.Effect<Verdict, StoreError>
  readonly settle: (
    id: string,
    actual?: { readonly [dimension: string]: number },
    agoMillis?: number,
    keep?: boolean
  ) => Effect.Effect<boolean, StoreError>
  /** The sum of an ask. */
  readonly used: (ask: Ask) => Effect.Effect<number, StoreError>
}

export const makeFixture = (subject: Subject): Effect.Effect<Fixture> =>
  // At time 0 a check could not distinguish a duration from a time.
  Effect.map(Effect.andThen(subject.sleep(3), freshPrefix), (prefix) => fixtureOf(subject, `${prefix}a`))

export const fixtureOf = ({ setBack, sleep, store }: Subject, target: string): Fixture => ({
  store,
  sleep,
  setBack,
  target,
  reserve: (id, asks, { guardMillis = 0, leaseMillis = long } = {}) =>
    store.reserve({ target, id, leaseMillis, guardMillis, asks }),
  settle: (id, actual = {}, agoMillis, keep) =>
    store.settle({
      target,
      id,
      actual: Object.entries(actual).map(([dimension, amount]) => ({ scope: "all", dimension, amount })),
      agoMillis,
      keep
    }),
  used: (ask) =>
    Effect.map(
      store.read({ target, scopes: [ask.scope] }),
      (levels) =>
        levels.find(({ dimension, windowMillis }) => dimension === ask.dimension && windowMillis === ask.windowMillis)
          ?.used ?? 0
    )
})
