import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { CircuitBreaker, GuardOptions, GuardStreamOptions } from "../../CircuitBreaker.ts"
import type { CircuitBreakerStore, StoreError, Target } from "../../CircuitBreakerStore.ts"
import { OptionsReader } from "../../OptionsReader.ts"
import type { Classify } from "../../Outcome.ts"
import { type Breaker, makeBreaker, stateOf } from "../circuit/breaker.ts"
import type { Circuits } from "../circuit/circuits.ts"
import { type CheckedBreaker, closedBecause, readControl } from "../circuit/options.ts"
import type { AnyEffect } from "../kit/primitive.ts"
import { type Gate, GuardedEffect, type Hooks, onePermit, setGate } from "./attempt.ts"
import { guardStream } from "./guardStream.ts"

/** The `CircuitBreaker` service of checked options. */
export const makeBreakerService = (
  checked: CheckedBreaker,
  classify: Classify<unknown, unknown> | undefined,
  store: CircuitBreakerStore["Service"]
): Effect.Effect<CircuitBreaker["Service"], never, Scope.Scope> =>
  Effect.map(makeBreaker(checked, classify, store), serviceOf)

const defaultKey = "default"

const serviceOf = (breaker: Breaker): CircuitBreaker["Service"] => {
  const { circuits, journal, settings: { policy } } = breaker
  const gate: Gate<never> = { breaker, permits: undefined }
  const read = (key = defaultKey) => Effect.map(circuits.read(key), (snapshot) => stateOf(snapshot, policy))
  const service: CircuitBreaker["Service"] = {
    guard: guardWith(gate),
    guardStream: dual(
      (args) => Stream.isStream(args[0]),
      <A, E, R>(self: Stream.Stream<A, E, R>, options?: GuardStreamOptions<A, E>) =>
        guardStream(
          { gate, key: options?.key ?? defaultKey, hooks: hooksOf(options), permits: onePermit },
          self,
          options?.isComplete
        )
    ),
    check: (key = defaultKey) =>
      Effect.flatMap(circuits.look(key), (open) => open === undefined ? Effect.void : Effect.fail(open)),
    state: read,
    states: (page) =>
      Effect.map(
        circuits.list(page?.after, page?.limit ?? 100),
        (snapshots) => snapshots.map((snapshot) => ({ key: snapshot.key, state: stateOf(snapshot, policy) }))
      ),
    failureCount: (key) => Effect.map(read(key), ({ failures }) => failures),
    transitions: journal.transitions.stream,
    decisions: journal.decisions.stream,
    control: (control) => {
      const options = new OptionsReader("CircuitBreaker")
      return Effect.flatMap(
        options.check(readControl(options, control)),
        (to) => setControl(circuits, control.key ?? defaultKey, to)
      )
    },
    reset: (key = defaultKey, reason = "") => circuits.set(key, closedBecause(reason)),
    stats: Effect.sync(() => journal.stats)
  }
  return setGate(service, "CircuitBreaker", gate)
}

// Without `dual`, whose predicate gets an array of the arguments: 60 of the 370 ns of a call that is guarded anew each time.
const guardWith = (gate: Gate<never>): CircuitBreaker["Service"]["guard"] => {
  const guard = (self: AnyEffect, options: GuardOptions<never, never> | undefined) =>
    new GuardedEffect(gate, self, options?.key ?? defaultKey, hooksOf(options), onePermit)
  // The first argument distinguishes the overloads. An effect is guarded with its own types.
  return ((first?: AnyEffect | GuardOptions<never, never>, options?: GuardOptions<never, never>) =>
    Effect.isEffect(first)
      ? guard(first, options)
      : (self: AnyEffect) => guard(self, first)) as unknown as CircuitBreaker["Service"]["guard"]
}

// `classify` alone is taken: an attempt would call other fields of a user's object as hooks.
const hooksOf = (options: GuardOptions<never, never> | undefined): Hooks<never> =>
  // The classifier gets only exits of the effect that it was passed with.
  options?.classify === undefined ? noHooks : { classify: options.classify as Classify<unknown, unknown> }

const noHooks: Hooks<never> = {}

// `Auto` lifts a forced mode. A circuit that is not forced stays as it is.
const setControl = (circuits: Circuits, key: string, to: Target): Effect.Effect<void, StoreError> =>
  to._tag === "Forced"
    ? circuits.set(key, to)
    : Effect.flatMap(
      circuits.read(key),
      ({ control }) => control._tag === "Forced" ? circuits.set(key, to) : Effect.void
    )
