import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type * as Fiber from "effect/Fiber"
import type { Scheduler, SchedulerDispatcher } from "effect/Scheduler"
import * as Scope from "effect/Scope"

/** Why a call got no permit. */
export type Why = "Full" | "MaxWait" | "Draining" | "TooLarge"

/** A refusal, with what there was to see when it was decided. */
export interface Refusal {
  readonly why: Why
  /** How many permits were asked for. */
  readonly permits: number
  readonly running: number
  readonly queued: number
  readonly capacity: number
  /** How long it had waited, if it was in the line. */
  readonly waitedMillis: number | undefined
}

/** What those who wait are subject to. */
export interface Terms<out E> {
  readonly clock: Clock.Clock
  /** Runs what minds the time, in nobody's fiber. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  /** For requests that say nothing else. */
  readonly maxWaitMillis: number | undefined
  readonly error: (refusal: Refusal) => E
}

/** What a call asks for. */
export interface Ask {
  readonly permits: number
  /** Without it the call waits for as long as it takes; with 0 it does not wait. */
  readonly maxWaitMillis: number | undefined
}

interface Links<Entry> {
  previous: Entry | undefined
  next: Entry | undefined
}

/** Entries in a row, linked through themselves: to join it at either end, or to leave it anywhere, costs the same at any length. */
class Row<Entry extends Links<Entry>> {
  first: Entry | undefined = undefined
  last: Entry | undefined = undefined

  append(entry: Entry): void {
    entry.previous = this.last
    if (this.last === undefined) this.first = entry
    else this.last.next = entry
    this.last = entry
  }

  prepend(entry: Entry): void {
    entry.next = this.first
    if (this.first === undefined) this.last = entry
    else this.first.previous = entry
    this.first = entry
  }

  remove(entry: Entry): void {
    if (entry.previous === undefined) this.first = entry.next
    else entry.previous.next = entry.next
    if (entry.next === undefined) this.last = entry.previous
    else entry.next.previous = entry.previous
    entry.previous = entry.next = undefined
  }
}

/**
 * The right to run now, asked for by one attempt. It is queued, then granted or refused, then gone; whoever asked settles it
 * once, however its fiber ends.
 */
export class Request<E = never> implements Links<Request<E>> {
  state: "Queued" | "Granted" | "Refused" | "Settled" = "Queued"
  readonly permits: number
  /** What it fails with where it is refused. */
  refusal: Effect.Effect<never, E> | undefined = undefined
  /** Goes on with the fiber that waits, with what it waits to do or with the refusal. */
  resume: ((effect: Effect.Effect<unknown, unknown, unknown>) => void) | undefined = undefined
  task: Effect.Effect<unknown, unknown, unknown> = Effect.void
  scheduler: Scheduler | undefined = undefined
  queuedAt = 0
  due: Due<E> | undefined = undefined
  previous: Request<E> | undefined = undefined
  next: Request<E> | undefined = undefined

  constructor(permits: number) {
    this.permits = permits
  }
}

// A turn of the scheduler in which thousands go on is a stall for everybody else.
const mostPerTurn = 256

/**
 * Permits handed out in the order in which they were asked for, and to nobody before who stands at the head of the line: a
 * call that needs many is not starved by those that need few. Asking, granting and leaving cost the same with one waiter and
 * with ten thousand. (Effect's Semaphore looks through its waiters on every release.)
 *
 * A call that may make several attempts takes a place first, and keeps it over all of them; there are `capacity` plus `queue`.
 */
