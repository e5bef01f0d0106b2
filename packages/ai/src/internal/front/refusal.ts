import type * as AiError from "effect/ai/AiError"
import * as Duration from "effect/Duration"
import * as AiRejection from "../../AiRejection.ts"
import type { OutgoingHeaders } from "./exchange.ts"
import type { Speaks } from "./route.ts"
import { messagesType } from "./translate/errors.ts"

/** Why the front itself refuses a request. The other codes are those of `AiRejection.toHttp`. */
export type OwnCode =
  | BodyProblem
  | "invalid_api_key"
  | "invalid_body"
  | "invalid_headers"
  | "method_not_allowed"
  | "not_found"
  | "unsupported_media_type"
  | "upgrade_required"

/** Why the front cannot have the body of a request. */
export type BodyProblem = "body_was_read" | "request_too_large"

/** Why a request gets no answer of a model. */
export interface Refusal {
  readonly status: number
  readonly code: AiRejection.HttpCode | OwnCode
  readonly message: string
  readonly retryAfter?: Duration.Duration | undefined
  /** The field of the request that is at fault. */
  readonly param?: string | undefined
}

const own: { readonly [_ in OwnCode]: readonly [status: number, message: string] } = {
  body_was_read: [
    500,
    "The server has read the body of the request before the front. Mount the front before every middleware that reads bodies, such as express.json()."
  ],
  invalid_api_key: [401, "The API key is missing or wrong."],
  invalid_body: [400, "The body of the request is not a JSON object."],
  invalid_headers: [400, "The headers of the request are ambiguous."],
  method_not_allowed: [405, "The path does not allow this method."],
  not_found: [404, "There is no such path."],
  request_too_large: [413, "The body of the request is too large."],
  unsupported_media_type: [415, "The body of the request must be JSON without a content coding."],
  upgrade_required: [426, "The server does not speak WebSocket. Use HTTP."]
}

/** A refusal of the front itself. `message` replaces that of the code. */
export const refuse = (code: OwnCode, message?: string): Refusal => {
  const [status, text] = own[code]
  return { status, code, message: message ?? text }
}

/** A fault of the front itself. */
export const defect: Refusal = { status: 500, code: "internal_error", message: "The server cannot make this call." }

/** The error of a call, as `AiRejection.toHttp` says it. */
export const ofError = (error: AiError.AiError | AiRejection.Rejection): Refusal => AiRejection.toHttp(error)

/** No target of the client's API has an equal for a field of the request. */
export const unsupported = (param: string, message: string): Refusal => ({
  status: 400,
  code: "unsupported_parameter",
  message,
  param
})

/** The official clients obey a longer wait by waiting for less than a second. */
const longestWait = 60

const overloaded = new Set<Refusal["code"]>(["circuit_open", "no_target", "backpressure_shed"])

/** The whole seconds after which a client may retry. */
const secondsOf = ({ retryAfter }: Refusal): number | undefined =>
  retryAfter === undefined ? undefined : Math.max(1, Math.ceil(Duration.toSeconds(retryAfter)))

/**
 * Whether the client should retry, for `x-should-retry`. `undefined`: the header is left out, and the client decides by the status.
 *
 * The front has retried a failed call already. A retry by the client is of use only if the front did not call a provider.
 */
const shouldRetry = (refusal: Refusal): boolean | undefined => {
  const seconds = secondsOf(refusal)
  const isTooLong = seconds !== undefined && seconds > longestWait
  switch (refusal.code) {
    case "circuit_open":
    case "no_target":
      return isTooLong ? false : undefined
    case "quota_exceeded":
      return isTooLong || seconds === undefined ? false : undefined
    case "backpressure_shed":
      // Without a wait, the call is never admitted.
      return seconds !== undefined && !isTooLong
    default:
      return refusal.status === 429 || refusal.status >= 500 ? false : undefined
  }
}

/** The headers by which clients decide whether and when they retry. */
const retryHeaders = (refusal: Refusal): OutgoingHeaders => {
  const seconds = secondsOf(refusal)
  const retry = shouldRetry(refusal)
  return {
    ...(seconds === undefined ? {} : { "retry-after": String(Math.min(longestWait, seconds)) }),
    ...(retry === undefined ? {} : { "x-should-retry": String(retry) })
  }
}

/** A whole response. */
export interface Refused {
  readonly status: number
  readonly headers: OutgoingHeaders
  readonly body: string
}

/** A refusal as the response that the client's API has for it. */
export const toResponse = (speaks: Speaks, refusal: Refusal): Refused => {
  const body = JSON.stringify(speaks === "openai" ? openAiError(refusal) : anthropicError(refusal))
  return {
    // 529 is Anthropic's status for an overloaded server.
    status: speaks === "anthropic" && overloaded.has(refusal.code) ? 529 : refusal.status,
    headers: {
      "content-type": "application/json",
      "content-length": String(Buffer.byteLength(body)),
      "x-sluice-code": refusal.code,
      ...retryHeaders(refusal)
    },
    body
  }
}

const openAiError = ({ code, message, param = undefined, status }: Refusal): object => ({
  error: {
    message,
    type: status < 500 && status !== 429 ? "invalid_request_error" : "sluice_error",
    param: param ?? null,
    code
  }
})

const anthropicError = (refusal: Refusal): object => ({
  type: "error",
  error: {
    type: overloaded.has(refusal.code) ? "overloaded_error" : messagesType(refusal.status),
    message: refusal.message
  }
})

/** A response of the provider. */
interface Answered {
  readonly status: number
  readonly headers: OutgoingHeaders
}

/**
 * The head with which the provider's own error response goes to the client, once all attempts are used up. `undefined`: the
 * client gets `toResponse` instead.
 *
 * A redirect is for the front, and an error of the provider's credential can show a part of it: some clients would also
 * take it for one about their own key. `refusal`: that of the call's error. `headers`: those that a client may see.
 */
export const verbatim = (refusal: Refusal, { headers, status }: Answered): Answered | undefined => {
  if (status < 400 || status === 401 || status === 402 || status === 403 || status === 407) return undefined
  if (refusal.code === "credential_refused" || refusal.code === "internal_error") return undefined
  return { status, headers: { ...headers, "x-should-retry": "false" } }
}
