import type * as Response from "effect/ai/Response"
import * as Json from "../json.ts"

// The responses of Anthropic's messages API. Other servers with this API leave out different fields, or send them in another
// type. So each field is read on its own.

/** The blocks of a message: text, thinking, tool calls, and kinds that this module does not request. */
export const blocksOf = (content: unknown): ReadonlyArray<Json.JsonObject> | undefined => {
  if (typeof content === "string") return [{ type: "text", text: content }]
  return Array.isArray(content) && content.every(Json.isObject) ? content : undefined
}

/** A text, or the texts of a list of parts. */
export const textOf = (value: unknown): string => {
  if (typeof value === "string") return value
  if (Array.isArray(value)) return value.map(textOf).join("")
  return Json.isObject(value) ? textOf(value["text"] ?? value["thinking"]) : ""
}

/** The type of a delta. Some servers leave it out. Then the delta's field shows the type. */
export const deltaType = (delta: Json.JsonObject): unknown => {
  const type = Json.text(delta["type"])
  if (type !== undefined) return type
  if (delta["text"] !== undefined) return "text_delta"
  if (delta["thinking"] !== undefined) return "thinking_delta"
  if (delta["signature"] !== undefined) return "signature_delta"
  return delta["partial_json"] === undefined ? undefined : "input_json_delta"
}

/** The input of a tool call as JSON. Some servers send the text of the JSON. `undefined`: no fields. */
export const inputOf = (input: unknown): string | undefined => {
  if (typeof input === "string") return input.trim() === "" ? undefined : input
  return typeof input === "object" && input !== null && Object.keys(input).length > 0
    ? JSON.stringify(input)
    : undefined
}

/** The id and the model of a response: the first of each that is not empty. The API sends no time. */
export class Head {
  private id: string | undefined
  private model: string | undefined

  get isWhole(): boolean {
    return this.id !== undefined && this.model !== undefined
  }

  add({ id, model }: Json.JsonObject): this {
    if (typeof id === "string" && id !== "") this.id ??= id
    if (typeof model === "string" && model !== "") this.model ??= model
    return this
  }

  metadata(): Response.ResponseMetadataPartEncoded {
    return { type: "response-metadata", id: this.id, modelId: this.model, timestamp: undefined }
  }
}

const inputNames = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"] as const
const names = [...inputNames, "output_tokens"] as const

/** The names that gateways to other models use, and that Bedrock uses in its last event. */
const otherNames = new Map<string, (typeof names)[number]>([
  ["prompt_tokens", "input_tokens"],
  ["completion_tokens", "output_tokens"],
  ["inputTokenCount", "input_tokens"],
  ["outputTokenCount", "output_tokens"],
  ["cacheReadInputTokenCount", "cache_read_input_tokens"],
  ["cacheWriteInputTokenCount", "cache_creation_input_tokens"]
])

/** Collects token counts. They are cumulative, so a later count replaces an earlier one. */
export class Usage {
  private readonly counts = new Map<(typeof names)[number], number>()

  /** Reads the counts of a message or an event, wherever they are in it. */
  addFrom(json: Json.JsonObject): this {
    return this.add(json["usage"]).add(Json.object(json["delta"])?.["usage"]).add(
      json["amazon-bedrock-invocationMetrics"]
    )
  }

  add(sent: unknown): this {
    if (!Json.isObject(sent)) return this
    const read = new Map<(typeof names)[number], number>()
    for (const [other, name] of otherNames) {
      const count = Json.count(sent[other])
      if (count !== undefined) read.set(name, count)
    }
    for (const name of names) {
      const count = Json.count(sent[name])
      if (count !== undefined) read.set(name, count)
    }
    // Zeros are placeholders: no prompt has no tokens. Gateways send them before they have counted, or at the end.
    const isInputKnown = inputNames.some((name) => (this.counts.get(name) ?? 0) > 0)
    const isPlaceholder = isInputKnown && inputNames.every((name) => (read.get(name) ?? 0) === 0)
    for (const [name, count] of read) {
      const isLost = name === "output_tokens" ? count === 0 && this.counts.has(name) : isPlaceholder
      if (!isLost) this.counts.set(name, count)
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

/**
 * The metadata of a thought. Without its signature, Anthropic refuses the thought and the tool call after it. The shape
 * is that of Effect's own adapter, so that a conversation can continue with either.
 */
export const thought = (signature: string) => ({ anthropic: { info: { type: "thinking", signature } } })

/** The metadata of a thought that only Anthropic can read. */
export const hiddenThought = (redactedData: string) => ({
  anthropic: { info: { type: "redacted_thinking", redactedData } }
})
