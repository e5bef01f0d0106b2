/**
 * Named, typed stages that run one after the other, as a function that is also a value.
 *
 * A pipeline takes an input and returns an `Effect`. `pipe` adds its stages. The compiler checks the input and output types
 * from stage to stage; errors and requirements add up. A pipeline can be a stage of another pipeline.
 *
 * **When to use**
 *
 * For work whose parts have names, where it matters which part failed: chunk a text, call a model, parse the response, store
 * it. For two calls in a row use `Effect.flatMap`. For steps that branch or loop use `Effect.gen`. A pipeline protects no
 * service: use a `Sluice` policy inside the stage that calls one.
 *
 * **Details**
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `timeout` of a stage | none | limits one attempt; only the developer knows how long the stage may take |
 * | `retry` of a stage | none | not every stage may be repeated |
 * | `recover` of a stage | none | runs when all attempts have failed, as a fallback |
 * | `concurrency` of a stream | 1 | how much load the services behind the stages take is not known here |
 * | `unordered` of a stream | false | an input is known by its position; set it if one slow input must not hold back others |
 *
 * - The error of a stage keeps its type. The cause records the stage: `failedStage(cause)` returns it.
 * - `withTimings` returns how long each stage took.
 * - With a tracer, each run has a span, and each stage a span below it. Spans contain names, numbers and error tags, never an
 *   input, a result or an error message. Without a tracer no span is built.
 * - Building a pipeline checks nothing and throws nothing. `validate` checks its options. An invalid pipeline that runs dies
 *   with `InvalidOptions` before its first stage.
 *
 * **Gotchas**
 *
 * - `Effect.mapError`, or a catch that fails with a new error, drops the annotation that `failedStage` reads. Read the cause
 *   before.
 * - `timeout` limits one attempt of a stage. To limit all attempts, or the pipeline, use `Deadline.within`.
 * - `StageTimeout` is raised after the finalizers of the interrupted attempt have run.
 * - Effect's tracer logger adds the log lines of a stage to its span. Keep secrets out of them.
 *
 * **Example** (Three stages)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Pipeline from "@sluice/core/Pipeline"
 *
 * const shout = Pipeline.make<string>("shout").pipe(
 *   Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
 *   Pipeline.stage("check", (text) => text === "" ? Effect.fail("nothing to shout" as const) : Effect.succeed(text)),
 *   Pipeline.stage("raise", (text) => Effect.succeed(`${text.toUpperCase()}!`), { timeout: "1 second" })
 * )
 *
 * console.log(await Effect.runPromise(shout(" hello "))) // => HELLO!
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"
import type * as Pipeable from "effect/Pipeable"
import { describeStages } from "./internal/pipeline/describe.ts"
import { FailedStage, type StageTimeout } from "./internal/pipeline/errors.ts"
import * as Plan from "./internal/pipeline/plan.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import type * as RetryPolicy from "./RetryPolicy.ts"

export { FailedStage, StageTimeout } from "./internal/pipeline/errors.ts"
export {
  type Entry,
  runStream,
  runStreamEntries,
  runStreamExit,
  type StreamOptions
} from "./internal/pipeline/runStream.ts"
export { type StageTiming, type Timings, withTimings } from "./internal/pipeline/timings.ts"
export type { Ending } from "./internal/pipeline/watch.ts"

/**
 * A pipeline from an `In` to an `Out`. Call it, or pass it to `stage` as a stage of another pipeline.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pipeline<in In, out Out, out E = never, out R = never> extends Pipeable.Pipeable {
  (input: In): Effect.Effect<Out, E, R>
  readonly [Plan.TypeId]: typeof Plan.TypeId
  readonly name: string
  /** In the order in which they run. */
  readonly stages: ReadonlyArray<Stage>
}

/**
 * A stage of a pipeline.
 *
 * @since 0.1.0
 * @category models
 */
export interface Stage {
  /** Unique in its pipeline: a second stage `ask` is named `ask#2`. */
  readonly name: string
  /** The function, or the nested pipeline, that the stage runs. */
  readonly run: (input: never) => Effect.Effect<unknown, unknown, unknown>
  /** The time limit of one attempt. */
  readonly timeout: Duration.Duration | undefined
  readonly retry: RetryPolicy.RetryPolicy | undefined
  /** Whether it has a `recover` function. */
  readonly recovers: boolean
}

/**
 * Options for `stage`. Each wraps the one before it: `timeout` one attempt, `retry` all attempts, `recover` all of it.
 *
 * @since 0.1.0
 * @category models
 */
export interface StageOptions<
  in Input = unknown,
  in A = unknown,
  in E = unknown,
  out B = never,
  out E2 = never,
  out R2 = never