export class Permits<E = never> {
  capacity: number
  readonly queue: number
  /** Permits in use. */
  running = 0
  /** Calls in the line. */
  queued = 0
  /** Permits for which they wait. */
  wanted = 0
  /** Calls that are in: they run, or wait, or will come back for another attempt. */
  places = 0
  isDraining = false
  /** Calls that were given their permits, counted as they start. */
  admitted = 0
  /** Permits that came back. */
  released = 0
  /** Calls that left the line before their turn came. */
  abandoned = 0
  readonly shed: Record<Why, number> = { Full: 0, MaxWait: 0, Draining: 0, TooLarge: 0 }
  private readonly line = new Row<Request<E>>()
  /** Granted or refused, and not yet told. */
  private readonly ready = new Row<Request<E>>()
  private readyCount = 0
  private hasTurn = false
  private scheduler: Scheduler | undefined = undefined
  private dispatcher: SchedulerDispatcher | undefined = undefined
  private readonly alarms = new Map<number, Alarm<E>>()
  private readonly resting = new Set<(rested: boolean) => void>()
  private readonly onChange: () => void
  private readonly terms: Terms<E>
  private readonly single: Ask

  constructor(capacity: number, queue: number, onChange: () => void, terms: Terms<E>) {
    this.capacity = capacity
    this.queue = queue
    this.onChange = onChange
    this.terms = terms
    this.single = { permits: 1, maxWaitMillis: terms.maxWaitMillis }
  }

  /** Takes a place, if there is one. Pair it with `leave`. */
  enter(): boolean {
    if (this.isDraining || this.places >= this.capacity + this.queue) return false
    this.places++
    return true
  }

  leave(): void {
    this.places--
    if (this.isDraining && this.places === 0) this.endRest(true)
  }

  /** Takes permits now, if they are free and nobody waits for them. Pair it with `release`. */
  take(permits: number): boolean {
    if (this.running + permits > this.capacity || this.isDraining || this.line.first !== undefined) return false
    this.grant(permits)
    this.onChange()
    return true
  }

  release(permits: number): void {
    this.running -= permits
    this.released += permits
    this.grantNext()
    this.onChange()
  }

  /** For a call of one attempt: takes permits, or room in the line, and a place with either. Pair it with `part`. */
  join(ask: Ask): Request<E> {
    const request = this.ask(ask, "Tail", this.queued < this.queue)
    if (request.state !== "Refused") this.places++
    return request
  }

  /** Gives back whatever `join` took. */
  part(request: Request<E>): void {
    this.settle(request)
    this.leave()
  }

  /**
   * For an attempt of a call that has a place: asks for a permit. Pair it with `settle`. Who comes back for another attempt
   * goes to the head: it has waited its turn before.
   */
  request(where: "Head" | "Tail"): Request<E> {
    return this.ask(this.single, where, true)
  }

  /** Gives back whatever the request holds: its permits, or its room in the line. */
  settle(request: Request<E>): void {
    const { state } = request
    if (state === "Settled") return
    request.state = "Settled"
    if (state === "Granted") return this.release(request.permits)
    if (state === "Refused") return
    this.abandoned++
    this.dequeue(request)
    this.grantNext()
    this.onChange()
  }

  /** What runs goes on. Who waits for more than there will ever be is refused: it would hold up everybody behind it. */
  resize(capacity: number): void {
    this.capacity = capacity
    this.refuseAll("TooLarge", (request) => request.permits > capacity)
    this.grantNext()
    this.onChange()
  }

  /** From now on nobody starts: who comes is refused, and so is who waits. What runs goes on. */
  drain(): void {
    this.isDraining = true
    this.refuseAll("Draining", () => true)
    this.onChange()
  }

  resume(): void {
    this.isDraining = false
    this.endRest(false)
  }

  /** Drains, and waits until nobody is in any more; `false` if `resume` came before that. */
  readonly rest: Effect.Effect<boolean> = Effect.withFiber((fiber) =>
    Effect.callback<boolean>((resume) => {
      this.drain()
      if (this.places === 0) return resume(Effect.succeed(true))
      const end = (rested: boolean) => fiber.currentDispatcher.scheduleTask(() => resume(Effect.succeed(rested)), 0)
      this.resting.add(end)
      return Effect.sync(() => this.resting.delete(end))
    })
  )

  /** Counts a refusal, and fails with it. The error is built when somebody is told, not while thousands are turned away. */
  refuse(why: Why, permits: number, waitedMillis?: number): Effect.Effect<never, E> {
    this.shed[why]++
    const { capacity, queued, running, terms } = this
    return Effect.failSync(() => terms.error({ why, permits, running, queued, capacity, waitedMillis }))
  }

