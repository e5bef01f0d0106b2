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

/**
 * Headers of a client that the provider does not get: credentials for the front, where the request came from, and the client's
 * trace, which shows how a caller is built.
 */
const ofClient = new Set([
  ...ofConnection,
  "accept-encoding",
  "api-key",
  "authorization",
  "baggage",
  "content-length",
  "cookie",
  "expect",
  "forwarded",
  "host",
  "traceparent",
  "tracestate",
  "via",
  "x-api-key",
  "x-goog-api-key",
  "x-real-ip"
])
const ofClientPrefixes = ["proxy-", "x-forwarded-", "x-sluice-"]

/** Headers of a provider that the client does not get: those of the connection, and those about the provider's own origin. */
const ofProvider = new Set([
  ...ofConnection,
  "alt-svc",
  "clear-site-data",
  "set-cookie",
  "strict-transport-security"
])
const ofProviderAndLength = new Set([...ofProvider, "content-length"])
const ofProviderPrefixes = ["access-control-", "proxy-", "x-sluice-"]

export interface ToProvider {
  /** The key and the headers of the target, by names in lower case. They replace those of the client. */
  readonly own: OutgoingHeaders
  /** Sent where the client has no such header: `anthropic-version`, `idempotency-key`. */
  readonly defaults?: OutgoingHeaders | undefined
}

/** The headers of a request to a provider: those of the client but for credentials and those of its connection. */
export const toProvider = (received: IncomingHeaders, { defaults, own }: ToProvider): OutgoingHeaders => {
  const sent = { ...defaults }
  addAll(sent, received, ofClient, ofClientPrefixes)
  // Without a coding, the guard reads the answer as it comes.
  sent["accept-encoding"] = "identity"
  return Object.assign(sent, own)
}

export interface ToClient {
  /** The headers of the front, such as `x-sluice-target`. */
  readonly own: OutgoingHeaders
  /** Whether the answer can get another length, as every stream can. */
  readonly changesLength: boolean
}

/** The headers of an answer to a client: those of the provider but for those of its connection and its origin. */
export const toClient = (received: IncomingHeaders, { changesLength, own }: ToClient): OutgoingHeaders => {
  const sent: OutgoingHeaders = {}
  addAll(sent, received, changesLength ? ofProviderAndLength : ofProvider, ofProviderPrefixes)
  return Object.assign(sent, own)
}

/** Whether a body is compressed, so that it can only pass as it is. */
export const isCoded = ({ "content-encoding": codings }: IncomingHeaders): boolean =>
  codings !== undefined && listOf(codings).some((coding) => coding !== "identity")

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
    const isPlain = typeof value === "string" ? plainValue.test(value) : value.every((each) => plainValue.test(each))
    if (!isPlain) return `The header ${name} has control characters.`
  }
  const length = received["content-length"]
  if (length === undefined) return undefined
  if (typeof length !== "string" || !/^\d+$/.test(length)) return "The header content-length is not one number."
  return received["transfer-encoding"] === undefined
    ? undefined
    : "The request has both content-length and transfer-encoding."
}

/** Adds the headers that are not dropped. */
const addAll = (
  sent: OutgoingHeaders,
  received: IncomingHeaders,
  dropped: ReadonlySet<string>,
  prefixes: ReadonlyArray<string>
): void => {
  const { connection } = received
  const named = connection === undefined || connection === "keep-alive" ? none : new Set(listOf(connection))
  for (const name in received) {
    const value = received[name]
    // A pseudo header of HTTP/2 begins with a colon.
    if (value === undefined || name.startsWith(":") || dropped.has(name) || named.has(name)) continue
    if (!prefixes.some((prefix) => name.startsWith(prefix))) sent[name] = value
  }
}

const none: ReadonlySet<string> = new Set()

/** The elements of a list, in lower case. */
const listOf = (value: string | ReadonlyArray<string>): ReadonlyArray<string> =>
  (typeof value === "string" ? value : value.join(","))
    .split(",").map((each) => each.trim().toLowerCase()).filter((each) => each !== "")
