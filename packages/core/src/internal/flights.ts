import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { Deadline } from "../Deadline.ts"
import type { Served, TooManyWaiters } from "../Deduplicator.ts"
import type { Fleet, Waiter } from "./launch.ts"
import { currentRun, isPartOf, maxNesting, Run, stop } from "./launch.ts"
import type { Linked } from "./lru.ts"
import { Chain } from "./lru.ts"
import { type AnyEffect, Primitive } from "./primitive.ts"
import { isRefusal } from "./refusal.ts"
import type { RequestKey } from "./requestKey.ts"
import { KeyTypeId } from "./requestKey.ts"

/** How a flight ends: with an exit; or everybody left, or the holder of its lease went away without an answer. */
export type Landing<A, E> = Exit.Exit<A, E> | "Abandoned"

/** What a caller does when too many wait. */
export type Refuse<E> = (refusal: TooManyWaiters) => Effect.Effect<never, E>

/** One execution that several callers share. It has a fiber, or else a lease whose holder runs it. */
export class Flight<A, E> extends Run {
  readonly key: RequestKey<A, E>
  readonly waiters = new Chain<Seat>()
  landing: Landing<A, E> | undefined
  private readonly flights: Flights

  constructor(flights: Flights, key: RequestKey<A, E>, parent: Run | undefined) {
    super(parent)
    this.flights = flights
    this.key = key
  }

  // What ends is what was launched for it, and has its types.
  override ended(exit: Exit.Exit<unknown, unknown>): void {
    this.flights.ended(this, exit as Exit.Exit<A, E>)
  }
}

type AnyFlight = Flight<unknown, unknown>

/** What a caller does once it may take a seat: lead a flight, join one, or find that it needs none. */
interface Passenger {
  enter(seat: Seat): AnyEffect
}

/** A caller's place among those who wait for a flight; as an effect, what is done in it. */
export class Seat extends Primitive implements Waiter, Linked<Seat> {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly deadline: Deadline | undefined
  private readonly passenger: Passenger
  /** Where it is taken; none before the caller has boarded, and after the flight has landed. */
  flight: AnyFlight | undefined
  /** Goes on with the landing, for a caller that has begun to wait. */
  resume: (() => void) | undefined
  newer: Seat | undefined
  older: Seat | undefined

  constructor(fiber: Fiber.Fiber<unknown, unknown>, passenger: Passenger) {
    super()
    this.fiber = fiber
    this.deadline = fiber.getRef(Deadline)
    this.passenger = passenger
  }

  override evaluate(): AnyEffect {
    return this.passenger.enter(this)
  }
}

/** A caller who runs an effect, unless another does or did so, each time that it is run. */
export class Deduped<A, E, R, E2> extends Primitive implements Passenger {
  private readonly flights: Flights
  private readonly self: Effect.Effect<A, E, R>
  private readonly key: RequestKey<A, E>
  private readonly onServed: (served: Served) => void
  private readonly refuse: Refuse<E2> | undefined

  constructor(
    flights: Flights,
    self: Effect.Effect<A, E, R>,
    key: RequestKey<A, E>,
    onServed: (served: Served) => void,
    refuse: Refuse<E2> | undefined
  ) {
    super()
    this.flights = flights
    this.self = self
    this.key = key
    this.onServed = onServed
    this.refuse = refuse
  }

  override evaluate(fiber: Fiber.Fiber<unknown, unknown>): AnyEffect {
    const { flights, key } = this
    const { defect } = key[KeyTypeId]
    if (defect !== undefined) return Effect.die(defect.error)
    const found = flights.find(key)
    if (found === undefined || found instanceof Flight) return flights.aboard(fiber, this)
    this.onServed("Cached")
    return found
  }

  // What stands for the key may have changed on the way to the seat.
  enter(seat: Seat): AnyEffect {
    const { flights, key, refuse } = this
    const found = flights.find(key)
    if (found === undefined) {
      this.onServed("Led")
      return flights.lead(this.self, key, seat)
    }
    if (!(found instanceof Flight)) {
      this.onServed("Cached")
      return found
    }
    if (refuse !== undefined && flights.isFull(found)) return refuse(flights.refusal(found))
    this.onServed("Joined")
    return flights.join(found, seat, this)
  }
}

