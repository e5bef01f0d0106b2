import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { Deadline } from "../../Deadline.ts"
import type { Served } from "../../Deduplicator.ts"
import { Classifier, type Classify, fromExit } from "../../Outcome.ts"
import { isRefusal } from "../../Refusal.ts"
import type { Waiter } from "../deadline/shared.ts"
import { type Linked, LinkedList } from "../kit/linkedList.ts"
import { type AnyEffect, Primitive } from "../kit/primitive.ts"
import type { TooManyWaiters } from "./errors.ts"
import { KeyTypeId, type RequestKey } from "./requestKey.ts"
import type { StoredFlights } from "./storedFlights.ts"
import { currentRun, isPartOf, maxNesting, SharedRun, type SharedRuns, stop } from "./sharedRun.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>
type AnyExit = Exit.Exit<unknown, unknown>
type AnyFlight = Flight<unknown, unknown>

/** How a flight ends: with an exit, or because every caller left, or the holder of its lease went away. */
export type Landing<A, E> = Exit.Exit<A, E> | "Abandoned"

/** Turns a refusal into the error of the caller. */
export type Refuse<E> = (refusal: TooManyWaiters) => Effect.Effect<never, E>

/** One execution that several callers share. It has a fiber, or a lease whose holder does the work. */
export class Flight<A, E> extends SharedRun {
  readonly key: RequestKey<A, E>
  readonly waiters = new LinkedList<FlightWaiter>()
  landing: Landing<A, E> | undefined
  /** The `Classifier` of the caller that leads, unless it is the default. */
  classifier: Classify<unknown, unknown> | undefined
  /** For how long another process says that its result is fresh. */
  freshMillis = Number.POSITIVE_INFINITY
  private readonly flights: Flights

  constructor(flights: Flights, key: RequestKey<A, E>, parent: SharedRun | undefined) {
    super(parent)
    this.flights = flights
    this.key = key
  }

  // The exit is that of the effect which was launched for this flight, and has its types.
  override onEnd(exit: AnyExit): void {
    this.flights.onEnd(this, exit as Exit.Exit<A, E>)
  }
}

/** A caller: leads a flight, joins one, or returns a cached result. */
interface Caller {
  enter(waiter: FlightWaiter): AnyEffect
}

/** A caller of a flight. As an effect it is what the caller does. */
export class FlightWaiter extends Primitive implements Waiter, Linked<FlightWaiter> {
  readonly fiber: AnyFiber
  readonly deadline: Deadline | undefined
  private readonly caller: Caller
  /** Absent before the caller has joined one, and after it has landed. */
  flight: AnyFlight | undefined
  /** Resumes the caller with the landing. Absent until it waits. */
  resume: (() => void) | undefined
  previous: FlightWaiter | undefined
  next: FlightWaiter | undefined

  constructor(fiber: AnyFiber, caller: Caller) {
    super()
    this.fiber = fiber
    this.deadline = fiber.getRef(Deadline)
    this.caller = caller
  }

  override evaluate(): AnyEffect {
    return this.caller.enter(this)
  }
}

/** An effect that shares its runs and results by a key, each time that it runs. */
export class DedupedEffect<A, E, R, E2> extends Primitive implements Caller {
  private readonly flights: Flights
  private readonly self: Effect.Effect<A, E, R>
  private readonly key: RequestKey<A, E>
  private readonly onServed: (served: Served) => void
  private readonly refuse: Refuse<E2>

  constructor(
    flights: Flights,
    self: Effect.Effect<A, E, R>,
    key: RequestKey<A, E>,
    onServed: (served: Served) => void,
    refuse: Refuse<E2>
  ) {
    super()
    this.flights = flights
    this.self = self
    this.key = key
    this.onServed = onServed
    this.refuse = refuse
  }

  override evaluate(fiber: AnyFiber): AnyEffect {
    const { flights, key } = this
    const { defect } = key[KeyTypeId]
    if (defect !== undefined) return Effect.die(defect.error)
    const found = flights.find(key)
    if (found === undefined || found instanceof Flight) return flights.enter(fiber, this)
    this.onServed("Cached")
    return found
  }

  // The entry can have changed since `evaluate`.
  enter(waiter: FlightWaiter): AnyEffect {
    const { flights, key, refuse } = this
    const found = flights.find(key)
    if (found === undefined) {
      this.onServed("Led")
      return flights.lead(this.self, key, waiter, this.onServed)
    }
    if (!(found instanceof Flight)) {
      this.onServed("Cached")
      return found
    }
    if (flights.isFull(found)) return refuse(flights.refusal(found))
    this.onServed("Joined")
    return flights.join(found, waiter, this)
  }
}

