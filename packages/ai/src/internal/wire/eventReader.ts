import * as BoundedJson from "@sluice/core/BoundedJson"
import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import type { Bounds } from "./bounds.ts"
import { Events } from "./events.ts"
import * as Failure from "./failure.ts"
import { badCall, brokeOff } from "./errorIn.ts"
import { type Ending, finishReason, isIncomplete, stronger } from "./finishReason.ts"
import { Template } from "./template.ts"
import { type ToolCallFragment, ToolCalls } from "./toolCalls.ts"

export type Part = Response.StreamPartEncoded
type Kind = "text" | "reasoning"
type Metadata = Response.ReasoningEndPartEncoded["metadata"]

/** How many events after the finish reason are remembered. */
const maxDoubts = 8

/** Whole lines of an event stream that begin no event. */
const emptyLines = /^(?:(?::[^\r\n]*|data: ?|id:[^\r\n]*|retry:[^\r\n]*|)(?:\r\n|\r|\n))+/

/**
 * Turns the bytes of a streamed response into parts. A subclass decodes the events of its wire.
 *
 * A response without a finish reason is truncated, even if the connection was closed cleanly. A response with one is
 * complete at the end of the stream, even if the connection is lost after it: only the usage can be missing then.
 *
 * A finish reason need not be the end. Some servers send one with every piece of the text, and some send one after the
 * thoughts. Content after a finish reason continues the response. From then on a lost connection or
 * an error fails the response. So does a close if no finish reason comes with the last content or after it.
 *
 * Half an event at the end counts as missing content, unless its beginning shows that the event has none. An unreadable event
 * after the finish reason is ignored, unless content follows it.
 */
export abstract class EventReader {
  protected readonly origin: Failure.Origin
  protected readonly response: Failure.ResponseHead
  protected readonly bounds: Bounds
  protected readonly toolCalls: ToolCalls
  private readonly events: Events
  private readonly template = new Template()

  /** See `OnMalformedEvent`. */
  onMalformedEvent: (() => void) | undefined

  /** Whether deltas of one block become one part, for a reader that takes all parts at the end. */
  joinsDeltas = false

  protected parts: Array<Part> = []
  /** The finish reason. */
  private reason: Ending | undefined
  /** Whether content came after the finish reason. */
  private isOpen = false
  /** Whether content ever came after a finish reason. */
  private wasReopened = false
  /** How often the response has seemed to end. */
  private endings = 0
  /** Whether the stream is over, and its last event has no blank line after it. */
  private isLastEvent = false
  /** Whether the last event was read. */
  private hasReadLast = false
  /** Handlers of unreadable events after the finish reason. They run if content follows. */
  private doubts: Array<() => void> = []
  protected failed: AiError.AiError | undefined
  private sealed = false
  private taken = 0
  private lastDelta: { readonly type: "text-delta" | "reasoning-delta"; readonly id: string; delta: string } | undefined
  /** How many parts were joined to the one before. */
  private joined = 0
  private size = 0
  private open: { readonly kind: Kind; readonly id: string } | undefined
  private blocks = 0

  /** `newId`: the prefix of ids for tool calls that have none. */
  constructor(origin: Failure.Origin, response: Failure.ResponseHead, bounds: Bounds, newId: string) {
    this.origin = origin
    this.response = response
    this.bounds = bounds
    this.toolCalls = new ToolCalls(newId)
    this.events = new Events((data, name) => this.onData(data, name), bounds.eventSize)
  }

  /** Reads one event, whose JSON is within the bounds. `name` is `message` unless the stream names the event. */
  protected abstract onEvent(json: unknown, data: string, name: string): void

  /** Reads an event of the form that `learn` was called with. Returns whether that is possible now. */
  protected onText(_text: string, _name: string): boolean {
    return false
  }

  /** Learns the form of an event that has text alone. `read` returns its text, and `undefined` for every other event. */
  protected learn(data: string, text: string, read: (json: unknown) => string | undefined): void {
    this.template.learn(
      data,
      text,
      (data) => Result.getOrUndefined(Result.map(BoundedJson.parse(data, this.bounds.jsonDepth), read))
    )
  }

  /** Returns the last parts, or the error that the response fails with after all. Called once, at the end. */
  protected abstract finish(reason: Response.FinishReason): Result.Result<ReadonlyArray<Part>, AiError.AiError>

  /** Whether the beginning of an event shows that the event has no content, such as that of the end or of token counts. */
  protected abstract hasNoContent(beginning: string): boolean

  /** The metadata for the end of the open part. */
  protected endMetadata(): Metadata {
    return undefined
  }

