import type * as AiError from "effect/ai/AiError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Bounds } from "../wire/bounds.ts"
import { EventReader, isIncomplete, type Part } from "../wire/eventReader.ts"
import * as Failure from "../wire/failure.ts"
import { ToolCalls } from "../wire/toolCalls.ts"
import * as Event from "./event.ts"

const decodeEvent = Schema.decodeUnknownResult(Event.Event)

/** Reads a streamed message. */
export class StreamedAnswer extends EventReader {
  protected readonly toolCalls: ToolCalls
  private readonly usage = new Event.Usage()
  private hasHead = false
  private signature = ""
  /** The input of tool calls that came with their beginning, as JSON, for as long as no piece of it has come. */
  private readonly inputs = new Map<number, string>()

  constructor(origin: Failure.Origin, answer: Failure.Answer, bounds: Bounds, newId: string) {
    super(origin, answer, bounds)
    let calls = 0
    this.toolCalls = new ToolCalls(() => `${newId}_${calls++}`)
  }

  protected onEvent(json: unknown, data: string): void {
    const read = decodeEvent(json)
    if (Result.isFailure(read)) return this.failForeign(data)
    const event = read.success
    if (event.error !== undefined && event.error !== null) {
      return this.lose(Failure.fromStream(this.origin, this.answer, event.error, data))
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
        return this.lose(Failure.fromStream(this.origin, this.answer, undefined, data))
      case undefined:
      case null:
        return this.failForeign(data)
      default: // A ping, or an event that is newer than this module, which we are asked to pass over.
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
    // Some servers send the whole input with the beginning of the call.
    const input = this.inputs.get(index)
    this.inputs.delete(index)
    if (input !== undefined) this.toolCalls.add({ index, function: { arguments: input } }, this.parts)
    this.endThought()
    this.close()
  }

  /** The signature goes with the end, which is where all of it is there. */
  private endThought(): void {
    if (this.signature !== "") this.close(Event.thought(this.signature))
    this.signature = ""
  }
}

const hasFields = (input: unknown): boolean =>
  typeof input === "object" && input !== null && Object.keys(input).length > 0
