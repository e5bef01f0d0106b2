import * as QuotaStoreContract from "@sluice/testing/QuotaStoreContract"
import * as ReferenceQuotaStore from "@sluice/testing/ReferenceQuotaStore"
import type { QuotaStore } from "@sluice/core/QuotaStore"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"

type Service = QuotaStore["Service"]

const subject = Effect.gen(function*() {
  let behindMillis = 0
  const inner = yield* Clock.Clock
  const clock: Clock.Clock = Object.assign(Object.create(inner), {
    currentTimeMillisUnsafe: () => inner.currentTimeMillisUnsafe() + 10 * 365 * 86_400_000 - behindMillis
  })
  const store = yield* Effect.provideService(ReferenceQuotaStore.make, Clock.Clock, clock)
  const setBack = (millis: number) =>
    Effect.sync(() => {
      behindMillis += millis
    })
  return { store, sleep: TestClock.adjust, setBack }
})

/** Stores that break one promise each. */
const wrong: { readonly [fault: string]: (store: Service) => Partial<Service> } = {
  "settles an id twice": ({ settle }) => ({ settle: (request) => Effect.as(settle(request), true) }),
  "takes again for a live id": ({ reserve }) => {
    let calls = 0
    return { reserve: (request) => reserve({ ...request, id: `${request.id} ${calls++}` }) }
  },
  "ignores the last ask": ({ reserve }) => ({
    reserve: (request) => reserve({ ...request, asks: request.asks.slice(0, Math.max(1, request.asks.length - 1)) })
  }),
  "ignores the guard": ({ reserve }) => ({ reserve: (request) => reserve({ ...request, guardMillis: 0 }) }),
  "ignores when a call arrived": ({ settle }) => ({ settle: (request) => settle({ ...request, agoMillis: -9_999 }) }),
  "forgets what was used": ({ settle }) => ({ settle: (request) => settle({ ...request, actual: [] }) }),
  "does not renew": () => ({ renew: () => Effect.void }),
  "does not record": () => ({ record: () => Effect.void }),
  "forgets what was learned": ({ limit }) => ({ limit: ({ seen: _, ...request }) => limit(request) }),
  "does not repeat what was learned": ({ reserve }) => ({
    reserve: (request) => Effect.map(reserve(request), (verdict) => ({ ...verdict, learned: [] }))
  }),
  "grants all or nothing": ({ reserve }) => ({
    reserve: (request) => reserve({ ...request, asks: request.asks.map(({ least: _, ...ask }) => ask) })
  }),
  "ends an id that is kept": ({ settle }) => ({ settle: ({ keep: _, ...request }) => settle(request) }),
  "records everything as used now": ({ record }) => ({
    record: ({ asks, target }) => record({ target, asks: asks.map(({ agoMillis: _, ...ask }) => ask) })
  }),
  "never frees": ({ reserve }) => ({ reserve: (request) => reserve({ ...request, leaseMillis: 1e12 }) })
}

describe("QuotaStoreContract", () => {
  for (const { name, run } of QuotaStoreContract.checks) {
    it.effect(`the reference store keeps it: ${name}`, () => Effect.flatMap(subject, run))
  }

  for (const [fault, change] of Object.entries(wrong)) {
    it.effect(`a store that ${fault} is found`, () =>
      Effect.gen(function*() {
        const right = yield* subject
        const broken = { ...right, store: { ...right.store, ...change(right.store) } }
        const exits = yield* Effect.forEach(QuotaStoreContract.checks, ({ run }) => Effect.exit(run(broken)))
        assert.isTrue(exits.some(({ _tag }) => _tag === "Failure"))
      }))
  }

  it.effect("compare finds a store whose waits are wrong", () =>
    Effect.gen(function*() {
      const right = yield* subject
      const store: Service = {
        ...right.store,
        reserve: (request) =>
          Effect.map(right.store.reserve(request), (verdict) => ({ ...verdict, waitMillis: verdict.waitMillis / 2 }))
      }
      const error = yield* Effect.flip(QuotaStoreContract.compare({ ...right, store, runs: 20, seed: 1 }))
      assert.match(error.message, /waitMillis/)
    }))

  it.effect("compare finds a store that counts an amount wrongly", () =>
    Effect.gen(function*() {
      const right = yield* subject
      const { reserve } = right.store
      const store: Service = {
        ...right.store,
        reserve: ({ asks, ...request }) =>
          reserve({
            ...request,
            asks: asks.map((ask) => ask.amount === 77 ? Object.assign({}, ask, { amount: 78 }) : ask)
          })
      }
      const error = yield* Effect.flip(QuotaStoreContract.compare({ ...right, store, runs: 500, seed: 1 }))
      assert.strictEqual(error._tag, "ModelDiffers")
    }))
})
