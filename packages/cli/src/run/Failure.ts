/** Error texts: for the results, for the summary, and for the message of a run that has to stop. */
import * as AiRejection from "@sluice/ai/AiRejection"
import type * as CallLog from "@sluice/ai/CallLog"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as AiError from "effect/ai/AiError"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type { Wire } from "../Flag.ts"
import * as UrlSecrets from "../UrlSecrets.ts"
import type { Failure } from "./Result.ts"
import * as Words from "./Words.ts"

/** A longer Retry-After is taken for an error of the provider. A shorter one is shown unchanged. */
export const longestRetryAfter = Duration.days(3_650)

/** Which timeouts the user set, for advice. */
export interface Limits {
  /** Whether `--timeout` alone limits the wait for the first token. */
  readonly isFirstTokenByTimeout: boolean
}

/** Describes an error for the results. */
export const describe = (error: unknown, limits: Limits = { isFirstTokenByTimeout: false }): Failure => {
  if (!AiError.isAiError(error)) {
    return { tag: tagOf(error), message: oneLine(messageOf(error)), retryAfter: millis(field(error, "retryAfter")) }
  }
  const rejection = Option.getOrUndefined(AiRejection.fromAiError(error))
  return {
    tag: rejection?._tag ?? error.reason._tag,
    message: oneLine(
      rejection === undefined ? aiMessage(error.reason) : rejectionMessage(rejection, error.reason, limits)
    ),
    retryAfter: millis(RetryAfter.fromAiError(error, { max: longestRetryAfter }))
  }
}

const rejectionMessage = (
  rejection: AiRejection.Rejection,
  reason: AiError.AiErrorReason,
  { isFirstTokenByTimeout }: Limits
): string => {
  switch (rejection._tag) {
    case "AttemptTimeout":
      return `no complete answer within ${time(rejection.after)}; raise --timeout`
    case "FirstTokenTimeout":
      return `${rejection.message}; raise ${isFirstTokenByTimeout ? "--timeout" : "--first-token-timeout"}`
    case "IdleTimeout":
      return `${rejection.message}; raise --idle-timeout`
    case "DeadlineExceeded":
      return `no answer within ${time(rejection.budget)}; raise --deadline`
    case "TruncatedStream":
    case "MalformedEvent":
      // The wire's own message is more precise.
      return aiMessage(reason)
    default:
      return rejection.message
  }
}

const time = (duration: Duration.Duration): string => Words.time(Duration.toMillis(duration))

/** Names the reason of a failed attempt in a word or two. Never a provider's text. */
export const reasonOf = ({ status, type }: CallLog.Fault): string => {
  const known = reasons.get(type)
  if (known !== undefined) return known
  if (type === "InternalProviderError") return status === undefined || status < 400 ? "unreadable" : `HTTP ${status}`
  return spaced(type)
}

const reasons = new Map([
  ["RateLimitError", "rate limit"],
  ["NetworkError", "network"],
  ["AttemptTimeout", "timeout"],
  ["FirstTokenTimeout", "no first token"],
  ["IdleTimeout", "idle timeout"],
  ["DeadlineExceeded", "deadline"],
  ["TruncatedStream", "cut short"],
  ["MalformedEvent", "unreadable"],
  ["EmptyAnswer", "empty"],
  ["CircuitOpen", "circuit open"],
  ["BackpressureShed", "shed"],
  ["NoTarget", "no target"]
])

/** Names the reason of a failed line in a few words, by the tag of its error. */
export const wordsOf = (tag: string): string => lineReasons.get(tag) ?? spaced(tag)

const spaced = (type: string): string =>
  type.replace(/Error$/, "").replaceAll(/\B[A-Z]/g, (letter) => ` ${letter}`).toLowerCase()

const lineReasons = new Map([
  ["MalformedLine", "not a prompt"],
  ["NotSent", "not sent"],
  ["Unfinished", "not finished"],
  ["InvalidRequestError", "refused by the provider"],
  ["InvalidUserInputError", "not possible with the target"],
  ["ContentPolicyError", "refused for its content"],
  ["AuthenticationError", "key refused"],
  ["QuotaExhaustedError", "no quota or credit left"],
  ["RateLimitError", "rate limit"],
  ["InternalProviderError", "error of the provider"],
  ["NetworkError", "network"],
  ["InvalidResponseError", "unreadable answer"],
  ["InvalidOutputError", "unreadable answer"],
  ["MalformedEvent", "unreadable answer"],
  ["EmptyAnswer", "empty answer"],
  ["TruncatedStream", "answer cut short"],
  ["AttemptTimeout", "timeout"],
  ["FirstTokenTimeout", "no first token in time"],
  ["IdleTimeout", "silent within an answer"],
  ["DeadlineExceeded", "deadline"],
  ["CircuitOpen", "provider down"],
  ["NoTarget", "no target available"]
])

/** Whether the provider or the network surely caused the error. The prompt may have caused any other error. */
export const isOutage = ({ reason }: AiError.AiError): boolean => {
  if (reason._tag === "NetworkError") return isUnreachable(reason)
  return reason._tag === "RateLimitError" ||
    (reason._tag === "InternalProviderError" && outageStatuses.has(reason.http?.response?.status ?? 0))
}

/** Whether the provider charges nothing for the attempt: it was not sent, or was refused before an answer began. */
export const isFree = ({ reason }: AiError.AiError): boolean => {
  if (reason._tag === "NetworkError") return isUnreachable(reason) || reason.reason === "EncodeError"
  const status = "http" in reason ? reason.http?.response?.status : undefined
  // A gateway may time out while the provider answers.
  return status !== undefined &&
    (freeStatuses.has(status) || (status >= 400 && status < 500 && status !== 408 && status !== 499))
}