  /** Whether the response is complete. What follows is ignored. */
  get isComplete(): boolean {
    return this.sealed
  }

  /** Whether the response seems to have ended: it has a finish reason and no content after it. */
  get isEnding(): boolean {
    return this.reason !== undefined && !this.isOpen
  }

  /** Which end this is, if content came after earlier ones. */
  get ending(): number {
    return this.endings
  }

  /** Why the response failed. The parts before it can still be taken. */
  get failure(): AiError.AiError | undefined {
    return this.failed
  }

  /** The characters of content so far, of which a tool call has at least one. */
  get contentLength(): number {
    return this.size + (this.toolCalls.hasStarted ? 1 : 0)
  }

  /** How many parts the response has had. */
  get made(): number {
    return this.taken + this.parts.length + this.joined
  }

  get hasParts(): boolean {
    return this.parts.length > 0
  }

  /** How many parts wait to be taken. */
  get waiting(): number {
    return this.parts.length
  }

  /** Reads the bytes that arrived. */
  feed(bytes: Uint8Array): void {
    if (this.sealed || this.failed !== undefined) return
    if (this.events.feed(bytes)) this.failTooLarge()
  }

  /** Ends the response. `lost`: how the connection failed. */
  end(lost?: string): void {
    if (this.sealed || this.failed !== undefined) return
    this.isLastEvent = true
    const { half } = this.events
    this.events.end()
    if (this.sealed || this.failed !== undefined) return
    const isWhole = lost === undefined ? !this.isOpen : !this.wasReopened
    // The error is built only if it is needed. Its stack would be most of the cost of ending a good response.
    if (this.reason !== undefined && isWhole && !this.isMissingContent(half)) this.seal(this.reason)
    else this.failed = Failure.truncated(this.origin, this.response, this.progress(), lost)
  }

  /** Ends the response at the event that says so. */
  protected conclude(): void {
    this.hasReadLast = true
    if (this.sealed || this.failed !== undefined) return
    if (this.reason !== undefined) this.seal(this.reason)
    else this.failed = Failure.truncated(this.origin, this.response, this.progress(), undefined)
  }

  /** Returns the new parts. */
  take(): ReadonlyArray<Part> {
    const { parts } = this
    this.parts = []
    this.taken += parts.length
    return parts
  }

  /** Reads a finish reason. */
  protected onFinish(sent: string): void {
    const reason = finishReason(sent)
    if (reason === "error") {
      // Content does not follow, and the next attempt need not wait for the end of the stream.
      this.failed ??= brokeOff(this.origin, this.response, sent)
      return
    }
    if (!this.isEnding) this.endings++
    this.reason = this.reason === undefined || this.isOpen ? reason : stronger(this.reason, reason)
    this.isOpen = false
  }

  /** Notes that content came. Returns whether it may be added. */
  protected onMore(): boolean {
    if (this.reason !== undefined) {
      this.isOpen = this.wasReopened = true
      const { doubts } = this
      this.doubts = []
      for (const settle of doubts) settle()
    }
    return this.failed === undefined
  }

  /** Fails the response, unless it has a finish reason and is complete. */
  protected lose(failure: AiError.AiError): void {
    if (this.reason === undefined || this.wasReopened) this.failed = failure
    else this.seal(this.reason)
  }

  protected fail(why: string): void {
    this.lose(Failure.incompatible(this.origin, this.response, why))
  }

  /** Fails the response because of an event in another format. */
  protected failForeign(data: string): void {
    this.passOver(() => this.fail(`an event in another format: ${Failure.sample(this.origin, data)}`))
  }

  /** Runs `settle` for an unreadable event. After the finish reason, delays `settle` until content follows. */
  private passOver(settle: () => void): void {
    if (this.isLastEvent) this.hasReadLast = false
    else if (this.reason === undefined || this.wasReopened) settle()
    else if (this.doubts.length < maxDoubts) this.doubts.push(settle)
  }

  /** Whether the stream ended within an event that may have content. */
  private isMissingContent(half: string): boolean {
    if (this.hasReadLast) return false
    const beginning = half.replace(emptyLines, "").trimStart()
    return beginning !== "" && !beginning.startsWith(":") && !this.hasNoContent(beginning)
  }

  protected onContent(kind: Kind, delta: string): void {
    if (delta === "" || !this.onMore()) return
    this.count(delta)
    if (this.open?.kind !== kind) this.begin(kind)
    if (this.open === undefined) return
    const last = this.lastDelta
    if (this.joinsDeltas && last !== undefined && last.id === this.open.id && this.parts.at(-1) === last) {
      last.delta += delta
      this.joined++
    } else {
      this.parts.push(
        this.lastDelta = { type: kind === "text" ? "text-delta" : "reasoning-delta", id: this.open.id, delta }
      )
    }
  }

