import * as AiError from "effect/ai/AiError"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as HttpHeaders from "effect/http/Headers"
import type * as HttpClientError from "effect/http/HttpClientError"
import type * as Redacted from "effect/Redacted"
import * as AiRejection from "../rejection/rejection.ts"
import * as RetryAfter from "../../RetryAfter.ts"
import * as ErrorBody from "../kit/errorBody.ts"
import { isServersTrouble, type Kind, kindOf } from "./errorKind.ts"
import { amazonCode } from "./errorWords.ts"
import type { Mask } from "./mask.ts"

/** What all errors of one request have in common. */
export interface Origin {
  /** The public module. */
  readonly module: string
  /** The provider's host. */
  readonly provider: string
  readonly method: "generateText" | "streamText" | "embedMany"
  readonly model: string
  /** The URL without its query. */
  readonly url: string
  readonly hasKey: boolean
  readonly mask: Mask
  /** How much of a body is kept, in characters. */
  readonly excerptLength: number
  readonly maxRetryAfter: Duration.Duration
  /** The time in epoch milliseconds. */
  readonly now: () => number
}

/** The part of an HTTP response that goes into an error. */
export interface ResponseHead {
  readonly status: number
  readonly headers: HttpHeaders.Headers
}

/** How much of the provider's message is kept, in characters. */
const messageLength = 300

/** How much of an unreadable text is kept, in characters. */
const sampleLength = 80

export const make = (origin: Origin, reason: AiError.AiErrorReason): AiError.AiError =>
  AiError.make({ module: origin.module, method: origin.method, reason })

// ---------- no response

/** The request was not sent, or the connection failed before there was a response. */
export const transport = (origin: Origin, error: HttpClientError.HttpClientError, now: number): AiError.AiError => {
  const { reason } = error
  switch (reason._tag) {
    case "StatusCodeError":
      // Only from a client that is configured to fail on a status.
      return fromStatus(origin, reason.response, "", now)
    case "EncodeError":
    case "InvalidUrlError":
    case "TransportError":
      return network(origin, reason._tag, lostBy(error))
    case "DecodeError":
    case "EmptyBodyError":
      return network(origin, "TransportError", lostBy(error))
  }
}

/** How the connection failed, in the words of the transport. */
export const lostBy = ({ reason }: HttpClientError.HttpClientError): string =>
  describeCause(reason.cause) ?? reason.description ?? "no reason given"

// A `cause` would be written out with the error. It can hold headers and bodies, so only one masked line of it is kept.
const network = (origin: Origin, reason: AiError.NetworkError["reason"], description: string): AiError.AiError =>
  make(
    origin,
    new AiError.NetworkError({
      reason,
      method: "POST",
      url: origin.url,
      description: excerpt(origin, description, messageLength)
    })
  )

/** The request cannot be encoded as JSON: a tool's result has a bigint or a cycle. */
export const unencodable = (origin: Origin, error: unknown): AiError.AiError =>
  network(origin, "EncodeError", error instanceof Error ? error.message : "the request cannot be encoded as JSON")

const describeCause = (cause: unknown): string | undefined => {
  if (!(cause instanceof Error)) return undefined
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : undefined
  // `fetch` fails with "fetch failed" and has the reason in its cause. A failed race of addresses has no message.
  if (code === undefined && cause.cause instanceof Error) return describeCause(cause.cause)
  if (code === undefined || cause.message.includes(code)) return cause.message
  return cause.message === "" ? code : `${code}: ${cause.message}`
}

// ---------- an error response

/** The status is not 2xx. */
export const fromStatus = (origin: Origin, response: ResponseHead, body: string, now: number): AiError.AiError => {
  const http = context(origin, response, body)
  const { headers, status } = response
  if (status >= 300 && status < 400) return make(origin, redirect(origin, response, http))
  // A firewall, which may have blocked this prompt. It says nothing about the credential.
  if (status === 403 && ErrorBody.isPage(body)) {
    return incompatible(origin, response, `HTTP 403 with a page instead of JSON: ${sample(origin, body)}`)
  }
  const detail = ErrorBody.parse(body)
  const kind = meaningOf(status, detail, amazonCode(headers))
  const wait = RetryAfter.fromResponse(
    { status: kind === "Throttled" ? 429 : status, headers, body },
    { now, max: origin.maxRetryAfter }
  )
  return make(origin, reasonFor(origin, status, `HTTP ${status}`, kind, detail, http, wait, now))
}

/** An error in a response with status 200. Providers send it within a stream that has begun. */
export const fromStream = (origin: Origin, response: ResponseHead, error: unknown, body: string): AiError.AiError => {
  // Beside an error that is a text, its code can be in the same object.
  const isText = error === undefined || typeof error === "string"
  const detail = isText ? ErrorBody.parse(body) : ErrorBody.read(error)
  const http = context(origin, response, body)
  const status = statusOf(kindOf(detail), detail)
  const kind = meaningOf(status, detail, [])
  const now = origin.now()
  // Without the headers: they belong to the successful beginning of the response.
  const wait = RetryAfter.fromResponse(
    { status, body: isText ? body : JSON.stringify(error) },
    { now, max: origin.maxRetryAfter }
  )
  return make(origin, reasonFor(origin, status, "error within the response", kind, detail, http, wait, now))
}

