import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert } from "@effect/vitest"
import { Data, type Duration, Effect, type Exit, Layer } from "effect"
import { failureOf } from "./effects.ts"

export const makeGpt = (options?: Partial<Sluice.SluiceOptions>) => Sluice.make({ name: "gpt", ...options })

export const withStore = Effect.provide(Layer.fresh(Sluice.layerStoresMemory))

export const retry = (maxAttempts: number) =>
  RetryPolicy.constant({ maxAttempts, baseDelay: "1 second", jitter: "none" })

export const breaker = (failures: number) =>
  ({ trip: CircuitBreaker.consecutive(failures), openFor: "10 seconds" }) as const

export const Ask = Deduplicator.operation<string, "503">()("ask", { key: (text: string) => text })

/** An operation whose results are cached for a minute. */
export const Cached = Deduplicator.operation<string, "503">()("cached", {
  key: (text: string) => text,
  timeToLive: "1 minute"
})

export class Busy extends Data.TaggedError("Busy")<{ readonly retryAfter: Duration.Duration }> {}

export const answering = (duration: Duration.Input) => Effect.delay(Effect.succeed("an answer"), duration)

/** Runs the given effects in turn, the last one from then on, and counts the runs. */
export const inTurn = <A, E, R>(
  ...effects: readonly [...ReadonlyArray<Effect.Effect<A, E, R>>, Effect.Effect<A, E, R>]
) => {
  let runs = 0
  const effect = Effect.suspend(() => {
    const next = effects[Math.min(runs, effects.length - 1)]!
    runs++
    return next
  })
  return { effect, runs: () => runs }
}

/** The reason of the `Rejected` that an exit fails with. Any other exit fails the test. */
export const refusalOf = (exit: Exit.Exit<unknown, unknown>) => {
  const error = failureOf(exit)
  assert.instanceOf(error, Sluice.Rejected)
  return (error as Sluice.Rejected).reason
}

/** The tag of that reason. For a deadline, also what the call was doing. */
export const refusedBy = (exit: Exit.Exit<unknown, unknown>) => {
  const reason = refusalOf(exit)
  return reason._tag === "DeadlineExceeded" ? `${reason._tag} at ${reason.at}` : reason._tag
}

export const failures = (policy: Sluice.Sluice, key = "gpt") =>
  Effect.map(policy.breaker.state(key), (state) => state.failures)

export const stateTag = (policy: Sluice.Sluice, key = "gpt") =>
  Effect.map(policy.breaker.state(key), (state) => state._tag)
