/**
 * A `LanguageModel` for every server with OpenAI's chat completions API: OpenAI, Ollama, llama.cpp, vLLM, OpenRouter, Groq,
 * Mistral, LiteLLM and many more. With `layerEmbedding`, an `EmbeddingModel` for those with its embeddings.
 *
 * It makes one request per call. It neither retries nor waits: a policy does, and finds everything it needs in the typed
 * errors, such as the status, the headers and the Retry-After.
 *
 * **When to use**
 *
 * With any URL that ends in `/chat/completions`. Call it through Effect's `LanguageModel.generateText`, `generateObject` and
 * `streamText`, with tools and `Chat`.
 *
 * **Details**
 *
 * - A stream succeeds only if it has a finish reason. Without one it fails as truncated. `[DONE]` and token counts may be
 *   missing.
 * - Content after a finish reason continues the stream. It is over at `[DONE]`, at the close, or 5 s after the finish reason.
 * - Thoughts and signatures beside a tool call go back with the next request to the same host, as DeepSeek and Gemini require.
 * - An error event within a stream, after status 200, fails the stream.
 * - The key is `Redacted` up to the header. Errors mask it, and every other string that looks like a key.
 * - Spans hold no prompt, response, header or query.
 * - Redirects are not followed: they would carry key and prompt to another host.
 *
 * **Gotchas**
 *
 * - It needs an `HttpClient`. Use `HttpTransport.layer`. Any other client must not follow redirects.
 * - A retry around `generateText` with a toolkit runs the tool handlers again. Retry the model instead.
 * - A tool's schema is sent unchanged. Annotate it with `Tool.Strict` only if it is within what the provider calls strict.
 *
 * **Example** (Calling a server on this machine)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { LanguageModel } from "effect/ai"
 * import * as HttpTransport from "@sluice/ai/HttpTransport"
 * import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
 * import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
 *
 * const program = Effect.gen(function*() {
 *   const { apiKey, url } = yield* LoopbackProvider.LoopbackProvider
 *   const Model = OpenAiCompatible.layer({ url, apiKey, model: "loopback" }).pipe(Layer.provide(HttpTransport.layer()))
 *   const response = yield* LanguageModel.generateText({ prompt: "Good morning" }).pipe(Effect.provide(Model))
 *   return response.text
 * }).pipe(Effect.provide(LoopbackProvider.layer()))
 *
 * console.log(await Effect.runPromise(program)) // => Loopback echo: Good morning
 * ```
 *
 * @since 0.1.0
 */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as EmbeddingModel from "effect/ai/EmbeddingModel"
import type * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import type * as EffectConfig from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import type * as WireConfig from "./internal/wire/config.ts"
import * as Provider from "./internal/wire/provider.ts"
import type * as Settings from "./internal/wire/settings.ts"
import type { Wire } from "./internal/wire/wire.ts"
import type { TextModel } from "./TextModel.ts"
import * as Embeddings from "./internal/wire/openai/embeddings.ts"
import * as Request from "./internal/wire/openai/request.ts"
import * as Response from "./internal/wire/openai/response.ts"
import { StreamedResponse } from "./internal/wire/openai/streamedResponse.ts"

/**
 * The configuration of one request. The provider decides on every field that is left out.
 *
 * @since 0.1.0
 * @category models
 */
export interface RequestConfig extends WireConfig.RequestConfig {
  /** The model to call. */
  readonly model?: string | undefined
  /** A system message before all others. */
  readonly system?: string | undefined
  readonly temperature?: number | undefined
  /**
   * The longest response, in tokens. Sent as `max_tokens`, and to api.openai.com as `max_completion_tokens`. For another server
   * with the new name: `fields: { rename: { max_tokens: "max_completion_tokens" } }` in the options.
   */
  readonly maxTokens?: number | undefined
  /**
   * More fields of the request's JSON, as the provider documents them. They override those of this module, except `model`,
   * `messages` and `stream`. Those of `stream_options` are merged, and sent with streams only. With `max_tokens` or
   * `max_completion_tokens` here, `maxTokens` is not sent.
   */
  readonly body?: { readonly [field: string]: Schema.Json } | undefined
}

