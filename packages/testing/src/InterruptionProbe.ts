/**
 * Interrupts an operator at every point where it can be interrupted, to show that it gives back what it held.
 *
 * A permit, a probe's place or a waiter is lost where an interruption comes between taking it and seeing to its return.
 * Such points are few and never met by chance. The probe visits them: it lets the fiber give way every few operations,
 * interrupts it after 0, 1, 2 and more turns of the scheduler, and asks each time whether anything is left.
 *
 * **When to use**
 *
 * In the tests of whatever takes something and gives it back: an operator of your own, or a policy as you composed it.
 *
 * **Gotchas**
 *
 * - An effect that is mostly over before it can be interrupted proves nothing. The probe fails then, with `ProbedTooLittle`:
 *   put a `Effect.yieldNow` or a sleep into its body.
 *
 * **Example** (A permit comes back)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Backpressure from "@sluice/core/Backpressure"
 * import * as InterruptionProbe from "@sluice/testing/InterruptionProbe"
 *
 * const program = InterruptionProbe.everywhere({
 *   make: Effect.orDie(Backpressure.make({ capacity: 1 })),
 *   run: ({ withPermit }) => withPermit(InterruptionProbe.yields(20)),
 *   after: ({ depth }, at) => Effect.flatMap(depth, (left) => left === 0 ? Effect.void : Effect.fail(`${left} left, ${at}`))
 * })
 *
 * console.log(await Effect.runPromise(program)) // => 301
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

/**
 * Hardly any run was interrupted before its end: the probe has shown nothing.
 *
 * @since 0.1.0
 * @category errors
 */
export class ProbedTooLittle extends Schema.Error<ProbedTooLittle>("@sluice/testing/ProbedTooLittle")({
  _tag: Schema.tag("ProbedTooLittle"),
  /** Runs that were interrupted before their end. */
  interrupted: Schema.Int,
  points: Schema.Int
}) {
  override get message(): string {
    return `${this.interrupted} of ${this.points} runs were interrupted before their end: let the body take longer`
  }
}

/**
 * Lets the other fibers run, for so many turns of the scheduler.
 *
 * @since 0.1.0
 * @category combinators
 */
export const yields = (turns: number): Effect.Effect<void> =>
  turns <= 0 ? Effect.void : Effect.repeat(Effect.yieldNow, { times: turns - 1 })

// Below 3 operations a fiber of Effect makes no progress.
const operationsBeforeYield = [3, 4, 5, 6, 7, 8, 9]
const mostTurns = 42

/**
 * Runs an effect at 301 points of interruption, and tells how many there were.
 *
 * **Details**
 *
 * `make` builds what is probed, anew for each point and in a scope of its own. `run` is interrupted. `after` runs once the
 * interruption is over and fails if anything is left; it is told where the interruption came.
 *
 * @since 0.1.0
 * @category probes
 */
export const everywhere = Effect.fnUntraced(function*<S, A, E, E2>(options: {
  readonly make: Effect.Effect<S, never, Scope.Scope>
  readonly run: (subject: S) => Effect.Effect<A, E>
  readonly after: (subject: S, at: string) => Effect.Effect<void, E2>
}): Effect.fn.Return<number, E2 | ProbedTooLittle> {
  let points = 0
  let interrupted = 0
  for (const operations of operationsBeforeYield) {
    for (let turns = 0; turns <= mostTurns; turns++) {
      points++
      if (yield* probe(options, operations, turns)) interrupted++
    }
  }
  if (interrupted * 4 < points) return yield* Effect.fail(new ProbedTooLittle({ interrupted, points }))
  return points
})

/** Whether the run was interrupted before its end. */
const probe = <S, A, E, E2>(
  options: Parameters<typeof everywhere<S, A, E, E2>>[0],
  operations: number,
  turns: number
): Effect.Effect<boolean, E2> =>
  Effect.scoped(Effect.gen(function*() {
    const subject = yield* options.make
    const fiber = yield* options.run(subject).pipe(
      Effect.provideService(References.MaxOpsBeforeYield, operations),
      Effect.forkChild
    )
    yield* yields(turns)
    const isRunning = fiber.pollUnsafe() === undefined
    yield* Fiber.interrupt(fiber)
    yield* options.after(subject, `interrupted after ${turns} turns of ${operations} operations`)
    return isRunning
  }))
