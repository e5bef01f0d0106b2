/** What is said about errors: in the results, in the table, and to a person when a whole run has to end. */
import * as AiRejection from "@sluice/ai/AiRejection"
import type * as CallLog from "@sluice/ai/CallLog"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as AiError from "effect/ai/AiError"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type { Failure } from "./Result.ts"
import * as Words from "./Words.ts"

/** The error as it stands in the results. */
export const describe = (error: unknown): Failure => {
  if (!AiError.isAiError(error)) {
    return { tag: tagOf(error), message: oneLine(messageOf(error)), retryAfter: millis(field(error, "retryAfter")) }
  }
  const rejection = Option.getOrUndefined(AiRejection.fromAiError(error))
  return {
    tag: rejection?._tag ?? error.reason._tag,
    message: oneLine(rejection === undefined ? aiMessage(error.reason) : rejectionMessage(rejection, error.reason)),
    retryAfter: millis(RetryAfter.fromAiError(error))
  }
}

const rejectionMessage = (rejection: AiRejection.Rejection, reason: AiError.AiErrorReason): string => {
  switch (rejection._tag) {
    case "AttemptTimeout":
      return `no whole answer within ${time(rejection.after)}; --timeout allows more`
    case "FirstTokenTimeout":
      return `${rejection.message}; --first-token-timeout allows more`
    case "IdleTimeout":
      return `${rejection.message}; --idle-timeout allows more`
    case "DeadlineExceeded":
      return `no answer within ${time(rejection.budget)}; --deadline allows more`
    case "TruncatedStream":
    case "MalformedEvent":
      // A provider of ours has said more precisely what it saw.
      return aiMessage(reason)
    default:
      return rejection.message
  }
}

const time = (duration: Duration.Duration): string => Words.time(Duration.toMillis(duration))

/** Why a try failed, in a word or two for the table: from a short list, whatever the provider says. */
export const reasonOf = ({ status, type }: CallLog.Fault): string => {
  const known = reasons.get(type)
  if (known !== undefined) return known
  if (type === "InternalProviderError") return status === undefined || status < 400 ? "unreadable" : `HTTP ${status}`
  return type.replace(/Error$/, "").replaceAll(/\B[A-Z]/g, (letter) => ` ${letter}`).toLowerCase()
}

const reasons = new Map([
  ["RateLimitError", "rate limit"],
  ["NetworkError", "network"],
  ["AttemptTimeout", "timeout"],
  ["FirstTokenTimeout", "no first token"],
  ["IdleTimeout", "silence"],
  ["DeadlineExceeded", "deadline"],
  ["TruncatedStream", "cut short"],
  ["MalformedEvent", "unreadable"],
  ["EmptyAnswer", "empty"],
  ["CircuitOpen", "circuit open"],
  ["BackpressureShed", "shed"],
  ["NoTarget", "no target"]
])

/** Whether the error tells of the provider or the way to it. Any other may be the doing of the prompt that met it. */
export const isOutage = ({ reason }: AiError.AiError): boolean => {
  if (reason._tag === "NetworkError" || reason._tag === "RateLimitError") return true
  return reason._tag === "InternalProviderError" && outageStatuses.has(reason.http?.response?.status ?? 0)
}

const outageStatuses = new Set([408, 409, 502, 503, 504, 529])

const aiMessage = (reason: AiError.AiErrorReason): string => {
  switch (reason._tag) {
    case "RateLimitError":
      return "the provider asks for fewer requests (HTTP 429)"
    case "QuotaExhaustedError":
      return "the account has no quota or credit left"
    case "AuthenticationError":
      return reason.description ?? reason.message
    case "InternalProviderError":
    case "ContentPolicyError":
    case "InvalidResponseError":
      return reason.description
    case "NetworkError":
    case "InvalidRequestError":
      return reason.description ?? reason.message
    default:
      return reason.message
  }
}

// ---------- what ends a run before it has begun

/** What a run asks for, in the words of its flags. */
export interface Asked {
  readonly url: string
  readonly model: string | undefined
  readonly keySource: string
  readonly hasKey: boolean
  /** Whether the line names its own model, in which case a wrong one is that line's fault. */
  readonly isOwnModel: boolean
}

