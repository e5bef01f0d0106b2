import * as Event from "../../wire/anthropic/event.ts"
import { finishReason, sentReason } from "../../wire/finishReason.ts"
import * as Json from "../../wire/json.ts"
import * as Endings from "./endings.ts"
import { MessagesUsage, toChat } from "./usage.ts"

/** What an answer of messages does not have. */
export interface Options {
  /** In epoch seconds. */
  readonly created: number
  /** The id of an answer without one. */
  readonly id: string
}

/** An answer of messages as one of chat completions. `undefined`: it is no answer, or has a tool call that cannot be read. */
export const answerToChat = (answer: unknown, options: Options): Json.JsonObject | undefined => {
  const message = Json.object(answer)
  const blocks = Event.blocksOf(message?.["content"])
  const stop = sentReason(message?.["stop_reason"])
  if (message === undefined || blocks === undefined || stop === undefined) return undefined
  let text = ""
  let thought = ""
  const calls: Array<object> = []
  for (const block of blocks) {
    switch (block["type"]) {
      case "text":
        text += Event.textOf(block["text"])
        break
      case "thinking":
        thought += Event.textOf(block["thinking"])
        break
      case "tool_use": {
        const name = Json.text(block["name"])
        if (name === undefined) return undefined
        calls.push({
          id: Json.text(block["id"]) ?? `${options.id}_${calls.length}`,
          type: "function",
          function: { name, arguments: Event.inputOf(block["input"]) ?? "{}" }
        })
        break
      }
    }
  }
  return {
    id: Json.text(message["id"]) ?? options.id,
    object: "chat.completion",
    created: options.created,
    model: Json.text(message["model"]) ?? "",
    choices: [{
      index: 0,
      message: {
        role: "assistant",
        content: text === "" && calls.length > 0 ? null : text,
        refusal: null,
        ...(thought === "" ? {} : { reasoning_content: thought }),
        ...(calls.length === 0 ? {} : { tool_calls: calls })
      },
      logprobs: null,
      finish_reason: Endings.toChat(finishReason(stop), calls.length > 0)
    }],
    usage: toChat(new MessagesUsage().add(message).counts)
  }
}
