import { Cause, Effect } from "effect"

/** As often as a timer fires in an idle process. */
const tickMillis = 10

/**
 * Fails with a `TimeoutError` after so much time in which the process ran. A machine that stands still for seconds costs one tick, so
 * the limit can be short.
 */
export const within = <A, E, R>(self: Effect.Effect<A, E, R>, millis: number) =>
  Effect.raceFirst(
    self,
    Effect.andThen(
      Effect.repeat(Effect.sleep(tickMillis), { times: millis / tickMillis }),
      Effect.suspend(() => Effect.fail(new Cause.TimeoutError(`not within ${millis} ms`)))
    )
  )
