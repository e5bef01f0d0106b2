import * as BoundedJson from "@sluice/core/BoundedJson"
import type { FinishReason } from "effect/ai/Response"
import * as Result from "effect/Result"
import { fieldsOf, Frames } from "../wire/frames.ts"
import * as Json from "../wire/json.ts"
import { ChatRules } from "./chat.ts"
import { MessagesRules } from "./messages.ts"
import { ResponsesRules } from "./responses.ts"
import type { Failure, Rules, Usage } from "./rules.ts"

export type { Failure, Usage } from "./rules.ts"

/** An API with streams: OpenAI's chat completions, Anthropic's messages, OpenAI's responses. */
export type Wire = "chat" | "messages" | "responses"

export interface GuardOptions {
  /** The largest event, in bytes. Default: 1 MiB. */
  readonly maxEventBytes?: number | undefined
  /** The choices that a request for chat completions asks for with `n`. Default: 1. */
  readonly choices?: number | undefined
  /**
   * Whether the event of a chat completion that has only token counts is left out, for a client that did not ask for it.
   * Default: false.
   */
  readonly dropUsage?: boolean | undefined
}

const defaultMaxEventBytes = 1_048_576
const maxJsonDepth = 128

const openBrace = 0x7b
const closeBrace = 0x7d

/**
 * Judges a streamed answer while its bytes are passed on unchanged.
 *
 * `feed` returns only whole events, so that an error event can follow at any time. Before the first output, each event is parsed.
 * After it, an event is parsed only if it may have an end, an error or token counts.
 *
 * `feed` does not return an event that reports a failure, nor the bytes after it: see `failure` and `errorEnding`. It leaves out
 * an error after the answer is complete. An event of Anthropic without an `event:` line gets one, since Anthropic's clients
 * ignore it otherwise.
 */
export class Guard {
  readonly wire: Wire
  /** How many events have ended. */
  events = 0
  /** The event in which the provider reported its error, as it sent it. */
  failedEvent: Uint8Array | undefined
  private readonly rules: Rules
  private readonly frames = new Frames()
  private readonly maxEventBytes: number
  /** The line that the event lacks. */
  private missing: string | undefined
  // The data of the last event.
  private last: Buffer | undefined
  private lastStart = 0
  private lastEnd = 0

  constructor(wire: Wire, options: GuardOptions = {}) {
    this.wire = wire
    this.maxEventBytes = options.maxEventBytes ?? defaultMaxEventBytes
    this.rules = wire === "chat"
      ? new ChatRules(options)
      : wire === "messages"
      ? new MessagesRules()
      : new ResponsesRules()
  }

  /** Whether the answer has begun, so that no other answer can replace it. A complete answer without content counts too. */
  get hasOutput(): boolean {
    return this.rules.hasOutput
  }

  /**
   * Whether the answer is complete, so that a lost connection is no failure. Content that follows makes it incomplete again.
   * After the connection has ended, call `end` first.
   */
  get isComplete(): boolean {
    return this.rules.isComplete
  }

  /** Whether the answer is complete and nothing of it follows, so that there is nothing to wait for. */
  get isOver(): boolean {
    return this.rules.isOver
  }

  /** Why the rest is not passed on. */
  get failure(): Failure | undefined {
    return this.rules.failure
  }

  /** The token counts so far. */
  get usage(): Usage {
    return this.rules.usage
  }

  /** Why the answer ended. `undefined`: it has not said so. */
  get reason(): FinishReason | undefined {
    return this.rules.reason
  }

  /** The event that a complete answer still lacks. */
  get ending(): string {
    return this.rules.ending
  }

  /** The number of the next event of OpenAI's responses. */
  get sequence(): number {
    const json = this.last === undefined ? undefined : parse(this.last.toString("utf8", this.lastStart, this.lastEnd))
    const last = Json.isObject(json) ? Json.count(json["sequence_number"]) : undefined
    return last === undefined ? this.events : last + 1
  }

  /** Returns the whole events that may be passed on. */
  feed(chunk: Uint8Array): Uint8Array | undefined {
    const { frames, rules } = this
    if (this.failure !== undefined) return undefined
    frames.push(chunk)
    const { bytes } = frames
    let pieces: Array<Uint8Array> | undefined
    let from = 0
    while (frames.next()) {
      this.events++
      const isPassed = this.look()
      if (isPassed && this.missing === undefined) continue
      pieces ??= []
      pieces.push(bytes.subarray(from, frames.start))
      if (rules.failure !== undefined) {
        if (rules.failure._tag === "Error") this.failedEvent = bytes.subarray(frames.start, frames.end)
        return joined(pieces)
      }
      if (this.missing !== undefined) pieces.push(Buffer.from(this.missing))
      this.missing = undefined
      from = isPassed ? frames.start : frames.end
    }
    if (frames.restSize > this.maxEventBytes) this.failTooLarge()
    const whole = from === 0 && frames.cut === bytes.length ? bytes : bytes.subarray(from, frames.cut)
    if (pieces === undefined) return whole.length === 0 ? undefined : whole
    pieces.push(whole)
    return joined(pieces)
  }