type Http = typeof AiError.HttpContext.Type

/** The kind of the error by its body, if that differs from its status. */
const meaningOf = (
  status: number,
  detail: ErrorBody.ErrorBody,
  more: ReadonlyArray<string>
): Kind | undefined => {
  if (isServersTrouble(status)) return undefined
  const kind = kindOf({ codes: [...detail.codes, ...more], messages: detail.messages })
  // A gateway's 5xx can report a failure of the gateway's own account at its upstream. Another attempt may use another account.
  if (status >= 500) return kind === "Content" ? kind : undefined
  return status === 429 && kind === "Transient" ? undefined : kind
}

const reasonFor = (
  origin: Origin,
  status: number,
  what: string,
  kind: Kind | undefined,
  detail: ErrorBody.ErrorBody,
  http: Http,
  wait: Duration.Duration | undefined,
  now: number
): AiError.AiErrorReason => {
  const description = explain(origin, what, detail)
  switch (kind ?? kindOfStatus(status)) {
    case "Content":
      return new AiError.ContentPolicyError({ description, http })
    case "Quota":
      return new AiError.QuotaExhaustedError({
        http,
        ...(wait === undefined ? {} : { resetAt: DateTime.makeUnsafe(now + Duration.toMillis(wait)) })
      })
    case "Credential":
      return new AiError.AuthenticationError({ kind: authenticationKind(origin, status, detail), description, http })
    case "Throttled":
      return new AiError.RateLimitError({ retryAfter: wait, http, ...recorded(wait) })
    case "Transient":
      return internal(description, http, wait)
  }
  if (status === 404) {
    return new AiError.InvalidRequestError({ description: `model "${origin.model}": ${description}`, http })
  }
  const parameter = detail.param === undefined ? undefined : excerpt(origin, detail.param, sampleLength)
  return new AiError.InvalidRequestError({ parameter, description, http })
}

const kindOfStatus = (status: number): Kind | undefined => {
  switch (status) {
    case 401:
    case 403:
      return "Credential"
    case 402:
      return "Quota"
    case 429:
      return "Throttled"
    default:
      return status >= 500 || isServersTrouble(status) ? "Transient" : undefined
  }
}

/** The metadata from which `RetryAfter.fromAiError` reads a wait that was read on arrival. */
const recorded = (wait: Duration.Duration | undefined) =>
  wait === undefined ? {} : { metadata: { sluice: { retryAfterMillis: Duration.toMillis(wait) } } }

const internal = (
  description: string,
  http: Http,
  retryAfter?: Duration.Duration | undefined,
  rejection?: AiRejection.Rejection
): AiError.InternalProviderError => {
  // The reason has no field for either. `RetryAfter.fromAiError` and `AiRejection.fromAiError` read them here.
  const sluice = {
    ...(retryAfter === undefined ? {} : { retryAfterMillis: Duration.toMillis(retryAfter) }),
    ...(rejection === undefined ? {} : { rejection: AiRejection.toMetadata(rejection) })
  }
  return new AiError.InternalProviderError({
    description,
    http,
    ...(Object.keys(sluice).length === 0 ? {} : { metadata: { sluice } })
  })
}

const redirect = (origin: Origin, response: ResponseHead, http: Http): AiError.InvalidRequestError => {
  const location = URL.parse(response.headers["location"] ?? "", origin.url)
  const target = location === null ? "elsewhere" : origin.mask(location.origin + location.pathname)
  return new AiError.InvalidRequestError({
    description:
      `HTTP ${response.status} redirects to ${target}. Redirects are not followed, since they would carry the key and ` +
      `the prompt to another host. Correct the url`,
    http
  })
}

const explain = (origin: Origin, what: string, { code, messages }: ErrorBody.ErrorBody): string => {
  const message = messages.length === 0 ? "" : `: ${messages.join(": ")}`
  return excerpt(origin, `${what}${code === undefined ? "" : ` (${code})`}${message}`, messageLength)
}

const authenticationKind = (
  origin: Origin,
  status: number,
  { codes, messages }: ErrorBody.ErrorBody
): AiError.AuthenticationError["kind"] => {
  if (status === 403) return "InsufficientPermissions"
  if (!origin.hasKey) return "MissingKey"
  return codes.some((code) => /expired/i.test(code)) || messages.some((message) => /^api key expired/i.test(message))
    ? "ExpiredKey"
    : "InvalidKey"
}

