import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Sse from "effect/encoding/Sse"
import * as Result from "effect/Result"
import * as Json from "./json.ts"
import type { Bounds } from "./bounds.ts"
import type { ToolCall } from "./chunk.ts"
import * as Failure from "./failure.ts"
import type { ToolCalls } from "./toolCalls.ts"

export type Part = Response.StreamPartEncoded
type Kind = "text" | "reasoning"
type Metadata = Response.ReasoningEndPartEncoded["metadata"]

/**
 * Reads a streamed answer: bytes in, parts out. What its events mean is the business of each wire.
 *
 * It has ended well as soon as the provider said why it ends, even if the connection is lost after that; only the usage,
 * which some send last, may then be missing. Without a reason it has not, however tidily the connection was closed.
 */
export abstract class EventReader {
  protected readonly origin: Failure.Origin
  protected readonly answer: Failure.Answer
  protected readonly bounds: Bounds
  protected abstract readonly toolCalls: ToolCalls
  private readonly decoder = new TextDecoder()
  private readonly parser: Sse.Parser

  protected parts: Array<Part> = []
  /** Why the answer ended, as the provider says it. */
  protected reason: string | undefined
  protected failed: AiError.AiError | undefined
  private sealed = false
  private events = 0
  private taken = 0
  private size = 0
  private open: { readonly kind: Kind; readonly id: string } | undefined
  private blocks = 0

  constructor(origin: Failure.Origin, answer: Failure.Answer, bounds: Bounds) {
    this.origin = origin
    this.answer = answer
    this.bounds = bounds
    this.parser = Sse.makeParser(
      // Servers that set a `retry` mean browsers, which would ask again by themselves.
      (event) => event._tag === "Event" ? this.onData(event.data) : undefined,
      { maxEventSize: bounds.eventSize }
    )
  }

  /** An event, which is JSON within the bounds. */
  protected abstract onEvent(json: unknown, data: string): void

  /** The last parts of the answer, or why it is none after all. Called once, when nothing more is to come. */
  protected abstract finish(reason: string): Result.Result<ReadonlyArray<Part>, AiError.AiError>

  /** Whether all of the answer is there, so that nothing that follows can matter. */
  get isComplete(): boolean {
    return this.sealed
  }

  /** Whether the provider said why the answer ends, so that only counts can follow. */
  get isEnding(): boolean {
    return this.reason !== undefined
  }

  /** Why it is no answer. Parts that came before are still to be taken. */
  get failure(): AiError.AiError | undefined {
    return this.failed
  }

  /** Takes in what arrived. */
  feed(bytes: Uint8Array): void {
    if (this.sealed || this.failed !== undefined) return
    const tooLarge = this.parser.feed(this.decoder.decode(bytes, { stream: true }))
    if (tooLarge !== undefined) this.failTooLarge()
  }

  /** There is nothing more to come: it was the end, or the connection failed with `lost`. */
  end(lost?: AiError.AiError): void {
    if (this.sealed || this.failed !== undefined) return
    // An error is made only where it is one: with its stack it is most of what the end of a good answer would cost.
    if (this.reason !== undefined) this.seal(this.reason)
    else this.failed = lost ?? Failure.truncated(this.origin, this.answer, this.progress())
  }

  /** What is new for the consumer. Good parts come before the failure that follows them. */
  take(): ReadonlyArray<Part> {
    const { parts } = this
    this.parts = []
    this.taken += parts.length
    return parts
  }

  /** Nothing good can follow. What is complete by now stays complete. */
  protected lose(failure: AiError.AiError): void {
    if (this.reason === undefined) this.failed = failure
    else this.seal(this.reason)
  }

  protected fail(why: string): void {
    this.lose(Failure.incompatible(this.origin, this.answer, why))
  }

  /** An event of which we can make nothing. */
  protected failForeign(data: string): void {
    this.fail(`an event that is no part of an answer: ${Failure.sample(this.origin, data)}`)
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
    if (this.size > this.bounds.answerSize) this.fail(`an answer of more than ${this.bounds.answerSize} characters`)
    return content
  }

  /** A piece of a tool call. Its name counts too, or a stream of names alone would have no bound. */
  protected onToolCall(fragment: ToolCall): void {
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
    const json = Json.parse(data, this.bounds.jsonDepth)
    if (Result.isSuccess(json)) return this.onEvent(json.success, data)
    if (json.failure === "TooDeep") return this.fail(`an event nested deeper than ${this.bounds.jsonDepth} levels`)
    this.lose(Failure.malformed(this.origin, this.answer, data))
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

/** Whether the model was stopped before it was done. */
export const isIncomplete = (reason: Response.FinishReason): boolean =>
  reason === "length" || reason === "content-filter"
