/**
 * What is wrong with a call of a language model where no provider says so: it was refused, cut short, silent, or empty.
 *
 * A `LanguageModel` fails with `AiError` and nothing else. So each rejection travels within one, encoded by its schema in the
 * metadata of the reason, and `fromAiError` reads it back, in this process or in another one.
 *
 * **Details**
 *
 * | rejection | reason of the AiError | so that |
 * |---|---|---|
 * | `CircuitOpen`, `BackpressureShed`, `NoTarget` | `RateLimitError`, with retryAfter if it is known | an outer retry waits for as long as it must |
 * | `NoTarget`, where every credential is refused | `AuthenticationError` | nobody retries what a retry cannot mend |
 * | `TruncatedStream`, `MalformedEvent`, `FirstTokenTimeout`, `IdleTimeout`, `AttemptTimeout` | `InternalProviderError` | it may be tried again |
 * | `EmptyAnswer` | `InvalidOutputError` | it may be asked again, at its price |
 * | `DeadlineExceeded` | `UnknownError` | nobody retries what has no time left |
 *
 * **Example** (Reading why a call was not made)
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
 * A stream ended without the part that says why: what came of the answer is not all of it.
 *
 * @since 0.1.0
 * @category errors
 */
export class TruncatedStream extends Schema.Error<TruncatedStream>("@sluice/ai/TruncatedStream")({
  _tag: Schema.tag("TruncatedStream"),
  target: Schema.String,
  /** Parts that had arrived. */
  parts: Schema.Int,
  /** Whether some of the answer had been handed on, so that the call could not be repeated. */
  hadOutput: Schema.Boolean
}) {
  override get message(): string {
    return `${this.target}: answer truncated after ${counted(this.parts)}, without a finish reason`
  }
}

/**
 * A complete answer with nothing in it.
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
 * An event of a stream, or an answer, that cannot be read.
 *
 * @since 0.1.0
 * @category errors
 */
export class MalformedEvent extends Schema.Error<MalformedEvent>("@sluice/ai/MalformedEvent")({
  _tag: Schema.tag("MalformedEvent"),
  target: Schema.String,
  /** Its first 80 characters, masked. A field only: they may be a part of an answer. */
  sample: Schema.String
}) {
  override get message(): string {
    return `${this.target}: malformed event`
  }
}

/**
 * Nothing of the answer came in the time that its first token has.
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
 * The answer had begun, and then nothing came for too long.
 *
 * @since 0.1.0
 * @category errors
 */
export class IdleTimeout extends Schema.Error<IdleTimeout>("@sluice/ai/IdleTimeout")({
  _tag: Schema.tag("IdleTimeout"),
  target: Schema.String,
  limit: Schema.DurationFromMillis,
  /** Parts that had arrived. */
  parts: Schema.Int
}) {
  override get message(): string {
    return `${this.target}: silent for ${Duration.format(this.limit)} after ${counted(this.parts)}`
  }
}

/**
 * Why one target could not be asked.
 *
 * | why | |
 * |---|---|
 * | `CircuitOpen` | it was seen to fail |
 * | `RateLimited` | it asked to be left alone |
 * | `Busy` | as many calls run there as may |
 * | `Credential` | it refused the credential, or the credential's quota is used up |
 * | `ContextTooSmall` | the prompt was too long for a target with at least its context |
 *
 * @since 0.1.0
 * @category models
 */
export const Unavailable = Schema.Struct({
  target: Schema.String,
  why: Schema.Literals(["CircuitOpen", "RateLimited", "Busy", "Credential", "ContextTooSmall"]),
  /** When to ask again, if that is known. */
  retryAfter: Schema.optionalKey(Schema.DurationFromMillis)
})

/**
 * @since 0.1.0
 * @category models
 */
export type Unavailable = typeof Unavailable.Type

/**
 * There are targets, and none of them can be asked now: no request was made.
 *
 * @since 0.1.0
 * @category errors
 */
export class NoTarget extends Schema.Error<NoTarget>("@sluice/ai/NoTarget")({
  _tag: Schema.tag("NoTarget"),
  /** Every target, in the order in which they would have been asked. */
  targets: Schema.Array(Unavailable),
  /** When the first of them can be asked again, if that is known. */
  retryAfter: Schema.optionalKey(Schema.DurationFromMillis)
}) {
  override get message(): string {
    const each = this.targets.map(({ target, why }) => `${target} ${inWords[why]}`).join(", ")
    const back = this.retryAfter === undefined ? "" : `; retry in ${Duration.format(this.retryAfter)}`
    return `no target can be asked: ${each}${back}`
  }
}

const counted = (parts: number): string => `${parts} ${parts === 1 ? "part" : "parts"}`

const inWords: { readonly [Why in Unavailable["why"]]: string } = {
  CircuitOpen: "has an open circuit",
  RateLimited: "asked to be left alone",
  Busy: "is busy",
  Credential: "refuses its credential",
  ContextTooSmall: "has too small a context"
}

/**
 * Everything that can be wrong with a call where no provider says so.
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
 * The error that a `LanguageModel` fails with for this rejection.
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
 * The rejection that an error carries, if it carries one, whatever it came through: a service, a stream, a wire.
 *
 * @since 0.1.0
 * @category getters
 */
export const fromAiError = (error: unknown): Option.Option<Rejection> => {
  if (!AiError.isAiError(error)) return Option.none()
  const known = rejections.get(error)
  if (known !== undefined) return Option.some(known)
  const noted = "metadata" in error.reason ? error.reason.metadata["sluice"] : undefined
  return isNoted(noted) ? decode(noted["rejection"]) : Option.none()
}

/**
 * Whether an error carries a rejection of this kind.
 *
 * @since 0.1.0
 * @category guards
 */
export const is = (tag: Rejection["_tag"], error: unknown): boolean => {
  const rejection = fromAiError(error)
  return Option.isSome(rejection) && rejection.value._tag === tag
}

/**
 * What a provider of ours writes into `metadata.sluice.rejection` of an error that has a better reason and HTTP context than
 * `toAiError` could give it.
 *
 * @internal
 */
export const note = (rejection: Rejection): Schema.MutableJson => encode(rejection) as Schema.MutableJson

// Within one process nothing has to be decoded, which costs 20 us.
const rejections = new WeakMap<AiError.AiError, Rejection>()

const reasonOf = (rejection: Rejection): AiError.AiErrorReason => {
  const metadata = { sluice: { rejection: encode(rejection) as Schema.MutableJson } }
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

const isNoted = (value: unknown): value is { readonly [name: string]: unknown } =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** What Sluice notes in the metadata of a reason. Mutable, as AiError's index signature is. */
type Noted = { retryAfterMillis?: number; rejection?: Schema.MutableJson }

declare module "effect/ai/AiError" {
  interface RateLimitErrorMetadata {
    readonly sluice?: Noted | null
  }
  interface AuthenticationErrorMetadata {
    readonly sluice?: Noted | null
  }
  interface InternalProviderErrorMetadata {
    readonly sluice?: Noted | null
  }
  interface InvalidOutputErrorMetadata {
    readonly sluice?: Noted | null
  }
  interface UnknownErrorMetadata {
    readonly sluice?: Noted | null
  }
}