/**
 * One line for a person, if this error means that no prompt of the file could ever be answered; else `undefined`. To be
 * asked only as long as nothing has been answered: later the same error is the fault of a line or of the hour.
 */
export const fatal = (error: unknown, asked: Asked): string | undefined => {
  if (!AiError.isAiError(error)) return undefined
  const { reason } = error
  switch (reason._tag) {
    case "AuthenticationError":
      return asked.hasKey
        ? `the key from ${asked.keySource} was refused: ${said(reason)}`
        : `${asked.url} wants a key: set ${asked.keySource}, or see --key-env and --key-file`
    case "QuotaExhaustedError":
      return `the account of the key from ${asked.keySource} has no quota or credit left`
    case "NetworkError":
      return isUnreachable(reason) ? `cannot reach ${asked.url}: ${said(reason)}` : undefined
    case "InvalidResponseError":
      return isOtherApi(reason)
        ? `${asked.url} does not answer like an OpenAI-compatible API: ${said(reason)}`
        : undefined
    case "InvalidRequestError":
      return refusedRequest(reason, asked)
    default:
      return undefined
  }
}

/** One line for a person who set a key or a URL that no call can be made with, in the words of the flags. */
export const unusable = ({ issues }: InvalidOptions, { keySource, url }: Pick<Asked, "keySource" | "url">): string =>
  issues.map(({ option, requirement }) => {
    switch (option) {
      case "apiKey":
        return `the key from ${keySource} ${requirement}`
      case "url":
        // Whatever else can be wrong with a URL was refused with the flags.
        return `${url} would get the key unencrypted; use https://, or --allow-insecure-key if that is meant`
      default:
        return `${option} ${requirement}`
    }
  }).join("; ")

const said = (reason: AiError.AiErrorReason): string => oneLine(aiMessage(reason))

// JSON or events that are too large or too deep to be read are one answer's fault: the next may be smaller.
const isOtherApi = (reason: AiError.InvalidResponseError): boolean =>
  !/json|event-stream/i.test(String(reason.http?.response?.headers["content-type"] ?? ""))

// Nobody listens there, or it is not who it should be. A connection that was made and lost is another matter: it passes.
const unreachable =
  /\b(?:ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|ERR_TLS_\w+|\w*CERT_\w+|\w*SELF_SIGNED\w*|UNABLE_TO_\w+)\b/

const isUnreachable = (reason: AiError.NetworkError): boolean =>
  reason.reason === "InvalidUrlError" || unreachable.test(reason.description ?? "")

/** Parameters that the flags set for every prompt alike. */
const ofAllPrompts = new Set([
  "model",
  "temperature",
  "max_tokens",
  "max_completion_tokens",
  "stream",
  "stream_options"
])

const refusedRequest = (reason: AiError.InvalidRequestError, asked: Asked): string | undefined => {
  const status = reason.http?.response?.status ?? 0
  if (status >= 300 && status < 400) return `${asked.url}: ${said(reason)}`
  if (asked.isOwnModel) return undefined
  if (status === 404) return `${asked.url} has no such model, or is no such API: ${said(reason)}`
  return ofAllPrompts.has(reason.parameter ?? "")
    ? `the provider refuses ${reason.parameter}: ${said(reason)}`
    : undefined
}

// ---------- any error

const tagOf = (error: unknown): string => {
  const tag = field(error, "_tag")
  if (typeof tag === "string") return tag
  return error instanceof Error ? error.name : "Unknown"
}

const messageOf = (error: unknown): string => {
  const message = field(error, "message")
  return typeof message === "string" && message !== "" ? message : "it failed, and nothing is known about it"
}

const field = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null && name in value ? Reflect.get(value, name) : undefined

const millis = (value: unknown): number | undefined => Duration.isDuration(value) ? Duration.toMillis(value) : undefined

const oneLine = (text: string): string => text.replaceAll(/\s+/g, " ").trim().slice(0, 500)