/** The HTTP status of each error, from OpenAI's and Anthropic's documentation. */
const statuses = new Map<string, number>([
  ["invalid_request_error", 400],
  ["content_filter", 400],
  ["content_policy_violation", 400],
  ["context_length_exceeded", 400],
  ["authentication_error", 401],
  ["invalid_api_key", 401],
  ["expired_api_key", 401],
  ["billing_error", 402],
  ["permission_error", 403],
  ["not_found_error", 404],
  ["model_not_found", 404],
  ["request_too_large", 413],
  ["rate_limit_error", 429],
  ["rate_limit_exceeded", 429],
  ["insufficient_quota", 429],
  ["api_error", 500],
  ["server_error", 500],
  ["timeout_error", 504],
  ["overloaded_error", 529]
])

const statusesOfKinds: { readonly [_ in Kind]: number } = {
  Content: 400,
  Quota: 402,
  Credential: 401,
  Throttled: 429,
  Transient: 503
}

/** The status that an error would have, had it not come with a 200. */
const statusOf = (kind: Kind | undefined, { codes, status }: ErrorBody.ErrorBody): number => {
  if (status !== undefined) return status
  const known = codes.find((code) => statuses.has(code))
  return (known === undefined ? undefined : statuses.get(known)) ?? (kind === undefined ? 500 : statusesOfKinds[kind])
}

// ---------- a response that cannot be used

/** How far a response had come when it ended. */
export interface Progress {
  readonly parts: number
  readonly hadOutput: boolean
}

/**
 * A stream ended without a finish reason, or the connection was lost within the response. Its parts must not be taken for the
 * whole response. `lost`: how the connection failed, whatever the socket calls it.
 */
export const truncated = (
  origin: Origin,
  response: ResponseHead,
  { hadOutput, parts }: Progress,
  lost?: string | undefined
): AiError.AiError => {
  const why = lost === undefined ? {} : { lost: excerpt(origin, lost, sampleLength) }
  const rejection = new AiRejection.TruncatedStream({ target: origin.provider, parts, hadOutput, ...why })
  return make(origin, internal(rejection.message, context(origin, response), undefined, rejection))
}

/** The connection was lost within a whole response. */
export const cut = (
  origin: Origin,
  response: ResponseHead,
  error: HttpClientError.HttpClientError
): AiError.AiError => truncated(origin, response, { parts: 0, hadOutput: false }, lostBy(error))

/** The finish reason is an error, without details. */
export const endedInError = (origin: Origin, response: ResponseHead): AiError.AiError =>
  make(origin, internal("the provider ended the response with an error", context(origin, response)))

/** A text that should be JSON and is not. */
export const malformed = (origin: Origin, response: ResponseHead, text: string): AiError.AiError =>
  make(
    origin,
    internal(
      `malformed response: ${sample(origin, text)}`,
      context(origin, response),
      undefined,
      new AiRejection.MalformedEvent({ target: origin.provider, sample: excerpt(origin, text, sampleLength) })
    )
  )

/** A whole response that is not JSON: broken, or by its content type another server's page. */
export const notJson = (origin: Origin, response: ResponseHead, body: string): AiError.AiError => {
  const type = response.headers["content-type"]
  return type === undefined || type.includes("json")
    ? malformed(origin, response, body)
    : incompatible(origin, response, `${origin.mask(type)} instead of JSON: ${sample(origin, body)}`)
}

/** A response in another format, or beyond the bounds. A retry would not help. */
export const incompatible = (origin: Origin, response: ResponseHead, why: string): AiError.AiError =>
  make(
    origin,
    new AiError.InvalidResponseError({
      description: excerpt(origin, why, messageLength),
      http: context(origin, response)
    })
  )

/** A tool call whose arguments cannot be read. */
export const badArguments = (origin: Origin, toolName: string, why: string): AiError.AiError =>
  make(origin, new AiError.ToolParameterValidationError({ toolName, description: why }))

export const refused = (origin: Origin, response: ResponseHead, refusal: string): AiError.AiError =>
  make(
    origin,
    new AiError.ContentPolicyError({
      description: excerpt(origin, refusal, messageLength),
      http: context(origin, response)
    })
  )

// ---------- what an error keeps of a response

/** The first characters of an unreadable text, quoted. */
export const sample = (origin: Origin, text: string): string => JSON.stringify(excerpt(origin, text, sampleLength))

// Masks before it cuts. Otherwise half a key could remain at the end.
const excerpt = (origin: Origin, text: string, length: number): string => origin.mask(text).slice(0, length)

const context = (origin: Origin, response: ResponseHead, body?: string): Http => ({
  response: { status: response.status, headers: redactHeaders(origin, response.headers) },
  ...(body === undefined || body === "" ? {} : { body: excerpt(origin, body, origin.excerptLength) })
})

const sensitive = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"]

const redactHeaders = (origin: Origin, headers: HttpHeaders.Headers): Record<string, string | Redacted.Redacted> => {
  const redacted = HttpHeaders.redact(headers, sensitive)
  for (const [name, value] of Object.entries(redacted)) {
    if (typeof value === "string") redacted[name] = origin.mask(value)
  }
  return redacted
}
