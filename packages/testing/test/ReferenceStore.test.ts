import * as ReferenceStore from "@sluice/testing/ReferenceStore"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"

const circuit = { key: "a", window: { calls: 3, bucketMillis: 100, buckets: 2 } }
const because = { calls: 2, failures: 2, slow: 0 }
const open = { _tag: "Open", forMillis: 1_000, openings: 1, hintMillis: 0, because } as const

// The contract is tested in CircuitBreakerStoreContract.test.ts. These are properties that its checks do not cover.
describe("ReferenceStore", () => {
  it("verbs do not change their arguments", () => {
    const [first, one] = ReferenceStore.record(ReferenceStore.empty, { ...circuit, generation: 0, samples: "X" }, 5)
    const before = structuredClone(one)
    const { generation } = first.snapshot
    ReferenceStore.record(one, { ...circuit, generation, samples: "0" }, 6)
    ReferenceStore.transition(one, { ...circuit, generation, by: "me", to: open }, 7)
    assert.deepStrictEqual(one, before)
    assert.strictEqual(ReferenceStore.empty.size, 0)
  })

  it("the same request at the same time gets the same answer", () => {
    const [, circuits] = ReferenceStore.transition(ReferenceStore.empty, {
      ...circuit,
      generation: 0,
      by: "me",
      to: open
    }, 5)
    const probe = { ...circuit, generation: 5_000, id: "probe", limit: 1, ttlMillis: 50 }
    assert.deepStrictEqual(ReferenceStore.lease(circuits, probe, 1_005), ReferenceStore.lease(circuits, probe, 1_005))
  })

  it("a bucket leaves the window as time passes, without a verb in between", () => {
    const [, circuits] = ReferenceStore.record(ReferenceStore.empty, { ...circuit, generation: 0, samples: "X1" }, 150)
    const wheelAt = (now: number) => ReferenceStore.read(circuits, circuit, now).evidence.wheel
    const bucket = { at: 100, calls: 2, failures: 20, slow: 1 }
    assert.deepStrictEqual([wheelAt(150), wheelAt(299), wheelAt(300)], [[bucket], [bucket], []])
  })

  it.effect("the store of make uses Clock", () =>
    Effect.gen(function*() {
      const store = yield* ReferenceStore.make
      const { snapshot } = yield* store.transition({ ...circuit, generation: 0, by: "me", to: open })
      const probe = { ...circuit, generation: snapshot.generation, id: "probe", limit: 1, ttlMillis: 50 }
      yield* TestClock.adjust(999)
      assert.isFalse((yield* store.lease(probe)).ok)
      yield* TestClock.adjust(1)
      assert.isTrue((yield* store.lease(probe)).ok)
    }))
})
