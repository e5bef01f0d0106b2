import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"

/**
 * The right to run now, asked for by one attempt. It is queued, then granted, then gone; whoever asked settles it once,
 * however its fiber ends.
 */
export interface Request {
  state: "Queued" | "Granted" | "Settled"
  resume: ((effect: Effect.Effect<void>) => void) | undefined
  readonly fiber: Fiber.Fiber<unknown, unknown>
  previous: Request | undefined
  next: Request | undefined
}

/**
 * Permits handed out in the order in which they were asked for, on a linked list: asking, granting and leaving cost the
 * same with one waiter and with ten thousand. (Effect's Semaphore looks through its waiters on every release.)
 *
 * A call takes a place first, and keeps it over all its attempts; the places are `capacity` plus `queue`.
 */
export class Permits {
  capacity: number
  readonly queue: number
  running = 0
  queued = 0
  places = 0
  private first: Request | undefined
  private last: Request | undefined
  private readonly onChange: () => void

  constructor(capacity: number, queue: number, onChange: () => void) {
    this.capacity = capacity
    this.queue = queue
    this.onChange = onChange
  }

  /** Takes a place, if there is one. Pair it with `leave`. */
  enter(): boolean {
    if (this.places >= this.capacity + this.queue) return false
    this.places++
    return true
  }

  leave(): void {
    this.places--
  }

  /** Asks for a permit. A call that comes back for another attempt goes to the head: it has waited its turn before. */
  request(fiber: Fiber.Fiber<unknown, unknown>, where: "Head" | "Tail"): Request {
    const request: Request = { state: "Queued", resume: undefined, fiber, previous: undefined, next: undefined }
    if (this.running < this.capacity && this.first === undefined) this.grant(request)
    else this.enqueue(request, where)
    this.onChange()
    return request
  }

  /** Gives back whatever the request holds: its permit, or its place in the line. */
  settle(request: Request): void {
    if (request.state === "Settled") return
    if (request.state === "Granted") this.running--
    else this.dequeue(request)
    request.state = "Settled"
    this.grantNext()
    this.onChange()
  }

  resize(capacity: number): void {
    this.capacity = capacity
    this.grantNext()
    this.onChange()
  }

  private grantNext(): void {
    while (this.running < this.capacity && this.first !== undefined) {
      const request = this.first
      this.dequeue(request)
      this.grant(request)
      // Never resumed here and now: ten thousand synchronous jobs behind one permit would recurse.
      request.fiber.currentDispatcher.scheduleTask(() => request.resume?.(Effect.void), 0)
    }
  }

  private grant(request: Request): void {
    request.state = "Granted"
    this.running++
  }

  private enqueue(request: Request, where: "Head" | "Tail"): void {
    this.queued++
    if (this.first === undefined || this.last === undefined) {
      this.first = this.last = request
    } else if (where === "Tail") {
      request.previous = this.last
      this.last = this.last.next = request
    } else {
      request.next = this.first
      this.first = this.first.previous = request
    }
  }

  private dequeue(request: Request): void {
    this.queued--
    if (request.previous === undefined) this.first = request.next
    else request.previous.next = request.next
    if (request.next === undefined) this.last = request.previous
    else request.next.previous = request.previous
    request.previous = request.next = undefined
  }
}

/**
 * Waits as long as the request is queued. Needs no finalizer of its own: whoever made the request settles it. A request may
 * be settled before it is waited for, where the scope that holds it is closed already.
 */
export const granted = (request: Request): Effect.Effect<void> =>
  Effect.suspend(() =>
    request.state === "Queued"
      ? Effect.callback<void>((resume) => {
        request.resume = resume
      })
      : Effect.void
  )
