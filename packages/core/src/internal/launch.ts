import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { Deadline } from "../Deadline.ts"
import { Chain, type Linked } from "./lru.ts"
import type { AnyEffect } from "./primitive.ts"

/** One who waits for a flight. */
export interface Waiter {
  readonly deadline: Deadline | undefined
  /** Who came after. */
  readonly newer: Waiter | undefined
}

interface Waiters {
  readonly oldest: Waiter | undefined
}

/** A deadline that comes nearer at times, and tells. */
interface Moving extends Deadline {
  /** Calls the watcher whenever the moment may have come nearer, until it is told to stop. */
  watch(watcher: () => void): () => void
}

/** Whether a deadline may come nearer. */
export const isMoving = (deadline: Deadline): deadline is Moving => "watch" in deadline

/**
 * The deadline of a flight: the latest among those who wait for it at the moment of asking. There is none (its moment is
 * infinitely far) if one of them has none, and for the finalizers of a flight that everybody left.
 */
export abstract class SharedDeadline implements Moving {
  abstract readonly waiters: Waiters
  private watchers: Set<() => void> | undefined
  /** The nearest moment that a watcher counts on. */
  private watched = Number.POSITIVE_INFINITY
  /** That of the last one to leave. */
  private last: Deadline | undefined

  get at(): number {
    return this.latest()?.at ?? Number.POSITIVE_INFINITY
  }

  get budgetMillis(): number {
    return this.latest()?.budgetMillis ?? Number.POSITIVE_INFINITY
  }

  /** What `at` was as long as there was anybody: by which to judge how a flight ends that everybody left. */
  get lastMoment(): number {
    if (this.waiters.oldest !== undefined) return this.at
    return this.last === undefined ? Number.POSITIVE_INFINITY : lastMomentOf(this.last)
  }

  /** Somebody left. If the moment was his alone, it is nearer now. */
  left(waiter: Waiter): void {
    if (this.waiters.oldest === undefined) this.last = waiter.deadline
    if (this.watchers === undefined) return
    const moment = momentOf(waiter)
    if (moment < this.watched || this.someoneStaysUntil(moment)) return
    this.watched = Math.min(this.watched, this.at)
    for (const watcher of Array.from(this.watchers)) watcher()
  }

  watch(watcher: () => void): () => void {
    this.watchers ??= new Set()
    this.watchers.add(watcher)
    this.watched = Math.min(this.watched, this.at)
    const stops = [() => this.unwatch(watcher)]
    // Who waits may be part of another flight, and its deadline moves too.
    for (let { oldest: waiter } = this.waiters; waiter !== undefined; waiter = waiter.newer) {
      if (waiter.deadline !== undefined && isMoving(waiter.deadline)) stops.push(waiter.deadline.watch(watcher))
    }
    return () => {
      for (const stop of stops) stop()
    }
  }

  private unwatch(watcher: () => void): void {
    this.watchers?.delete(watcher)
    if (this.watchers?.size !== 0) return
    this.watchers = undefined
    this.watched = Number.POSITIVE_INFINITY
  }

  private someoneStaysUntil(moment: number): boolean {
    for (let { oldest: waiter } = this.waiters; waiter !== undefined; waiter = waiter.newer) {
      if (momentOf(waiter) >= moment) return true
    }
    return false
  }

  private latest(): Deadline | undefined {
    let latest: Deadline | undefined
    for (let { oldest: waiter } = this.waiters; waiter !== undefined; waiter = waiter.newer) {
      const { deadline } = waiter
      if (deadline === undefined) return undefined
      if (latest === undefined || deadline.at > latest.at) latest = deadline
    }
    return latest
  }
}

/** The moment of a deadline, or what it was before everybody had left. */
export const lastMomentOf = (deadline: Deadline): number =>
  deadline instanceof SharedDeadline ? deadline.lastMoment : deadline.at

const momentOf = ({ deadline }: Waiter): number => deadline?.at ?? Number.POSITIVE_INFINITY

/** What several callers share, while it runs. It is its own deadline: one object less for each. */
export abstract class Run extends SharedDeadline implements Linked<Run> {
  /** The run that it is part of. */
  readonly parent: Run | undefined
  /** What runs, and then what runs the finalizers; none before it is launched, and for a lease. */
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  newer: Run | undefined
  older: Run | undefined

  constructor(parent: Run | undefined) {
    super()
    this.parent = parent
  }

  /** It has ended, and so have its finalizers. */
  abstract ended(exit: Exit.Exit<unknown, unknown>): void
}

const CurrentRun = Context.Reference<Run | undefined>("@sluice/core/internal/CurrentRun", {
  defaultValue: () => undefined
})

/** The run that the fiber works for. */
export const currentRun = (fiber: Fiber.Fiber<unknown, unknown>): Run | undefined => fiber.getRef(CurrentRun)

