import * as Redacted from "effect/Redacted"
import { isLoopback } from "../loopback.ts"
import type { Options } from "../options.ts"

/** Where chat completions are asked for. */
export interface Endpoint {
  /** The URL to post to. It may carry a query, which may carry a secret: for the request only. */
  readonly url: string
  /** The same without its query, for errors. */
  readonly shown: string
  /** Names the provider in spans. */
  readonly host: string
  /** Whether it is OpenAI's own, which has renamed a parameter that all others keep. */
  readonly isOpenAi: boolean
}

export interface EndpointOptions {
  readonly url: string
  readonly apiKey?: Redacted.Redacted | undefined
  readonly allowInsecureKey?: boolean | undefined
}

const path = "/chat/completions"

// What a header value may hold, less spaces: a key read from a file often ends in a line feed, which Node refuses only
// when the first request is made, and with a message that does not name the key.
const visibleAscii = /^[\x21-\x7e]+$/

/** Reads the endpoint from the options; what is wrong with them is noted there, and then nothing is returned. */
export const fromOptions = (
  options: Options,
  { allowInsecureKey, apiKey, url }: EndpointOptions
): Endpoint | undefined => {
  if (apiKey !== undefined && !visibleAscii.test(Redacted.value(apiKey))) {
    options.refuse("apiKey", apiKey, "visible ASCII characters, without spaces or line ends")
  }
  const parsed = URL.parse(url)
  if (parsed === null || (parsed.protocol !== "https:" && parsed.protocol !== "http:")) {
    options.refuse("url", "no such URL", "an absolute http:// or https:// URL, such as https://api.openai.com/v1")
    return undefined
  }
  if (parsed.username !== "" || parsed.password !== "") {
    options.refuse(
      "url",
      `${parsed.protocol}//[masked]@${parsed.host}`,
      "a URL without user name and password; use apiKey"
    )
    return undefined
  }
  if (apiKey !== undefined && parsed.protocol === "http:" && allowInsecureKey !== true && !isLoopback(parsed)) {
    options.refuse(
      "url",
      parsed.origin,
      "https:// when there is an apiKey, or allowInsecureKey: true to send it unencrypted"
    )
  }
  return fromUrl(parsed)
}

const fromUrl = (url: URL): Endpoint => {
  const base = url.pathname.replace(/\/+$/, "")
  const full = base.endsWith(path) ? base : base + path
  return {
    url: url.origin + full + url.search,
    shown: url.origin + full,
    host: url.hostname,
    isOpenAi: url.hostname === "api.openai.com"
  }
}
