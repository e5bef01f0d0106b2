import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Scheduler, SchedulerDispatcher } from "effect/Scheduler"
import { type Linked, LinkedList } from "../kit/linkedList.ts"
import { type Timeout, Timeouts } from "../kit/timeouts.ts"
import { Lanes } from "./lanes.ts"
import type { Ticket } from "./ticket.ts"

/** Why a call got no permit. See `BackpressureShed`. */
export type Why = "Full" | "MaxWait" | "Draining" | "TooLarge"

/** A refusal, with the numbers at the moment of the decision. */
export interface PermitRefusal {
  readonly why: Why
  /** How many permits were requested. */
  readonly permits: number
  readonly running: number
  readonly queued: number
  readonly capacity: number
  /** How long the call had queued. `undefined` if it never did. */
  readonly waitedMillis: number | undefined
  /** The quota that the call needed. */
  readonly ticket: Ticket | undefined
}

export interface PermitsOptions<out E> {
  readonly capacity: number
  readonly queue: number
  readonly clock: Clock.Clock
  /** Where the timers of `maxWait` run. */
  readonly context: Context.Context<never>
  /** Called after every change of the counters. */
  readonly onChange: () => void
  /** Builds the error of a refusal. */
  readonly error: (refusal: PermitRefusal) => E
}

/** What one attempt requests. */
export interface PermitRequest {
  readonly permits: number
  /** `undefined`: queues without a limit. 0: never queues. */
  readonly maxWaitMillis: number | undefined
  /**
   * `undefined`: the call makes one attempt, so its slot comes and goes with the permits. Otherwise the call has a slot
   * already, and this is the end of the queue at which the attempt joins.
   */
  readonly where: "Head" | "Tail" | undefined
  /** The quota of one attempt, reserved in the same step as its permits. */
  readonly ticket?: Ticket | undefined
}

/** How long a request that may not wait for room waits for the answer of a store. It may be behind one that waits for room. */
const pendingMillis = 5_000

/** A request that is queued or has its permits. The attempt that made it settles it once, however its fiber ends. */
export class Request<E = never> implements Linked<Request<E>> {
  /** `Refused`: after it was queued. */
  state: "Queued" | "Granted" | "Refused" | "Settled" = "Queued"
  readonly permits: number
  /** Fails with the refusal. */
  refusal: Effect.Effect<never, E> | undefined = undefined
  /** Resumes the waiting fiber, with `task` or with the refusal. */
  resume: ((effect: Effect.Effect<unknown, unknown, unknown>) => void) | undefined = undefined
  task: Effect.Effect<unknown, unknown, unknown> = Effect.void
  scheduler: Scheduler | undefined = undefined
  queuedAt = 0
  maxWait: Timeout | undefined = undefined
  previous: Request<E> | undefined = undefined
  next: Request<E> | undefined = undefined
  readonly ticket: Ticket | undefined

  constructor(permits: number, ticket: Ticket | undefined) {
    this.permits = permits
    this.ticket = ticket
  }
}

// Resuming thousands of fibers in one turn of the scheduler would stall all others.
const resumesPerTurn = 256

/**
 * Hands out permits in the order of the requests. Nothing overtakes the head of the queue, so a call that needs many permits
 * is not starved by calls that need few. Requesting, granting and leaving are O(1). (Effect's Semaphore looks through all its
 * waiters on every release.)
 *
 * A call that makes several attempts takes a slot first and keeps it until it ends. There are `capacity + queue` slots.
 */
export class Permits<E = never> {
  capacity: number
  readonly queue: number
  /** Permits in use. */
  running = 0
  /** Permits that queued requests need. */
  wanted = 0
  /** Slots in use: calls that run, queue, or back off before another attempt. */
  slots = 0
  isDraining = false
  /** Requests that were granted. */
  admitted = 0
  /** Permits that were given back. */
  released = 0
  /** Requests that left the queue before their turn: the call was interrupted, or its deadline passed. */
  abandoned = 0
  readonly shed: Record<Why, number> = { Full: 0, MaxWait: 0, Draining: 0, TooLarge: 0 }
  private readonly options: PermitsOptions<E>
  private readonly line = new LinkedList<Request<E>>()
  /** The queue of requests that need a quota. Built for the first of them. */
  private lanes: Lanes<E> | undefined = undefined
  /** Granted or refused, and not yet resumed. */
  private readonly ready = new LinkedList<Request<E>>()
  private hasTurn = false
  private scheduler: Scheduler | undefined = undefined
  private dispatcher: SchedulerDispatcher | undefined = undefined
  private readonly maxWaits: Timeouts
  private readonly drains = new Set<(isEmpty: boolean) => void>()
  private readonly onDrain = new Set<() => void>()

