import * as QuotaStore from "@sluice/core/QuotaStore"
import { describe, it } from "@effect/vitest"
import * as QuotaStoreContract from "@sluice/testing/QuotaStoreContract"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { settableClock } from "./support/clocks.ts"

const subject = Effect.gen(function*() {
  const { clock, setBack } = yield* settableClock
  const store = yield* Effect.provideService(QuotaStore.makeMemory(), Clock.Clock, clock)
  return { store, sleep: TestClock.adjust, setBack }
})

describe("contract of QuotaStore.makeMemory", () => {
  for (const { name, run } of QuotaStoreContract.checks) it.effect(name, () => Effect.flatMap(subject, run))

  it.effect("the memory store behaves like the reference store under any sequence of requests", () =>
    Effect.flatMap(subject, (subject) => QuotaStoreContract.compare({ ...subject, runs: 60, seed: 20_261_130 })))
})
