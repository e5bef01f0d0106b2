/**
 * Metrics and spans of calls to language models, under the names that OpenTelemetry's conventions for generative AI give them.
 *
 * **When to use**
 *
 * A `ResilientModel` has them built in. `layer` gives them to any other `LanguageModel`, Effect's own providers among them.
 *
 * **Details**
 *
 * Metrics, always, as histograms with the buckets of the conventions:
 *
 * | metric | unit | |
 * |---|---|---|
 * | `gen_ai.client.operation.duration` | s | every call |
 * | `gen_ai.client.token.usage` | {token} | by `gen_ai.token.type`, where the provider says |
 * | `gen_ai.client.operation.time_to_first_chunk` | s | streams that began |
 * | `gen_ai.client.operation.time_per_output_chunk` | s | streams, each chunk of output after the first |
 *
 * Spans, where the program has a tracer: `chat {model}`, of kind client, one for each attempt. The span that Effect's model would
 * open for the same thing is folded into it, so that nothing stands there twice; HTTP spans are its children.
 *
 * Without a tracer a call pays for two looks at the clock and for a few numbers.
 *
 * **Gotchas**
 *
 * - Prompts, answers and errors in a provider's words stay out, unless `Content` lets them in.
 * - What a provider calls the model that answers is a label for the first 20 names of each target, and `_OTHER` after them.
 * - A stream that is left before its end has `error.type` `Interrupted`, like a call that is interrupted: its duration says
 *   nothing about the provider.
 *
 * **Example** (Metrics of a model)
 *
 * ```ts
 * import { Effect, Layer, Metric } from "effect"
 * import { LanguageModel } from "effect/ai"
 * import * as GenAiTelemetry from "@sluice/ai/GenAiTelemetry"
 *
 * const finish = {
 *   type: "finish",
 *   reason: "stop",
 *   response: undefined,
 *   usage: {
 *     inputTokens: { uncached: 3, total: 3, cacheRead: undefined, cacheWrite: undefined },
 *     outputTokens: { total: 5, text: 5, reasoning: undefined }
 *   }
 * } as const
 * const Hello = Layer.effect(
 *   LanguageModel.LanguageModel,
 *   LanguageModel.make({
 *     generateText: () => Effect.succeed([{ type: "text", text: "hello" }, finish]),
 *     streamText: () => { throw new Error("not in this example") }
 *   })
 * )
 * const Model = GenAiTelemetry.layer({ provider: "acme", model: "hello-1" }).pipe(Layer.provide(Hello))
 *
 * const program = Effect.andThen(LanguageModel.generateText({ prompt: "Good morning" }), Metric.snapshot).pipe(
 *   Effect.provide(Model),
 *   Effect.provideService(Metric.MetricRegistry, new Map())
 * )
 * const metrics = await Effect.runPromise(program)
 * console.log([...new Set(metrics.map(({ id }) => id))].join(" "))
 * // => gen_ai.client.operation.duration gen_ai.client.token.usage
 * ```
 *
 * @since 0.1.0
 */
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import type * as Tool from "effect/ai/Tool"
import type * as Toolkit from "effect/ai/Toolkit"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { Attempt, CurrentContent } from "./internal/telemetry/attempt.ts"
import * as Mark from "./internal/telemetry/mark.ts"
import type { Operation, Place } from "./internal/telemetry/operation.ts"

/**
 * How much content spans show.
 *
 * @since 0.1.0
 * @category models
 */
export interface ContentOptions {
  /**
   * The most characters of each attribute, roughly: what is too long is cut, what is too much is left out, the oldest messages
   * first, and `sluice.content.truncated` says so. Default 16 Ki: many backends cut or refuse longer ones.
   */
  readonly maxLength?: number | undefined
}

/**
 * Switches content on within its reach: prompts, answers, instructions and definitions of tools become attributes of spans, and
 * errors are recorded in full, in a provider's words. Default: off.
 *
 * **Gotchas**
 *
 * - Whoever sees the traces sees what users write. Metrics never hold content.
 * - Bytes of files are left out; arguments and results of tools are in.
 *
 * @since 0.1.0
 * @category references
 */
export const Content: Context.Reference<ContentOptions | undefined> = CurrentContent

/**
 * What the metrics and spans call the model.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The provider as the conventions spell it: `openai`, `anthropic`, `aws.bedrock`, `gcp.gemini`. Default: the `Model.ProviderName`
   * that the layer finds, else `_OTHER`.
   */
  readonly provider?: string | undefined
  /** The model that is asked for. Default: the `Model.ModelName` that the layer finds, else `_OTHER`. */
  readonly model?: string | undefined
  /** Where it is. Default: not said. */
  readonly server?: { readonly address: string; readonly port?: number | undefined } | undefined
  /** What the program calls it, for spans. Default: provider and model. */
  readonly target?: string | undefined
}

