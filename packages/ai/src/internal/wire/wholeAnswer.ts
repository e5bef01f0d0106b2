import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Json from "./json.ts"
import type { Bounds } from "./bounds.ts"
import * as Chunk from "./chunk.ts"
import { isIncomplete } from "./eventReader.ts"
import * as Failure from "./failure.ts"
import { ToolCalls } from "./toolCalls.ts"

const decodeCompletion = Schema.decodeUnknownResult(Chunk.Completion)

/** Reads an answer that came in one piece. */
export const read = (
  origin: Failure.Origin,
  answer: Failure.Answer,
  bounds: Bounds,
  newId: string,
  body: string
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const json = Json.parse(body, bounds.jsonDepth)
  if (Result.isFailure(json)) {
    return Result.fail(
      json.failure === "TooDeep"
        ? Failure.incompatible(origin, answer, `an answer nested deeper than ${bounds.jsonDepth} levels`)
        : Failure.notJson(origin, answer, body)
    )
  }
  const completion = decodeCompletion(json.success)
  if (Result.isSuccess(completion)) {
    const { choices, error } = completion.success
    if (error !== undefined && error !== null) return Result.fail(Failure.fromStream(origin, answer, error, body))
    const choice = choices?.[0]
    if (choice !== undefined) return toParts(origin, answer, bounds, newId, completion.success, choice)
  }
  return Result.fail(Failure.incompatible(origin, answer, `no chat completion: ${Failure.sample(origin, body)}`))
}

const toParts = (
  origin: Failure.Origin,
  answer: Failure.Answer,
  bounds: Bounds,
  newId: string,
  head: Chunk.Completion,
  choice: Chunk.Choice
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const { finish_reason, message } = choice
  if (message.refusal) return Result.fail(Failure.refused(origin, answer, message.refusal))

  const reason = finish_reason ? Chunk.finishReason(finish_reason) : "unknown"
  if (reason === "error") return Result.fail(Failure.endedInError(origin, answer))
  let calls = 0
  const toolCalls = new ToolCalls(() => `${newId}_${calls++}`)
  for (const call of message.tool_calls ?? []) toolCalls.add(call, [])

  const parts: Array<Response.PartEncoded> = [Chunk.metadata(head)]
  const reasoning = Chunk.reasoning(message)
  if (reasoning !== "") parts.push({ type: "reasoning", text: reasoning })
  if (message.content) parts.push({ type: "text", text: message.content })
  return Result.map(toolCalls.finish(origin, isIncomplete(reason), bounds.jsonDepth), ({ whole }) => {
    parts.push(...whole, { type: "finish", reason, usage: Chunk.usage(head.usage), response: undefined })
    return parts
  })
}
