/**
 * Our circuit breaker as Effect's own service, for what is written against that one.
 *
 * `effect/persistence/CircuitBreaker` is an interface that others build on: `HttpClient.withCircuitBreaker` takes one, and so
 * may a library that you use. `fromBreaker` gives them ours: windows of time, slow calls, several probes, control by hand
 * and the stores come with it, and so do its refusals, in Effect's own error type.
 *
 * **When to use**
 *
 * Where something asks for Effect's service. In code of your own use `CircuitBreaker`: its refusals say more, and it
 * guards streams.
 *
 * **Details**
 *
 * | ours | theirs |
 * |---|---|
 * | `CircuitOpen` in state `HalfOpen` | `CircuitHalfOpen` |
 * | `CircuitOpen` in any other state | `CircuitOpen` with the same `retryAfter` |
 * | forced open | `Open`, `consecutiveOpenings` 0; forced closed, disabled and only observed: `Closed` |
 *
 * As there, an exit without a classifier is a `Success` or a `Failure`, an interruption alone is `Ignored`, and a
 * classifier may be an effect.
 *
 * **Gotchas**
 *
 * - The module it fits is experimental in Effect, and may change with a minor version of it.
 * - `onStoreError` has no counterpart: a store that is down fails no call, see `CircuitBreaker`.
 * - Transitions that theirs does not know, as those by hand, are left out of `transitions`.
 *
 * **Example** (An HTTP client behind a breaker with a window of time)
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
 *   const ours = yield* CircuitBreaker.CircuitBreaker
 *   const client = HttpClient.withCircuitBreaker(down, { breaker: EffectCircuitBreaker.fromBreaker(ours) })
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
import * as Theirs from "effect/persistence/CircuitBreaker"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import type { StoreError } from "./CircuitBreakerStore.ts"
import { failure, ignored, type Outcome, success } from "./Outcome.ts"
import { withoutStack } from "./Refusal.ts"

/**
 * A breaker of ours, as one of theirs.
 *
 * @since 0.1.0
 * @category conversions
 */
export const fromBreaker = (breaker: CircuitBreaker.CircuitBreaker["Service"]): Theirs.CircuitBreaker =>
  Theirs.CircuitBreaker.of({
    [Theirs.TypeId]: Theirs.TypeId,
    execute: dual(2, executeWith(breaker)),
    state: (key) =>
      Effect.mapBoth(breaker.state(key), { onFailure: storeErrorOf, onSuccess: (state) => stateOf(key, state) }),
    transitions: Stream.filterMap(breaker.transitions, transitionOf)
  })

/**
 * Provides Effect's service with the breaker of ours that is there.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Theirs.CircuitBreaker, never, CircuitBreaker.CircuitBreaker> = Layer.effect(
  Theirs.CircuitBreaker,
  Effect.map(CircuitBreaker.CircuitBreaker, fromBreaker)
)

interface ExecuteOptions<in A, in E, out R2> {
  readonly key: string
  readonly classify?: ((exit: Exit.Exit<A, E>) => Theirs.Outcome | Effect.Effect<Theirs.Outcome, never, R2>) | undefined
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const executeWith = (breaker: CircuitBreaker.CircuitBreaker["Service"]) =>
<A, E, R, R2 = never>(
  self: Effect.Effect<A, E, R>,
  { classify, key }: ExecuteOptions<A, E, R2>
): Effect.Effect<A, E | Theirs.CircuitBreakerError, R | R2> =>
  Effect.suspend(() => {
    let ran = false
    let outcome: Outcome = ignored
    // Their classifier may be an effect, which ours may not: it runs with the call, and ours only hands on what it said.
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
      (cause): Effect.Effect<never, E | Theirs.CircuitBreakerError> => {
        const refused = ran ? undefined : cause.reasons.find((reason) =>
          Cause.isFailReason(reason)
        )?.error
        // What ran was not refused by this breaker: a refusal in its cause is the call's own.
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
): Effect.Effect<Theirs.Outcome, never, R2> => {
  if (Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) return Effect.succeed(Theirs.ignored)
  if (classify === undefined) return Effect.succeed(Exit.isSuccess(exit) ? Theirs.success : Theirs.failure())
  return restore(Effect.suspend(() => {
    const outcome = classify(exit)
    return Effect.isEffect(outcome) ? outcome : Effect.succeed(outcome)
  }))
}

const outcomeOf = (outcome: Theirs.Outcome): Outcome => {
  switch (outcome._tag) {
    case "Success":
      return success
    case "Ignored":
      return ignored
    case "Failure":
      return failure({ retryAfter: outcome.retryAfter })
  }
}

const refusalOf = ({ key, retryAfter, state }: CircuitBreaker.CircuitOpen): Theirs.CircuitBreakerError =>
  withoutStack(() =>
    new Theirs.CircuitBreakerError({
      reason: state === "HalfOpen" ? new Theirs.CircuitHalfOpen({ key }) : new Theirs.CircuitOpen({ key, retryAfter })
    })
  )

const storeErrorOf = (error: StoreError): Theirs.CircuitBreakerError =>
  new Theirs.CircuitBreakerError({
    reason: new Theirs.CircuitBreakerStoreError({ message: error.message, cause: error.cause })
  })

const stateOf = (key: string, state: CircuitBreaker.State): Theirs.State => {
  switch (state._tag) {
    case "Open":
      return { _tag: "Open", key, retryAfter: state.retryAfter, consecutiveOpenings: state.openings }
    case "HalfOpen":
      // Theirs reads as open until a call moves it.
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
): Result.Result<Theirs.Transition, void> => {
  if (to === "Open" && openFor !== undefined && (from === "Closed" || from === "HalfOpen")) {
    return Result.succeed({ key, from, to, retryAfter: openFor, consecutiveOpenings: openings })
  }
  if (from === "Open" && to === "HalfOpen") return Result.succeed({ key, from, to })
  return from === "HalfOpen" && to === "Closed" ? Result.succeed({ key, from, to }) : Result.failVoid
}
