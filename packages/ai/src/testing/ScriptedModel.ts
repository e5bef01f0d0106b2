/**
 * A `LanguageModel` test double that plays turns, without a socket and on Effect's `Clock`.
 *
 * **When to use**
 *
 * In tests of a policy, in place of a provider's layer. Under the `TestClock` a test runs an outage of an hour in a
 * millisecond, the same way every time. If bytes matter, or the client is not Effect's, use `LoopbackProvider`: it
 * plays the same turns over HTTP.
 *
 * **Details**
 *
 * - Its errors are those of `OpenAiCompatible` for the same turn: a `RateLimitError` with its retryAfter, an
 *   `InternalProviderError` with status and headers, a `NetworkError` for a connection reset.
 * - By default a stream reports a late failure as a part of type `error`, like Effect's own providers. A cut stream ends
 *   without a `finish` part. With `streamErrors: "failures"` both fail, as in `OpenAiCompatible`. A whole answer always
 *   fails.
 * - The journal has every call: its start, first part and end. A call is complete with its `finish` part, failed if it
 *   ended without one, and interrupted if its caller interrupted it or left.
 *
 * **Gotchas**
 *
 * - A silent turn never ends by itself. Without a timeout, the policy and the test hang.
 * - Under the `TestClock` the call has to run in a fiber of its own, while the test adjusts the clock.
 *
 * **Example** (A silent provider times out, and the call is retried)
 *
 * ```ts
 * import { Effect, Fiber } from "effect"
 * import { LanguageModel } from "effect/ai"
 * import { TestClock } from "effect/testing"
 * import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
 * import * as Turn from "@sluice/ai/testing/Turn"
 *
 * // The policy under test: a timeout of ten seconds, and three attempts.
 * const call = LanguageModel.generateText({ prompt: "Good morning" }).pipe(
 *   Effect.timeout("10 seconds"),
 *   Effect.retry({ times: 2 })
 * )
 *
 * const test = Effect.gen(function*() {
 *   const model = yield* ScriptedModel.ScriptedModel
 *   const fiber = yield* Effect.forkChild(call)
 *   yield* TestClock.adjust("10 seconds")
 *   console.log((yield* Fiber.join(fiber)).text)
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
 * One call of the model. Times are milliseconds of the `Clock`. The `TestClock` starts at 0.
 *
 * @since 0.1.0
 * @category models
 */
export const Call = Schema.Struct({
  /** The number of the call, from 1. */
  n: Schema.Int,
  /** The number of the attempt at this prompt: `CurrentAttempt`, or else how often the prompt was seen. */
  attempt: Schema.Int,
  /** `generateText` includes `generateObject`. `embedMany` is a call of a `ScriptedEmbedding`. */
  method: Schema.Literals(["generateText", "streamText", "embedMany"]),
  model: Schema.String,
  /** The text of the last user message. For embeddings: all inputs, one a line. */
  prompt: Schema.String,
  /** The digest of the whole conversation, as in `Journal`. */
  digest: Schema.String,
  /** The turn that was played. Absent if there was none. */
  turn: Schema.optionalKey(Turn.Tag),
  startedAt: Schema.Finite,
  /** When the first part was emitted, or a whole answer returned. */
  firstPartAt: Schema.optionalKey(Schema.Finite),
  endedAt: Schema.optionalKey(Schema.Finite),
  /** `open`: it has not ended. */
  ending: Schema.Literals(["open", "complete", "failed", "interrupted"]),
  /** The caller's `CurrentIdempotencyKey`. */
  idempotencyKey: Schema.optionalKey(Schema.String),
  /** The Retry-After of its error. */
  retryAfterMillis: Schema.optionalKey(Schema.Finite),
  /** Tokens of the prompt. Paid as soon as an answer has begun. */
  inputTokens: Schema.Int,
  /** Tokens that were produced. Paid even if the answer is cut. */
  outputTokens: Schema.Int,
  /** How many calls were open when it started, including itself. */
  open: Schema.Int
})

/**
 * @since 0.1.0
 * @category models
 */
export type Call = typeof Call.Type

/**
 * Options for `make` and `layer`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The turns of its calls. Default: every call gets a complete answer. */
  readonly turns?: Turn.Turns | undefined
  /** The text of turns without content. Default: `Scripted echo:` and the prompt. */
  readonly answer?: string | ((prompt: string) => string) | undefined
  /** How fast answers are sent, unless their turn says. Default: all at once. */
  readonly pace?: Turn.Pace | undefined
  /** The model's name, in its answers and as `Model.ModelName`. Default `scripted`. */
  readonly name?: string | undefined
  /** The value of `Model.ProviderName`. Default `scripted`. */
  readonly provider?: string | undefined
  /** Whether a stream reports a late failure as parts, or fails. Default `parts`, like Effect's own providers. */
  readonly streamErrors?: "parts" | "failures" | undefined
}

/**
 * A scripted model and its journal.
 *
 * @since 0.1.0
 * @category services
 */
export class ScriptedModel extends Context.Service<ScriptedModel, {
  readonly name: string
  readonly model: LanguageModel.LanguageModel
  /** Provides the model, for a target of a `ResilientModel`. */
  readonly layer: Layer.Layer<LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName>
  /** All calls in order, also those that have not ended. */
  readonly journal: Effect.Effect<ReadonlyArray<Call>>
  /** How many calls are open now. */
  readonly open: Effect.Effect<number>
  /** Clears the journal, and starts the turns again. */
  readonly clear: Effect.Effect<void>
}>()("@sluice/ai/testing/ScriptedModel") {}

/**
 * Builds a scripted model.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options?: Options): Effect.Effect<ScriptedModel["Service"], InvalidOptions> =>
  Effect.flatMap(check(options), (pace) => build(options ?? {}, pace))

/**
 * Provides a scripted model: as the `LanguageModel` of the program, and as `ScriptedModel` for the test.
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
    generateText: (request) => Effect.flatMap(begin("generateText", request), Scripted.whole),
    streamText: (request) => Stream.unwrap(Effect.map(begin("streamText", request), Scripted.streamed)),
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
