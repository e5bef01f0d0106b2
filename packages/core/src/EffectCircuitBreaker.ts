/**
 * Adapts a `CircuitBreaker` to Effect's own circuit breaker service, `effect/persistence/CircuitBreaker`.
 *
 * Code that takes Effect's service, such as `HttpClient.withCircuitBreaker`, then gets rate windows, slow calls, several
 * probes, control by an operator and shared stores. Refusals have Effect's error type.
 *
 * **When to use**
 *
 * For an API that requires Effect's service. In your own code use `CircuitBreaker`: its refusals contain the evidence, and it
 * guards streams.
 *
 * **Details**
 *
 * | `@sluice/core` | Effect |
 * |---|---|
 * | refusal in state `HalfOpen` | `CircuitHalfOpen` |
 * | refusal in any other state | `CircuitOpen` with the same `retryAfter` |
 * | state `ForcedOpen` | `Open` with `consecutiveOpenings` 0 |
 * | states `ForcedClosed`, `Disabled`, `ObserveOnly` | `Closed` |
 * | state `HalfOpen` without a running probe | `Open` with `retryAfter` 0 |
 *
 * The classifier is Effect's: it may be an effect. Without one a success is `Success`, a failure `Failure`, and an
 * interruption `Ignored`.
 *
 * **Gotchas**
 *
 * - Effect's module is experimental, and may change in a minor version. So this module is not exported by `@sluice/core`:
 *   import `@sluice/core/EffectCircuitBreaker`.
 * - `onStoreError` has no equivalent. A store that is down fails no call (see `CircuitBreaker`).
 * - `transitions` omits those that Effect's type cannot express, such as transitions by an operator.
 *
 * **Example** (An HTTP client behind a failure rate)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as EffectCircuitBreaker from "@sluice/core/EffectCircuitBreaker"
 *
 * const down = HttpClient.make((request) =>
 *   Effect.succeed(HttpClientResponse.fromWeb(request, new Response("", { status: 503 })))
 * )
 *
 * const program = Effect.gen(function*() {
 *   const breaker = yield* CircuitBreaker.CircuitBreaker
 *   const client = HttpClient.withCircuitBreaker(down, { breaker: EffectCircuitBreaker.fromBreaker(breaker) })
 *   const get = client.execute(HttpClientRequest.get("http://models.test/"))
 *   yield* Effect.exit(get)
 *   yield* Effect.exit(get)
 *   return (yield* Effect.flip(get))._tag
 * }).pipe(Effect.provide(CircuitBreaker.layer({
 *   trip: CircuitBreaker.failureRate({ rate: 0.5, within: "30 seconds", minimum: 2 })
 * })))
 *
 * console.log(await Effect.runPromise(program)) // => CircuitBreakerError
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as EffectBreaker from "effect/persistence/CircuitBreaker"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import type { StoreError } from "./CircuitBreakerStore.ts"
import { failure, ignored, type Outcome, success } from "./Outcome.ts"
import { withoutStack } from "./Refusal.ts"

/**
 * Returns Effect's service over a breaker.
 *
 * @since 0.1.0
 * @category conversions
 */
export const fromBreaker = (breaker: CircuitBreaker.CircuitBreaker["Service"]): EffectBreaker.CircuitBreaker =>
  EffectBreaker.CircuitBreaker.of({
    [EffectBreaker.TypeId]: EffectBreaker.TypeId,
    execute: dual(2, executeWith(breaker)),
    state: (key) =>
      Effect.mapBoth(breaker.state(key), { onFailure: storeErrorOf, onSuccess: (state) => stateOf(key, state) }),
    transitions: Stream.filterMap(breaker.transitions, transitionOf)
  })

