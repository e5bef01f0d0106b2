import * as Event from "../wire/anthropic/event.ts"
import * as ErrorIn from "../wire/errorIn.ts"
import { sentReason } from "../wire/finishReason.ts"
import * as Json from "../wire/json.ts"
import { errorEnd, hasValue, Rules, type Usage } from "./rules.ts"

/** The events that are read also after the first output. */
const watched = new Set(["message_start", "message_delta", "message_stop", "error", ""])

/** The rules of streamed messages of Anthropic. The answer is complete when it has a stop reason. */
export class MessagesRules extends Rules {
  private readonly counts = new Event.Usage()
  private hasStopReason = false
  private wasReopened = false
  private isOpen = false

  get usage(): Usage {
    return this.counts.encoded()
  }

  get ending(): string {
    return this.hasEnd ? "" : "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
  }

  isPlain(name: string, data: string): boolean {
    return !this.hasStopReason && !watched.has(name) && !data.includes(errorEnd)
  }

  read(json: Json.JsonObject, name: string): boolean {
    const message = Json.object(json["message"])
    const type = Json.text(json["type"]) ?? name
    const error = ErrorIn.inField(json) ?? (message === undefined ? undefined : ErrorIn.inField(message))
    if (error !== undefined) {
      return this.fail(error, name === "error" && type === "error" && Json.isObject(json["error"]))
    }
    switch (type) {
      case "message_start":
        if (message !== undefined) this.counts.addFrom(message)
        if (Array.isArray(message?.["content"]) && message["content"].length > 0) this.onOutput()
        return true
      case "message_delta":
        return this.readDelta(json)
      case "message_stop":
        this.counts.addFrom(json)
        this.closed()
        return this.hasEnd = this.isOver = this.done()
      case "error":
        return this.fail(ErrorIn.asWhole(json) ?? json)
      case "content_block_start": {
        const block = Json.object(json["content_block"]) ?? {}
        if (!(block["type"] === "text" || block["type"] === "thinking") || hasValue(block, "type")) this.onOutput()
        return true
      }
      case "content_block_delta":
        if (hasValue(Json.object(json["delta"]) ?? {}, "type")) this.onOutput()
        return true
      case "content_block_stop":
      case "ping":
        return true
      case "":
        return this.foreign(json, JSON.stringify(json))
      default:
        this.hasOutput = true
        return true
    }
  }

  readWhole(answer: Json.JsonObject): boolean {
    const { content, stop_reason } = answer
    this.counts.addFrom(answer)
    if (!Array.isArray(content) && typeof content !== "string") return this.foreign(answer, JSON.stringify(answer))
    const sent = sentReason(stop_reason)
    return sent === undefined || this.finishes(sent)
  }

  hasContent(beginning: string): boolean {
    return beginning.includes("content_block_")
  }

  override closed(): void {
    if (this.hasStopReason && !this.isOpen) this.isComplete = this.hasOutput = true
  }

  private readDelta(json: Json.JsonObject): boolean {
    this.counts.addFrom(json)
    const delta = Json.object(json["delta"]) ?? {}
    const error = ErrorIn.inField(delta)
    if (error !== undefined) return this.fail(error)
    const sent = sentReason(delta["stop_reason"] ?? json["stop_reason"])
    if (sent === undefined) return true
    if (!this.finishes(sent)) return false
    this.hasStopReason = this.hasOutput = true
    this.isOpen = false
    this.isComplete = !this.wasReopened
    return true
  }

  private onOutput(): void {
    this.hasOutput = true
    if (!this.hasStopReason) return
    this.wasReopened = this.isOpen = true
    this.isComplete = false
  }
}
