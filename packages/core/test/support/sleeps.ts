import { Clock, Duration, Effect } from "effect"

/** A clock that counts its pending sleeps, to find timers that are left behind. */
export const countingClock: Effect.Effect<{ readonly clock: Clock.Clock; readonly pending: () => number }> = Effect.map(
  Clock.Clock,
  (inner) => {
    let pending = 0
    const clock: Clock.Clock = {
      ...inner,
      sleep: (duration) =>
        Duration.isZero(duration) ? inner.sleep(duration) : Effect.acquireUseRelease(
          Effect.sync(() => {
            pending++
          }),
          () => inner.sleep(duration),
          () =>
            Effect.sync(() => {
              pending--
            })
        )
    }
    return { clock, pending: () => pending }
  }
)
