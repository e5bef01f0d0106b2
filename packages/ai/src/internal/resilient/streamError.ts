import * as AiError from "effect/ai/AiError"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as RetryAfter from "../../RetryAfter.ts"
import * as Words from "../wire/errorWords.ts"

/** The error that a provider tells within a stream, long after the status was 200, where its adapter hands it on as a part. */
export const fromPart = (error: unknown): AiError.AiError =>
  AiError.isAiError(error)
    ? error
    : AiError.make({ module: "ResilientModel", method: "streamText", reason: reasonFor(toldBy(error)) })

/** What is told, read and not shown: a message may quote the prompt. */
interface Told {
  /** By which providers name an error: its type and code. */
  readonly names: ReadonlyArray<string>
  readonly message: string
}

const Shape = Schema.Struct({
  type: Schema.optional(Schema.Unknown),
  code: Schema.optional(Schema.Unknown),
  message: Schema.optional(Schema.Unknown),
  error: Schema.optional(Schema.Unknown)
})
const decode = Schema.decodeUnknownOption(Shape)

const longestName = 64
const longestMessage = 4096

/** At most two levels deep. */
const toldBy = (error: unknown): Told => {
  const outer = Option.getOrUndefined(decode(error))
  const inner = Option.getOrUndefined(decode(outer?.error))
  const names = [outer?.type, outer?.code, inner?.type, inner?.code]
    .filter((name) => typeof name === "string" || typeof name === "number")
    .map((name) => String(name).slice(0, longestName))
  const message = [inner?.message, outer?.message, error].find((text) => typeof text === "string")
  return { names, message: message?.slice(0, longestMessage) ?? "" }
}

const description = "an error within the stream"

const reasonFor = ({ message, names }: Told): AiError.AiErrorReason => {
  const is = (...known: ReadonlyArray<string>) => names.some((name) => known.includes(name))
  const said = [...names, message].join("\n")
  if (Words.isQuota(said) || is("billing_hard_limit_reached")) return new AiError.QuotaExhaustedError({})
  if (is("rate_limit_error", "rate_limit_exceeded", "429")) {
    return new AiError.RateLimitError({ retryAfter: RetryAfter.fromText(message) })
  }
  if (is("authentication_error", "invalid_api_key", "401")) {
    return new AiError.AuthenticationError({ kind: "InvalidKey", description })
  }
  if (is("permission_error", "403")) {
    return new AiError.AuthenticationError({ kind: "InsufficientPermissions", description })
  }
  if (is("content_filter") || Words.isContentPolicy(said)) return new AiError.ContentPolicyError({ description })
  // In words that `AiOutcome` knows.
  if (is("not_found_error", "model_not_found", "404")) {
    return new AiError.InvalidRequestError({ description: "model_not_found" })
  }
  if (is("invalid_request_error", "context_length_exceeded", "request_too_large", "400", "413")) {
    return new AiError.InvalidRequestError({
      description: Words.isContext(said) ? "context_length_exceeded" : description
    })
  }
  return new AiError.InternalProviderError({ description: [description, ...names].join(": ") })
}
