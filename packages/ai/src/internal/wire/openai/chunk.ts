import type * as Response from "effect/ai/Response"
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
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

const timestamp = (epochSeconds: number): string | undefined =>
  Option.getOrUndefined(Option.map(DateTime.make(epochSeconds * 1000), DateTime.formatIso))

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
