import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Sse from "effect/encoding/Sse"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Json from "../json.ts"
import type { Bounds } from "./bounds.ts"
import * as Chunk from "./chunk.ts"
import * as Failure from "./failure.ts"
import { ToolCalls } from "./toolCalls.ts"

const decodeChunk = Schema.decodeUnknownResult(Chunk.Chunk)

type Part = Response.StreamPartEncoded
type Kind = "text" | "reasoning"

/**
 * Reads a streamed answer: bytes in, parts out.
 *
 * It has ended well as soon as a finish reason was seen, even if the connection is lost after that; only the usage, which
 * comes last, may then be missing. Without a finish reason it has not, however tidily the connection was closed.
 */
export class StreamedAnswer {
  private readonly origin: Failure.Origin
  private readonly answer: Failure.Answer
  private readonly bounds: Bounds
  private readonly decoder = new TextDecoder()
  private readonly parser: Sse.Parser
  private readonly toolCalls: ToolCalls

  private parts: Array<Part> = []
  private failed: AiError.AiError | undefined
  private events = 0
  private size = 0
  private hasHead = false
  private open: { readonly kind: Kind; readonly id: string } | undefined
  private blocks = 0
  private refusal = ""
  private reason: string | undefined
  private usage: unknown
  private sealed = false

  constructor(origin: Failure.Origin, answer: Failure.Answer, bounds: Bounds, newId: string) {
    this.origin = origin
    this.answer = answer
    this.bounds = bounds
    let calls = 0
    this.toolCalls = new ToolCalls(() => `${newId}_${calls++}`)
    this.parser = Sse.makeParser(
      // Servers that set a `retry` mean browsers, which would ask again by themselves.
      (event) => event._tag === "Event" ? this.onEvent(event.data) : undefined,
      { maxEventSize: bounds.eventSize }
    )
  }

  /** Whether all of the answer is there, so that nothing that follows can matter. */
  get isComplete(): boolean {
    return this.sealed
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
    this.lose(lost ?? Failure.truncated(this.origin, this.answer, this.events))
  }

  /** What is new for the consumer. Good parts come before the failure that follows them. */
  take(): ReadonlyArray<Part> {
    const { parts } = this
    this.parts = []
    return parts
  }

  /** Nothing good can follow. What is complete by now stays complete. */
  private lose(failure: AiError.AiError): void {
    if (this.reason === undefined) this.failed = failure
    else this.seal(this.reason)
  }

  private fail(why: string): void {
    this.lose(Failure.incompatible(this.origin, this.answer, why))
  }

  private failTooLarge(): void {
    this.fail(`an event of more than ${this.bounds.eventSize} characters`)
  }

  private onEvent(data: string): void {
    if (this.sealed || this.failed !== undefined) return
    if (data.startsWith("[DONE]")) return this.end()
    this.events++
    if (data.length > this.bounds.eventSize) return this.failTooLarge()
    const json = Json.parse(data, this.bounds.jsonDepth)
    if (Result.isFailure(json)) {
      if (json.failure === "TooDeep") return this.fail(`an event nested deeper than ${this.bounds.jsonDepth} levels`)
      return this.lose(Failure.malformed(this.origin, this.answer, data))
    }
    const chunk = decodeChunk(json.success)
    if (Result.isFailure(chunk)) {
      return this.fail(`an event that is no part of an answer: ${Failure.sample(this.origin, data)}`)
    }
    const { error } = chunk.success
    if (error === undefined || error === null) return this.onChunk(chunk.success)
    this.lose(Failure.inBand(this.origin, this.answer, error, data))
  }

  private onChunk(chunk: Chunk.Chunk): void {
    if (!this.hasHead) {
      this.hasHead = true
      this.parts.push(Chunk.metadata(chunk))
    }
    if (chunk.usage !== undefined && chunk.usage !== null) this.usage = chunk.usage
    for (const choice of chunk.choices ?? []) {
      // We ask for one answer. More come only to who asks for them in the body, and would be mixed up here.
      if ((choice.index ?? 0) !== 0) continue
      if (choice.delta) this.onDelta(choice.delta)
      if (choice.finish_reason) this.reason = choice.finish_reason
    }
  }

  private onDelta(delta: Chunk.Message): void {
    this.onContent("reasoning", Chunk.reasoning(delta))
    this.onContent("text", delta.content ?? "")
    this.refusal += this.count(delta.refusal ?? "")
    for (const fragment of delta.tool_calls ?? []) {
      this.close()
      this.count(fragment.function?.arguments ?? "")
      this.toolCalls.add(fragment, this.parts)
    }
  }

  private onContent(kind: Kind, delta: string): void {
    if (delta === "") return
    this.count(delta)
    if (this.open?.kind !== kind) {
      this.close()
      this.open = { kind, id: String(this.blocks++) }
      this.parts.push({ type: `${kind}-start`, id: this.open.id })
    }
    this.parts.push({ type: `${kind}-delta`, id: this.open.id, delta })
  }

  private close(): void {
    if (this.open === undefined) return
    this.parts.push({ type: `${this.open.kind}-end`, id: this.open.id })
    this.open = undefined
  }

  private count(content: string): string {
    this.size += content.length
    if (this.size > this.bounds.answerSize) this.fail(`an answer of more than ${this.bounds.answerSize} characters`)
    return content
  }

  /** The last parts, once everything else is known. */
  private seal(sent: string): void {
    this.close()
    const reason = Chunk.finishReason(sent)
    if (this.refusal !== "") this.failed = Failure.refused(this.origin, this.answer, this.refusal)
    else if (reason === "error") this.failed = Failure.endedInError(this.origin, this.answer)
    else this.addEnd(reason)
  }

  private addEnd(reason: Response.FinishReason): void {
    const calls = this.toolCalls.finish(this.origin, isIncomplete(reason), this.bounds.jsonDepth)
    if (Result.isFailure(calls)) {
      this.failed = calls.failure
      return
    }
    this.parts.push(...calls.success.parts, {
      type: "finish",
      reason,
      usage: Chunk.usage(this.usage),
      response: undefined
    })
    this.sealed = true
  }
}

/** Whether the model was stopped before it was done. */
export const isIncomplete = (reason: Response.FinishReason): boolean =>
  reason === "length" || reason === "content-filter"
