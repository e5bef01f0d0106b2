import type { IncomingHeaders, OutgoingHeaders } from "./exchange.ts"

/** Headers that belong to one connection. `connection` can name more. */
const ofConnection = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade"
]

/** Headers of a client that the provider does not get: credentials for the front, and where the request came from. */
const ofClient = new Set([
  ...ofConnection,
  "accept-encoding",
  "api-key",
  "authorization",
  "content-length",
  "cookie",
  "expect",
  "forwarded",
  "host",
  "via",
  "x-api-key",
  "x-goog-api-key",
  "x-real-ip"
])
const ofClientPrefixes = ["proxy-", "x-forwarded-", "x-sluice-"]

/** Headers that name the client's trace. They show how a caller is built, so they are passed on only if that is asked for. */
const ofTrace = new Set(["baggage", "traceparent", "tracestate"])

/** Headers of a provider that the client does not get: those of the connection, and those about the provider's own origin. */
const ofProvider = new Set([
  ...ofConnection,
  "alt-svc",
  "clear-site-data",
  "set-cookie",
  "strict-transport-security"
])
const ofProviderPrefixes = ["access-control-", "proxy-", "x-sluice-"]

export interface ToProvider {
  /** The key and the headers of the target, by names in lower case. They replace those of the client. */
  readonly own: OutgoingHeaders
  /** Sent where the client has no such header: `anthropic-version`, `idempotency-key`. */
  readonly defaults?: OutgoingHeaders | undefined
  /** The bytes of the body. `undefined`: there is no body. */
  readonly length: number | undefined
  /** Whether the client's trace goes on. Default: false. */
  readonly passesTrace?: boolean | undefined
}

/** The headers of a request to a provider: those of the client but for credentials and those of its connection. */
export const toProvider = (
  received: IncomingHeaders,
  { defaults, length, own, passesTrace = false }: ToProvider
): OutgoingHeaders => {
  const sent = without(received, ofClient, ofClientPrefixes)
  if (!passesTrace) { for (const name of ofTrace) delete sent[name] }
  // Without a coding, the guard reads the answer as it comes.
  return {
    ...defaults,
    ...sent,
    "accept-encoding": "identity",
    ...own,
    ...(length === undefined ? {} : { "content-length": String(length) })
  }
}

export interface ToClient {
  /** The headers of the front, such as `x-sluice-target`. */
  readonly own: OutgoingHeaders
  /** Whether the answer can get another length, as every stream can. */
  readonly changesLength: boolean
  /** Whether the front has decoded the answer. */
  readonly isDecoded?: boolean | undefined
}

/** The headers of an answer to a client: those of the provider but for those of its connection and its origin. */
export const toClient = (
  received: IncomingHeaders,
  { changesLength, isDecoded = false, own }: ToClient
): OutgoingHeaders => {
  const sent = without(received, ofProvider, ofProviderPrefixes)
  if (changesLength || isDecoded) delete sent["content-length"]
  if (isDecoded) delete sent["content-encoding"]
  return { ...sent, ...own }
}

/** Whether a body is compressed, so that it can only pass as it is. */
export const isCoded = (received: IncomingHeaders): boolean =>
  listOf(received["content-encoding"]).some((coding) => coding !== "identity")

const token = /^[!#$%&'*+.^_`|~0-9a-z-]+$/
/** A tab, and the visible characters of Latin-1. */
const plainValue = /^[\t\x20-\x7e\x80-\xff]*$/

/**
 * Why the headers of a request are refused, without their values. Two servers can read such a request as different ones.
 *
 * Node's parser refuses most of these. The front can also be called without it.
 */
export const problem = (received: IncomingHeaders): string | undefined => {
  for (const name in received) {
    const value = received[name]
    if (value === undefined) continue
    if (!token.test(name)) return "A header has a name that HTTP does not allow."
    const values = typeof value === "string" ? [value] : value
    if (!values.every((each) => plainValue.test(each))) return `The header ${name} has control characters.`
  }
  const length = received["content-length"]
  if (length === undefined) return undefined
  if (typeof length !== "string" || !/^\d+$/.test(length)) return "The header content-length is not one number."
  return received["transfer-encoding"] === undefined
    ? undefined
    : "The request has both content-length and transfer-encoding."
}

const without = (
  received: IncomingHeaders,
  dropped: ReadonlySet<string>,
  prefixes: ReadonlyArray<string>
): OutgoingHeaders => {
  const named = received["connection"] === undefined ? none : new Set(listOf(received["connection"]))
  const sent: OutgoingHeaders = {}
  for (const name in received) {
    const value = received[name]
    // A pseudo header of HTTP/2 begins with a colon.
    if (value === undefined || name.startsWith(":") || dropped.has(name) || named.has(name)) continue
    if (!prefixes.some((prefix) => name.startsWith(prefix))) sent[name] = value
  }
  return sent
}

const none: ReadonlySet<string> = new Set()

/** The elements of a list, in lower case. */
const listOf = (value: string | ReadonlyArray<string> | undefined): ReadonlyArray<string> =>
  (typeof value === "string" ? value : value?.join(",") ?? "")
    .split(",").map((each) => each.trim().toLowerCase()).filter((each) => each !== "")
