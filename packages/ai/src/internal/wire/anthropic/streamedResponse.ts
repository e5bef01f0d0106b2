import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import * as Echo from "../echo.ts"
import * as ErrorIn from "../errorIn.ts"
import { EventReader, type Part } from "../eventReader.ts"
import * as Failure from "../failure.ts"
import { sentReason } from "../finishReason.ts"
import * as Json from "../json.ts"
import * as Event from "./event.ts"
import { StartText } from "./startText.ts"

/** Reads a streamed message. */
export class StreamedResponse extends EventReader {
  private readonly head = new Event.Head()
  private readonly usage = new Event.Usage()
  private hasHead = false
  /** The metadata for the end of the open thought. */
  private thought: Response.ReasoningEndPartEncoded["metadata"]
  private isThinking = false
  private signature = ""
  private readonly startText = new StartText()
  /** Input that came with the start of a tool call, as JSON. Dropped if pieces of it follow. */
  private readonly inputs = new Map<number, string>()
  /** The open blocks that are skipped, because their kinds were not requested. */
  private readonly passedOver = new Set<number>()
  private index = 0

  protected onEvent(json: unknown, data: string, name: string): void {
    if (!Json.isObject(json)) return this.onOther(json, data)
    const message = Json.object(json["message"])
    const error = ErrorIn.inField(json) ?? (message === undefined ? undefined : ErrorIn.inField(message))
    if (error !== undefined) return this.onError(error, data)
    // A delta or an end without an index belongs to the last block.
    this.index = Json.index(json["index"]) ?? this.index
    switch (Json.text(json["type"]) ?? (name === "message" ? undefined : name)) {
      case "message_start":
        return this.onStart(message ?? {})
      case "content_block_start": {
        const block = Json.object(json["content_block"])
        return block === undefined ? this.failForeign(data) : this.onBlock(this.index, block)
      }
      case "content_block_delta": {
        const delta = Json.object(json["delta"])
        return delta === undefined ? this.failForeign(data) : this.onDelta(this.index, delta, data)
      }
      case "content_block_stop":
        return this.onBlockEnd(this.index)
      case "message_delta":
        return this.onMessageDelta(json, data)
      case "message_stop":
        this.usage.addFrom(json)
        return this.conclude()
      case "error":
        return this.onError(ErrorIn.asWhole(json) ?? json, data)
      case undefined:
        return this.onOther(json, data)
      default: // A ping, or an event type that is newer than this module. Anthropic asks clients to ignore those.
    }
  }

  protected finish(reason: Response.FinishReason): Result.Result<ReadonlyArray<Part>, AiError.AiError> {
    for (const index of this.inputs.keys()) this.onBlockEnd(index)
    return Result.map(this.finishToolCalls(reason), ({ parts }) => [
      ...parts,
      { type: "finish", reason, usage: this.usage.encoded(), response: undefined }
    ])
  }

  protected override endMetadata(): Response.ReasoningEndPartEncoded["metadata"] {
    const { thought } = this
    this.thought = undefined
    return thought
  }

  protected override close(): void {
    this.releaseHeld()
    if (this.isThinking && this.openKind === "reasoning") {
      this.thought = this.signature === ""
        ? Echo.metadata(this.origin.provider, {})
        : Event.thought(this.signature)
    }
    this.isThinking = false
    this.signature = ""
    super.close()
  }

  protected hasNoContent(beginning: string): boolean {
    const name = /^event: ?([a-z_]+)/.exec(beginning)?.[1] ??
      /^data: ?\{\s*"type"\s*:\s*"([a-z_]+)/.exec(beginning)?.[1]
    return name === undefined ? /^data: ?\[/.test(beginning) : !name.startsWith("c")
  }

  private onOther(json: unknown, data: string): void {
    const error = ErrorIn.asWhole(json)
    return error === undefined ? this.failForeign(data) : this.onError(error, data)
  }

  private onError(error: unknown, data: string): void {
    this.lose(Failure.fromStream(this.origin, this.response, error, data))
  }

  private onStart(message: Json.JsonObject): void {
    this.head.add(message)
    this.usage.addFrom(message)
    if (this.hasHead) return
    this.hasHead = true
    this.parts.push(this.head.metadata())
  }

  private onMessageDelta(json: Json.JsonObject, data: string): void {
    this.usage.addFrom(json)
    const delta = Json.object(json["delta"])
    const error = delta === undefined ? undefined : ErrorIn.inField(delta)
    if (error !== undefined) return this.onError(error, data)
    const sent = sentReason(delta?.["stop_reason"] ?? json["stop_reason"])
    if (sent !== undefined) this.onFinish(sent)
  }

  private onBlock(index: number, block: Json.JsonObject): void {
    this.endThought()
    this.passedOver.delete(index)
    switch (block["type"]) {
      case "text":
        // Also without a text: a block that begins after the stop reason continues the message.
        this.onMore()
        return this.onStartText("text", Event.textOf(block["text"]))
      case "thinking":
        this.begin("reasoning")
        this.isThinking = true
        this.signature = this.count(Event.textOf(block["signature"]))
        return this.onStartText("reasoning", Event.textOf(block["thinking"]))
      case "redacted_thinking":
        this.begin("reasoning")
        this.thought = Event.hiddenThought(this.count(Event.textOf(block["data"])))
        return this.close()
      case "tool_use": {
        this.onToolCall({ index, id: Json.text(block["id"]), name: Json.text(block["name"]), isStart: true })
        const input = Event.inputOf(block["input"])
        if (input !== undefined) this.inputs.set(index, this.count(input))
        return
      }
      default:
        // It counts towards the size limit, or a stream of such blocks alone would have no bound.
        this.count("block")
        this.passedOver.add(index)
    }
  }

  private onDelta(index: number, delta: Json.JsonObject, data: string): void {
    if (this.passedOver.has(index)) return
    const error = ErrorIn.inField(delta)
    if (error !== undefined) return this.onError(error, data)
    switch (Event.deltaType(delta)) {
      case "text_delta":
        return this.onPiece("text", Event.textOf(delta["text"]))
      case "thinking_delta":
        return this.onPiece("reasoning", Event.textOf(delta["thinking"]))
      case "signature_delta":
        this.signature += this.count(Event.textOf(delta["signature"]))
        return
      case "input_json_delta": {
        const json = Event.inputOf(delta["partial_json"])
        // White space is a part of the input too.
        const piece = typeof delta["partial_json"] === "string" ? Json.text(delta["partial_json"]) : json
        if (piece === undefined) return
        this.inputs.delete(index)
        return this.onToolCall({ index, arguments: piece })
      }
    }
  }

  private onStartText(kind: "text" | "reasoning", text: string): void {
    this.releaseHeld()
    this.onContent(kind, text)
    this.startText.begin(text)
  }

  private releaseHeld(): void {
    const held = this.startText.end()
    if (held !== "" && this.openKind !== undefined) this.onContent(this.openKind, held)
  }

  private onPiece(kind: "text" | "reasoning", text: string): void {
    if (text === "") return
    this.onMore()
    this.onContent(kind, kind === this.openKind ? this.startText.more(text) : text)
  }

  private onBlockEnd(index: number): void {
    if (this.passedOver.delete(index)) return
    // Some servers send the whole input with the start of the call.
    const input = this.inputs.get(index)
    this.inputs.delete(index)
    if (input !== undefined) this.toolCalls.add({ index, arguments: input }, this.parts)
    this.endThought()
    this.close()
  }

  /** Emits the end of a thought with its signature, when it is complete. */
  private endThought(): void {
    if (this.isThinking) this.close()
  }
}
