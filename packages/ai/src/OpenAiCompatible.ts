/**
 * A `LanguageModel` for every server that speaks OpenAI's chat completions: OpenAI itself, and Ollama, llama.cpp, vLLM,
 * OpenRouter, Groq, Mistral, LiteLLM and many more.
 *
 * It makes one request per call and neither retries nor waits: that is the policy's business, for which its errors carry
 * all that is needed, typed: status, headers, and how long the provider asks to be left alone.
 *
 * **When to use**
 *
 * With any URL that ends in `/chat/completions`. What is above it is plain Effect: `LanguageModel.generateText`,
 * `generateObject` and `streamText`, tools and `Chat`.
 *
 * **Details**
 *
 * - A stream is an answer only if the provider said why it ended. One that ends without a finish reason fails as
 *   truncated; one that has a finish reason succeeds, also without `[DONE]` and without token counts.
 * - An error that comes within a stream, long after its status was 200, is a failure of the stream like any other.
 * - The key is `Redacted` up to the header, and masked in every error, as are other strings that look like a key.
 * - Spans hold no prompt, no answer, no header and no query.
 * - Redirects are not followed: they would carry key and prompt to another place.
 *
 * **Gotchas**
 *
 * - Needs an `HttpClient`. `HttpTransport.layer` is made for this; with another one see that it follows no redirects.
 * - A retry around `generateText` with a toolkit runs the tools' handlers again. Retry the model, not its users.
 * - A tool's schema is sent as it is. Annotate it with `Tool.Strict` only if it is within what the provider calls strict.
 *
 * **Example** (Asking a server on this machine)
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
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Model from "effect/ai/Model"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import * as EffectConfig from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import { merge } from "./internal/wire/config.ts"
import * as Provider from "./internal/wire/provider.ts"
import * as Request from "./internal/wire/request.ts"
import { StreamedAnswer } from "./internal/wire/streamedAnswer.ts"
import * as WholeAnswer from "./internal/wire/wholeAnswer.ts"

/**
 * What may differ from request to request. What is left out is left to the provider.
 *
 * @since 0.1.0
 * @category models
 */
export interface RequestConfig {
  /** The model to ask. */
  readonly model?: string | undefined
  /** A system message before all others. */
  readonly system?: string | undefined
  readonly temperature?: number | undefined
  /** The longest answer, in tokens. It goes as `max_tokens`, and to OpenAI's own API as `max_completion_tokens`. */
  readonly maxTokens?: number | undefined
  /**
   * More fields of the request's JSON, as the provider documents them. They win over those that this module sets, except
   * for `model`, `messages`, `stream` and `stream_options`.
   */
  readonly body?: { readonly [field: string]: Schema.Json } | undefined
  /** More headers, on top of those of the model. What is said of `Options.headers` holds here too. */
  readonly headers?: { readonly [name: string]: string | Redacted.Redacted } | undefined
  /**
   * Sent as `Idempotency-Key`, which makes some providers answer a repeated request from memory. Default: that of
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
  "@sluice/ai/OpenAiCompatible/Config",
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
  /**
   * Where the API is, up to and without `/chat/completions`: `https://api.openai.com/v1`, `http://localhost:11434/v1`. A
   * slash at the end does no harm.
   */
  readonly url: string
  /** The model to ask, unless a request's configuration names another. */
  readonly model: string
  /** Sent as a bearer token. Default: none, for servers that want none. */
  readonly apiKey?: Redacted.Redacted | undefined
  /** Allows to send the key unencrypted to another machine. Default false. */
  readonly allowInsecureKey?: boolean | undefined
  /**
   * More headers of every request: `api-key` for Azure, `OpenAI-Organization`, `HTTP-Referer` for OpenRouter. Default: none.
   * No value is ever shown in an error that this module makes; one that is `Redacted` is a secret like the key, and masked
   * wherever the provider repeats it. Refused are `authorization` beside an `apiKey`, and headers by which a request is
   * framed and sent, such as `content-type`.
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
 * Provides the model like `layer`, with what an operator decides read from the program's `ConfigProvider`.
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

const path = "/chat/completions"

const wire: Provider.Wire<RequestConfig> = {
  module: "OpenAiCompatible",
  place: {
    example: "https://api.openai.com/v1",
    path: (base) => base.endsWith(path) ? base : base + path
  },
  keyHeader: "authorization",
  headers: (apiKey): Record<string, string> =>
    apiKey === undefined ? {} : { authorization: `Bearer ${Redacted.value(apiKey)}` },
  config: Config,
  codecTransformer: toCodecOpenAI,
  takesSystemMessagesAnywhere: true,
  body: Request.body,
  whole: ({ origin }, { bounds, newId, response }, body) => WholeAnswer.read(origin, response, bounds, newId, body),
  streamed: ({ origin }, { bounds, newId, response }) => new StreamedAnswer(origin, response, bounds, newId)
}