/** Whether the fiber works for the run: it would wait for itself. */
export const isPartOf = (fiber: Fiber.Fiber<unknown, unknown>, run: Run): boolean => {
  let current = currentRun(fiber)
  while (current !== undefined && current !== run) current = current.parent
  return current !== undefined
}

/** How deep on one stack what one run does may start, stop or end another, before it goes through the scheduler. */
export const maxNesting = 16

/** Interrupts the run, and waits until its finalizers are done. */
export const stop = (run: Run): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { fiber } = run
    if (fiber === undefined) return Effect.void
    const rest = Effect.suspend(() => run.fiber === fiber ? Effect.void : stop(run))
    return Effect.andThen(interrupt(fiber), rest)
  })

// What is stopped may have led another run, and stops that on the same stack; who waits for the end goes on where it ends.
let stopping = 0
let stopped = 0

const interrupt = (fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> =>
  Effect.suspend(() =>
    stopping < maxNesting ? interruptNow(fiber) : Effect.andThen(Effect.yieldNow, interruptNow(fiber))
  )

const interruptNow = (fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> =>
  Effect.withFiber((by) => {
    stopping++
    try {
      fiber.interruptUnsafe(by.id)
    } finally {
      stopping--
    }
    return ended(fiber)
  })

const ended = (fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> =>
  Effect.withFiber((by) =>
    Effect.callback((resume) => {
      const onEnd = (): void => {
        if (stopped >= maxNesting) return by.currentDispatcher.scheduleTask(() => resume(Effect.void), 0)
        stopped++
        try {
          resume(Effect.void)
        } finally {
          stopped--
        }
      }
      return Effect.sync(fiber.addObserver(onEnd))
    })
  )

// A run starts in place: most go straight to their first wait.
let nesting = 0

/** The runs of a deduplicator, until it is closed. */
export class Fleet {
  private readonly running = new Chain<Run>()
  private isClosed = false

  /** Stops all runs, but for the one that closes it, if it is one. */
  readonly close: Effect.Effect<void> = Effect.withFiber((fiber) => {
    this.isClosed = true
    const stops: Array<Effect.Effect<void>> = []
    for (let { oldest: run } = this.running; run !== undefined; run = run.newer) {
      if (!isPartOf(fiber, run)) stops.push(stop(run))
    }
    return Effect.all(stops, { concurrency: "unbounded", discard: true })
  })

  /**
   * Starts a run in a fiber that belongs to no caller. It has its leader's context, but a scope of its own, a deadline of its
   * own, and no parent span: a span that has ended is nobody's parent.
   */
  launch(run: Run, self: AnyEffect, leader: Fiber.Fiber<unknown, unknown>): void {
    const scope = Scope.makeUnsafe()
    const fork = Effect.runForkWith(contextOf(run, leader, scope))
    // The leader's context has what else the effect asks for: it is provided where the leader runs.
    const ready = self as Effect.Effect<unknown, unknown>
    nesting++
    const fiber = fork(nesting <= maxNesting ? ready : Effect.andThen(Effect.yieldNow, ready))
    nesting--
    run.fiber = fiber
    const exit = fiber.pollUnsafe()
    if (exit === undefined) this.follow(run, fiber, (exit) => this.finalize(run, scope, exit, fork))
    else this.finalize(run, scope, exit, fork)
    if (this.isClosed) fiber.interruptUnsafe()
  }

  // Most runs leave nothing to close. To see to it within the run, as `Effect.scoped` does, makes each a tenth dearer.
  private finalize(run: Run, scope: Scope.Closeable, exit: AnyExit, fork: Fork): void {
    const closing = Scope.closeUnsafe(scope, exit)
    if (closing === undefined) return run.ended(exit)
    run.fiber = fork(Effect.uninterruptible(Effect.onExitPrimitive(exit, () => closing)))
    this.follow(run, run.fiber, (exit) => run.ended(exit))
  }

  private follow(run: Run, fiber: Fiber.Fiber<unknown, unknown>, onEnd: (exit: AnyExit) => void): void {
    this.running.add(run)
    fiber.addObserver((exit) => {
      this.running.remove(run)
      onEnd(exit)
    })
  }
}

type AnyExit = Exit.Exit<unknown, unknown>
type Fork = ReturnType<typeof Effect.runForkWith<never>>

const contextOf = (run: Run, leader: Fiber.Fiber<unknown, unknown>, scope: Scope.Scope): Context.Context<never> => {
  const context = leader.cache.span === undefined ? leader.context : Context.omit(Tracer.ParentSpan)(leader.context)
  return Context.add(Context.add(Context.add(context, Scope.Scope, scope), CurrentRun, run), Deadline, run)
}
