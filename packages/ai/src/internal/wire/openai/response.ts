import * as BoundedJson from "@sluice/core/BoundedJson"
import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { RequestConfig } from "../config.ts"
import * as Chunk from "./chunk.ts"
import { isIncomplete } from "../eventReader.ts"
import * as Failure from "../failure.ts"
import { ToolCalls } from "../toolCalls.ts"
import type { WireRequest, WireResponse } from "../wire.ts"

const decodeCompletion = Schema.decodeUnknownResult(Chunk.Completion)

/** Reads a whole response. */
export const read = (
  { origin }: Pick<WireRequest<RequestConfig>, "origin">,
  received: WireResponse,
  body: string
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const { bounds, response } = received
  const json = BoundedJson.parse(body, bounds.jsonDepth)
  if (Result.isFailure(json)) {
    return Result.fail(
      json.failure === "TooDeep"
        ? Failure.incompatible(origin, response, `a response nested deeper than ${bounds.jsonDepth} levels`)
        : Failure.notJson(origin, response, body)
    )
  }
  const completion = decodeCompletion(json.success)
  if (Result.isSuccess(completion)) {
    const { choices, error } = completion.success
    if (error !== undefined && error !== null) return Result.fail(Failure.fromStream(origin, response, error, body))
    const choice = choices?.[0]
    if (choice !== undefined) return toParts(origin, received, completion.success, choice)
  }
  return Result.fail(Failure.incompatible(origin, response, `not a chat completion: ${Failure.sample(origin, body)}`))
}

const toParts = (
  origin: Failure.Origin,
  { bounds, newId, response }: WireResponse,
  head: Chunk.Completion,
  choice: Chunk.Choice
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const { finish_reason, message } = choice
  if (message.refusal) return Result.fail(Failure.refused(origin, response, message.refusal))

  const reason = finish_reason ? Chunk.finishReason(finish_reason) : "unknown"
  if (reason === "error") return Result.fail(Failure.endedInError(origin, response))
  const toolCalls = new ToolCalls(newId)
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
