import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Stream from "effect/Stream"
import type { Pipeline } from "../../Pipeline.ts"
import { mapConcurrently } from "./mapConcurrently.ts"
import { readStreamOptions } from "./options.ts"

/**
 * Options for `runStream`, `runStreamExit` and `runStreamEntries`.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions {
  /** How many inputs run, or have a result that the consumer has not taken yet. Default 1. */
  readonly concurrency?: number | "unbounded" | undefined
  /** Emits results as they complete, instead of in the order of the inputs. Default false. */
  readonly unordered?: boolean | undefined
}

/**
 * Runs a pipeline on every input of a stream. The first input that fails ends the stream with its error.
 *
 * **Details**
 *
 * The stream of inputs is read when the result is consumed. When the consumer leaves, all running inputs are interrupted at
 * once, and their finalizers are waited for.
 *
 * **Gotchas**
 *
 * - With `concurrency`, a failure ends the stream before results of earlier inputs that were not emitted yet. `runStreamExit`
 *   returns the result of every input.
 * - In order, one slow input holds back the results behind it, and so the reading of inputs. `unordered` does not.
 * - Invalid options are an `InvalidOptions` defect of the stream.
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
 * Runs a pipeline on every input of a stream and emits the exit of each. An input that fails does not end the stream.
 *
 * **Gotchas**
 *
 * - A failure of the stream of inputs ends it.
 * - With `unordered`, an exit does not say which input it belongs to. Use `runStreamEntries`.
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
 * The exit of one input of a stream.
 *
 * @since 0.1.0
 * @category models
 */
export interface Entry<out In, out Out, out E> {
  /** The position of the input in its stream, from 0. */
  readonly index: number
  readonly input: In
  readonly exit: Exit.Exit<Out, E>
}

/**
 * Runs a pipeline on every input of a stream and emits the exit of each with its input and position.
 *
 * **When to use**
 *
 * With `unordered`, where an exit alone does not say which input it belongs to, or if the input is needed beside its result.
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
