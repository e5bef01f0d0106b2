import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { CurrentAttempt } from "@sluice/core/RetryPolicy"
import * as AiError from "effect/ai/AiError"
import { IdGenerator } from "effect/ai/IdGenerator"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import * as EffectConfig from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { CurrentIdempotencyKey } from "../../IdempotencyKey.ts"
import * as Body from "./body.ts"
import { merge, type RequestConfig } from "./config.ts"
import { connectionLost, errorBodyBytes, send } from "./exchange.ts"
import * as Failure from "./failure.ts"
import * as Headers from "./headers.ts"
import * as Mask from "./mask.ts"
import * as ResponseStream from "./responseStream.ts"
import { type ProviderOptions, readSettings, type Settings } from "./settings.ts"
import * as Trace from "./trace.ts"
import type { Wire, WireRequest, WireResponse } from "./wire.ts"

type Services = LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName

/** Options whose URL, model and key are read from the program's configuration. */
export interface ProviderConfigOptions<C extends RequestConfig>
  extends Omit<ProviderOptions<C>, "url" | "model" | "apiKey">
{
  readonly url: EffectConfig.Config<string>
  readonly model: EffectConfig.Config<string>
  readonly apiKey?: EffectConfig.Config<Redacted.Redacted | undefined> | undefined
}

/** The exports of a provider's public module. */
export interface Provider<C extends RequestConfig> {
  readonly make: (
    options: ProviderOptions<C>
  ) => Effect.Effect<LanguageModel.LanguageModel, InvalidOptions, HttpClient.HttpClient>
  readonly layer: (options: ProviderOptions<C>) => Layer.Layer<Services, InvalidOptions, HttpClient.HttpClient>
  readonly layerConfig: (
    options: ProviderConfigOptions<C>
  ) => Layer.Layer<Services, InvalidOptions | EffectConfig.ConfigError, HttpClient.HttpClient>
  readonly withConfigOverride: {
    (config: C): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
    <A, E, R>(self: Effect.Effect<A, E, R>, config: C): Effect.Effect<A, E, R>
  }
}

/** Builds what a vendor's public module exports. */
export const makeProvider = <C extends RequestConfig>(wire: Wire<C>): Provider<C> => {
  const layer: Provider<C>["layer"] = (options) =>
    Layer.effectContext(
      Effect.gen(function*() {
        const settings = yield* readSettings(wire, options)
        const model = yield* build(wire, options, settings)
        return Context.make(LanguageModel.LanguageModel, model).pipe(
          Context.add(Model.ProviderName, settings.endpoint.host),
          Context.add(Model.ModelName, options.model)
        )
      })
    )
  return {
    make: (options) => Effect.flatMap(readSettings(wire, options), (settings) => build(wire, options, settings)),
    layer,
    layerConfig: ({ apiKey, model, url, ...options }) =>
      Layer.unwrap(
        Effect.map(
          EffectConfig.all({ url, model, apiKey: apiKey ?? EffectConfig.succeed(undefined) }),
          (read) => layer({ ...options, ...read })
        )
      ),
    withConfigOverride: dual(
      2,
      <A, E, R>(self: Effect.Effect<A, E, R>, config: C): Effect.Effect<A, E, R> =>
        Effect.updateService(self, wire.config, (outer) => merge(outer, config))
    )
  }
}

