/**
 * Classifies a provider's error by its codes and messages, where the status alone is misleading.
 *
 * Only the codes count, and the sentence with which the message begins. Any other text of an error may quote the prompt, and a
 * prompt must not rule out a credential or cause a delay.
 */
import type { ErrorBody } from "../kit/errorBody.ts"

/**
 * - `Content`: this prompt, or the answer to it, is refused.
 * - `Quota`: the account's credit is used up.
 * - `Credential`: the key or the account is refused.
 * - `Throttled`: too many requests or tokens.
 * - `Transient`: the server, or its upstream, fails for a moment.
 */
export type Kind = "Content" | "Quota" | "Credential" | "Throttled" | "Transient"

const anyOf = (...patterns: ReadonlyArray<RegExp>): RegExp =>
  new RegExp(patterns.map(({ source }) => source).join("|"), "i")

/** Codes are the provider's own words, so a part of one counts as well. */
const codes: ReadonlyArray<readonly [Kind, RegExp]> = [
  [
    "Content",
    anyOf(
      /(?:content|responsible_?ai|safety|usage|cyber).{0,20}(?:filter|policy|violat|blocked|refus|check)/,
      /data_?inspection_?failed|sensitive_?(?:content|words?)|prohibited_?content|moderation|flagged|prompt_?blocked/
    )
  ],
  [
    "Quota",
    anyOf(
      /insufficient_?(?:\w+_?)?(?:quota|balance|funds|credits?)|arrear|overdue|billing_?(?:error|hard_?limit|not_?active|disabled)/,
      /exceeded_current_quota|access_terminated|out_of_credits|credit_?limit|FreeTierOnly|payment_required/
    )
  ],
  [
    "Credential",
    anyOf(
      /(?:invalid|incorrect|wrong|expired|missing|revoked|disabled|no)_?(?:api|access|auth)_?key/,
      /api_?key_?(?:invalid|expired|missing|not_?found|disabled|revoked|service_blocked)/,
      /authentication_?(?:error|failed)|unauthenticated|unauthorized|account_?(?:deactivated|disabled|suspended)/,
      /consumer_suspended|unrecognizedclient|invalidclienttoken|expiredtoken|invalidsignature|missingauthenticationtoken/
    )
  ],
  [
    "Throttled",
    /throttl|rate_?limit|too_?many_?requests|resource_exhausted|(?:request|usage)_?limit_?(?:exceeded|reached)/i
  ],
  [
    "Transient",
    anyOf(
      // Not `api_error` and `server_error`: gateways put them into errors that they do not recognise.
      /overloaded|(?<!invalid_)time_?out(?:_?error|exception)?$|deadline_exceeded|unavailable|not_?ready|capacity_?exceeded/,
      /internalserver(?:exception|error)|internalfailure|modelstreamerror|modelerror|dependency_?failed|failed_?dependency/
    )
  ]
]

/** Beginnings of messages that have no code of their own. The tests have the reports. */
const sentences: ReadonlyArray<readonly [Kind, RegExp]> = [
  [
    "Content",
    anyOf(
      /^content (?:violates|exists risk)/,
      /^(?:input|output)(?: text| image)?(?: or output)?(?: text)? data may contain inappropriate content/,
      /^the response was filtered due to the prompt/,
      /^(?:the |this |your )?(?:output|input|request|prompt|response) (?:was |has been )?(?:blocked|rejected|refused|flagged) (?:by|because|due|as|for)(?=[^.]{0,80}(?:content|safety|polic|guideline|moderation|high risk))/,
      /^invalid prompt: your prompt was flagged/,
      /^\S{1,80} requires moderation on/,
      /^系统检测到输入或生成内容可能包含不安全或敏感内容/
    )
  ],
  [
    "Quota",
    anyOf(
      /^(?:your )?(?:credit|account) balance is (?:too low|insufficient|not enough)/,
      /^insufficient (?:account )?(?:balance|credits|funds)/,
      /^(?:sorry, )?your account balance is insufficient/,
      /^access denied,? (?:please make sure your account is in good standing|due to overdue account)/,
      /^you have reached your specified api usage limits/,
      /^余额不足/
    )
  ],
  [
    "Credential",
    anyOf(
      /^(?:the |your )?(?:provided )?api[ -]?key (?:is )?(?:not valid|not found|invalid|expired|incorrect|missing|disabled)/,
      /^(?:incorrect|invalid|expired|missing|no) api[ -]?key/,
      /^(?:invalid|no) (?:authentication|auth credentials|authorization)/,
      /^this organization has been disabled/,
      /^your (?:account|organization) (?:is not active|is deactivated|has been (?:disabled|suspended|deactivated|banned))/
    )
  ],
  ["Throttled", /^too many (?:requests|tokens), please wait|^rate limit (?:reached|exceeded)/i],
  [
    "Transient",
    anyOf(
      /^(?:the )?(?:upstream request failed|failed to get response from provider|no healthy upstream|upstream connect error)/,
      // Our JSON is valid. It was damaged on its way, or the parser failed.
      /^we could not parse the json body of your request/,
      /^(?:the )?(?:system|model|server) (?:has )?(?:encountered an unexpected error|is (?:currently |temporarily )?(?:overloaded|unavailable|at capacity|loading))/
    )
  ]
]

