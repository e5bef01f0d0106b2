import * as Event from "../../wire/anthropic/event.ts"
import { StartText } from "../../wire/anthropic/startText.ts"
import { finishReason, sentReason } from "../../wire/finishReason.ts"
import * as Json from "../../wire/json.ts"
import type { Options } from "./answerToChat.ts"
import * as Endings from "./endings.ts"
import * as Errors from "./errors.ts"
import * as Events from "./events.ts"
import { maxCalls, maxHeld } from "./toolBlocks.ts"
import { MessagesUsage, toChat } from "./usage.ts"

interface Call {
  readonly index: number
  /** The arguments if no deltas bring any: those that came with the start of the block, or none. Clients parse them. */
  startInput: string | undefined
}

/**
 * Translates the events of messages into those of chat completions.
 *
 * Nothing here ends an answer: the finish reason comes from `message_delta`, and `[DONE]` from `message_stop`, which `end` stands
 * for where the guard found the answer complete without it.
 */
export class StreamToChat {
  private readonly options: Options & { readonly includeUsage?: boolean }
  private readonly usage = new MessagesUsage()
  private readonly startText = new StartText()
  /** The open and closed tool calls by the index of their block. */
  private readonly calls = new Map<unknown, Call>()
  private startInputs = 0
  private head = ""
  private out = ""
  private hasFinished = false
  private hasEnded = false
  private isUnreadable = false

  /** `includeUsage`: as the client's `stream_options.include_usage`. */
  constructor(options: Options & { readonly includeUsage?: boolean }) {
    this.options = options
  }

  /** Whether an event could not be read. The stream must end in an error then. */
  get failed(): boolean {
    return this.isUnreadable
  }

  /** Translates whole events. */
  feed(bytes: Uint8Array): Uint8Array | undefined {
    for (const data of Events.dataOf(bytes)) if (data.trim() !== "") this.onData(data)
    return this.take()
  }

  /** The rest of a complete answer, if `message_stop` has not come. */
  end(): Uint8Array | undefined {
    this.onStop()
    return this.take()
  }

  private take(): Uint8Array | undefined {
    const { out } = this
    this.out = ""
    return Events.bytesOf(out)
  }

  private onData(data: string): void {
    if (this.hasEnded || this.isUnreadable) return
    const event = Events.parse(data)
    if (event === undefined) this.isUnreadable = true
    else this.onEvent(event)
  }

  private onEvent(event: Json.JsonObject): void {
    switch (event["type"]) {
      case "content_block_delta":
        return this.onDelta(event["index"], Json.object(event["delta"]))
      case "content_block_start":
        return this.onBlock(event["index"], Json.object(event["content_block"]))
      case "content_block_stop":
        return this.onBlockStop(event["index"])
      case "message_start":
        return this.onMessage(Json.object(event["message"]) ?? {})
      case "message_delta":
        return this.onMessageDelta(event)
      case "message_stop":
        return this.onStop()
      case "ping":
        // A comment keeps the connection open too.
        this.out += ": ping\n\n"
        return undefined
      case "error":
        this.out += `data: ${JSON.stringify(Errors.errorToChat(event))}\n\n`
        this.hasEnded = true
    }
  }

  private onMessage(message: Json.JsonObject): void {
    this.usage.add(message)
    if (this.head === "") this.begin(message)
  }

  private begin(message: Json.JsonObject): void {
    const fields = {
      id: Json.text(message["id"]) ?? this.options.id,
      object: "chat.completion.chunk",
      created: this.options.created,
      model: Json.text(message["model"]) ?? ""
    }
    this.head = `data: ${JSON.stringify(fields).slice(0, -1)},"choices":[`
    this.delta(`{"role":"assistant","content":""}`)
  }

  private onBlock(index: unknown, block: Json.JsonObject | undefined): void {
    switch (block?.["type"]) {
      case "text": {
        const text = Event.textOf(block["text"])
        this.startText.begin(text)
        return this.text(text)
      }
      case "thinking":
        return this.thought(Event.textOf(block["thinking"]))
      case "tool_use": {
        const call = { index: this.calls.size, startInput: Event.inputOf(block["input"]) ?? "{}" }
        this.calls.set(index, call)
        this.startInputs += call.startInput.length
        if (call.index >= maxCalls || this.startInputs > maxHeld) this.isUnreadable = true
        const id = Json.text(block["id"]) ?? `${this.options.id}_${call.index}`
        const own = { name: Json.text(block["name"]) ?? "", arguments: "" }
        this.delta(JSON.stringify({ tool_calls: [{ index: call.index, id, type: "function", function: own }] }))
      }
    }
  }

  private onDelta(index: unknown, delta: Json.JsonObject | undefined): void {
    if (delta === undefined) return
    switch (Event.deltaType(delta)) {
      case "text_delta":
        return this.text(this.startText.more(Event.textOf(delta["text"])))
      case "thinking_delta":
        return this.thought(Event.textOf(delta["thinking"]))
      case "input_json_delta":
        return this.input(this.calls.get(index), Event.textOf(delta["partial_json"]))
    }
  }

  private onBlockStop(index: unknown): void {
    this.text(this.startText.end())
    this.endInput(this.calls.get(index))
  }

  private endInput(call: Call | undefined): void {
    if (call?.startInput !== undefined) this.input(call, call.startInput)
  }

  private onMessageDelta(event: Json.JsonObject): void {
    this.usage.add(event)
    const stop = sentReason(Json.object(event["delta"])?.["stop_reason"])
    if (stop === undefined || this.hasFinished) return
    this.hasFinished = true
    for (const call of this.calls.values()) this.endInput(call)
    this.delta("{}", Endings.toChat(finishReason(stop), this.calls.size > 0))
  }

  private onStop(): void {
    if (!this.hasFinished || this.hasEnded || this.isUnreadable) return
    this.hasEnded = true
    if (this.options.includeUsage === true) {
      this.out += `${this.head}],"usage":${JSON.stringify(toChat(this.usage.counts))}}\n\n`
    }
    this.out += "data: [DONE]\n\n"
  }

  private text(text: string): void {
    if (text !== "") this.delta(`{"content":${JSON.stringify(text)}}`)
  }

  private thought(text: string): void {
    if (text !== "") this.delta(`{"reasoning_content":${JSON.stringify(text)}}`)
  }

  private input(call: Call | undefined, json: string): void {
    if (call === undefined || json === "") return
    call.startInput = undefined
    this.delta(`{"tool_calls":[{"index":${call.index},"function":{"arguments":${JSON.stringify(json)}}}]}`)
  }

  /** Written by hand, since it is most of the cost of a stream. */
  private delta(delta: string, finish?: string): void {
    if (this.head === "") this.begin({})
    const reason = finish === undefined ? "null" : `"${finish}"`
    this.out += `${this.head}{"index":0,"delta":${delta},"logprobs":null,"finish_reason":${reason}}]}\n\n`
  }
}
