/**
 * A `LanguageModel` for every server with Anthropic's messages API: Anthropic, and the gateways and vendors that offer it.
 *
 * It differs from `OpenAiCompatible` in its wire only, so either can replace the other. It makes one request per call, and
 * neither retries nor waits: a policy does.
 *
 * **When to use**
 *
 * With any URL that ends in `/v1/messages`. Call it through Effect's `LanguageModel.generateText`, `generateObject` and
 * `streamText`, with tools and `Chat`.
 *
 * **Details**
 *
 * | stop reason | finish reason |
 * |---|---|
 * | `end_turn`, `stop_sequence` | `stop` |
 * | `max_tokens`, `model_context_window_exceeded` | `length` |
 * | `tool_use` | `tool-calls` |
 * | `refusal` | `content-filter` |
 * | `pause_turn` | `pause` |
 * | any other | `other` |
 *
 * - A stream succeeds only if it has a stop reason. Without one it fails as truncated. `message_stop` may be missing.
 * - Content after a stop reason continues the stream. It is over at `message_stop`, at the close, or 5 s after the stop reason.
 * - An error event within a stream fails like its status: `overloaded_error` like 529, `rate_limit_error` like 429,
 *   `billing_error` as an exhausted quota.
 * - Thinking becomes reasoning parts. Their metadata keeps the signature under `anthropic` and sends it back with the
 *   conversation, which Anthropic requires after a tool call. Thinking without a signature, of another vendor, is left out.
 * - The part option `anthropic.cacheControl` marks the end of a cacheable prefix.
 * - Files are sent as images, PDF or plain text, by bytes or by URL.
 * - The key is `Redacted` up to the header. Errors mask it, and every other string that looks like a key.
 * - Spans hold no prompt, response, header or query. Redirects are not followed.
 *
 * **Gotchas**
 *
 * - The API requires a limit for the response: 4096 tokens unless `maxTokens` is set. It has to exceed the thinking budget if
 *   `body` turns thinking on.
 * - System messages after the beginning of the conversation are refused.
 * - It needs an `HttpClient`. Use `HttpTransport.layer`. Any other client must not follow redirects.
 * - A retry around `generateText` with a toolkit runs the tool handlers again. Retry the model instead.
 *
 * **Example** (A model from the environment)
 *
 * ```ts
 * import { Config, ConfigProvider, Effect, Layer } from "effect"
 * import { Model } from "effect/ai"
 * import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
 * import * as HttpTransport from "@sluice/ai/HttpTransport"
 *
 * const Claude = AnthropicMessages.layerConfig({
 *   url: Config.String("ANTHROPIC_BASE_URL").pipe(Config.withDefault("https://api.anthropic.com")),
 *   model: Config.String("MODEL"),
 *   apiKey: Config.Redacted("ANTHROPIC_API_KEY")
 * }).pipe(
 *   Layer.provide(HttpTransport.layer()),
 *   Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ MODEL: "claude", ANTHROPIC_API_KEY: "sk-example" })))
 * )
 *
 * console.log(await Effect.runPromise(Effect.provide(Model.ProviderName, Claude))) // => api.anthropic.com
 * ```
 *
 * @since 0.1.0
 */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { toCodecAnthropic } from "effect/ai/AnthropicStructuredOutput"
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Model from "effect/ai/Model"
import type * as EffectConfig from "effect/Config"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import type * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import type * as WireConfig from "./internal/wire/config.ts"
import * as Provider from "./internal/wire/provider.ts"
import type * as Settings from "./internal/wire/settings.ts"
import type { Wire } from "./internal/wire/wire.ts"
import type { TextModel } from "./TextModel.ts"
import { defaultMaxTokens } from "./internal/wire/anthropic/maxTokens.ts"
import * as Request from "./internal/wire/anthropic/request.ts"
import * as Response from "./internal/wire/anthropic/response.ts"
import { StreamedResponse } from "./internal/wire/anthropic/streamedResponse.ts"

/**
 * The configuration of one request. The provider decides on every field that is left out.
 *
 * @since 0.1.0
 * @category models
 */
export interface RequestConfig extends WireConfig.RequestConfig {
  /** The model to call. */
  readonly model?: string | undefined
  /** A system prompt before that of the conversation. */
  readonly system?: string | undefined
  readonly temperature?: number | undefined
  /**
   * The longest response, in tokens. Default 4096, because the API requires a limit: about 3,000 words, within the limits of
   * every model. A longer response ends with the finish reason `length`.
   */
  readonly maxTokens?: number | undefined
  /**
   * How `generateObject` requests its object. Default `format`: the provider's structured output. `tool` makes the model
   * call a tool whose parameters are the object, for models without structured output. It does not work with thinking.
   */
  readonly objects?: "format" | "tool" | undefined
  /**
   * More fields of the request's JSON, such as `thinking`, `top_p` and `metadata`. They override those of this module, except
   * `model`, `system`, `messages`, `stream` and those that request an object.
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
  "@sluice/ai/AnthropicMessages/Config",
  { defaultValue: () => ({}) }
)

/**
 * Options for `make` and `layer`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends Settings.ProviderOptions<RequestConfig> {
  /** The API's base URL, such as `https://api.anthropic.com`. `/v1/messages` is added if it is missing. */
  readonly url: string
  /** Sent as `x-api-key`, or as `keyHeader` says. Default: none, for servers that need none. */
  readonly apiKey?: Redacted.Redacted | undefined
  /**
   * More headers of every request: `anthropic-beta`, another `anthropic-version`, those of a gateway. Default: none. For a
   * gateway that takes a bearer token, use `apiKey` with `keyHeader: "authorization"`.
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

/** The version of the API that this module uses. */
const version = "2023-06-01"

const path = "/v1/messages"

const wire: Wire<RequestConfig> = {
  module: "AnthropicMessages",
  endpointFormat: {
    example: "https://api.anthropic.com",
    path: (base) => base.endsWith(path) ? base : base.replace(/\/v1$/, "") + path
  },
  keyHeader: "x-api-key",
  headers: { "anthropic-version": version },
  fields: {
    required: ["messages"],
    own: [
      "model",
      "max_tokens",
      "output_config",
      "stream",
      "system",
      "temperature",
      "tools",
      "tool_choice"
    ]
  },
  config: Config,
  codecTransformer: toCodecAnthropic,
  acceptsSystemMessagesAnywhere: false,
  defaultMaxTokens,
  countsCacheReads: false,
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
 * Provides a model whose URL, model and key are read from the program's `ConfigProvider`. See the example of this module.
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