/** An answer that is kept, and its place in the order of use. */
class Kept implements Linked<Kept> {
  readonly operation: string
  readonly slot: string
  /** The value itself: the exit around it would be a fifth of what a kept answer costs. */
  readonly value: unknown
  /** Milliseconds since the table was made: below 2^31 they are a part of this object, and else one of their own. */
  readonly expiresAt: number
  newer: Kept | undefined
  older: Kept | undefined

  constructor(operation: string, slot: string, value: unknown, expiresAt: number) {
    this.operation = operation
    this.slot = slot
    this.value = value
    this.expiresAt = expiresAt
  }

  get exit(): Exit.Exit<unknown, unknown> {
    return Exit.succeed(this.value)
  }
}

class KeptFailure extends Kept {
  override get exit(): Exit.Exit<unknown, unknown> {
    return this.value as Exit.Exit<unknown, unknown> // what `store` makes one of these from
  }
}

/** What is kept for a slot, until when in epoch milliseconds. */
export interface KeptExit {
  readonly slot: string
  readonly exit: Exit.Exit<unknown, unknown>
  readonly expiresAt: number
}

interface FlightsOptions {
  readonly capacity: number
  /** How long a success is kept whose operation says nothing. */
  readonly timeToLiveMillis: number
  /** How many may wait for one flight. */
  readonly maxWaiters: number
  readonly clock: Clock.Clock
  readonly fleet: Fleet
  readonly refusal: (operation: string, waiting: number) => TooManyWaiters
  /** Hears of an operation whose function could not say how long a result is kept. */
  readonly onUntold: (operation: string) => void
}

/** What is counted, of effects and streams together. */
export interface Counters {
  flights: number
  waiting: number
  led: number
  joined: number
  hits: number
  evicted: number
  refused: number
}

// One turn of the event loop wakes so many: who is woken does what comes next at once, and others are to have their turn.
const wakesPerTurn = 256

/** A clock that is set back by no more than this is a clock that is kept right. */
const slightMillis = 1_000

/** From key to flight, then to kept exit. */
export class Flights {
  private readonly options: FlightsOptions
  private readonly counters: Counters
  private epoch: number
  /** What the time was when it was last looked at. */
  private latest = 0
  /** When the last of what was kept is over. */
  private farthest = 0
  private readonly entries = new Map<string, AnyFlight | Kept>()
  private readonly recency = new Chain<Kept>()
  /** How many callers were woken in place, each by what the one before did next. */
  private waking = 0

  constructor(options: FlightsOptions, counters: Counters) {
    this.options = options
    this.counters = counters
    this.epoch = options.clock.currentTimeMillisUnsafe()
  }

  get cached(): number {
    return this.recency.size
  }

  /** The flight that a caller may join, or the exit that was kept. An exit whose time is exactly over is not served. */
  find<A, E>(key: RequestKey<A, E>): Flight<A, E> | Exit.Exit<A, E> | undefined {
    const entry = this.entries.get(key.slot)
    if (entry === undefined) return undefined
    // An entry has the types of the key that it was made by: its slot is the hash of the operation's name and input.
    if (entry instanceof Flight) return entry as AnyFlight as Flight<A, E>
    if (entry.expiresAt <= this.now()) {
      this.drop(entry)
      return undefined
    }
    this.recency.touch(entry)
    this.counters.hits++
    return entry.exit as Exit.Exit<A, E>
  }

  /**
   * Gives the caller a seat, which it leaves on every way out: the finalizer stands before the seat is taken. (No dearer than
   * a mask, which would have to be lifted again for the wait.)
   */
  aboard(fiber: Fiber.Fiber<unknown, unknown>, passenger: Passenger): AnyEffect {
    const seat = new Seat(fiber, passenger)
    return Effect.onExitPrimitive(seat, () => this.leave(seat))
  }

  /** Enters a flight for a key that has none. */
  open<A, E>(key: RequestKey<A, E>, parent: Run | undefined): Flight<A, E> {
    const flight = new Flight(this, key, parent)
    this.entries.set(key.slot, flight as Flight<A, E> as AnyFlight)
    this.counters.flights++
    this.counters.led++
    return flight
  }

  /** Runs the effect as a flight, and waits for it like everybody who joins. */
  lead<A, E, R>(self: Effect.Effect<A, E, R>, key: RequestKey<A, E>, seat: Seat): AnyEffect {
    const flight = this.open(key, currentRun(seat.fiber))
    this.board(flight, seat)
    this.options.fleet.launch(flight, self, seat.fiber)
    // A flight is abandoned when nobody waits for it: its leader, who waits, never sees that.
    return this.wait(flight, seat, Effect.interrupt)
  }

