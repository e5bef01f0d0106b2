import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { RequestConfig } from "../../AnthropicMessages.ts"
import * as Json from "../wire/json.ts"
import { isIncomplete } from "../wire/eventReader.ts"
import * as Failure from "../wire/failure.ts"
import type { Answered, Asked } from "../wire/provider.ts"
import { ToolCalls } from "../wire/toolCalls.ts"
import * as Event from "./event.ts"

const decodeMessage = Schema.decodeUnknownResult(Event.Message)

/** Reads an answer that came in one piece. */
export const read = (
  asked: Asked<RequestConfig>,
  answered: Answered,
  body: string
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const { origin } = asked
  const { bounds, response } = answered
  const json = Json.parse(body, bounds.jsonDepth)
  if (Result.isFailure(json)) {
    return Result.fail(
      json.failure === "TooDeep"
        ? Failure.incompatible(origin, response, `an answer nested deeper than ${bounds.jsonDepth} levels`)
        : Failure.notJson(origin, response, body)
    )
  }
  const message = decodeMessage(json.success)
  if (Result.isSuccess(message)) {
    const { content, error } = message.success
    if (error !== undefined && error !== null) return Result.fail(Failure.fromStream(origin, response, error, body))
    if (content !== undefined && content !== null) return toParts(asked, answered, message.success, content)
  }
  return Result.fail(Failure.incompatible(origin, response, `no message: ${Failure.sample(origin, body)}`))
}

const toParts = (
  { call, config, origin }: Asked<RequestConfig>,
  { bounds, newId }: Answered,
  message: Event.Message,
  content: ReadonlyArray<Event.Block>
): Result.Result<Array<Response.PartEncoded>, AiError.AiError> => {
  const { responseFormat } = call
  const answerTool = responseFormat.type === "json" && config.objects === "tool" ? responseFormat.objectName : undefined
  const parts: Array<Response.PartEncoded> = [Event.metadata(message)]
  let calls = 0
  const toolCalls = new ToolCalls(() => `${newId}_${calls++}`)
  let answered = false
  for (const [index, block] of content.entries()) {
    switch (block.type) {
      case "text":
        // Beside a tool that is the answer, text is talk.
        if (block.text && answerTool === undefined) parts.push({ type: "text", text: block.text })
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
        if (block.name === answerTool && answerTool !== undefined) {
          answered = true
          parts.push({ type: "text", text: JSON.stringify(block.input ?? {}) })
        } else {
          const fragment = { name: block.name, arguments: JSON.stringify(block.input ?? {}) }
          toolCalls.add({ index, id: block.id, function: fragment }, [])
        }
        break
    }
  }
  const sent = message.stop_reason ? Event.finishReason(message.stop_reason) : "unknown"
  const reason = answered && sent === "tool-calls" ? "stop" : sent
  return Result.map(toolCalls.finish(origin, isIncomplete(reason), bounds.jsonDepth), ({ whole }) => {
    const usage = new Event.Usage().add(message.usage).encoded()
    return [...parts, ...whole, { type: "finish", reason, usage, response: undefined }]
  })
}
