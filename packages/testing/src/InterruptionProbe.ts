/**
 * Interrupts an operator at every point where it can be interrupted, to check that it gives back what it took.
 *
 * A permit or a probe slot leaks if an interruption comes between taking it and registering its release. Such points are rare,
 * and ordinary tests miss them. The probe makes the fiber yield every few operations, and interrupts it after 0, 1, 2 and more
 * turns of the scheduler. After each run it checks that nothing leaked.
 *
 * **When to use**
 *
 * In tests of code that takes something and gives it back: your own operator, or a policy as you composed it.
 *
 * **Gotchas**
 *
 * - An effect that mostly ends before it can be interrupted proves nothing. The probe fails with `ProbedTooLittle` then. Add an
 *   `Effect.yieldNow` or a sleep to its body.
 *
 * **Example** (A permit is given back)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Backpressure from "@sluice/core/Backpressure"
 * import * as InterruptionProbe from "@sluice/testing/InterruptionProbe"
 *
 * const program = InterruptionProbe.everywhere({
 *   make: Effect.orDie(Backpressure.make({ capacity: 1 })),
 *   run: ({ withPermit }) => withPermit(InterruptionProbe.yields(20)),
 *   after: ({ running }, at) => Effect.flatMap(running, (left) => left === 0 ? Effect.void : Effect.fail(`${left} left, ${at}`))
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
 * Too few runs were interrupted before they ended, so the probe proves nothing.
 *
 * @since 0.1.0
 * @category errors
 */
export class ProbedTooLittle extends Schema.Error<ProbedTooLittle>("@sluice/testing/ProbedTooLittle")({
  _tag: Schema.tag("ProbedTooLittle"),
  /** Runs that were interrupted before they ended. */
  interrupted: Schema.Int,
  points: Schema.Int
}) {
  override get message(): string {
    return `${this.interrupted} of ${this.points} runs were interrupted before they ended. Make the body take more turns: add Effect.yieldNow`
  }
}

/**
 * Yields to other fibers for a number of turns of the scheduler.
 *
 * @since 0.1.0
 * @category combinators
 */
export const yields = (turns: number): Effect.Effect<void> =>
  turns <= 0 ? Effect.void : Effect.repeat(Effect.yieldNow, { times: turns - 1 })

// With fewer than 3 operations a fiber makes no progress.
const operationsBeforeYield = [3, 4, 5, 6, 7, 8, 9]
const maxTurns = 42

/**
 * Interrupts an effect at 301 points, and returns their number.
 *
 * **Details**
 *
 * For each point `make` builds a new subject in its own scope, and `run` is interrupted. Then `after` checks the subject, and fails
 * if something leaked. Its second argument describes the point.
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
    for (let turns = 0; turns <= maxTurns; turns++) {
      points++
      if (yield* probe(options, operations, turns)) interrupted++
    }
  }
  if (interrupted * 4 < points) return yield* Effect.fail(new ProbedTooLittle({ interrupted, points }))
  return points
})

/** Returns whether the run was interrupted before it ended. */
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