  /** Whether as many wait for the flight as may. */
  isFull<A, E>(flight: Flight<A, E>): boolean {
    return flight.waiters.size >= this.options.maxWaiters
  }

  refusal<A, E>({ key, waiters }: Flight<A, E>): TooManyWaiters {
    this.counters.refused++
    return this.options.refusal(key.operation, waiters.size)
  }

  /** Waits for a flight that somebody else started. */
  join<A, E>(flight: Flight<A, E>, seat: Seat, ifAbandoned: AnyEffect): AnyEffect {
    if (isPartOf(seat.fiber, flight)) return waitsForItself(flight.key.operation)
    this.counters.joined++
    if (flight.landing === undefined) this.board(flight, seat)
    return this.wait(flight, seat, ifAbandoned)
  }

  /** What was launched for the flight has ended: as its landing, unless everybody left before. */
  ended<A, E>(flight: Flight<A, E>, exit: Exit.Exit<A, E>): void {
    this.counters.flights--
    this.land(flight, exit)
  }

  /** Ends a flight that is run under a lease. Says whether the flight still stood for its key. */
  settle<A, E>(flight: Flight<A, E>, landing: Landing<A, E>): boolean {
    if (flight.landing !== undefined) return false
    this.counters.flights--
    return this.land(flight, landing)
  }

  /** Forgets what is kept, and lets nobody join what runs. */
  invalidate({ slot }: RequestKey<never, never>): void {
    const entry = this.entries.get(slot)
    if (entry !== undefined) this.forget(slot, entry)
  }

  invalidateOperation(operation: string): void {
    for (const [slot, entry] of this.entries) {
      if (operationOf(entry) === operation) this.forget(slot, entry)
    }
  }

  /** What is kept of an operation, the least recently used first. */
  keptOf(operation: string): ReadonlyArray<KeptExit> {
    const now = this.now()
    const found: Array<KeptExit> = []
    for (let entry = this.recency.oldest; entry !== undefined; entry = entry.newer) {
      if (entry.operation !== operation || entry.expiresAt <= now) continue
      found.push({ slot: entry.slot, exit: entry.exit, expiresAt: this.epoch + entry.expiresAt })
    }
    return found
  }

  /** Keeps an exit that another process made, unless there is something for its key. */
  restore(operation: string, { exit, expiresAt, slot }: KeptExit): boolean {
    const now = this.now()
    const present = this.entries.get(slot)
    if (present instanceof Flight || (present !== undefined && present.expiresAt > now)) return false
    if (present !== undefined) this.drop(present)
    this.store(operation, slot, exit, expiresAt - this.epoch - now)
    return true
  }

  // It never goes back: by a clock that is set back what is kept would be served for as much longer.
  private now(): number {
    const now = this.options.clock.currentTimeMillisUnsafe() - this.epoch
    if (now < this.latest) this.setBack(now)
    else this.latest = now
    return this.latest
  }

  // The time that went by unseen is less than what the clock was set back by. Where that is much, all that is kept is over: who
  // knows how old it is.
  private setBack(now: number): void {
    const { latest } = this
    if (latest - now > slightMillis) this.latest = Math.max(latest, this.farthest)
    this.epoch -= this.latest - now
  }

  private board<A, E>(flight: Flight<A, E>, seat: Seat): void {
    seat.flight = flight as Flight<A, E> as AnyFlight
    flight.waiters.add(seat)
    this.counters.waiting++
  }

  private unseat<A, E>(flight: Flight<A, E>, seat: Seat): void {
    seat.flight = undefined
    flight.waiters.remove(seat)
    this.counters.waiting--
  }

  private wait<A, E>(flight: Flight<A, E>, seat: Seat, ifAbandoned: AnyEffect): AnyEffect {
    const { landing } = flight
    if (landing !== undefined) return landing === "Abandoned" ? ifAbandoned : landing
    return Effect.callback((resume) => {
      seat.resume = () => resume(this.wait(flight, seat, ifAbandoned))
      if (flight.landing !== undefined) seat.resume()
    })
  }

  /** Whoever leaves last stops the work, and is gone when it has stopped. A new caller starts anew from now on. */
  private leave(seat: Seat): Effect.Effect<void> | undefined {
    const { flight } = seat
    if (flight === undefined) return undefined
    this.unseat(flight, seat)
    flight.left(seat)
    if (flight.landing !== undefined || flight.waiters.size > 0 || flight.fiber === undefined) return undefined
    this.land(flight, "Abandoned")
    return stop(flight)
  }

