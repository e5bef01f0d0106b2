/**
 * Why Sluice refused or ended a call of a language model: `NoTarget`, `IdleTimeout`, `TruncatedStream` and others.
 *
 * A `LanguageModel` can fail only with `AiError`. So a rejection is encoded into the metadata of the error's reason.
 * `fromAiError` reads it, also in another process.
 *
 * **When to use**
 *
 * To tell the failures that Sluice detects from those that a provider reports, which have no rejection.
 * `ResilientModel.rejection` is the same function as `fromAiError`.
 *
 * **Details**
 *
 * | rejection | reason of the `AiError` | effect |
 * |---|---|---|
 * | `CircuitOpen`, `BackpressureShed`, `NoTarget` | `RateLimitError`, with retryAfter if it is known | an outer retry waits long enough |
 * | `NoTarget`, if every credential is refused | `AuthenticationError` | not retried, since a retry does not help |
 * | `TruncatedStream`, `MalformedEvent`, `FirstTokenTimeout`, `IdleTimeout`, `AttemptTimeout` | `InternalProviderError` | retryable |
 * | `EmptyAnswer` | `InvalidOutputError` | retryable, at the price of another answer |
 * | `DeadlineExceeded` | `UnknownError` | not retried, since no time is left |
 *
 * **Example** (Reading why a call failed)
 *
 * ```ts
 * import { Duration, Option } from "effect"
 * import * as AiRejection from "@sluice/ai/AiRejection"
 *
 * const silent = new AiRejection.IdleTimeout({ target: "openai", limit: Duration.seconds(20), parts: 7 })
 * const error = AiRejection.toAiError(silent, "streamText")
 *
 * console.log(error.isRetryable, Option.getOrThrow(AiRejection.fromAiError(error)).message)
 * // => true openai: silent for 20s after 7 parts
 * ```
 *
 * @since 0.1.0
 */
import { BackpressureShed } from "@sluice/core/Backpressure"
import { CircuitOpen } from "@sluice/core/CircuitBreaker"
import { DeadlineExceeded } from "@sluice/core/Deadline"
import { withoutStack } from "@sluice/core/Refusal"
import { AttemptTimeout } from "@sluice/core/Sluice"
import * as AiError from "effect/ai/AiError"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/**
 * A stream ended without its finish part, so the answer is not complete.
 *
 * @since 0.1.0
 * @category errors
 */
export class TruncatedStream extends Schema.Error<TruncatedStream>("@sluice/ai/TruncatedStream")({
  _tag: Schema.tag("TruncatedStream"),
  target: Schema.String,
  /** How many parts had arrived. */
  parts: Schema.Int,
  /** Whether the consumer had partial output, so that the call could not be retried. */
  hadOutput: Schema.Boolean
}) {
  override get message(): string {
    return `${this.target}: answer truncated after ${counted(this.parts)}, without a finish reason`
  }
}

/**
 * A complete answer without content.
 *
 * @since 0.1.0
 * @category errors
 */
export class EmptyAnswer extends Schema.Error<EmptyAnswer>("@sluice/ai/EmptyAnswer")({
  _tag: Schema.tag("EmptyAnswer"),
  target: Schema.String
}) {
  override get message(): string {
    return `${this.target}: the answer is complete and empty`
  }
}

/**
 * An event or a response is not JSON.
 *
 * @since 0.1.0
 * @category errors
 */
export class MalformedEvent extends Schema.Error<MalformedEvent>("@sluice/ai/MalformedEvent")({
  _tag: Schema.tag("MalformedEvent"),
  target: Schema.String,
  /** Its first 80 characters, masked. Not in the message, since they may be part of an answer. */
  sample: Schema.String
}) {
  override get message(): string {
    return `${this.target}: malformed event`
  }
}

/**
 * No output arrived within `firstTokenTimeout`.
 *
 * @since 0.1.0
 * @category errors
 */
export class FirstTokenTimeout extends Schema.Error<FirstTokenTimeout>("@sluice/ai/FirstTokenTimeout")({
  _tag: Schema.tag("FirstTokenTimeout"),
  target: Schema.String,
  limit: Schema.DurationFromMillis
}) {
  override get message(): string {
    return `${this.target}: no first token within ${Duration.format(this.limit)}`
  }
}

/**
 * A stream was silent for `idleTimeout` after its first output.
 *
 * @since 0.1.0
 * @category errors
 */
export class IdleTimeout extends Schema.Error<IdleTimeout>("@sluice/ai/IdleTimeout")({
  _tag: Schema.tag("IdleTimeout"),
  target: Schema.String,
  limit: Schema.DurationFromMillis,
  /** How many parts had arrived. */
  parts: Schema.Int
}) {
  override get message(): string {
    return `${this.target}: silent for ${Duration.format(this.limit)} after ${counted(this.parts)}`
  }
}

/**
 * Why a target was not available.
 *
 * | why | meaning |
 * |---|---|
 * | `CircuitOpen` | its circuit is open |
 * | `RateLimited` | its Retry-After has not elapsed |
 * | `Busy` | all its permits are in use |
 * | `Credential` | it refused the credential, or the credential's quota is used up |
 * | `ContextTooSmall` | the prompt was too long for a target with at least as much context |
 *
 * @since 0.1.0
 * @category models
 */
export const Unavailable = Schema.Struct({
  target: Schema.String,
  why: Schema.Literals(["CircuitOpen", "RateLimited", "Busy", "Credential", "ContextTooSmall"]),
  /** When to try again, if it is known. */
  retryAfter: Schema.optionalKey(Schema.DurationFromMillis)
})

/**
 * @since 0.1.0
 * @category models
 */
