import { assert } from "@effect/vitest"
import type { Scope } from "effect"
import { Effect, Fiber, References } from "effect"

/** Lets the other fibers run, `times` turns of the scheduler. */
export const yields = (times: number): Effect.Effect<void> => Effect.repeat(Effect.yieldNow, { times: times - 1 })

/**
 * Interrupts an effect at every point where it can be: after 0 to 40 turns of the scheduler, while its fiber gives way every
 * 3 to 9 operations. (Below 3 a fiber of Effect makes no progress.) `make` builds what is probed, anew for each run and in
 * a scope of its own; `after` is run once the interruption is over, and asserts that nothing is left.
 *
 * A probe whose effect is mostly over before it can be interrupted proves nothing: that is a failure too.
 */
export const interruptEverywhere = <S, A, E, E2>(options: {
  readonly make: Effect.Effect<S, never, Scope.Scope>
  readonly run: (subject: S) => Effect.Effect<A, E>
  readonly after: (subject: S, at: string) => Effect.Effect<void, E2>
}): Effect.Effect<void, E2> =>
  Effect.gen(function*() {
    let interrupted = 0
    for (let opsBeforeYield = 3; opsBeforeYield <= 9; opsBeforeYield++) {
      for (let turns = 0; turns <= 40; turns++) {
        yield* Effect.scoped(Effect.gen(function*() {
          const subject = yield* options.make
          const fiber = yield* options.run(subject).pipe(
            Effect.provideService(References.MaxOpsBeforeYield, opsBeforeYield),
            Effect.forkChild
          )
          if (turns > 0) yield* yields(turns)
          if (fiber.pollUnsafe() === undefined) interrupted++
          yield* Fiber.interrupt(fiber)
          yield* options.after(subject, `interrupted after ${turns} turns of ${opsBeforeYield} operations`)
        }))
      }
    }
    assert.isAbove(interrupted, 7 * 10, "hardly any of the runs was interrupted before its end")
  })
