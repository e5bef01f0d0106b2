/** What a worker holds: tickets it took, and their requests that have no result yet. */
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type { HeldState } from "../tables/workers.ts"

/** The requests of one run of a batch that this worker holds. A retry starts another run, which goes on while calls of this one end. */
export class HeldRun {
  readonly batch: number
  readonly run: number
  requests = 0
  tickets = 0
  /** What the batch has cost, as far as this worker knows. It may be too much: an answer can be in the sum that was read last. */
  micros = 0
  /** The run is over, or its budget is spent: no call is started any more. */
  isStopped = false
  /** Calls that run are interrupted as well. */
  private isInterrupted = false
  /** The worker stops: no call is started any more, and others ask what is left. */
  isLeft = false
  private readonly calls = new Set<Fiber.Fiber<unknown, unknown>>()
  /** Open once no call is started any more. */
  readonly over: Latch.Latch = Latch.makeUnsafe()

  constructor(batch: number, run: number) {
    this.batch = batch
    this.run = run
  }

  /** A call runs. It is interrupted with the others. */
  began(call: Fiber.Fiber<unknown, unknown>): void {
    if (this.isInterrupted) call.interruptUnsafe()
    this.calls.add(call)
    call.addObserver(() => this.calls.delete(call))
  }

  stop(interrupts: boolean): void {
    this.isStopped = true
    this.over.openUnsafe()
    if (!interrupts || this.isInterrupted) return
    this.isInterrupted = true
    for (const call of this.calls) call.interruptUnsafe()
  }

  leave(interrupts: boolean): void {
    this.isLeft = true
    this.stop(interrupts)
  }
}

export class Held {
  private readonly runs = new Map<string, HeldRun>()
  requests = 0
  private lapsed = 0
  private aliveAt: number
  private readonly lapseMillis: number
  private isLeft = false
  /** Opened when a ticket was taken, and when the worker holds less or may take again. */
  readonly changed: Latch.Latch = Latch.makeUnsafe()

  /** After `lapseMillis` without a beat, the leases of all tickets may have lapsed. */
  constructor(lapseMillis: number, now: number) {
    this.lapseMillis = lapseMillis
    this.aliveAt = now
  }

  /** A beat that began at this time reached the database. */
  beat(startedAt: number): void {
    this.aliveAt = startedAt
  }

  /**
   * How often the leases of all tickets may have lapsed, so that other workers ask their requests: the process was frozen, or the
   * database was away. A process that continues handles answers before its timers, so each call looks at the clock.
   */
  lapses(now: number): number {
    if (now - this.aliveAt >= this.lapseMillis) {
      this.lapsed += 1
      this.aliveAt = now
    }
    return this.lapsed
  }

  /** A ticket of `requests` was taken. It counts as held before its batch is read, so that no beat misses it. */
  take(batch: number, run: number, requests: number): HeldRun {
    let held = this.runs.get(`${batch}.${run}`)
    if (held === undefined) this.runs.set(`${batch}.${run}`, held = new HeldRun(batch, run))
    if (this.isLeft) held.leave(false)
    held.tickets += 1
    this.add(held, requests)
    // There may be room for more tickets of this size. Opening the latch runs its waiter at once, so the ticket is counted before.
    this.changed.openUnsafe()
    return held
  }

  add(held: HeldRun, requests: number): void {
    held.requests += requests
    this.requests += requests
    if (requests < 0) this.changed.openUnsafe()
  }

  /** The ticket is over, with `left` requests that got no result here. */
  release(held: HeldRun, left: number): void {
    held.tickets -= 1
    this.add(held, -left)
    if (held.tickets === 0) this.runs.delete(`${held.batch}.${held.run}`)
    this.changed.openUnsafe()
  }

  /** The worker stops: no call is started any more. `interrupts` ends those that run. */
  leave(interrupts: boolean): void {
    this.isLeft = true
    for (const held of this.runs.values()) held.leave(interrupts)
  }

  /** How many requests it holds of each batch. */
  get byBatch(): ReadonlyMap<number, number> {
    const requests = new Map<number, number>()
    for (const held of this.runs.values()) requests.set(held.batch, (requests.get(held.batch) ?? 0) + held.requests)
    return requests
  }

  apply(states: ReadonlyArray<HeldState>): void {
    for (const { batch, interrupts, isSpent, run, state } of states) {
      for (const held of this.runs.values()) {
        if (held.batch === batch && (state !== "in_progress" || held.run !== run || isSpent)) held.stop(interrupts)
      }
    }
  }
}
