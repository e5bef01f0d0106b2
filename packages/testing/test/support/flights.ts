import type { FlightStore } from "@sluice/core/FlightStore"
import type { Subject } from "@sluice/testing/FlightStoreContract"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"

/** A store on `TestClock`, as a subject whose clock can be set back. */
export const subjectOf = (make: Effect.Effect<FlightStore["Service"]>): Effect.Effect<Subject> =>
  Effect.gen(function*() {
    // Years ahead, so that it can be set back often.
    let aheadMillis = 10 * 365 * 86_400_000
    const inner = yield* Clock.Clock
    const clock: Clock.Clock = Object.assign(Object.create(inner), {
      currentTimeMillisUnsafe: () => inner.currentTimeMillisUnsafe() + aheadMillis
    })
    const store = yield* Effect.provideService(make, Clock.Clock, clock)
    const setBack = (millis: number) => Effect.sync(() => void (aheadMillis -= millis))
    return { store, sleep: TestClock.adjust, setBack }
  })