  private ask(ask: Ask, where: "Head" | "Tail", hasRoom: boolean): Request<E> {
    const request = new Request<E>(ask.permits)
    if (this.take(ask.permits)) {
      request.state = "Granted"
      return request
    }
    const why = this.whyNot(ask, hasRoom)
    if (why === undefined) {
      this.enqueue(request, ask.maxWaitMillis, where)
      this.onChange()
    } else {
      request.state = "Refused"
      request.refusal = this.refuse(why, ask.permits)
    }
    return request
  }

  /** Why whoever finds no free permits may not wait for them. */
  private whyNot(ask: Ask, hasRoom: boolean): Why | undefined {
    if (ask.permits > this.capacity) return "TooLarge"
    if (this.isDraining) return "Draining"
    return hasRoom && ask.maxWaitMillis !== 0 ? undefined : "Full"
  }

  private grant(permits: number): void {
    this.running += permits
    this.admitted++
  }

  private grantNext(): void {
    let request = this.line.first
    while (request !== undefined && this.running + request.permits <= this.capacity) {
      this.dequeue(request)
      this.grant(request.permits)
      request.state = "Granted"
      this.tell(request)
      request = this.line.first
    }
  }

  private refuseAll(why: Why, isMeant: (request: Request<E>) => boolean): void {
    const now = this.terms.clock.currentTimeMillisUnsafe()
    let request = this.line.first
    while (request !== undefined) {
      const { next } = request
      if (isMeant(request)) this.refuseQueued(request, why, now)
      request = next
    }
  }

  private refuseQueued(request: Request<E>, why: Why, now: number): void {
    this.dequeue(request)
    request.state = "Refused"
    request.refusal = this.refuse(why, request.permits, Math.max(0, now - request.queuedAt))
    this.tell(request)
  }

  private enqueue(request: Request<E>, maxWaitMillis: number | undefined, where: "Head" | "Tail"): void {
    this.queued++
    this.wanted += request.permits
    if (where === "Tail") this.line.append(request)
    else this.line.prepend(request)
    request.queuedAt = this.terms.clock.currentTimeMillisUnsafe()
    if (maxWaitMillis !== undefined) this.setAlarm(request, maxWaitMillis)
  }

  private dequeue(request: Request<E>): void {
    this.queued--
    this.wanted -= request.permits
    this.line.remove(request)
    const { due } = request
    if (due === undefined) return
    request.due = undefined
    due.alarm.remove(due)
    if (due.alarm.isIdle) this.alarms.delete(due.alarm.millis)
  }

  private setAlarm(request: Request<E>, millis: number): void {
    let alarm = this.alarms.get(millis)
    if (alarm === undefined) this.alarms.set(millis, alarm = new Alarm(millis, this.terms, this.expire))
    request.due = alarm.add(request)
  }

  private readonly expire = (request: Request<E>, now: number): void => {
    this.refuseQueued(request, "MaxWait", now)
    this.grantNext()
    this.onChange()
  }

  /**
   * Lets a fiber that waited go on, with others, in the next turn of the scheduler. Never here and now: ten thousand
   * synchronous jobs behind one permit would recurse. Who does not wait yet looks for itself.
   */
  private tell(request: Request<E>): void {
    if (request.scheduler === undefined) return
    this.ready.append(request)
    this.readyCount++
    if (!this.hasTurn) this.takeTurn(request)
  }

  private takeTurn(first: Request<E> | undefined): void {
    this.hasTurn = first !== undefined
    if (first?.scheduler !== undefined) this.dispatcherOf(first.scheduler).scheduleTask(this.turn, 0)
  }

  // One for all turns: a fiber that waits has none yet, and would make one.
  private dispatcherOf(scheduler: Scheduler): SchedulerDispatcher {
    if (this.dispatcher === undefined || scheduler !== this.scheduler) this.dispatcher = scheduler.makeDispatcher()
    this.scheduler = scheduler
    return this.dispatcher
  }

