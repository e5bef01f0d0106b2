import type * as Response from "effect/ai/Response"
import type * as Schema from "effect/Schema"
import * as Json from "../json.ts"
import type { ToolCallFragment } from "../toolCalls.ts"

// The responses of chat completions, and the events of their streams. The many servers with this API leave fields out, set
// them to null or send them in another type. So each field is read on its own, and one of an unknown form fails nothing.

/** The choices of a response. `undefined`: it is in another format. */
export const choicesOf = (json: Json.JsonObject): ReadonlyArray<Json.JsonObject> | undefined => {
  const { choices } = json
  if (choices === undefined || choices === null) return []
  if (!Array.isArray(choices)) return undefined
  const read: ReadonlyArray<Json.JsonObject> = choices.filter(Json.isObject)
  return read.length === choices.length ? read.filter(isFirst) : undefined
}

// This module requests one choice. More arrive only if `config.body` requests them. They would be mixed up here. A server
// that puts the text and the tool calls of one answer into two choices gives them the same index.
const isFirst = (choice: Json.JsonObject): boolean => (Json.index(choice["index"]) ?? 0) === 0

/** The message of a choice. Some servers send a piece in place of it. */
export const messageOf = (choice: Json.JsonObject): Json.JsonObject | undefined =>
  Json.object(choice["message"]) ?? deltaOf(choice)

/** The next piece of the message of a choice. */
export const deltaOf = (choice: Json.JsonObject): Json.JsonObject | undefined =>
  Json.object(choice["delta"]) ?? (typeof choice["text"] === "string" ? { content: choice["text"] } : undefined)

const plainFields = new Set(["id", "object", "created", "model", "system_fingerprint", "service_tier", "obfuscation"])

/**
 * The text of an event that has a piece of text and nothing else, as most events of a stream. `undefined` for every other event,
 * also for one that might be such an event: the other readers judge it.
 */
export const plainText = (json: Json.JsonObject): string | undefined => {
  for (const name in json) if (!plainFields.has(name) && name !== "choices" && json[name] !== null) return undefined
  const { choices } = json
  if (!Array.isArray(choices) || choices.length !== 1) return undefined
  const choice: unknown = choices[0]
  if (!Json.isObject(choice) || choice["index"] !== 0) return undefined
  const { delta } = choice
  for (const name in choice) if (name !== "index" && name !== "delta" && choice[name] !== null) return undefined
  if (!Json.isObject(delta)) return undefined
  for (const name in delta) if (name !== "content" && name !== "role" && delta[name] !== null) return undefined
  return typeof delta["content"] === "string" ? delta["content"] : undefined
}

/** The id, model and time of a response: the first of each that is not empty. */
export class Head {
  private id: string | undefined
  private model: string | undefined
  private created: number | undefined

  get isWhole(): boolean {
    return this.id !== undefined && this.model !== undefined
  }

  add({ created, id, model }: Json.JsonObject): this {
    if (typeof id === "string" && id !== "") this.id ??= id
    if (typeof model === "string" && model !== "") this.model ??= model
    if (typeof created === "number" && created > 0) this.created ??= created
    return this
  }

  metadata(): Response.ResponseMetadataPartEncoded {
    return {
      type: "response-metadata",
      id: this.id,
      modelId: this.model,
      timestamp: this.created === undefined ? undefined : timestamp(this.created)
    }
  }
}

// The last second that a date can have.
const lastSecond = 8_640_000_000_000

const timestamp = (epochSeconds: number): string | undefined =>
  epochSeconds <= lastSecond ? new Date(epochSeconds * 1000).toISOString() : undefined

/** The tool calls of a message, or their next pieces. */
export const toolCallsOf = (message: Json.JsonObject): ReadonlyArray<ToolCallFragment> => {
  const calls = Json.elements(message["tool_calls"])
  if (calls.length > 0) return calls.flatMap(toolCall)
  // The old field for a single call.
  const legacy = Json.object(message["function_call"])
  return legacy === undefined ? [] : toolCall({ function: legacy })
}

const functionTypes = new Set<unknown>(["function", "builtin_function", "", null, undefined])

const toolCall = (sent: unknown): ReadonlyArray<ToolCallFragment> => {
  const call = Json.object(sent)
  if (call === undefined) return []
  const own = Json.object(call["function"])
  // A call of a kind that was not requested is skipped.
  if (own === undefined && (!functionTypes.has(call["type"]) || Json.isObject(call["custom"]))) return []
  const { arguments: input, name } = own ?? call
  return [{
    index: Json.index(call["index"]),
    id: Json.text(call["id"]),
    name: Json.text(name),
    arguments: argumentsText(input),
    extra: extraOf(call)
  }]
}

/** Arguments as text. Some servers send the object. */
const argumentsText = (input: unknown): string | undefined => {
  if (typeof input === "string") return input === "" ? undefined : input
  return typeof input === "object" && input !== null ? JSON.stringify(input) : undefined
}

const standard = new Set(["index", "id", "type", "function", "custom", "name", "arguments"])

/** Provider-specific fields, such as Gemini's `extra_content` with the signature of its thoughts. */
const extraOf = (call: Json.JsonObject): { readonly [name: string]: Schema.Json } | undefined => {
  let extra: { [name: string]: Schema.Json } | undefined
  for (const name in call) {
    const value = call[name]
    if (standard.has(name) || value === null || value === undefined || value === "") continue
    extra ??= {}
    // It comes out of parsed JSON.
    extra[name] = value as Schema.Json
  }
  return extra
}
