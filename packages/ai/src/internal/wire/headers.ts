import type { OptionsReader } from "@sluice/core/OptionsReader"
import * as HttpHeaders from "effect/http/Headers"
import * as Redacted from "effect/Redacted"
import type { ResponseHead } from "./failure.ts"

/** The caller's headers, by name. */
export interface Custom {
  readonly [name: string]: string | Redacted.Redacted
}

/** Headers that frame or route the request. Only the transport sets them. */
const transport = new Set([
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "host",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade"
])

const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const printable = /^[\t\x20-\x7e]*$/

/** Why a header is refused, without its value. `keyHeader`: the header that carries the key, if there is a key. */
const problem = (
  name: string,
  value: string | Redacted.Redacted,
  keyHeader: string | undefined
): string | undefined => {
  const lower = name.toLowerCase()
  if (!token.test(name)) return "must have names that HTTP allows"
  if (transport.has(lower)) return "must not frame or route the request"
  if (lower === keyHeader) return `must not contain ${keyHeader}, which carries the apiKey`
  if (!printable.test(text(value))) return "must have values of printable ASCII characters, without line ends"
  return undefined
}

/** Refuses every header that cannot be sent, without showing its value. */
export const check = (
  options: OptionsReader,
  headers: Custom | undefined,
  keyHeader: string | undefined,
  path: string
): void => {
  for (const [name, value] of Object.entries(headers ?? {})) {
    const requirement = problem(name, value, keyHeader)
    if (requirement !== undefined) {
      options.refuse(path, token.test(name) ? `${name}: [masked]` : "a header without a valid name", requirement)
    }
  }
}

/** Why the first header that cannot be sent is refused. */
export const firstProblem = (headers: Custom, keyHeader: string | undefined): string | undefined => {
  for (const [name, value] of Object.entries(headers)) {
    const requirement = problem(name, value, keyHeader)
    if (requirement !== undefined) return `headers${token.test(name) ? ` (${name})` : ""} ${requirement}`
  }
  return undefined
}

/** The headers with lower-case names and plain values. */
export const plain = (headers: Custom | undefined): Record<string, string> => {
  const sent: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers ?? {})) sent[name.toLowerCase()] = text(value)
  return sent
}

/**
 * The head of a response with every `retry-after` that it has. Node keeps the first one in its headers, so the others are read
 * from the message below a response of `HttpTransport`.
 */
export const withAllWaits = (response: ResponseHead): ResponseHead => {
  const { headers, status } = response
  const source = "source" in response ? response.source : undefined
  if (typeof source !== "object" || source === null || !("headersDistinct" in source)) return response
  // Node's `IncomingMessage`. Another object with this field would have to have it in the same form.
  const waits = (source.headersDistinct as NodeJS.Dict<Array<string>> | undefined)?.["retry-after"]
  return waits === undefined || waits.length < 2
    ? response
    : { status, headers: HttpHeaders.set(headers, "retry-after", waits.join(", ")) }
}

/** The values that must not be shown. */
export const secrets = (headers: Custom | undefined): ReadonlyArray<Redacted.Redacted> =>
  Object.values(headers ?? {}).filter((value) => Redacted.isRedacted(value))

const text = (value: string | Redacted.Redacted): string => typeof value === "string" ? value : Redacted.value(value)
