import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Result from "effect/Result"
import { Following, PartialAnswer } from "../resilient/continuation.ts"
import { type AnyPart, isOutput } from "../resilient/parts.ts"
import { Frames } from "../wire/frames.ts"
import * as Json from "../wire/json.ts"
import { append } from "./body.ts"
import { hasValue } from "./rules.ts"

/** The APIs whose requests can end with the beginning of an answer. */
export type ContinuedWire = "chat" | "messages"

/** What a client has of a stream. */
export interface Partial {
  readonly answer: PartialAnswer
  /** The fields that each event of chat completions repeats. */
  readonly head: Json.JsonObject
  /** How many blocks of a message have begun. */
  readonly blocks: number
}

/** A part of an answer, and the event that it comes from. */
interface Part extends AnyPart {
  readonly id?: string | undefined
  readonly delta?: string | undefined
  readonly event?: Json.JsonObject | undefined
}

const maxJsonDepth = 128

const parse = (text: string): Json.JsonObject | undefined => {
  const json = BoundedJson.parse(text, maxJsonDepth)
  return Result.isSuccess(json) && Json.isObject(json.success) ? json.success : undefined
}

/**
 * The request with the beginning of its answer as its last message. `undefined`: it has one already, or no list of messages.
 */
export const withPrefill = (body: Uint8Array, prefill: string): Uint8Array | undefined => {
  const messages = parse(new TextDecoder().decode(body))?.["messages"]
  if (!Array.isArray(messages) || Json.object(messages.at(-1))?.["role"] === "assistant") return undefined
  return prefill === "" ? body : append(body, "messages", JSON.stringify({ role: "assistant", content: prefill }))
}

/** Keeps what a client has of a stream, to read it if the stream breaks. */
export class Sent {
  private readonly maxBytes: number
  private pieces: Array<Uint8Array> = []
  private size = 0

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes
  }

  add(bytes: Uint8Array): void {
    this.size += bytes.length
    if (this.size <= this.maxBytes) this.pieces.push(bytes)
    else this.pieces = []
  }

  /** What the client has. `undefined`: it is too large, or anything else than a text without an end. */
  partial(wire: ContinuedWire): Partial | undefined {
    if (this.size > this.maxBytes) return undefined
    const answer = new PartialAnswer()
    const blocks = new Set<string>()
    let head: Json.JsonObject | undefined
    const reader = new PartReader(wire, "")
    const frames = new Frames()
    frames.push(Buffer.concat(this.pieces))
    while (frames.next()) {
      const event = parse(frames.fields.data ?? "")
      if (event === undefined) continue
      head ??= event
      for (const part of reader.read(event)) {
        if (part.type === "finish") return undefined
        if (part.id !== undefined) blocks.add(part.id)
        answer.add(part)
      }
    }
    return answer.isText ? { answer, head: head ?? {}, blocks: blocks.size } : undefined
  }
}

/** Reads the events of a stream as parts. Events without a part of the answer have none. */
class PartReader {
  private readonly wire: ContinuedWire
  /** Before the number of a block. */
  private readonly prefix: string
  /** The blocks that are no text. */
  private readonly others = new Map<string, "left-out" | "passed">()

  constructor(wire: ContinuedWire, prefix: string) {
    this.wire = wire
    this.prefix = prefix
  }

  read(event: Json.JsonObject): ReadonlyArray<Part> {
    return this.wire === "chat" ? this.chat(event) : this.messages(event)
  }

  private chat(event: Json.JsonObject): ReadonlyArray<Part> {
    const { choices } = event
    const choice = Array.isArray(choices) ? Json.object(choices[0]) : undefined
    if (choice === undefined) return []
    const { content, ...others } = Json.object(choice["delta"]) ?? {}
    const parts: Array<Part> = []
    if (typeof content === "string" && content !== "") {
      parts.push({ type: "text-delta", id: `${this.prefix}0`, delta: content, event })
    }
    if (hasValue(others, "role")) parts.push({ type: "tool-params-delta", event })
    if (Json.text(choice["finish_reason"]) !== undefined) parts.push({ type: "finish", event })
    return parts
  }

  private messages(event: Json.JsonObject): ReadonlyArray<Part> {
    const id = `${this.prefix}${Json.index(event["index"]) ?? 0}`
    switch (event["type"]) {
      case "content_block_start": {
        const { text, type } = Json.object(event["content_block"]) ?? {}
        if (type === "text") {
          const start: Part = { type: "text-start", id, event }
          return typeof text === "string" && text !== ""
            ? [start, { type: "text-delta", id, delta: text, event }]
            : [start]
        }
        // A continuation has none that the client can show in its place.
        const isThinking = type === "thinking" || type === "redacted_thinking"
        this.others.set(id, isThinking && this.prefix !== "" ? "left-out" : "passed")
        return this.other({ type: "tool-params-start", id, event })
      }
      case "content_block_delta": {
        const { text, type } = Json.object(event["delta"]) ?? {}
        return !this.others.has(id) && type === "text_delta" && typeof text === "string"
          ? [{ type: "text-delta", id, delta: text, event }]
          : this.other({ type: "tool-params-delta", id, event })
      }
      case "content_block_stop":
        return this.others.has(id)
          ? this.other({ type: "tool-params-end", id, event })
          : [{ type: "text-end", id, event }]
      case "message_delta":
        return [{ type: "finish", event }]
      default:
        return []
    }
  }