/**
 * The configuration of the requests of an effect, merged over the one that the model was built with.
 *
 * @since 0.1.0
 * @category references
 */
export const Config: Context.Reference<RequestConfig> = Context.Reference<RequestConfig>(
  "@sluice/ai/OpenAiCompatible/Config",
  { defaultValue: () => ({}) }
)

/**
 * Options for `make` and `layer`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends Settings.ProviderOptions<RequestConfig> {
  /** The API's base URL, such as `https://api.openai.com/v1`. `/chat/completions` is added if it is missing. */
  readonly url: string
  /** Sent as a bearer token, or as `keyHeader` says. Default: none, for servers that need none. */
  readonly apiKey?: Redacted.Redacted | undefined
  /**
   * More headers of every request: `OpenAI-Organization`, `HTTP-Referer` for OpenRouter, those of a gateway. Default: none.
   *
   * Errors of this module never show a value. A `Redacted` value is masked like the key wherever the provider repeats it.
   * Refused: the header of the `apiKey`, if there is one, and headers of the transport, such as `content-type`.
   */
  readonly headers?: { readonly [name: string]: string | Redacted.Redacted } | undefined
}

/**
 * Options for `layerConfig`: the URL, the model and the key come from the program's configuration.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConfigOptions extends Provider.ProviderConfigOptions<RequestConfig> {}

const path = "/chat/completions"

const wire: Wire<RequestConfig> = {
  module: "OpenAiCompatible",
  endpointFormat: {
    example: "https://api.openai.com/v1",
    path: (base) => base.endsWith(path) ? base : base + path
  },
  keyHeader: "authorization",
  headers: {},
  fields: {
    required: ["messages"],
    own: ["model", "response_format", "stream", "stream_options", "temperature", "tools", "tool_choice"]
  },
  config: Config,
  codecTransformer: toCodecOpenAI,
  acceptsSystemMessagesAnywhere: true,
  defaultMaxTokens: undefined,
  countsCacheReads: true,
  body: Request.body,
  response: Response.read,
  streamedResponse: ({ origin }, { bounds, newId, response }) => new StreamedResponse(origin, response, bounds, newId)
}

const provider = Provider.makeProvider(wire)

/**
 * Configures the requests of one effect.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withConfigOverride: {
  (config: RequestConfig): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, config: RequestConfig): Effect.Effect<A, E, R>
} = provider.withConfigOverride

/**
 * Builds a model.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (
  options: Options
) => Effect.Effect<LanguageModel.LanguageModel, InvalidOptions, HttpClient.HttpClient> = provider.make

/**
 * Builds a `TextModel`, which answers with one whole text.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeText: (
  options: Options
) => Effect.Effect<TextModel, InvalidOptions, HttpClient.HttpClient> = provider.makeText

/**
 * Provides a model, with `Model.ProviderName` and `Model.ModelName`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: (
  options: Options
) => Layer.Layer<
  LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName,
  InvalidOptions,
  HttpClient.HttpClient
> = provider.layer

/**
 * Provides a `TextModel`, with `Model.ProviderName` and `Model.ModelName`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerText: (
  options: Options
) => Layer.Layer<
  TextModel | Model.ProviderName | Model.ModelName,
  InvalidOptions,
  HttpClient.HttpClient
> = provider.layerText

/**
 * Provides a model whose URL, model and key are read from the program's `ConfigProvider`.
 *
 * **Example** (A model from the environment)
 *
 * ```ts
 * import { Config, ConfigProvider, Effect, Layer } from "effect"
 * import { Model } from "effect/ai"
 * import * as HttpTransport from "@sluice/ai/HttpTransport"
 * import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
 *
 * const Live = OpenAiCompatible.layerConfig({
 *   url: Config.String("MODEL_URL").pipe(Config.withDefault("https://api.openai.com/v1")),
 *   model: Config.String("MODEL"),
 *   apiKey: Config.Redacted("OPENAI_API_KEY")
 * }).pipe(
 *   Layer.provide(HttpTransport.layer()),
 *   Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ MODEL: "gpt", OPENAI_API_KEY: "sk-example" })))
 * )
 *
 * console.log(await Effect.runPromise(Effect.provide(Model.ModelName, Live))) // => gpt
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: (
  options: ConfigOptions
) => Layer.Layer<
  LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName,
  InvalidOptions | EffectConfig.ConfigError,
  HttpClient.HttpClient
> = provider.layerConfig

/**
 * Options for `makeEmbedding` and `layerEmbedding`: those of the connection, and of the vectors.
 *
 * @since 0.1.0
 * @category models
 */
