import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Logger } from "effect"
import { TestClock } from "effect/testing"

type Store = CircuitBreakerStore.CircuitBreakerStore["Service"]

/** A store that answers as it should, but for what is made of each answer. */
const changed = (change: (answer: Record<string, unknown>) => unknown): Effect.Effect<Store> =>
  Effect.map(CircuitBreakerStore.makeMemory(), (memory) => {
    const wrong = <A>(made: unknown) => made as A
    const answers = <A extends CircuitBreakerStore.Answer, E>(verb: Effect.Effect<A, E>) =>
      Effect.map(verb, ({ ok, snapshot }) => wrong<A>({ ok, snapshot: change({ ...snapshot }) }))
    return CircuitBreakerStore.CircuitBreakerStore.of({
      read: (asked) => Effect.map(memory.read(asked), (snapshot) => wrong(change({ ...snapshot }))),
      lease: (asked) => answers(memory.lease(asked)),
      record: (asked) => answers(memory.record(asked)),
      transition: (asked) => answers(memory.transition(asked)),
      list: (asked) => Effect.map(memory.list(asked), (list) => wrong(list.map((snapshot) => change({ ...snapshot }))))
    })
  })

const open = { _tag: "Open", since: 0, until: 1e15, openings: 1, hinted: 0, because: null, by: "" }
const closed = { _tag: "Closed", since: 0, until: 0, openings: 0, lastOpen: 0, reason: "", by: "" }

const nonsense: { readonly [what: string]: (snapshot: Record<string, unknown>) => unknown } = {
  "nothing": () => undefined,
  "null": () => null,
  "an empty object": () => ({}),
  "a text": () => "OK",
  "no evidence": (snapshot) => ({ ...snapshot, evidence: null }),
  "evidence that is none": (snapshot) => ({ ...snapshot, evidence: { ring: "zzzz\n", wheel: [] } }),
  "a bucket that is none": (snapshot) => ({ ...snapshot, evidence: { ring: "", wheel: [null] } }),
  "a bucket that cannot be counted": (snapshot) => ({
    ...snapshot,
    evidence: { ring: "", wheel: [{ at: 0, calls: "1", failures: 0, slow: 0 }] }
  }),
  "a time that is none": (snapshot) => ({ ...snapshot, now: Number.NaN }),
  "a generation that is none": (snapshot) => ({ ...snapshot, generation: "1" }),
  "no control": (snapshot) => ({ ...snapshot, control: undefined }),
  "a control of no kind": (snapshot) => ({ ...snapshot, control: { ...closed, _tag: "Ajar" } }),
  "a control that ends at no time": (snapshot) => ({ ...snapshot, control: { ...closed, until: Number.NaN } }),
  "an opening for no reason": (snapshot) => ({ ...snapshot, control: open }),
  "a force of no kind": (snapshot) => ({ ...snapshot, control: { ...closed, _tag: "Forced", mode: "Ajar" } }),
  "places that are no number": (snapshot) => ({ ...snapshot, probing: undefined })
}

describe("a store that answers nonsense is down:", () => {
  for (const [what, change] of Object.entries(nonsense)) {
    it.effect(what, () => {
      const warned: Array<unknown> = []
      const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
        if (logLevel === "Warn") warned.push(message)
      })
      return Effect.gen(function*() {
        const store = yield* changed(change)
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
        // The circuit of this process stands in for it.
        for (let i = 0; i < 2; i++) yield* Effect.exit(breaker.guard(Effect.fail("down")))
        assert.isTrue(Exit.isFailure(yield* Effect.exit(breaker.guard(Effect.void))))
        const told = yield* Effect.flip(breaker.state())
        assert.strictEqual(told._tag, "StoreError")
      }).pipe(Effect.provide(Logger.layer([logger])))
    })
  }
})
