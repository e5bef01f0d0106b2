import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { Deadline } from "../../Deadline.ts"
import { SharedDeadline } from "../deadline/shared.ts"
import { type Linked, LinkedList } from "../kit/linkedList.ts"
import type { AnyEffect } from "../kit/primitive.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>
type AnyExit = Exit.Exit<unknown, unknown>
type Fork = ReturnType<typeof Effect.runForkWith<never>>

/** One execution that several callers share. The object is also the deadline of its effect, which saves an allocation. */
export abstract class SharedRun extends SharedDeadline implements Linked<SharedRun> {
  /** The run that started this one. */
  readonly parent: SharedRun | undefined
  /** Runs the effect, then its finalizers. Absent before the launch, and where the holder of a lease does the work. */
  fiber: AnyFiber | undefined
  previous: SharedRun | undefined
  next: SharedRun | undefined

  constructor(parent: SharedRun | undefined) {
    super()
    this.parent = parent
  }

  /** Called when the effect and its finalizers have ended. */
  abstract onEnd(exit: AnyExit): void
}

const CurrentRun = Context.Reference<SharedRun | undefined>("@sluice/core/internal/CurrentRun", {
  defaultValue: () => undefined
})

/** The shared run that the fiber works for. */
export const currentRun = (fiber: AnyFiber): SharedRun | undefined => fiber.getRef(CurrentRun)

/** Whether the fiber works for the run. If it waited for that run it would wait for itself. */
export const isPartOf = (fiber: AnyFiber, run: SharedRun): boolean => {
  let current = currentRun(fiber)
  while (current !== undefined && current !== run) current = current.parent
  return current !== undefined
}

/**
 * Starting, stopping or ending one run can start, stop or end others on the same stack. Deeper nesting goes through the
 * scheduler.
 */
export const maxNesting = 16

/** Interrupts the run and waits for its finalizers. */
export const stop = (run: SharedRun): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { fiber } = run
    if (fiber === undefined) return Effect.void
    const finalizers = Effect.suspend(() => run.fiber === fiber ? Effect.void : stop(run))
    return Effect.andThen(interrupt(fiber), finalizers)
  })

// Stopping one run can stop others recursively, and a caller that waits for the end resumes on the stack of that end.
let stopsOnStack = 0
let endsOnStack = 0

const interrupt = (fiber: AnyFiber): Effect.Effect<void> =>
  Effect.suspend(() =>
    stopsOnStack < maxNesting ? interruptNow(fiber) : Effect.andThen(Effect.yieldNow, interruptNow(fiber))
  )

const interruptNow = (fiber: AnyFiber): Effect.Effect<void> =>
  Effect.withFiber((by) => {
    stopsOnStack++
    try {
      fiber.interruptUnsafe(by.id)
    } finally {
      stopsOnStack--
    }
    return awaitEnd(fiber)
  })

const awaitEnd = (fiber: AnyFiber): Effect.Effect<void> =>
  Effect.withFiber((by) =>
    Effect.callback((resume) => {
      const onEnd = (): void => {
        if (endsOnStack >= maxNesting) return by.currentDispatcher.scheduleTask(() => resume(Effect.void), 0)
        endsOnStack++
        try {
          resume(Effect.void)
        } finally {
          endsOnStack--
        }
      }
      return Effect.sync(fiber.addObserver(onEnd))
    })
  )

// A run starts in place, since most go straight to their first wait.
let launchesOnStack = 0

/** The shared runs of one deduplicator. */
export class SharedRuns {
  private readonly running = new LinkedList<SharedRun>()
  private isClosed = false

  /** Stops all runs, except the one that is closing, if it is one. */
  readonly close: Effect.Effect<void> = Effect.withFiber((fiber) => {
    this.isClosed = true
    const stops: Array<Effect.Effect<void>> = []
    for (let { first: run } = this.running; run !== undefined; run = run.next) {
      if (!isPartOf(fiber, run)) stops.push(stop(run))
    }
    return Effect.all(stops, { concurrency: "unbounded", discard: true })
  })

  /**
   * Starts a run in a fiber that belongs to no caller. The run gets its leader's context, except for the scope and the
   * deadline, which are its own, and the parent span, which can end before the run does.
   */
  launch(run: SharedRun, self: AnyEffect, leader: AnyFiber): void {
    const scope = Scope.makeUnsafe()
    const fork = Effect.runForkWith(contextOf(run, leader, scope))
    // The effect's requirements are in the leader's context.
    const provided = self as Effect.Effect<unknown, unknown>
    launchesOnStack++
    const fiber = fork(launchesOnStack <= maxNesting ? provided : Effect.andThen(Effect.yieldNow, provided))
    launchesOnStack--
    run.fiber = fiber
    const exit = fiber.pollUnsafe()
    if (exit === undefined) this.follow(run, fiber, (exit) => this.finalize(run, scope, exit, fork))
    else this.finalize(run, scope, exit, fork)
    if (this.isClosed) fiber.interruptUnsafe()
  }

  // Most runs have nothing to close. Closing the scope within the run, as `Effect.scoped` does, costs a tenth of a run.
  private finalize(run: SharedRun, scope: Scope.Closeable, exit: AnyExit, fork: Fork): void {
    const closing = Scope.closeUnsafe(scope, exit)
    if (closing === undefined) return run.onEnd(exit)
    run.fiber = fork(Effect.uninterruptible(Effect.onExitPrimitive(exit, () => closing)))
    this.follow(run, run.fiber, (exit) => run.onEnd(exit))
  }

  private follow(run: SharedRun, fiber: AnyFiber, onEnd: (exit: AnyExit) => void): void {
    this.running.append(run)
    fiber.addObserver((exit) => {
      this.running.remove(run)
      onEnd(exit)
    })
  }
}

const contextOf = (run: SharedRun, leader: AnyFiber, scope: Scope.Scope): Context.Context<never> => {
  const context = leader.cache.span === undefined ? leader.context : Context.omit(Tracer.ParentSpan)(leader.context)
  return Context.add(Context.add(Context.add(context, Scope.Scope, scope), CurrentRun, run), Deadline, run)
}
