/**
 * A `LanguageModel` that does what its turns say, without a socket and by Effect's `Clock`: so that a test of your own policy
 * runs an outage of an hour in a millisecond, and the same way every time.
 *
 * **When to use**
 *
 * In tests, in place of a provider's layer. Under the `TestClock` nothing moves but by `TestClock.adjust`: delays, silence and
 * Retry-After included. Where bytes matter, or the client is not Effect's, use `LoopbackProvider`, which plays the same turns
 * over HTTP.
 *
 * **Details**
 *
 * Its errors are those that `OpenAiCompatible` raises for the same turn: a `RateLimitError` with its retryAfter, an
 * `InternalProviderError` with the status and the headers in its HTTP context, a `NetworkError` for a reset connection, and so
 * on.
 *
 * What goes wrong within a stream, long after it has begun, is told in the way of Effect's own providers: an error is a part of
 * type `error`, and a stream that is cut just ends, without a `finish` part. With `streamErrors: "failures"` both fail, as they do
 * in `OpenAiCompatible`. A model that is asked for a whole answer fails in either case.
 *
 * The journal has every call: when it began, when its first part came, when it ended and how. A call is complete as soon as
 * its `finish` part was handed on, failed if it ended without one, and interrupted if its caller ended it.
 *
 * **Gotchas**
 *
 * - A turn that is silent never ends by itself. A policy without a limit waits for ever, and a test with it.
 * - Under the `TestClock` the call has to run in a fiber of its own, while the test moves the clock.
 *
 * **Example** (Is a silent provider given up on, and asked again?)
 *
 * ```ts
 * import { Effect, Fiber } from "effect"
 * import { LanguageModel } from "effect/ai"
 * import { TestClock } from "effect/testing"
 * import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
 * import * as Turn from "@sluice/ai/testing/Turn"
 *
 * // The policy under test: ten seconds for an answer, and three attempts.
 * const ask = LanguageModel.generateText({ prompt: "Good morning" }).pipe(
 *   Effect.timeout("10 seconds"),
 *   Effect.retry({ times: 2 })
 * )
 *
 * const test = Effect.gen(function*() {
 *   const model = yield* ScriptedModel.ScriptedModel
 *   const asking = yield* Effect.forkChild(ask)
 *   yield* TestClock.adjust("10 seconds")
 *   console.log((yield* Fiber.join(asking)).text)
 *   for (const call of yield* model.journal) console.log(`${call.turn}: ${call.startedAt} to ${call.endedAt}, ${call.ending}`)
 * })
 *
 * const turns = [Turn.hang(), Turn.status(503), Turn.answer("Good morning to you")]
 * await Effect.runPromise(test.pipe(Effect.provide(ScriptedModel.layer({ turns })), Effect.provide(TestClock.layer())))
 * // => Good morning to you
 * // => Hang: 0 to 10000, interrupted
 * // => Status: 10000 to 10000, failed
 * // => Answer: 10000 to 10000, complete
 * ```
 *
 * @since 0.1.0
 */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Calls } from "../internal/loopback/calls.ts"
import * as Conversation from "../internal/loopback/conversation.ts"
import * as Paces from "../internal/loopback/paces.ts"
import * as Scripted from "../internal/loopback/scripted.ts"
import type { Pace } from "../internal/loopback/speech.ts"
import { check as checkTurns } from "../internal/loopback/turns.ts"
import * as Turn from "./Turn.ts"

/**
 * One call of the model. Times are milliseconds of the `Clock`: under the `TestClock`, since the test began.
 *
 * @since 0.1.0
 * @category models
 */
export const Call = Schema.Struct({
  /** Counts the calls from 1, in the order in which they came. */
  n: Schema.Int,
  /** Which attempt at this prompt it was, by `CurrentAttempt`, or else as its prompts are counted. */
  attempt: Schema.Int,
  /** `generateText` stands for `generateObject` too; `embedMany` is of a `ScriptedEmbedding`. */
  method: Schema.Literals(["generateText", "streamText", "embedMany"]),
  model: Schema.String,
  /** The text of the last message of the user; of embeddings, all inputs, one a line. */
  prompt: Schema.String,
  /** Stands for the whole conversation, as in `Journal`. */
  digest: Schema.String,
  /** What it met. Left out: it was answered as if there were no turns. */
  turn: Schema.optionalKey(Turn.Tag),
  startedAt: Schema.Finite,
  /** When the first part was handed on; of a whole answer, when all of it was. */
  firstPartAt: Schema.optionalKey(Schema.Finite),
  endedAt: Schema.optionalKey(Schema.Finite),
  /** `open`: it has not ended. */
  ending: Schema.Literals(["open", "complete", "failed", "interrupted"]),
  /** What its caller set as `CurrentIdempotencyKey`. */
  idempotencyKey: Schema.optionalKey(Schema.String),
  /** How long its caller was asked to stay away. */
  retryAfterMillis: Schema.optionalKey(Schema.Finite),
  /** Tokens of the prompt, paid as soon as an answer has begun. */
  inputTokens: Schema.Int,
  /** Tokens that were produced, paid whatever became of them. */
  outputTokens: Schema.Int,
  /** How many calls were open when it came, with itself. */
  open: Schema.Int
})

