/**
 * How long a provider asks us to stay away.
 *
 * Providers say it in many ways: `retry-after-ms`, `retry-after` in whole or broken seconds or as an HTTP date, by a limit
 * that has nothing left and the time of its reset, or only in the words of the error. This module reads all of them into
 * one `Duration`, which is never negative and never longer than a stated bound.
 *
 * **When to use**
 *
 * With `fromAiError`, for an error of a language model, whoever raised it: of AiError's reasons only a rate limit has a
 * field for the wait, while the wait of a 503 has to be looked up in its headers. With `fromHeaders`, for the headers of
 * any HTTP answer, and with `fromText` for its words.
 *
 * **Gotchas**
 *
 * - A hint is a floor: put jitter above it, not around it.
 * - A date is read against the clock that you pass, or against the answer's own `date` header. Without either it is not
 *   read, rather than read wrongly.
 *
 * **Example** (Reading the headers of an answer)
 *
 * ```ts
 * import { Duration } from "effect"
 * import * as RetryAfter from "@sluice/ai/RetryAfter"
 *
 * const wait = RetryAfter.fromHeaders({ "retry-after": "1.5" })
 *
 * console.log(wait && Duration.format(wait)) // => 1s 500ms
 * ```
 *
 * @since 0.1.0
 */
import type * as AiError from "effect/ai/AiError"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as HttpHeaders from "effect/http/Headers"
import type * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"

/**
 * Headers by lower-case name, as AiError keeps them.
 *
 * @since 0.1.0
 * @category models
 */
export type Headers = { readonly [name: string]: string | Redacted.Redacted | undefined }

/**
 * How hints are read.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Now, in epoch milliseconds, for hints that are dates. Default: the answer's own `date` header. */
  readonly now?: number | undefined
  /** The longest wait that is believed; a longer one is cut to it. Default one day. */
  readonly max?: Duration.Input | undefined
}

/**
 * The longest wait that is believed: one day.
 *
 * **Details**
 *
 * Nobody waits a day within a call, so whoever asks for more is given up on either way. The bound keeps a broken header
 * from becoming a timer of centuries.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultMax: Duration.Duration = Duration.days(1)

/**
 * Reads the wait from an answer's headers, or `undefined` if they do not ask for one.
 *
 * **Details**
 *
 * The first that can be read wins: `retry-after-ms`, `x-ms-retry-after-ms`, `retry-after` (seconds, whole or broken, or
 * an HTTP date), and last the longest reset among the limits that stand at 0: `x-ratelimit-remaining-*` and
 * `anthropic-ratelimit-*-remaining`, with the reset beside each. A reset is `6m0s`, `634ms`, seconds, or a date: RFC 3339,
 * or epoch seconds or milliseconds, told apart by magnitude.
 *
 * @since 0.1.0
 * @category getters
 */
export const fromHeaders = (headers: Headers, options?: Options): Duration.Duration | undefined => {
  const now = nowOf(headers, options)
  return bounded(
    milliseconds(text(headers, "retry-after-ms")) ??
      milliseconds(text(headers, "x-ms-retry-after-ms")) ??
      secondsOrDate(text(headers, "retry-after"), now) ??
      longestReset(headers, now),
    options
  )
}

/**
 * Reads the wait from what an error says in words, or `undefined` if it does not ask for one.
 *
 * **Details**
 *
 * The first that can be read wins: Google's `"retryDelay": "34s"`, then `try again in 6m0s`, `retry after 26 seconds` and the
 * like. Of a long text only the first 16,384 characters are read.
 *
 * **Example** (An answer without headers)
 *
 * ```ts
 * import { Duration } from "effect"
 * import * as RetryAfter from "@sluice/ai/RetryAfter"
 *
 * const wait = RetryAfter.fromText("Rate limit reached for requests. Please try again in 634ms.")
 *
 * console.log(wait && Duration.format(wait)) // => 634ms
 * ```
 *
 * @since 0.1.0
 * @category getters
 */
export const fromText = (text: string, options?: Pick<Options, "max">): Duration.Duration | undefined => {
  const start = text.slice(0, longestText)
  return bounded(unitsAfter(start, inField) ?? unitsAfter(start, inSentence), options)
}

/**
 * Reads the wait from an error of a language model, or `undefined` if it does not ask for one.
 *
 * **Details**
 *
 * Looks at the reason's own `retryAfter`, then at what `OpenAiCompatible` noted in the reason's metadata when the answer
 * came, then at when a quota comes back, then at the headers in the reason's HTTP context, and last at the words of the
 * answer's body and of the description. Words are read of `RateLimitError` and `QuotaExhaustedError`, and with status 429, 503
 * or 529: another error may quote the prompt, and a prompt is to make nobody wait.
 *
 * @since 0.1.0
 * @category getters
 */
export const fromAiError = (error: AiError.AiError, options?: Options): Duration.Duration | undefined => {
  const { reason } = error
  const known = error.retryAfter ?? fromMetadata(reason)
  if (known !== undefined) return bounded(Duration.toMillis(known), options)
  const headers = "http" in reason ? reason.http?.response?.headers : undefined
  return fromQuota(reason, headers, options) ??
    (headers === undefined ? undefined : fromHeaders(headers, options)) ??
    fromWords(reason, options)
}

const bounded = (
  millis: number | undefined,
  options: Pick<Options, "max"> | undefined
): Duration.Duration | undefined =>
  millis === undefined || Number.isNaN(millis) ? undefined : Duration.clamp(Duration.millis(millis), {
    minimum: Duration.zero,
    maximum: Duration.fromInputUnsafe(options?.max ?? defaultMax)
  })