  private land<A, E>(flight: Flight<A, E>, landing: Landing<A, E>): boolean {
    if (flight.landing !== undefined) return false
    const current = this.entries.get(flight.key.slot) === flight
    flight.landing = landing
    if (current) this.replace(flight.key, landing)
    this.wake(flight)
    return current
  }

  private wake<A, E>(flight: Flight<A, E>): void {
    const { oldest, size } = flight.waiters
    if (oldest === undefined) return
    // The leader of a flight that ended in place has not begun to wait, and sees the landing by itself.
    const isOnly = size === 1 && (oldest.resume === undefined || this.waking < maxNesting)
    if (isOnly) this.wakeNow(flight, oldest)
    else oldest.fiber.currentDispatcher.scheduleTask(() => this.wakeSome(flight), 0)
  }

  // In place, which saves a turn of the event loop: a third of what a flight costs that has to wait. What it does next may land another flight whose caller may
  // land another, ten thousand deep: those go through the scheduler before the stack becomes too deep.
  private wakeNow<A, E>(flight: Flight<A, E>, seat: Seat): void {
    this.unseat(flight, seat)
    this.waking++
    try {
      seat.resume?.()
    } finally {
      this.waking--
    }
  }

  private wakeSome<A, E>(flight: Flight<A, E>): void {
    for (let woken = 0; woken < wakesPerTurn; woken++) {
      const { oldest } = flight.waiters
      if (oldest === undefined) return
      this.unseat(flight, oldest)
      oldest.resume?.()
    }
    flight.waiters.oldest?.fiber.currentDispatcher.scheduleTask(() => this.wakeSome(flight), 0)
  }

  /**
   * Puts an exit in its flight's place for as long as it is worth. (In its place, since a Map holds on to the room of what was
   * deleted: twice the memory.)
   */
  private replace<A, E>(key: RequestKey<A, E>, landing: Landing<A, E>): void {
    const millis = landing === "Abandoned" ? 0 : this.timeToLive(key, landing)
    if (landing !== "Abandoned" && millis > 0) this.store(key.operation, key.slot, landing, millis)
    else this.entries.delete(key.slot)
  }

  // An interruption is nobody's answer, and a refusal of a policy says nothing about the next call.
  private timeToLive<A, E>({ operation, [KeyTypeId]: of }: RequestKey<A, E>, exit: Exit.Exit<A, E>): number {
    if (Exit.isFailure(exit) && exit.cause.reasons.some(isPassing)) return 0
    if (of.timeToLive === undefined) return Exit.isSuccess(exit) ? this.options.timeToLiveMillis : 0
    // The call was made, and its answer may well have been paid for: it is handed out, though not kept.
    let millis = Number.NaN
    try {
      millis = of.timeToLive(exit)
    } catch {
      // What is thrown may hold the answer, and is told to nobody.
    }
    if (millis >= 0 && millis < Number.POSITIVE_INFINITY) return millis
    this.options.onUntold(operation)
    return 0
  }

  private store(operation: string, slot: string, exit: Exit.Exit<unknown, unknown>, millis: number): void {
    const now = this.now()
    const expiresAt = now + millis
    if (expiresAt < Number.POSITIVE_INFINITY) this.farthest = Math.max(this.farthest, expiresAt)
    const entry = Exit.isSuccess(exit)
      ? new Kept(operation, slot, exit.value, expiresAt)
      : new KeptFailure(operation, slot, exit, expiresAt)
    this.entries.set(slot, entry)
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

  private forget(slot: string, entry: AnyFlight | Kept): void {
    if (entry instanceof Flight) this.entries.delete(slot)
    else this.drop(entry)
  }

  private drop(entry: Kept): void {
    this.entries.delete(entry.slot)
    this.recency.remove(entry)
  }
}

const operationOf = (entry: AnyFlight | Kept): string => entry instanceof Flight ? entry.key.operation : entry.operation

const isPassing = (reason: Cause.Reason<unknown>): boolean =>
  Cause.isInterruptReason(reason) ||
  (Cause.isFailReason(reason) && typeof reason.error === "object" && reason.error !== null && isRefusal(reason.error))

/** It would wait for ever, and keep itself alive by waiting. */
export const waitsForItself = (operation: string): Effect.Effect<never> =>
  Effect.die(new Error(`operation ${operation} asks for its own key while it runs: it would wait for itself`))
