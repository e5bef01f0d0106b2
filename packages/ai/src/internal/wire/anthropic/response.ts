import * as BoundedJson from "@sluice/core/BoundedJson"
import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import type { RequestConfig } from "../../../AnthropicMessages.ts"
import * as Echo from "../echo.ts"
import * as ErrorIn from "../errorIn.ts"
import * as Failure from "../failure.ts"
import { finishReason, isIncomplete, sentReason } from "../finishReason.ts"
import * as Json from "../json.ts"
import { ToolCalls } from "../toolCalls.ts"
import type { WireRequest, WireResponse } from "../wire.ts"
import * as Event from "./event.ts"

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
  const message = Json.object(json.success)
  const content = Event.blocksOf(message?.["content"])
  const error = message !== undefined && content !== undefined && content.length > 0
    ? ErrorIn.inField(message)
    : ErrorIn.asWhole(json.success)
  if (error !== undefined) return Result.fail(Failure.fromStream(origin, response, error, body))
  return message === undefined || content === undefined
    ? Result.fail(Failure.incompatible(origin, response, `not a message: ${Failure.sample(origin, body)}`))
    : toParts(request, received, message, content)
}

const toParts = (
  { call, config, origin }: WireRequest<RequestConfig>,
  { bounds, newId, response }: WireResponse,
  message: Json.JsonObject,
  content: ReadonlyArray<Json.JsonObject>
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const { responseFormat } = call
  const objectTool = responseFormat.type === "json" && config.objects === "tool" ? responseFormat.objectName : undefined
  const stop = sentReason(message["stop_reason"])
  const sent = stop === undefined ? "unknown" : finishReason(stop)
  if (sent === "error") return Result.fail(ErrorIn.brokeOff(origin, response, stop ?? ""))
  if (sent === "bad-call") return Result.fail(ErrorIn.badCall(origin))
  const parts: Array<Response.PartEncoded> = [new Event.Head().add(message).metadata()]
  const toolCalls = new ToolCalls(newId)
  let hasObject = false
  for (const block of content) {
    switch (block["type"]) {
      case "text": {
        const text = Event.textOf(block["text"])
        // If a tool carries the object, text is commentary.
        if (text !== "" && objectTool === undefined) parts.push({ type: "text", text })
        break
      }
      case "thinking": {
        const signature = Event.textOf(block["signature"])
        const metadata = signature === "" ? Echo.metadata(origin.provider, {}) : Event.thought(signature)
        parts.push({ type: "reasoning", text: Event.textOf(block["thinking"]), metadata })
        break
      }
      case "redacted_thinking":
        parts.push({ type: "reasoning", text: "", metadata: Event.hiddenThought(Event.textOf(block["data"])) })
        break
      case "tool_use": {
        const input = Event.inputOf(block["input"])
        if (block["name"] === objectTool && objectTool !== undefined) {
          hasObject = true
          parts.push({ type: "text", text: input ?? "{}" })
        } else {
          toolCalls.addWhole({ id: Json.text(block["id"]), name: Json.text(block["name"]), arguments: input })
        }
        break
      }
    }
  }
  const reason = hasObject && sent === "tool-calls" ? "stop" : sent
  return Result.map(toolCalls.finish(origin, isIncomplete(reason), bounds.jsonDepth), ({ whole }) => {
    const usage = new Event.Usage().addFrom(message).encoded()
    return [...parts, ...whole, { type: "finish", reason, usage, response: undefined }]
  })
}
