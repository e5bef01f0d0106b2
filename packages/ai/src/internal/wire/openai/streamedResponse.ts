import type * as AiError from "effect/ai/AiError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Chunk from "./chunk.ts"
import { EventReader, isIncomplete, type Part } from "../eventReader.ts"
import * as Failure from "../failure.ts"

const decodeChunk = Schema.decodeUnknownResult(Chunk.Chunk)

/** Reads a streamed chat completion. */
export class StreamedResponse extends EventReader {
  private hasHead = false
  private refusal = ""
  private usage: unknown

  protected onEvent(json: unknown, data: string): void {
    const chunk = decodeChunk(json)
    if (Result.isFailure(chunk)) return this.failForeign(data)
    const { error } = chunk.success
    if (error === undefined || error === null) return this.onChunk(chunk.success)
    this.lose(Failure.fromStream(this.origin, this.response, error, data))
  }

  protected finish(sent: string): Result.Result<ReadonlyArray<Part>, AiError.AiError> {
    const reason = Chunk.finishReason(sent)
    if (this.refusal !== "") return Result.fail(Failure.refused(this.origin, this.response, this.refusal))
    if (reason === "error") return Result.fail(Failure.endedInError(this.origin, this.response))
    return Result.map(
      this.toolCalls.finish(this.origin, isIncomplete(reason), this.bounds.jsonDepth),
      ({ parts }) => [...parts, { type: "finish", reason, usage: Chunk.usage(this.usage), response: undefined }]
    )
  }

  private onChunk(chunk: Chunk.Chunk): void {
    if (!this.hasHead) {
      this.hasHead = true
      this.parts.push(Chunk.metadata(chunk))
    }
    if (chunk.usage !== undefined && chunk.usage !== null) this.usage = chunk.usage
    for (const choice of chunk.choices ?? []) {
      // This module requests one choice. More come only if `config.body` requests them, and would be mixed up here.
      if ((choice.index ?? 0) !== 0) continue
      if (choice.delta) this.onDelta(choice.delta)
      if (choice.finish_reason) this.reason = choice.finish_reason
    }
  }

  private onDelta(delta: Chunk.Message): void {
    this.onContent("reasoning", Chunk.reasoning(delta))
    this.onContent("text", delta.content ?? "")
    this.refusal += this.count(delta.refusal ?? "")
    for (const fragment of delta.tool_calls ?? []) this.onToolCall(fragment)
  }
}