/** A cached result, and its place in the order of use. */
class CachedResult implements Linked<CachedResult> {
  readonly operation: string
  readonly slot: string
  /** The value without its exit, which would be a fifth of what a cached result costs. */
  readonly value: unknown
  /** Milliseconds since the cache was made. Below 2^31, V8 stores them in this object. */
  readonly expiresAt: number
  previous: CachedResult | undefined
  next: CachedResult | undefined

  constructor(operation: string, slot: string, value: unknown, expiresAt: number) {
    this.operation = operation
    this.slot = slot
    this.value = value
    this.expiresAt = expiresAt
  }

  get exit(): AnyExit {
    return Exit.succeed(this.value)
  }

  get bytes(): number {
    return 0
  }
}

/** A cached result with a size. A separate class, so that results without a size do not have the field. */
class SizedResult extends CachedResult {
  private readonly size: number

  constructor(operation: string, slot: string, value: unknown, expiresAt: number, size: number) {
    super(operation, slot, value, expiresAt)
    this.size = size
  }

  override get bytes(): number {
    return this.size
  }
}

class CachedFailure extends CachedResult {
  override get exit(): AnyExit {
    return this.value as AnyExit // Set by `store`, from an exit.
  }
}

/** A cached exit as it is dumped and restored. */
export interface CachedExit {
  readonly slot: string
  readonly exit: AnyExit
  /** Epoch milliseconds. */
  readonly expiresAt: number
}

interface FlightsOptions {
  readonly capacity: number
  /** Of all cached results together. */
  readonly maxBytes: number
  /** How long a success is cached if its operation does not say. */
  readonly timeToLiveMillis: number
  readonly maxWaiters: number
  readonly clock: Clock.Clock
  readonly runs: SharedRuns
  /** Shares the flights with other processes. */
  readonly stored: StoredFlights | undefined
  readonly refusal: (operation: string, waiting: number) => TooManyWaiters
  /** Called if a function of an operation threw, or returned an invalid value. */
  readonly onInvalid: (operation: string, option: "timeToLive" | "size") => void
}

/** The bytes of a success. */
type Size = ((value: unknown) => number) | undefined

/** Counters of effects and streams together. */
export interface Counters {
  flights: number
  waiting: number
  led: number
  joined: number
  hits: number
  evicted: number
  refused: number
}

// A woken caller resumes at once. Waking at most this many in one turn of the event loop leaves room for other fibers.
const wakesPerTurn = 256

/** A clock that is set back by no more than this is being synchronised. */
const slightSetBackMillis = 1_000

/** The entries of a deduplicator: for each key a flight, then a cached result. */
export class Flights {
  private readonly options: FlightsOptions
  private readonly counters: Counters
  private epoch: number
  /** The last reading of the time, which never goes back. */
  private latest = 0
  /** When the last of the cached results expires. */
  private lastExpiry = 0
  private readonly entries = new Map<string, AnyFlight | CachedResult>()
  private readonly recency = new LinkedList<CachedResult>()
  /** Of all cached results together. */
  private bytes = 0
  /** Callers woken on the current stack, each by the one before. */
  private wakesOnStack = 0

  constructor(options: FlightsOptions, counters: Counters) {
    this.options = options
    this.counters = counters
    this.epoch = options.clock.currentTimeMillisUnsafe()
  }

  get cached(): number {
    return this.recency.size
  }

  /** The flight to join, or the cached exit. An exit whose time is exactly over is not served. */
  find<A, E>(key: RequestKey<A, E>): Flight<A, E> | Exit.Exit<A, E> | undefined {
    const entry = this.entries.get(key.slot)
    if (entry === undefined) return undefined
    // An entry has the types of its key: the slot is the hash of the operation's name and the input.
    if (entry instanceof Flight) return entry as AnyFlight as Flight<A, E>
    if (entry.expiresAt <= this.now()) {
      this.drop(entry)
      return undefined
    }
    this.recency.moveToLast(entry)
    this.counters.hits++
    return entry.exit as Exit.Exit<A, E>
  }

  // ---------- callers

