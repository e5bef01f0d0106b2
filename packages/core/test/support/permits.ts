import * as Backpressure from "@sluice/core/Backpressure"
import { Effect, type Exit, Fiber, Latch } from "effect"
import { failureOf, fork } from "./effects.ts"

export type Guard = Backpressure.Backpressure["Service"]

export const makeGuard = (options?: Backpressure.BackpressureOptions) => Effect.orDie(Backpressure.make(options))

/** The permits in use and the queued calls. */
export const load = (guard: Guard) => Effect.all([guard.running, guard.queued])

/** Holds permits until the test releases them. */
export const hold = (guard: Guard, permits = 1) =>
  Effect.gen(function*() {
    const latch = yield* Latch.make()
    const fiber = yield* fork(guard.withPermits(latch.await, { permits }))
    return { release: Effect.andThen(latch.open, Fiber.await(fiber)), interrupt: Fiber.interrupt(fiber) }
  })

export const shedIn = (exit: Exit.Exit<unknown, unknown>): Backpressure.BackpressureShed | undefined => {
  const error = failureOf(exit)
  return error instanceof Backpressure.BackpressureShed ? error : undefined
}

export const isShed = (exit: Exit.Exit<unknown, unknown>) => shedIn(exit) !== undefined

/** The refusal that an effect fails with. */
export const shedOf = <R>(self: Effect.Effect<unknown, unknown, R>) => Effect.map(Effect.exit(self), shedIn)

/** Waits for a fiber. Returns why its call was refused. */
export const whyShed = (fiber: Fiber.Fiber<unknown, unknown>) =>
  Effect.map(Fiber.await(fiber), (exit) => shedIn(exit)?.why)
