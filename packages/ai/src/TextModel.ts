/**
 * A model that answers a prompt with one whole text, without tools.
 *
 * The answer is requested as a stream and collected, so the limits for the first token and for silence hold for it, and a call
 * costs less than half of `LanguageModel.streamText`, since no parts are encoded and decoded.
 *
 * **When to use**
 *
 * For many prompts whose answers are used only when complete: files of prompts, evaluations, classification. For tools, objects
 * or text that is shown as it arrives, use Effect's `LanguageModel`.
 *
 * **Details**
 *
 * - `OpenAiCompatible.layerText` and `AnthropicMessages.layerText` make one request per call, and neither retry nor wait.
 *   `ResilientModel.layerText` adds retries, fallback, circuits and limits.
 * - Requests and errors are those of `streamText` of the same module, and `withConfigOverride` configures them.
 * - An answer is complete or the call fails. A failure after partial output is an ordinary failed attempt, which is retried.
 *
 * **Gotchas**
 *
 * - `Prompt.make` decodes a list of messages with a schema. `Prompt.makeMessage` and `Prompt.fromMessages` cost less.
 * - A tool call that the model makes without having tools is dropped. The finish reason is then `tool-calls`.
 * - There is no span for the call itself, only that of the request, and that of `GenAiTelemetry` for each attempt.
 *
 * **Example** (The answer of the second target)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Prompt } from "effect/ai"
 * import * as HttpTransport from "@sluice/ai/HttpTransport"
 * import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
 * import * as ResilientModel from "@sluice/ai/ResilientModel"
 * import * as TextModel from "@sluice/ai/TextModel"
 * import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
 * import * as Turn from "@sluice/ai/testing/Turn"
 *
 * const program = Effect.gen(function*() {
 *   const { apiKey, url } = yield* LoopbackProvider.LoopbackProvider
 *   const model = OpenAiCompatible.layerText({ url, apiKey, model: "loopback" })
 *   const Model = ResilientModel.layerText({ targets: [{ name: "a", layer: model }, { name: "b", layer: model }] })
 *   const { from, text } = yield* Effect.flatMap(TextModel.TextModel, ({ ask }) => ask(Prompt.make("Hello"))).pipe(
 *     Effect.provide(Layer.provide(Model, HttpTransport.layer()))
 *   )
 *   return `${text}, from ${from?.target}`
 * }).pipe(Effect.provide(LoopbackProvider.layer({ turns: [Turn.status(503), Turn.status(503), Turn.answer("Good morning")] })))
 *
 * console.log(await Effect.runPromise(program)) // => Good morning, from b
 * ```
 *
 * @since 0.1.0
 */
import type * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import { factsOf, setFacts } from "./internal/kit/modelFacts.ts"

/**
 * A complete answer.
 *
 * @since 0.1.0
 * @category models
 */
export interface Answer {
  /** The provider's id of the response. */
  readonly id: string | undefined
  /** The model that answered, in the provider's words. */
  readonly model: string | undefined
  readonly text: string
  /** The reasoning before and between the text, if the provider returns it. */
  readonly reasoning: string
  readonly finishReason: Response.FinishReason
  /** The token counts that the provider reported. */
  readonly usage: Response.FinishPartEncoded["usage"]
  /** Which target answered. `undefined` without `ResilientModel`. */
  readonly from: Source | undefined
}

/**
 * Which target of a `ResilientModel` answered, after how many attempts, and for how many tokens.
 *
 * @since 0.1.0
 * @category models
 */
export interface Source {
  /** The id of the call, as in its log. */
  readonly call: string
  readonly target: string
  readonly provider: string
  readonly model: string
  readonly attempts: number
  readonly inputTokens: number
  readonly outputTokens: number
  /** Whether counts are estimates, one token for four characters, since the provider did not report all of them. */
  readonly estimated: boolean
}

/**
 * A model that answers with one whole text.
 *
 * @since 0.1.0
 * @category services
 */
export interface TextModel {
  /** Answers a prompt. Fails with the errors of a stream. */
  readonly ask: (prompt: Prompt.Prompt) => Effect.Effect<Answer, AiError.AiError>
}

/**
 * The service of the model.
 *
 * @since 0.1.0
 * @category services
 */
export const TextModel: Context.Service<TextModel, TextModel> = Context.Service<TextModel>("@sluice/ai/TextModel")

/**
 * Wraps a model, for example to observe its calls.
 *
 * **Details**
 *
 * A quota of `ResilientModel` reserves the same amounts as for `inner`, since it still reads the maximum number of output
 * tokens of each call, also from `withConfigOverride`. Without this function it reads only `TargetOptions.maxOutputTokens`.
 *
 * **Example** (Count the calls)
 *
 * ```ts
 * import * as TextModel from "@sluice/ai/TextModel"
 * import { Effect } from "effect"
 *
 * const counted = (inner: TextModel.TextModel, count: () => void) =>
 *   TextModel.over(inner, (prompt) => Effect.andThen(Effect.sync(count), inner.ask(prompt)))
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const over = (inner: TextModel | LanguageModel.LanguageModel, ask: TextModel["ask"]): TextModel => {
  const facts = factsOf(inner)
  return facts === undefined ? { ask } : setFacts({ ask }, facts)
}

/**
 * A function that is called with the number of characters that an answer has so far, reasoning included, whenever more arrive.
 * Default `undefined`.
 *
 * **When to use**
 *
 * In a program that shows the progress of its calls. The text itself is not passed, since a failed attempt is repeated.
 *
 * @since 0.1.0
 * @category references
 */
export const OnContent: Context.Reference<((characters: number) => void) | undefined> = Context.Reference<
  ((characters: number) => void) | undefined
>("@sluice/ai/TextModel/OnContent", { defaultValue: () => undefined })
