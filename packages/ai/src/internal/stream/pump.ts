import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import { callAfter } from "@sluice/core/Timer"

/** The consumer of a pump. What its handlers return runs in the fiber that pulls. */
export interface Consumer<A, E, B, E2, R> {
  /** Upstream, not yet connected. */
  readonly upstream: Effect.Effect<Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E, void, R>, never, R>
  /** When the current pull is interrupted, in epoch milliseconds. Called if the pull has no result at once. */
  limitAt(now: number): number
  onChunk(chunk: Arr.NonEmptyReadonlyArray<A>): Effect.Effect<B, E2, R>
  onEnd(cause: Cause.Cause<E | Cause.Done>): Effect.Effect<B, E2, R>
  /** The limit was reached before a result. */
  onLimit(): Effect.Effect<B, E2, R>
}

/**
 * Pulls upstream on demand, in one fiber of its own, so that a limit can interrupt a pull without the consumer. All
 * pulls share one timer.
 *
 * What a pull needs is allocated once. Each pull allocates only what `Effect.callback` takes to park the fiber. Forking
 * a fiber for each pull would cost less, but its end would interrupt the fibers that upstream has forked.
 */
export class Pump<A, E, B, E2, R> {
  private readonly consumer: Consumer<A, E, B, E2, R>
  private readonly context: Context.Context<never>
  private readonly clock: Clock.Clock
  private fiber: Fiber.Fiber<unknown, unknown> | undefined

  /** One pull of upstream. */
  private step: Effect.Effect<unknown, never, R> = Effect.never
  /** Resumes the fiber that waits for demand. */
  private demand: ((step: Effect.Effect<unknown, never, R>) => void) | undefined
  /** Whether there is demand that the fiber has not seen. */
  private hasDemand = false

  /** `Settled`: the pull has a result that was not taken yet. */
  private state: "Idle" | "Out" | "Settled" = "Idle"
  private chunk: Arr.NonEmptyReadonlyArray<A> | undefined
  private cause: Cause.Cause<E | Cause.Done> = Cause.empty
  private isOverLimit = false
  /** Resumes the consumer while it waits. */
  private resume: ((result: Effect.Effect<B, E2, R>) => void) | undefined

  private lastRead = 0
  private setBack = 0
  private limitAt = 0
  private timerAt = 0
  private cancel: (() => void) | undefined

  /** `context`: the services of upstream. */
  constructor(
    fiber: Fiber.Fiber<unknown, unknown>,
    context: Context.Context<never>,
    consumer: Consumer<A, E, B, E2, R>
  ) {
    this.consumer = consumer
    this.context = context
    this.clock = fiber.getRef(Clock.Clock)
  }

  /** Pulls once. */
  pull(): Effect.Effect<B, E2, R> {
    // Not idle if the consumer was interrupted after the last pull, before it waited.
    if (this.state === "Idle") this.send()
    if (this.state === "Settled") return this.take()
    this.watchLimit()
    return this.parked
  }

  /** Interrupts the fiber and waits until it has ended. Do not pull after it. */
  readonly stop: Effect.Effect<void> = Effect.suspend(() => {
    this.resume = undefined
    this.cancel?.()
    this.cancel = undefined
    return this.fiber === undefined || this.fiber.pollUnsafe() !== undefined ? Effect.void : Fiber.interrupt(this.fiber)
  })

  /** The time. If the clock was set back, it continues from the last reading, since limits are about elapsed time. */
  now(): number {
    const read = this.clock.currentTimeMillisUnsafe()
    if (read + this.setBack < this.lastRead) this.setBack = this.lastRead - read
    this.lastRead = read + this.setBack
    return this.lastRead
  }

  private readonly waiting = Effect.callback<unknown, never, R>((resume) => {
    if (this.hasDemand) {
      this.hasDemand = false
      resume(this.step)
    } else {
      this.demand = resume
    }
  })

  private readonly taken: Effect.Effect<B, E2, R> = Effect.suspend(() => this.take())

  private readonly parked: Effect.Effect<B, E2, R> = Effect.callback((resume) => {
    // The result can have come between two operations.
    if (this.state === "Settled") return resume(this.taken)
    this.resume = resume
    return this.stop
  })

  private send(): void {
    this.state = "Out"
    const demand = this.demand
    if (demand !== undefined) {
      this.demand = undefined
      // Runs the pull synchronously, as far as it gets.
      demand(this.step)
    } else if (this.fiber === undefined) {
      this.start()
    } else {
      this.hasDemand = true
    }
  }

  private start(): void {
    const connected = Effect.flatMap(this.consumer.upstream, (pull) => {
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
    // The consumer's context has the services that upstream requires.
    this.fiber = Effect.runForkWith(this.context as Context.Context<R>)(connected)
    this.fiber.addObserver((exit) => {
      if (Exit.isSuccess(exit)) return
      // `onFailure` has handled a failed pull. This is an interruption, or a defect while connecting. Later pulls end
      // with it.
      this.cause = exit.cause as Cause.Cause<never>
      this.settle()
    })
  }

  private settle(): void {
    this.state = "Settled"
    const resume = this.resume
    if (resume === undefined) return
    this.resume = undefined
    resume(this.taken)
  }

  private take(): Effect.Effect<B, E2, R> {
    if (this.isOverLimit) return this.consumer.onLimit()
    const chunk = this.chunk
    if (chunk === undefined) return this.consumer.onEnd(this.cause)
    this.state = "Idle"
    this.chunk = undefined
    return this.consumer.onChunk(chunk)
  }

  private watchLimit(): void {
    const now = this.now()
    this.limitAt = this.consumer.limitAt(now)
    if (this.cancel !== undefined) {
      if (this.timerAt <= this.limitAt) return
      this.cancel()
      this.cancel = undefined
    }
    if (this.limitAt < Number.POSITIVE_INFINITY) this.startTimer(now)
  }

  private startTimer(now: number): void {
    if (now >= this.limitAt) return this.interruptPull()
    this.timerAt = this.limitAt
    this.cancel = callAfter(this.context, this.limitAt - now, this.onTimer)
  }

  private readonly onTimer = (): void => {
    this.cancel = undefined
    // While the consumer is busy, upstream is not silent. The next pull that waits starts another timer.
    if (this.state !== "Out") return
    // At least the time that the timer was set for, even if the clock was set back meanwhile.
    this.startTimer(Math.max(this.timerAt, this.now()))
  }

  private interruptPull(): void {
    this.isOverLimit = true
    this.fiber?.interruptUnsafe()
  }
}
