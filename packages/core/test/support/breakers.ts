import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { Duration, Effect } from "effect"
import { TestClock } from "effect/testing"
import { failCalls, succeedCall } from "./calls.ts"

export type Breaker = CircuitBreaker.CircuitBreaker["Service"]

/** Opens on the first failure, for 30 seconds. */
export const oneFailure = { trip: CircuitBreaker.consecutive(1), openFor: "30 seconds" } as const

/** Runs a test with its own breaker. */
export const withBreaker = <A, E>(
  options: CircuitBreaker.CircuitBreakerOptions | undefined,
  test: (breaker: Breaker) => Effect.Effect<A, E>
) => CircuitBreaker.CircuitBreaker.use(test).pipe(Effect.provide(CircuitBreaker.layer(options)))

export const stateTag = (breaker: Breaker, key?: string) => Effect.map(breaker.state(key), (state) => state._tag)

/** The refusal of a call: its state, its retryAfter in milliseconds, and its evidence. */
export const refusalOf = (breaker: Breaker, key?: string) =>
  Effect.map(Effect.flip(succeedCall(breaker, key)), (error) => ({
    state: error.state,
    retryAfter: Duration.toMillis(error.retryAfter),
    calls: error.calls,
    failures: error.failures
  }))

/** Opens a circuit of 30 seconds and waits until it is half-open, so that the next call is the probe. */
export const halfOpen = (breaker: Breaker) => Effect.andThen(failCalls(breaker, 1), TestClock.adjust("30 seconds"))
