import type * as Response from "effect/ai/Response"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

// What a server that speaks Anthropic's messages sends. As with chat completions, others speak it too and differ in what they
// leave out, so that only what an answer cannot do without is required.

const nullish = <S extends Schema.Top>(schema: S) => Schema.optional(Schema.NullOr(schema))

/** A block of content: text, thoughts, a tool call, or of a kind that we do not ask for. */
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

/** A whole answer. */
export const Message = Schema.Struct({
  type: Schema.optional(Schema.Unknown),
  id: Schema.optional(Schema.Unknown),
  model: Schema.optional(Schema.Unknown),
  content: nullish(Schema.Array(Block)),
  stop_reason: nullish(Schema.String),
  usage: Schema.optional(Schema.Unknown),
  /** Instead of an answer. */
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

/** One event of a streamed answer, whatever its type. */
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

/** What an answer says of itself at its beginning. */
const Head = Schema.Struct({
  id: Schema.optional(Schema.Unknown),
  model: Schema.optional(Schema.Unknown),
  usage: Schema.optional(Schema.Unknown)
})

export const head: (sent: unknown) => typeof Head.Type = (sent) =>
  Option.getOrElse(Schema.decodeUnknownOption(Head)(sent), () => ({}))

/** Who answered, and under which id. When is not told. */
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

/** Token counts as they come in: each count replaces an earlier one of its name, for they are cumulative. */
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

  /** Anthropic counts cached input apart from `input_tokens`; the total is what all of the prompt is. */
  encoded(): Response.FinishPartEncoded["usage"] {
    const uncached = this.counts.get("input_tokens")
    const cacheRead = this.counts.get("cache_read_input_tokens")
    const cacheWrite = this.counts.get("cache_creation_input_tokens")
    const total = uncached === undefined ? undefined : uncached + (cacheRead ?? 0) + (cacheWrite ?? 0)
    const output = this.counts.get("output_tokens")
    return {
      inputTokens: { total, uncached, cacheRead, cacheWrite },
      // Thoughts are among the output tokens, and how many of them there are is not told.
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
 * What has to go back with a thought, or Anthropic takes neither it nor the tool call that follows it. The same shape as in
 * Effect's own adapter, so that a conversation can move between the two.
 */
export const thought = (signature: string) => ({ anthropic: { info: { type: "thinking", signature } } })

/** A thought that only Anthropic can read. */
export const hiddenThought = (redactedData: string) => ({
  anthropic: { info: { type: "redacted_thinking", redactedData } }
})
