import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Deadline } from "../Deadline.ts"
import { SharedDeadline } from "./launch.ts"
import { presentAt } from "./timeout.ts"

/**
 * Sleeps until the moment that `at` makes of a deadline. The deadline of a flight moves both ways as callers join and leave:
 * the moment is read anew when the sleep is over, and as soon as it may have come nearer.
 */
export const sleepUntil = (deadline: Deadline, at: () => number): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => sleepFrom(now, deadline, at))

const sleepFrom = (now: number, deadline: Deadline, at: () => number): Effect.Effect<void> => {
  const due = at()
  const left = due - now
  if (left <= 0) return Effect.void
  // What has been slept for has come, also by a clock that was set back meanwhile.
  const sleep = left === Number.POSITIVE_INFINITY
    ? Effect.never
    : Effect.andThen(
      Effect.sleep(Duration.millis(left)),
      Effect.map(Clock.currentTimeMillis, (now) => Math.max(due, now))
    )
  const nearerAt = Effect.map(Clock.currentTimeMillis, (reading) => presentAt(reading, now, at()))
  const pause = deadline instanceof SharedDeadline
    ? Effect.raceFirst(sleep, Effect.andThen(nearer(deadline), nearerAt))
    : sleep
  return Effect.flatMap(pause, (now) => sleepFrom(now, deadline, at))
}

const nearer = (deadline: SharedDeadline): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const stop = deadline.watch(() => {
      stop()
      resume(Effect.void)
    })
    return Effect.sync(stop)
  })