  /** Runs the caller. The finalizer is registered before the caller joins a flight, so that it leaves however it ends. */
  enter(fiber: AnyFiber, caller: Caller): AnyEffect {
    const waiter = new FlightWaiter(fiber, caller)
    return Effect.onExitPrimitive(waiter, () => this.leave(waiter))
  }

  /** Makes a flight for a key that has no entry. */
  open<A, E>(key: RequestKey<A, E>, parent: SharedRun | undefined): Flight<A, E> {
    const flight = new Flight(this, key, parent)
    this.entries.set(key.slot, flight as Flight<A, E> as AnyFlight)
    this.counters.flights++
    this.counters.led++
    return flight
  }

  /** Runs the effect as a flight, and waits for it like every other caller. */
  lead<A, E, R>(
    self: Effect.Effect<A, E, R>,
    key: RequestKey<A, E>,
    waiter: FlightWaiter,
    onServed: (served: Served) => void
  ): AnyEffect {
    const { runs, stored } = this.options
    const flight = this.open(key, currentRun(waiter.fiber))
    const classifier = waiter.fiber.getRef(Classifier)
    if (classifier !== fromExit) flight.classifier = classifier
    this.addWaiter(flight, waiter)
    const run = stored === undefined ? self : stored.share(self, key, {
      onServed,
      onResult: (freshMillis) => {
        flight.freshMillis = freshMillis
      },
      // The effect of a flight has the types of its key.
      cacheMillis: (exit) => this.cacheMillis(flight, exit as Exit.Exit<A, E>)
    })
    runs.launch(flight, run, waiter.fiber)
    // A flight is abandoned only when no caller waits, so its waiting leader never sees that.
    return this.wait(flight, waiter, Effect.interrupt)
  }

  isFull<A, E>(flight: Flight<A, E>): boolean {
    return flight.waiters.size >= this.options.maxWaiters
  }

  refusal<A, E>({ key, waiters }: Flight<A, E>): TooManyWaiters {
    this.counters.refused++
    return this.options.refusal(key.operation, waiters.size)
  }

  /** Waits for a flight that another caller started. */
  join<A, E>(flight: Flight<A, E>, waiter: FlightWaiter, ifAbandoned: AnyEffect): AnyEffect {
    if (isPartOf(waiter.fiber, flight)) return waitsForItself(flight.key.operation)
    this.counters.joined++
    if (flight.landing === undefined) this.addWaiter(flight, waiter)
    return this.wait(flight, waiter, ifAbandoned)
  }

  private addWaiter<A, E>(flight: Flight<A, E>, waiter: FlightWaiter): void {
    waiter.flight = flight as Flight<A, E> as AnyFlight
    flight.waiters.append(waiter)
    this.counters.waiting++
  }

  private removeWaiter<A, E>(flight: Flight<A, E>, waiter: FlightWaiter): void {
    waiter.flight = undefined
    flight.waiters.remove(waiter)
    this.counters.waiting--
  }

  private wait<A, E>(flight: Flight<A, E>, waiter: FlightWaiter, ifAbandoned: AnyEffect): AnyEffect {
    const { landing } = flight
    if (landing !== undefined) return landing === "Abandoned" ? ifAbandoned : landing
    return Effect.callback((resume) => {
      waiter.resume = () => resume(this.wait(flight, waiter, ifAbandoned))
      if (flight.landing !== undefined) waiter.resume()
    })
  }

  /** The last caller to leave stops the work and waits for that. From now on a new caller starts another flight. */
  private leave(waiter: FlightWaiter): Effect.Effect<void> | undefined {
    const { flight } = waiter
    if (flight === undefined) return undefined
    this.removeWaiter(flight, waiter)
    flight.onLeave(waiter)
    if (flight.landing !== undefined || flight.waiters.size > 0 || flight.fiber === undefined) return undefined
    this.land(flight, "Abandoned")
    return stop(flight)
  }

  // ---------- landings

  /** The launched effect has ended. The flight lands with its exit, unless every caller left before. */
  onEnd<A, E>(flight: Flight<A, E>, exit: Exit.Exit<A, E>): void {
    this.counters.flights--
    this.land(flight, exit)
  }

  /** Ends a flight that is run under a lease. Returns whether the flight was still the entry of its key. */
  settle<A, E>(flight: Flight<A, E>, landing: Landing<A, E>): boolean {
    if (flight.landing !== undefined) return false
    this.counters.flights--
    return this.land(flight, landing)
  }

