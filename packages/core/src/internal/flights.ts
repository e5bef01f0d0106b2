import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { Deadline } from "../Deadline.ts"
import type { Waiter } from "./launch.ts"
import { isPartOf, launch, SharedDeadline } from "./launch.ts"
import type { Linked } from "./lru.ts"
import { Recency } from "./lru.ts"
import { isRefusal } from "./refusal.ts"
import type { RequestKey } from "./requestKey.ts"
import { KeyTypeId } from "./requestKey.ts"

/** How a flight ends: with an exit; or everybody left, or the holder of its lease went away without an answer. */
export type Landing<A, E> = Exit.Exit<A, E> | "Abandoned"

/** One execution that several callers share. It has a fiber, or else a lease whose holder runs it. */
export class Flight<A, E> {
  readonly _tag = "Flight"
  readonly key: RequestKey<A, E>
  readonly seats = new Set<Seat<A, E>>()
  readonly deadline = new SharedDeadline(this.seats)
  fiber: Fiber.Fiber<A, E> | undefined
  landing: Landing<A, E> | undefined

  constructor(key: RequestKey<A, E>) {
    this.key = key
  }

  land(landing: Landing<A, E>): void {
    this.landing = landing
    for (const seat of this.seats) seat.wake()
    this.seats.clear()
  }
}

/** A caller's place among those who wait for a flight. */
interface Seat<A, E> extends Waiter {
  readonly flight: Flight<A, E>
  wake(): void
}

class Waiting<A, E, E2, R> implements Seat<A, E> {
  readonly flight: Flight<A, E>
  readonly deadline: Deadline | undefined
  private readonly fiber: Fiber.Fiber<unknown, unknown>
  private readonly ifAbandoned: Effect.Effect<A, E2, R>
  private resume: ((landed: Effect.Effect<A, E | E2, R>) => void) | undefined

  constructor(flight: Flight<A, E>, fiber: Fiber.Fiber<unknown, unknown>, ifAbandoned: Effect.Effect<A, E2, R>) {
    this.flight = flight
    this.deadline = fiber.getRef(Deadline)
    this.fiber = fiber
    this.ifAbandoned = ifAbandoned
  }

  /** Needs no finalizer of its own: whoever took the seat leaves it. */
  readonly landed: Effect.Effect<A, E | E2, R> = Effect.callback((resume) => {
    const landed = this.outcome()
    if (landed === undefined) this.resume = resume
    else resume(landed)
  })

  // Never resumed here and now: what the caller does next may land a flight in its turn, ten thousand deep.
  wake(): void {
    this.fiber.currentDispatcher.scheduleTask(() => {
      const landed = this.outcome()
      if (landed !== undefined) this.resume?.(landed)
    }, 0)
  }

  private outcome(): Effect.Effect<A, E | E2, R> | undefined {
    const { landing } = this.flight
    return landing === "Abandoned" ? this.ifAbandoned : landing
  }
}

/** An exit that is kept, and its place in the order of use. */
interface Cached extends Linked<Cached> {
  readonly _tag: "Cached"
  readonly id: string
  readonly exit: Exit.Exit<unknown, unknown>
  readonly expiresAt: number
}

interface FlightsOptions {
  readonly capacity: number
  /** How long a success is kept whose operation says nothing. */
  readonly timeToLiveMillis: number
  readonly clock: Clock.Clock
  /** Where flights end at the latest. */
  readonly scope: Scope.Scope
}

/** What is counted, of effects and streams together. */
export interface Counters {
  flights: number
  led: number
  joined: number
  hits: number
  evicted: number
}

/** Makes what it is given interruptible again. */
export type Restore = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** From key to flight, then to kept exit. */
export class Flights {
  private readonly options: FlightsOptions
  private readonly counters: Counters
  private readonly entries = new Map<string, Flight<unknown, unknown> | Cached>()
  private readonly recency = new Recency<Cached>()

  constructor(options: FlightsOptions, counters: Counters) {
    this.options = options
    this.counters = counters
  }

  get cached(): number {
    return this.recency.size
  }

  /** The flight that a caller may join, or the exit that was kept. An exit whose time is exactly over is not served. */
  find<A, E>(key: RequestKey<A, E>): Flight<A, E> | Exit.Exit<A, E> | undefined {
    const entry = this.entries.get(key.id)
    if (entry === undefined) return undefined
    // An entry has the types of the key that it was made by: its id is the hash of the operation's name and input.
    if (entry._tag === "Flight") return entry as Flight<unknown, unknown> as Flight<A, E>
    if (entry.expiresAt <= this.options.clock.currentTimeMillisUnsafe()) {
      this.drop(entry)
      return undefined
    }
    this.recency.touch(entry)
    this.counters.hits++
    return entry.exit as Exit.Exit<A, E>
  }

  /** Enters a flight for a key that has none. */
  open<A, E>(key: RequestKey<A, E>): Flight<A, E> {
    const flight = new Flight(key)
    this.entries.set(key.id, flight as Flight<A, E> as Flight<unknown, unknown>)
    this.counters.flights++
    this.counters.led++
    return flight
  }

