import type * as Response from "effect/ai/Response"
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

// The responses of chat completions. The many servers with this API leave out different fields or set them to null, so
// nearly every field is optional. A field that is not essential is decoded on its own, so that a malformed `usage`
// fails no response.

const nullish = <S extends Schema.Top>(schema: S) => Schema.optional(Schema.NullOr(schema))

const ToolCall = Schema.Struct({
  index: nullish(Schema.Int),
  id: nullish(Schema.String),
  function: nullish(Schema.Struct({ name: nullish(Schema.String), arguments: nullish(Schema.String) }))
})

export type ToolCall = typeof ToolCall.Type

const Message = Schema.Struct({
  content: nullish(Schema.String),
  refusal: nullish(Schema.String),
  /** The model's thoughts, as DeepSeek and others name them. */
  reasoning_content: Schema.optional(Schema.Unknown),
  /** The model's thoughts, as OpenRouter and vLLM name them. */
  reasoning: Schema.optional(Schema.Unknown),
  tool_calls: nullish(Schema.Array(ToolCall))
})

export type Message = typeof Message.Type

const head = {
  id: Schema.optional(Schema.Unknown),
  model: Schema.optional(Schema.Unknown),
  created: Schema.optional(Schema.Unknown),
  usage: Schema.optional(Schema.Unknown),
  /** Instead of choices, with status 200. */
  error: Schema.optional(Schema.Unknown)
}

/** The head of a response, and of each event. */
export interface Head {
  readonly id?: unknown
  readonly model?: unknown
  readonly created?: unknown
}

/** One event of a streamed response. */
export const Chunk = Schema.Struct({
  ...head,
  choices: nullish(Schema.Array(Schema.Struct({
    index: nullish(Schema.Int),
    delta: nullish(Message),
    finish_reason: nullish(Schema.String)
  })))
})

export type Chunk = typeof Chunk.Type

/** A whole response. */
export const Completion = Schema.Struct({
  ...head,
  choices: nullish(Schema.Array(Schema.Struct({
    index: nullish(Schema.Int),
    message: Message,
    finish_reason: nullish(Schema.String)
  })))
})

export type Completion = typeof Completion.Type

export type Choice = NonNullable<Completion["choices"]>[number]

const Usage = Schema.Struct({
  prompt_tokens: Schema.optional(Schema.Unknown),
  completion_tokens: Schema.optional(Schema.Unknown),
  prompt_tokens_details: nullish(Schema.Struct({ cached_tokens: Schema.optional(Schema.Unknown) })),
  completion_tokens_details: nullish(Schema.Struct({ reasoning_tokens: Schema.optional(Schema.Unknown) }))
})

const decodeUsage = Schema.decodeUnknownOption(Usage)

/** The token counts that were sent and are valid. */
export const usage = (sent: unknown): Response.FinishPartEncoded["usage"] => {
  const read = Option.getOrUndefined(decodeUsage(sent))
  const input = count(read?.prompt_tokens)
  const cached = count(read?.prompt_tokens_details?.cached_tokens)
  const output = count(read?.completion_tokens)
  const reasoning = count(read?.completion_tokens_details?.reasoning_tokens)
  return {
    inputTokens: { total: input, uncached: difference(input, cached), cacheRead: cached, cacheWrite: undefined },
    outputTokens: { total: output, text: difference(output, reasoning), reasoning }
  }
}

const count = (sent: unknown): number | undefined =>
  typeof sent === "number" && Number.isSafeInteger(sent) && sent >= 0 ? sent : undefined

const difference = (total: number | undefined, part: number | undefined): number | undefined =>
  total === undefined ? undefined : Math.max(0, total - (part ?? 0))

export const metadata = (head: Head): Response.ResponseMetadataPartEncoded => ({
  type: "response-metadata",
  id: typeof head.id === "string" ? head.id : undefined,
  modelId: typeof head.model === "string" ? head.model : undefined,
  timestamp: typeof head.created === "number" ? timestamp(head.created) : undefined
})

const timestamp = (epochSeconds: number): string | undefined =>
  Option.getOrUndefined(Option.map(DateTime.make(epochSeconds * 1000), DateTime.formatIso))

export const reasoning = (message: Message): string => {
  const sent = message.reasoning_content ?? message.reasoning
  return typeof sent === "string" ? sent : ""
}

export const finishReason = (sent: string): Response.FinishReason => {
  switch (sent) {
    case "stop":
    case "length":
    case "error":
      return sent
    case "content_filter":
      return "content-filter"
    case "tool_calls":
    case "function_call":
      return "tool-calls"
    default:
      return "other"
  }
}
