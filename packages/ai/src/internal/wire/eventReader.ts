import * as BoundedJson from "@sluice/core/BoundedJson"
import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Sse from "effect/encoding/Sse"
import * as Result from "effect/Result"
import type { Bounds } from "./bounds.ts"
import * as Failure from "./failure.ts"
import { type ToolCallFragment, ToolCalls } from "./toolCalls.ts"

export type Part = Response.StreamPartEncoded
type Kind = "text" | "reasoning"
type Metadata = Response.ReasoningEndPartEncoded["metadata"]

/**
 * Turns the bytes of a streamed response into parts. A subclass decodes the events of its wire.
 *
 * A response with a finish reason is complete, even if the connection is lost after it. Only the usage, which some
 * providers send last, can be missing then. Without a finish reason it is truncated, even if the connection was closed
 * cleanly.
 */
export abstract class EventReader {
  protected readonly origin: Failure.Origin
  protected readonly response: Failure.ResponseHead
  protected readonly bounds: Bounds
  protected readonly toolCalls: ToolCalls
  private readonly decoder = new TextDecoder()
  private readonly parser: Sse.Parser

  protected parts: Array<Part> = []
  /** The provider's finish reason. */
  protected reason: string | undefined
  protected failed: AiError.AiError | undefined
  private sealed = false
  private events = 0
  private taken = 0
  private size = 0
  private open: { readonly kind: Kind; readonly id: string } | undefined
  private blocks = 0

  /** `newId`: the prefix of ids for tool calls that have none. */
  constructor(origin: Failure.Origin, response: Failure.ResponseHead, bounds: Bounds, newId: string) {
    this.origin = origin
    this.response = response
    this.bounds = bounds
    this.toolCalls = new ToolCalls(newId)
    this.parser = Sse.makeParser(
      // A `retry` is for browsers, which reconnect by themselves.
      (event) => event._tag === "Event" ? this.onData(event.data) : undefined,
      { maxEventSize: bounds.eventSize }
    )
  }

  /** Reads one event, whose JSON is within the bounds. */
  protected abstract onEvent(json: unknown, data: string): void

  /** Returns the last parts, or the error that the response fails with after all. Called once, at the end. */
  protected abstract finish(reason: string): Result.Result<ReadonlyArray<Part>, AiError.AiError>

  /** Whether the response is complete. What follows is ignored. */
  get isComplete(): boolean {
    return this.sealed
  }

  /** Whether there is a finish reason. Only token counts can follow. */
  get isEnding(): boolean {
    return this.reason !== undefined
  }

  /** Why the response failed. The parts before it can still be taken. */
  get failure(): AiError.AiError | undefined {
    return this.failed
  }

  /** Reads the bytes that arrived. */
  feed(bytes: Uint8Array): void {
    if (this.sealed || this.failed !== undefined) return
    const tooLarge = this.parser.feed(this.decoder.decode(bytes, { stream: true }))
    if (tooLarge !== undefined) this.failTooLarge()
  }

  /** Ends the response. `lost`: the connection failed. */
  end(lost?: AiError.AiError): void {
    if (this.sealed || this.failed !== undefined) return
    // The error is built only if it is needed. Its stack would be most of the cost of ending a good response.
    if (this.reason !== undefined) this.seal(this.reason)
    else this.failed = lost ?? Failure.truncated(this.origin, this.response, this.progress())
  }

  /** Returns the new parts. */
  take(): ReadonlyArray<Part> {
    const { parts } = this
    this.parts = []
    this.taken += parts.length
    return parts
  }

  /** Fails the response, unless it has a finish reason and is complete. */
  protected lose(failure: AiError.AiError): void {
    if (this.reason === undefined) this.failed = failure
    else this.seal(this.reason)
  }

  protected fail(why: string): void {
    this.lose(Failure.incompatible(this.origin, this.response, why))
  }

  /** Fails the response because of an event in another format. */
  protected failForeign(data: string): void {
    this.fail(`an event in another format: ${Failure.sample(this.origin, data)}`)
  }

  protected onContent(kind: Kind, delta: string): void {
    if (delta === "") return
    this.count(delta)
    if (this.open?.kind !== kind) this.begin(kind)
    if (this.open !== undefined) this.parts.push({ type: `${kind}-delta`, id: this.open.id, delta })
  }

  protected begin(kind: Kind): void {
    this.close()
    this.open = { kind, id: String(this.blocks++) }
    this.parts.push({ type: `${kind}-start`, id: this.open.id })
  }

  protected close(metadata?: Metadata): void {
    if (this.open === undefined) return
    this.parts.push({
      type: `${this.open.kind}-end`,
      id: this.open.id,
      ...(metadata === undefined ? {} : { metadata })
    })
    this.open = undefined
  }

  protected count(content: string): string {
    this.size += content.length
    if (this.size > this.bounds.answerSize) this.fail(`a response of more than ${this.bounds.answerSize} characters`)
    return content
  }

  /** Adds a piece of a tool call. Ids and names count as content too, or a stream of them alone would have no bound. */
  protected onToolCall(fragment: ToolCallFragment): void {
    this.close()
    this.count((fragment.id ?? "") + (fragment.function?.name ?? "") + (fragment.function?.arguments ?? ""))
    this.toolCalls.add(fragment, this.parts)
  }

  private failTooLarge(): void {
    this.fail(`an event of more than ${this.bounds.eventSize} characters`)
  }

  private progress(): Failure.Progress {
    return {
      events: this.events,
      parts: this.taken + this.parts.length,
      hadOutput: this.size > 0 || this.toolCalls.hasStarted
    }
  }

  private onData(data: string): void {
    if (this.sealed || this.failed !== undefined) return
    if (data.startsWith("[DONE]")) return this.end()
    this.events++
    if (data.length > this.bounds.eventSize) return this.failTooLarge()
    const json = BoundedJson.parse(data, this.bounds.jsonDepth)
    if (Result.isSuccess(json)) return this.onEvent(json.success, data)
    if (json.failure === "TooDeep") return this.fail(`an event nested deeper than ${this.bounds.jsonDepth} levels`)
    this.lose(Failure.malformed(this.origin, this.response, data))
  }

  private seal(reason: string): void {
    this.close()
    const last = this.finish(reason)
    if (Result.isFailure(last)) {
      this.failed = last.failure
      return
    }
    this.parts.push(...last.success)
    this.sealed = true
  }
}

/** Whether the model was cut off. */
export const isIncomplete = (reason: Response.FinishReason): boolean =>
  reason === "length" || reason === "content-filter"
