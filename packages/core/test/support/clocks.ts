import { Clock, Effect } from "effect"

/** A clock that can be set back, without effect on its sleeps. */
export interface SettableClock {
  readonly clock: Clock.Clock
  /** Milliseconds since the test began, whatever the clock shows. */
  readonly passed: () => number
  readonly setBack: (millis: number) => Effect.Effect<void>
}

/** A settable clock over the test clock, years ahead so that it can be set back often. `TestClock.adjust` advances it. */
export const settableClock: Effect.Effect<SettableClock> = Effect.map(Clock.Clock, (inner) => {
  let aheadMillis = 10 * 365 * 86_400_000
  const now = () => inner.currentTimeMillisUnsafe() + aheadMillis
  const nanos = () => BigInt(now()) * 1_000_000n
  // Inherits from the test clock, so that `TestClock.adjust` finds it.
  const clock: Clock.Clock = Object.assign(Object.create(inner), {
    currentTimeMillisUnsafe: now,
    currentTimeMillis: Effect.sync(now),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos)
  })
  return {
    clock,
    passed: () => inner.currentTimeMillisUnsafe(),
    setBack: (millis) =>
      Effect.sync(() => {
        aheadMillis -= millis
      })
  }
})
