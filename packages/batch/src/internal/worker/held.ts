/** What a worker holds: tickets it took, and their requests that have no result yet. */
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type { HeldState } from "../tables/workers.ts"

/** The requests of one batch that this worker holds. */
export class HeldBatch {
  readonly batch: number
  requests = 0
  tickets = 0
  /** The batch ended early: no call is started any more. */
  isStopped = false
  /** Calls that run are interrupted as well. */
  isInterrupted = false
  readonly running = new Set<Fiber.Fiber<unknown, unknown>>()

  constructor(batch: number) {
    this.batch = batch
  }

  stop(interrupts: boolean): void {
    this.isStopped = true
    if (!interrupts || this.isInterrupted) return
    this.isInterrupted = true
    for (const fiber of this.running) fiber.interruptUnsafe()
  }
}

export class Held {
  readonly batches = new Map<number, HeldBatch>()
  requests = 0
  /** Opened when the worker holds less, or may take again. */
  readonly changed: Latch.Latch = Latch.makeUnsafe()

  /** A ticket of `requests` was taken. It counts as held before its batch is read, so that no beat misses it. */
  take(batch: number, requests: number): HeldBatch {
    let held = this.batches.get(batch)
    if (held === undefined) this.batches.set(batch, held = new HeldBatch(batch))
    held.tickets += 1
    this.add(held, requests)
    return held
  }

  add(held: HeldBatch, requests: number): void {
    held.requests += requests
    this.requests += requests
    if (requests < 0) this.changed.openUnsafe()
  }

  /** The ticket is over, with `left` requests that got no result here. */
  release(held: HeldBatch, left: number): void {
    held.tickets -= 1
    this.add(held, -left)
    if (held.tickets === 0) this.batches.delete(held.batch)
    this.changed.openUnsafe()
  }

  apply(states: ReadonlyArray<HeldState>): void {
    for (const { batch, interrupts, state } of states) {
      if (state !== "in_progress") this.batches.get(batch)?.stop(interrupts)
    }
  }
}