> {
  /**
   * The time limit of one attempt, at least 1 millisecond. An attempt that takes longer is interrupted and fails with
   * `StageTimeout`. Default none.
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * A retry policy, or a policy with the options of `RetryPolicy.retry`. `StageTimeout` is retryable. Default none: the stage
   * runs once.
   */
  readonly retry?: RetryPolicy.RetryPolicy | StageRetry<A, E> | undefined
  /**
   * Runs when all attempts have failed, with the last error and the stage's input. Its result is the stage's result, and its
   * error the stage's error. It has no time limit and is not retried. Defects and interruptions do not run it. Default none.
   */
  readonly recover?: ((error: E, input: Input) => Effect.Effect<B, E2, R2>) | undefined
}

/**
 * A retry policy with the options of `RetryPolicy.retry`.
 *
 * @since 0.1.0
 * @category models
 */
export interface StageRetry<in A, in E> extends RetryPolicy.RetryCallOptions<A, E> {
  readonly policy: RetryPolicy.RetryPolicy
}

// The types come from the stage's function. Options are checked against them and infer none.
type AttemptOptions<A, E> = Omit<StageOptions<unknown, NoInfer<A>, NoInfer<E>>, "recover">

/**
 * Builds a pipeline without stages, which returns its input.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <In>(name: string): Pipeline<In, In> => Plan.fromSteps<In, In, never, never>(name, [])

/**
 * Checks the options of a pipeline and of its nested pipelines. Succeeds with the pipeline, or fails with all issues.
 *
 * **When to use**
 *
 * At start-up, for a pipeline whose options come from configuration.
 *
 * **Gotchas**
 *
 * - An invalid pipeline that runs dies with the same `InvalidOptions`. Wrong options are a bug, so they are not in `E`.
 * - A pipeline that a stage calls inside its function is not checked here, but when it runs.
 *
 * **Example** (Each issue names its stage)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Pipeline from "@sluice/core/Pipeline"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 *
 * const wrong = Pipeline.make<string>("wrong").pipe(
 *   Pipeline.stage("ask", Effect.succeed<string>, { timeout: -1, retry: RetryPolicy.exponential({ maxAttempts: 0 }) })
 * )
 * const program = Pipeline.validate(wrong).pipe(
 *   Effect.as("fine"),
 *   Effect.catchTag("InvalidOptions", ({ issues }) => Effect.succeed(issues.map((issue) => issue.option).join()))
 * )
 *
 * console.log(await Effect.runPromise(program)) // => ask.timeout,ask.retry.maxAttempts
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const validate = <In, Out, E, R>(
  self: Pipeline<In, Out, E, R>
): Effect.Effect<Pipeline<In, Out, E, R>, InvalidOptions> =>
  Effect.as(Plan.validate(self.name, Plan.stepsOf(self)), self)

/**
 * Returns whether a value is a pipeline.
 *
 * @since 0.1.0
 * @category guards
 */
export const isPipeline: (u: unknown) => u is Pipeline<never, unknown, unknown, unknown> = Plan.isPipeline

/**
 * Adds a stage at the end.
 *
 * **Details**
 *
 * - `StageTimeout` is in the pipeline's errors only if the stage has a `timeout`.
 * - `recover` replaces the stage's errors, `StageTimeout` included, with its own.
 * - A recovery that fails with the error that it got keeps the original cause and its annotations.
 * - A function that throws, or an effect that dies, is a defect of its stage.
 *
 * **Gotchas**
 *
 * - A duplicate name is not refused. The stage gets the next free number (`ask#2`), so that errors and `describe` are
 *   unambiguous.
 * - With `retry`, each attempt calls the function again.
 * - To recover from a failure of any stage, make the pipeline a stage of another one and give that stage the `recover`.
 *
 * **Example** (A pipeline as a stage)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Pipeline from "@sluice/core/Pipeline"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 *
 * const count = Pipeline.make<string>("count").pipe(
 *   Pipeline.stage("split", (text) => Effect.succeed(text.split(" "))),
 *   Pipeline.stage("length", (words) => Effect.succeed(words.length))
 * )
 * const report = Pipeline.make<string>("report").pipe(
 *   Pipeline.stage("count", count, { timeout: "1 second", retry: RetryPolicy.exponential() }),
 *   Pipeline.stage("format", (words) => Effect.succeed(`${words} words`))
 * )
 *
 * console.log(await Effect.runPromise(report("more than one"))) // => 3 words
 * ```
 *
 * **Example** (A recovery)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Pipeline from "@sluice/core/Pipeline"
 *
 * const answer = Pipeline.make<string>("answer").pipe(
 *   Pipeline.stage("ask", (_question): Effect.Effect<string, "down"> => Effect.fail("down"), {
 *     timeout: "1 second",
 *     recover: (error, question) => Effect.succeed(error === "down" ? `not now: ${question}` : "too late")
 *   })
 * )
 *
 * console.log(await Effect.runPromise(answer("why?"))) // => not now: why?
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const stage: {
  <Out, B, E2, R2>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options?: AttemptOptions<B, E2> & { readonly timeout?: undefined; readonly recover?: undefined }
  ): <In, E, R>(self: Pipeline<In, Out, E, R>) => Pipeline<In, B, E | E2, R | R2>
  <Out, B, E2, R2>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options: AttemptOptions<B, E2 | StageTimeout> & { readonly recover?: undefined }
  ): <In, E, R>(self: Pipeline<In, Out, E, R>) => Pipeline<In, B, E | E2 | StageTimeout, R | R2>
  <Out, B, E2, R2, B3, E3, R3>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options: AttemptOptions<B, E2> & {
      readonly timeout?: undefined
      readonly recover: (error: NoInfer<E2>, input: NoInfer<Out>) => Effect.Effect<B3, E3, R3>
    }
  ): <In, E, R>(self: Pipeline<In, Out, E, R>) => Pipeline<In, B | B3, E | E3, R | R2 | R3>
  <Out, B, E2, R2, B3, E3, R3>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options: AttemptOptions<B, E2 | StageTimeout> & {
      readonly recover: (error: NoInfer<E2> | StageTimeout, input: NoInfer<Out>) => Effect.Effect<B3, E3, R3>
    }
  ): <In, E, R>(self: Pipeline<In, Out, E, R>) => Pipeline<In, B | B3, E | E3, R | R2 | R3>
  <Out, B, E2, R2, B3, E3, R3>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options: StageOptions<NoInfer<Out>, NoInfer<B>, NoInfer<E2> | StageTimeout, B3, E3, R3>
  ): <In, E, R>(self: Pipeline<In, Out, E, R>) => Pipeline<In, B | B3, E | E2 | E3 | StageTimeout, R | R2 | R3>
} =
  <Out, B, E2, R2>(name: string, run: (input: Out) => Effect.Effect<B, E2, R2>, options?: unknown) =>
  <In, E, R>(self: Pipeline<In, Out, E, R>): Pipeline<In, never, never, never> =>
    Plan.fromSteps(self.name, [...Plan.stepsOf(self), new Plan.Step(self, name, run, options)])

/**
 * Runs a pipeline on one input, like calling it.
 *
 * @since 0.1.0
 * @category running
 */
