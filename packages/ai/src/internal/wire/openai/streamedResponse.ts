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
import { Thoughts } from "./thoughts.ts"
import { Usage } from "./usage.ts"

/** Reads a streamed chat completion. */
export class StreamedResponse extends EventReader {
  private readonly head = new Chunk.Head()
  private readonly usage = new Usage()
  private readonly thoughts: Thoughts
  private hasHead = false
  private refusal = ""

  constructor(origin: Failure.Origin, response: Failure.ResponseHead, bounds: Bounds, newId: string) {
    super(origin, response, bounds, newId)
    this.thoughts = new Thoughts(origin.provider)
  }

  protected onEvent(json: unknown, data: string, name: string): void {
    if (!Json.isObject(json)) return this.onOther(json, data)
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

  private onOther(json: unknown, data: string): void {
    const error = ErrorIn.asWhole(json)
    return error === undefined ? this.failForeign(data) : this.onError(error, data)
  }

  private onError(error: unknown, data: string): void {
    this.lose(Failure.fromStream(this.origin, this.response, error, data))
  }

  private onChoice(choice: Json.JsonObject, data: string): void {
    const message = Chunk.messageOf(choice, true)
    const error = ErrorIn.inField(choice) ?? (message === undefined ? undefined : ErrorIn.inField(message))
    if (error !== undefined) return this.onError(error, data)
    if (message !== undefined) this.onMessage(message)
    const sent = sentReason(choice["finish_reason"])
    if (sent !== undefined) this.onFinish(sent)
  }

  private onMessage(message: Json.JsonObject): void {
    const { content, refusal } = message
    const thought = this.thoughts.read(message)
    if (message["reasoning_details"] !== undefined) this.addSize(Thoughts.sizeOf(message))
    this.onContent("reasoning", thought)
    // Details without a text, such as a thought that only the provider can read, need a part to be kept in.
    if (this.thoughts.hasDetails && this.openKind !== "reasoning") this.begin("reasoning")
    if (typeof content === "string") this.onContent("text", content)
    else if (content !== null && content !== undefined) {
      for (const { kind, text } of Content.pieces(content)) {
        if (kind === "refusal") this.onRefusal(text)
        else this.onContent(kind, text)
      }
    }
    if (typeof refusal === "string") this.onRefusal(refusal)
    if (message["tool_calls"] || message["function_call"]) {
      for (const fragment of Chunk.toolCallsOf(message)) this.onToolCall(fragment)
    }
  }

  private onRefusal(text: string): void {
    if (text === "") return
    this.onMore()
    this.refusal += this.count(text)
  }
}
