import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"

// This package is compiled without the types of a runtime; every one of them has these two. Looked up anew for each timer,
// since a test may replace them.
const host = globalThis as unknown as {
  readonly setTimeout: (f: () => void, millis: number) => unknown
  readonly clearTimeout: (handle: unknown) => void
}

// A timer of the machine that is given more than this fires after a millisecond.
const longestMillis = 2 ** 31 - 1

// The clock of every program that brings none of its own.
const machineClock = Context.get(Context.empty(), Clock.Clock)

/**
 * Calls back once, when so many milliseconds have gone by on the fiber's clock, and returns what calls it off.
 *
 * The machine's own clock is served by a bare timer: a fiber that sleeps costs 1,300 ns more, which is half of what a
 * timeout around a promise costs in all.
 */
export const callAfter = (fiber: Fiber.Fiber<unknown, unknown>, millis: number, callback: () => void): () => void => {
  const clock = fiber.getRef(Clock.Clock)
  return clock === machineClock ? onMachine(millis, callback) : onClock(clock, fiber, millis, callback)
}

const onMachine = (millis: number, callback: () => void): () => void => {
  const end = machineClock.currentTimeMillisUnsafe() + millis
  let handle: unknown
  const wait = (left: number): void => {
    handle = host.setTimeout(() => {
      if (left > longestMillis) return wait(left - longestMillis)
      // A timer may be early by what its clock and this one round differently. More than that is a clock that was set back
      // meanwhile: the time went by all the same.
      const early = end - machineClock.currentTimeMillisUnsafe()
      if (early > 0 && early <= 1) wait(early)
      else callback()
    }, Math.min(left, longestMillis))
  }
  wait(millis)
  return () => host.clearTimeout(handle)
}

const onClock = (
  clock: Clock.Clock,
  fiber: Fiber.Fiber<unknown, unknown>,
  millis: number,
  callback: () => void
): () => void => {
  const timer = Effect.runForkWith(fiber.context)(clock.sleep(Duration.millis(millis)))
  timer.addObserver((exit) => {
    if (Exit.isSuccess(exit)) callback()
  })
  return () => timer.interruptUnsafe()
}
