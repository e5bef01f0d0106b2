import * as FlightStore from "@sluice/core/FlightStore"
import { describe, it } from "@effect/vitest"
import * as FlightStoreContract from "@sluice/testing/FlightStoreContract"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { settableClock } from "./support/clocks.ts"

const subject = Effect.gen(function*() {
  const { clock, setBack } = yield* settableClock
  const store = yield* Effect.provideService(FlightStore.makeMemory(), Clock.Clock, clock)
  return { store, sleep: TestClock.adjust, setBack }
})

describe("contract of FlightStore.makeMemory", () => {
  for (const { name, run } of FlightStoreContract.checks) it.effect(name, () => Effect.flatMap(subject, run))

  it.effect("the memory store behaves like the reference store under any sequence of requests", () =>
    Effect.flatMap(subject, (subject) => FlightStoreContract.compare({ ...subject, runs: 200, seed: 20_261_130 })))
})
