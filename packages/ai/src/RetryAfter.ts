/**
 * Reads the Retry-After of a provider, in all forms in which providers send it.
 *
 * The forms are: `retry-after-ms`, `retry-after` in seconds, units or as a date, the fields and the text of the error's body,
 * and the reset time of an exhausted rate limit. Of several the longest counts. The result is one `Duration`, never negative
 * and at most `max`.
 *
 * **When to use**
 *
 * - `fromAiError` for an error of any `LanguageModel`. Of AiError's reasons only a rate limit has a field for it; that
 *   of a 503 is in its headers.
 * - `fromResponse` for an HTTP response of your own client.
 * - `fromHeaders` for headers alone, and `fromText` for a text alone.
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
import { type Fields, headersOf, parse } from "./internal/kit/errorBody.ts"

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
 * An error response of a provider.
 *
 * @since 0.1.0
 * @category models
 */
export interface ErrorResponse {
  /** Text is read only with status 429, 503 and 529. Another error may quote the prompt, and a prompt must not cause a delay. */
  readonly status?: number | undefined
  readonly headers?: Headers | undefined
  /** The body as text. */
  readonly body?: string | undefined
}

/**
 * Reads the Retry-After from the headers of a response. `undefined` if there is none.
 *
 * **Details**
 *
 * The longest of these counts:
 *
 * - `retry-after-ms` and `x-ms-retry-after-ms`: milliseconds
 * - `retry-after`: seconds, also with a fraction, units such as `2m59.56s`, an HTTP date, an RFC 3339 date, or an epoch time in
 *   seconds or milliseconds. Several headers of this name count each.
 *
 * `retry-after-ms` alone counts if `retry-after` is the same wait in whole seconds.
 *
 * Without any of them, the longest reset of the limits that are at 0 counts: `x-ratelimit-remaining-*`,
 * `anthropic-ratelimit-*-remaining` and others with these words, each with its reset header, a reset header that has no other
 * beside it, `anthropic-ratelimit-unified-reset` of a rejected request, and `ratelimit: "default";r=0;t=55`. A reset has the
 * same forms as `retry-after`. It is not compared with an explicit wait: it may be the time until the limit is full again.
 *
 * @since 0.1.0
 * @category getters
 */
export const fromHeaders = (headers: Headers, options?: Options): Duration.Duration | undefined => {
  const now = nowOf(headers, options)
  return bounded(explicitIn(headers, now) ?? longestReset(headers, now), options)
}

/**
 * Reads the Retry-After from an error response: its headers and its body. `undefined` if there is none.
 *
 * **Details**
 *
 * The longest explicit wait counts:
 *
 * - in the headers, see `fromHeaders`
 * - in the fields of the error's JSON: `retry_after`, `retry_after_ms`, `resets_in_seconds`, `resets_at`, `retryDelay` and others,
 *   and in a map of headers, as OpenRouter's `error.metadata.headers`
 * - with status 429, 503 and 529 in the text of the body, see `fromText`
 *
 * Without any of them, the longest reset of an exhausted limit counts.
 *
 * **Example** (A wait in the body that is longer than the one in the headers)
 *
 * ```ts
 * import { Duration } from "effect"
 * import * as RetryAfter from "@sluice/ai/RetryAfter"
 *
 * const wait = RetryAfter.fromResponse({
 *   status: 429,
 *   headers: { "retry-after": "1" },
 *   body: `{"error":{"type":"usage_limit_reached","resets_in_seconds":90}}`
 * })
 *
 * console.log(wait && Duration.format(wait)) // => 1m 30s
 * ```
 *
 * @since 0.1.0
 * @category getters
 */
export const fromResponse = (response: ErrorResponse, options?: Options): Duration.Duration | undefined => {
  const { body = "", headers = {}, status } = response
  const now = nowOf(headers, options)
  const { objects } = parse(body)
  const maps = objects.map((fields) => headersOf(fields["headers"]))
  const explicit = longest([
    explicitIn(headers, now),
    ...objects.map((fields) => inFields(fields, now)),
    ...maps.map((map) => explicitIn(map, now)),
    statusesWithText.has(status) ? inText(body, now) : undefined
  ])
  return bounded(explicit ?? longest([headers, ...maps].map((map) => longestReset(map, now))), options)
}

