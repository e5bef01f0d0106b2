import type * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { Deferred, Effect, type Exit, Fiber } from "effect"

type Breaker = CircuitBreaker.CircuitBreaker["Service"]

/** A guarded call that runs until the test ends it. */
export interface RunningCall {
  readonly succeed: Effect.Effect<Exit.Exit<string, string | CircuitBreaker.CircuitOpen>>
  readonly fail: Effect.Effect<Exit.Exit<string, string | CircuitBreaker.CircuitOpen>>
  readonly interrupt: Effect.Effect<void>
  /** Whether the call was admitted. */
  readonly ran: () => boolean
}

export const startCall = (
  breaker: Breaker,
  options?: CircuitBreaker.GuardOptions<string, string>
): Effect.Effect<RunningCall> =>
  Effect.gen(function*() {
    const end = yield* Deferred.make<string, string>()
    let ran = false
    const body = Effect.suspend(() => {
      ran = true
      return Deferred.await(end)
    })
    const fiber = yield* Effect.forkDetach(breaker.guard(body, options), { startImmediately: true })
    return {
      succeed: Effect.andThen(Deferred.succeed(end, "an answer"), Fiber.await(fiber)),
      fail: Effect.andThen(Deferred.fail(end, "503"), Fiber.await(fiber)),
      interrupt: Fiber.interrupt(fiber),
      ran: () => ran
    }
  })

/** Makes so many failing calls, one after the other. */
export const failCalls = (breaker: Breaker, times: number, key?: string): Effect.Effect<void> =>
  Effect.fail("503").pipe(breaker.guard({ key }), Effect.exit, Effect.repeat({ times: times - 1 }), Effect.asVoid)

export const succeedCall = (breaker: Breaker, key?: string): Effect.Effect<string, CircuitBreaker.CircuitOpen> =>
  breaker.guard(Effect.succeed("an answer"), { key })
