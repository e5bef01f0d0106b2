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

/** What every error of one request has in common. */
export interface Origin {
  /** The module that asks. */
  readonly module: string
  /** The provider's host. */
  readonly provider: string
  readonly method: "generateText" | "streamText"
  readonly model: string
  /** The URL that was asked, without its query. */
  readonly url: string
  readonly hasKey: boolean
  readonly mask: Mask
  /** Longest excerpt of a body that is kept, in characters. */
  readonly excerptLength: number
  readonly maxRetryAfter: Duration.Duration
}

/** What of an HTTP answer goes into an error. */
export interface Answer {
  readonly status: number
  readonly headers: HttpHeaders.Headers
}

/** How much of a message of the provider's goes into ours. */
const messageLength = 300

/** How much of something unreadable goes into a message. */
const sampleLength = 80

/** An error of this request, for this reason. */
export const make = (origin: Origin, reason: AiError.AiErrorReason): AiError.AiError =>
  AiError.make({ module: origin.module, method: origin.method, reason })

// ---------- no answer

/** The request was not sent, or the connection failed before the answer was complete. */
export const transport = (origin: Origin, error: HttpClientError.HttpClientError, now: number): AiError.AiError => {
  const { reason } = error
  switch (reason._tag) {
    case "StatusCodeError":
      // Only from a client that was told to fail on a status.
      return fromStatus(origin, reason.response, "", now)
    case "EncodeError":
    case "InvalidUrlError":
    case "TransportError":
      return network(origin, reason._tag, describeCause(reason.cause) ?? reason.description ?? "no answer")
    case "DecodeError":
    case "EmptyBodyError":
      return network(
        origin,
        "TransportError",
        `connection lost within the answer: ${describeCause(reason.cause) ?? "no body"}`
      )
  }
}

// AiError keeps a `cause` for this and writes it out with the error. A cause is a stranger's object, with headers and
// bodies in it, so only a masked line of it goes on.
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

/** The request cannot be written as JSON: a bigint or a circle in a tool's result. */
export const unencodable = (origin: Origin, error: unknown): AiError.AiError =>
  network(origin, "EncodeError", error instanceof Error ? error.message : "the request is no JSON")

const describeCause = (cause: unknown): string | undefined => {
  if (!(cause instanceof Error)) return undefined
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : undefined
  // fetch says "fetch failed" and hides the reason one level down; a failed race of addresses has no message at all.
  if (code === undefined && cause.cause instanceof Error) return describeCause(cause.cause)
  if (code === undefined || cause.message.includes(code)) return cause.message
  return cause.message === "" ? code : `${code}: ${cause.message}`
}

// ---------- an answer that is not 200

/** The provider answered with a status other than success. */
export const fromStatus = (origin: Origin, answer: Answer, body: string, now: number): AiError.AiError => {
  const http = context(origin, answer, body)
  if (answer.status >= 300 && answer.status < 400) return make(origin, redirect(origin, answer, http))
  const detail = fromBody(body)
  const retryAfter = RetryAfter.fromHeaders(answer.headers, { now, max: origin.maxRetryAfter })
  return make(origin, reasonFor(origin, answer.status, `HTTP ${answer.status}`, detail, http, retryAfter))
}

/** An error object where an answer was expected: providers send it within a stream, whose status was 200 long before. */
export const fromStream = (origin: Origin, answer: Answer, error: unknown, body: string): AiError.AiError => {
  const detail = fromError(error)
  const http = context(origin, answer, body)
  return make(origin, reasonFor(origin, statusOf(detail), "error within the answer", detail, http, undefined))
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
  // The reason has no field for either; RetryAfter.fromAiError and AiRejection.fromAiError read them here.
  const sluice = {
    ...(retryAfter === undefined ? {} : { retryAfterMillis: Duration.toMillis(retryAfter) }),
    ...(rejection === undefined ? {} : { rejection: AiRejection.note(rejection) })
  }
  return new AiError.InternalProviderError({
    description,
    http,
    ...(Object.keys(sluice).length === 0 ? {} : { metadata: { sluice } })
  })
}

const redirect = (origin: Origin, answer: Answer, http: Http): AiError.InvalidRequestError => {
  const location = URL.parse(answer.headers["location"] ?? "", origin.url)
  const target = location === null ? "elsewhere" : origin.mask(location.origin + location.pathname)
  return new AiError.InvalidRequestError({
    description:
      `HTTP ${answer.status} redirects to ${target}. Redirects are not followed, since they would carry key and ` +
      `prompt to another place: correct the url`,
    http
  })
}

