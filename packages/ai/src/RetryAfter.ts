/**
 * Reads the Retry-After of a provider, in all forms in which providers send it.
 *
 * The forms are: `retry-after-ms`, `retry-after` in seconds or as an HTTP date, the reset time of an exhausted rate
 * limit, and the text of the error. The result is one `Duration`, never negative and at most `max`.
 *
 * **When to use**
 *
 * - `fromAiError` for an error of any `LanguageModel`. Of AiError's reasons only a rate limit has a field for it; that
 *   of a 503 is in its headers.
 * - `fromHeaders` for the headers of any HTTP response, and `fromText` for its text.
 *
 * **Gotchas**
 *
 * - A Retry-After is a minimum. Add jitter to it, do not put jitter around it.
 * - A date needs the time: pass `now`, or the `date` header of the response is used. Without either, a date is ignored.
 *
 * **Example** (The headers of a response)
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
 * Options for reading a Retry-After.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The time in epoch milliseconds, for dates. Default: the `date` header of the response. */
  readonly now?: number | undefined
  /** The longest Retry-After. A longer one is reduced to it. Default one day. */
  readonly max?: Duration.Input | undefined
}

/**
 * The default of `max`: one day.
 *
 * **Details**
 *
 * No call waits that long. The bound prevents that a broken header starts a timer of centuries.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultMax: Duration.Duration = Duration.days(1)

/**
 * Reads the Retry-After from the headers of a response. `undefined` if there is none.
 *
 * **Details**
 *
 * The first valid one of these counts:
 *
 * 1. `retry-after-ms`
 * 2. `x-ms-retry-after-ms`
 * 3. `retry-after`: seconds, also with a fraction, or an HTTP date
 * 4. The longest reset of the limits that are at 0: `x-ratelimit-remaining-*` and `anthropic-ratelimit-*-remaining`,
 *    each with its reset header. A reset is `6m0s`, `634ms`, seconds, an RFC 3339 date, or an epoch time in seconds or
 *    milliseconds. Its magnitude distinguishes the numbers.
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
 * Reads the Retry-After from the text of an error. `undefined` if there is none.
 *
 * **Details**
 *
 * The first match counts: Google's `"retryDelay": "34s"`, then phrases such as `try again in 6m0s` and `retry after 26
 * seconds`. Only the first 16,384 characters are read.
 *
 * **Example** (A text)
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
 * Reads the Retry-After from an error of a language model. `undefined` if there is none.
 *
 * **Details**
 *
 * The first one of these counts:
 *
 * 1. The `retryAfter` of the reason.
 * 2. The one that `OpenAiCompatible` or `AnthropicMessages` put into the metadata of the reason.
 * 3. The `resetAt` of a `QuotaExhaustedError`.
 * 4. The headers in the reason's HTTP context.
 * 5. The text of the body, then that of the description. It is read only for `RateLimitError`, `QuotaExhaustedError`,
 *    and status 429, 503 and 529. Another error may quote the prompt, and a prompt must not cause a delay.
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
      if (!statusesWithRetryAfter.has(reason.http?.response?.status)) return undefined
      return fromText(reason.http?.body ?? "", options) ?? fromText(reason.description ?? "", options)
    default:
      return undefined
  }
}

const statusesWithRetryAfter: ReadonlySet<number | undefined> = new Set([429, 503, 529])

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

// Digits with an optional fraction. Number() would also accept a sign, an exponent and "Infinity".
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

// The name of the reset header is that of the remaining header, with another word in this place.
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

// Epoch seconds have ten digits until 2286, epoch milliseconds thirteen. 1e9 seconds from now would be 31 years.
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

// Date.parse accepts many more formats, which differ between engines.
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/i

const longestText = 16_384

// The text before a duration. `inField`: in Google's RetryInfo or in its command line's errors, with quotes that a gateway
// may have escaped.
const inField = /\b(?:retryDelay|quotaResetDelay)\\?"\s*:\s*\\?"(?=\d)/g
const inSentence = /\b(?:try again|retry|resets?) (?:in|after) (?=\d)/gi

const unit =
  /(\d+(?:\.\d+)?)\s?(ms|[smhd]|(?:milli)?sec(?:ond)?s?|min(?:ute)?s?|hours?|days?)(?![a-z])(?:,? (?:and )?(?=\d))?/iy

/** Reads consecutive units, such as `6m0s`, `634ms`, `1h2m3.5s` or `2 minutes and 5 seconds`, and where they end. */
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

/** Reads a text of units and nothing else. */
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
