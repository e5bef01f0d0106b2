import * as Json from "../json.ts"

// The content of a message. The API sends a text. Other servers send a list of parts, a part, or a value.

export interface Piece {
  readonly kind: "text" | "reasoning" | "refusal"
  readonly text: string
}

const thoughts = new Set(["thinking", "reasoning", "reasoning_content", "thought"])
const texts = new Set(["text", "output_text", "input_text"])

/** The texts, thoughts and refusals in a content, in their order. Other parts, such as images and references, are left out. */
export const pieces = (content: unknown): ReadonlyArray<Piece> => {
  if (Array.isArray(content)) return content.flatMap(pieces)
  if (!Json.isObject(content)) {
    return content === null || content === undefined || content === "" ? [] : [{ kind: "text", text: String(content) }]
  }
  const { type } = content
  if (typeof type !== "string") {
    // A server has parsed the object that the model wrote.
    const text = textIn(content)
    return [{ kind: "text", text: text === "" ? JSON.stringify(content) : text }]
  }
  if (thoughts.has(type)) return [{ kind: "reasoning", text: textIn(content) }]
  if (type === "refusal") return [{ kind: "refusal", text: textIn(content["refusal"]) }]
  return texts.has(type) ? [{ kind: "text", text: textIn(content["text"]) }] : []
}

/** The pieces of a content, with the texts of each kind joined. */
export const joined = (content: unknown): ReadonlyArray<Piece> => {
  const texts = new Map<Piece["kind"], string>()
  for (const { kind, text } of pieces(content)) texts.set(kind, (texts.get(kind) ?? "") + text)
  return [...texts].map(([kind, text]) => ({ kind, text }))
}

/** All text in a value, such as the steps of a thought. */
export const textIn = (value: unknown): string => {
  if (typeof value === "string") return value
  if (Array.isArray(value)) return value.map(textIn).join("")
  if (!Json.isObject(value)) return ""
  return textIn(
    value["text"] ?? value["thinking"] ?? value["reasoning"] ?? value["content"] ?? value["summary"] ?? value["value"]
  )
}

/** The names that servers give to thoughts: DeepSeek, OpenRouter and vLLM, Copilot, and others. */
const fields = ["reasoning_content", "reasoning", "reasoning_text", "thinking", "thought"] as const

export interface Thought {
  readonly field: string
  readonly text: string
}

/** The thought beside the content, and the name of its field. Servers that use two names send the same text in both. */
export const thoughtIn = (message: Json.JsonObject): Thought | undefined => {
  for (const field of fields) {
    const value = message[field]
    if (value === undefined || value === null || value === "") continue
    const text = textIn(value)
    if (text !== "") return { field, text }
  }
  return undefined
}

/** Whether a field is one of those that thoughts are sent in. */
export const isThoughtField = (name: unknown): name is string => fields.some((field) => field === name)