/**
 * Reads the Retry-After from the text of an error. `undefined` if there is none.
 *
 * **Details**
 *
 * The first match counts: Google's `"retryDelay": "34s"`, then phrases such as `try again in 6m0s`, `retry after 26 seconds` and
 * `regain access on 2027-01-01 at 00:00 UTC`. Only the first 16,384 characters are read. A date needs `now`.
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
export const fromText = (text: string, options?: Options): Duration.Duration | undefined =>
  bounded(inText(text, options?.now), options)

/**
 * Reads the Retry-After from an error of a language model. `undefined` if there is none.
 *
 * **Details**
 *
 * The one that `OpenAiCompatible` or `AnthropicMessages` recorded in the metadata of the reason counts. Otherwise the longest of
 * these:
 *
 * - the `retryAfter` of the reason
 * - the `resetAt` of a `QuotaExhaustedError`
 * - that of the response, see `fromResponse`. The body is read only for `RateLimitError`, `QuotaExhaustedError`,
 *   `InternalProviderError` and `UnknownError`, and its text only for the first two and for status 429, 503 and 529. Then also
 *   the text of the description.
 *
 * @since 0.1.0
 * @category getters
 */
export const fromAiError = (error: AiError.AiError, options?: Options): Duration.Duration | undefined => {
  const { reason } = error
  const recorded = recordedIn(reason)
  if (recorded !== undefined) return bounded(recorded, options)
  const http = "http" in reason ? reason.http : undefined
  const headers = http?.response?.headers
  const { body, description, status } = readable(reason)
  const found = longest([
    error.retryAfter === undefined ? undefined : Duration.toMillis(error.retryAfter),
    quotaReset(reason, nowOf(headers ?? {}, options)),
    millisOf(fromResponse({ status, headers, body }, options))
  ])
  return bounded(found ?? (statusesWithText.has(status) ? inText(description ?? "", options?.now) : undefined), options)
}

/** The parts of an error that may be read. The status decides whether its text may be read. */
const readable = (
  reason: AiError.AiErrorReason
): {
  readonly status?: number | undefined
  readonly body?: string | undefined
  readonly description?: string | undefined
} => {
  switch (reason._tag) {
    case "RateLimitError":
    case "QuotaExhaustedError":
      return { status: 429, body: reason.http?.body }
    case "InternalProviderError":
    case "UnknownError":
      return { status: reason.http?.response?.status, body: reason.http?.body, description: reason.description }
    default:
      return {}
  }
}

const millisOf = (wait: Duration.Duration | undefined): number | undefined =>
  wait === undefined ? undefined : Duration.toMillis(wait)

const longest = (waits: ReadonlyArray<number | undefined>): number | undefined => {
  let found: number | undefined
  for (const wait of waits) {
    if (wait !== undefined && !Number.isNaN(wait) && (found === undefined || wait > found)) found = wait
  }
  return found
}

const bounded = (
  millis: number | undefined,
  options: Pick<Options, "max"> | undefined
): Duration.Duration | undefined =>
  millis === undefined || Number.isNaN(millis) ? undefined : Duration.clamp(Duration.millis(millis), {
    minimum: Duration.zero,
    maximum: Duration.fromInputUnsafe(options?.max ?? defaultMax)
  })

const quotaReset = (reason: AiError.AiErrorReason, now: number | undefined): number | undefined =>
  reason._tag !== "QuotaExhaustedError" || reason.resetAt === undefined || now === undefined
    ? undefined
    : DateTime.toEpochMillis(reason.resetAt) - now

const statusesWithText: ReadonlySet<number | undefined> = new Set([429, 503, 529])

const nowOf = (headers: Headers, options: Options | undefined): number | undefined =>
  options?.now ?? httpDateMillis(text(headers, "date"))

const recordedIn = (reason: AiError.AiErrorReason): number | undefined => {
  if (reason._tag !== "InternalProviderError" && reason._tag !== "RateLimitError") return undefined
  const millis = reason.metadata.sluice?.retryAfterMillis
  return typeof millis === "number" && millis >= 0 ? millis : undefined
}

const text = (headers: Headers, name: string): string | undefined => {
  const value = headers[name]
  return typeof value === "string" ? value.trim() : undefined
}

// Digits with an optional fraction. Number() would also accept a sign, an exponent and "Infinity".
const decimal = /^\d+(\.\d+)?$/

const milliseconds = (value: string | undefined): number | undefined =>
  value !== undefined && decimal.test(value) ? Number(value) : undefined

const explicitIn = (headers: Headers, now: number | undefined): number | undefined => {
  const precise = longest([
    milliseconds(text(headers, "retry-after-ms")),
    milliseconds(text(headers, "x-ms-retry-after-ms"))
  ])
  const coarse = longest(listed(text(headers, "retry-after") ?? "").map((value) => waitMillis(value, now)))
  const areSame = precise !== undefined && coarse !== undefined && Math.abs(coarse - precise) < 1000
  return areSame ? precise : longest([precise, coarse])
}

