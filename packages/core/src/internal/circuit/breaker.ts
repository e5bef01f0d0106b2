import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { State } from "../../CircuitBreaker.ts"
import type { CircuitBreakerStore, Snapshot } from "../../CircuitBreakerStore.ts"
import type { Classify } from "../../Outcome.ts"
import { registerMetrics } from "../kit/metrics.ts"
import { circuitOpen } from "./circuitOpen.ts"
import type { Circuits, Refused } from "./circuits.ts"
import { CircuitJournal } from "./journal.ts"
import { LocalCircuits } from "./local.ts"
import { isLifted, streak, tally } from "./machine.ts"
import { MemoryCircuits, memoryOf } from "./memory.ts"
import { isHalfOpen, type Policy, type Settings } from "./model.ts"
import { type CheckedBreaker, nthDelayMillis } from "./options.ts"
import { SharedCircuits } from "./shared.ts"

/** The parts of a breaker. */
export interface Breaker {
  readonly settings: Settings
  readonly classify: Classify<unknown, unknown> | undefined
  readonly circuits: Circuits
  /** The same circuits without effects, if they are kept in this process. */
  readonly local: LocalCircuits | undefined
  readonly journal: CircuitJournal
  readonly now: () => number
  /** Runs an effect in the background, until the breaker's scope closes. */
  readonly fork: (effect: Effect.Effect<void>) => void
}

// Circuits that are used while the store is down: as many as a store in memory keeps.
const fallbackCapacity = 10_000

/** Builds a breaker over a store. `classify` is the breaker's own classifier. */
export const makeBreaker = Effect.fnUntraced(function*(
  checked: CheckedBreaker,
  classify: Classify<unknown, unknown> | undefined,
  store: CircuitBreakerStore["Service"]
): Effect.fn.Return<Breaker, never, Scope.Scope> {
  const context = yield* Effect.context<never>()
  const scope = yield* Effect.scope
  const generator = yield* Random.Random
  const random = () => generator.nextDoubleUnsafe()
  const settings: Settings = { ...checked, openMillis: openMillisOf(checked, context, random) }
  const journal = new CircuitJournal()
  yield* Effect.addFinalizer(() => Effect.andThen(journal.transitions.close, journal.decisions.close))
  yield* registerMetrics(journal.metrics(settings.name))

  // Ids of leases and transitions are made here, so that a request whose reply was lost can be repeated.
  const instance = `${generator.nextIntUnsafe().toString(36)}.${generator.nextIntUnsafe().toString(36)}`
  let issued = 0
  const memory = memoryOf(store)
  const clock = memory?.clock ?? (yield* Clock.Clock)
  const parts = {
    settings,
    journal,
    clock,
    random,
    refuse: (refused: Refused) => circuitOpen(settings, refused),
    nextId: () => `${instance}.${++issued}`
  }
  const local = new LocalCircuits({ ...parts, circuits: memory?.circuits ?? new MemoryCircuits(fallbackCapacity) })
  return {
    settings,
    classify,
    circuits: memory === undefined ? new SharedCircuits({ ...parts, store, local, context, scope }) : local.asCircuits,
    local: memory === undefined ? undefined : local,
    journal,
    now: () => clock.currentTimeMillisUnsafe(),
    fork: (effect) => {
      Fiber.runIn(Effect.runForkWith(context)(effect), scope)
    }
  }
})

// Limits the steps of an endless schedule: from this many openings in a row on, the delay is constant.
const maxOpenings = 1_000

const openMillisOf = (
  { openFor, openJitter }: CheckedBreaker,
  context: Context.Context<never>,
  random: () => number
): (openings: number) => number => {
  const jittered = (millis: number) => openJitter === 0 ? millis : Math.round(millis * (1 + openJitter * random()))
  if (typeof openFor === "number") return () => jittered(openFor)
  return (openings) => {
    // `readBreaker` has checked the first delay.
    const millis = nthDelayMillis(openFor, Math.min(openings, maxOpenings), context) ?? 0
    return jittered(Number.isFinite(millis) ? millis : Number.MAX_SAFE_INTEGER)
  }
}

/** The public state of a circuit. */
export const stateOf = (snapshot: Snapshot, policy: Policy): State => {
  const { control, evidence, generation, now, probing } = snapshot
  const common = {
    generation,
    failures: control._tag === "Open" ? control.because.failures : streak(evidence.ring),
    evidence: control._tag === "Open" ? control.because : tally(snapshot, policy)
  }
  const left = (until: number) => until > now ? Duration.millis(until - now) : undefined
  if (control._tag === "Forced") {
    if (isLifted(control, now)) return { ...common, _tag: "Closed", rampsFor: undefined, reason: "" }
    return { ...common, _tag: control.mode, reason: control.reason, liftedIn: left(control.until) }
  }
  if (control._tag === "Closed") {
    return { ...common, _tag: "Closed", rampsFor: left(control.until), reason: control.reason }
  }
  const { openings } = control
  return isHalfOpen(control, now)
    ? { ...common, _tag: "HalfOpen", openings, probing }
    : {
      ...common,
      _tag: "Open",
      openings,
      retryAfter: Duration.millis(control.until - now),
      hint: left(control.hinted)
    }
}
