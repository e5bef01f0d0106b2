import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { IdGenerator } from "effect/ai/IdGenerator"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import * as Clock from "effect/Clock"
import * as EffectConfig from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { CurrentModel } from "../kit/currentModel.ts"
import * as Answer from "./answer.ts"
import { merge, type RequestConfig } from "./config.ts"
import { send } from "./exchange.ts"
import type { Origin } from "./failure.ts"
import { headersOf, originOf } from "./requestHeaders.ts"
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
    method: Origin["method"],
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
    const parts = yield* Effect.flatMap(Answer.read(wire, request, received, response), Answer.wholeParts)
    Trace.parts(call.span, parts)
    return parts
  }, Effect.scoped)

  const streamText = Effect.fnUntraced(function*(call: LanguageModel.ProviderOptions) {
    const { received, request, response } = yield* exchange("streamText", call)
    const answer = yield* Answer.read(wire, request, received, response)
    return Stream.mapArray(Answer.streamedParts(answer), (parts) => {
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
  settings: Settings,
  method: Origin["method"],
  call: LanguageModel.ProviderOptions
) {
  const inner = yield* wire.config
  const config = options.config === undefined ? inner : merge(options.config, inner)
  const { endpoint, fields } = settings
  const model = (yield* CurrentModel) ?? config.model ?? options.model
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const origin = originOf(wire, settings, method, model, now, inner.headers)
  const headers = yield* headersOf(settings, origin, {
    required: wire.headers,
    shared: options.headers,
    config,
    own: inner.headers
  })
  const request: WireRequest<C> = { origin, endpoint, config, fields, call }
  return { request, headers }
})
