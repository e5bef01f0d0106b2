import type * as AiError from "effect/ai/AiError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { EventReader, isIncomplete, type Part } from "../eventReader.ts"
import * as Failure from "../failure.ts"
import * as Event from "./event.ts"

const decodeEvent = Schema.decodeUnknownResult(Event.Event)

/** Reads a streamed message. */
export class StreamedResponse extends EventReader {
  private readonly usage = new Event.Usage()
  private hasHead = false
  private signature = ""
  /** Input that came with the start of a tool call, as JSON. Dropped if pieces of it follow. */
  private readonly inputs = new Map<number, string>()

  protected onEvent(json: unknown, data: string): void {
    const read = decodeEvent(json)
    if (Result.isFailure(read)) return this.failForeign(data)
    const event = read.success
    if (event.error !== undefined && event.error !== null) {
      return this.lose(Failure.fromStream(this.origin, this.response, event.error, data))
    }
    const index = event.index ?? 0
    switch (event.type) {
      case "message_start":
        return this.onStart(event.message)
      case "content_block_start":
        return event.content_block ? this.onBlock(index, event.content_block) : this.failForeign(data)
      case "content_block_delta":
        return event.delta ? this.onDelta(index, event.delta) : this.failForeign(data)
      case "content_block_stop":
        return this.onBlockEnd(index)
      case "message_delta":
        this.usage.add(event.usage)
        if (event.delta?.stop_reason) this.reason = event.delta.stop_reason
        return
      case "message_stop":
        return this.end()
      case "error":
        return this.lose(Failure.fromStream(this.origin, this.response, undefined, data))
      case undefined:
      case null:
        return this.failForeign(data)
      default: // A ping, or an event type that is newer than this module. Anthropic asks clients to ignore those.
    }
  }

  protected finish(sent: string): Result.Result<ReadonlyArray<Part>, AiError.AiError> {
    for (const index of this.inputs.keys()) this.onBlockEnd(index)
    const reason = Event.finishReason(sent)
    return Result.map(
      this.toolCalls.finish(this.origin, isIncomplete(reason), this.bounds.jsonDepth),
      ({ parts }) => [...parts, { type: "finish", reason, usage: this.usage.encoded(), response: undefined }]
    )
  }

  private onStart(message: unknown): void {
    const head = Event.head(message)
    this.usage.add(head.usage)
    if (this.hasHead) return
    this.hasHead = true
    this.parts.push(Event.metadata(head))
  }

  private onBlock(index: number, block: Event.Block): void {
    this.endThought()
    switch (block.type) {
      case "text":
        this.onContent("text", block.text ?? "")
        break
      case "thinking":
        this.begin("reasoning")
        this.signature = block.signature ?? ""
        this.onContent("reasoning", block.thinking ?? "")
        break
      case "redacted_thinking":
        this.begin("reasoning")
        this.close(Event.hiddenThought(this.count(block.data ?? "")))
        break
      case "tool_use":
        this.onToolCall({ index, id: block.id, function: { name: block.name } })
        if (hasFields(block.input)) this.inputs.set(index, this.count(JSON.stringify(block.input)))
        break
    }
  }

  private onDelta(index: number, delta: Event.Delta): void {
    switch (delta.type) {
      case "text_delta":
        return this.onContent("text", delta.text ?? "")
      case "thinking_delta":
        return this.onContent("reasoning", delta.thinking ?? "")
      case "signature_delta":
        this.signature += this.count(delta.signature ?? "")
        return
      case "input_json_delta":
        if (!delta.partial_json) return
        this.inputs.delete(index)
        return this.onToolCall({ index, function: { arguments: delta.partial_json } })
    }
  }

  private onBlockEnd(index: number): void {
    // Some servers send the whole input with the start of the call.
    const input = this.inputs.get(index)
    this.inputs.delete(index)
    if (input !== undefined) this.toolCalls.add({ index, function: { arguments: input } }, this.parts)
    this.endThought()
    this.close()
  }

  /** Emits the signature with the end of the thought, when it is complete. */
  private endThought(): void {
    if (this.signature !== "") this.close(Event.thought(this.signature))
    this.signature = ""
  }
}

const hasFields = (input: unknown): boolean =>
  typeof input === "object" && input !== null && Object.keys(input).length > 0
