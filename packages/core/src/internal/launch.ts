import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { Deadline } from "../Deadline.ts"

/** One who waits for a flight. */
export interface Waiter {
  readonly deadline: Deadline | undefined
}

/**
 * The deadline of a flight: the latest among those who wait for it at the moment of asking. There is none (its moment is
 * infinitely far) if one of them has none, and for the finalizers of a flight that everybody left.
 */
export class SharedDeadline implements Deadline {
  private readonly waiters: Iterable<Waiter>

  constructor(waiters: Iterable<Waiter>) {
    this.waiters = waiters
  }

  get at(): number {
    return this.latest()?.at ?? Number.POSITIVE_INFINITY
  }

  get budgetMillis(): number {
    return this.latest()?.budgetMillis ?? Number.POSITIVE_INFINITY
  }

  private latest(): Deadline | undefined {
    let latest: Deadline | undefined
    for (const { deadline } of this.waiters) {
      if (deadline === undefined) return undefined
      if (latest === undefined || deadline.at > latest.at) latest = deadline
    }
    return latest
  }
}

/** What runs: a flight, and the flights that it is part of. */
interface Ancestry {
  readonly flight: object
  readonly parent: Ancestry | undefined
}

const CurrentFlight = Context.Reference<Ancestry | undefined>("@sluice/core/internal/CurrentFlight", {
  defaultValue: () => undefined
})

/** Whether the fiber works for the flight: it would wait for itself. */
export const isPartOf = (fiber: Fiber.Fiber<unknown, unknown>, flight: object): boolean => {
  let current = fiber.getRef(CurrentFlight)
  while (current !== undefined && current.flight !== flight) current = current.parent
  return current !== undefined
}

// A flight starts in place: most go straight to their first wait. One that leads another that leads another does so on one
// stack, and goes through the scheduler before it becomes too deep.
const maxNesting = 16
let nesting = 0

/**
 * Starts a flight in a fiber that belongs to no caller, and ends with `scope` at the latest. It has its leader's context,
 * but a scope of its own, a deadline of its own, and no parent span: a span that has ended is nobody's parent.
 */
export const launch = <A, E, R>(
  flight: { readonly deadline: SharedDeadline },
  self: Effect.Effect<A, E, R>,
  leader: Fiber.Fiber<unknown, unknown>,
  scope: Scope.Scope
): Fiber.Fiber<A, E> => {
  // The leader's context has what the effect asks for: it is provided where the leader runs.
  const ready = Effect.scoped(self) as Effect.Effect<A, E>
  const run = Effect.runForkWith(contextOf(flight, leader))
  nesting++
  const fiber = run(nesting <= maxNesting ? ready : Effect.andThen(Effect.yieldNow, ready))
  nesting--
  return Fiber.runIn(fiber, scope)
}

const contextOf = (
  flight: { readonly deadline: SharedDeadline },
  leader: Fiber.Fiber<unknown, unknown>
): Context.Context<never> => {
  const ancestry = { flight, parent: leader.getRef(CurrentFlight) }
  const context = Context.add(Context.add(leader.context, CurrentFlight, ancestry), Deadline, flight.deadline)
  return leader.cache.span === undefined ? context : Context.omit(Tracer.ParentSpan)(context)
}
