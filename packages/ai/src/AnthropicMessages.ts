/**
 * A `LanguageModel` for every server that speaks Anthropic's messages: Anthropic itself, and the gateways and other vendors
 * that offer the same wire.
 *
 * Like `OpenAiCompatible` it makes one request per call and neither retries nor waits: that is the policy's business, for
 * which its errors carry all that is needed, typed. The two differ in their wire and in nothing else, so that either can
 * stand in for the other.
 *
 * **When to use**
 *
 * With any URL that ends in `/v1/messages`. What is above it is plain Effect: `LanguageModel.generateText`, `generateObject`
 * and `streamText`, tools and `Chat`.
 *
 * **Details**
 *
 * | what ends the answer | finish reason |
 * |---|---|
 * | `end_turn`, `stop_sequence` | `stop` |
 * | `max_tokens`, `model_context_window_exceeded` | `length` |
 * | `tool_use` | `tool-calls` |
 * | `refusal` | `content-filter` |
 * | `pause_turn` | `pause` |
 * | anything else | `other` |
 *
 * - A stream is an answer only if the provider said why it ended. One that ends without a stop reason fails as truncated; one
 *   that has a stop reason succeeds, also without `message_stop`.
 * - An error event within a stream fails like the status that it would have had: `overloaded_error` like a 529,
 *   `rate_limit_error` like a 429, `billing_error` as a used-up quota.
 * - Thoughts are reasoning parts. Their signature is kept in the part's metadata under `anthropic`, and goes back with the
 *   conversation, which Anthropic demands where a tool was called. Thoughts without one, another vendor's, are left out.
 * - A part's option `anthropic.cacheControl` marks the end of what may be cached.
 * - Files go as images, PDF and plain text, as bytes or by URL.
 * - The key is `Redacted` up to the header, and masked in every error, as are other strings that look like a key.
 * - Spans hold no prompt, no answer, no header and no query. Redirects are not followed.
 *
 * **Gotchas**
 *
 * - The wire demands a limit for the answer. Ours is 4096 tokens unless `maxTokens` says otherwise; with thinking switched on in
 *   `body`, it has to be larger than the budget for thoughts.
 * - System messages stand at the beginning of the conversation, or it is refused.
 * - Needs an `HttpClient`. `HttpTransport.layer` is made for this; with another one see that it follows no redirects.
 * - A retry around `generateText` with a toolkit runs the tools' handlers again. Retry the model, not its users.
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
import * as EffectConfig from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import * as Request from "./internal/anthropic/request.ts"
import { StreamedAnswer } from "./internal/anthropic/streamedAnswer.ts"
import * as WholeAnswer from "./internal/anthropic/wholeAnswer.ts"
import { merge } from "./internal/wire/config.ts"
import * as Provider from "./internal/wire/provider.ts"

/**
 * What may differ from request to request. What is left out is left to the provider.
 *
 * @since 0.1.0
 * @category models
 */
export interface RequestConfig {
  /** The model to ask. */
  readonly model?: string | undefined
  /** A system prompt before that of the conversation. */
  readonly system?: string | undefined
  readonly temperature?: number | undefined
  /**
   * The longest answer, in tokens. Default 4096, since the wire demands one: some 3,000 words, within what every model gives.
   * An answer that needs more ends with the finish reason `length`.
   */
  readonly maxTokens?: number | undefined
  /**
   * How `generateObject` asks for its object. `format` (the default) is the provider's own structured output. `tool` makes the
   * model call a tool whose parameters are the object, for older models and other servers that have no such output. It does not
   * go together with thinking.
   */
  readonly objects?: "format" | "tool" | undefined
  /**
   * More fields of the request's JSON, as the provider documents them: `thinking`, `top_p`, `metadata`. They win over those that
   * this module sets, except for `model`, `system`, `messages`, `stream` and what asks for an object.
   */
  readonly body?: { readonly [field: string]: Schema.Json } | undefined
  /** More headers, on top of those of the model. What is said of `Options.headers` holds here too. */
  readonly headers?: { readonly [name: string]: string | Redacted.Redacted } | undefined
  /**
   * Sent as `Idempotency-Key`, which makes some servers answer a repeated request from memory. Default: that of
   * `CurrentIdempotencyKey`, and without one none is sent: the same key on two different prompts would give one the answer
   * of the other.
   */
  readonly idempotencyKey?: string | undefined
}

/**
 * The configuration of the requests within its reach, on top of the one that the model was built with.
 *
 * @since 0.1.0
 * @category references
 */
