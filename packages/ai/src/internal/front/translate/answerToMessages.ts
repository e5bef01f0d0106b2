import { finishReason, sentReason } from "../../wire/finishReason.ts"
import * as Json from "../../wire/json.ts"
import * as Chunk from "../../wire/openai/chunk.ts"
import * as Content from "../../wire/openai/content.ts"
import * as Endings from "./endings.ts"
import { inputOf } from "./requestToMessages.ts"
import { ChatUsage, toMessages } from "./usage.ts"

export interface Options {
  /** The id of an answer without one. */
  readonly id: string
}

/** An answer of chat completions as one of messages. `undefined`: it is no answer, or has a tool call that cannot be read. */
export const answerToMessages = (answer: unknown, options: Options): Json.JsonObject | undefined => {
  const json = Json.object(answer)
  const choice = json === undefined ? undefined : Chunk.choicesOf(json)?.[0]
  const message = choice === undefined ? undefined : Chunk.messageOf(choice)
  const sent = sentReason(choice?.["finish_reason"])
  if (json === undefined || choice === undefined || message === undefined || sent === undefined) return undefined
  const ending = finishReason(sent)
  const id = Json.text(json["id"]) ?? options.id
  const content: Array<Json.JsonObject> = []
  const thought = Content.thoughtIn(message)?.text ?? ""
  if (thought !== "") content.push(thinking(thought))
  for (const { kind, text } of Content.pieces(message["content"])) {
    if (text !== "") content.push(kind === "reasoning" ? thinking(text) : { type: "text", text })
  }
  const refusal = Json.text(message["refusal"])
  if (refusal !== undefined) content.push({ type: "text", text: refusal })
  const calls = Chunk.toolCallsOf(message)
  for (const [i, call] of calls.entries()) {
    // The last call of an answer that was cut may be half. A client does not run the calls of such an answer.
    const input = inputOf(call.arguments ?? "") ?? (ending === "length" ? {} : undefined)
    if (call.name === undefined || input === undefined) return undefined
    content.push({ type: "tool_use", id: call.id ?? `${id}_${i}`, name: call.name, input })
  }
  return {
    id,
    type: "message",
    role: "assistant",
    model: Json.text(json["model"]) ?? "",
    content,
    stop_reason: refusal === undefined ? Endings.toMessages(ending, calls.length > 0) : "refusal",
    stop_sequence: null,
    usage: toMessages(new ChatUsage().add(json, choice).counts)
  }
}

// Only Anthropic signs thoughts.
const thinking = (text: string): Json.JsonObject => ({ type: "thinking", thinking: text, signature: "" })