export type Unavailable = typeof Unavailable.Type

/**
 * No target is available. No request was made.
 *
 * @since 0.1.0
 * @category errors
 */
export class NoTarget extends Schema.Error<NoTarget>("@sluice/ai/NoTarget")({
  _tag: Schema.tag("NoTarget"),
  /** The unavailable targets, in the order in which they would have been tried. */
  targets: Schema.Array(Unavailable),
  /** When the first of them is available again, if it is known. */
  retryAfter: Schema.optionalKey(Schema.DurationFromMillis)
}) {
  override get message(): string {
    const each = this.targets.map(({ target, why }) => `${target} ${inWords[why]}`).join(", ")
    const back = this.retryAfter === undefined ? "" : `; retry in ${Duration.format(this.retryAfter)}`
    return `no target is available: ${each}${back}`
  }
}

const counted = (parts: number): string => `${parts} ${parts === 1 ? "part" : "parts"}`

const inWords: { readonly [Why in Unavailable["why"]]: string } = {
  CircuitOpen: "has an open circuit",
  RateLimited: "is rate-limited",
  Busy: "is busy",
  Credential: "refused its credential",
  ContextTooSmall: "has too small a context"
}

/**
 * Every rejection of Sluice.
 *
 * @since 0.1.0
 * @category models
 */
export const Rejection = Schema.Union([
  CircuitOpen,
  BackpressureShed,
  NoTarget,
  DeadlineExceeded,
  AttemptTimeout,
  FirstTokenTimeout,
  IdleTimeout,
  TruncatedStream,
  MalformedEvent,
  EmptyAnswer
])

/**
 * @since 0.1.0
 * @category models
 */
export type Rejection = typeof Rejection.Type

/**
 * Returns the error with which a `LanguageModel` fails for this rejection.
 *
 * @since 0.1.0
 * @category constructors
 */
export const toAiError = (rejection: Rejection, method: string): AiError.AiError => {
  const error = withoutStack(() => AiError.make({ module: "ResilientModel", method, reason: reasonOf(rejection) }))
  rejections.set(error, rejection)
  return error
}

/**
 * Returns the rejection of an error. Works across services, streams and processes.
 *
 * @since 0.1.0
 * @category getters
 */
export const fromAiError = (error: unknown): Option.Option<Rejection> => {
  if (!AiError.isAiError(error)) return Option.none()
  const known = rejections.get(error)
  if (known !== undefined) return Option.some(known)
  const metadata = "metadata" in error.reason ? error.reason.metadata["sluice"] : undefined
  return isRecord(metadata) ? decode(metadata["rejection"]) : Option.none()
}

/**
 * Whether an error has a rejection with this tag.
 *
 * @since 0.1.0
 * @category guards
 */
export const is = (tag: Rejection["_tag"], error: unknown): boolean => {
  const rejection = fromAiError(error)
  return Option.isSome(rejection) && rejection.value._tag === tag
}

/**
 * Encodes a rejection for `metadata.sluice.rejection` of an `AiError`, where `fromAiError` finds it.
 *
 * **When to use**
 *
 * In a provider that builds an `AiError` with a reason and an HTTP context of its own. Otherwise use `toAiError`.
 *
 * @since 0.1.0
 * @category conversions
 */
// The type of AiError's metadata is mutable. Nothing else refers to the new value.
export const toMetadata = (rejection: Rejection): Schema.MutableJson => encode(rejection) as Schema.MutableJson

// Within one process nothing is decoded, which would take 20 us.
const rejections = new WeakMap<AiError.AiError, Rejection>()

const reasonOf = (rejection: Rejection): AiError.AiErrorReason => {
  const metadata = { sluice: { rejection: toMetadata(rejection) } }
  switch (rejection._tag) {
    case "CircuitOpen":
    case "BackpressureShed":
      return new AiError.RateLimitError({ retryAfter: rejection.retryAfter, metadata })
    case "NoTarget":
      return rejection.targets.length > 0 && rejection.targets.every(({ why }) => why === "Credential")
        ? new AiError.AuthenticationError({ kind: "Unknown", description: rejection.message, metadata })
        : new AiError.RateLimitError({ retryAfter: rejection.retryAfter, metadata })
    case "DeadlineExceeded":
      return new AiError.UnknownError({ description: rejection.message, metadata })
    case "AttemptTimeout":
    case "FirstTokenTimeout":
    case "IdleTimeout":
    case "TruncatedStream":
    case "MalformedEvent":
      return new AiError.InternalProviderError({ description: rejection.message, metadata })
    case "EmptyAnswer":
      return new AiError.InvalidOutputError({ description: rejection.message, metadata })
  }
}

const Json = Schema.toCodecJson(Rejection)
const encode = Schema.encodeSync(Json)
const decode = Schema.decodeUnknownOption(Json)

const isRecord = (value: unknown): value is { readonly [name: string]: unknown } =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Sluice's metadata of a reason. Mutable, like AiError's index signature. */
type SluiceMetadata = { retryAfterMillis?: number; rejection?: Schema.MutableJson }

declare module "effect/ai/AiError" {
  interface RateLimitErrorMetadata {
    readonly sluice?: SluiceMetadata | null
  }
  interface AuthenticationErrorMetadata {
    readonly sluice?: SluiceMetadata | null
  }
  interface InternalProviderErrorMetadata {
    readonly sluice?: SluiceMetadata | null
  }
  interface InvalidOutputErrorMetadata {
    readonly sluice?: SluiceMetadata | null
  }
  interface UnknownErrorMetadata {
    readonly sluice?: SluiceMetadata | null
  }
}
