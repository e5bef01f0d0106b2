/** Recognises errors by the provider's codes and messages, where the status alone is not enough. */
import type * as AiError from "effect/ai/AiError"
import type * as Redacted from "effect/Redacted"
import { type ErrorBody, parse } from "../kit/errorBody.ts"
import { leadingNames, withoutPrefix } from "./errorKind.ts"

interface ErrorFields {
  readonly description?: string | undefined
  readonly metadata?: { readonly [provider: string]: unknown }
  readonly http?: typeof AiError.HttpContext.Type | undefined
}

/** The codes and messages of an error. The rest of its body may quote the prompt. */
export type ErrorText = Pick<ErrorBody, "codes" | "messages">

/** Reads an error: its body, and the adapter's description and codes. */
export const readError = (reason: ErrorFields): ErrorText => {
  const { codes, messages } = parse(reason.http?.body ?? "")
  const description = reason.description ?? ""
  const [start = "", code] = ownStart.exec(description) ?? []
  const described = parse(description.slice(start.length))
  return {
    codes: [
      ...codesIn(reason.metadata),
      ...codes,
      ...amazonCode(reason.http?.response?.headers),
      ...(code === undefined ? [] : [code]),
      ...described.codes
    ].filter((code) => isCode.test(code)),
    messages: [...messages, ...described.messages]
  }
}

/** The prefix of this package's adapters before the provider's message. */
const ownStart = /^(?:HTTP \d{3}|error within the response)(?: \(([\w.-]{1,64})\))?(?:: |$)/

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

const anyOf = (...patterns: ReadonlyArray<RegExp>): RegExp =>
  new RegExp(patterns.map(({ source }) => source).join("|"), "i")

interface Patterns {
  readonly codes: RegExp
  /** Matches the leading clause of a message. */
  readonly clause: RegExp
  /** Matches the beginning of a message whose leading clause is not enough. */
  readonly beginning?: RegExp
}

const says = ({ beginning, clause, codes }: Patterns) => (error: ErrorText): boolean =>
  error.codes.some((code) => codes.test(code)) ||
  error.messages.some((message) => {
    const text = withoutPrefix(message.trimStart().slice(0, longestClause))
    return clause.test(leadingClause(text)) || beginning?.test(text) === true ||
      leadingNames(message).some((name) => codes.test(name))
  })

/** The length of a message that is compared, in characters. Models can have long names. */
const longestClause = 400

/** The text up to the end of its first sentence, a colon, or a quotation that is no name. The rest may quote the prompt. */
const leadingClause = (text: string): string => {
  const named = text.replace(quotedName, "$1")
  const end = named.search(clauseEnd)
  return end === -1 ? named : named.slice(0, end)
}

const quotedName = /(?<!\w)["'`]([^\s"'`]{1,200})["'`]/g
const clauseEnd = /[\n"“”«「。]|(?<!\w)['`‘]|[:;.!?](?:\s|$)/

/** The prompt is too long. The patterns come from users' reports; the tests have the messages. */
export const isContext = says({
  codes: anyOf(
    /context_?length_?exceeded|context_?window_?exceeded|exceed_context_size|request_too_large|string_above_max_length/
  ),
  clause: anyOf(
    /(?:prompt|input) (?:is )?too long/,
    // Providers write "exceeded", "longer than" or "not within", before it or after it, or how long it is.
    /^(?=.*(?:exceed|long|great|larg|over|within|more|less|fit|small|reach|\d)).*(?:context (?:window|length|size|limit)|maximum (?:prompt|model) length)/,
    /(?:input|prompt) token count/,
    /input length\b.{0,40}\bexceed/,
    /(?:range of|exceeds the maximum allowed) input length/,
    /(?:exceed\w*|model|over the) token limit|token limit exceeded/,
    /maximum number of tokens allowed|max_seq_len/,
    /too many (?:input )?tokens/,
    /reduce the length of (?:the|your)/,
    /request (?:is )?too large|too large for model/,
    // Text Generation Inference
    /^inputs (?:tokens \+ max_new_tokens must be|must have less than)/
  ),
  beginning: anyOf(
    /^the model returned the following errors: input is too long/,
    /^invalid '[^']{1,80}': maximum context length is \d/,
    /^input validation error: `inputs` (?:tokens \+ `max_new_tokens` must be|must have less than)/,
    // An exception of OpenAI's Python client in a gateway's message.
    /^error code: \d{3} - \{'(?:error': \{'|object': 'error', ')message': ["']this (?:model|endpoint)'s maximum context length is \d/,
    // vLLM
    /^'max_tokens' or 'max_completion_tokens' is too large: \d+\. this model's maximum context length is \d/,
    /^you passed \d+ input tokens and requested \d+ output tokens\. however, the model's context length is only \d/
  )
})

/** The model does not exist, or the account has no access to it. */
export const isModel = says({
  codes: /model_?not_?found|model_decommissioned|model_not_available|model_not_allowed|invalid_model|unknown_model/i,
  clause: anyOf(
    /\bmodels?\b.{0,120}(?:not found|not exist|no longer|decommissioned|is not available|is not supported for)/,
    /access to (?:the )?model|(?:use|access) (?:this|the requested) model/,
    /invalid model\b|not a valid model|model identifier is invalid|no such model|unknown model/
  )
})

/** The provider does not serve this country or region. */
export const isRegion = says({
  codes: /unsupported_country/i,
  clause: anyOf(
    /unsupported countr|country, region|location is not supported|location not supported/,
    /not (?:available|supported|allowed) in (?:your|this) (?:country|region|location)/
  )
})
