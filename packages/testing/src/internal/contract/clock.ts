import type { Target } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import { type CheckBodies, type Fixture, ring, short, untilOf } from "./check.ts"
import { expect, expectThat, long } from "../frame.ts"

const hour = 3_600_000
const because = { calls: 4, failures: 3, slow: 2 }

// Each lasts for `long`.
const targets: ReadonlyArray<Target> = [
  { _tag: "Open", forMillis: long, openings: 1, hintMillis: long, because },
  { _tag: "Closed", rampMillis: long, openings: 1, lastOpen: 0, reason: "" },
  { _tag: "Forced", forMillis: long, mode: "ForcedOpen", reason: "a test" }
]

/** Checks of a store whose clock is set back. Without `setBack` they check nothing. */
export const clock: CheckBodies = {
  "nothing lasts longer after the clock was set back by an hour than it was set to last": Effect.fnUntraced(
    function*({ circuit, setBack }: Fixture) {
      if (setBack === undefined) return
      for (const to of targets) {
        const a = circuit({ suffix: to._tag })
        const { snapshot: { generation } } = yield* a.transition(0, "a test", to)
        yield* setBack(hour)
        const { control, generation: after, now } = yield* a.read
        const hinted = control._tag === "Open" ? control.hinted - now : 0
        yield* expectThat(
          `the time of a circuit that is ${to._tag} ends no later than it would have`,
          control.since <= now && control.until - now <= long && hinted <= long,
          { control, now },
          `since at most ${now}, until and hinted at most ${long} later`
        )
        yield* expect("a clock that is set back moves no circuit", after, generation)
      }
    }
  ),

  "a read after the clock was set back moves the end once, not at every read": Effect.fnUntraced(
    function*({ circuit, setBack, sleep }: Fixture) {
      if (setBack === undefined) return
      const a = circuit()
      yield* a.open(0, "a test", long)
      yield* setBack(hour)
      const { control } = yield* a.read
      yield* sleep(short)
      yield* expect("the next read finds the same times", (yield* a.read).control, control)
    }
  ),

  "an opening of a moment admits a probe a moment after the clock was set back by an hour": Effect.fnUntraced(
    function*({ circuit, setBack }: Fixture) {
      if (setBack === undefined) return
      const a = circuit()
      const { snapshot: { generation } } = yield* a.open(0, "a test", short)
      yield* setBack(hour)
      const snapshot = yield* a.read
      const until = yield* untilOf(snapshot)
      yield* expectThat("the opening ends in a moment", until - snapshot.now <= short, until - snapshot.now, `${short}`)
      yield* a.waitUntil(until)
      yield* expect("the circuit is half-open", (yield* a.lease(generation, "probe")).ok, true)
    }
  ),

  "a lease lasts no longer after the clock was set back, however old its circuit is": Effect.fnUntraced(
    function*({ circuit, setBack, sleep }: Fixture) {
      if (setBack === undefined) return
      const a = circuit({ window: ring(5) })
      const generation = yield* a.makeHalfOpen
      yield* sleep(4 * short)
      yield* a.lease(generation, "probe", { ttlMillis: long })
      // By less than the age of the opening, so that only the lease is in the future.
      yield* setBack(2 * short)
      const { leaseMillis, probing } = yield* a.read
      yield* expect("the lease is alive", probing, 1)
      yield* expectThat(
        "the lease lasts no longer than it was granted for",
        leaseMillis <= long,
        leaseMillis,
        `${long}`
      )
      yield* setBack(hour)
      const later = yield* a.waitUntil(yield* untilOf(yield* a.read))
      yield* expect("the lease is still alive", later.probing, 1)
      yield* expectThat("nor if it is set back again", later.leaseMillis <= long, later.leaseMillis, `${long}`)
      const { ok } = yield* a.record(generation, "0", "probe")
      yield* expect("the outcome of the probe counts", ok, true)
    }
  )
}
