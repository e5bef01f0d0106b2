import type * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Response from "effect/ai/Response"
import type * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import type { Bounds } from "./bounds.ts"
import type { RequestConfig } from "./config.ts"
import type { Endpoint, EndpointFormat } from "./endpoint.ts"
import type { EventReader } from "./eventReader.ts"
import type { Origin, ResponseHead } from "./failure.ts"
import type { FieldsOfWire, Rules } from "./fields.ts"
import type { Custom } from "./headers.ts"

/** Everything in which one vendor's API differs from the others. */
export interface Wire<C extends RequestConfig> {
  /** The public module, for errors. */
  readonly module: string
  readonly endpointFormat: EndpointFormat
  /** The header that carries the key unless the caller names another, in lower case. */
  readonly keyHeader: string
  /** The headers that the API requires besides. */
  readonly headers: Custom
  readonly fields: FieldsOfWire
  /** The reference that configures requests. */
  readonly config: Context.Reference<C>
  readonly codecTransformer: LanguageModel.CodecTransformer
  readonly acceptsSystemMessagesAnywhere: boolean
  /** The most tokens of an answer if the configuration has none. `undefined`: that of the model. */
  readonly defaultMaxTokens: number | undefined
  /** Whether input that was read from the provider's cache counts against its limits. */
  readonly countsCacheReads: boolean
  /** Builds the JSON of a request. Fails if the API has no form for a part of the prompt. */
  readonly body: (request: WireRequest<C>) => Effect.Effect<string, AiError.AiError>
  /** Reads a response that is not streamed. */
  readonly response: (
    request: WireRequest<C>,
    received: WireResponse,
    body: string
  ) => Result.Result<Array<Response.PartEncoded>, AiError.AiError>
  /** Reads a streamed response. */
  readonly streamedResponse: (request: WireRequest<C>, received: WireResponse) => EventReader
}

/** A request before it is encoded. */
export interface WireRequest<C extends RequestConfig> {
  readonly origin: Origin
  readonly endpoint: Endpoint
  readonly config: C
  readonly fields: Rules
  readonly call: Pick<LanguageModel.ProviderOptions, "prompt" | "responseFormat" | "toolChoice" | "tools">
  /** Whether a stream is requested. */
  readonly streams: boolean
}

/** The head of a response, and what reading its body needs. */
export interface WireResponse {
  readonly response: ResponseHead
  readonly bounds: Bounds
  /** The prefix of ids for parts that have none. */
  readonly newId: string
}
