/**
 * Named steps, one after the other, as a function that is also a value.
 *
 * A pipeline is called with its input and returns an `Effect`. It is built with `pipe`, a stage at a time: types of input
 * and output are checked from stage to stage, errors and requirements add up. A pipeline is itself what a stage runs, so
 * pipelines nest.
 *
 * **When to use**
 *
 * For work that has named parts and where it matters in which of them it failed: cut up, ask, read the answer, store. For
 * two calls in a row, `Effect.flatMap` is enough.
 *
 * **Details**
 *
 * A stage may have a time for each attempt, a retry around its attempts, and a recovery when they have all failed.
 *
 * The error of a stage keeps its type. Which stage it came from is on the cause: `failedStage(cause)`. How long each stage
 * took is told by `withTimings`. Where the program has a tracer, each run has a span, and each stage one below it: they
 * hold names, numbers and words of ours, never an input, an answer or an error's message. Without a tracer none is built.
 *
 * A pipeline is inert data: building one throws nothing and refuses nothing. `validate` says what is wrong with its
 * options; run all the same, it dies with that `InvalidOptions` before its first stage.
 *
 * **Gotchas**
 *
 * - A catch that fails with a new error drops the annotation that `failedStage` reads, as it drops every annotation of a
 *   cause. Look at the cause where it still is the pipeline's own.
 * - `timeout` is for one attempt of the stage. To bound all its attempts, or the pipeline, use `Deadline.within`.
 * - A stage that is interrupted by its own timeout has its finalizers waited for before `StageTimeout` is handed on.
 * - What a stage logs, and what it says of the current span, is its own doing: Effect puts log lines on the span that they
 *   are written in.
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
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"
import type * as Pipeable from "effect/Pipeable"
import * as Stream from "effect/Stream"
import { FailedStage, type StageTimeout } from "./internal/pipeline/errors.ts"
import { mapConcurrently } from "./internal/pipeline/mapConcurrently.ts"
import { readStreamOptions } from "./internal/pipeline/options.ts"
import * as Plan from "./internal/pipeline/plan.ts"
import * as Watch from "./internal/pipeline/watch.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import type * as RetryPolicy from "./RetryPolicy.ts"

export { FailedStage, StageTimeout } from "./internal/pipeline/errors.ts"

/**
 * Named steps from an `In` to an `Out`. Call it, or hand it to `stage` as a step of another pipeline.
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
 * A named step of a pipeline.
 *
 * @since 0.1.0
 * @category models
 */
export interface Stage {
  /** Unique in its pipeline: the second stage called `ask` is `ask#2`. */
  readonly name: string
  /** What the stage was made with: a function, or a pipeline. */
  readonly run: (input: never) => Effect.Effect<unknown, unknown, unknown>
  /** The time that an attempt of the stage is given. */
  readonly timeout: Duration.Duration | undefined
  readonly retry: RetryPolicy.RetryPolicy | undefined
  /** Whether it has something to do when all its attempts have failed. */
  readonly recovers: boolean
}

/**
 * What a stage may be given beside its function.
 *
 * **Details**
 *
 * Each stands around the one before it: `timeout` around one attempt, `retry` around the attempts, `recover` around it all.
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
   * The time for one attempt, at least a millisecond; past it the attempt is interrupted and fails with `StageTimeout`.
   * Default none: how long a stage may take is known to who wrote it, and a deadline can stand around the whole.
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * How the stage is tried again: a policy, or a policy with what `RetryPolicy.retry` may be told beside it. A
   * `StageTimeout` counts as a failure that passes. Default: it is tried once, since not every stage may be repeated.
   */
  readonly retry?: RetryPolicy.RetryPolicy | StageRetry<A, E> | undefined
  /**
   * What to do when the stage has failed for good, with its error and its input. What it answers goes on to the next stage
   * and what it fails with is the stage's failure. It has no time of its own and is not retried. A defect and an
   * interruption are none of its business. Default none.
   */
  readonly recover?: ((error: E, input: Input) => Effect.Effect<B, E2, R2>) | undefined
}

/**
 * A retry policy, and what a retry may be told beside it.
 *
 * @since 0.1.0
 * @category models
 */
export interface StageRetry<in A, in E> extends RetryPolicy.RetryCallOptions<A, E> {
  readonly policy: RetryPolicy.RetryPolicy
}

// What an option says of types is checked against the stage's function, and never what the function's types come from.
type Attempts<A, E> = Omit<StageOptions<unknown, NoInfer<A>, NoInfer<E>>, "recover">

