import { Cause, Clock, type Duration, Effect, Exit, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"

/** Runs an effect in a child fiber, at once, up to where it first waits. */
export const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/** The numbers from 0, below the count. */
export const range = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, i) => i)

/** Runs an effect while the test clock advances. Returns its exit and how long it took. */
export const timed = <A, E, R>(effect: Effect.Effect<A, E, R>, advance: Duration.Input = "1 hour") =>
  Effect.gen(function*() {
    const startedAt = yield* Clock.currentTimeMillis
    const fiber = yield* fork(
      Effect.flatMap(
        Effect.exit(effect),
        (exit) => Effect.map(Clock.currentTimeMillis, (now) => [exit, now - startedAt] as const)
      )
    )
    yield* TestClock.adjust(advance)
    return yield* Fiber.join(fiber)
  })

/** The typed error of an exit. */
export const failureOf = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