/** Servers that are overloaded or closed. */
const freeStatuses = new Set([503, 529])

const outageStatuses = new Set([408, 409, 502, 503, 504, 529])

const aiMessage = (reason: AiError.AiErrorReason): string => {
  switch (reason._tag) {
    case "RateLimitError":
      return "the provider is rate-limiting (HTTP 429)"
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

// ---------- errors that stop a run

/** What a call used, in the terms of the flags. */
export interface CallSettings {
  readonly url: string
  readonly wire: Wire
  readonly model: string | undefined
  readonly keySource: string
  readonly hasKey: boolean
  /** Whether the line names its own model. A wrong one is then the line's error. */
  readonly isOwnModel: boolean
  /** The request fields that the line itself sets. A refused one is then the line's error. */
  readonly ownFields?: ReadonlyArray<string>
}

/**
 * Returns a message in one line if the error means that no prompt can be answered, else `undefined`. Call it only until the
 * target's first answer. After that, the same error is temporary or caused by a single prompt.
 */
export const fatal = (error: unknown, settings: CallSettings): string | undefined => {
  if (!AiError.isAiError(error)) return undefined
  const { reason } = error
  switch (reason._tag) {
    case "AuthenticationError":
      return settings.hasKey
        ? `the key from ${settings.keySource} was refused: ${textOf(reason)}`
        : `${UrlSecrets.shown(settings.url)} requires a key: set ${settings.keySource}, or see --key-env and --key-file`
    case "QuotaExhaustedError":
      return `the account of the key from ${settings.keySource} has no quota or credit left`
    case "NetworkError":
      return isUnreachable(reason) ? `cannot reach ${UrlSecrets.shown(settings.url)}: ${textOf(reason)}` : undefined
    case "InvalidResponseError":
      return isOtherApi(reason)
        ? `${UrlSecrets.shown(settings.url)} does not answer like ${apis[settings.wire]}: ${textOf(reason)}`
        : undefined
    case "InvalidRequestError":
      return refusedRequest(reason, settings)
    default:
      return undefined
  }
}

const apis: { readonly [_ in Wire]: string } = {
  openai: "an OpenAI-compatible API",
  anthropic: "Anthropic's Messages API"
}

/** Returns a message in one line for a key or URL that no call can use, in the terms of the flags. */
export const unusable = (
  { issues }: InvalidOptions,
  { keySource, url }: Pick<CallSettings, "keySource" | "url">
): string =>
  issues.map(({ actual, option, requirement }) => {
    switch (option) {
      case "apiKey":
        return `the key from ${keySource} ${requirement}`
      case "url":
        // The flags were validated, so the URL has no other issue.
        return `${UrlSecrets.shown(url)} would receive the key unencrypted; use https:// or --allow-insecure-key`
      case "fields.omit":
        return `--omit ${String(actual)} ${requirement}`
      case "headers":
        // The value of the header is masked in it.
        return `--header ${String(actual)} ${requirement}`
      default:
        return `${option} ${requirement}`
    }
  }).join("; ")

/** The messages of `unusable` for options of several targets, which are named `targets[0].url`. */
export const unusableTargets = (
  { issues, module }: InvalidOptions,
  targets: ReadonlyArray<Pick<CallSettings, "keySource" | "url"> & { readonly name: string }>
): ReadonlyArray<string> =>
  issues.map((issue) => {
    const [, index, option] = /^targets\[(\d+)\]\.(.+)$/.exec(issue.option) ?? []
    const target = targets[Number(index)]
    return target === undefined || option === undefined
      ? `${issue.option} ${issue.requirement}`
      : `target ${target.name}: ${unusable(new InvalidOptions({ module, issues: [{ ...issue, option }] }), target)}`
  })

const textOf = (reason: AiError.AiErrorReason): string => oneLine(aiMessage(reason))

// JSON or events can be too large or too deep in one answer, and be readable in the next.
const isOtherApi = (reason: AiError.InvalidResponseError): boolean =>
  !/json|event-stream/i.test(String(reason.http?.response?.headers["content-type"] ?? ""))

// No server at the address, or the wrong certificate. A lost connection is transient and does not match.
const unreachable =
  /\b(?:ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|ERR_TLS_\w+|\w*CERT_\w+|\w*SELF_SIGNED\w*|UNABLE_TO_\w+)\b/

const isUnreachable = (reason: AiError.NetworkError): boolean =>
  reason.reason === "InvalidUrlError" || unreachable.test(reason.description ?? "")

/** Parameters that the flags set for every prompt. */
const ofAllPrompts = new Set([
  "model",
  "temperature",
  "max_tokens",
  "max_completion_tokens",
  "stream",
  "stream_options"
])

const refusedRequest = (reason: AiError.InvalidRequestError, settings: CallSettings): string | undefined => {
  const status = reason.http?.response?.status ?? 0
  if (status >= 300 && status < 400) return `${UrlSecrets.shown(settings.url)}: ${textOf(reason)}`
  if (settings.isOwnModel) return undefined
  if (status === 404) return `no such model or API at ${UrlSecrets.shown(settings.url)}: ${textOf(reason)}`
  const parameter = reason.parameter ?? ""
  return ofAllPrompts.has(parameter) && settings.ownFields?.includes(parameter) !== true
    ? `the provider refuses ${reason.parameter}: ${textOf(reason)}`
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
  return typeof message === "string" && message !== "" ? message : "failed for an unknown reason"
}

const field = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null && name in value ? Reflect.get(value, name) : undefined

const millis = (value: unknown): number | undefined => Duration.isDuration(value) ? Duration.toMillis(value) : undefined

const oneLine = (text: string): string => text.replaceAll(/\s+/g, " ").trim().slice(0, 500)
