import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import { callAfter } from "@sluice/core/Timer"

/** Who asks, and is answered within the fiber that asked. */
export interface Asker<A, E, B, E2, R> {
  /** Upstream, not yet connected. */
  readonly upstream: Effect.Effect<Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E, void, R>, never, R>
  /** When the pull that is out now is interrupted, in epoch milliseconds. Asked when it does not answer at once. */
  limit(now: number): number
  got(chunk: Arr.NonEmptyReadonlyArray<A>): Effect.Effect<B, E2, R>
  lost(cause: Cause.Cause<E | Cause.Done>): Effect.Effect<B, E2, R>
  /** The limit came first. */
  expired(): Effect.Effect<B, E2, R>
}

/**
 * Pulls upstream in one fiber of its own, whenever it is asked to, so that a limit can interrupt a pull and not the
 * consumer; and keeps one timer for all of them.
 *
 * Everything that a pull needs is made once: per pull there is no effect, no exit and no timer to allocate but what
 * `Effect.callback` takes to park the fiber. To fork each pull instead costs less, and ends whatever it has forked with it.
 */
export class Pump<A, E, B, E2, R> {
  private readonly asker: Asker<A, E, B, E2, R>
  private readonly context: Context.Context<never>
  private readonly clock: Clock.Clock
  private fiber: Fiber.Fiber<unknown, unknown> | undefined

  private step: Effect.Effect<unknown, never, R> = Effect.never
  /** Resumes the fiber while it waits to be asked. */
  private demand: ((step: Effect.Effect<unknown, never, R>) => void) | undefined
  private isAsked = false

  /** `Settled`: the pull was answered, and its answer was not taken yet. */
  private state: "Idle" | "Out" | "Settled" = "Idle"
  private chunk: Arr.NonEmptyReadonlyArray<A> | undefined
  private cause: Cause.Cause<E | Cause.Done> = Cause.empty
  private isExpired = false
  /** Resumes who asked, if it has to wait. */
  private resume: ((answer: Effect.Effect<B, E2, R>) => void) | undefined

  private lastRead = 0
  private setBack = 0
  private limitAt = 0
  private timerAt = 0
  private cancel: (() => void) | undefined

  constructor(fiber: Fiber.Fiber<unknown, unknown>, asker: Asker<A, E, B, E2, R>) {
    this.asker = asker
    this.context = fiber.context
    this.clock = fiber.getRef(Clock.Clock)
  }

  /** Pulls once. */
  ask(): Effect.Effect<B, E2, R> {
    // It is not if who asked before was interrupted without waiting.
    if (this.state === "Idle") this.send()
    if (this.state === "Settled") return this.answer()
    this.watch()
    return this.parked
  }

  /** Interrupts the fiber, and whatever it does; succeeds when it has ended. Nothing is to be asked after it. */
  readonly stop: Effect.Effect<void> = Effect.suspend(() => {
    this.resume = undefined
    this.cancel?.()
    this.cancel = undefined
    return this.fiber === undefined || this.fiber.pollUnsafe() !== undefined ? Effect.void : Fiber.interrupt(this.fiber)
  })

  /** The time, which goes on from the last reading where the clock was set back: limits are for time that passes. */
  now(): number {
    const read = this.clock.currentTimeMillisUnsafe()
    if (read + this.setBack < this.lastRead) this.setBack = this.lastRead - read
    this.lastRead = read + this.setBack
    return this.lastRead
  }

  private readonly waiting = Effect.callback<unknown, never, R>((resume) => {
    if (this.isAsked) {
      this.isAsked = false
      resume(this.step)
    } else {
      this.demand = resume
    }
  })

  private readonly answering: Effect.Effect<B, E2, R> = Effect.suspend(() => this.answer())

  private readonly parked: Effect.Effect<B, E2, R> = Effect.callback((resume) => {
    // It may have come between two operations.
    if (this.state === "Settled") return resume(this.answering)
    this.resume = resume
    return this.stop
  })

  private send(): void {
    this.state = "Out"
    const demand = this.demand
    if (demand !== undefined) {
      this.demand = undefined
      // Runs the pull here and now, as far as it gets.
      demand(this.step)
    } else if (this.fiber === undefined) {
      this.start()
    } else {
      this.isAsked = true
    }
  }

  private start(): void {
    const connected = Effect.flatMap(this.asker.upstream, (pull) => {
      this.step = Effect.matchCauseEffect(pull, {
        onSuccess: (chunk) => {
          this.chunk = chunk
          this.settle()
          return this.waiting
        },
        onFailure: (cause) => {
          this.cause = cause
          this.settle()
          return Effect.void
        }
      })
      return this.step
    })
    // The consumer's context has what upstream asks for: R is the consumer's to provide.
    this.fiber = Effect.runForkWith(this.context as Context.Context<R>)(connected)
    this.fiber.addObserver((exit) => {
      if (Exit.isSuccess(exit)) return
      // Whatever failed is handed to `onFailure`; this is an interruption, or a defect of connecting. Whoever asks from now
      // on is told so.
      this.cause = exit.cause as Cause.Cause<never>
      this.settle()
    })
  }

  private settle(): void {
    this.state = "Settled"
    const resume = this.resume
    if (resume === undefined) return
    this.resume = undefined
    resume(this.answering)
  }

  private answer(): Effect.Effect<B, E2, R> {
    if (this.isExpired) return this.asker.expired()
    const chunk = this.chunk
    if (chunk === undefined) return this.asker.lost(this.cause)
    this.state = "Idle"
    this.chunk = undefined
    return this.asker.got(chunk)
  }

  private watch(): void {
    const now = this.now()
    this.limitAt = this.asker.limit(now)
    if (this.cancel !== undefined) {
      if (this.timerAt <= this.limitAt) return
      this.cancel()
      this.cancel = undefined
    }
    if (this.limitAt < Number.POSITIVE_INFINITY) this.arm(now)
  }

  private arm(now: number): void {
    if (now >= this.limitAt) return this.expire()
    this.timerAt = this.limitAt
    this.cancel = callAfter(this.context, this.limitAt - now, this.onTimer)
  }

  private readonly onTimer = (): void => {
    this.cancel = undefined
    // If the consumer is busy nobody is silent; the next pull that has to wait arms another.
    if (this.state !== "Out") return
    // It is as late as the timer was set for, also by a clock that was set back meanwhile.
    this.arm(Math.max(this.timerAt, this.now()))
  }

  private expire(): void {
    this.isExpired = true
    this.fiber?.interruptUnsafe()
  }
}
