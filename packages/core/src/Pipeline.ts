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
 * The error of a stage keeps its type. Which stage it came from is on the cause: `failedStage(cause)`. Nothing but the time
 * and the retry of a stage's own options is added to what it runs; no span is opened, so no input gets into a trace.
 *
 * **Gotchas**
 *
 * - A catch that fails with a new error drops the annotation that `failedStage` reads, as it drops every annotation of a
 *   cause. Look at the cause where it still is the pipeline's own.
 * - `timeout` is for one attempt of the stage. To bound all its attempts, or the pipeline, use `Deadline.within`.
 * - A stage that is interrupted by its own timeout has its finalizers waited for before `StageTimeout` is handed on.
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
import * as Pipeable from "effect/Pipeable"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { stackless } from "./internal/stackless.ts"
import * as RetryPolicy from "./RetryPolicy.ts"

const TypeId = "~@sluice/core/Pipeline"

/**
 * A stage gave no answer within its timeout.
 *
 * @since 0.1.0
 * @category errors
 */
export class StageTimeout extends Schema.Error<StageTimeout>("@sluice/core/StageTimeout")({
  _tag: Schema.tag("StageTimeout"),
  /** The name of the pipeline that the stage is in. */
  pipeline: Schema.String,
  /** The name of the stage. */
  stage: Schema.String,
  /** The time that an attempt of the stage was given. */
  after: Schema.DurationFromMillis
}) {
  override get message(): string {
    return `stage ${this.stage} of ${this.pipeline} gave no answer within ${Duration.format(this.after)}`
  }
}

/**
 * Named steps from an `In` to an `Out`. Call it, or hand it to `stage` as a step of another pipeline.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pipeline<in In, out Out, out E = never, out R = never> extends Pipeable.Pipeable {
  (input: In): Effect.Effect<Out, E, R>
  readonly [TypeId]: typeof TypeId
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
}

/**
 * What a stage may be given beside its function.
 *
 * @since 0.1.0
 * @category models
 */
export interface StageOptions {
  /** The time for one attempt; past it the attempt is interrupted and fails with `StageTimeout`. Default none. */
  readonly timeout?: Duration.Input | undefined
  /** How the stage is tried again. A `StageTimeout` counts as a failure that passes. Default: it is tried once. */
  readonly retry?: RetryPolicy.RetryPolicy | undefined
}

/**
 * How a stream of inputs is run.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions {
  /** How many inputs are under way at once. Default 1. */
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
export const make = <In>(name: string): Pipeline<In, In> => fromStages<In, In, never, never>(name, [])

/**
 * Whether a value is a pipeline.
 *
 * @since 0.1.0
 * @category guards
 */
export const isPipeline = (u: unknown): u is Pipeline<never, unknown, unknown, unknown> =>
  typeof u === "function" && TypeId in u

/**
 * Adds a stage at the end.
 *
 * **Details**
 *
 * `StageTimeout` is an error of the pipeline only if a timeout is given. A function that throws is a defect of its stage,
 * as is an effect that dies.
 *
 * **Gotchas**
 *
 * - A name that the pipeline already has is not refused: the stage gets the next free number (`ask`, `ask#2`), so that an
 *   error, a timeout and `describe` always tell which of them is meant.
 * - With a `retry`, the function is called anew for each attempt.
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
 * @since 0.1.0
 * @category combinators
 */
export const stage: {
  <Out, B, E2, R2>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options?: StageOptions & { readonly timeout?: undefined }
  ): <In, E, R>(self: Pipeline<In, Out, E, R>) => Pipeline<In, B, E | E2, R | R2>
  <Out, B, E2, R2>(
    name: string,
    run: (input: Out) => Effect.Effect<B, E2, R2>,
    options: StageOptions
  ): <In, E, R>(self: Pipeline<In, Out, E, R>) => Pipeline<In, B, E | E2 | StageTimeout, R | R2>
} =
  <Out, B, E2, R2>(name: string, run: (input: Out) => Effect.Effect<B, E2, R2>, options?: StageOptions) =>
  <In, E, R>(self: Pipeline<In, Out, E, R>): Pipeline<In, B, E | E2, R | R2> =>
    fromStages(self.name, [...self.stages, {
      name: unusedName(name, self.stages),
      run,
      timeout: options?.timeout === undefined ? undefined : Duration.fromInputUnsafe(options.timeout),
      retry: options?.retry
    }])

const unusedName = (name: string, stages: ReadonlyArray<Stage>): string => {
  const taken = new Set(stages.map((stage) => stage.name))
  let unused = name
  for (let nth = 2; taken.has(unused); nth++) unused = `${name}#${nth}`
  return unused
}

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
 * **Gotchas**
 *
 * - With `concurrency`, a failure overtakes the results of earlier inputs that were not handed on yet. To get the result of
 *   every input, use `runStreamExit`.
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
  ): Stream.Stream<Out, E | E2, R | R2> => Stream.mapEffect(inputs, (input) => pipeline(input), options)
)

