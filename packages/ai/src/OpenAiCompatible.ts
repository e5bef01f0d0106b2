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
import { CurrentAttempt } from "@sluice/core/RetryPolicy"
import type * as AiError from "effect/ai/AiError"
import { IdGenerator } from "effect/ai/IdGenerator"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Mask from "./internal/mask.ts"
import * as OptionsCheck from "./internal/options.ts"
import * as AnswerStream from "./internal/wire/answerStream.ts"
import * as Body from "./internal/wire/body.ts"
import type { Bounds } from "./internal/wire/bounds.ts"
import * as Endpoint from "./internal/wire/endpoint.ts"
import * as Failure from "./internal/wire/failure.ts"
import * as Request from "./internal/wire/request.ts"
import { StreamedAnswer } from "./internal/wire/streamedAnswer.ts"
import * as Trace from "./internal/wire/trace.ts"
import * as WholeAnswer from "./internal/wire/wholeAnswer.ts"
import * as RetryAfter from "./RetryAfter.ts"

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
  /**
   * Sent as `Idempotency-Key`, which makes some providers answer a repeated request from memory. Not sent by default: the
   * same key on two different prompts would give one the answer of the other.
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
): Effect.Effect<LanguageModel.LanguageModel, InvalidOptions, HttpClient.HttpClient> =>
  Effect.flatMap(check(options), (settings) => build(options, settings))

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
> =>
  Layer.effectContext(
    Effect.flatMap(check(options), (settings) =>
      Effect.map(build(options, settings), (model) =>
        Context.make(LanguageModel.LanguageModel, model).pipe(
          Context.add(Model.ProviderName, settings.provider),
          Context.add(Model.ModelName, options.model)
        )))
  )

interface Settings {
  readonly endpoint: Endpoint.Endpoint
  readonly provider: string
  readonly bounds: Bounds
  readonly maxErrorExcerpt: number
  readonly maxRetryAfter: Duration.Duration
}

const check = (options: Options): Effect.Effect<Settings, InvalidOptions> => {
  const checked = new OptionsCheck.Options("OpenAiCompatible")
  const endpoint = Endpoint.fromOptions(checked, options)
  if (options.model === "") checked.refuse("model", `""`, "the name of a model")
  const most = 2 ** 30
  const bounds: Bounds = {
    answerSize: checked.integer("maxAnswerSize", options.maxAnswerSize ?? 16 * 2 ** 20, 1, most),
    eventSize: checked.integer("maxEventSize", options.maxEventSize ?? 2 ** 20, 1, most),
    jsonDepth: checked.integer("maxJsonDepth", options.maxJsonDepth ?? 64, 1, 1000)
  }
  const maxErrorExcerpt = checked.integer("maxErrorExcerpt", options.maxErrorExcerpt ?? 2048, 0, most)
  const maxRetryAfter = checked.duration("maxRetryAfter", options.maxRetryAfter ?? RetryAfter.defaultMax)
  return checked.check(endpoint && { endpoint, provider: endpoint.host, bounds, maxErrorExcerpt, maxRetryAfter })
}

/** How much of an error's body is read for the sake of its code and message. */
const errorBodyBytes = 64 * 1024