const build = Effect.fnUntraced(function*<C extends RequestConfig>(
  wire: Wire<C>,
  options: ProviderOptions<C>,
  settings: Settings
) {
  const { bounds } = settings
  // Ties each request to a scope, so that closing the scope closes the connection, whatever state the request is in.
  const client = HttpClient.withScope(yield* HttpClient.HttpClient)

  const exchange = Effect.fnUntraced(function*(
    method: Failure.Origin["method"],
    call: LanguageModel.ProviderOptions
  ) {
    const { headers, request } = yield* requestOf(wire, options, settings, method, call)
    const { config, endpoint, origin } = request
    const json = yield* wire.body(request)
    Trace.request(call.span, endpoint.host, origin.model, config)
    const sent = HttpClientRequest.post(endpoint.url, { headers }).pipe(
      HttpClientRequest.bodyText(json, "application/json")
    )
    const response = yield* send(client, origin, endpoint, sent, options.propagateTrace === true)
    const newId = yield* Effect.flatMap(IdGenerator, (ids) => ids.generateId())
    const received: WireResponse = { response, bounds, newId }
    return { request, received, response }
  })

  const generateText = Effect.fnUntraced(function*(call: LanguageModel.ProviderOptions) {
    const { received, request, response } = yield* exchange("generateText", call)
    const { origin } = request
    const body = yield* Body.text(response, bounds.answerSize).pipe(
      Effect.catch((error) =>
        error._tag === "TooLarge"
          ? Effect.fail(
            Failure.incompatible(origin, response, `a response of more than ${bounds.answerSize} bytes`)
          )
          : connectionLost(origin, error)
      )
    )
    const parts = yield* Effect.fromResult(wire.response(request, received, body))
    Trace.parts(call.span, parts)
    return parts
  }, Effect.scoped)

  const streamText = Effect.fnUntraced(function*(call: LanguageModel.ProviderOptions) {
    const { received, request, response } = yield* exchange("streamText", call)
    const type = response.headers["content-type"] ?? ""
    if (type.includes("json") || type.includes("html")) return yield* notStreamed(wire, request, received, response)
    const reader = wire.streamedResponse(request, received)
    return Stream.mapArray(ResponseStream.make(response.stream, reader, request.origin), (parts) => {
      Trace.parts(call.span, parts)
      return parts
    })
  })

  return yield* LanguageModel.make({
    generateText,
    streamText: (call) => Stream.unwrap(streamText(call)),
    codecTransformer: wire.codecTransformer,
    supportsSystemMessagesInHistory: Effect.succeed(wire.acceptsSystemMessagesAnywhere)
  })
})

/** The request of one call, and its headers. Fails if a header of the call cannot be sent. */
const requestOf = Effect.fnUntraced(function*<C extends RequestConfig>(
  wire: Wire<C>,
  options: ProviderOptions<C>,
  { endpoint, keyHeader, mask, maxErrorExcerpt, maxRetryAfter, secrets }: Settings,
  method: Failure.Origin["method"],
  call: LanguageModel.ProviderOptions
) {
  const inner = yield* wire.config
  const config = options.config === undefined ? inner : merge(options.config, inner)
  const innerSecrets = Headers.secrets(inner.headers)
  const origin: Failure.Origin = {
    module: wire.module,
    provider: endpoint.host,
    method,
    model: config.model ?? options.model,
    url: endpoint.shown,
    hasKey: secrets.length > 0,
    mask: innerSecrets.length === 0 ? mask : Mask.make([...secrets, ...innerSecrets]),
    excerptLength: maxErrorExcerpt,
    maxRetryAfter
  }
  const idempotencyKey = config.idempotencyKey ?? (yield* CurrentIdempotencyKey)
  const idempotency: Headers.Custom = idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey }
  const wrong = Headers.firstProblem({ ...inner.headers, ...idempotency }, keyHeader)
  if (wrong !== undefined) {
    return yield* Effect.fail(Failure.make(origin, new AiError.InvalidUserInputError({ description: wrong })))
  }
  const attempt = yield* CurrentAttempt
  const headers = {
    "user-agent": "sluice",
    ...Headers.plain(options.headers),
    ...Headers.plain(config.headers),
    ...(attempt === undefined ? {} : { "x-sluice-attempt": String(attempt.attempt) }),
    ...Headers.plain(idempotency),
    ...Headers.plain(wire.headers(options.apiKey))
  }
  const request: WireRequest<C> = { origin, endpoint, config, call }
  return { request, headers }
})

/** A response that is not streamed though a stream was requested: an error that the body names, or another API. */
const notStreamed = <C extends RequestConfig>(
  wire: Wire<C>,
  request: WireRequest<C>,
  received: WireResponse,
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<never, AiError.AiError> =>
  Effect.flatMap(
    Body.beginning(response, errorBodyBytes),
    (body) =>
      Effect.flatMap(Effect.fromResult(wire.response(request, received, body)), () =>
        Effect.fail(
          Failure.incompatible(request.origin, response, "a whole response, where a stream was requested")
        ))
  )