  constructor(options: PermitsOptions<E>) {
    this.options = options
    this.capacity = options.capacity
    this.queue = options.queue
    this.maxWaits = new Timeouts(options.context)
  }

  /** Requests in the queue. */
  get queued(): number {
    return this.lanes === undefined ? this.line.size : this.line.size + this.lanes.size
  }

  /** Requests in the queue that need a quota. */
  get ticketed(): number {
    return this.lanes?.size ?? 0
  }

  /** Takes a slot if one is free. Pair it with `leaveSlot`. */
  takeSlot(): boolean {
    if (this.isDraining || this.slots >= this.capacity + this.queue) return false
    this.slots++
    return true
  }

  leaveSlot(): void {
    this.slots--
    if (this.isDraining && this.slots === 0) this.endDrains(true)
  }

  /** Takes permits, and a slot with them, if the permits are free and nothing is queued. Pair it with `release`. */
  take({ permits, ticket, where }: PermitRequest): boolean {
    if (this.running + permits > this.capacity || this.isDraining || this.line.first !== undefined) return false
    if (ticket !== undefined && (this.lanes?.hasQueue(ticket) === true || ticket.tryTake() !== 0)) return false
    this.grant(permits)
    if (where === undefined) this.slots++
    this.options.onChange()
    return true
  }

  release({ permits, ticket, where }: PermitRequest): void {
    ticket?.ended()
    this.giveBack(permits)
    if (where === undefined) this.leaveSlot()
  }

  /** Takes permits, or joins the queue, or is refused. Pair it with `settle`. */
  request(asked: PermitRequest): Request<E> {
    const request = new Request<E>(asked.permits, asked.ticket)
    if (this.take(asked)) {
      request.state = "Granted"
      return request
    }
    const why = this.whyRefused(asked)
    if (why !== undefined) {
      // It holds nothing that a `settle` could give back.
      request.state = "Settled"
      request.refusal = this.refuse(why, asked.permits, undefined, asked.ticket)
      asked.ticket?.ended()
      return request
    }
    if (asked.where === undefined) this.slots++
    this.enqueue(request, asked)
    // It may be the first of its row, or small enough to pass the head.
    if (asked.ticket !== undefined) this.grantNext()
    this.options.onChange()
    return request
  }

  /** Gives back what the request holds: its permits or its place in the queue, and its slot. */
  settle(request: Request<E>, { where }: PermitRequest): void {
    const { state } = request
    if (state === "Settled") return
    request.state = "Settled"
    if (state === "Granted") {
      request.ticket?.ended()
      this.giveBack(request.permits)
    } else if (state === "Queued") {
      this.abandoned++
      this.dequeue(request)
      this.grantNext()
      this.options.onChange()
    }
    if (where === undefined) this.leaveSlot()
  }

  /** Running calls keep their permits. Queued requests for more permits than there will ever be are refused. */
  resize(capacity: number): void {
    this.capacity = capacity
    this.refuseQueued("TooLarge", (request) => request.permits > capacity)
    this.grantNext()
    this.options.onChange()
  }

  /** Refuses every queued and every new request, and ends `untilDrain`. Running calls continue. */
  drain(): void {
    this.isDraining = true
    this.refuseQueued("Draining", () => true)
    for (const notify of this.onDrain) notify()
    this.onDrain.clear()
    this.options.onChange()
  }

  resume(): void {
    this.isDraining = false
    this.endDrains(false)
  }

