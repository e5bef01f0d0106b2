import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Deadline } from "../../Deadline.ts"
import type { Waiter } from "../deadline/shared.ts"
import { type Linked, LinkedList } from "../kit/linkedList.ts"
import type { TooManyWaiters } from "./errors.ts"
import { type Counters, type Refuse, waitsForItself } from "./flights.ts"
import { KeyTypeId, type RequestKey } from "./requestKey.ts"
import { currentRun, isPartOf, SharedRun, type SharedRuns, stop } from "./sharedRun.ts"

type Chunk<A> = readonly [A, ...Array<A>]

/** A fiber that waits for the flight to make progress. */
interface Parked {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly resume: (effect: Effect.Effect<void>) => void
}

// Resumed by the scheduler. In place, upstream and its readers would resume each other on one growing stack.
const unpark = (parked: Parked): void =>
  parked.fiber.currentDispatcher.scheduleTask(() => parked.resume(Effect.void), 0)

/** One reader of a shared stream. */
class Reader implements Waiter, Linked<Reader> {
  readonly deadline: Deadline | undefined
  /** How many parts it has read. */
  at = 0
  /** It has read everything and waits for more. */
  asking: Parked | undefined
  previous: Reader | undefined
  next: Reader | undefined

  constructor(deadline: Deadline | undefined) {
    this.deadline = deadline
  }
}

/**
 * One upstream and its parts. Every reader reads all of them, at its own pace.
 *
 * Upstream is pulled when a reader has read everything and wants more, so it is never ahead of the fastest reader. Once there
 * are more than `maxReplay` parts, no reader can join any more. From then on, parts that all readers have read are dropped, and
 * upstream also waits for a reader that is `maxReplay` parts behind.
 */
class StreamFlight<A, E> extends SharedRun {
  readonly operation: string
  readonly slot: string
  /** The slowest first. A reader that reads gets all parts there are, and is then level with the fastest. */
  readonly waiters = new LinkedList<Reader>()
  exit: Exit.Exit<void, E> | undefined
  private readonly flights: StreamFlights
  private readonly maxReplay: number
  private readonly parts: Array<A> = []
  /** How many parts were dropped. */
  private base = 0
  /** How many readers want more. */
  private asking = 0
  private upstream: Parked | undefined

  constructor(
    flights: StreamFlights,
    { operation, slot }: RequestKey<A, E>,
    parent: SharedRun | undefined,
    maxReplay: number
  ) {
    super(parent)
    this.flights = flights
    this.operation = operation
    this.slot = slot
    this.maxReplay = maxReplay
  }

  private get end(): number {
    return this.base + this.parts.length
  }

  /** Whether a new reader would miss the beginning. */
  get isSealed(): boolean {
    return this.end > this.maxReplay
  }

  /** Adds parts from upstream, and waits until more are wanted. */
  produce(chunk: ReadonlyArray<A>): Effect.Effect<void> {
    for (const part of chunk) this.parts.push(part)
    this.wakeReaders()
    return this.wanted
  }

  // The exit is that of the stream which was launched for this flight, and has its error.
  override onEnd(exit: Exit.Exit<unknown, unknown>): void {
    this.exit = exit as Exit.Exit<void, E>
    this.flights.onEnd(this)
    this.wakeReaders()
  }

  leave(reader: Reader): void {
    this.waiters.remove(reader)
    this.onLeave(reader)
    this.answer(reader)
    this.wakeUpstream()
  }

  pull(reader: Reader): Pull.Pull<Chunk<A>, E> {
    return Effect.suspend((): Pull.Pull<Chunk<A>, E> => {
      if (reader.at < this.end) return Effect.succeed(this.take(reader))
      if (this.exit === undefined) return Effect.andThen(this.more(reader), this.pull(reader))
      return Exit.isSuccess(this.exit) ? Cause.done() : Effect.failCause(this.exit.cause)
    })
  }

  private take(reader: Reader): Chunk<A> {
    const taken = this.parts.slice(reader.at - this.base)
    reader.at = this.end
    this.waiters.moveToLast(reader)
    if (this.isSealed) this.dropRead()
    this.wakeUpstream()
    return taken as ReadonlyArray<A> as Chunk<A> // not empty: the reader was not at the end
  }

  // Half of the parts at a time, so that a part is moved once on average.
  private dropRead(): void {
    const read = this.slowest() - this.base
    if (read * 2 < this.parts.length) return
    this.parts.splice(0, read)
    this.base += read
  }

  private slowest(): number {
    return this.waiters.first?.at ?? this.end
  }

  private isWanted(): boolean {
    return this.asking > 0 && (!this.isSealed || this.end - this.slowest() < this.maxReplay)
  }

  private more(reader: Reader): Effect.Effect<void> {
    return Effect.withFiber((fiber) =>
      Effect.callback<void>((resume) => {
        if (reader.at < this.end || this.exit !== undefined) return resume(Effect.void)
        reader.asking = { fiber, resume }
        this.asking++
        this.wakeUpstream()
        return Effect.sync(() => {
          this.answer(reader)
        })
      })
    )
  }

