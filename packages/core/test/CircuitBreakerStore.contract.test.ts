import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { assert, describe, it, vi } from "@effect/vitest"
import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { settableClock } from "./support/clocks.ts"

// The comparison makes 200 runs, which take seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

const capacity = 1_000
const window = { calls: 0, bucketMillis: 0, buckets: 0 }

const memory: Effect.Effect<CircuitBreakerStoreContract.Subject> = Effect.gen(function*() {
  const { clock, setBack } = yield* settableClock
  const store = yield* Effect.provideService(CircuitBreakerStore.makeMemory({ capacity }), Clock.Clock, clock)
  return {
    store,
    sleep: TestClock.adjust,
    setBack,
    // A circuit is evicted when as many others have been used since.
    forget: () =>
      Effect.forEach(
        Array.from({ length: capacity }, (_, nth) => ({ key: `other ${nth}`, window, generation: 0, samples: "0" })),
        store.record,
        { discard: true }
      ).pipe(Effect.orDie)
  }
})

describe("contract of CircuitBreakerStore.makeMemory", () => {
  for (const { name, run } of CircuitBreakerStoreContract.checks) {
    it.effect(name, () => Effect.flatMap(memory, run))
  }

  it.effect("the memory store behaves like the reference store under any sequence of requests", () =>
    Effect.gen(function*() {
      const { answers } = yield* CircuitBreakerStoreContract.compare({
        ...(yield* memory),
        runs: 200,
        seed: 20_261_121
      })
      assert.isAbove(answers["settle ok"] ?? 0, 20)
      assert.isAbove(answers["setBack"] ?? 0, 20)
    }))
})