/** The values of several headers of one name, which clients join with a comma. A date has a comma after the weekday. */
const listed = (value: string): ReadonlyArray<string> => value.split(/(?<!\b(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*), /i)

const httpDateMillis = (value: string | undefined): number | undefined => {
  if (value === undefined) return undefined
  const date = HttpHeaders.parseHttpDate(value)
  return Result.isSuccess(date) ? DateTime.toEpochMillis(date.success) : undefined
}

// The name of the reset header is that of the remaining header, with another word in this place.
const limitName = /rate-?limit/
const remaining = /(?<=^|-)remaining(?=$|-)/
const onlyReset = /^(?:x-)?rate-?limit-reset$/
const rejected = /^anthropic-ratelimit-unified-(?:.+-)?status$/
/** An exhausted limit of the draft standard: `"default";r=0;t=55`, or `limit=10, remaining=0, reset=55`. */
const exhausted = /(?:^|[;,\s])(?:r|remaining)=0\s*[;,]\s*(?:t|reset)=(\d+)/g

const longestReset = (headers: Headers, now: number | undefined): number | undefined =>
  longest(
    Object.keys(headers).filter((name) => limitName.test(name)).map((name) => {
      const value = text(headers, name)
      if (name === "ratelimit") return longest([...value?.matchAll(exhausted) ?? []].map(([, t]) => Number(t) * 1000))
      if (onlyReset.test(name)) {
        return text(headers, name.replace("reset", "remaining")) === undefined ? waitMillis(value, now) : undefined
      }
      if (rejected.test(name)) {
        return value === "rejected" ? waitMillis(text(headers, name.replace(/status$/, "reset")), now) : undefined
      }
      return remaining.test(name) && value === "0"
        ? waitMillis(text(headers, name.replace(remaining, "reset")), now)
        : undefined
    })
  )

// Epoch seconds have ten digits until 2286, epoch milliseconds thirteen. 1e9 seconds from now would be 31 years.
const smallestEpochSeconds = 1e9
const smallestEpochMillis = 1e11
const largestEpochMillis = 1e14

/** Reads a wait in any form. Its magnitude tells seconds from an epoch time. */
const waitMillis = (value: string | undefined, now: number | undefined): number | undefined => {
  if (value === undefined) return undefined
  if (decimal.test(value)) return untilNumber(Number(value), now)
  const date = rfc3339.test(value) ? Date.parse(value) : httpDateMillis(value)
  if (date === undefined) return unitsMillis(value)
  return now === undefined ? undefined : Math.max(0, date - now)
}

const untilNumber = (number: number, now: number | undefined): number | undefined => {
  if (number < smallestEpochSeconds || number > largestEpochMillis) return number * 1000
  if (now === undefined) return undefined
  return Math.max(0, (number < smallestEpochMillis ? number * 1000 : number) - now)
}

// Date.parse accepts many more formats, which differ between engines.
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/i

// The names of fields with a wait, without their underscores and hyphens.
const fieldsInMillis = /^retry(?:after|in)(?:ms|millis|milliseconds)$/
const fieldsInAnyForm =
  /^(?:retry(?:after|in)(?:s|secs?|seconds)?|retrydelay|quotaresetdelay|resets?(?:in|after)?(?:s|secs?|seconds)|resets?after)$/
const fieldsOfTime = /^(?:resets?at|retryat|quotaresettimestamp|ratelimitreset)$/

/** The wait in the fields of an error. */
const inFields = (fields: Fields, now: number | undefined): number | undefined =>
  longest(
    Object.entries(fields).map(([field, value]) => {
      const given = typeof value === "number" ? String(value) : typeof value === "string" ? value.trim() : undefined
      if (given === undefined) return undefined
      const name = field.toLowerCase().replace(/[_-]/g, "")
      if (fieldsInMillis.test(name)) return milliseconds(given)
      if (fieldsInAnyForm.test(name)) return waitMillis(given, now)
      return fieldsOfTime.test(name) && !isSmall(given) ? waitMillis(given, now) : undefined
    })
  )

/** Whether it is a number that is no time of this century. */
const isSmall = (value: string): boolean => decimal.test(value) && Number(value) < smallestEpochSeconds

const longestText = 16_384

const inText = (text: string, now: number | undefined): number | undefined => {
  const start = text.slice(0, longestText)
  return unitsAfter(start, inField) ?? unitsAfter(start, inSentence) ?? dateIn(start, now)
}

/** Anthropic's text after an organization has reached its own spend limit. */
const onDate = /\b(?:regain access|try again|resets?) (?:on|at) (\d{4}-\d\d-\d\d)(?: at |[ T])(\d\d:\d\d) ?(?:UTC|Z)\b/i

const dateIn = (text: string, now: number | undefined): number | undefined => {
  const found = onDate.exec(text)
  return found === null ? undefined : waitMillis(`${found[1]}T${found[2]}:00Z`, now)
}

// The text before a duration. `inField`: in Google's RetryInfo or in its command line's errors, with quotes that a gateway
// may have escaped.
const inField = /\b(?:retryDelay|quotaResetDelay)\\?"\s*:\s*\\?"(?=\d)/g
const inSentence = /\b(?:try again|retry(?:ing)?|resets?|available again) (?:in|after) (?=\d)/gi

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
