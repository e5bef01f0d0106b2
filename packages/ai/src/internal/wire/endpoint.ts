import type { OptionsReader } from "@sluice/core/OptionsReader"
import * as Redacted from "effect/Redacted"
import { isLoopback } from "./loopback.ts"

/** Where a model is asked. */
export interface Endpoint {
  /** The URL to post to. It may carry a query, which may carry a secret: for the request only. */
  readonly url: string
  /** The same without its query, for errors. */
  readonly shown: string
  /** Names the provider in spans. */
  readonly host: string
  readonly port: number
  /** Whether it is OpenAI's own, which has renamed a parameter that all others keep. */
  readonly isOpenAi: boolean
}

export interface EndpointOptions {
  readonly url: string
  readonly apiKey?: Redacted.Redacted | undefined
  /** Whether something else that is sent is a secret. */
  readonly hasSecret: boolean
  readonly allowInsecureKey?: boolean | undefined
}

/** What a provider's URLs look like. */
export interface Place {
  /** Such a URL, for a message. */
  readonly example: string
  /** The whole path, of what the URL's own path is without slashes at its end. */
  readonly path: (base: string) => string
}

// What a header value may hold, less spaces: a key read from a file often ends in a line feed, which Node refuses only
// when the first request is made, and with a message that does not name the key.
const visibleAscii = /^[\x21-\x7e]+$/

/** Reads the endpoint from the options; what is wrong with them is noted there, and then nothing is returned. */
export const fromOptions = (
  options: OptionsReader,
  { allowInsecureKey, apiKey, hasSecret, url }: EndpointOptions,
  place: Place
): Endpoint | undefined => {
  if (apiKey !== undefined && !visibleAscii.test(Redacted.value(apiKey))) {
    options.refuse("apiKey", apiKey, "must be visible ASCII characters, without spaces or line ends")
  }
  const parsed = URL.parse(url)
  if (parsed === null || (parsed.protocol !== "https:" && parsed.protocol !== "http:")) {
    options.refuse("url", "not a URL", `must be an absolute http:// or https:// URL, such as ${place.example}`)
    return undefined
  }
  if (parsed.username !== "" || parsed.password !== "") {
    options.refuse(
      "url",
      `${parsed.protocol}//[masked]@${parsed.host}`,
      "must have no user name and password; use apiKey"
    )
    return undefined
  }
  const isSecret = apiKey !== undefined || hasSecret
  if (isSecret && parsed.protocol === "http:" && allowInsecureKey !== true && !isLoopback(parsed)) {
    options.refuse(
      "url",
      parsed.origin,
      "must be https:// with an apiKey; allowInsecureKey: true sends it unencrypted"
    )
  }
  return fromUrl(parsed, place)
}

const fromUrl = (url: URL, place: Place): Endpoint => {
  const full = place.path(url.pathname.replace(/\/+$/, ""))
  return {
    url: url.origin + full + url.search,
    shown: url.origin + full,
    host: url.hostname,
    port: url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port),
    isOpenAi: url.hostname === "api.openai.com"
  }
}