  private other(part: Part & { readonly id: string }): ReadonlyArray<Part> {
    return this.others.get(part.id) === "left-out" ? [] : [part]
  }
}

const ours = "next:"

/**
 * Turns the events of a new attempt into those that continue what the client has: without a second beginning, and without the text that
 * the target repeats. Returns nothing until a repetition is confirmed or ruled out.
 */
export class Splicer {
  /** Whether the client would get a part of the answer. */
  hasOutput = false
  private readonly wire: ContinuedWire
  private readonly partial: Partial
  private readonly reader: PartReader
  private readonly following: Following<Part>
  private readonly frames = new Frames()
  /** The numbers that the client knows blocks by. */
  private readonly indexes = new Map<string, number>()
  /** The block of the client that has not ended. */
  private open: number | undefined

  constructor(wire: ContinuedWire, partial: Partial) {
    this.wire = wire
    this.partial = partial
    this.reader = new PartReader(wire, ours)
    this.following = new Following<Part>(partial.answer, (id) => ({ type: "text-end", id }))
    const { openBlock } = partial.answer
    this.open = openBlock === undefined ? undefined : Number(openBlock)
  }

  /** Takes whole events. */
  feed(events: Uint8Array): Uint8Array | undefined {
    const { frames } = this
    const written: Array<string> = []
    frames.push(events)
    while (frames.next()) {
      const { data = "" } = frames.fields
      const event = parse(data)
      if (event === undefined) written.push(`data: ${data}\n\n`)
      else written.push(...this.continued(event))
    }
    const text = written.join("")
    return text === "" ? undefined : Buffer.from(text)
  }

  private continued(event: Json.JsonObject): ReadonlyArray<string> {
    const parts = this.reader.read(event)
    if (parts.length === 0) return this.isOther(event) ? [this.write(event)] : []
    return parts.flatMap((part) => this.following.next(part)).flatMap((part) => {
      if (part.type === "finish" || isOutput(part)) this.hasOutput = true
      return this.wire === "chat" ? this.chat(part) : this.messages(part)
    })
  }

  /** Whether an event without a part is none of the beginning: token counts, a ping, or the end. */
  private isOther({ choices, type }: Json.JsonObject): boolean {
    return this.wire === "chat"
      ? Array.isArray(choices) && choices.length === 0
      : type === "ping" || type === "message_stop"
  }

  private write(event: Json.JsonObject): string {
    if (this.wire === "messages") return `event: ${String(event["type"])}\ndata: ${JSON.stringify(event)}\n\n`
    const { created, id, model } = this.partial.head
    return `data: ${JSON.stringify({ ...event, id, created, model })}\n\n`
  }

  private chat({ delta, event, type }: Part): ReadonlyArray<string> {
    const choices = event?.["choices"]
    const choice = Array.isArray(choices) ? Json.object(choices[0]) : undefined
    if (event === undefined || choice === undefined) return []
    const { usage, ...others } = event
    const { content: _content, role: _role, ...fields } = Json.object(choice["delta"]) ?? {}
    const own = type === "finish" ? {} : { finish_reason: null }
    const sent = type === "text-delta" ? { content: delta } : type === "finish" ? {} : fields
    const last = type === "finish" && usage !== undefined ? { usage } : {}
    return [this.write({ ...others, ...last, choices: [{ ...choice, ...own, delta: sent }] })]
  }

  private messages({ delta, event, id, type }: Part): ReadonlyArray<string> {
    if (id === undefined) return event === undefined ? [] : [this.write(event)]
    const index = this.indexOf(id)
    switch (type) {
      case "text-start":
      case "tool-params-start": {
        const ended = this.open === undefined ? [] : [this.stop(this.open)]
        this.open = index
        const block = Json.object(event?.["content_block"]) ?? {}
        const content_block = type === "text-start" ? { ...block, text: "" } : block
        return [...ended, this.write({ type: "content_block_start", index, content_block })]
      }
      case "text-delta":
        return [this.write({ type: "content_block_delta", index, delta: { type: "text_delta", text: delta } })]
      case "text-end":
      case "tool-params-end":
        if (this.open !== index) return []
        this.open = undefined
        return [this.stop(index)]
      default:
        return event === undefined ? [] : [this.write({ ...event, index })]
    }
  }

  private stop(index: number): string {
    return this.write({ type: "content_block_stop", index })
  }

  private indexOf(id: string): number {
    if (!id.startsWith(ours)) return Number(id)
    const index = this.indexes.get(id) ?? this.partial.blocks + this.indexes.size
    this.indexes.set(id, index)
    return index
  }
}
