import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { callAfter } from "../../Timer.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** When an effect has to end, and the error if it has not. */
export interface Limit<out E> {
  /** Epoch milliseconds of the clock. Read again whenever a timer fires, since the moment can have moved. */
  at(): number
  /** Builds the error. `now` is the time at which the limit was reached. */
  error(now: number): E
  /** Calls `onEarlier` whenever the moment may have moved closer. Absent if it never does. */
  readonly watch?: ((onEarlier: () => void) => () => void) | undefined
}

/**
 * Interrupts an effect at the limit, waits for its finalizers, then fails with the limit's error.
 *
 * Call it in `Effect.withFiber` with that fiber. The effect runs in a child fiber, since only a fiber can be interrupted
 * without its parent. The child starts in place and a timer is armed only if it does not end there: 250 ns over a
 * synchronous body (`Effect.timeout`: 900) and 1,400 ns over a promise (4,500). Like with `Effect.timeout`, the child is
 * interruptible even if its parent is not.
 */
export const timeout = <A, E, R, E2>(
  parent: AnyFiber,
  self: Effect.Effect<A, E, R>,
  limit: Limit<E2>,
  // The effect's requirements are in the fiber's context.
  context: Context.Context<R> = parent.context as Context.Context<R>
): Effect.Effect<A, E | E2, R> => Effect.callback((resume) => start(parent, self, limit, context, resume))

/**
 * `timeout` for callers that register a callback themselves. Forking and watching are one synchronous step, so that an
 * interruption of the parent cannot come between them and leave the child running.
 */
export const start = <A, E, R, E2>(
  parent: AnyFiber,
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
  let timedOut: Exit.Exit<never, E2> | undefined
  const watch = new LimitWatch(parent, limit, (error) => {
    timedOut = Exit.fail(error)
    child.interruptUnsafe(parent.id)
  })
  child.addObserver((exit) => {
    watch.stop()
    resume(timedOut ?? exit)
  })
  watch.start()
  return Effect.suspend(() => {
    watch.stop()
    return Fiber.interrupt(child)
  })
}

/** Fails when the limit is reached. Used to stop a stream, which is not an effect that can be forked. */
export const failAt = <E>(limit: Limit<E>): Effect.Effect<never, E> =>
  Effect.withFiber((fiber) =>
    Effect.callback((resume) => {
      const watch = new LimitWatch(fiber, limit, (error) => resume(Effect.fail(error)))
      watch.start()
      return Effect.sync(() => watch.stop())
    })
  )

/**
 * The present, for a limit at `at`, from a reading of the clock and the reading before it. If the clock was set back in
 * between, the last reading is used, or the limit would move away by as much. A limit that is not after the last reading was
 * computed from the new time, and the new reading is right for it.
 */
export const presentAt = (reading: number, lastReading: number, at: number): number =>
  reading < lastReading && lastReading < at ? lastReading : reading

/** Calls back once, when a limit is reached. */
class LimitWatch<E> {
  private readonly fiber: AnyFiber
  private readonly limit: Limit<E>
  private readonly onReached: (error: E) => void
  private isOver = false
  private lastReading = 0
  private cancelTimer: (() => void) | undefined
  private unwatch: (() => void) | undefined

  constructor(fiber: AnyFiber, limit: Limit<E>, onReached: (error: E) => void) {
    this.fiber = fiber
    this.limit = limit
    this.onReached = onReached
  }

  start(): void {
    this.unwatch = this.limit.watch?.(() => this.check(presentAt(this.now(), this.lastReading, this.limit.at())))
    this.check(this.now())
  }

  stop(): void {
    this.isOver = true
    this.cancelTimer?.()
    this.unwatch?.()
  }

  private check(now: number): void {
    if (this.isOver) return
    this.lastReading = now
    this.cancelTimer?.()
    this.cancelTimer = undefined
    const at = this.limit.at()
    const left = at - now
    if (left <= 0) {
      this.stop()
      this.onReached(this.limit.error(now))
    } else if (left < Number.POSITIVE_INFINITY) {
      // When the timer fires it is `at`, even if the clock was set back meanwhile. Only a limit that moved is still ahead.
      this.cancelTimer = callAfter(this.fiber.context, left, () => this.check(Math.max(at, this.now())))
    }
  }

  private now(): number {
    return this.fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
  }
}