const build = Effect.fnUntraced(function*(options: Options, settings: Settings) {
  const { bounds, endpoint } = settings
  const mask = Mask.make(options.apiKey === undefined ? [] : [options.apiKey])
  // Ties each request to a scope, so that closing it closes the connection, whatever state the request is in.
  const client = HttpClient.withScope(yield* HttpClient.HttpClient)

  const ask = Effect.fnUntraced(function*(method: Failure.Origin["method"], call: LanguageModel.ProviderOptions) {
    const config = merge(options.config ?? {}, yield* Config)
    const origin: Failure.Origin = {
      method,
      model: config.model ?? options.model,
      url: endpoint.shown,
      hasKey: options.apiKey !== undefined,
      mask,
      excerptLength: settings.maxErrorExcerpt,
      maxRetryAfter: settings.maxRetryAfter
    }
    const json = yield* Request.body(origin, endpoint, config, call)
    Trace.request(call.span, settings.provider, origin.model, config)
    const response = yield* client.execute(post(endpoint, options.apiKey, config, yield* CurrentAttempt, json)).pipe(
      Effect.catch((error) => lost(origin, error))
    )
    if (response.status < 200 || response.status > 299) return yield* refused(origin, response)
    const newId = yield* Effect.flatMap(IdGenerator, (ids) => ids.generateId())
    return { origin, response, newId }
  })

  const generateText = Effect.fnUntraced(function*(call: LanguageModel.ProviderOptions) {
    const { newId, origin, response } = yield* ask("generateText", call)
    const body = yield* Body.text(response, bounds.answerSize).pipe(
      Effect.catch((error) =>
        error._tag === "TooLarge"
          ? Effect.fail(Failure.incompatible(origin, response, `an answer of more than ${bounds.answerSize} bytes`))
          : lost(origin, error)
      )
    )
    const parts = yield* Effect.fromResult(WholeAnswer.read(origin, response, bounds, newId, body))
    Trace.parts(call.span, parts)
    return parts
  }, Effect.scoped)

  const streamText = Effect.fnUntraced(function*(call: LanguageModel.ProviderOptions) {
    const { newId, origin, response } = yield* ask("streamText", call)
    const type = response.headers["content-type"] ?? ""
    if (type.includes("json") || type.includes("html")) return yield* notStreamed(origin, response, bounds, newId)
    const answer = new StreamedAnswer(origin, response, bounds, newId)
    return Stream.mapArray(AnswerStream.make(response.stream, answer, origin), (parts) => {
      Trace.parts(call.span, parts)
      return parts
    })
  })

  return yield* LanguageModel.make({
    generateText,
    streamText: (call) => Stream.unwrap(streamText(call)),
    codecTransformer: toCodecOpenAI,
    supportsSystemMessagesInHistory: Effect.succeed(true)
  })
})

const post = (
  endpoint: Endpoint.Endpoint,
  apiKey: Redacted.Redacted | undefined,
  config: RequestConfig,
  current: { readonly attempt: number } | undefined,
  json: string
): HttpClientRequest.HttpClientRequest => {
  const request = HttpClientRequest.post(endpoint.url, {
    headers: {
      "user-agent": "sluice",
      ...(current === undefined ? {} : { "x-sluice-attempt": String(current.attempt) }),
      ...(config.idempotencyKey === undefined ? {} : { "idempotency-key": config.idempotencyKey })
    }
  }).pipe(HttpClientRequest.bodyText(json, "application/json"))
  return apiKey === undefined ? request : HttpClientRequest.bearerToken(request, apiKey)
}

const lost = (origin: Failure.Origin, error: HttpClientError.HttpClientError): Effect.Effect<never, AiError.AiError> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fail(Failure.transport(origin, error, now)))

const refused = (
  origin: Failure.Origin,
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<never, AiError.AiError> =>
  Effect.flatMap(
    Body.beginning(response, errorBodyBytes),
    (body) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fail(Failure.fromStatus(origin, response, body, now)))
  )

/** A whole body where a stream was asked for: an error that names itself, or something else than an answer. */
const notStreamed = (
  origin: Failure.Origin,
  response: HttpClientResponse.HttpClientResponse,
  bounds: Bounds,
  newId: string
): Effect.Effect<never, AiError.AiError> =>
  Effect.flatMap(
    Body.beginning(response, errorBodyBytes),
    (body) =>
      Effect.flatMap(Effect.fromResult(WholeAnswer.read(origin, response, bounds, newId, body)), () =>
        Effect.fail(Failure.incompatible(origin, response, "a whole answer, where a stream was asked for")))
  )

const merge = (outer: RequestConfig, inner: RequestConfig): RequestConfig => ({
  model: inner.model ?? outer.model,
  system: inner.system ?? outer.system,
  temperature: inner.temperature ?? outer.temperature,
  maxTokens: inner.maxTokens ?? outer.maxTokens,
  body: outer.body === undefined ? inner.body : { ...outer.body, ...inner.body },
  idempotencyKey: inner.idempotencyKey ?? outer.idempotencyKey
})
