/**
 * A timer on the `Clock`, for code that is driven by callbacks.
 *
 * **When to use**
 *
 * In an operator, a stream or a relay that must not pay for a sleeping fiber. In all other code `Effect.sleep` and
 * `Effect.timeout` are the right tools.
 *
 * **Gotchas**
 *
 * - The callback runs outside of every fiber. It must not throw.
 *
 * **Example** (A callback after 10 ms)
 *
 * ```ts
 * import { type Context, Effect } from "effect"
 * import * as Timer from "@sluice/core/Timer"
 *
 * const program = Effect.contextWith((context: Context.Context<never>) =>
 *   Effect.callback<string>((resume) => {
 *     const cancel = Timer.callAfter(context, 10, () => resume(Effect.succeed("time is up")))
 *     return Effect.sync(cancel)
 *   })
 * )
 *
 * console.log(await Effect.runPromise(program)) // => time is up
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

// This package is compiled without the types of a runtime, and every runtime has these two. Looked up for each timer, since a
// test may replace them.
const host = globalThis as unknown as {
  readonly setTimeout: (f: () => void, millis: number) => unknown
  readonly clearTimeout: (handle: unknown) => void
}

// `setTimeout` fires after 1 ms if it is given more than this.
const longestMillis = 2 ** 31 - 1

const systemClock = Context.get(Context.empty(), Clock.Clock)

/**
 * Calls `callback` once, after `millis` milliseconds on the `Clock` of the context. Returns a function that cancels it.
 *
 * **Details**
 *
 * On the system clock it is a bare `setTimeout`, for any length of time, and never fires early. On any other clock, such as
 * `TestClock`, it sleeps in a fiber.
 *
 * @since 0.1.0
 * @category constructors
 */
export const callAfter = (context: Context.Context<never>, millis: number, callback: () => void): () => void => {
  const clock = Context.get(context, Clock.Clock)
  if (clock === systemClock) return callAfterOnSystem(millis, callback)
  const sleeping = Effect.runForkWith(context)(clock.sleep(Duration.millis(millis)))
  sleeping.addObserver((exit) => {
    if (Exit.isSuccess(exit)) callback()
  })
  return () => sleeping.interruptUnsafe()
}

const callAfterOnSystem = (millis: number, callback: () => void): () => void => {
  const dueAt = systemClock.currentTimeMillisUnsafe() + millis
  let handle: unknown
  const wait = (left: number): void => {
    handle = host.setTimeout(() => {
      if (left > longestMillis) return wait(left - longestMillis)
      // The timer's clock rounds differently, so it can fire up to 1 ms early. If more seems to be left, the system clock was
      // set back: the time has passed.
      const early = dueAt - systemClock.currentTimeMillisUnsafe()
      if (early > 0 && early <= 1) wait(early)
      else callback()
    }, Math.min(left, longestMillis))
  }
  wait(millis)
  return () => host.clearTimeout(handle)
}