/**
 * Gives metrics and spans to the `LanguageModel` that it is provided with.
 *
 * **Details**
 *
 * A model that has them, a `ResilientModel` or one of another such layer, stays as it is, so nothing is counted twice. Where tools
 * run within a call of `generateText`, the operation ends when the model has answered.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: Options
): Layer.Layer<LanguageModel.LanguageModel, never, LanguageModel.LanguageModel> =>
  Layer.effect(
    LanguageModel.LanguageModel,
    Effect.gen(function*() {
      const model = yield* LanguageModel.LanguageModel
      const provider = yield* Effect.serviceOption(Model.ProviderName)
      const name = yield* Effect.serviceOption(Model.ModelName)
      return instrument(model, {
        provider: options?.provider ?? Option.getOrUndefined(provider),
        model: options?.model ?? Option.getOrUndefined(name),
        server: options?.server,
        target: options?.target
      })
    })
  )

/**
 * The same model with metrics and spans.
 *
 * @since 0.1.0
 * @category combinators
 */
export const instrument = (model: LanguageModel.LanguageModel, options: Options): LanguageModel.LanguageModel => {
  if (Mark.isMarked(model)) return model
  const provider = options.provider ?? "_OTHER"
  const name = options.model ?? "_OTHER"
  const place: Place = {
    provider,
    model: name,
    server: options.server,
    target: options.target ?? `${provider}/${name}`
  }

  const attempt = (call: Call, streams: boolean, output: Operation["output"]): Attempt =>
    new Attempt({
      name: "chat",
      place,
      attempt: 1,
      streams,
      output,
      content: () => ({ prompt: call.prompt, tools: toolsOf(call.toolkit) })
    })

  const effect = <A extends { readonly content: ReadonlyArray<Response.AnyPart> }, E, R>(
    call: Call,
    output: Operation["output"],
    ask: (call: Call) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      const watch = attempt(call, false, output)
      return watch.effect(ask(noticingTools(call, watch)), ({ content }) => watch.parts(content))
    })

  // What the service gives and takes depends on its options, in overloads that nobody but LanguageModel can spell. Each of these
  // hands on what it was given, and what it gets.
  const bare = model as unknown as Untyped
  const watched: Untyped = {
    generateText: (call) => effect(call, "text", bare.generateText),
    generateObject: (call) => effect(call, "json", bare.generateObject),
    streamText: (call) => Stream.suspend(() => attempt(call, true, "text").stream(bare.streamText(call)))
  }
  return Mark.mark({ ...model, ...watched } as unknown as LanguageModel.LanguageModel)
}

interface Call {
  readonly prompt: Prompt.RawInput
  readonly toolkit?: unknown
}

type Whole = Effect.Effect<{ readonly content: ReadonlyArray<Response.AnyPart> }, unknown, unknown>

interface Untyped {
  readonly generateText: (call: Call) => Whole
  readonly generateObject: (call: Call) => Whole
  readonly streamText: (call: Call) => Stream.Stream<Response.AnyPart, unknown, unknown>
}

type AnyToolkit = Toolkit.WithHandler<Record<string, Tool.Any>>

/** Tells when the first tool is called: by then the model has answered. */
const noticingTools = (call: Call, attempt: Attempt): Call => {
  if (call.toolkit === undefined) return call
  const notice = (toolkit: AnyToolkit): AnyToolkit => ({
    ...toolkit,
    handle: (name, params, id, options) => {
      // A call that was approved runs before the model is asked.
      if (id === undefined || !isOld(call.prompt, id)) attempt.isAnswered()
      return toolkit.handle(name, params, id, options)
    }
  })
  const { toolkit } = call
  return {
    ...call,
    toolkit: Effect.isEffect(toolkit)
      ? Effect.map(toolkit as Effect.Effect<AnyToolkit, unknown, unknown>, notice)
      : notice(toolkit as AnyToolkit)
  }
}

const isOld = (prompt: Prompt.RawInput, id: string): boolean =>
  Prompt.make(prompt).content.some((message) =>
    message.role === "assistant" && message.content.some((part) => part.type === "tool-call" && part.id === id)
  )

/** The tools of a toolkit, with its handlers or without. What an effect makes later is not known here. */
const toolsOf = (toolkit: unknown): ReadonlyArray<Tool.Any> =>
  (typeof toolkit === "object" || typeof toolkit === "function") && toolkit !== null && "tools" in toolkit
    ? Object.values(toolkit.tools as Record<string, Tool.Any>)
    : []
