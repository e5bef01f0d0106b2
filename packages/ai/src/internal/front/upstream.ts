import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import { setFacts } from "../kit/modelFacts.ts"
import type { Origin } from "../wire/failure.ts"
import * as Headers from "../wire/headers.ts"
import { readSettings, type Settings } from "../wire/settings.ts"
import type { OutgoingHeaders } from "./exchange.ts"
import { type Operation, type Path, type Speaks, urlOf } from "./route.ts"

/** The operations that are calls of a model. */
export type Endpoint = Exclude<Operation, "countTokens" | "models" | "other">

/** Where a target of the front is, and how it is called. */
export interface UpstreamOptions {
  readonly url: string
  readonly speaks: Speaks
  readonly endpoints?: ReadonlyArray<Endpoint> | undefined
  readonly apiKey?: Redacted.Redacted | undefined
  readonly keyHeader?: string | undefined
  readonly allowInsecureKey?: boolean | undefined
  readonly headers?: Headers.Custom | undefined
  readonly model?: string | undefined
  readonly models?: object | undefined
  readonly maxOutputTokens?: number | undefined
}

/** The endpoints of each API, unless a target has fewer. */
const endpointsOf: { readonly [_ in Speaks]: ReadonlyArray<Endpoint> } = {
  openai: ["chat", "responses", "embeddings"],
  anthropic: ["messages"]
}

/** The most tokens of an answer, by the request. */
export const MaxOutput: Context.Reference<number | undefined> = Context.Reference<number | undefined>(
  "@sluice/ai/internal/front/MaxOutput",
  { defaultValue: () => undefined }
)

/** A target of the front. */
export class Upstream {
  readonly speaks: Speaks
  readonly endpoints: ReadonlySet<Endpoint>
  /** The model that it is asked for whatever the client asks for, except for the names of its `models`. */
  readonly model: string | undefined
  /** The most tokens of an answer, if the request has to say it and does not. */
  readonly maxOutputTokens: number | undefined
  /** Whether it is OpenAI itself. */
  readonly isOpenAi: boolean
  /** Whether it is asked for every model, and not only for those that it names. */
  readonly offersAll: boolean
  /** The headers of its options and its key. */
  readonly headers: OutgoingHeaders
  private readonly settings: Settings
  private readonly urls = new WeakMap<Path, URL>()

  constructor(options: UpstreamOptions, settings: Settings) {
    this.speaks = options.speaks
    this.endpoints = new Set(options.endpoints ?? endpointsOf[options.speaks])
    this.model = options.model
    this.maxOutputTokens = options.maxOutputTokens
    this.isOpenAi = settings.endpoint.isOpenAi
    this.offersAll = options.models === undefined
    this.settings = settings
    this.headers = { ...Headers.plain(options.headers), ...Headers.plain(settings.key) }
  }

  urlOf(path: Path): URL {
    const known = this.urls.get(path)
    if (known !== undefined) return known
    const url = urlOf(this.settings.endpoint.url, this.speaks, path)
    this.urls.set(path, url)
    return url
  }

  /** The body of an error without the key of the target, which some providers quote. */
  masked(body: Uint8Array): Uint8Array {
    const text = new TextDecoder().decode(body)
    const masked = this.settings.mask(text)
    return masked === text ? body : new TextEncoder().encode(masked)
  }

  /** What the errors of one request have in common. */
  origin(method: Origin["method"], model: string, now: () => number): Origin {
    const { endpoint, mask, maxErrorExcerpt, maxRetryAfter, secrets } = this.settings
    return {
      module: "Front",
      provider: endpoint.host,
      method,
      model,
      url: endpoint.shown,
      hasKey: secrets.length > 0,
      mask,
      excerptLength: maxErrorExcerpt,
      maxRetryAfter,
      now
    }
  }
}

/** Reads the options of a target. */
export const make = (options: UpstreamOptions): Effect.Effect<Upstream, InvalidOptions> => {
  const { allowInsecureKey, apiKey, headers, keyHeader, model = "any", speaks, url } = options
  const isAnthropic = speaks === "anthropic"
  const wire = {
    module: "Front",
    endpointFormat: {
      example: isAnthropic ? "https://api.anthropic.com/v1" : "https://api.openai.com/v1",
      path: (base: string) => base
    },
    keyHeader: isAnthropic ? "x-api-key" : "authorization",
    fields: { required: [], own: [] }
  }
  return Effect.map(
    readSettings(wire, { url, apiKey, keyHeader, allowInsecureKey, headers, model }),
    (settings) =>
      setFacts(new Upstream(options, settings), {
        maxOutputTokens: (context) => Context.get(context, MaxOutput),
        countsCacheReads: !isAnthropic
      })
  )
}

/** Provides a target to the engine. */
export const UpstreamService: Context.Key<Upstream, Upstream> = Context.Service<Upstream, Upstream>(
  "@sluice/ai/internal/front/Upstream"
)
