import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Result from "effect/Result"
import * as Json from "../wire/json.ts"
import { ChatRules } from "./chat.ts"
import { Frames } from "./frames.ts"
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
const space = 0x20
const colon = 0x3a
// The first four characters of each as one number.
const data = 0x64617461
const even = 0x6576656e
const t = 0x74

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
    if (frames.rest.length > this.maxEventBytes) this.failTooLarge()
    const whole = from === 0 && frames.cut === bytes.length ? bytes : bytes.subarray(from, frames.cut)
    if (pieces === undefined) return whole.length === 0 ? undefined : whole
    pieces.push(whole)
    return joined(pieces)
  }

  /**
   * Ends the stream, and returns its last event if only the blank line after it is missing. `isLost`: the connection broke.
   *
   * Half an event that has content makes the answer incomplete.
   */
  end(isLost = false): Uint8Array | undefined {
    const { frames: { rest }, rules } = this
    if (this.failure !== undefined || rules.isOver) return undefined
    const text = rest.toString()
    const { data, name } = fieldsOf(text)
    const isWhole = data !== undefined && (isDone(data) || parse(data) !== undefined)
    if (!isWhole && rules.hasContent(text)) {
      rules.isComplete = false
      return undefined
    }
    const isPassed = isWhole && this.read(name, data)
    if (rules.failure === undefined) {
      if (!isLost) rules.closed()
    } else if (rules.failure._tag === "Error") this.failedEvent = Buffer.concat([rest, blankLine])
    return isPassed ? Buffer.concat([Buffer.from(this.missing ?? ""), rest, blankLine]) : undefined
  }

  /** Looks at one event. Returns whether it is passed on. */
  private look(): boolean {
    const { bytes, end, firstEnd, lastEnd, lines, second, start } = this.frames
    if (end - start > this.maxEventBytes) return this.failTooLarge()
    let name = ""
    let at = start
    if (lines === 2 && startsWithEvent(bytes, start)) {
      name = bytes.toString("latin1", valueStart(bytes, start + 6), firstEnd)
      at = second
    }
    if ((lines > 1 && at === start) || !startsWithData(bytes, at)) return this.lookAtLines()
    at = valueStart(bytes, at + 5)
    this.last = bytes
    this.lastStart = at
    this.lastEnd = lastEnd
    return (this.rules.hasOutput && bytes[at] === openBrace && bytes[lastEnd - 1] === closeBrace &&
      this.rules.isPlain(name, bytes.toString("latin1", at, lastEnd))) ||
      this.read(name, bytes.toString("utf8", at, lastEnd))
  }

  /** Looks at an event in another form than a line of data, perhaps after a line with its name. */
  private lookAtLines(): boolean {
    const { bytes, lastEnd, start } = this.frames
    const isMarked = this.events === 1 && bytes[start] === byteOrderMark[0] && bytes[start + 1] === byteOrderMark[1]
    const { data, name } = fieldsOf(bytes.toString("utf8", isMarked ? start + byteOrderMark.length : start, lastEnd))
    return data === undefined || this.read(name, data)
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

/** What a complete answer still lacks. */
export const ending = (guard: Guard): string => guard.ending

/**
 * What ends an incomplete answer: the provider's own error event, and ours if there is none or if clients do not raise an error
 * on it.
 */
export const errorEnding = (guard: Guard, error: ErrorWords): Uint8Array => {
  const { failedEvent, failure } = guard
  if (failedEvent !== undefined && failure?._tag === "Error" && failure.isRaised) return failedEvent
  const ours = Buffer.from(errorEvent(guard.wire, { sequence: guard.sequence, ...error }))
  return failedEvent === undefined ? ours : Buffer.concat([failedEvent, ours])
}

const blankLine = Buffer.from("\n\n")
const byteOrderMark = Buffer.from("\uFEFF")
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

const startsWithData = (bytes: Buffer, at: number): boolean =>
  bytes.length - at >= 5 && bytes.readUInt32BE(at) === data && bytes[at + 4] === colon

const startsWithEvent = (bytes: Buffer, at: number): boolean =>
  bytes.length - at >= 6 && bytes.readUInt32BE(at) === even && bytes[at + 4] === t && bytes[at + 5] === colon

const valueStart = (bytes: Buffer, at: number): number => bytes[at] === space ? at + 1 : at

/** The name and the data of an event of any form. `data` is `undefined` if it has none: clients ignore such an event. */
const fieldsOf = (text: string): { readonly name: string; readonly data: string | undefined } => {
  let name = ""
  let data: string | undefined
  for (const line of text.split(/\r\n|\n|\r/)) {
    const colon = line.indexOf(":")
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1)
    if (field === "event") name = value
    else if (field === "data") data = data === undefined ? value : `${data}\n${value}`
  }
  return { name, data }
}
