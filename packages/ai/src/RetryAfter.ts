/**
 * How long a provider asks us to stay away.
 *
 * Providers say it in many ways: `retry-after-ms`, `retry-after` in whole or broken seconds or as an HTTP date, or only by
 * a limit that has nothing left and the time of its reset. This module reads all of them into one `Duration`, which is
 * never negative and never longer than a stated bound.
 *
 * **When to use**
 *
 * With `fromAiError`, for an error of a language model, whoever raised it: of AiError's reasons only a rate limit has a
 * field for the wait, while the wait of a 503 has to be looked up in its headers. With `fromHeaders`, for the headers of
 * any HTTP answer.
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
 * an HTTP date), and last the longest reset among the `x-ratelimit-remaining-*` limits that stand at 0. A reset is
 * `6m0s`, `634ms`, seconds, or epoch seconds or milliseconds, told apart by magnitude.
 *
 * @since 0.1.0
 * @category getters
 */
export const fromHeaders = (headers: Headers, options?: Options): Duration.Duration | undefined => {
  const now = options?.now ?? httpDateMillis(text(headers, "date"))
  const millis = milliseconds(text(headers, "retry-after-ms")) ??
    milliseconds(text(headers, "x-ms-retry-after-ms")) ??
    secondsOrDate(text(headers, "retry-after"), now) ??
    longestReset(headers, now)
  if (millis === undefined) return undefined
  return Duration.min(Duration.millis(millis), Duration.fromInputUnsafe(options?.max ?? defaultMax))
}

/**
 * Reads the wait from an error of a language model, or `undefined` if it does not ask for one.
 *
 * **Details**
 *
 * Looks at the reason's own `retryAfter`, then at what `OpenAiCompatible` noted in the reason's metadata when the answer
 * came, then at the headers in the reason's HTTP context.
 *
 * @since 0.1.0
 * @category getters
 */
export const fromAiError = (error: AiError.AiError, options?: Options): Duration.Duration | undefined => {
  const known = error.retryAfter ?? fromMetadata(error.reason)
  if (known !== undefined) {
    return Duration.clamp(known, {
      minimum: Duration.zero,
      maximum: Duration.fromInputUnsafe(options?.max ?? defaultMax)
    })
  }
  const headers = "http" in error.reason ? error.reason.http?.response?.headers : undefined
  return headers === undefined ? undefined : fromHeaders(headers, options)
}

declare module "effect/ai/AiError" {
  interface InternalProviderErrorMetadata {
    /** What `OpenAiCompatible` notes where AiError has no field for it. */
    readonly sluice?: { readonly retryAfterMillis: number } | null
  }
}

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

const remaining = /^x-ratelimit-remaining(-.+)?$/

const longestReset = (headers: Headers, now: number | undefined): number | undefined => {
  let longest: number | undefined
  for (const name of Object.keys(headers)) {
    const limit = remaining.exec(name)
    if (limit === null || text(headers, name) !== "0") continue
    const reset = resetMillis(text(headers, `x-ratelimit-reset${limit[1] ?? ""}`), now)
    if (reset !== undefined && (longest === undefined || reset > longest)) longest = reset
  }
  return longest
}

// Epoch seconds have ten digits until 2286, epoch milliseconds thirteen; a wait of 1e9 seconds would be 31 years.
const smallestEpochSeconds = 1e9
const smallestEpochMillis = 1e11

const resetMillis = (value: string | undefined, now: number | undefined): number | undefined => {
  if (value === undefined) return undefined
  if (!decimal.test(value)) return unitsMillis(value)
  const number = Number(value)
  if (number < smallestEpochSeconds) return number * 1000
  if (now === undefined) return undefined
  return Math.max(0, (number < smallestEpochMillis ? number * 1000 : number) - now)
}

const unit = /(\d+(?:\.\d+)?)(ms|s|m|h|d)/y
const unitInMillis = new Map([["ms", 1], ["s", 1000], ["m", 60_000], ["h", 3_600_000], ["d", 86_400_000]])

/** `6m0s`, `634ms`, `1h2m3.5s`: the units in a row and nothing else. */
const unitsMillis = (value: string): number | undefined => {
  let millis = 0
  unit.lastIndex = 0
  do {
    const match = unit.exec(value)
    if (match === null) return undefined
    millis += Number(match[1]) * (unitInMillis.get(match[2] ?? "") ?? 0)
  } while (unit.lastIndex < value.length)
  return millis
}
