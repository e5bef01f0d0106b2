import type { OptionsReader } from "@sluice/core/OptionsReader"
import * as Redacted from "effect/Redacted"
import { isLoopback } from "./loopback.ts"

/** The URL of a model's API. */
export interface Endpoint {
  /** The URL of requests. Never shown, since its query may hold a secret. */
  readonly url: string
  /** The URL without its query, for errors and spans. */
  readonly shown: string
  readonly host: string
  readonly port: number
  /** Whether it is OpenAI itself, which renamed `max_tokens`. The other servers kept the name. */
  readonly isOpenAi: boolean
}

export interface EndpointOptions {
  readonly url: string
  readonly apiKey?: Redacted.Redacted | undefined
  /** Whether a header is a secret. */
  readonly hasSecret: boolean
  readonly allowInsecureKey?: boolean | undefined
}

/** How a provider's URLs are built. */
export interface EndpointFormat {
  /** A valid URL, for a message. */
  readonly example: string
  /** Completes the path of the URL. The slashes at its end are removed before. */
  readonly path: (base: string) => string
}

// A key that was read from a file often ends with a line feed. Node refuses it only at the first request, with a
// message that does not name the key.
const visibleAscii = /^[\x21-\x7e]+$/

/** Reads the endpoint, and adds the issues to `options`. `undefined` if there is no usable URL. */
export const fromOptions = (
  options: OptionsReader,
  { allowInsecureKey, apiKey, hasSecret, url }: EndpointOptions,
  format: EndpointFormat
): Endpoint | undefined => {
  if (apiKey !== undefined) readKey(options, Redacted.value(apiKey))
  const parsed = URL.parse(url)
  if (parsed === null || (parsed.protocol !== "https:" && parsed.protocol !== "http:")) {
    options.refuse("url", "not a URL", `must be an absolute http:// or https:// URL, such as ${format.example}`)
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
  return fromUrl(parsed, format)
}

const readKey = (options: OptionsReader, key: string): void => {
  if (key === "") options.refuse("apiKey", key, "must not be empty; is its environment variable set?")
  else if (!visibleAscii.test(key)) {
    options.refuse("apiKey", "[masked]", "must be visible ASCII characters, without spaces or line ends")
  }
}

const fromUrl = (url: URL, format: EndpointFormat): Endpoint => {
  const full = format.path(url.pathname.replace(/\/+$/, ""))
  return {
    url: url.origin + full + url.search,
    shown: url.origin + full,
    host: url.hostname,
    port: url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port),
    isOpenAi: url.hostname === "api.openai.com"
  }
}