/** The length of a message that is compared, in characters. */
const longestSentence = 200

/** The kind by the codes, or else by the beginnings of the messages. `undefined`: the status decides. */
export const kindOf = (error: Pick<ErrorBody, "codes" | "messages">): Kind | undefined => {
  const messages = error.messages.map((message) => message.trimStart().slice(0, longestSentence))
  const names = messages.map(leadingNames)
  return kindIn(codes, error.codes.concat(names.flatMap((all) => all.slice(0, 1)))) ??
    kindIn(sentences, messages) ??
    kindIn(codes.filter(isHarmless), names.flat()) ??
    kindIn(sentences.filter(isHarmless), messages.map(withoutPrefix))
}

const kindIn = (
  table: ReadonlyArray<readonly [Kind, RegExp]>,
  texts: ReadonlyArray<string>
): Kind | undefined => table.find(([, pattern]) => texts.some((text) => pattern.test(text)))?.[0]

/** Whether a kind affects no other call. Only such a kind is read after a gateway's prefix, where the prompt may be quoted. */
const isHarmless = ([kind]: readonly [Kind, RegExp]): boolean => kind !== "Quota" && kind !== "Credential"

/**
 * The prefix that a gateway puts before the message of its upstream: a status, the names of exceptions, or the failed provider.
 * Examples are `<400> InternalError.Algo.DataInspectionFailed: `, `litellm.BadRequestError: AzureException - ` and
 * `Error from provider (x): `. The name of a field, such as `messages.0.content: `, is no prefix: the prompt may follow it.
 */
const prefix =
  /^(?:(?:HTTP )?<?\d{3}>?:? )?(?:(?:[\w.]{0,60}(?:Error|Exception)|[A-Z][A-Z_]{3,40}|[A-Z]\w{2,40}(?:\.\w{2,40}){1,3})(?:: | - )|[Ee]rror from provider[^:"]{0,60}: )*/

export const withoutPrefix = (message: string): string => message.slice(prefix.exec(message)?.[0].length ?? 0)

/** The names of exceptions and the statuses in the prefix. A message that is only a code counts as one. */
export const leadingNames = (message: string): ReadonlyArray<string> =>
  isLoneCode.test(message)
    ? [message]
    : (prefix.exec(message)?.[0] ?? "").split(/: | - | /).filter((word) => /^[\w.]{4,64}$/.test(word))

const isLoneCode = /^(?=.{4,64}$)[a-z]+(?:_[a-z]+)+$/

/**
 * Whether an error status reports a failure of the server for a valid request. Every 4xx does, except those that name a fault of
 * the request, the credential or the rate. So 408, 409, 423, 424 and 425 do, and statuses that servers invented, such as 498 and
 * 499.
 */
export const isServersTrouble = (status: number | undefined): boolean =>
  status !== undefined && (status === 529 || (status >= 400 && status < 500 && !faults.has(status)))

const faults: ReadonlySet<number> = new Set([
  400,
  401,
  402,
  403,
  404,
  405,
  406,
  407,
  410,
  411,
  412,
  413,
  414,
  415,
  416,
  417,
  418,
  422,
  426,
  428,
  429,
  431,
  451,
  // nginx: a header that is too large, the client's certificate, and HTTP sent to a port for HTTPS.
  494,
  495,
  496,
  497
])
