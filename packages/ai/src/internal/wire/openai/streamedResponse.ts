import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import type { Bounds } from "../bounds.ts"
import * as ErrorIn from "../errorIn.ts"
import { EventReader, type Part } from "../eventReader.ts"
import * as Failure from "../failure.ts"
import { sentReason } from "../finishReason.ts"
import * as Json from "../json.ts"
import * as Chunk from "./chunk.ts"
import * as Content from "./content.ts"
import type { ToolCallFragment } from "../toolCalls.ts"
import { Thoughts } from "./thoughts.ts"
import { Usage } from "./usage.ts"

/**
 * Reads a streamed chat completion.
 *
 * Some servers send a `message` in a stream: a piece of the answer where a delta belongs, all of it so far with each event, or all
 * of it after the deltas. Text that was sent before is not emitted again.
 */
export class StreamedResponse extends EventReader {
  private readonly head = new Chunk.Head()
  private readonly usage = new Usage()
  private readonly thoughts: Thoughts
  private hasHead = false
  private refusal = ""
  /** The text so far, by kind. */
  private readonly sent = { text: new Sent(), reasoning: new Sent(), refusal: new Sent() }
  private hasCallDeltas = false

  constructor(origin: Failure.Origin, response: Failure.ResponseHead, bounds: Bounds, newId: string) {
    super(origin, response, bounds, newId)
    this.thoughts = new Thoughts(origin.provider)
  }

  protected onEvent(json: unknown, data: string, name: string): void {
    if (!Json.isObject(json)) return this.onOther(json, data)
    if (this.openKind === "text" && name === "message") {
      const text = Chunk.plainText(json)
      if (text !== undefined) {
        this.learn(data, text, (json) => Json.isObject(json) ? Chunk.plainText(json) : undefined)
        return this.onPiece("text", text, true)
      }
    }
    const error = ErrorIn.inField(json)
    if (error !== undefined) return this.onError(error, data)
    if (name === "error") return this.onError(ErrorIn.asWhole(json) ?? json, data)
    const choices = Chunk.choicesOf(json)
    if (choices === undefined) return this.failForeign(data)
    this.head.add(json)
    this.usage.add(json, choices[0])
    if (choices.length === 0) {
      const whole = json["choices"] === undefined || json["choices"] === null ? ErrorIn.asWhole(json) : undefined
      if (whole !== undefined) return this.onError(whole, data)
    }
    const from = this.parts.length
    for (const choice of choices) this.onChoice(choice, data)
    if (!this.hasHead && (this.head.isWhole || this.parts.length > from)) {
      this.hasHead = true
      this.parts.splice(from, 0, this.head.metadata())
    }
  }

  protected override onText(text: string, name: string): boolean {
    if (this.openKind !== "text" || name !== "message") return false
    this.onPiece("text", text, true)
    return true
  }

  protected finish(reason: Response.FinishReason): Result.Result<ReadonlyArray<Part>, AiError.AiError> {
    if (this.refusal !== "") return Result.fail(Failure.refused(this.origin, this.response, this.refusal))
    const head = this.hasHead ? [] : [this.head.metadata()]
    return Result.map(this.finishToolCalls(reason), ({ parts }) => [
      ...head,
      ...parts,
      { type: "finish", reason, usage: this.usage.encoded(), response: undefined }
    ])
  }

  protected override endMetadata(): Response.ReasoningEndPartEncoded["metadata"] {
    return this.openKind === "reasoning" ? this.thoughts.take() : undefined
  }

  protected hasNoContent(beginning: string): boolean {
    return /^data: ?(?:"?\[|\{.*"choices"\s*:\s*(?:\[\s*\]|null))/.test(beginning)
  }

  private onOther(json: unknown, data: string): void {
    const error = ErrorIn.asWhole(json)
    return error === undefined ? this.failForeign(data) : this.onError(error, data)
  }

  private onError(error: unknown, data: string): void {
    this.lose(Failure.fromStream(this.origin, this.response, error, data))
  }

  private onChoice(choice: Json.JsonObject, data: string): void {
    const delta = Chunk.deltaOf(choice)
    const message = Json.object(choice["message"])
    const error = ErrorIn.inField(choice) ?? (delta === undefined ? undefined : ErrorIn.inField(delta)) ??
      (message === undefined ? undefined : ErrorIn.inField(message))
    if (error !== undefined) return this.onError(error, data)
    if (delta !== undefined) this.onMessage(delta, true)
    if (message !== undefined) this.onMessage(message, false)
    const sent = sentReason(choice["finish_reason"])
    if (sent !== undefined) this.onFinish(sent)
  }

  private onMessage(message: Json.JsonObject, isDelta: boolean): void {
    const { content, refusal } = message
    this.onThought(message, isDelta)
    if (typeof content === "string") this.onPiece("text", content, isDelta)
    else if (content !== null && content !== undefined) {
      if (isDelta) { for (const { kind, text } of Content.pieces(content)) this.onPiece(kind, text, true) }
      else for (const { kind, text } of Content.joined(content)) this.onPiece(kind, text, false)
    }
    if (typeof refusal === "string") this.onPiece("refusal", refusal, isDelta)
    if (message["tool_calls"] || message["function_call"]) this.onToolCalls(Chunk.toolCallsOf(message), isDelta)
  }

  private onThought(message: Json.JsonObject, isDelta: boolean): void {
    if (!isDelta && this.sent.reasoning.has) {
      return this.onPiece("reasoning", Content.thoughtIn(message)?.text ?? "", false)
    }
    const thought = this.thoughts.read(message)
    if (message["reasoning_details"] !== undefined) this.addSize(Thoughts.sizeOf(message))
    this.onPiece("reasoning", thought, isDelta)
    // Details without a text, such as an encrypted thought, need a part that keeps them.
    if (!this.thoughts.hasDetails) return
    this.sent.reasoning.has = true
    if (this.openKind !== "reasoning") this.begin("reasoning")
  }

  private onPiece(kind: "text" | "reasoning" | "refusal", text: string, isDelta: boolean): void {
    const more = this.sent[kind].more(text, isDelta)
    if (kind !== "refusal") return this.onContent(kind, more)
    if (more !== "" && this.onMore()) this.refusal += this.count(more)
  }

  private onToolCalls(fragments: ReadonlyArray<ToolCallFragment>, isDelta: boolean): void {
    if (isDelta && fragments.length > 0) this.hasCallDeltas = true
    fragments.forEach((fragment, position) => {
      if (isDelta || !this.hasCallDeltas) this.onToolCall(fragment)
      else this.onToolCall(fragment, position)
    })
  }
}

/** The text of one kind so far. */
class Sent {
  has = false
  private all = ""
  private hasDeltas = false

  /** Returns the new part of a text. A whole text after deltas can only add to the end of theirs. */
  more(text: string, isDelta: boolean): string {
    if (text === "") return ""
    this.has = true
    const more = isDelta ? text : this.moreOf(text)
    this.all += more
    if (isDelta) this.hasDeltas = true
    return more
  }

  private moreOf(text: string): string {
    if (text.startsWith(this.all)) return text.slice(this.all.length)
    return this.hasDeltas ? "" : text
  }
}
