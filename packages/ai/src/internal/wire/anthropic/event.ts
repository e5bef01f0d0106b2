import type * as Response from "effect/ai/Response"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

// The responses of Anthropic's messages API. Other servers with this API leave out different fields, so only those that
// a response cannot do without are required.

const nullish = <S extends Schema.Top>(schema: S) => Schema.optional(Schema.NullOr(schema))

/** A block of content: text, thinking, a tool call, or a kind that this module does not request. */
const Block = Schema.Struct({
  type: Schema.String,
  text: nullish(Schema.String),
  thinking: nullish(Schema.String),
  signature: nullish(Schema.String),
  data: nullish(Schema.String),
  id: nullish(Schema.String),
  name: nullish(Schema.String),
  input: Schema.optional(Schema.Unknown)
})

export type Block = typeof Block.Type

export const Message = Schema.Struct({
  type: Schema.optional(Schema.Unknown),
  id: Schema.optional(Schema.Unknown),
  model: Schema.optional(Schema.Unknown),
  content: nullish(Schema.Array(Block)),
  stop_reason: nullish(Schema.String),
  usage: Schema.optional(Schema.Unknown),
  /** Instead of content. */
  error: Schema.optional(Schema.Unknown)
})

export type Message = typeof Message.Type

const Delta = Schema.Struct({
  type: nullish(Schema.String),
  text: nullish(Schema.String),
  thinking: nullish(Schema.String),
  signature: nullish(Schema.String),
  partial_json: nullish(Schema.String),
  stop_reason: nullish(Schema.String)
})

export type Delta = typeof Delta.Type

/** One event of a streamed response, of any type. */
export const Event = Schema.Struct({
  type: nullish(Schema.String),
  index: nullish(Schema.Int),
  message: Schema.optional(Schema.Unknown),
  content_block: nullish(Block),
  delta: nullish(Delta),
  usage: Schema.optional(Schema.Unknown),
  error: Schema.optional(Schema.Unknown)
})

export type Event = typeof Event.Type

/** The message of a `message_start` event. */
const Head = Schema.Struct({
  id: Schema.optional(Schema.Unknown),
  model: Schema.optional(Schema.Unknown),
  usage: Schema.optional(Schema.Unknown)
})

export const head: (sent: unknown) => typeof Head.Type = (sent) =>
  Option.getOrElse(Schema.decodeUnknownOption(Head)(sent), () => ({}))

/** The id and the model of a response. The API sends no time. */
export const metadata = (head: {
  readonly id?: unknown
  readonly model?: unknown
}): Response.ResponseMetadataPartEncoded => ({
  type: "response-metadata",
  id: typeof head.id === "string" ? head.id : undefined,
  modelId: typeof head.model === "string" ? head.model : undefined,
  timestamp: undefined
})

const names = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"] as const

/** Collects token counts. They are cumulative, so a later count replaces an earlier one. */
export class Usage {
  private readonly counts = new Map<(typeof names)[number], number>()

  add(sent: unknown): this {
    if (typeof sent !== "object" || sent === null) return this
    const counts = new Map(Object.entries(sent))
    for (const name of names) {
      const count: unknown = counts.get(name)
      if (typeof count === "number" && Number.isSafeInteger(count) && count >= 0) this.counts.set(name, count)
    }
    return this
  }

  /** `input_tokens` does not include cached input. The total does. */
  encoded(): Response.FinishPartEncoded["usage"] {
    const uncached = this.counts.get("input_tokens")
    const cacheRead = this.counts.get("cache_read_input_tokens")
    const cacheWrite = this.counts.get("cache_creation_input_tokens")
    const total = uncached === undefined ? undefined : uncached + (cacheRead ?? 0) + (cacheWrite ?? 0)
    const output = this.counts.get("output_tokens")
    return {
      inputTokens: { total, uncached, cacheRead, cacheWrite },
      // The output tokens include thinking. The API does not say how many are thinking.
      outputTokens: { total: output, text: undefined, reasoning: undefined }
    }
  }
}

export const finishReason = (sent: string): Response.FinishReason => {
  switch (sent) {
    case "end_turn":
    case "stop_sequence":
      return "stop"
    case "max_tokens":
    case "model_context_window_exceeded":
      return "length"
    case "tool_use":
      return "tool-calls"
    case "refusal":
      return "content-filter"
    case "pause_turn":
      return "pause"
    default:
      return "other"
  }
}

/**
 * The metadata of a thought. Without its signature, Anthropic refuses the thought and the tool call after it. The shape
 * is that of Effect's own adapter, so that a conversation can continue with either.
 */
export const thought = (signature: string) => ({ anthropic: { info: { type: "thinking", signature } } })

/** The metadata of a thought that only Anthropic can read. */
export const hiddenThought = (redactedData: string) => ({
  anthropic: { info: { type: "redacted_thinking", redactedData } }
})