/**
 * How a stream of inputs is run.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions {
  /**
   * How many inputs are under way at once; no more than that are read ahead of the consumer. Default 1: whether what the
   * stages call can take more is not known here.
   */
  readonly concurrency?: number | "unbounded" | undefined
  /** Hands on results as they come instead of in the order of the inputs. Default false. */
  readonly unordered?: boolean | undefined
}

/**
 * A pipeline without stages: it returns its input.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <In>(name: string): Pipeline<In, In> => Plan.fromSteps<In, In, never, never>(name, [])

/**
 * The pipeline, if the options of its stages make sense, those of nested pipelines included.
 *
 * **When to use**
 *
 * Where the program starts, for a pipeline whose options come from configuration. A pipeline is not checked when it is
 * built, as no policy is: building throws nothing.
 *
 * **Gotchas**
 *
 * - A pipeline that is run though it is invalid dies with the `InvalidOptions` before its first stage. Options are the
 *   developer's, so that is a defect: no `E` is widened by it, and nothing recovers from it.
 * - A pipeline that a stage calls inside its function is not seen here. It is checked when it is run.
 *
 * **Example** (Every issue, under its stage)
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
 * Whether a value is a pipeline.
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
 * `StageTimeout` is an error of the pipeline only if a timeout is given. With `recover`, the stage's own errors and
 * `StageTimeout` are not: they go to the recovery, and the recovery's are in their place. A function that throws is a
 * defect of its stage, as is an effect that dies.
 *
 * A recovery that fails with the very error that it was given has let it pass: the cause stays as it was, with all that is
 * noted on it.
 *
 * **Gotchas**
 *
 * - A name that the pipeline already has is not refused: the stage gets the next free number (`ask`, `ask#2`), so that an
 *   error, a timeout and `describe` always tell which of them is meant.
 * - With a `retry`, the function is called anew for each attempt.
 * - To recover from whatever part of a pipeline fails, make it a stage of another one and give that stage the recovery.
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
 *     recover: (error, question) => Effect.succeed(error === "down" ? `nobody knows: ${question}` : "too late")
 *   })
 * )
 *
 * console.log(await Effect.runPromise(answer("why?"))) // => nobody knows: why?
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const stage: {
  <Out, B, E2, R2>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options?: Attempts<B, E2> & { readonly timeout?: undefined; readonly recover?: undefined }
  ): <In, E, R>(self: Pipeline<In, Out, E, R>) => Pipeline<In, B, E | E2, R | R2>
  <Out, B, E2, R2>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options: Attempts<B, E2 | StageTimeout> & { readonly recover?: undefined }
  ): <In, E, R>(self: Pipeline<In, Out, E, R>) => Pipeline<In, B, E | E2 | StageTimeout, R | R2>
  <Out, B, E2, R2, B3, E3, R3>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options: Attempts<B, E2> & {
      readonly timeout?: undefined
      readonly recover: (error: NoInfer<E2>, input: NoInfer<Out>) => Effect.Effect<B3, E3, R3>
    }
  ): <In, E, R>(self: Pipeline<In, Out, E, R>) => Pipeline<In, B | B3, E | E3, R | R2 | R3>
  <Out, B, E2, R2, B3, E3, R3>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options: Attempts<B, E2 | StageTimeout> & {
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
 * Runs a pipeline on one input: the same as calling it.
 *
 * @since 0.1.0
 * @category running
 */
export const run: {
  <In>(input: In): <Out, E, R>(self: Pipeline<In, Out, E, R>) => Effect.Effect<Out, E, R>
  <In, Out, E, R>(self: Pipeline<In, Out, E, R>, input: In): Effect.Effect<Out, E, R>
} = dual(2, <In, Out, E, R>(self: Pipeline<In, Out, E, R>, input: In): Effect.Effect<Out, E, R> => self(input))

/**
 * Runs a pipeline on every input of a stream. The first input that fails ends the stream with its error.
 *
 * **Details**
 *
 * Nothing is read or run before the stream is. When its consumer leaves, all that is under way is interrupted at once, and
 * waited for.
 *
 * **Gotchas**
 *
 * - With `concurrency`, a failure overtakes the results of earlier inputs that were not handed on yet. To get the result of
 *   every input, use `runStreamExit`.
 * - In order, one slow input holds back those behind it, and with them what is read: `unordered` does not.
 * - A `concurrency` that makes no sense is an `InvalidOptions` defect of the stream.
 *
 * **Example** (Two at a time)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import * as Pipeline from "@sluice/core/Pipeline"
 *
 * const double = Pipeline.make<number>("double").pipe(Pipeline.stage("times", (n) => Effect.succeed(n * 2)))
 *
 * const results = Stream.make(1, 2, 3).pipe(Pipeline.runStream(double, { concurrency: 2 }), Stream.runCollect)
 *
 * console.log(await Effect.runPromise(results)) // => [ 2, 4, 6 ]
 * ```
 *
 * @since 0.1.0
 * @category running
 */