  /** Runs the effect as a flight, and waits for it like everybody who joins. Call it uninterruptibly. */
  lead<A, E, R>(
    self: Effect.Effect<A, E, R>,
    key: RequestKey<A, E>,
    fiber: Fiber.Fiber<unknown, unknown>,
    restore: Restore
  ): Effect.Effect<A, E> {
    const flight = this.open(key)
    // A flight is abandoned when nobody waits for it: its leader, who waits, never sees that.
    const seat = new Waiting(flight, fiber, Effect.interrupt)
    flight.seats.add(seat)
    flight.fiber = launch(flight, self, fiber, this.options.scope)
    flight.fiber.addObserver((exit) => {
      this.counters.flights--
      this.land(flight, exit)
    })
    return this.waitIn(seat, restore)
  }

  /** Waits for a flight that somebody else started. Call it uninterruptibly. */
  join<A, E, E2, R>(
    flight: Flight<A, E>,
    fiber: Fiber.Fiber<unknown, unknown>,
    restore: Restore,
    ifAbandoned: Effect.Effect<A, E2, R>
  ): Effect.Effect<A, E | E2, R> {
    if (isPartOf(fiber, flight)) return waitsForItself(flight.key.operation)
    const seat = new Waiting(flight, fiber, ifAbandoned)
    this.counters.joined++
    if (flight.landing === undefined) flight.seats.add(seat)
    return this.waitIn(seat, restore)
  }

  /** Ends a flight that is run under a lease. Says whether the flight still stood for its key. */
  settle<A, E>(flight: Flight<A, E>, landing: Landing<A, E>): boolean {
    if (flight.landing !== undefined) return false
    this.counters.flights--
    return this.land(flight, landing)
  }

  /** Forgets what is kept, and lets nobody join what runs. */
  invalidate(key: RequestKey<never, never>): void {
    const entry = this.entries.get(key.id)
    if (entry?._tag === "Cached") this.drop(entry)
    else this.entries.delete(key.id)
  }

  private waitIn<A, E, E2, R>(seat: Waiting<A, E, E2, R>, restore: Restore): Effect.Effect<A, E | E2, R> {
    if (seat.flight.landing !== undefined) return restore(seat.landed)
    return Effect.onExitPrimitive(restore(seat.landed), () => this.leave(seat))
  }

  /** Whoever leaves last stops the work, and is gone when it has stopped. A new caller starts anew from now on. */
  private leave<A, E>(seat: Seat<A, E>): Effect.Effect<void> | undefined {
    const { flight } = seat
    flight.seats.delete(seat)
    if (flight.landing !== undefined || flight.seats.size > 0 || flight.fiber === undefined) return undefined
    this.land(flight, "Abandoned")
    return Fiber.interrupt(flight.fiber)
  }

  private land<A, E>(flight: Flight<A, E>, landing: Landing<A, E>): boolean {
    if (flight.landing !== undefined) return false
    const current = this.entries.get(flight.key.id) === flight
    if (current) this.entries.delete(flight.key.id)
    flight.land(current && landing !== "Abandoned" ? this.keep(flight.key, landing) : landing)
    return current
  }

  /** Keeps an exit as long as it is worth, and hands it on; or the defect of the function that should have said how long. */
  private keep<A, E>(key: RequestKey<A, E>, exit: Exit.Exit<A, E>): Exit.Exit<A, E> {
    try {
      const millis = this.timeToLive(key, exit)
      if (millis > 0) this.store(key.id, exit, millis)
      return exit
    } catch (defect) {
      return Exit.die(defect)
    }
  }

  // An interruption is nobody's answer, and a refusal of a policy says nothing about the next call.
  private timeToLive<A, E>(key: RequestKey<A, E>, exit: Exit.Exit<A, E>): number {
    if (Exit.isFailure(exit) && exit.cause.reasons.some(isPassing)) return 0
    const { timeToLive } = key[KeyTypeId]
    if (timeToLive !== undefined) return timeToLive(exit)
    return Exit.isSuccess(exit) ? this.options.timeToLiveMillis : 0
  }

  private store(id: string, exit: Exit.Exit<unknown, unknown>, millis: number): void {
    const now = this.options.clock.currentTimeMillisUnsafe()
    const entry: Cached = { _tag: "Cached", id, exit, expiresAt: now + millis, newer: undefined, older: undefined }
    this.entries.set(id, entry)
    this.recency.add(entry)
    this.sweep(now)
  }

  // Two looks at the old end for each entry that comes in at the other: what has expired goes faster than it comes, at a
  // cost that does not depend on how much there is.
  private sweep(now: number): void {
    for (let looks = 0; looks < 2; looks++) {
      const { oldest } = this.recency
      if (oldest !== undefined && oldest.expiresAt <= now) this.drop(oldest)
    }
    const { oldest } = this.recency
    if (oldest !== undefined && this.recency.size > this.options.capacity) {
      this.drop(oldest)
      this.counters.evicted++
    }
  }

  private drop(entry: Cached): void {
    this.entries.delete(entry.id)
    this.recency.remove(entry)
  }
}

const isPassing = (reason: Cause.Reason<unknown>): boolean =>
  Cause.isInterruptReason(reason) ||
  (Cause.isFailReason(reason) && typeof reason.error === "object" && reason.error !== null && isRefusal(reason.error))

/** It would wait for ever, and keep itself alive by waiting. */
export const waitsForItself = (operation: string): Effect.Effect<never> =>
  Effect.die(new Error(`operation ${operation} asks for its own key while it runs: it would wait for itself`))
