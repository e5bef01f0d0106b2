/** What providers say in words, and in codes within them, where the status does not tell. */
import type * as AiError from "effect/ai/AiError"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/** Enough for every error that says what is wrong; a body that repeats the prompt is longer. */
const longest = 4096

interface Spoken {
  readonly description?: string | undefined
  readonly metadata?: { readonly [provider: string]: unknown }
  readonly http?: typeof AiError.HttpContext.Type | undefined
}

/** All that was said: the adapter's description, the codes that it noted, and the body. */
export const of = (reason: Spoken): string =>
  [reason.description, ...codesIn(reason.metadata), reason.http?.body].map((text) => text?.slice(0, longest) ?? "")
    .join("\n")

/**
 * The names by which a provider says what is wrong, a line each: the codes that the adapter noted, and those that stand in the
 * body where codes do. Then the message, or else the description. What else a body says may be the prompt.
 */
export const named = (reason: Spoken): string => {
  const { codes, message } = toldBy(reason.http?.body)
  const said = message === "" ? reason.description : message
  return told([...codesIn(reason.metadata), ...codes].filter((code) => isName.test(code)), said?.slice(0, longest))
}

/** Names, and what may be anyone's words: indented, so that its first line is no name. */
export const told = (names: ReadonlyArray<string | number | undefined>, message: string | undefined): string =>
  [...names, ` ${message ?? ""}`].join("\n")

/** A body that is longer is not looked through for its codes. */
const longestBody = 65_536

const Code = Schema.optionalKey(Schema.Unknown)
const Body = Schema.fromJsonString(Schema.Struct({ code: Code, type: Code, error: Code }))
const decodeBody = Schema.decodeUnknownOption(Body)
const decodeError = Schema.decodeUnknownOption(Schema.Struct({ code: Code, type: Code, message: Code }))

const toldBy = (body: string | undefined): { readonly codes: ReadonlyArray<string>; readonly message: string } => {
  const outer = body === undefined || body.length > longestBody ? undefined : Option.getOrUndefined(decodeBody(body))
  const inner = Option.getOrUndefined(decodeError(outer?.error))
  const codes = [outer?.code, outer?.type, inner?.code, inner?.type].filter((code) => typeof code === "string")
  return { codes, message: typeof inner?.message === "string" ? inner.message : "" }
}

// Effect's own adapters note `errorCode` and `errorType` under the provider's name.
const codesIn = (metadata: Spoken["metadata"]): ReadonlyArray<string> =>
  Object.values(metadata ?? {}).flatMap((noted) =>
    typeof noted === "object" && noted !== null
      ? Object.values(noted).filter((value): value is string => typeof value === "string")
      : []
  )

const oneOf = (...patterns: ReadonlyArray<RegExp>): (said: string) => boolean => {
  const all = new RegExp(patterns.map(({ source }) => source).join("|"), "i")
  return (said) => all.test(said)
}

/** The prompt is too long. Who says what was collected from reports of users; the tests have the messages. */
export const isContext = oneOf(
  /context_length_exceeded|context_window_exceeded|exceed_context_size|request_too_large|string_above_max_length/,
  /(?:prompt|input) (?:is )?too long/,
  /maximum (?:context|prompt|model) length/,
  // Exceeded, or longer than, or not within.
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

/** The account has no money, or its quota is used up. Not for Google's "exceeded your current quota", which is a rate. */
export const isQuotaInWords = oneOf(usedUp, /credit balance is too low/)

/**
 * The same, where the words may be the prompt's: of what is said only the names count, which stand on lines of their own
 * before everything else, and a sentence that is the beginning. It rests the credential for every call, so no prompt may
 * have its way here.
 */
export const isQuota = (said: string): boolean => {
  for (const line of said.split("\n", mostNames)) {
    if (isName.test(line)) {
      if (isUsedUp.test(line)) return true
    } else return noCredit.test(line)
  }
  return false
}

const mostNames = 32
const isName = /^[\w.-]{0,64}$/
const isUsedUp = new RegExp(`^(?:${usedUp.source})$`, "i")
/** Anthropic has no code for it. */
const noCredit = /^ ?your credit balance is too low/i

/** The model does not exist, or not for this account. */
export const isModel = oneOf(
  /model_not_found|model_decommissioned|model_not_available|model_not_allowed|invalid_model|unknown_model/,
  /\bmodels?\b.{0,120}(?:not found|not exist|no longer|decommissioned|is not available|is not supported for)/,
  /access to (?:the )?model|(?:use|access) (?:this|the requested) model/,
  /invalid model\b|not a valid model|model identifier is invalid|no such model|unknown model/
)

/** Not from this country, or not in this region. */
export const isRegion = oneOf(
  /unsupported_country|unsupported countr|country, region|location is not supported|location not supported/,
  /not (?:available|supported|allowed) in (?:your|this) (?:country|region|location)/
)

/** A filter of the provider refuses the prompt, or what would have been its answer. Anthropic has no code for it. */
export const isContentPolicy = oneOf(/content_policy_violation/, /\bblocked by (?:our |the )?content filtering policy/)