export const runStream: {
  <In, Out, E, R>(
    pipeline: Pipeline<In, Out, E, R>,
    options?: StreamOptions
  ): <E2, R2>(inputs: Stream.Stream<In, E2, R2>) => Stream.Stream<Out, E | E2, R | R2>
  <In, E2, R2, Out, E, R>(
    inputs: Stream.Stream<In, E2, R2>,
    pipeline: Pipeline<In, Out, E, R>,
    options?: StreamOptions
  ): Stream.Stream<Out, E | E2, R | R2>
} = dual(
  (args) => Stream.isStream(args[0]),
  <In, E2, R2, Out, E, R>(
    inputs: Stream.Stream<In, E2, R2>,
    pipeline: Pipeline<In, Out, E, R>,
    options?: StreamOptions
  ): Stream.Stream<Out, E | E2, R | R2> => mapInputs(inputs, pipeline, options)
)

/**
 * Runs a pipeline on every input of a stream and tells how each of them ended; none ends the stream.
 *
 * **Gotchas**
 *
 * - A failure of the stream of inputs itself ends it.
 * - With `unordered`, nothing but the result says which input an exit belongs to: `runStreamEntries` does.
 *
 * @since 0.1.0
 * @category running
 */
export const runStreamExit: {
  <In, Out, E, R>(
    pipeline: Pipeline<In, Out, E, R>,
    options?: StreamOptions
  ): <E2, R2>(inputs: Stream.Stream<In, E2, R2>) => Stream.Stream<Exit.Exit<Out, E>, E2, R | R2>
  <In, E2, R2, Out, E, R>(
    inputs: Stream.Stream<In, E2, R2>,
    pipeline: Pipeline<In, Out, E, R>,
    options?: StreamOptions
  ): Stream.Stream<Exit.Exit<Out, E>, E2, R | R2>
} = dual(
  (args) => Stream.isStream(args[0]),
  <In, E2, R2, Out, E, R>(
    inputs: Stream.Stream<In, E2, R2>,
    pipeline: Pipeline<In, Out, E, R>,
    options?: StreamOptions
  ): Stream.Stream<Exit.Exit<Out, E>, E2, R | R2> => mapInputs(inputs, (input) => Effect.exit(pipeline(input)), options)
)

/**
 * How one input of a stream ended.
 *
 * @since 0.1.0
 * @category models
 */
export interface Entry<out In, out Out, out E> {
  /** The place of the input in its stream, counted from 0. */
  readonly index: number
  readonly input: In
  readonly exit: Exit.Exit<Out, E>
}

/**
 * `runStreamExit`, with the input that each exit belongs to, and its place.
 *
 * **When to use**
 *
 * With `unordered`, where an exit alone does not say whose it is; and wherever the input is still wanted beside its result.
 *
 * **Example** (As they finish)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import * as Pipeline from "@sluice/core/Pipeline"
 *
 * const wait = Pipeline.make<number>("wait").pipe(
 *   Pipeline.stage("sleep", (millis) => millis > 50 ? Effect.fail("too long") : Effect.sleep(millis))
 * )
 *
 * const lines = Stream.make(30, 60, 10).pipe(
 *   Pipeline.runStreamEntries(wait, { concurrency: 3, unordered: true }),
 *   Stream.map(({ exit, index, input }) => `${index}: ${input} ${exit._tag}`),
 *   Stream.runCollect
 * )
 *
 * console.log(await Effect.runPromise(lines)) // => [ '1: 60 Failure', '2: 10 Success', '0: 30 Success' ]
 * ```
 *
 * @since 0.1.0
 * @category running
 */
export const runStreamEntries: {
  <In, Out, E, R>(
    pipeline: Pipeline<In, Out, E, R>,
    options?: StreamOptions
  ): <E2, R2>(inputs: Stream.Stream<In, E2, R2>) => Stream.Stream<Entry<In, Out, E>, E2, R | R2>
  <In, E2, R2, Out, E, R>(
    inputs: Stream.Stream<In, E2, R2>,
    pipeline: Pipeline<In, Out, E, R>,
    options?: StreamOptions
  ): Stream.Stream<Entry<In, Out, E>, E2, R | R2>
} = dual(
  (args) => Stream.isStream(args[0]),
  <In, E2, R2, Out, E, R>(
    inputs: Stream.Stream<In, E2, R2>,
    pipeline: Pipeline<In, Out, E, R>,
    options?: StreamOptions
  ): Stream.Stream<Entry<In, Out, E>, E2, R | R2> =>
    mapInputs(
      inputs,
      (input, index) => Effect.map(Effect.exit(pipeline(input)), (exit) => ({ index, input, exit })),
      options
    )
)

