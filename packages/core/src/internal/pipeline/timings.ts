import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { Pipeline } from "../../Pipeline.ts"
import { Plan, stepsOf } from "./plan.ts"
import { type Ending, RunWatch } from "./watch.ts"

/**
 * The timings of one run.
 *
 * @since 0.1.0
 * @category models
 */
export interface Timings {
  readonly pipeline: string
  readonly ending: Ending
  /** Milliseconds with fractions, by the monotonic clock: setting the system clock does not change them. */
  readonly elapsedMillis: number
  /** The stages that were started, in order. If one failed it is the last. */
  readonly stages: ReadonlyArray<StageTiming>
}

/**
 * The timings of one stage.
 *
 * @since 0.1.0
 * @category models
 */
export interface StageTiming {
  readonly stage: string
  /** Counted from 0. */
  readonly index: number
  readonly ending: Ending
  /** All attempts, the delays between them, and the recovery. */
  readonly elapsedMillis: number
  readonly attempts: number
  /** Attempts that ended with `StageTimeout`. */
  readonly timeouts: number
  /** The timings of a nested pipeline, in its last attempt. */
  readonly nested: Timings | undefined
}

/**
 * Returns a function that runs the pipeline and succeeds with its exit and the time and attempts of each stage.
 *
 * **Details**
 *
 * Timings contain names and numbers: no input, no result, no error. They nest as the pipelines do. Other runs
 * are measured only if there is a tracer.
 *
 * **Gotchas**
 *
 * - A pipeline that a stage calls inside its function has no timings of its own. Make it the stage.
 * - An interruption of the calling fiber interrupts this effect too, as with `Effect.exit`. Then there are no timings.
 *
 * **Example** (Where the time went)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Pipeline from "@sluice/core/Pipeline"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 *
 * let calls = 0
 * const pipeline = Pipeline.make<string>("p").pipe(
 *   Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
 *   Pipeline.stage("ask", (text) => ++calls < 3 ? Effect.fail("503") : Effect.delay(Effect.succeed(text), 20), {
 *     retry: RetryPolicy.constant({ baseDelay: "1 millis" })
 *   })
 * )
 *
 * const [exit, timings] = await Effect.runPromise(Pipeline.withTimings(pipeline)(" x "))
 * const [trim, ask] = timings.stages
 * console.log(exit._tag, trim?.attempts, ask?.attempts, (ask?.elapsedMillis ?? 0) > 15) // => Success 1 3 true
 * ```
 *
 * @since 0.1.0
 * @category running
 */
export const withTimings = <In, Out, E, R>(
  self: Pipeline<In, Out, E, R>
): (input: In) => Effect.Effect<readonly [exit: Exit.Exit<Out, E>, timings: Timings], never, R> => {
  const plan = new Plan(self.name, stepsOf(self))
  return (input) =>
    Effect.suspend(() => {
      const watch = new RunWatch(self.name)
      // A plan is untyped. `make` and `stage` check the types of its stages.
      const run = plan.watch(input, watch) as Effect.Effect<Out, E, R>
      return Effect.map(Effect.exit(run), (exit) => [exit, timingsOf(watch)] as const)
    })
}

const timingsOf = ({ elapsedMillis, ending, pipeline, stages }: RunWatch): Timings => ({
  pipeline,
  ending,
  elapsedMillis,
  stages: stages.map(({ attempts, elapsedMillis, ending, index, nested, stage, timeouts }) => ({
    stage,
    index,
    ending,
    elapsedMillis,
    attempts,
    timeouts,
    nested: nested === undefined ? undefined : timingsOf(nested)
  }))
})