export interface EmbeddingOptions extends Embeddings.EmbeddingOptions {
  /** The API's base URL, such as `https://api.openai.com/v1`. `/embeddings` is added if it is missing. */
  readonly url: string
}

/**
 * Builds an embedding model.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeEmbedding = (
  options: EmbeddingOptions
): Effect.Effect<EmbeddingModel.EmbeddingModel, InvalidOptions, HttpClient.HttpClient> =>
  Effect.flatMap(Embeddings.settingsOf(options), (settings) => Embeddings.make(options, settings))

/**
 * Provides an `EmbeddingModel`, with `Model.ProviderName` and `Model.ModelName`.
 *
 * **Details**
 *
 * - Vectors are in the order of the texts, by the indexes that the provider gives. Both forms of a vector are read: a list of
 *   numbers, and base64 of 32-bit floats.
 * - Fails, and never returns part of the vectors, if there is not one for each text, or one has a number that is not finite.
 * - Errors are those of the language model. Several requests of one call fail as one.
 * - Concurrent calls of `embed` share a request: Effect's `EmbeddingModel` batches them.
 *
 * **Gotchas**
 *
 * - It neither retries nor falls back: use `ResilientModel.layerEmbedding`. Vectors of two models cannot be compared.
 * - With an idempotency key, each of several requests of one call has its own: the key and its number.
 *
 * **Example** (Vectors of two texts)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { EmbeddingModel } from "effect/ai"
 * import * as HttpTransport from "@sluice/ai/HttpTransport"
 * import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
 * import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
 *
 * const program = Effect.gen(function*() {
 *   const { apiKey, url } = yield* LoopbackProvider.LoopbackProvider
 *   const Model = OpenAiCompatible.layerEmbedding({ url, apiKey, model: "loopback" }).pipe(
 *     Layer.provide(HttpTransport.layer())
 *   )
 *   const embedMany = Effect.flatMap(EmbeddingModel.EmbeddingModel, (model) => model.embedMany(["cat", "dog"]))
 *   const { embeddings } = yield* Effect.provide(embedMany, Model)
 *   return embeddings.map(({ vector }) => vector.length)
 * }).pipe(Effect.provide(LoopbackProvider.layer()))
 *
 * console.log(await Effect.runPromise(program)) // => [ 16, 16 ]
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerEmbedding = (
  options: EmbeddingOptions
): Layer.Layer<
  EmbeddingModel.EmbeddingModel | Model.ProviderName | Model.ModelName,
  InvalidOptions,
  HttpClient.HttpClient
> =>
  Layer.effectContext(
    Effect.flatMap(Embeddings.settingsOf(options), (settings) =>
      Effect.map(Embeddings.make(options, settings), (model) =>
        Context.make(EmbeddingModel.EmbeddingModel, model).pipe(
          Context.add(Model.ProviderName, settings.endpoint.host),
          Context.add(Model.ModelName, options.model)
        )))
  )