  private readonly wanted: Effect.Effect<void> = Effect.withFiber((fiber) =>
    Effect.callback<void>((resume) => {
      if (this.isWanted()) return resume(Effect.void)
      this.upstream = { fiber, resume }
      return Effect.sync(() => {
        this.upstream = undefined
      })
    })
  )

  private wakeReaders(): void {
    for (let { first: reader } = this.waiters; reader !== undefined; reader = reader.next) {
      const asking = this.answer(reader)
      if (asking !== undefined) unpark(asking)
    }
  }

  /** The reader no longer waits. */
  private answer(reader: Reader): Parked | undefined {
    const { asking } = reader
    if (asking === undefined) return undefined
    reader.asking = undefined
    this.asking--
    return asking
  }

  private wakeUpstream(): void {
    if (this.upstream === undefined || !this.isWanted()) return
    const { upstream } = this
    this.upstream = undefined
    unpark(upstream)
  }
}

interface StreamFlightsOptions {
  readonly maxReplay: number
  readonly maxWaiters: number
  readonly runs: SharedRuns
  readonly refusal: (operation: string, waiting: number) => TooManyWaiters
}

/** The streams that run for a key and can be joined. */
export class StreamFlights {
  private readonly options: StreamFlightsOptions
  private readonly counters: Counters
  private readonly flights = new Map<string, StreamFlight<unknown, unknown>>()

  constructor(options: StreamFlightsOptions, counters: Counters) {
    this.options = options
    this.counters = counters
  }

  /** Reads the flight that runs for the key, or starts one. */
  share<A, E, R, E2>(
    self: Stream.Stream<A, E, R>,
    key: RequestKey<A, E>,
    onServed: (served: "Led" | "Joined") => void,
    refuse: Refuse<E2>
  ): Stream.Stream<A, E | E2> {
    return Stream.fromChannel(
      Channel.fromTransformBracket((_, __, scope) =>
        Effect.uninterruptible(Effect.withFiber((fiber): Effect.Effect<Pull.Pull<Chunk<A>, E>, E2> => {
          const { defect } = key[KeyTypeId]
          if (defect !== undefined) return Effect.die(defect.error)
          const running = this.find(key)
          if (running !== undefined && isPartOf(fiber, running)) return waitsForItself(key.operation)
          if (running !== undefined && this.isFull(running)) {
            return refuse(this.refusal(running))
          }
          onServed(running === undefined ? "Led" : "Joined")
          const flight = running ?? new StreamFlight<A, E>(this, key, currentRun(fiber), this.options.maxReplay)
          const reader = new Reader(fiber.getRef(Deadline))
          flight.waiters.prepend(reader)
          this.counters.waiting++
          if (running === undefined) this.start(flight, self, fiber)
          else this.counters.joined++
          return Effect.as(Scope.addFinalizer(scope, this.leaving(flight, reader)), flight.pull(reader))
        }))
      )
    )
  }

  invalidate<A, E>({ slot }: RequestKey<A, E>): void {
    this.flights.delete(slot)
  }

  invalidateOperation(operation: string): void {
    for (const flight of this.flights.values()) if (flight.operation === operation) this.release(flight)
  }

  private find<A, E>(key: RequestKey<A, E>): StreamFlight<A, E> | undefined {
    // A flight has the types of its key: the slot is the hash of the operation's name and the input.
    return this.flights.get(key.slot) as StreamFlight<A, E> | undefined
  }

  private isFull<A, E>(flight: StreamFlight<A, E>): boolean {
    return flight.waiters.size >= this.options.maxWaiters
  }

  private refusal<A, E>({ operation, waiters }: StreamFlight<A, E>): TooManyWaiters {
    this.counters.refused++
    return this.options.refusal(operation, waiters.size)
  }

  private start<A, E, R>(
    flight: StreamFlight<A, E>,
    self: Stream.Stream<A, E, R>,
    leader: Fiber.Fiber<unknown, unknown>
  ): void {
    this.flights.set(flight.slot, flight as StreamFlight<never, never> as StreamFlight<unknown, unknown>)
    this.counters.flights++
    this.counters.led++
    const run = Stream.runForEachArray(self, (chunk) =>
      Effect.suspend(() => {
        const wanted = flight.produce(chunk)
        if (flight.isSealed) this.release(flight)
        return wanted
      }))
    this.options.runs.launch(flight, run, leader)
  }

  onEnd<A, E>(flight: StreamFlight<A, E>): void {
    this.counters.flights--
    this.release(flight)
  }

  /** The last reader to leave stops upstream and waits for that. */
  private leaving<A, E>(flight: StreamFlight<A, E>, reader: Reader): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.counters.waiting--
      flight.leave(reader)
      if (flight.exit !== undefined || flight.waiters.size > 0 || flight.fiber === undefined) return Effect.void
      this.release(flight)
      return stop(flight)
    })
  }

  private release<A, E>(flight: StreamFlight<A, E>): void {
    if (this.flights.get(flight.slot) === (flight as unknown)) this.flights.delete(flight.slot)
  }
}