  // Who is granted a permit while others go on has a turn after this one: nobody else's fibers wait for the whole line.
  private readonly turn = (): void => {
    let left = Math.min(this.readyCount, mostPerTurn)
    try {
      for (let request = this.ready.first; request !== undefined && left > 0; request = this.ready.first) {
        left--
        this.readyCount--
        this.ready.remove(request)
        request.resume?.(request.refusal ?? request.task)
      }
    } finally {
      this.takeTurn(this.ready.first)
    }
  }

  private endRest(rested: boolean): void {
    for (const end of this.resting) end(rested)
    this.resting.clear()
  }
}

/** Where somebody's patience ends. */
interface Due<E> extends Links<Due<E>> {
  readonly request: Request<E>
  readonly at: number
  readonly alarm: Alarm<E>
}

/**
 * The time of those who wait for equally long at most. Who came first runs out of it first, wherever in the line it stands: one
 * timer minds them all, and is set while there is anybody.
 */
class Alarm<E> {
  readonly millis: number
  private readonly dues = new Row<Due<E>>()
  private readonly terms: Terms<E>
  private readonly expire: (request: Request<E>, now: number) => void
  private fiber: Fiber.Fiber<void> | undefined = undefined

  constructor(millis: number, terms: Terms<E>, expire: (request: Request<E>, now: number) => void) {
    this.millis = millis
    this.terms = terms
    this.expire = expire
  }

  get isIdle(): boolean {
    return this.dues.first === undefined
  }

  add(request: Request<E>): Due<E> {
    const { millis, terms } = this
    const at = request.queuedAt + millis
    const due: Due<E> = { request, at, alarm: this, previous: undefined, next: undefined }
    this.dues.append(due)
    this.fiber ??= terms.fork(this.wait(due, millis))
    return due
  }

  remove(due: Due<E>): void {
    this.dues.remove(due)
    if (this.isIdle) this.fiber?.interruptUnsafe()
  }

  private wait(due: Due<E>, millis: number): Effect.Effect<void> {
    return Effect.flatMap(Effect.sleep(Duration.millis(millis)), () => this.ring(due.at))
  }

  // Its time has come by having been slept for: a clock that was put back meanwhile prolongs nobody's wait.
  private ring(at: number): Effect.Effect<void> {
    const now = Math.max(at, this.terms.clock.currentTimeMillisUnsafe())
    let due = this.dues.first
    while (due !== undefined && due.at <= now) {
      this.expire(due.request, now)
      due = this.dues.first
    }
    return due === undefined ? Effect.void : this.wait(due, due.at - now)
  }
}