/**
 * @since 0.1.0
 * @category models
 */
export type Call = typeof Call.Type

/**
 * What a model is built from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** What its calls meet, see `Turn.Turns`. Default: good answers. */
  readonly turns?: Turn.Turns | undefined
  /** What is said where a turn says nothing. Default: an echo that says that it is one. */
  readonly answer?: string | ((prompt: string) => string) | undefined
  /** How fast answers are given that do not say it themselves. Default: at once. */
  readonly pace?: Turn.Pace | undefined
  /** What the model is called, in its answers and to those who ask for `Model.ModelName`. Default `scripted`. */
  readonly name?: string | undefined
  /** What its provider is called to those who ask for `Model.ProviderName`. Default `scripted`. */
  readonly provider?: string | undefined
  /** How a stream tells what goes wrong within it, see above. Default `parts`. */
  readonly streamErrors?: "parts" | "failures" | undefined
}

/**
 * A scripted model, and what it saw.
 *
 * @since 0.1.0
 * @category services
 */
export class ScriptedModel extends Context.Service<ScriptedModel, {
  readonly name: string
  /** The model itself. */
  readonly model: LanguageModel.LanguageModel
  /** The same as a layer, for what is built from layers. */
  readonly layer: Layer.Layer<LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName>
  /** Every call so far, the oldest first, also those that have not ended. */
  readonly journal: Effect.Effect<ReadonlyArray<Call>>
  /** How many calls are open now. */
  readonly open: Effect.Effect<number>
  /** Forgets the calls and begins its turns anew. */
  readonly clear: Effect.Effect<void>
}>()("@sluice/ai/testing/ScriptedModel") {}

/**
 * Builds a model.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options?: Options): Effect.Effect<ScriptedModel["Service"], InvalidOptions> =>
  Effect.flatMap(check(options), (pace) => build(options ?? {}, pace))

/**
 * Provides a model, as the `LanguageModel` of a program and as what the test looks at.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: Options
): Layer.Layer<
  ScriptedModel | LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName,
  InvalidOptions
> =>
  Layer.effectContext(
    Effect.map(make(options), (scripted) =>
      Context.make(ScriptedModel, scripted).pipe(Context.merge(contextOf(scripted, options?.provider))))
  )

const contextOf = (scripted: Pick<ScriptedModel["Service"], "model" | "name">, provider: string | undefined) =>
  Context.make(LanguageModel.LanguageModel, scripted.model).pipe(
    Context.add(Model.ProviderName, provider ?? "scripted"),
    Context.add(Model.ModelName, scripted.name)
  )

const check = (options: Options | undefined) => {
  const checked = new OptionsReader("ScriptedModel")
  checkTurns(checked, options?.turns)
  return checked.check(Paces.check(checked, options?.pace))
}

const build = Effect.fnUntraced(function*(options: Options, pace: Pace) {
  const name = options.name ?? "scripted"
  const { answer } = options
  const calls = new Calls({
    turns: options.turns,
    pace,
    streamErrors: options.streamErrors ?? "parts",
    say: (prompt) => typeof answer === "function" ? answer(prompt) : answer ?? `Scripted echo: ${prompt}`
  }, yield* Clock.Clock)

  const begin = (method: Call["method"], { prompt }: LanguageModel.ProviderOptions) =>
    calls.begin(method, () => Conversation.fromPrompt(prompt, name))

  const model = yield* LanguageModel.make({
    generateText: (asked) => Effect.flatMap(begin("generateText", asked), Scripted.whole),
    streamText: (asked) => Stream.unwrap(Effect.map(begin("streamText", asked), Scripted.streamed)),
    supportsSystemMessagesInHistory: Effect.succeed(true)
  })
  const scripted = { name, model }
  return ScriptedModel.of({
    ...scripted,
    layer: Layer.succeedContext(contextOf(scripted, options.provider)),
    journal: calls.journal,
    open: calls.open,
    clear: calls.clear
  })
})
