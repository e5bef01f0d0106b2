import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { Clock, Data, Duration, Effect, Exit, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { yields } from "./probe.ts"

/** A policy with delays of 1, 2 and 4 seconds, without jitter. */
export const plain = (options?: RetryPolicy.RetryOptions) =>
  RetryPolicy.exponential({ maxAttempts: 4, baseDelay: "1 second", jitter: "none", ...options })

/** An error with the fields that the classifier reads. */
export class Busy extends Data.TaggedError("Busy")<{
  readonly retryAfter?: Duration.Duration | undefined
  readonly isRetryable?: boolean | undefined
}> {}

export const busy = (retryAfter?: Duration.Input) =>
  new Busy({ retryAfter: retryAfter === undefined ? undefined : Duration.fromInputUnsafe(retryAfter) })

/** A call that fails so many times, then succeeds, and records the time of each run. */
export const flaky = <E>(failures: number, error: E) => {
  const at: Array<number> = []
  const call: Effect.Effect<string, E> = Effect.flatMap(Clock.currentTimeMillis, (now) => {
    at.push(now)
    return at.length <= failures ? Effect.fail(error) : Effect.succeed("answer")
  })
  return { at, call }
}

/** Runs an effect while the test clock advances. Returns its exit. */
export const during = <A, E, R>(self: Effect.Effect<A, E, R>, time: Duration.Input) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(self), { startImmediately: true })
    yield* yields(10)
    yield* TestClock.adjust(time)
    return yield* Fiber.join(fiber)
  })

export const stoppedBy = (exit: Exit.Exit<unknown, unknown>) =>
  Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), RetryPolicy.stopped))
