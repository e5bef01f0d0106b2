import type * as AiError from "effect/ai/AiError"
import type * as Prompt from "effect/ai/Prompt"
import * as Tool from "effect/ai/Tool"
import type * as Schema from "effect/Schema"

/** How long a text is: in characters, or in bytes, which is more than it can have of tokens. */
export type Measure = (text: string) => number

/** The length of a call's prompt. `unusable`: of the prompt that asks again after this answer. */
export type PromptLength = (measure: Measure, unusable?: AiError.AiError) => number

export const characters: Measure = (text) => text.length
export const bytes: Measure = (text) => encoder.encode(text).byteLength

const encoder = new TextEncoder()

// An image of about a million pixels takes 800 to 1,600 tokens, and so does a page of a document.
const charactersOfFile = 1_500 * 4
/** A token of a document for this many of its bytes. Its pages are mostly images and fonts. */
const bytesOfToken = 30

/** The length of a prompt with its tool calls, tool results and files. A file counts as the text that takes as many tokens. */
export const ofPrompt = ({ content }: Prompt.Prompt, measure: Measure): number => {
  let length = 0
  for (const message of content) {
    if (typeof message.content === "string") length += measure(message.content)
    else for (const part of message.content) length += ofPart(part, measure)
  }
  return length
}

const ofPart = (part: Prompt.Part, measure: Measure): number => {
  switch (part.type) {
    case "text":
    case "reasoning":
      return measure(part.text)
    case "tool-call":
      return measure(part.name) + ofJson(part.params, measure)
    case "tool-result":
      return measure(part.name) + ofJson(part.result, measure)
    case "file":
      return ofFile(part)
    default:
      return 0
  }
}

const ofFile = ({ data, mediaType }: Prompt.FilePart): number => {
  const size = typeof data === "string" ? data.length : data instanceof Uint8Array ? data.byteLength : 0
  if (mediaType.startsWith("text/")) return size
  return mediaType.startsWith("image/") ? charactersOfFile : Math.max(charactersOfFile, size / bytesOfToken * 4)
}

// The size of a value that is no JSON is unknown. Sending it fails.
const ofJson = (value: unknown, measure: Measure): number => {
  try {
    return measure(JSON.stringify(value) ?? "")
  } catch {
    return 0
  }
}

const schemas = new WeakMap<object, string>()

/** The length of the tools' JSON schemas, which are a part of the request. */
export const ofTools = (tools: ReadonlyArray<Tool.Any>, measure: Measure): number => {
  let length = 0
  for (const tool of tools) {
    length += measure(written(tool, () => [tool.name, tool.description, Tool.getJsonSchema(tool)]))
  }
  return length
}

/** The length of the JSON schema of an answer. */
export const ofSchema = (schema: Schema.Top, measure: Measure): number =>
  measure(written(schema, () => Tool.getJsonSchemaFromSchema(schema)))

/** The JSON of a tool or a schema, which is made once. Empty if it has none: then the call fails anyway. */
const written = (key: object, make: () => unknown): string => {
  const known = schemas.get(key)
  if (known !== undefined) return known
  let text = ""
  try {
    text = JSON.stringify(make())
  } catch {
    // The call fails with a better error.
  }
  schemas.set(key, text)
  return text
}