  protected begin(kind: Kind): void {
    if (!this.onMore()) return
    this.close()
    this.open = { kind, id: String(this.blocks++) }
    this.parts.push({ type: `${kind}-start`, id: this.open.id })
  }

  /** The kind of the open part. */
  protected get openKind(): Kind | undefined {
    return this.open?.kind
  }

  protected close(): void {
    if (this.open === undefined) return
    const metadata = this.endMetadata()
    this.parts.push({
      type: `${this.open.kind}-end`,
      id: this.open.id,
      ...(metadata === undefined ? {} : { metadata })
    })
    this.open = undefined
  }

  protected count(content: string): string {
    this.addSize(content.length)
    return content
  }

  protected addSize(length: number): void {
    this.size += length
    if (this.size > this.bounds.answerSize) this.fail(`a response of more than ${this.bounds.answerSize} characters`)
  }

  /**
   * Adds a piece of a tool call. Ids and names count as content too, or a stream of them alone would have no bound.
   * `position`: of a whole call in a message that repeats the calls of its stream.
   */
  protected onToolCall(fragment: ToolCallFragment, position?: number): void {
    const { arguments: delta = "", extra, id = "", isStart = false, name = "" } = fragment
    const size = id.length + name.length + delta.length + (extra === undefined ? 0 : JSON.stringify(extra).length)
    if ((size === 0 && !isStart) || !this.onMore()) return
    this.close()
    this.addSize(size)
    if (position === undefined) this.toolCalls.add(fragment, this.parts)
    else this.toolCalls.addAgain(fragment, position, this.parts)
  }

  protected finishToolCalls(reason: Response.FinishReason): ReturnType<ToolCalls["finish"]> {
    return this.toolCalls.finish(this.origin, isIncomplete(reason), this.bounds.jsonDepth)
  }

  /** Fails the response also after the finish reason, since only content is that large. */
  private failTooLarge(): void {
    if (this.sealed) return
    this.failed ??= Failure.incompatible(
      this.origin,
      this.response,
      `an event of more than ${this.bounds.eventSize} characters`
    )
  }

  private progress(): Failure.Progress {
    return {
      parts: this.made,
      hadOutput: this.size > 0 || this.toolCalls.hasStarted
    }
  }

  private onData(data: string, name: string): void {
    if (this.sealed || this.failed !== undefined) return
    if (data.startsWith("[DONE]")) return this.conclude()
    if (data.length > this.bounds.eventSize) return this.failTooLarge()
    const text = this.template.textIn(data)
    if (text !== undefined && this.onText(text, name)) {
      if (this.isLastEvent) this.hasReadLast = true
      return
    }
    const json = BoundedJson.parse(data, this.bounds.jsonDepth)
    if (Result.isFailure(json)) return this.onUnreadable(data, name, json.failure)
    if (json.success === "[DONE]") return this.conclude()
    if (this.isLastEvent) this.hasReadLast = true
    this.onEvent(json.success, data, name)
  }

  private onUnreadable(data: string, name: string, why: "Malformed" | "TooDeep"): void {
    const text = data.replace(/^(?:\s*data:)+/, "").trim()
    // A keep-alive: an event without data, or a comment that a proxy has turned into an event.
    if (text === "" || text.startsWith(":")) return
    // Two proxies have each added `data:`, or white space precedes the end.
    if (text.length < data.length && !text.includes("\n")) return this.onData(text, name)
    const lines = text.split("\n").map((line) => line.replace(/^data:/, "").trim()).filter((line) => line !== "")
    // Events without a blank line between them.
    if (lines.length > 1 && lines.every((line) => this.isEvent(line))) {
      for (const line of lines) this.onData(line, name)
      return
    }
    this.passOver(() => {
      if (why === "TooDeep") return this.fail(`an event nested deeper than ${this.bounds.jsonDepth} levels`)
      if (this.onMalformedEvent === undefined || this.toolCalls.hasStarted) {
        return this.lose(Failure.malformed(this.origin, this.response, data))
      }
      this.onMalformedEvent()
    })
  }

  private isEvent(line: string): boolean {
    return line === "[DONE]" || Result.isSuccess(BoundedJson.parse(line, this.bounds.jsonDepth))
  }

  private seal(reason: Ending): void {
    this.close()
    if (reason === "bad-call") {
      this.failed = badCall(this.origin)
      return
    }
    const last = this.finish(reason)
    if (Result.isFailure(last)) {
      this.failed = last.failure
      return
    }
    this.parts.push(...last.success)
    this.sealed = true
  }
}
