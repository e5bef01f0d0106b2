import { type Ending, finishReason, sentReason, stronger } from "../../wire/finishReason.ts"
import * as Json from "../../wire/json.ts"
import * as Chunk from "../../wire/openai/chunk.ts"
import * as Content from "../../wire/openai/content.ts"
import type { Options } from "./answerToMessages.ts"
import * as Endings from "./endings.ts"
import * as Errors from "./errors.ts"
import * as Events from "./events.ts"
import { ToolBlocks } from "./toolBlocks.ts"
import { ChatUsage, toMessages } from "./usage.ts"

/**
 * Translates the events of chat completions into those of messages.
 *
 * Nothing here ends an answer: it needs a finish reason, and `[DONE]`, which `end` stands for where the guard found the answer complete
 * without it. The end of the events waits for that, since the token counts come after the finish reason.
 */
export class StreamToMessages {
  private readonly options: Options
  private readonly usage = new ChatUsage()
  private readonly tools = new ToolBlocks({
    begin: (id, name) => this.begin("tool", { type: "tool_use", id, name, input: {} }),
    input: (json) => this.delta(`{"type":"input_json_delta","partial_json":${JSON.stringify(json)}}`)
  })
  private id = ""
  private out = ""
  private open: "text" | "thinking" | "tool" | undefined
  private index = -1
  private hasBegun = false
  private ending: Ending | undefined
  /** Whether content came after the finish reason. */
  private isReopened = false
  private hasRefused = false
  private hasEnded = false
  private isUnreadable = false

  constructor(options: Options) {
    this.options = options
  }

  /** Whether an event could not be read. The stream must end in an error then. */
  get failed(): boolean {
    return this.isUnreadable
  }

  /** Translates whole events. */
  feed(bytes: Uint8Array): Uint8Array | undefined {
    for (const data of Events.dataOf(bytes)) this.onData(data)
    return this.take()
  }

  /** The rest of a complete answer, if `[DONE]` has not come. */
  end(): Uint8Array | undefined {
    this.onDone()
    return this.take()
  }

  private take(): Uint8Array | undefined {
    const { out } = this
    this.out = ""
    return Events.bytesOf(out)
  }

  private onData(data: string): void {
    if (this.hasEnded || this.isUnreadable) return
    if (data.trim() === "") return this.onComment()
    if (data.startsWith("[DONE]") || data === `"[DONE]"`) return this.onDone()
    const event = Events.parse(data)
    if (event === undefined) this.isUnreadable = true
    else this.onEvent(event)
  }

  /** Comments keep a connection open. Pings do so here. */
  private onComment(): void {
    if (this.hasBegun) this.event("ping", `"type":"ping"`)
  }

  private onEvent(event: Json.JsonObject): void {
    const plain = Chunk.plainText(event)
    if (plain !== undefined) {
      this.start(event)
      return this.text("text", plain)
    }
    const { error } = event
    if (Json.isObject(error) || (typeof error === "string" && error !== "")) {
      this.event("error", JSON.stringify(Errors.errorToMessages(event)).slice(1, -1))
      this.hasEnded = true
      return
    }
    const choices = Chunk.choicesOf(event)
    if (choices === undefined) {
      this.isUnreadable = true
      return
    }
    this.start(event)
    this.usage.add(event, choices[0])
    for (const choice of choices) this.onChoice(choice)
  }

  private onChoice(choice: Json.JsonObject): void {
    const delta = Chunk.deltaOf(choice)
    if (delta !== undefined) {
      this.text("thinking", Content.thoughtIn(delta)?.text ?? "")
      for (const { kind, text } of Content.pieces(delta["content"])) {
        this.text(kind === "reasoning" ? "thinking" : "text", text)
      }
      const refusal = Json.text(delta["refusal"])
      if (refusal !== undefined) {
        this.hasRefused = true
        this.text("text", refusal)
      }
      for (const piece of Chunk.toolCallsOf(delta)) this.tools.add(piece, this.id)
      if (this.tools.isTooLarge) this.isUnreadable = true
    }
    const sent = sentReason(choice["finish_reason"])
    if (sent !== undefined) this.onFinish(finishReason(sent))
  }

  // Some servers send a finish reason with every piece, and some a `stop` after another one.
  private onFinish(ending: Ending): void {
    this.ending = this.ending === undefined || this.isReopened ? ending : stronger(this.ending, ending)
    this.isReopened = false
  }

  private onDone(): void {
    if (this.ending === undefined || this.hasEnded || this.isUnreadable) return
    this.hasEnded = true
    this.tools.finish(this.id)
    this.close()
    const reason = this.hasRefused ? "refusal" : Endings.toMessages(this.ending, this.tools.hasCalls)
    const usage = JSON.stringify(toMessages(this.usage.counts))
    this.event(
      "message_delta",
      `"type":"message_delta","delta":{"stop_reason":"${reason}","stop_sequence":null},"usage":${usage}`
    )
    this.event("message_stop", `"type":"message_stop"`)
  }

  private start(event: Json.JsonObject): void {
    if (this.hasBegun) return
    this.hasBegun = true
    this.id = Json.text(event["id"]) ?? this.options.id
    const message = {
      id: this.id,
      type: "message",
      role: "assistant",
      model: Json.text(event["model"]) ?? "",
      content: [],
      stop_reason: null,
      stop_sequence: null,
      // The counts come with the last event.
      usage: { input_tokens: 0, output_tokens: 0 }
    }
    this.event("message_start", `"type":"message_start","message":${JSON.stringify(message)}`)
  }

  private text(kind: "text" | "thinking", text: string): void {
    if (text === "") return
    if (this.open !== kind) {
      // A tool call that still waits comes before what follows it.
      this.tools.finish(this.id)
      this.begin(kind, kind === "text" ? { type: kind, text: "" } : { type: kind, thinking: "", signature: "" })
    }
    this.delta(`{"type":"${kind}_delta","${kind}":${JSON.stringify(text)}}`)
  }

  private begin(kind: "text" | "thinking" | "tool", block: object): void {
    this.close()
    this.open = kind
    this.index++
    const content = JSON.stringify(block)
    this.event("content_block_start", `"type":"content_block_start","index":${this.index},"content_block":${content}`)
  }

  private close(): void {
    if (this.open === undefined) return
    this.open = undefined
    this.event("content_block_stop", `"type":"content_block_stop","index":${this.index}`)
  }

  /** Written by hand, since it is most of the cost of a stream. */
  private delta(delta: string): void {
    this.isReopened = true
    this.event("content_block_delta", `"type":"content_block_delta","index":${this.index},"delta":${delta}`)
  }

  private event(name: string, fields: string): void {
    this.out += `event: ${name}\ndata: {${fields}}\n\n`
  }
}
