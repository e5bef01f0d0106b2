import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { IdGenerator } from "effect/ai/IdGenerator"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import * as EffectConfig from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import { setFacts } from "../kit/modelFacts.ts"
import { TextModel } from "../../TextModel.ts"
import { collect, type Part } from "./collect.ts"
import { merge, type RequestConfig } from "./config.ts"
import { toWhole } from "./partsForms.ts"
import { isTraced, sending } from "./sending.ts"
import { streamed } from "./streamed.ts"
import { factsOf } from "./facts.ts"
import { type ProviderOptions, readSettings, type Settings } from "./settings.ts"
import { buildText } from "./textModel.ts"
import * as Trace from "./trace.ts"
import type { Wire } from "./wire.ts"

type Services<S> = S | Model.ProviderName | Model.ModelName

type LayerOf<S> = Layer.Layer<Services<S>, InvalidOptions, HttpClient.HttpClient>

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
  readonly makeText: (options: ProviderOptions<C>) => Effect.Effect<TextModel, InvalidOptions, HttpClient.HttpClient>
  readonly layer: (options: ProviderOptions<C>) => LayerOf<LanguageModel.LanguageModel>
  readonly layerText: (options: ProviderOptions<C>) => LayerOf<TextModel>
  readonly layerConfig: (
    options: ProviderConfigOptions<C>
  ) => Layer.Layer<
    Services<LanguageModel.LanguageModel>,
    InvalidOptions | EffectConfig.ConfigError,
    HttpClient.HttpClient
  >
  readonly withConfigOverride: {
    (config: C): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
    <A, E, R>(self: Effect.Effect<A, E, R>, config: C): Effect.Effect<A, E, R>
  }
}

/** Builds what a vendor's public module exports. */
export const makeProvider = <C extends RequestConfig>(wire: Wire<C>): Provider<C> => {
  const make: Provider<C>["make"] = (options) =>
    Effect.flatMap(readSettings(wire, options), (settings) => build(wire, options, settings))
  const makeText: Provider<C>["makeText"] = (options) =>
    Effect.flatMap(readSettings(wire, options), (settings) => buildText(wire, options, settings))
  /** The layer of a model, with the names of its provider and its model. */
  const named = <S>(
    tag: Context.Key<S, S>,
    build: (settings: Settings) => Effect.Effect<S, never, HttpClient.HttpClient>,
    options: ProviderOptions<C>
  ): LayerOf<S> =>
    Layer.effectContext(
      Effect.flatMap(readSettings(wire, options), (settings) =>
        Effect.map(build(settings), (model) =>
          Context.make(tag, model).pipe(
            Context.add(Model.ProviderName, settings.endpoint.host),
            Context.add(Model.ModelName, options.model)
          )))
    )
  const layer: Provider<C>["layer"] = (options) =>
    named(LanguageModel.LanguageModel, (settings) => build(wire, options, settings), options)
  return {
    make,
    makeText,
    layer,
    layerText: (options) => named(TextModel, (settings) => buildText(wire, options, settings), options),
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

const build = <C extends RequestConfig>(
  wire: Wire<C>,
  options: ProviderOptions<C>,
  settings: Settings
): Effect.Effect<LanguageModel.LanguageModel, never, HttpClient.HttpClient> =>
  Effect.flatMap(HttpClient.HttpClient, (client) => {
    const send = sending(wire, options, settings, client)
    const { host } = settings.endpoint
    const isStreamed = (method: "generateText" | "streamText", { responseFormat }: LanguageModel.ProviderOptions) =>
      method === "streamText" || (options.wholeFromStream === true && responseFormat.type === "text")
    const ready = (method: "generateText" | "streamText", call: LanguageModel.ProviderOptions) =>
      Effect.flatMap(
        newId,
        (newId) =>
          Effect.map(send({ method, call, streams: isStreamed(method, call), newId }), (ready) => {
            const span = isTraced(ready.fiber) ? call.span : undefined
            Trace.request(span, host, ready.request.origin.model, ready.request.config)
            return { ...ready, observe: (parts: ReadonlyArray<Part>) => Trace.parts(span, parts) }
          })
      )
    const model = LanguageModel.make({
      generateText: (call) =>
        Effect.flatMap(ready("generateText", call), (ready) =>
          Effect.map(collect(ready), (collected) => {
            const parts = toWhole(collected)
            ready.observe(parts)
            return parts
          })),
      streamText: (call) => streamed(ready("streamText", call)),
      codecTransformer: wire.codecTransformer,
      supportsSystemMessagesInHistory: Effect.succeed(wire.acceptsSystemMessagesAnywhere)
    })
    return Effect.map(model, (model) => setFacts(model, factsOf(wire, options, settings)))
  })

const newId = Effect.flatMap(IdGenerator, (ids) => ids.generateId())
