import * as FlightStoreContract from "@sluice/testing/FlightStoreContract"
import * as FlightStore from "@sluice/core/FlightStore"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Stream } from "effect"
import { TestClock } from "effect/testing"

type Service = FlightStore.FlightStore["Service"]

const subject = Effect.gen(function*() {
  let behindMillis = 0
  const inner = yield* Clock.Clock
  const clock: Clock.Clock = Object.assign(Object.create(inner), {
    currentTimeMillisUnsafe: () => inner.currentTimeMillisUnsafe() + 10 * 365 * 86_400_000 - behindMillis
  })
  const store = yield* Effect.provideService(FlightStore.makeMemory(), Clock.Clock, clock)
  const setBack = (millis: number) =>
    Effect.sync(() => {
      behindMillis += millis
    })
  return { store, sleep: TestClock.adjust, setBack }
})

/** Stores that break one promise each. */
const wrong: { readonly [fault: string]: (store: Service) => Partial<Service> } = {
  "lets every claim lead": ({ claim }) => {
    let claims = 0
    return { claim: (request) => claim({ ...request, key: `${request.key} ${claims++}` }) }
  },
  "treats every claim as a new id": ({ claim }) => {
    let claims = 0
    return { claim: (request) => claim({ ...request, id: `${request.id} ${claims++}` }) }
  },
  "never lets a lease lapse": ({ claim }) => ({ claim: (request) => claim({ ...request, leaseMillis: 1e12 }) }),
  "lets leases lapse that were renewed": () => ({ renew: () => Effect.succeed(true) }),
  "says that a lapsed lease was renewed": ({ renew }) => ({ renew: (request) => Effect.as(renew(request), true) }),
  "says that a late result was stored": ({ complete }) => ({
    complete: (request) => Effect.as(complete(request), true)
  }),
  "stores a late result over that of a successor": (store) => ({
    complete: (request) =>
      Effect.gen(function*() {
        if (yield* store.complete(request)) return true
        yield* store.purge({ by: "key", hash: request.key })
        yield* store.claim({ ...request, leaseMillis: 1_000 })
        return yield* store.complete(request)
      })
  }),
  "never returns a result to followers": ({ claim }) => ({
    claim: ({ following: _, ...request }) => claim(request)
  }),
  "returns the result of an earlier lease to followers": ({ claim }) => ({
    claim: ({ following, ...request }) => claim({ ...request, following: following === undefined ? undefined : 1 })
  }),
  "serves a result that was only for followers": ({ claim }) => ({
    claim: (request) => claim({ ...request, following: request.following ?? 1 })
  }),
  "keeps results for ever": ({ complete }) => ({
    complete: (request) => complete({ ...request, freshMillis: request.freshMillis && 1e12, keepMillis: 1e12 })
  }),
  "keeps no fresh result": ({ complete }) => ({ complete: (request) => complete({ ...request, freshMillis: 0 }) }),
  "cuts results": ({ complete }) => ({
    complete: (request) => complete({ ...request, result: request.result.slice(0, 1_000) })
  }),
  "does not release": () => ({ release: () => Effect.succeed(true) }),
  "purges nothing": () => ({ purge: () => Effect.succeed(1) }),
  "purges by the key only": ({ purge }) => ({ purge: ({ hash }) => purge({ by: "key", hash }) }),
  "never tells what is finished": () => ({ finished: Stream.never })
}

describe("FlightStoreContract", () => {
  for (const [fault, change] of Object.entries(wrong)) {
    it.effect(`a store that ${fault} is found`, () =>
      Effect.gen(function*() {
        const right = yield* subject
        const broken = { ...right, store: { ...right.store, ...change(right.store) } }
        const exits = yield* Effect.forEach(FlightStoreContract.checks, ({ run }) => Effect.exit(run(broken)))
        assert.isTrue(exits.some(Exit.isFailure))
      }))
  }
})