/**
 * Provides Effect's service over the `CircuitBreaker` in the context.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<EffectBreaker.CircuitBreaker, never, CircuitBreaker.CircuitBreaker> = Layer.effect(
  EffectBreaker.CircuitBreaker,
  Effect.map(CircuitBreaker.CircuitBreaker, fromBreaker)
)

interface ExecuteOptions<in A, in E, out R2> {
  readonly key: string
  readonly classify?:
    | ((exit: Exit.Exit<A, E>) => EffectBreaker.Outcome | Effect.Effect<EffectBreaker.Outcome, never, R2>)
    | undefined
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const executeWith = (breaker: CircuitBreaker.CircuitBreaker["Service"]) =>
<A, E, R, R2 = never>(
  self: Effect.Effect<A, E, R>,
  { classify, key }: ExecuteOptions<A, E, R2>
): Effect.Effect<A, E | EffectBreaker.CircuitBreakerError, R | R2> =>
  Effect.suspend(() => {
    let ran = false
    let outcome: Outcome = ignored
    // Effect's classifier may be an effect, but `guard` takes a function. So it runs with the call, and `classify` below
    // returns its outcome.
    const body = Effect.uninterruptibleMask((restore) => {
      ran = true
      return Effect.flatMap(Effect.exit(restore(self)), (exit) =>
        Effect.flatMap(Effect.exit(classified(exit, classify, restore)), (read) => {
          if (Exit.isSuccess(read)) {
            outcome = outcomeOf(read.value)
            return exit
          }
          return Effect.failCause(Exit.isFailure(exit) ? Cause.combine(exit.cause, read.cause) : read.cause)
        }))
    })
    return Effect.catchCause(
      breaker.guard(body, {
        key,
        classify: () =>
          outcome
      }),
      (cause): Effect.Effect<never, E | EffectBreaker.CircuitBreakerError> => {
        const refused = ran ? undefined : cause.reasons.find(Cause.isFailReason)?.error
        // If the call ran, a refusal in its cause is from a breaker inside it.
        return refused instanceof CircuitBreaker.CircuitOpen
          ? Effect.fail(refusalOf(refused))
          : Effect.failCause(cause as Cause.Cause<E>)
      }
    )
  })

const classified = <A, E, R2>(
  exit: Exit.Exit<A, E>,
  classify: ExecuteOptions<A, E, R2>["classify"],
  restore: Restore
): Effect.Effect<EffectBreaker.Outcome, never, R2> => {
  if (Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) return Effect.succeed(EffectBreaker.ignored)
  if (classify === undefined) {
    return Effect.succeed(Exit.isSuccess(exit) ? EffectBreaker.success : EffectBreaker.failure())
  }
  return restore(Effect.suspend(() => {
    const outcome = classify(exit)
    return Effect.isEffect(outcome) ? outcome : Effect.succeed(outcome)
  }))
}

const outcomeOf = (outcome: EffectBreaker.Outcome): Outcome => {
  switch (outcome._tag) {
    case "Success":
      return success
    case "Ignored":
      return ignored
    case "Failure":
      return failure({ retryAfter: outcome.retryAfter })
  }
}

const refusalOf = ({ key, retryAfter, state }: CircuitBreaker.CircuitOpen): EffectBreaker.CircuitBreakerError =>
  withoutStack(() =>
    new EffectBreaker.CircuitBreakerError({
      reason: state === "HalfOpen"
        ? new EffectBreaker.CircuitHalfOpen({ key })
        : new EffectBreaker.CircuitOpen({ key, retryAfter })
    })
  )

const storeErrorOf = (error: StoreError): EffectBreaker.CircuitBreakerError =>
  new EffectBreaker.CircuitBreakerError({
    reason: new EffectBreaker.CircuitBreakerStoreError({ message: error.message, cause: error.cause })
  })

const stateOf = (key: string, state: CircuitBreaker.State): EffectBreaker.State => {
  switch (state._tag) {
    case "Open":
      return { _tag: "Open", key, retryAfter: state.retryAfter, consecutiveOpenings: state.openings }
    case "HalfOpen":
      // Effect's breaker reports open until a call starts a probe.
      return state.probing === 0
        ? { _tag: "Open", key, retryAfter: Duration.zero, consecutiveOpenings: state.openings }
        : { _tag: "HalfOpen", key, probing: true, consecutiveOpenings: state.openings }
    case "ForcedOpen":
      return { _tag: "Open", key, retryAfter: state.liftedIn ?? Duration.infinity, consecutiveOpenings: 0 }
    default:
      return { _tag: "Closed", key }
  }
}

const transitionOf = (
  { from, key, openFor, openings, to }: CircuitBreaker.Transition
): Result.Result<EffectBreaker.Transition, void> => {
  if (to === "Open" && openFor !== undefined && (from === "Closed" || from === "HalfOpen")) {
    return Result.succeed({ key, from, to, retryAfter: openFor, consecutiveOpenings: openings })
  }
  if (from === "Open" && to === "HalfOpen") return Result.succeed({ key, from, to })
  return from === "HalfOpen" && to === "Closed" ? Result.succeed({ key, from, to }) : Result.failVoid
}