  /** Reads a whole answer in place of a stream. `failure` says why it is none. */
  whole(answer: Json.JsonObject): void {
    this.rules.readWhole(answer)
  }

  /**
   * Ends the stream, and returns its last event if only the blank line after it is missing. `isLost`: the connection broke.
   *
   * Half an event that has content makes the answer incomplete.
   */
  end(isLost = false): Uint8Array | undefined {
    const { frames, rules } = this
    if (this.failure !== undefined || rules.isOver) return undefined
    const text = frames.rest()
    const { data, name } = fieldsOf(text)
    const isWhole = data !== undefined && (isDone(data) || parse(data) !== undefined)
    if (!isWhole && rules.hasContent(text)) {
      rules.isComplete = false
      return undefined
    }
    const isPassed = isWhole && this.read(name, data)
    if (rules.failure === undefined) {
      if (!isLost) rules.closed()
    } else if (rules.failure._tag === "Error") this.failedEvent = Buffer.from(`${text}\n\n`)
    return isPassed ? Buffer.from(`${this.missing ?? ""}${text}\n\n`) : undefined
  }

  /** Looks at one event. Returns whether it is passed on. */
  private look(): boolean {
    const { bytes, dataStart, end, lastEnd, start } = this.frames
    if (end - start > this.maxEventBytes) return this.failTooLarge()
    if (dataStart === -1) {
      const { data, name } = this.frames.fields
      return data === undefined || this.read(name, data)
    }
    const { name } = this.frames
    this.last = bytes
    this.lastStart = dataStart
    this.lastEnd = lastEnd
    return (this.rules.hasOutput && bytes[dataStart] === openBrace && bytes[lastEnd - 1] === closeBrace &&
      this.rules.isPlain(name, bytes.toString("latin1", dataStart, lastEnd))) ||
      this.read(name, bytes.toString("utf8", dataStart, lastEnd))
  }

  private read(name: string, data: string): boolean {
    const { rules } = this
    const wasComplete = rules.isComplete
    const isPassed = this.readData(name, data)
    if (rules.failure !== undefined && wasComplete) {
      rules.failure = undefined
      rules.isComplete = rules.isOver = true
    }
    return isPassed
  }

  private readData(name: string, data: string): boolean {
    const { rules } = this
    if (isDone(data)) return rules.done()
    const json = parse(data)
    if (json === undefined) return data.trim() === "" || rules.malformed(data)
    if (!Json.isObject(json)) return rules.foreign(json, data)
    if (name === "" && this.wire === "messages") {
      const type = Json.text(json["type"])
      if (type !== undefined && word.test(type)) this.missing = `event: ${type}\n`
    }
    return rules.read(json, name)
  }

  private failTooLarge(): false {
    const { rules } = this
    rules.failure = { _tag: "TooLarge", maxBytes: this.maxEventBytes }
    // Only content is that large.
    rules.isComplete = false
    return false
  }
}

/** The words of an error event. */
export interface ErrorWords {
  readonly message: string
  readonly code: string
  /** The number of the event, for responses. */
  readonly sequence?: number | undefined
}

/**
 * The event on which every official client raises an error. The connection must end in order after it: some clients lose the words
 * of an event before a lost connection, and wait if it stays open.
 */
export const errorEvent = (wire: Wire, { code, message, sequence = 0 }: ErrorWords): string => {
  const error = { message, type: "sluice_error", code, param: null }
  switch (wire) {
    case "chat":
      return `data: ${JSON.stringify({ error })}\n\n`
    case "messages":
      return `event: error\ndata: ${JSON.stringify({ type: "error", error: { type: "api_error", message } })}\n\n`
    case "responses": {
      // OpenAI's clients raise on the inner error. Others read the fields beside it, as the API documents them.
      const event = { type: "error", code, message, param: null, sequence_number: sequence, error }
      return `event: error\ndata: ${JSON.stringify(event)}\n\n`
    }
  }
}

/**
 * What ends an incomplete answer: the provider's own error event, and ours if there is none or if clients do not raise an error
 * on it. An error about the server's credential may show a part of it, so the client gets only ours.
 */
export const errorEnding = (guard: Guard, error: ErrorWords): Uint8Array => {
  const { failure } = guard
  const failedEvent = error.code === "credential_refused" ? undefined : guard.failedEvent
  if (failedEvent !== undefined && failure?._tag === "Error" && failure.isRaised) return failedEvent
  const ours = Buffer.from(errorEvent(guard.wire, { sequence: guard.sequence, ...error }))
  return failedEvent === undefined ? ours : Buffer.concat([failedEvent, ours])
}

const word = /^[\w.]+$/

const parse = (text: string): unknown => {
  const json = BoundedJson.parse(text, maxJsonDepth)
  return Result.isSuccess(json) ? json.success : undefined
}

const isDone = (data: string): boolean => data.startsWith("[DONE]") || data === "\"[DONE]\""

const joined = (pieces: ReadonlyArray<Uint8Array>): Uint8Array | undefined => {
  const bytes = Buffer.concat(pieces)
  return bytes.length === 0 ? undefined : bytes
}