const fromQuota = (
  reason: AiError.AiErrorReason,
  headers: Headers | undefined,
  options: Options | undefined
): Duration.Duration | undefined => {
  if (reason._tag !== "QuotaExhaustedError" || reason.resetAt === undefined) return undefined
  const now = nowOf(headers ?? {}, options)
  return now === undefined ? undefined : bounded(DateTime.toEpochMillis(reason.resetAt) - now, options)
}

const fromWords = (reason: AiError.AiErrorReason, options: Options | undefined): Duration.Duration | undefined => {
  switch (reason._tag) {
    case "RateLimitError":
    case "QuotaExhaustedError":
      return fromText(reason.http?.body ?? "", options)
    case "InternalProviderError":
    case "UnknownError":
      if (!asksForWait.has(reason.http?.response?.status)) return undefined
      return fromText(reason.http?.body ?? "", options) ?? fromText(reason.description ?? "", options)
    default:
      return undefined
  }
}

const asksForWait: ReadonlySet<number | undefined> = new Set([429, 503, 529])

const nowOf = (headers: Headers, options: Options | undefined): number | undefined =>
  options?.now ?? httpDateMillis(text(headers, "date"))

const fromMetadata = (reason: AiError.AiErrorReason): Duration.Duration | undefined => {
  if (reason._tag !== "InternalProviderError") return undefined
  const millis = reason.metadata.sluice?.retryAfterMillis
  return typeof millis === "number" && millis >= 0 ? Duration.millis(millis) : undefined
}

const text = (headers: Headers, name: string): string | undefined => {
  const value = headers[name]
  return typeof value === "string" ? value.trim() : undefined
}

// Digits with an optional fraction: neither a sign, nor an exponent, nor "Infinity", all of which Number() would take.
const decimal = /^\d+(\.\d+)?$/

const milliseconds = (value: string | undefined): number | undefined =>
  value !== undefined && decimal.test(value) ? Number(value) : undefined

const secondsOrDate = (value: string | undefined, now: number | undefined): number | undefined => {
  if (value === undefined) return undefined
  if (decimal.test(value)) return Number(value) * 1000
  const date = httpDateMillis(value)
  return date === undefined || now === undefined ? undefined : Math.max(0, date - now)
}

const httpDateMillis = (value: string | undefined): number | undefined => {
  if (value === undefined) return undefined
  const date = HttpHeaders.parseHttpDate(value)
  return Result.isSuccess(date) ? DateTime.toEpochMillis(date.success) : undefined
}

// The same limit in both names, with what is before and after the word that differs.
const remaining = /^((?:x-)?ratelimit-)remaining(-.+)?$|^(anthropic-ratelimit-.+-)remaining$/

const longestReset = (headers: Headers, now: number | undefined): number | undefined => {
  let longest: number | undefined
  for (const name of Object.keys(headers)) {
    const limit = remaining.exec(name)
    if (limit === null || text(headers, name) !== "0") continue
    const reset = resetMillis(text(headers, `${limit[1] ?? limit[3] ?? ""}reset${limit[2] ?? ""}`), now)
    if (reset !== undefined && (longest === undefined || reset > longest)) longest = reset
  }
  return longest
}

// Epoch seconds have ten digits until 2286, epoch milliseconds thirteen; a wait of 1e9 seconds would be 31 years.
const smallestEpochSeconds = 1e9
const smallestEpochMillis = 1e11

const resetMillis = (value: string | undefined, now: number | undefined): number | undefined => {
  if (value === undefined) return undefined
  if (rfc3339.test(value)) return now === undefined ? undefined : Math.max(0, Date.parse(value) - now)
  if (!decimal.test(value)) return unitsMillis(value)
  const number = Number(value)
  if (number < smallestEpochSeconds) return number * 1000
  if (now === undefined) return undefined
  return Math.max(0, (number < smallestEpochMillis ? number * 1000 : number) - now)
}

// Date.parse reads much more than that, and differently from one engine to the next.
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/i

const longestText = 16_384

// Where the wait begins: in Google's RetryInfo, or what its command line answers instead, quoted once more where a gateway
// has quoted the whole; and in a sentence.
const inField = /\b(?:retryDelay|quotaResetDelay)\\?"\s*:\s*\\?"(?=\d)/g
const inSentence = /\b(?:try again|retry|resets?) (?:in|after) (?=\d)/gi

const unit =
  /(\d+(?:\.\d+)?)\s?(ms|[smhd]|(?:milli)?sec(?:ond)?s?|min(?:ute)?s?|hours?|days?)(?![a-z])(?:,? (?:and )?(?=\d))?/iy

/** `6m0s`, `634ms`, `1h2m3.5s`, `2 minutes and 5 seconds`: the units in a row, and where they end. */
const readUnits = (text: string, start: number): { readonly millis: number; readonly end: number } | undefined => {
  let millis: number | undefined
  let end = start
  for (;;) {
    unit.lastIndex = end
    const match = unit.exec(text)
    if (match === null) return millis === undefined ? undefined : { millis, end }
    millis = (millis ?? 0) + Number(match[1]) * unitInMillis((match[2] ?? "").toLowerCase())
    end = unit.lastIndex
  }
}

const unitInMillis = (name: string): number => {
  if (name.startsWith("ms") || name.startsWith("milli")) return 1
  switch (name[0]) {
    case "s":
      return 1000
    case "m":
      return 60_000
    case "h":
      return 3_600_000
    default:
      return 86_400_000
  }
}

/** Nothing else stands there. */
const unitsMillis = (value: string): number | undefined => {
  const read = readUnits(value, 0)
  return read?.end === value.length ? read.millis : undefined
}

const unitsAfter = (text: string, lead: RegExp): number | undefined => {
  for (const match of text.matchAll(lead)) {
    const read = readUnits(text, match.index + match[0].length)
    if (read !== undefined) return read.millis
  }
  return undefined
}