/**
 * Runs a pipeline on every input of a stream and tells how each of them ended; none ends the stream.
 *
 * **Gotchas**
 *
 * - A failure of the stream of inputs itself ends it.
 * - With `unordered`, nothing but the result says which input an exit belongs to.
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
  ): Stream.Stream<Exit.Exit<Out, E>, E2, R | R2> =>
    Stream.mapEffect(inputs, (input) => Effect.exit(pipeline(input)), options)
)

/**
 * How many stages a pipeline has. A nested pipeline is one stage.
 *
 * @since 0.1.0
 * @category accessors
 */
export const stageCount = <In, Out, E, R>(self: Pipeline<In, Out, E, R>): number => self.stages.length

/**
 * A pipeline in words: its name, and a line for each stage with its timeout and attempts, nested ones indented below theirs.
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

const describeOptions = ({ retry, timeout }: Stage): string => {
  const parts: Array<string> = []
  if (timeout !== undefined) parts.push(Duration.format(timeout))
  if (retry !== undefined) parts.push(`${retry.maxAttempts} attempts`)
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`
}

/**
 * The stage that failed, as an annotation of the cause that the pipeline failed with. Read it with `failedStage`.
 *
 * @since 0.1.0
 * @category models
 */
export class FailedStage extends Context.Service<FailedStage, {
  readonly pipeline: string
  readonly stage: string
  /** Counted from 0. */
  readonly index: number
}>()("@sluice/core/Pipeline/FailedStage") {}

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
 * console.log(await Effect.runPromise(program)) // => { pipeline: 'read', stage: 'parse', index: 1 }
 * ```
 *
 * @since 0.1.0
 * @category accessors
 */
export const failedStage = (cause: Cause.Cause<unknown>): Option.Option<FailedStage["Service"]> =>
  Context.getOption(Cause.annotations(cause), FailedStage)

/** A stage, and all that follow it. */
type Step = (input: unknown) => Effect.Effect<unknown, unknown, unknown>
type OnFailure = (cause: Cause.Cause<unknown>) => Effect.Effect<never, unknown>

const fromStages = <In, Out, E, R>(name: string, stages: ReadonlyArray<Stage>): Pipeline<In, Out, E, R> => {
  const first = fold(name, stages)
  const pipeline = (input: In) => Effect.suspend(() => first(input))
  Object.defineProperty(pipeline, "name", { value: name })
  // `make` and `stage` have checked each stage against the one before it; the list of stages has no room for their types.
  return Object.assign(pipeline, Pipeable.Prototype, { [TypeId]: TypeId, stages }) as unknown as Pipeline<In, Out, E, R>
}

// From the last stage to the first, once: a run then takes one frame per stage, for what follows it and for its failure.
const fold = (pipeline: string, stages: ReadonlyArray<Stage>): Step => {
  let next: Step | undefined
  for (const [index, stage] of [...stages.entries()].toReversed()) {
    next = before(attemptsOf(pipeline, stage), annotating({ pipeline, stage: stage.name, index }), next)
  }
  return next ?? Effect.succeed
}

const before = (attempts: Step, onFailure: OnFailure, onSuccess: Step | undefined): Step => {
  const handlers = onSuccess === undefined ? undefined : { onFailure, onSuccess }
  return (input) => {
    let answer: Effect.Effect<unknown, unknown, unknown>
    try {
      answer = attempts(input)
    } catch (defect) {
      // Thrown before there is an effect whose failure could be handled.
      return onFailure(Cause.die(defect))
    }
    return handlers === undefined ? Effect.catchCause(answer, onFailure) : Effect.matchCauseEffect(answer, handlers)
  }
}

/** The stage's function, with its time for each attempt and its retry around them. */
const attemptsOf = (pipeline: string, stage: Stage): Step => {
  // A stage is only ever called with what the one before it returns: `stage` has checked that.
  const run = stage.run as Step
  const { retry, timeout } = stage
  if (timeout === undefined && retry === undefined) return run

  const bounded = timeout === undefined
    ? undefined
    : { duration: timeout, orElse: () => timedOut(pipeline, stage.name, timeout) }
  return (input) => {
    const call = Effect.suspend(() => run(input))
    const attempt = bounded === undefined ? call : Effect.timeoutOrElse(call, bounded)
    return retry === undefined ? attempt : RetryPolicy.retry(attempt, retry)
  }
}

const timedOut = (pipeline: string, stage: string, after: Duration.Duration): Effect.Effect<never, StageTimeout> =>
  Effect.fail(stackless(() => new StageTimeout({ pipeline, stage, after })))

// The annotation of an inner pipeline stands: `annotate` keeps what is there.
const annotating = (stage: FailedStage["Service"]): OnFailure => {
  const annotation = Context.make(FailedStage, stage)
  return (cause) =>
    Effect.failCause(Cause.fromReasons(
      cause.reasons.map((reason) => Cause.isInterruptReason(reason) ? reason : reason.annotate(annotation))
    ))
}
