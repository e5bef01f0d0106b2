/** Recognises errors by the provider's codes and messages, where the status alone is not enough. */
import type * as AiError from "effect/ai/AiError"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

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

/**
 * The codes of an error, one a line: those of the adapter, and those in the code fields of the body. Then the message,
 * or else the description. Leaves out the rest of the body, which may quote the prompt.
 */
export const codesAndMessage = (reason: ErrorFields): string => {
  const { codes, message } = readBody(reason.http?.body)
  const text = message === "" ? reason.description : message
  return joinCodes([...codesIn(reason.metadata), ...codes].filter((code) => isCode.test(code)), text?.slice(0, longest))
}

/** Joins codes and a message. The message is indented, so that its first line is not taken for a code. */
export const joinCodes = (codes: ReadonlyArray<string | number | undefined>, message: string | undefined): string =>
  [...codes, ` ${message ?? ""}`].join("\n")

/** A longer body is not parsed for codes. */
const longestBody = 65_536

const Code = Schema.optionalKey(Schema.Unknown)
const Body = Schema.fromJsonString(Schema.Struct({ code: Code, type: Code, error: Code }))
const decodeBody = Schema.decodeUnknownOption(Body)
const decodeError = Schema.decodeUnknownOption(Schema.Struct({ code: Code, type: Code, message: Code }))

const readBody = (body: string | undefined): { readonly codes: ReadonlyArray<string>; readonly message: string } => {
  const outer = body === undefined || body.length > longestBody ? undefined : Option.getOrUndefined(decodeBody(body))
  const inner = Option.getOrUndefined(decodeError(outer?.error))
  const codes = [outer?.code, outer?.type, inner?.code, inner?.type].filter((code) => typeof code === "string")
  return { codes, message: typeof inner?.message === "string" ? inner.message : "" }
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

const usedUp = /insufficient_quota|billing_hard_limit_reached|insufficient_balance|billing_error/i

/**
 * The account's credit or quota is used up. Does not match Google's "exceeded your current quota", which is a rate
 * limit.
 */
export const isQuotaInWords = oneOf(usedUp, /credit balance is too low/)

/**
 * `isQuotaInWords` for a text that may quote the prompt. Only the codes count, which come first, one a line, and a
 * message that begins with the known sentence. A match stops all calls with the credential, so a prompt must not be
 * able to cause one.
 */
export const isQuota = (text: string): boolean => {
  for (const line of text.split("\n", maxCodes)) {
    if (isCode.test(line)) {
      if (isUsedUp.test(line)) return true
    } else return noCredit.test(line)
  }
  return false
}

const maxCodes = 32
const isCode = /^[\w.-]{0,64}$/
const isUsedUp = new RegExp(`^(?:${usedUp.source})$`, "i")
/** Anthropic has no code for it. */
const noCredit = /^ ?your credit balance is too low/i

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

/** A content filter blocked the prompt or the response. Anthropic has no code for it. */
export const isContentPolicy = oneOf(/content_policy_violation/, /\bblocked by (?:our |the )?content filtering policy/)
