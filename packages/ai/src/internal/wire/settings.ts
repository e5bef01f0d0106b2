import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as RetryAfter from "../../RetryAfter.ts"
import type { Bounds } from "./bounds.ts"
import { merge, type RequestConfig } from "./config.ts"
import * as Endpoint from "./endpoint.ts"
import * as Headers from "./headers.ts"
import * as Mask from "./mask.ts"
import type { Wire } from "./wire.ts"

/** The options that every provider has. */
export interface ProviderOptions<C extends RequestConfig> {
  readonly url: string
  /** The model to call, unless the configuration of a request names another. */
  readonly model: string
  readonly apiKey?: Redacted.Redacted | undefined
  /** Whether the key may be sent unencrypted to another machine. Default false. */
  readonly allowInsecureKey?: boolean | undefined
  readonly headers?: Headers.Custom | undefined
  /**
   * Whether to send the trace's ids, as `traceparent` and `b3`. Default false: no public provider uses them, and they show
   * which requests belong together. Set it for a gateway of your own.
   */
  readonly propagateTrace?: boolean | undefined
  /** The configuration of every request. */
  readonly config?: C | undefined
  /** The largest response that is read: bytes after decompression, or characters of a stream. Default 16 Mi. */
  readonly maxAnswerSize?: number | undefined
  /** The largest event of a stream that is read, in characters. Default 1 Mi. */
  readonly maxEventSize?: number | undefined
  /** The deepest nesting of JSON that is read. Default 64, several times that of real responses. */
  readonly maxJsonDepth?: number | undefined
  /** How much of an error's body is kept with the error, in characters. Default 2048. */
  readonly maxErrorExcerpt?: number | undefined
  /** The longest Retry-After that is believed. Default one day, see `RetryAfter.defaultMax`. */
  readonly maxRetryAfter?: Duration.Input | undefined
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
}

const maxBound = 2 ** 30

/** Reads the options of a provider. */
export const readSettings = <C extends RequestConfig>(
  wire: Wire<C>,
  given: ProviderOptions<C>
): Effect.Effect<Settings, InvalidOptions> => {
  const options = new OptionsReader(wire.module)
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
  const keyHeader = given.apiKey === undefined ? undefined : wire.keyHeader
  Headers.check(options, given.headers, keyHeader, "headers")
  Headers.check(options, given.config?.headers, keyHeader, "config.headers")
  const bounds: Bounds = {
    answerSize: options.integer("maxAnswerSize", given.maxAnswerSize ?? 16 * 2 ** 20, 1, maxBound),
    eventSize: options.integer("maxEventSize", given.maxEventSize ?? 2 ** 20, 1, maxBound),
    jsonDepth: options.integer("maxJsonDepth", given.maxJsonDepth ?? 64, 1, 1000)
  }
  const maxErrorExcerpt = options.integer("maxErrorExcerpt", given.maxErrorExcerpt ?? 2048, 0, maxBound)
  const maxRetryAfter = options.duration("maxRetryAfter", given.maxRetryAfter ?? RetryAfter.defaultMax, 0)
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
      keyHeader
    })
}
