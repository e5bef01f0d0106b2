import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Logger } from "effect"
import { TestClock } from "effect/testing"

type Store = CircuitBreakerStore.CircuitBreakerStore["Service"]

/** A memory store that returns changed snapshots. */
const storeReturning = (change: (answer: Record<string, unknown>) => unknown): Effect.Effect<Store> =>
  Effect.map(CircuitBreakerStore.makeMemory(), (memory) => {
    const wrong = <A>(made: unknown) => made as A
    const answers = <A extends CircuitBreakerStore.Answer, E>(verb: Effect.Effect<A, E>) =>
      Effect.map(verb, ({ ok, snapshot }) => wrong<A>({ ok, snapshot: change({ ...snapshot }) }))
    return CircuitBreakerStore.CircuitBreakerStore.of({
      read: (request) => Effect.map(memory.read(request), (snapshot) => wrong(change({ ...snapshot }))),
      lease: (request) => answers(memory.lease(request)),
      record: (request) => answers(memory.record(request)),
      transition: (request) => answers(memory.transition(request)),
      list: (request) =>
        Effect.map(memory.list(request), (list) => wrong(list.map((snapshot) => change({ ...snapshot }))))
    })
  })

const open = { _tag: "Open", since: 0, until: 1e15, openings: 1, hinted: 0, because: null, by: "" }
const closed = { _tag: "Closed", since: 0, until: 0, openings: 0, lastOpen: 0, reason: "", by: "" }

const invalidReplies: { readonly [what: string]: (snapshot: Record<string, unknown>) => unknown } = {
  "undefined": () => undefined,
  "null": () => null,
  "an empty object": () => ({}),
  "a string": () => "OK",
  "no evidence": (snapshot) => ({ ...snapshot, evidence: null }),
  "unreadable evidence": (snapshot) => ({ ...snapshot, evidence: { ring: "zzzz\n", wheel: [] } }),
  "a null bucket": (snapshot) => ({ ...snapshot, evidence: { ring: "", wheel: [null] } }),
  "a bucket with a string for a count": (snapshot) => ({
    ...snapshot,
    evidence: { ring: "", wheel: [{ at: 0, calls: "1", failures: 0, slow: 0 }] }
  }),
  "NaN for the time": (snapshot) => ({ ...snapshot, now: Number.NaN }),
  "a string for the generation": (snapshot) => ({ ...snapshot, generation: "1" }),
  "no control": (snapshot) => ({ ...snapshot, control: undefined }),
  "a control with an unknown tag": (snapshot) => ({ ...snapshot, control: { ...closed, _tag: "Ajar" } }),
  "a control that ends at NaN": (snapshot) => ({ ...snapshot, control: { ...closed, until: Number.NaN } }),
  "an opening without evidence": (snapshot) => ({ ...snapshot, control: open }),
  "an unknown forced mode": (snapshot) => ({ ...snapshot, control: { ...closed, _tag: "Forced", mode: "Ajar" } }),
  "no number of probes": (snapshot) => ({ ...snapshot, probing: undefined })
}

describe("a store with an invalid reply", () => {
  for (const [what, change] of Object.entries(invalidReplies)) {
    it.effect(`a store that replies with ${what} is treated as down`, () => {
      const warned: Array<unknown> = []
      const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
        if (logLevel === "Warn") warned.push(message)
      })
      return Effect.gen(function*() {
        const store = yield* storeReturning(change)
        const breaker = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(2), openFor: "30 seconds" }).pipe(
          Effect.provideService(CircuitBreakerStore.CircuitBreakerStore, store)
        )
        for (let i = 0; i < 3; i++) {
          assert.strictEqual(yield* breaker.guard(Effect.succeed("an answer")), "an answer")
          yield* TestClock.adjust("2 seconds")
        }
        const { storeFailures } = yield* breaker.stats
        assert.isAtLeast(storeFailures, 3)
        assert.strictEqual(warned.length, 1)
        // A local circuit takes over.
        for (let i = 0; i < 2; i++) yield* Effect.exit(breaker.guard(Effect.fail("down")))
        assert.isTrue(Exit.isFailure(yield* Effect.exit(breaker.guard(Effect.void))))
        const error = yield* Effect.flip(breaker.state())
        assert.strictEqual(error._tag, "StoreError")
      }).pipe(Effect.provide(Logger.layer([logger])))
    })
  }
})
