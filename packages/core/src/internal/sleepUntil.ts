import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Deadline } from "../Deadline.ts"
import { SharedDeadline } from "./launch.ts"

/**
 * Sleeps until the moment that `at` makes of a deadline. The deadline of a flight moves both ways as callers join and leave:
 * the moment is read anew when the sleep is over, and as soon as it may have come nearer.
 */
export const sleepUntil = (deadline: Deadline, at: () => number): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const left = at() - now
    if (left <= 0) return Effect.void
    const sleep = left === Number.POSITIVE_INFINITY ? Effect.never : Effect.sleep(Duration.millis(left))
    const pause = deadline instanceof SharedDeadline ? Effect.raceFirst(sleep, nearer(deadline)) : sleep
    return Effect.andThen(pause, sleepUntil(deadline, at))
  })

const nearer = (deadline: SharedDeadline): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const stop = deadline.watch(() => {
      stop()
      resume(Effect.void)
    })
    return Effect.sync(stop)
  })
