import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { callAfter } from "./timer.ts"

/** By when something has to be over, and what it fails with if it is not. */
export interface Limit<out E> {
  /** Epoch milliseconds of the clock. Asked again whenever a timer has run its time: it may have moved on by then. */
  at(): number
  /** Made when it is too late, with the time that it is then. */
  error(now: number): E
  /** Calls back whenever the moment may have come nearer, until it is told to stop. Absent where that does not happen. */
  watch?(nearer: () => void): () => void
}

/**
 * Runs an effect that the limit interrupts; its finalizers are waited for before the error is handed on.
 *
 * Call it within `Effect.withFiber`, with that fiber; `context` is for what the effect is to be given besides. The effect
 * runs in a fiber of its own, since only that can be interrupted without its parent, but it starts in place, and a timer
 * is armed only if it does not end there. So 250 ns on top of a synchronous body (`Effect.timeout`: 900) and 1,400 on top
 * of a promise (4,500). It is interruptible whatever its parent is, as in `Effect.timeout`.
 */
export const timeout = <A, E, R, E2>(
  parent: Fiber.Fiber<unknown, unknown>,
  self: Effect.Effect<A, E, R>,
  limit: Limit<E2>,
  // The fiber's context has what the effect asks for: it is provided where the fiber runs.
  context: Context.Context<R> = parent.context as Context.Context<R>
): Effect.Effect<A, E | E2, R> => Effect.callback((resume) => start(parent, self, limit, context, resume))

/**
 * What `timeout` does, for whoever registers a callback of its own. All in one step: between two of them the parent might
 * be interrupted, and nobody would know of the child.
 */
export const start = <A, E, R, E2>(
  parent: Fiber.Fiber<unknown, unknown>,
  self: Effect.Effect<A, E, R>,
  limit: Limit<E2>,
  context: Context.Context<R>,
  resume: (exit: Exit.Exit<A, E | E2>) => void
): Effect.Effect<void> | undefined => {
  const child = Effect.runForkWith(context)(self)
  const exit = child.pollUnsafe()
  if (exit !== undefined) {
    resume(exit)
    return undefined
  }
  const watch = watched(parent, child, limit, resume)
  return Effect.suspend(() => {
    watch.stop()
    return Fiber.interrupt(child)
  })
}

/**
 * The exit of a child that the limit interrupts. It is for whoever has a finalizer that stops the child if it is still running:
 * one of its own would cost 80 ns more.
 */
export const ended = <A, E, E2>(
  parent: Fiber.Fiber<unknown, unknown>,
  child: Fiber.Fiber<A, E>,
  limit: Limit<E2>
): Effect.Effect<A, E | E2> =>
  Effect.callback((resume) => {
    const exit = child.pollUnsafe()
    if (exit === undefined) watched(parent, child, limit, resume)
    else resume(exit)
  })

const watched = <A, E, E2>(
  parent: Fiber.Fiber<unknown, unknown>,
  child: Fiber.Fiber<A, E>,
  limit: Limit<E2>,
  resume: (exit: Exit.Exit<A, E | E2>) => void
): Watch<E2> => {
  let late: Exit.Exit<never, E2> | undefined
  const watch = new Watch(parent, limit, (error) => {
    late = Exit.fail(error)
    child.interruptUnsafe(parent.id)
  })
  child.addObserver((exit) => {
    watch.stop()
    resume(late ?? exit)
  })
  watch.start()
  return watch
}

/** Fails when the limit is reached, for whoever stops by it what is no effect: a stream. */
export const alarm = <E>(limit: Limit<E>): Effect.Effect<never, E> =>
  Effect.withFiber((fiber) =>
    Effect.callback((resume) => {
      const watch = new Watch(fiber, limit, (error) => resume(Effect.fail(error)))
      watch.start()
      return Effect.sync(() => watch.stop())
    })
  )

/**
 * What time it is for a moment that may have come nearer, by a reading of the clock and the last one before it. A clock that was
 * set back meanwhile would put the moment off by as much: the last reading counts on. What is not ahead of that was made
 * by the new time, and has that.
 */
export const presentAt = (reading: number, last: number, at: number): number =>
  reading < last && last < at ? last : reading

/** Calls back once, when a limit is reached. */
class Watch<E> {
  private readonly fiber: Fiber.Fiber<unknown, unknown>
  private readonly limit: Limit<E>
  private readonly onLate: (error: E) => void
  private isOver = false
  private seen = 0
  private cancel: (() => void) | undefined
  private unwatch: (() => void) | undefined

  constructor(fiber: Fiber.Fiber<unknown, unknown>, limit: Limit<E>, onLate: (error: E) => void) {
    this.fiber = fiber
    this.limit = limit
    this.onLate = onLate
  }

  start(): void {
    this.unwatch = this.limit.watch?.(() => this.look(presentAt(this.now(), this.seen, this.limit.at())))
    this.look(this.now())
  }

  stop(): void {
    this.isOver = true
    this.cancel?.()
    this.unwatch?.()
  }

  private look(now: number): void {
    if (this.isOver) return
    this.seen = now
    this.cancel?.()
    this.cancel = undefined
    const at = this.limit.at()
    const left = at - now
    if (left > 0) {
      // After the timer it is `at`, also by a clock that was set back meanwhile: only a limit that has moved on is later.
      const look = () => this.look(Math.max(at, this.now()))
      if (left < Number.POSITIVE_INFINITY) this.cancel = callAfter(this.fiber, left, look)
      return
    }
    this.stop()
    this.onLate(this.limit.error(now))
  }

  private now(): number {
    return this.fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
  }
}
