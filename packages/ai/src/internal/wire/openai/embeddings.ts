import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { CurrentAttempt } from "@sluice/core/RetryPolicy"
import type * as AiError from "effect/ai/AiError"
import * as EmbeddingModel from "effect/ai/EmbeddingModel"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as Schema from "effect/Schema"
import { CurrentIdempotencyKey } from "../../../IdempotencyKey.ts"
import { send, text as textOf } from "../exchange.ts"
import * as Fields from "../fields.ts"
import { fixedHeaders, headersOf, originOf } from "../requestHeaders.ts"
import {
  type ConnectionOptions,
  connectionOptions,
  readSettings,
  type Settings,
  type WireOfSettings
} from "../settings.ts"
import * as Vectors from "./vectors.ts"

/** The options of an embedding model. */
export interface EmbeddingOptions extends ConnectionOptions {
  /**
   * The length of the vectors, for models that can shorten theirs. Default: the model's own. A provider that returns vectors
   * of another length fails the call.
   */
  readonly dimensions?: number | undefined
  /**
   * The requested encoding of a vector. `base64` takes a quarter of the bytes. Default: no encoding is requested, since some
   * servers refuse the field. Both encodings are always read.
   */
  readonly encoding?: "float" | "base64" | undefined
  /**
   * The largest number of texts in a request. Default 100. More texts are sent in several requests, one after another. OpenAI
   * accepts 2048, Gemini 100, text-embeddings-inference 32.
   */
  readonly batchSize?: number | undefined
  /** More fields of the request's JSON. They override those of this module, except `model` and `input`. */
  readonly body?: { readonly [field: string]: Schema.Json } | undefined
}

const known: { readonly [_ in keyof EmbeddingOptions]-?: true } = {
  ...connectionOptions,
  dimensions: true,
  encoding: true,
  batchSize: true,
  body: true
}

const path = "/embeddings"
const chatPath = /\/chat\/completions$/

const wire: WireOfSettings = {
  module: "OpenAiCompatible",
  endpointFormat: {
    example: "https://api.openai.com/v1",
    path: (base) => base.endsWith(path) ? base : base.replace(chatPath, "") + path
  },
  keyHeader: "authorization",
  fields: { required: ["input"], own: ["model", "dimensions", "encoding_format"] }
}

const defaultBatchSize = 100

/** Reads the options of an embedding model. */
export const settingsOf = (options: EmbeddingOptions): Effect.Effect<Settings, InvalidOptions> =>
  readSettings(wire, options, known, (reader) => {
    const { batchSize = defaultBatchSize, dimensions, encoding } = options
    reader.integer("batchSize", batchSize, 1, 100_000)
    if (dimensions !== undefined) reader.integer("dimensions", dimensions, 1, 100_000)
    if (encoding !== undefined) reader.oneOf("encoding", encoding, ["float", "base64"])
  })

/** Builds an embedding model. */
export const make = Effect.fnUntraced(function*(
  options: EmbeddingOptions,
  settings: Settings
): Effect.fn.Return<EmbeddingModel.EmbeddingModel, never, HttpClient.HttpClient> {
  const { batchSize = defaultBatchSize } = options
  const fixed = fixedHeaders(settings, undefined, options.headers)
  const client = HttpClient.withScope(yield* HttpClient.HttpClient)

  const request = Effect.fnUntraced(function*(inputs: ReadonlyArray<string>, keySuffix: string) {
    const clock = yield* Clock.Clock
    const now = () => clock.currentTimeMillisUnsafe()
    const origin = originOf(wire, settings, "embedMany", options.model, now)
    const headers = yield* headersOf(settings, origin, { fixed, keySuffix })
    const sent = HttpClientRequest.post(settings.endpoint.url, { headers }).pipe(
      HttpClientRequest.bodyText(bodyOf(options, settings, inputs), "application/json")
    )
    const response = yield* send(client, origin, settings.endpoint, sent, options.propagateTrace === true)
    const text = yield* textOf(origin, settings.bounds, response)
    return yield* Effect.fromResult(
      Vectors.read(origin, response, settings.bounds, text, inputs.length, options.dimensions)
    )
  }, Effect.scoped)

  const embedMany = ({ inputs }: EmbeddingModel.ProviderOptions): Effect.Effect<Vectors.Vectors, AiError.AiError> =>
    inputs.length <= batchSize
      ? request(inputs, "")
      : Effect.map(
        // The texts of a call have one idempotency key, and its requests have one each.
        Effect.forEach(batches(inputs, batchSize), (batch, index) => request(batch, `-${index + 1}`)),
        Vectors.join
      )

  return yield* EmbeddingModel.make({ embedMany, batchKey })
})

// Concurrent single calls share a request. So the context values that the request reads must be equal.
const batchKey = (context: Context.Context<never>): string =>
  JSON.stringify([Context.get(context, CurrentIdempotencyKey), Context.get(context, CurrentAttempt)])

const bodyOf = (
  { body, dimensions, encoding, model }: EmbeddingOptions,
  { fields }: Settings,
  input: ReadonlyArray<string>
): string =>
  JSON.stringify(Fields.apply(fields, {
    dimensions,
    encoding_format: encoding,
    ...body,
    model,
    input
  }))

const batches = (inputs: ReadonlyArray<string>, size: number): Array<ReadonlyArray<string>> => {
  const all: Array<ReadonlyArray<string>> = []
  for (let from = 0; from < inputs.length; from += size) all.push(inputs.slice(from, from + size))
  return all
}
