/** Recognises errors by the provider's codes and messages, where the status alone is not enough. */
import type * as AiError from "effect/ai/AiError"
import type * as Redacted from "effect/Redacted"
import { type ErrorBody, parse } from "../kit/errorBody.ts"

/** Longer texts are cut. Real error messages are shorter. */
const longest = 4096

interface ErrorFields {
  readonly description?: string | undefined
  readonly metadata?: { readonly [provider: string]: unknown }
  readonly http?: typeof AiError.HttpContext.Type | undefined
}

/** All text of an error: the adapter's description and codes, and the body. */
export const of = (reason: ErrorFields): string =>
  [reason.description, ...codesIn(reason.metadata), reason.http?.body].map((text) => text?.slice(0, longest) ?? "")
    .join("\n")

/** The codes and the messages of an error, without the rest of its body, which may quote the prompt. */
export const readError = (reason: ErrorFields): Pick<ErrorBody, "codes" | "messages"> => {
  const { codes, messages } = parse(reason.http?.body ?? "")
  return {
    codes: [...codesIn(reason.metadata), ...codes, ...amazonCode(reason.http?.response?.headers)].filter((code) =>
      isCode.test(code)
    ),
    messages: messages.length > 0 || reason.description === undefined ? messages : [reason.description]
  }
}

const isCode = /^[\w.-]{1,64}$/

/** The code that Amazon sends in a header, between a namespace and a URL. */
export const amazonCode = (
  headers: { readonly [name: string]: string | Redacted.Redacted } | undefined
): ReadonlyArray<string> => {
  const value = headers?.["x-amzn-errortype"]
  const code = typeof value === "string" ? /^(?:[^#]*#)?([\w.]{1,64})/.exec(value)?.[1] : undefined
  return code === undefined ? [] : [code]
}

// Effect's own adapters put `errorCode` and `errorType` under the provider's name.
const codesIn = (metadata: ErrorFields["metadata"]): ReadonlyArray<string> =>
  Object.values(metadata ?? {}).flatMap((entry) =>
    typeof entry === "object" && entry !== null
      ? Object.values(entry).filter((value): value is string => typeof value === "string")
      : []
  )

const oneOf = (...patterns: ReadonlyArray<RegExp>): (text: string) => boolean => {
  const all = new RegExp(patterns.map(({ source }) => source).join("|"), "i")
  return (text) => all.test(text)
}

/** The prompt is too long. The patterns come from users' reports; the tests have the messages. */
export const isContext = oneOf(
  /context_length_exceeded|context_window_exceeded|exceed_context_size|request_too_large|string_above_max_length/,
  /(?:prompt|input) (?:is )?too long/,
  /maximum (?:context|prompt|model) length/,
  // Providers write "exceeded", "longer than" or "not within".
  /context (?:window|length|size|limit)/,
  /(?:input|prompt) token count/,
  /input length\b.{0,40}\bexceed/,
  /(?:range of|exceeds the maximum allowed) input length/,
  /(?:exceed\w*|model|over the) token limit|token limit exceeded/,
  /maximum number of tokens allowed|max_seq_len/,
  /too many (?:input )?tokens/,
  /reduce the length of (?:the|your)/,
  /request (?:is )?too large|too large for model/,
  // Text Generation Inference
  /inputs` (?:tokens \+ `max_new_tokens` must be|must have less than)/
)

/**
 * The account's credit or quota is used up, anywhere in a text. Only for a 429, which says that the prompt was not read. Does
 * not match Google's "exceeded your current quota", which is a rate limit.
 */
export const isQuotaInWords = oneOf(
  /insufficient_quota|billing_hard_limit_reached|insufficient_balance|billing_error|exceeded_current_quota_error/,
  /billing_not_active|credit balance is too low/
)

/** The model does not exist, or the account has no access to it. */
export const isModel = oneOf(
  /model_not_found|model_decommissioned|model_not_available|model_not_allowed|invalid_model|unknown_model/,
  /\bmodels?\b.{0,120}(?:not found|not exist|no longer|decommissioned|is not available|is not supported for)/,
  /access to (?:the )?model|(?:use|access) (?:this|the requested) model/,
  /invalid model\b|not a valid model|model identifier is invalid|no such model|unknown model/
)

/** The provider does not serve this country or region. */
export const isRegion = oneOf(
  /unsupported_country|unsupported countr|country, region|location is not supported|location not supported/,
  /not (?:available|supported|allowed) in (?:your|this) (?:country|region|location)/
)