const describe = (origin: Origin, what: string, detail: Detail): string => {
  const code = detail.code ?? detail.type
  const said = detail.message === undefined ? "" : `: ${detail.message}`
  return excerpt(origin, `${what}${code === undefined ? "" : ` (${code})`}${said}`, messageLength)
}

const authenticationKind = (origin: Origin, status: number, detail: Detail): AiError.AuthenticationError["kind"] => {
  if (status === 403) return "InsufficientPermissions"
  if (!origin.hasKey) return "MissingKey"
  return detail.code === "expired_api_key" ? "ExpiredKey" : "InvalidKey"
}

const isQuota = ({ code, message, type }: Detail): boolean => Words.isQuota(Words.told([code, type], message))

const isContentPolicy = ({ code, message, type }: Detail): boolean =>
  code === "content_filter" || type === "content_filter" || Words.isContentPolicy([code, type, message].join("\n"))

/** The statuses with which these errors come where they come with a status: OpenAI's and Anthropic's own lists. */
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

/** The status that an error within a 200 would have had by itself. */
const statusOf = (detail: Detail): number => {
  const code = typeof detail.code === "string" ? Number(detail.code) : detail.code
  if (code !== undefined && code >= 400 && code < 600) return code
  const known = statuses.get(detail.code) ?? statuses.get(detail.type)
  return known ?? (isQuota(detail) ? 402 : 500)
}

// ---------- an answer that cannot be used

/** What had come of a stream when it ended. */
export interface Progress {
  readonly events: number
  readonly parts: number
  /** Whether some of that was content. */
  readonly hadOutput: boolean
}

/** A stream that ended without a finish reason: what came of it is a part of the answer, and not to be taken for it. */
export const truncated = (origin: Origin, answer: Answer, { events, hadOutput, parts }: Progress): AiError.AiError =>
  make(
    origin,
    internal(
      `answer truncated: the stream ended without a finish reason, after ${events} events`,
      context(origin, answer),
      undefined,
      new AiRejection.TruncatedStream({ target: origin.provider, parts, hadOutput })
    )
  )

/** An answer whose finish reason is an error, with nothing else said about it. */
export const endedInError = (origin: Origin, answer: Answer): AiError.AiError =>
  make(origin, internal("the provider ended the answer in an error", context(origin, answer)))

/** Something that should have been JSON and is not. */
export const malformed = (origin: Origin, answer: Answer, text: string): AiError.AiError =>
  make(
    origin,
    internal(
      `malformed answer: ${sample(origin, text)}`,
      context(origin, answer),
      undefined,
      new AiRejection.MalformedEvent({ target: origin.provider, sample: excerpt(origin, text, sampleLength) })
    )
  )

/** A whole answer that is no JSON: a broken one if it says that it is JSON, and another server's page if it says that. */
export const notJson = (origin: Origin, answer: Answer, body: string): AiError.AiError => {
  const type = answer.headers["content-type"]
  return type === undefined || type.includes("json")
    ? malformed(origin, answer, body)
    : incompatible(origin, answer, `${origin.mask(type)} instead of JSON: ${sample(origin, body)}`)
}

/** A well-formed answer in a format that is not this one, or beyond our bounds: it will not be better next time. */
export const incompatible = (origin: Origin, answer: Answer, why: string): AiError.AiError =>
  make(
    origin,
    new AiError.InvalidResponseError({
      description: excerpt(origin, why, messageLength),
      http: context(origin, answer)
    })
  )

/** Arguments of a tool call that are no JSON. */
export const badArguments = (origin: Origin, toolName: string, why: string): AiError.AiError =>
  make(origin, new AiError.ToolParameterValidationError({ toolName, description: why }))

/** The model declined. */
export const refused = (origin: Origin, answer: Answer, refusal: string): AiError.AiError =>
  make(
    origin,
    new AiError.ContentPolicyError({
      description: excerpt(origin, refusal, messageLength),
      http: context(origin, answer)
    })
  )

// ---------- what of an answer is kept

/** The first characters of something unreadable, quoted. */
export const sample = (origin: Origin, text: string): string => JSON.stringify(excerpt(origin, text, sampleLength))

// Masked before it is cut, or half a key would be left at the end.
const excerpt = (origin: Origin, text: string, length: number): string => origin.mask(text).slice(0, length)

const context = (origin: Origin, answer: Answer, body?: string): Http => ({
  response: { status: answer.status, headers: redactHeaders(origin, answer.headers) },
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
