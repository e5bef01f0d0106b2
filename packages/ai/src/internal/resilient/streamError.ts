import * as AiError from "effect/ai/AiError"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as RetryAfter from "../../RetryAfter.ts"
import { read } from "../kit/errorBody.ts"
import { kindOf } from "../wire/errorKind.ts"
import * as Words from "../wire/errorWords.ts"

/** The error for an error part: some adapters pass on as a part what a provider reports within a stream, after status 200. */
export const fromPart = (error: unknown): AiError.AiError =>
  AiError.isAiError(error)
    ? error
    : AiError.make({ module: "ResilientModel", method: "streamText", reason: reasonFor(error) })

/** An error object. It is never shown, because its message can quote the prompt. */
interface ErrorDetails {
  /** The types and codes by which providers name an error. */
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

/** Reads the error object, and the one inside it. */
const detailsOf = (error: unknown): ErrorDetails => {
  const outer = Option.getOrUndefined(decode(error))
  const inner = Option.getOrUndefined(decode(outer?.error))
  const names = [outer?.type, outer?.code, inner?.type, inner?.code]
    .filter((name) => typeof name === "string" || typeof name === "number")
    .map((name) => String(name).slice(0, longestName))
  const message = [inner?.message, outer?.message, error].find((text) => typeof text === "string")
  return { names, message: message?.slice(0, longestMessage) ?? "" }
}

const description = "an error within the stream"

const reasonFor = (error: unknown): AiError.AiErrorReason => {
  const { message, names } = detailsOf(error)
  const is = (...known: ReadonlyArray<string>) => names.some((name) => known.includes(name))
  const kind = kindOf(read(error))
  if (kind === "Quota") return new AiError.QuotaExhaustedError({})
  if (kind === "Content") return new AiError.ContentPolicyError({ description })
  if (kind === "Throttled" || is("429")) {
    return new AiError.RateLimitError({ retryAfter: RetryAfter.fromText(message) })
  }
  if (kind === "Credential" || is("401")) return new AiError.AuthenticationError({ kind: "InvalidKey", description })
  if (is("permission_error", "403")) {
    return new AiError.AuthenticationError({ kind: "InsufficientPermissions", description })
  }
  // `AiOutcome` recognises these descriptions.
  if (is("not_found_error", "model_not_found", "404")) {
    return new AiError.InvalidRequestError({ description: "model_not_found" })
  }
  if (is("invalid_request_error", "context_length_exceeded", "request_too_large", "400", "413")) {
    return new AiError.InvalidRequestError({
      description: Words.isContext({ codes: names, messages: [message] }) ? "context_length_exceeded" : description
    })
  }
  return new AiError.InternalProviderError({ description: [description, ...names].join(": ") })
}