/** Goes on with the effect when the request is granted. Needs no finalizer: whoever made the request settles it. */
export const whenGranted = <A, E, R, E2>(
  request: Request<E2>,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | E2, R> =>
  Effect.callback(function(resume) {
    if (request.state !== "Queued") return resume(request.refusal ?? self)
    request.scheduler = this
    request.task = self
    // It is called with this effect or with the request's refusal, and with nothing else.
    request.resume = resume as typeof request.resume
  })

/** Waits as long as the request is queued. */
export const granted = <E>(request: Request<E>): Effect.Effect<void, E> => whenGranted(request, Effect.void)

/** Runs the effect with permits. */
export const guard = <A, E, R, E2>(
  permits: Permits<E2>,
  ask: Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | E2, R> => new Guarded(permits, ask, self)

class Guarded<A, E, R, E2> extends Effectable.Class<A, E | E2, R> {
  readonly permits: Permits<E2>
  readonly ask: Ask
  readonly self: Effect.Effect<A, E, R>

  constructor(permits: Permits<E2>, ask: Ask, self: Effect.Effect<A, E, R>) {
    super()
    this.permits = permits
    this.ask = ask
    this.self = self
  }

  asEffect(): Effect.Effect<A, E | E2, R> {
    return new Run(this).withFinalizer()
  }
}

/**
 * One run of a guarded effect: what it holds, and the effect that takes it. The finalizer stands before anything is taken, so
 * that no interruption comes in between. That costs three quarters of `Semaphore.withPermit`, which masks instead.
 */
class Run<A, E, R, E2> extends Effectable.Class<A, E | E2, R> {
  private readonly guarded: Guarded<A, E, R, E2>
  private isRunning = false
  private request: Request<E2> | undefined = undefined

  constructor(guarded: Guarded<A, E, R, E2>) {
    super()
    this.guarded = guarded
  }

  withFinalizer(): Effect.Effect<A, E | E2, R> {
    return Effect.onExitPrimitive(this, () => {
      this.leave()
      return undefined
    })
  }

  // Most find a permit, and need no request.
  asEffect(): Effect.Effect<A, E | E2, R> {
    const { ask, permits, self } = this.guarded
    if (permits.take(ask.permits)) {
      this.isRunning = true
      permits.places++
      return self
    }
    const request = permits.join(ask)
    if (request.refusal !== undefined) return request.refusal
    this.request = request
    return whenGranted(request, self)
  }

  private leave(): void {
    const { guarded: { ask, permits }, request } = this
    if (request !== undefined) return permits.part(request)
    if (!this.isRunning) return
    permits.release(ask.permits)
    permits.leave()
  }
}

/** Holds permits for as long as the scope lives. The finalizer stands before the wait begins, and the wait alone is interruptible. */
export const acquire = <E>(permits: Permits<E>, ask: Ask, scope: Scope.Scope): Effect.Effect<void, E> =>
  Effect.uninterruptibleMask((restore) => {
    const request = permits.join(ask)
    if (request.refusal !== undefined) return request.refusal
    const part = Effect.sync(() => permits.part(request))
    return Effect.andThen(Scope.addFinalizer(scope, part), restore(granted(request)))
  })

export type Level = "Normal" | "Soft" | "Full"

/**
 * How full the permits are. A level is left at a lower depth than it is reached at, so that calls that come and go at the
 * limit are not a crossing each.
 */
export class Gauge {
  level: Level = "Normal"
  /** How often each level was reached. */
  readonly reached: Record<Level, number> = { Normal: 0, Soft: 0, Full: 0 }
  private isSoft = false
  private isFull = false
  private readonly softLimit: number
  private readonly softRelease: number
  private readonly onMove: (level: Level) => void

  constructor(softLimit: number, softRelease: number, onMove: (level: Level) => void) {
    this.softLimit = softLimit
    this.softRelease = softRelease
    this.onMove = onMove
  }

  read({ capacity, queued, running }: Pick<Permits, "capacity" | "queued" | "running">): void {
    // Below three quarters it is no longer full.
    this.isFull = running >= capacity || queued > 0 || (this.isFull && running * 4 > capacity * 3)
    this.isSoft = running >= this.softLimit || (this.isSoft && running > this.softRelease)
    const level = this.isFull ? "Full" : this.isSoft ? "Soft" : "Normal"
    if (level === this.level) return
    this.level = level
    this.reached[level]++
    this.onMove(level)
  }
}

interface Mark {
  readonly at: number
  readonly released: number
}

/**
 * How fast permits come back while there are too few of them: over the last one to two turns of all permits, and unknown
 * before the first turn is over. It is read by who is refused, and by nobody else: who is let in pays nothing for it.
 */
export class Pace {
  private from: Mark | undefined = undefined
  private to: Mark | undefined = undefined

  /** What was seen no longer holds. */
  forget(): void {
    this.from = this.to = undefined
  }

  /** The time in which so many permits come back. */
  millisFor(
    permits: number,
    { capacity, released }: Pick<Permits, "capacity" | "released">,
    now: number
  ): number | undefined {
    this.from ??= { at: now, released }
    this.to ??= this.from
    if (released - this.to.released >= capacity) {
      this.from = this.to
      this.to = { at: now, released }
    }
    const seen = released - this.from.released
    return seen < capacity ? undefined : Math.max(1, Math.ceil((now - this.from.at) / seen * permits))
  }
}