export const run: {
  <In>(input: In): <Out, E, R>(self: Pipeline<In, Out, E, R>) => Effect.Effect<Out, E, R>
  <In, Out, E, R>(self: Pipeline<In, Out, E, R>, input: In): Effect.Effect<Out, E, R>
} = dual(2, <In, Out, E, R>(self: Pipeline<In, Out, E, R>, input: In): Effect.Effect<Out, E, R> => self(input))

/**
 * Returns the number of stages. A nested pipeline is one stage.
 *
 * @since 0.1.0
 * @category accessors
 */
export const stageCount = <In, Out, E, R>(self: Pipeline<In, Out, E, R>): number => self.stages.length

/**
 * Describes a pipeline in lines: its name, then each stage with its options. Nested stages are indented below theirs.
 *
 * **Example** (Names and times)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Pipeline from "@sluice/core/Pipeline"
 *
 * const shout = Pipeline.make<string>("shout").pipe(
 *   Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
 *   Pipeline.stage("raise", (text) => Effect.succeed(text.toUpperCase()), { timeout: "1 second" })
 * )
 *
 * console.log(Pipeline.describe(shout).join(" | ")) // => shout |   1. trim |   2. raise (1s)
 * ```
 *
 * @since 0.1.0
 * @category accessors
 */
export const describe = <In, Out, E, R>(self: Pipeline<In, Out, E, R>): ReadonlyArray<string> => [
  self.name,
  ...describeStages(self.stages, "  ")
]

/**
 * Returns the stage that a cause comes from. Of nested pipelines, the innermost stage.
 *
 * **Details**
 *
 * Typed failures and defects are annotated. Interruptions are not.
 *
 * **Gotchas**
 *
 * - `Effect.mapError`, or a catch that fails with a new error, makes a new cause without the annotation.
 * - If a recovery fails with an error of its own, the stage with that recovery is returned, not one nested in it.
 *
 * **Example** (Where it failed)
 *
 * ```ts
 * import { Effect, Option } from "effect"
 * import * as Pipeline from "@sluice/core/Pipeline"
 *
 * const read = Pipeline.make<string>("read").pipe(
 *   Pipeline.stage("ask", () => Effect.succeed("{")),
 *   Pipeline.stage("parse", (text) => Effect.try({ try: () => JSON.parse(text) as unknown, catch: () => "no JSON" }))
 * )
 *
 * const program = read("how many?").pipe(
 *   Effect.catchCause((cause) => Effect.succeed(Option.getOrUndefined(Pipeline.failedStage(cause))))
 * )
 *
 * console.log(await Effect.runPromise(program)) // => { pipeline: 'read', stage: 'parse', index: 1, during: 'Run' }
 * ```
 *
 * @since 0.1.0
 * @category accessors
 */
export const failedStage = (cause: Cause.Cause<unknown>): Option.Option<FailedStage["Service"]> =>
  Context.getOption(Cause.annotations(cause), FailedStage)