  private land<A, E>(flight: Flight<A, E>, landing: Landing<A, E>): boolean {
    if (flight.landing !== undefined) return false
    const isEntry = this.entries.get(flight.key.slot) === flight
    flight.landing = landing
    if (isEntry) this.replace(flight, landing)
    this.wake(flight)
    return isEntry
  }

  private wake<A, E>(flight: Flight<A, E>): void {
    const { first, size } = flight.waiters
    if (first === undefined) return
    // The leader of a flight that ended in place does not wait yet, and sees the landing by itself.
    const isOnly = size === 1 && (first.resume === undefined || this.wakesOnStack < maxNesting)
    if (isOnly) this.wakeNow(flight, first)
    else first.fiber.currentDispatcher.scheduleTask(() => this.wakeSome(flight), 0)
  }

  // Waking in place saves a turn of the event loop, a third of what a flight costs that waits. The woken caller can land
  // another flight, whose caller can land another, so the depth is capped.
  private wakeNow<A, E>(flight: Flight<A, E>, waiter: FlightWaiter): void {
    this.removeWaiter(flight, waiter)
    this.wakesOnStack++
    try {
      waiter.resume?.()
    } finally {
      this.wakesOnStack--
    }
  }

  private wakeSome<A, E>(flight: Flight<A, E>): void {
    for (let woken = 0; woken < wakesPerTurn; woken++) {
      const { first } = flight.waiters
      if (first === undefined) return
      this.removeWaiter(flight, first)
      first.resume?.()
    }
    flight.waiters.first?.fiber.currentDispatcher.scheduleTask(() => this.wakeSome(flight), 0)
  }

  // ---------- the cache

  /** Removes a cached result, and keeps a flight from being joined or cached. */
  invalidate<A, E>({ slot }: RequestKey<A, E>): void {
    const entry = this.entries.get(slot)
    if (entry !== undefined) this.remove(slot, entry)
  }

  invalidateOperation(operation: string): void {
    for (const [slot, entry] of this.entries) {
      if (operationOf(entry) === operation) this.remove(slot, entry)
    }
  }

  /** The cached results of an operation, the least recently used first. */
  cachedOf(operation: string): ReadonlyArray<CachedExit> {
    const now = this.now()
    const found: Array<CachedExit> = []
    for (let { first: entry } = this.recency; entry !== undefined; entry = entry.next) {
      if (entry.operation !== operation || entry.expiresAt <= now) continue
      found.push({ slot: entry.slot, exit: entry.exit, expiresAt: this.epoch + entry.expiresAt })
    }
    return found
  }

  /** Caches the exit of another process. Returns false if the key has an entry. */
  restore(operation: string, { exit, expiresAt, slot }: CachedExit, size: Size): boolean {
    const now = this.now()
    const present = this.entries.get(slot)
    if (present instanceof Flight || (present !== undefined && present.expiresAt > now)) return false
    if (present !== undefined) this.drop(present)
    return this.store(operation, slot, exit, expiresAt - this.epoch - now, size)
  }

  /**
   * Replaces a landed flight by its exit, or removes it. In place, since a Map keeps the room of deleted entries: twice the
   * memory.
   */
  private replace<A, E>(flight: Flight<A, E>, landing: Landing<A, E>): void {
    const { key } = flight
    const millis = landing === "Abandoned" ? 0 : Math.min(this.cacheMillis(flight, landing), flight.freshMillis)
    const isStored = landing !== "Abandoned" && millis > 0 &&
      this.store(key.operation, key.slot, landing, millis, key[KeyTypeId].size)
    if (!isStored) this.entries.delete(key.slot)
  }

  private cacheMillis<A, E>(flight: Flight<A, E>, exit: Exit.Exit<A, E>): number {
    return isFailedResult(flight, exit) ? 0 : this.timeToLive(flight.key, exit)
  }

  // An interruption is not an answer, and a refusal says nothing about the next call.
  private timeToLive<A, E>({ operation, [KeyTypeId]: of }: RequestKey<A, E>, exit: Exit.Exit<A, E>): number {
    if (Exit.isFailure(exit) && exit.cause.reasons.some(isNeverCached)) return 0
    if (of.timeToLive === undefined) return Exit.isSuccess(exit) ? this.options.timeToLiveMillis : 0
    let millis = Number.NaN
    try {
      millis = of.timeToLive(exit)
    } catch {
      // The error can hold the answer, so it is not reported. The answer itself may be paid for, and is returned uncached.
    }
    if (millis >= 0 && millis < Number.POSITIVE_INFINITY) return millis
    this.options.onInvalid(operation, "timeToLive")
    return 0
  }

