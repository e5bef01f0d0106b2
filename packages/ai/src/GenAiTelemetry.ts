/**
 * Metrics and spans for calls of language models, by OpenTelemetry's conventions for generative AI.
 *
 * **When to use**
 *
 * `layer` adds them to any `LanguageModel`, such as those of Effect's own providers. `ResilientModel` has them built
 * in.
 *
 * **Details**
 *
 * Metrics are always recorded, as histograms with the buckets of the conventions:
 *
 * | metric | unit | recorded for |
 * |---|---|---|
 * | `gen_ai.client.operation.duration` | s | every call |
 * | `gen_ai.client.token.usage` | {token} | calls whose provider reports usage, by `gen_ai.token.type` |
 * | `gen_ai.client.operation.time_to_first_chunk` | s | streams with output |
 * | `gen_ai.client.operation.time_per_output_chunk` | s | each chunk of a stream's output after the first |
 *
 * Spans are recorded if the program has a tracer: `chat {model}`, of kind client, one for each attempt. It replaces the
 * span that Effect's model would open for the same call. HTTP spans are its children.
 *
 * Without a tracer, a call costs two readings of the clock and a few numbers.
 *
 * **Gotchas**
 *
 * - Spans have no prompts, no answers and no text of a provider's error unless `Content` is set.
 * - The response model is a label for the first 20 names of each target, and `_OTHER` for others.
 * - A stream whose consumer leaves early has `error.type` `Interrupted`, like an interrupted call. Its duration says
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
 * Options for content on spans.
 *
 * @since 0.1.0
 * @category models
 */
export interface ContentOptions {
  /**
   * About how many characters an attribute may have. Default 16 Ki, since many backends cut or refuse longer ones. Long
   * texts are cut, and the oldest messages are left out. Then `sluice.content.truncated` is set.
   */
  readonly maxLength?: number | undefined
}

/**
 * Switches content on for the spans of an effect. They show prompts, answers, instructions and tool definitions, and
 * errors in full. Default: off.
 *
 * **Gotchas**
 *
 * - The traces then show what users write, to everyone with access to them. Metrics never have content.
 * - Arguments and results of tools are included, bytes of files are not.
 *
 * @since 0.1.0
 * @category references
 */
export const Content: Context.Reference<ContentOptions | undefined> = CurrentContent

/**
 * Options for `layer` and `instrument`: the labels of metrics and spans.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The provider, as the conventions spell it: `openai`, `anthropic`, `aws.bedrock`, `gcp.gemini`. Default: for
   * `layer`, the `Model.ProviderName` in the context, otherwise `_OTHER`.
   */
  readonly provider?: string | undefined
  /** The requested model. Default: for `layer`, the `Model.ModelName` in the context, otherwise `_OTHER`. */
  readonly model?: string | undefined
  /** The server of the provider. Default: none. */
  readonly server?: { readonly address: string; readonly port?: number | undefined } | undefined
  /** The program's name for the model, for spans. Default: provider and model. */
  readonly target?: string | undefined
}

/**
 * Adds metrics and spans to the `LanguageModel` in the context.
 *
 * **Details**
 *
 * A model that has telemetry already, from `ResilientModel` or another such layer, stays as it is. So no call is
 * counted twice. If `generateText` runs tools, the operation ends when the model has answered.
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
 * Adds metrics and spans to a model.
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
    run: (call: Call) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      const watch = attempt(call, false, output)
      return watch.effect(run(watchingTools(call, watch)), ({ content }) => watch.parts(content))
    })

  // The types of the service's methods depend on the toolkit of each call. These methods pass options and results on as
  // they are.
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

/** Reports when the first tool runs: the model has answered by then. */
const watchingTools = (call: Call, attempt: Attempt): Call => {
  if (call.toolkit === undefined) return call
  const watched = (toolkit: AnyToolkit): AnyToolkit => ({
    ...toolkit,
    handle: (name, params, id, options) => {
      // A tool call of the prompt, which the user has approved, runs before the model is called.
      if (id === undefined || !isInPrompt(call.prompt, id)) attempt.modelAnswered()
      return toolkit.handle(name, params, id, options)
    }
  })
  const { toolkit } = call
  return {
    ...call,
    toolkit: Effect.isEffect(toolkit)
      ? Effect.map(toolkit as Effect.Effect<AnyToolkit, unknown, unknown>, watched)
      : watched(toolkit as AnyToolkit)
  }
}

const isInPrompt = (prompt: Prompt.RawInput, id: string): boolean =>
  Prompt.make(prompt).content.some((message) =>
    message.role === "assistant" && message.content.some((part) => part.type === "tool-call" && part.id === id)
  )

/** The tools of a toolkit, with or without handlers. Those of a toolkit that an effect returns are not known yet. */
const toolsOf = (toolkit: unknown): ReadonlyArray<Tool.Any> =>
  (typeof toolkit === "object" || typeof toolkit === "function") && toolkit !== null && "tools" in toolkit
    ? Object.values(toolkit.tools as Record<string, Tool.Any>)
    : []
