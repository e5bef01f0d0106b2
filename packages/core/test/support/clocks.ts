import { Clock, Effect } from "effect"

/** A clock whose reading somebody sets back, while its sleeps take as long as they take: an hour that the machine was wrong by. */
export interface SettableClock {
  readonly clock: Clock.Clock
  /** How long the test has taken, whatever the clock shows. */
  readonly passed: () => number
  readonly setBack: (millis: number) => Effect.Effect<void>
}

/** One on the test's clock, which is moved by `TestClock.adjust` as ever. It shows a day more, so that it can be set back. */
export const settableClock: Effect.Effect<SettableClock> = Effect.map(Clock.Clock, (inner) => {
  let aheadMillis = 86_400_000
  const now = () => inner.currentTimeMillisUnsafe() + aheadMillis
  const nanos = () => BigInt(now()) * 1_000_000n
  // `TestClock.adjust` has to find what it moves.
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