  /** Drains and waits until no slot is in use. `false` if `resume` was called before. */
  readonly drained: Effect.Effect<boolean> = Effect.withFiber((fiber) =>
    Effect.callback<boolean>((resume) => {
      this.drain()
      if (this.slots === 0) return resume(Effect.succeed(true))
      const end = (isEmpty: boolean) => fiber.currentDispatcher.scheduleTask(() => resume(Effect.succeed(isEmpty)), 0)
      this.drains.add(end)
      return Effect.sync(() => this.drains.delete(end))
    })
  )

  /** Waits until `drain` is called. A call that has a slot and sleeps races with it. */
  readonly untilDrain: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.isDraining) return resume(Effect.void)
    const notify = () => resume(Effect.void)
    this.onDrain.add(notify)
    return Effect.sync(() => this.onDrain.delete(notify))
  })

  /** Counts a refusal and fails with it. The error is built when it is needed, not while thousands are refused. */
  refuse(why: Why, permits: number, waitedMillis?: number, ticket?: Ticket): Effect.Effect<never, E> {
    const refusal = this.countRefusal(why, permits, waitedMillis, ticket)
    return Effect.failSync(() => this.options.error(refusal))
  }

  /** Counts the refusal of a request that found no permits and does not queue. Returns its error. */
  refusalNow(asked: PermitRequest): E {
    return this.options.error(
      this.countRefusal(this.whyRefused(asked) ?? "Full", asked.permits, undefined, asked.ticket)
    )
  }

  /** Whether a request that finds no free permits would queue. */
  wouldQueue(asked: PermitRequest): boolean {
    return this.whyRefused(asked) === undefined
  }

  /** Asks the head of a lane again, after an amount of its quota was given back or a limit rose. */
  hasRoom(lane: string, row: string): void {
    this.lanes?.hasRoom(lane, row)
  }

  private countRefusal(
    why: Why,
    permits: number,
    waitedMillis: number | undefined,
    ticket: Ticket | undefined
  ): PermitRefusal {
    this.shed[why]++
    const { capacity, queued, running } = this
    return { why, permits, running, queued, capacity, waitedMillis, ticket }
  }

  /** Why a request that finds no free permits cannot queue. */
  private whyRefused({ maxWaitMillis, permits, ticket, where }: PermitRequest): Why | undefined {
    if (permits > this.capacity) return "TooLarge"
    if (this.isDraining) return "Draining"
    // A call that has a slot may always queue. Without a capacity there are no slots.
    const hasRoom = where !== undefined && this.capacity < Number.POSITIVE_INFINITY || this.queued < this.queue
    const mayWait = maxWaitMillis !== 0 || ticket?.isPending === true
    return ticket?.outlook(maxWaitMillis) ?? (hasRoom && mayWait ? undefined : "Full")
  }

  private grant(permits: number): void {
    this.running += permits
    this.admitted++
  }

  private giveBack(permits: number): void {
    this.running -= permits
    this.released += permits
    this.grantNext()
    this.options.onChange()
  }

  private grantNext(): void {
    let request = this.line.first
    while (request !== undefined && this.running + request.permits <= this.capacity) {
      this.grantQueued(request)
      request = this.line.first
    }
    if (this.lanes !== undefined && this.lanes.size > 0) this.lanes.serve()
  }

  private grantQueued(request: Request<E>): void {
    this.dequeue(request)
    this.grant(request.permits)
    request.state = "Granted"
    this.wake(request)
  }

  private refuseQueued(why: Why, isMeant: (request: Request<E>) => boolean): void {
    const now = this.options.clock.currentTimeMillisUnsafe()
    let request = this.line.first
    while (request !== undefined) {
      const { next } = request
      if (isMeant(request)) this.refuseOne(request, why, now)
      request = next
    }
    for (const request of this.lanes?.requests() ?? []) if (isMeant(request)) this.refuseOne(request, why, now)
  }

  private refuseOne(request: Request<E>, why: Why, now: number): void {
    this.dequeue(request)
    request.state = "Refused"
    request.refusal = this.refuse(why, request.permits, Math.max(0, now - request.queuedAt), request.ticket)
    this.wake(request)
  }

  private enqueue(request: Request<E>, { maxWaitMillis, where, permits }: PermitRequest): void {
    this.wanted += permits
    if (request.ticket !== undefined) this.lanesOf().add(request, where ?? "Tail")
    else if (where === "Head") this.line.prepend(request)
    else this.line.append(request)
    request.queuedAt = this.options.clock.currentTimeMillisUnsafe()
    if (maxWaitMillis !== undefined) this.startMaxWait(request, maxWaitMillis === 0 ? pendingMillis : maxWaitMillis)
  }

  private dequeue(request: Request<E>): void {
    this.wanted -= request.permits
    if (request.ticket !== undefined) this.lanes?.remove(request)
    else this.line.remove(request)
    this.endMaxWait(request)
  }

  private lanesOf(): Lanes<E> {
    const { clock, context } = this.options
    return this.lanes ??= new Lanes<E>({
      clock,
      context,
      hasPermit: (request) => this.running + request.permits <= this.capacity,
      grant: (request) => this.grantQueued(request),
      refuse: (request) => this.refuseOne(request, "Full", clock.currentTimeMillisUnsafe()),
      wake: () => {
        this.grantNext()
        this.options.onChange()
      }
    })
  }

  private startMaxWait(request: Request<E>, millis: number): void {
    request.maxWait = {
      millis,
      dueAt: 0,
      previous: undefined,
      next: undefined,
      onDue: (now) => this.onMaxWait(request, now)
    }
    this.maxWaits.start(request.maxWait, request.queuedAt)
  }

  private endMaxWait(request: Request<E>): void {
    if (request.maxWait !== undefined) this.maxWaits.cancel(request.maxWait)
    request.maxWait = undefined
  }

  private onMaxWait(request: Request<E>, now: number): void {
    request.maxWait = undefined
    this.refuseOne(request, "MaxWait", now)
    this.grantNext()
    this.options.onChange()
  }

  /**
   * Resumes the waiting fiber in the next turn of the scheduler. Resuming it here would recurse: ten thousand synchronous
   * jobs behind one permit are a stack of ten thousand. A fiber that does not wait yet sees the state by itself.
   */
  private wake(request: Request<E>): void {
    if (request.scheduler === undefined) return
    this.ready.append(request)
    if (!this.hasTurn) this.scheduleTurn()
  }

  private scheduleTurn(): void {
    const scheduler = this.ready.first?.scheduler
    this.hasTurn = scheduler !== undefined
    if (scheduler !== undefined) this.dispatcherOf(scheduler).scheduleTask(this.turn, 0)
  }

  // One dispatcher for all turns. A waiting fiber has none yet, and would make one.
  private dispatcherOf(scheduler: Scheduler): SchedulerDispatcher {
    if (this.dispatcher === undefined || scheduler !== this.scheduler) this.dispatcher = scheduler.makeDispatcher()
    this.scheduler = scheduler
    return this.dispatcher
  }

  // Requests that are granted during this turn are resumed in the next one, after all other fibers.
  private readonly turn = (): void => {
    let left = Math.min(this.ready.size, resumesPerTurn)
    try {
      for (let { first } = this.ready; first !== undefined && left > 0; { first } = this.ready) {
        left--
        this.ready.remove(first)
        first.resume?.(first.refusal ?? first.task)
      }
    } finally {
      this.scheduleTurn()
    }
  }

  private endDrains(isEmpty: boolean): void {
    for (const end of this.drains) end(isEmpty)
    this.drains.clear()
  }
}

/** Waits until the request is granted, then runs the effect. Needs no finalizer: the attempt that made the request settles it. */
export const whenGranted = <A, E, R, E2>(
  request: Request<E2>,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | E2, R> =>
  Effect.callback(function(resume) {
    if (request.state !== "Queued") return resume(request.refusal ?? self)
    request.scheduler = this
    request.task = self
    // It is called with this effect or with the refusal, and with nothing else.
    request.resume = resume as typeof request.resume
  })

/** Waits until the request is granted. */
export const granted = <E>(request: Request<E>): Effect.Effect<void, E> => whenGranted(request, Effect.void)