const mapInputs = <In, E, R, B, E2, R2>(
  inputs: Stream.Stream<In, E, R>,
  f: (input: In, index: number) => Effect.Effect<B, E2, R2>,
  options: StreamOptions | undefined
): Stream.Stream<B, E | E2, R | R2> =>
  Stream.unwrap(Effect.map(readStreamOptions(options), ({ concurrency, unordered }) =>
    concurrency === 1
      ? Stream.mapEffect(inputs, f)
      : mapConcurrently(inputs, f, { concurrency, unordered })))

/**
 * How a run, or a stage of it, ended. `Recovered` is a success that came from the stage's recovery.
 *
 * @since 0.1.0
 * @category models
 */
export type Ending = Watch.Ending

/**
 * What `withTimings` tells of one run.
 *
 * @since 0.1.0
 * @category models
 */
export interface Timings {
  readonly pipeline: string
  readonly ending: Ending
  /** By the monotonic clock, so that no correction of the time of day shows in it; with fractions. */
  readonly elapsedMillis: number
  /** The stages that were begun, in order. The last of them is the one that failed, if one did. */
  readonly stages: ReadonlyArray<StageTiming>
}

/**
 * What `withTimings` tells of one stage.
 *
 * @since 0.1.0
 * @category models
 */
export interface StageTiming {
  readonly stage: string
  /** Counted from 0. */
  readonly index: number
  readonly ending: Ending
  /** All of it: attempts, the waits between them, and the recovery. */
  readonly elapsedMillis: number
  /** How often the stage was tried. */
  readonly attempts: number
  /** How many of the attempts ended with `StageTimeout`. */
  readonly timeouts: number
  /** For a pipeline that is a stage: its own timings, of the last attempt. */
  readonly nested: Timings | undefined
}

/**
 * Runs a pipeline and tells how long each stage took and how often it was tried, also when it failed.
 *
 * **Details**
 *
 * Timings nest as pipelines do. They hold names and numbers: no input, no answer, no error. A pipeline that is run without
 * `withTimings` reads no clock and keeps no count.
 *
 * **Gotchas**
 *
 * - A pipeline that a stage calls inside its function, instead of being the stage, is not looked into.
 * - If the fiber is interrupted there is nobody to tell: what is interrupted here is the whole, as with `Effect.exit`.
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
  const plan = new Plan.Plan(self.name, Plan.stepsOf(self))
  return (input) =>
    Effect.suspend(() => {
      const watch = new Watch.RunWatch(self.name)
      // The stages of a pipeline give what it says that they give.
      const run = plan.watch(input, watch) as Effect.Effect<Out, E, R>
      return Effect.map(Effect.exit(run), (exit) => [exit, timingsOf(watch)] as const)
    })
}

const timingsOf = ({ elapsedMillis, ending, pipeline, stages }: Watch.RunWatch): Timings => ({
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

/**
 * How many stages a pipeline has. A nested pipeline is one stage.
 *
 * @since 0.1.0
 * @category accessors
 */
export const stageCount = <In, Out, E, R>(self: Pipeline<In, Out, E, R>): number => self.stages.length

/**
 * A pipeline in words: its name, and a line for each stage with what it was given, nested ones indented below theirs.
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

const describeStages = (stages: ReadonlyArray<Stage>, indent: string): ReadonlyArray<string> =>
  stages.flatMap((stage, index) => [
    `${indent}${index + 1}. ${stage.name}${describeOptions(stage)}`,
    ...(isPipeline(stage.run) ? describeStages(stage.run.stages, `${indent}  `) : [])
  ])

const describeOptions = ({ recovers, retry, timeout }: Stage): string => {
  const parts: Array<string> = []
  if (timeout !== undefined) parts.push(Duration.format(timeout))
  if (retry !== undefined) parts.push(`${retry.maxAttempts} attempts`)
  if (recovers) parts.push("recovers")
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`
}

/**
 * The stage that a cause comes from; of nested pipelines the innermost stage.
 *
 * **Details**
 *
 * Typed failures and defects are annotated. An interruption is no stage's doing and stays as it is.
 *
 * **Gotchas**
 *
 * - `Effect.mapError`, or a catch that fails with a new error, makes a new cause, without the annotation.
 * - The new error of a recovery is the recovery's: the stage that is named has it, not one of a pipeline nested in it.
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