  // The size of a result in bytes. `undefined` if it must not be cached.
  private sizeOf(operation: string, size: Size, exit: AnyExit): number | undefined {
    if (size === undefined || Exit.isFailure(exit) || this.options.maxBytes === Number.POSITIVE_INFINITY) return 0
    let bytes = Number.NaN
    try {
      bytes = size(exit.value)
    } catch {
      // As in `timeToLive`.
    }
    if (bytes >= 0) return bytes > this.options.maxBytes ? undefined : bytes
    this.options.onInvalid(operation, "size")
    return undefined
  }

  /** Returns false if the result is too large to be cached. */
  private store(operation: string, slot: string, exit: AnyExit, millis: number, size: Size): boolean {
    const bytes = this.sizeOf(operation, size, exit)
    if (bytes === undefined) return false
    const now = this.now()
    const expiresAt = now + millis
    if (expiresAt < Number.POSITIVE_INFINITY) this.lastExpiry = Math.max(this.lastExpiry, expiresAt)
    const entry = Exit.isFailure(exit)
      ? new CachedFailure(operation, slot, exit, expiresAt)
      : bytes === 0
      ? new CachedResult(operation, slot, exit.value, expiresAt)
      : new SizedResult(operation, slot, exit.value, expiresAt, bytes)
    this.entries.set(slot, entry)
    this.recency.append(entry)
    this.bytes += bytes
    this.sweep(now)
    return true
  }

  // Each new entry checks the two least recently used: expired results go faster than new ones come, at a constant cost.
  private sweep(now: number): void {
    for (let looks = 0; looks < 2; looks++) {
      const { first } = this.recency
      if (first !== undefined && first.expiresAt <= now) this.drop(first)
    }
    const { first } = this.recency
    if (first !== undefined && this.recency.size > this.options.capacity) {
      this.evict(first)
    }
    // A result has at most `maxBytes`, so the new one stays.
    while (this.bytes > this.options.maxBytes && this.recency.first !== undefined) this.evict(this.recency.first)
  }

  private evict(entry: CachedResult): void {
    this.drop(entry)
    this.counters.evicted++
  }

  private remove(slot: string, entry: AnyFlight | CachedResult): void {
    if (entry instanceof Flight) this.entries.delete(slot)
    else this.drop(entry)
  }

  private drop(entry: CachedResult): void {
    this.entries.delete(entry.slot)
    this.recency.remove(entry)
    this.bytes -= entry.bytes
  }

  // ---------- time

  // Milliseconds since the cache was made. If the clock is set back, results must not be served for longer.
  private now(): number {
    const now = this.options.clock.currentTimeMillisUnsafe() - this.epoch
    if (now < this.latest) this.onSetBack(now)
    else this.latest = now
    return this.latest
  }

  // How much time has passed unseen is unknown, but it is less than what the clock was set back by. If that is much, all
  // cached results expire.
  private onSetBack(now: number): void {
    const { latest } = this
    if (latest - now > slightSetBackMillis) this.latest = Math.max(latest, this.lastExpiry)
    this.epoch -= this.latest - now
  }
}

const operationOf = (entry: AnyFlight | CachedResult): string =>
  entry instanceof Flight ? entry.key.operation : entry.operation

/** Whether a classifier calls a success a failure, such as one that contains a refusal. The next run may not be refused. */
const isFailedResult = <A, E>({ classifier, key }: Flight<A, E>, exit: Exit.Exit<A, E>): boolean => {
  const { classify } = key[KeyTypeId]
  if (Exit.isFailure(exit) || (classify === undefined && classifier === undefined)) return false
  try {
    const outcome = classify?.(exit, 0) ?? classifier?.(exit, 0)
    return outcome?._tag === "Failure" || outcome?._tag === "Throttled"
  } catch {
    // If the classifier throws, the result is not cached. The error can contain the answer, so it is not reported.
    return true
  }
}

const isNeverCached = (reason: Cause.Reason<unknown>): boolean =>
  Cause.isInterruptReason(reason) || (Cause.isFailReason(reason) && isRefusal(reason.error))

/** A flight that waits for its own key would wait for ever. */
export const waitsForItself = (operation: string): Effect.Effect<never> =>
  Effect.die(new Error(`operation ${operation} requests its own key while it runs, and would wait for itself`))
