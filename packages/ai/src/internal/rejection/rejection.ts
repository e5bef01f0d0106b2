/** The rejections, and how an `AiError` carries them. `AiRejection` exports them. */
import { BackpressureShed } from "@sluice/core/Backpressure"
import { CircuitOpen } from "@sluice/core/CircuitBreaker"
import { DeadlineExceeded } from "@sluice/core/Deadline"
import { QuotaExceeded } from "@sluice/core/Quota"
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
  hadOutput: Schema.Boolean,
  /** How the connection failed, masked. Absent if it ended in order. */
  lost: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    const how = this.lost === undefined ? "without a finish reason" : `connection lost (${this.lost})`
    const output = this.hadOutput ? "partial output was handed on" : "no output was handed on"
    return `${this.target}: answer truncated after ${counted(this.parts)}, ${how}; ${output}`
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
 * | `Quota` | its quota has no room, and the wait is longer than at another target |
 * | `Credential` | it refused the credential, or the credential's quota is used up |
 * | `ContextTooSmall` | the prompt was too long for a target with at least as much context |
 *
 * @since 0.1.0
 * @category models
 */
export const Unavailable = Schema.Struct({
  target: Schema.String,
  why: Schema.Literals(["CircuitOpen", "RateLimited", "Busy", "Quota", "Credential", "ContextTooSmall"]),
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

/**
 * No target offers the model that the call asks for. No request was made.
 *
 * @since 0.1.0
 * @category errors
 */
export class ModelNotOffered extends Schema.Error<ModelNotOffered>("@sluice/ai/ModelNotOffered")({
  _tag: Schema.tag("ModelNotOffered"),
  model: Schema.String,
  /** The models of all targets. */
  offered: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const offered = this.offered.length === 0 ? "none" : this.offered.join(", ")
    return `no target offers the model ${JSON.stringify(this.model.slice(0, 100))}; offered: ${offered}`
  }
}

const counted = (parts: number): string => `${parts} ${parts === 1 ? "part" : "parts"}`

const inWords: { readonly [Why in Unavailable["why"]]: string } = {
  CircuitOpen: "has an open circuit",
  RateLimited: "is rate-limited",
  Busy: "is busy",
  Quota: "has no room in its quota",
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
  QuotaExceeded,
  NoTarget,
  ModelNotOffered,
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
    case "QuotaExceeded":
      return rejection.why === "TooLarge" || rejection.why === "Spent"
        ? new AiError.UnknownError({ description: rejection.message, metadata })
        : new AiError.RateLimitError({ retryAfter: rejection.retryAfter, metadata })
    case "NoTarget":
      return rejection.targets.length > 0 && rejection.targets.every(({ why }) => why === "Credential")
        ? new AiError.AuthenticationError({ kind: "Unknown", description: rejection.message, metadata })
        : new AiError.RateLimitError({ retryAfter: rejection.retryAfter, metadata })
    case "DeadlineExceeded":
    case "ModelNotOffered":
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