export const Config: Context.Reference<RequestConfig> = Context.Reference<RequestConfig>(
  "@sluice/ai/AnthropicMessages/Config",
  { defaultValue: () => ({}) }
)

/**
 * Configures the requests of one effect.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withConfigOverride: {
  (config: RequestConfig): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, config: RequestConfig): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(self: Effect.Effect<A, E, R>, config: RequestConfig): Effect.Effect<A, E, R> =>
    Effect.updateService(self, Config, (outer) => merge(outer, config))
)

/**
 * What a model is built from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Where the API is, with or without `/v1` and `/messages`: `https://api.anthropic.com`. */
  readonly url: string
  /** The model to ask, unless a request's configuration names another. */
  readonly model: string
  /** Sent as `x-api-key`. Default: none, for servers that want none. */
  readonly apiKey?: Redacted.Redacted | undefined
  /** Allows to send the key unencrypted to another machine. Default false. */
  readonly allowInsecureKey?: boolean | undefined
  /**
   * More headers of every request: `anthropic-beta`, or `authorization` for a gateway that wants a token there. Default: none.
   * No value is ever shown in an error that this module makes; one that is `Redacted` is a secret like the key, and masked
   * wherever the provider repeats it. Refused are `x-api-key` beside an `apiKey`, and headers by which a request is framed and
   * sent, such as `content-type`.
   */
  readonly headers?: { readonly [name: string]: string | Redacted.Redacted } | undefined
  /**
   * Sends the trace's ids along, as `traceparent` and `b3`. Default false: they tell a stranger which requests belong
   * together, and no public provider has a use for them. Set it for a gateway of your own.
   */
  readonly propagateTrace?: boolean | undefined
  /** The configuration of every request. */
  readonly config?: RequestConfig | undefined
  /** The largest answer that is read: bytes of a whole one after decompression, characters of a streamed one. Default 16 Mi. */
  readonly maxAnswerSize?: number | undefined
  /** The largest event of a stream that is read, in characters. Default 1 Mi. */
  readonly maxEventSize?: number | undefined
  /** The deepest nesting of JSON that is read. Default 64, which is several times that of any answer. */
  readonly maxJsonDepth?: number | undefined
  /** How much of an error's body is kept with the error, in characters. Default 2048. */
  readonly maxErrorExcerpt?: number | undefined
  /** The longest wait that a provider is believed to ask for. Default one day, see `RetryAfter.defaultMax`. */
  readonly maxRetryAfter?: Duration.Input | undefined
}

/**
 * Builds the model.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: Options
): Effect.Effect<LanguageModel.LanguageModel, InvalidOptions, HttpClient.HttpClient> => Provider.make(wire, options)

/**
 * Provides the model, and what it is called to those who ask for `Model.ProviderName` and `Model.ModelName`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options
): Layer.Layer<
  LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName,
  InvalidOptions,
  HttpClient.HttpClient
> => Layer.effectContext(Provider.context(wire, options))

/**
 * What a model is built from, with the place, the model and the key from the configuration of the program.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConfigOptions extends Omit<Options, "url" | "model" | "apiKey"> {
  readonly url: EffectConfig.Config<string>
  readonly model: EffectConfig.Config<string>
  readonly apiKey?: EffectConfig.Config<Redacted.Redacted | undefined> | undefined
}

/**
 * Provides the model like `layer`, with what an operator decides read from the program's `ConfigProvider`. The example at the
 * head of this module uses it.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (
  { apiKey, model, url, ...options }: ConfigOptions
): Layer.Layer<
  LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName,
  InvalidOptions | EffectConfig.ConfigError,
  HttpClient.HttpClient
> =>
  Layer.unwrap(
    Effect.map(
      EffectConfig.all({ url, model, apiKey: apiKey ?? EffectConfig.succeed(undefined) }),
      (read) => layer({ ...options, ...read })
    )
  )

/** The version of the wire that this module speaks. */
const version = "2023-06-01"

const path = "/v1/messages"

const wire: Provider.Wire<RequestConfig> = {
  module: "AnthropicMessages",
  place: {
    example: "https://api.anthropic.com",
    path: (base) => base.endsWith(path) ? base : base.replace(/\/v1$/, "") + path
  },
  keyHeader: "x-api-key",
  headers: (apiKey) => ({ "anthropic-version": version, ...(apiKey === undefined ? {} : { "x-api-key": apiKey }) }),
  config: Config,
  codecTransformer: toCodecAnthropic,
  takesSystemMessagesAnywhere: false,
  body: Request.body,
  whole: WholeAnswer.read,
  streamed: ({ origin }, { bounds, newId, response }) => new StreamedAnswer(origin, response, bounds, newId)
}
