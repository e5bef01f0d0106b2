import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

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
 * Calls back once, when so many milliseconds have gone by on the clock of the context, and returns what calls it off.
 *
 * The machine's own clock is served by a bare timer, which costs a fifth of a fiber that sleeps.
 */
export const callAfter = (context: Context.Context<never>, millis: number, callback: () => void): () => void => {
  const clock = Context.get(context, Clock.Clock)
  if (clock === machineClock) return onMachine(millis, callback)
  const timer = Effect.runForkWith(context)(clock.sleep(Duration.millis(millis)))
  timer.addObserver((exit) => {
    if (Exit.isSuccess(exit)) callback()
  })
  return () => timer.interruptUnsafe()
}

const onMachine = (millis: number, callback: () => void): () => void => {
  let handle: unknown
  const wait = (left: number): void => {
    handle = host.setTimeout(
      () => left > longestMillis ? wait(left - longestMillis) : callback(),
      Math.min(left, longestMillis)
    )
  }
  wait(millis)
  return () => host.clearTimeout(handle)
}
