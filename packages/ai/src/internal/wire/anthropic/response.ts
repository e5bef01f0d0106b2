import * as BoundedJson from "@sluice/core/BoundedJson"
import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { RequestConfig } from "../../../AnthropicMessages.ts"
import { isIncomplete } from "../eventReader.ts"
import * as Failure from "../failure.ts"
import type { WireRequest, WireResponse } from "../wire.ts"
import { ToolCalls } from "../toolCalls.ts"
import * as Event from "./event.ts"

const decodeMessage = Schema.decodeUnknownResult(Event.Message)

/** Reads a whole response. */
export const read = (
  request: WireRequest<RequestConfig>,
  received: WireResponse,
  body: string
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const { origin } = request
  const { bounds, response } = received
  const json = BoundedJson.parse(body, bounds.jsonDepth)
  if (Result.isFailure(json)) {
    return Result.fail(
      json.failure === "TooDeep"
        ? Failure.incompatible(origin, response, `a response nested deeper than ${bounds.jsonDepth} levels`)
        : Failure.notJson(origin, response, body)
    )
  }
  const message = decodeMessage(json.success)
  if (Result.isSuccess(message)) {
    const { content, error } = message.success
    if (error !== undefined && error !== null) return Result.fail(Failure.fromStream(origin, response, error, body))
    if (content !== undefined && content !== null) return toParts(request, received, message.success, content)
  }
  return Result.fail(Failure.incompatible(origin, response, `not a message: ${Failure.sample(origin, body)}`))
}

const toParts = (
  { call, config, origin }: WireRequest<RequestConfig>,
  { bounds, newId }: WireResponse,
  message: Event.Message,
  content: ReadonlyArray<Event.Block>
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const { responseFormat } = call
  const objectTool = responseFormat.type === "json" && config.objects === "tool" ? responseFormat.objectName : undefined
  const parts: Array<Response.PartEncoded> = [Event.metadata(message)]
  const toolCalls = new ToolCalls(newId)
  let hasObject = false
  for (const [index, block] of content.entries()) {
    switch (block.type) {
      case "text":
        // If a tool carries the object, text is commentary.
        if (block.text && objectTool === undefined) parts.push({ type: "text", text: block.text })
        break
      case "thinking": {
        const metadata = block.signature ? { metadata: Event.thought(block.signature) } : {}
        parts.push({ type: "reasoning", text: block.thinking ?? "", ...metadata })
        break
      }
      case "redacted_thinking":
        parts.push({ type: "reasoning", text: "", metadata: Event.hiddenThought(block.data ?? "") })
        break
      case "tool_use":
        if (block.name === objectTool && objectTool !== undefined) {
          hasObject = true
          parts.push({ type: "text", text: JSON.stringify(block.input ?? {}) })
        } else {
          const fragment = { name: block.name, arguments: JSON.stringify(block.input ?? {}) }
          toolCalls.add({ index, id: block.id, function: fragment }, [])
        }
        break
    }
  }
  const sent = message.stop_reason ? Event.finishReason(message.stop_reason) : "unknown"
  const reason = hasObject && sent === "tool-calls" ? "stop" : sent
  return Result.map(toolCalls.finish(origin, isIncomplete(reason), bounds.jsonDepth), ({ whole }) => {
    const usage = new Event.Usage().add(message.usage).encoded()
    return [...parts, ...whole, { type: "finish", reason, usage, response: undefined }]
  })
}
