import * as AiError from "effect/ai/AiError"
import * as Duration from "effect/Duration"
import * as HttpHeaders from "effect/http/Headers"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as AiRejection from "../../AiRejection.ts"
import * as RetryAfter from "../../RetryAfter.ts"
import * as Words from "./errorWords.ts"
import type { Mask } from "./mask.ts"

/** What all errors of one request have in common. */
export interface Origin {
  /** The public module. */
  readonly module: string
  /** The provider's host. */
  readonly provider: string
  readonly method: "generateText" | "streamText"
  readonly model: string
  /** The URL without its query. */
  readonly url: string
  readonly hasKey: boolean
  readonly mask: Mask
  /** How much of a body is kept, in characters. */
  readonly excerptLength: number
  readonly maxRetryAfter: Duration.Duration
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

/** The request was not sent, or the connection failed before the response was complete. */
export const transport = (origin: Origin, error: HttpClientError.HttpClientError, now: number): AiError.AiError => {
  const { reason } = error
  switch (reason._tag) {
    case "StatusCodeError":
      // Only from a client that is configured to fail on a status.
      return fromStatus(origin, reason.response, "", now)
    case "EncodeError":
    case "InvalidUrlError":
    case "TransportError":
      return network(origin, reason._tag, describeCause(reason.cause) ?? reason.description ?? "no response")
    case "DecodeError":
    case "EmptyBodyError":
      return network(
        origin,
        "TransportError",
        `connection lost within the response: ${describeCause(reason.cause) ?? "no body"}`
      )
  }
}

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
  if (response.status >= 300 && response.status < 400) return make(origin, redirect(origin, response, http))
  const detail = fromBody(body)
  const retryAfter = RetryAfter.fromHeaders(response.headers, { now, max: origin.maxRetryAfter })
  return make(origin, reasonFor(origin, response.status, `HTTP ${response.status}`, detail, http, retryAfter))
}

/** An error in a response with status 200. Providers send it within a stream that has begun. */
export const fromStream = (origin: Origin, response: ResponseHead, error: unknown, body: string): AiError.AiError => {
  const detail = fromError(error)
  const http = context(origin, response, body)
  return make(origin, reasonFor(origin, statusOf(detail), "error within the response", detail, http, undefined))
}

interface Detail {
  readonly message: string | undefined
  readonly type: string | undefined
  readonly code: string | number | undefined
  readonly param: string | undefined
}

type Http = typeof AiError.HttpContext.Type

const reasonFor = (
  origin: Origin,
  status: number,
  what: string,
  detail: Detail,
  http: Http,
  retryAfter: Duration.Duration | undefined
): AiError.AiErrorReason => {
  const description = describe(origin, what, detail)
  if (status < 500 && isQuota(detail)) return new AiError.QuotaExhaustedError({ http })
  switch (status) {
    case 401:
    case 403:
      return new AiError.AuthenticationError({ kind: authenticationKind(origin, status, detail), description, http })
    case 402:
      return new AiError.QuotaExhaustedError({ http })
    case 404:
      return new AiError.InvalidRequestError({ description: `model "${origin.model}": ${description}`, http })
    case 408:
    case 409:
    case 425:
      return internal(description, http, retryAfter)
    case 429:
      return new AiError.RateLimitError({ retryAfter, http })
  }
  if (status >= 500) return internal(description, http, retryAfter)
  if (isContentPolicy(detail)) return new AiError.ContentPolicyError({ description, http })
  const parameter = detail.param === undefined ? undefined : excerpt(origin, detail.param, sampleLength)
  return new AiError.InvalidRequestError({ parameter, description, http })
}

const internal = (
  description: string,
  http: Http,
  retryAfter?: Duration.Duration | undefined,
  rejection?: AiRejection.Rejection
): AiError.InternalProviderError => {
  // The reason has no field for either. RetryAfter.fromAiError and AiRejection.fromAiError read them here.
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

const describe = (origin: Origin, what: string, detail: Detail): string => {
  const code = detail.code ?? detail.type
  const message = detail.message === undefined ? "" : `: ${detail.message}`
  return excerpt(origin, `${what}${code === undefined ? "" : ` (${code})`}${message}`, messageLength)
}

const authenticationKind = (origin: Origin, status: number, detail: Detail): AiError.AuthenticationError["kind"] => {
  if (status === 403) return "InsufficientPermissions"
  if (!origin.hasKey) return "MissingKey"
  return detail.code === "expired_api_key" ? "ExpiredKey" : "InvalidKey"
}

const isQuota = ({ code, message, type }: Detail): boolean => Words.isQuota(Words.joinCodes([code, type], message))

const isContentPolicy = ({ code, message, type }: Detail): boolean =>
  code === "content_filter" || type === "content_filter" || Words.isContentPolicy([code, type, message].join("\n"))

/** The HTTP status of each error, from OpenAI's and Anthropic's documentation. */
const statuses = new Map<unknown, number>([
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

/** The status that an error would have, had it not come with a 200. */
const statusOf = (detail: Detail): number => {
  const code = typeof detail.code === "string" ? Number(detail.code) : detail.code
  if (code !== undefined && code >= 400 && code < 600) return code
  const known = statuses.get(detail.code) ?? statuses.get(detail.type)
  return known ?? (isQuota(detail) ? 402 : 500)
}

// ---------- a response that cannot be used

/** How far a stream had come when it ended. */
export interface Progress {
  readonly events: number
  readonly parts: number
  readonly hadOutput: boolean
}

/** The stream ended without a finish reason. Its parts must not be taken for the whole response. */
export const truncated = (
  origin: Origin,
  response: ResponseHead,
  { events, hadOutput, parts }: Progress
): AiError.AiError =>
  make(
    origin,
    internal(
      `response truncated: the stream ended without a finish reason, after ${events} events`,
      context(origin, response),
      undefined,
      new AiRejection.TruncatedStream({ target: origin.provider, parts, hadOutput })
    )
  )

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

const ErrorBody = Schema.fromJsonString(Schema.Struct({
  error: Schema.optional(Schema.Unknown),
  message: Schema.optional(Schema.Unknown),
  detail: Schema.optional(Schema.Unknown)
}))
const decodeErrorBody = Schema.decodeOption(ErrorBody)

const ErrorObject = Schema.Struct({
  message: Schema.optional(Schema.Unknown),
  type: Schema.optional(Schema.Unknown),
  code: Schema.optional(Schema.Unknown),
  param: Schema.optional(Schema.Unknown)
})
const decodeErrorObject = Schema.decodeUnknownOption(ErrorObject)

const fromBody = (body: string): Detail => {
  const read = Option.getOrUndefined(decodeErrorBody(body))
  return fromError(read?.error ?? read?.message ?? read?.detail)
}

const fromError = (error: unknown): Detail => {
  const read = Option.getOrUndefined(decodeErrorObject(error))
  return {
    message: string(error) ?? string(read?.message),
    type: string(read?.type),
    code: typeof read?.code === "number" ? read.code : string(read?.code),
    param: string(read?.param)
  }
}

const string = (value: unknown): string | undefined => typeof value === "string" && value !== "" ? value : undefined
