import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Deadline } from "../../Deadline.ts"
import { isMoving, type MovingDeadline } from "./shared.ts"
import { presentAt } from "./timeout.ts"

/**
 * Sleeps until the moment that `at` derives from a deadline. The deadline of a shared run moves both ways as callers join
 * and leave, so `at` is read again after the sleep, and whenever the deadline may have moved closer.
 */
export const sleepUntil = (deadline: Deadline, at: () => number): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => sleepFrom(now, deadline, at))

const sleepFrom = (now: number, deadline: Deadline, at: () => number): Effect.Effect<void> => {
  const due = at()
  const left = due - now
  if (left <= 0) return Effect.void
  // After the sleep it is `due`, even if the clock was set back meanwhile.
  const sleep = left === Number.POSITIVE_INFINITY
    ? Effect.never
    : Effect.andThen(
      Effect.sleep(Duration.millis(left)),
      Effect.map(Clock.currentTimeMillis, (now) => Math.max(due, now))
    )
  const presentAfterMove = Effect.map(Clock.currentTimeMillis, (reading) => presentAt(reading, now, at()))
  const pause = isMoving(deadline)
    ? Effect.raceFirst(sleep, Effect.andThen(untilEarlier(deadline), presentAfterMove))
    : sleep
  return Effect.flatMap(pause, (now) => sleepFrom(now, deadline, at))
}

const untilEarlier = (deadline: MovingDeadline): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const stop = deadline.watch(() => {
      stop()
      resume(Effect.void)
    })
    return Effect.sync(stop)
  })
