import * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import * as Tool from "effect/ai/Tool"
import type { Span } from "effect/Tracer"
import type { RequestContent } from "./operation.ts"

// The content attributes of the conventions, as JSON within a bound. Long texts are cut, parts beyond the bound are
// left out, and then `sluice.content.truncated` is set.

type Json = { readonly [name: string]: unknown }

/** How many characters an attribute may still take. */
class Room {
  truncated = false
  private left: number

  constructor(characters: number) {
    this.left = characters
  }

  get isLeft(): boolean {
    return this.left > 0
  }

  /** The text, cut if it does not fit. */
  text(text: string): string {
    const length = Math.max(0, this.left)
    this.left -= text.length
    if (text.length <= length) return text
    this.truncated = true
    return text.slice(0, length)
  }

  /** The value if it fits, otherwise the beginning of its JSON. */
  json(value: unknown): unknown {
    const json = stringify(value)
    const shown = this.text(json)
    return shown.length < json.length ? shown : parse(json)
  }

  /** Takes room for the JSON around a text. */
  frame(): void {
    this.left -= 64
  }

  refuse(): void {
    this.truncated = true
  }
}

const stringify = (value: unknown): string => {
  try {
    return JSON.stringify(value) ?? "null"
  } catch {
    return "null"
  }
}

const parse = (json: string): unknown => JSON.parse(json)

/** Adds the prompt and the tools of a request. */
export const addRequest = (span: Span, request: RequestContent, maxLength: number): void => {
  const messages = Prompt.make(request.prompt).content
  const system = new Room(maxLength)
  const instructions: Array<Json> = []
  const room = new Room(maxLength)
  const input: Array<Json> = []
  for (const message of messages) {
    if (message.role !== "system") continue
    if (system.isLeft) instructions.push({ type: "text", content: system.text(message.content) })
    else system.refuse()
    system.frame()
  }
  // From the end: if not all messages fit, the last ones matter most.
  for (const message of messages.toReversed()) {
    if (message.role === "system") continue
    if (room.isLeft) input.push(messageOf(message, room))
    else room.refuse()
  }
  if (instructions.length > 0) span.attribute("gen_ai.system_instructions", JSON.stringify(instructions))
  span.attribute("gen_ai.input.messages", JSON.stringify(input.toReversed()))
  const definitions = new Room(maxLength)
  const tools = (request.tools ?? []).flatMap((tool) => {
    if (!definitions.isLeft) {
      definitions.refuse()
      return []
    }
    definitions.frame()
    const description = Tool.getDescription(tool)
    return [{
      type: "function",
      name: definitions.text(tool.name),
      ...(description === undefined ? {} : { description: definitions.text(description) }),
      parameters: definitions.json(schemaOf(tool))
    }]
  })
  if (tools.length > 0) span.attribute("gen_ai.tool.definitions", JSON.stringify(tools))
  if (system.truncated || room.truncated || definitions.truncated) span.attribute("sluice.content.truncated", true)
}

const schemaOf = (tool: Tool.Any): unknown => {
  try {
    return Tool.getJsonSchema(tool)
  } catch {
    return {}
  }
}

const messageOf = (message: Exclude<Prompt.Message, Prompt.SystemMessage>, room: Room): Json => {
  room.frame()
  const parts: Array<Json> = []
  for (const part of message.content) {
    if (room.isLeft) parts.push(partOf(part, room))
    else room.refuse()
    room.frame()
  }
  return { role: message.role, parts }
}

const partOf = (part: Prompt.Part, room: Room): Json => {
  switch (part.type) {
    case "text":
      return { type: "text", content: room.text(part.text) }
    case "reasoning":
      return { type: "reasoning", content: room.text(part.text) }
    case "file":
      return file(part.mediaType, room)
    case "tool-call":
      return {
        type: "tool_call",
        id: room.text(part.id),
        name: room.text(part.name),
        arguments: room.json(part.params)
      }
    case "tool-result":
      return { type: "tool_call_response", id: room.text(part.id), response: room.json(part.result) }
    case "tool-approval-request":
    case "tool-approval-response":
      return { type: part.type.replaceAll("-", "_"), id: room.text(part.approvalId) }
  }
}

// Shows the type of a file, not its bytes.
const file = (mediaType: string, room: Room): Json => {
  const shown = room.text(mediaType)
  return { type: "blob", modality: shown.split("/", 1)[0], mime_type: shown, content: "" }
}

/** Collects the content of an answer, from whole parts or from the pieces of a stream. */
export class AnswerContent {
  private readonly room: Room
  private readonly parts: Array<Json> = []
  private open: { readonly type: "text" | "reasoning"; readonly id: string; content: string } | undefined

  constructor(maxLength: number) {
    this.room = new Room(maxLength)
  }

  add(part: Response.AnyPart): void {
    switch (part.type) {
      case "text":
      case "reasoning":
        return this.piece(part.type, "", part.text)
      case "text-delta":
        return this.piece("text", part.id, part.delta)
      case "reasoning-delta":
        return this.piece("reasoning", part.id, part.delta)
      case "tool-call":
        return this.whole((room) => ({
          type: "tool_call",
          id: room.text(part.id),
          name: room.text(part.name),
          arguments: room.json(part.params)
        }))
      case "tool-result":
        return part.providerExecuted
          ? this.whole((room) => ({
            type: "tool_call_response",
            id: room.text(part.id),
            response: room.json(part.encodedResult)
          }))
          : undefined
      case "file":
        return this.whole((room) => file(part.mediaType, room))
    }
  }

  addTo(span: Span, finishReason: string | undefined): void {
    this.close()
    const message = { role: "assistant", parts: this.parts, finish_reason: finishReason ?? "error" }
    span.attribute("gen_ai.output.messages", JSON.stringify([message]))
    if (this.room.truncated) span.attribute("sluice.content.truncated", true)
  }

  private piece(type: "text" | "reasoning", id: string, text: string): void {
    if (!this.room.isLeft) return this.room.refuse()
    if (this.open?.type !== type || this.open.id !== id) {
      this.close()
      this.room.frame()
      this.open = { type, id, content: "" }
    }
    this.open.content += this.room.text(text)
  }

  private whole(part: (room: Room) => Json): void {
    if (!this.room.isLeft) return this.room.refuse()
    this.close()
    this.room.frame()
    this.parts.push(part(this.room))
  }

  private close(): void {
    if (this.open !== undefined) this.parts.push({ type: this.open.type, content: this.open.content })
    this.open = undefined
  }
}
