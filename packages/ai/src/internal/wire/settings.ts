import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as RetryAfter from "../../RetryAfter.ts"
import type { Bounds } from "./bounds.ts"
import { merge, type RequestConfig } from "./config.ts"
import * as Endpoint from "./endpoint.ts"
import * as Fields from "./fields.ts"
import * as Headers from "./headers.ts"
import * as Mask from "./mask.ts"
import type { Wire } from "./wire.ts"

/** The options that every provider has, for every kind of model. */
export interface ConnectionOptions {
  readonly url: string
  /** The model to call. */
  readonly model: string
  readonly apiKey?: Redacted.Redacted | undefined
  /**
   * The header that carries `apiKey`: `api-key` for Azure, `x-portkey-api-key`, `cf-aig-authorization`. Default: the one of
   * the API. `authorization` carries it as a bearer token, and every other header carries the key alone.
   */
  readonly keyHeader?: string | undefined
  /** Whether the key may be sent unencrypted to another machine. Default false. */
  readonly allowInsecureKey?: boolean | undefined
  readonly headers?: Headers.Custom | undefined
  /**
   * Whether to send the trace's ids, as `traceparent` and `b3`. Default false: no public provider uses them, and they show
   * which requests belong together. Set it for a gateway of your own.
   */
  readonly propagateTrace?: boolean | undefined
  /**
   * Fields of the request's JSON that the server refuses, or expects under another name. Default: none. Fields are added
   * with `body`.
   *
   * Refused: omitting or renaming `messages`, and renaming a field to the name of another one that is sent.
   */
  readonly fields?: Fields.Fields | undefined
  /** The largest response that is read: bytes after decompression, or characters of a stream. Default 16 Mi. */
  readonly maxAnswerSize?: number | undefined
  /** The deepest nesting of JSON that is read. Default 64, several times that of real responses. */
  readonly maxJsonDepth?: number | undefined
  /** How much of an error's body is kept with the error, in characters. Default 2048. */
  readonly maxErrorExcerpt?: number | undefined
  /** The longest Retry-After that is believed. Default one day, see `RetryAfter.defaultMax`. */
  readonly maxRetryAfter?: Duration.Input | undefined
}

/** The options of every language model. */
export interface ProviderOptions<C extends RequestConfig> extends ConnectionOptions {
  /** The model to call, unless the configuration of a request names another. */
  readonly model: string
  /** The configuration of every request. */
  readonly config?: C | undefined
  /** The largest event of a stream that is read, in characters. Default 1 Mi. */
  readonly maxEventSize?: number | undefined
  /**
   * Whether `generateText` requests a stream and collects it. Then `firstTokenTimeout` and `idleTimeout` of `ResilientModel` hold
   * for it too, and proxies do not close the connection of a long answer as idle. Default false, since some servers support
   * less in a stream. Objects are requested whole in any case.
   */
  readonly wholeFromStream?: boolean | undefined
}

export const connectionOptions: { readonly [_ in keyof ConnectionOptions]-?: true } = {
  url: true,
  model: true,
  apiKey: true,
  keyHeader: true,
  allowInsecureKey: true,
  headers: true,
  propagateTrace: true,
  fields: true,
  maxAnswerSize: true,
  maxJsonDepth: true,
  maxErrorExcerpt: true,
  maxRetryAfter: true
}
const providerOptions: { readonly [_ in keyof ProviderOptions<RequestConfig>]-?: true } = {
  ...connectionOptions,
  config: true,
  maxEventSize: true,
  wholeFromStream: true
}

/** Options as they were read. */
export interface Settings {
  readonly endpoint: Endpoint.Endpoint
  readonly bounds: Bounds
  readonly maxErrorExcerpt: number
  readonly maxRetryAfter: Duration.Duration
  /** Everything that must not be shown. */
  readonly secrets: ReadonlyArray<Redacted.Redacted>
  readonly mask: Mask.Mask
  /** The header that carries the key, if there is a key. */
  readonly keyHeader: string | undefined
  /** The key header and its value. */
  readonly key: Headers.Custom
  readonly fields: Fields.Rules
}

const maxBound = 2 ** 30

/** The properties of an API that the reader of the options needs. */
export type WireOfSettings = Pick<Wire<never>, "module" | "endpointFormat" | "keyHeader" | "fields">

interface Given extends ConnectionOptions {
  readonly config?: RequestConfig | undefined
  readonly maxEventSize?: number | undefined
}

/**
 * Reads the options of a model. `more` reads the options of this kind of model. `known` has their names.
 */
export const readSettings = (
  wire: WireOfSettings,
  given: Given,
  known: object = providerOptions,
  more?: (options: OptionsReader) => void
): Effect.Effect<Settings, InvalidOptions> => {
  const options = new OptionsReader(wire.module)
  for (const [option, value] of Object.entries(given)) {
    if (value !== undefined && !Object.hasOwn(known, option)) {
      options.refuse(option, "[masked]", `must be one of ${Object.keys(known).join(", ")}`)
    }
  }
  const { headers } = merge<RequestConfig>({ headers: given.headers }, { headers: given.config?.headers })
  const endpoint = Endpoint.fromOptions(
    options,
    {
      url: given.url,
      apiKey: given.apiKey,
      hasSecret: Headers.secrets(headers).length > 0,
      allowInsecureKey: given.allowInsecureKey
    },
    wire.endpointFormat
  )
  options.nonEmptyString("model", given.model)
  const key = readKey(options, wire, given)
  const keyHeader = Object.keys(key)[0]
  Headers.check(options, given.headers, keyHeader, "headers")
  Headers.check(options, given.config?.headers, keyHeader, "config.headers")
  const bounds: Bounds = {
    answerSize: options.integer("maxAnswerSize", given.maxAnswerSize ?? 16 * 2 ** 20, 1, maxBound),
    eventSize: options.integer("maxEventSize", given.maxEventSize ?? 2 ** 20, 1, maxBound),
    jsonDepth: options.integer("maxJsonDepth", given.maxJsonDepth ?? 64, 1, 1000)
  }
  const maxErrorExcerpt = options.integer("maxErrorExcerpt", given.maxErrorExcerpt ?? 2048, 0, maxBound)
  const maxRetryAfter = options.duration("maxRetryAfter", given.maxRetryAfter ?? RetryAfter.defaultMax, 0)
  const fields = Fields.read(options, given.fields, wire.fields)
  more?.(options)
  const secrets = [
    ...(given.apiKey === undefined ? [] : [given.apiKey]),
    ...Headers.secrets(given.headers),
    ...Headers.secrets(given.config?.headers)
  ]
  const { invalid } = options
  // An endpoint that could not be read is among the issues.
  return invalid !== undefined || endpoint === undefined
    ? Effect.fail(invalid as InvalidOptions)
    : Effect.succeed({
      endpoint,
      bounds,
      maxErrorExcerpt,
      maxRetryAfter,
      secrets,
      mask: Mask.make(secrets),
      keyHeader,
      key,
      fields
    })
}

/** The header with the key. Empty without a key. */
const readKey = (options: OptionsReader, wire: WireOfSettings, { apiKey, keyHeader }: Given): Headers.Custom => {
  if (keyHeader !== undefined) Headers.check(options, { [keyHeader]: "" }, undefined, "keyHeader")
  if (apiKey === undefined) return {}
  const name = (keyHeader ?? wire.keyHeader).toLowerCase()
  return { [name]: name === "authorization" ? Redacted.make(`Bearer ${Redacted.value(apiKey)}`) : apiKey }
}
