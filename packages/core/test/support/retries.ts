import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { Clock, type Duration, Effect, Exit, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { yields } from "./probe.ts"

/** A second, two, four and so on, without chance: what most tests count with. */
export const plain = (options?: RetryPolicy.RetryOptions) =>
  RetryPolicy.exponential({ maxAttempts: 4, baseDelay: "1 second", jitter: "none", ...options })

/** Fails so many times, then succeeds, and remembers the time of every call. */
export const flaky = <E>(failures: number, error: E) => {
  const at: Array<number> = []
  const call: Effect.Effect<string, E> = Effect.flatMap(Clock.currentTimeMillis, (now) => {
    at.push(now)
    return at.length <= failures ? Effect.fail(error) : Effect.succeed("answer")
  })
  return { at, call }
}

/** Runs an effect while so much time goes by. */
export const during = <A, E, R>(self: Effect.Effect<A, E, R>, time: Duration.Input) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(self), { startImmediately: true })
    yield* yields(10)
    yield* TestClock.adjust(time)
    return yield* Fiber.join(fiber)
  })

export const stoppedBy = (exit: Exit.Exit<unknown, unknown>) =>
  Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), RetryPolicy.stopped))
