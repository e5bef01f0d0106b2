import type * as Response from "effect/ai/Response"
import * as Json from "./json.ts"

/**
 * The end of an answer. `error`: the provider failed. `bad-call`: the provider could not read the model's tool call, and
 * discarded it.
 */
export type Ending = Response.FinishReason | "bad-call"

// One table for both wires: gateways forward the reasons of other APIs.
const endings = new Map<string, Ending>()
const add = (ending: Ending, words: string) => {
  for (const word of words.split(" ")) endings.set(word, ending)
}
add("stop", "stop end_turn stop_sequence stop_token eos eos_token end_of_text end complete completed done finished")
add("length", "length max_tokens max_length max_output_tokens max_new_tokens max_completion_tokens token_limit limit")
add("length", "model_length model_context_window_exceeded context_length_exceeded error_limit incomplete truncated")
add("content-filter", "content_filter content_filtered filtered refusal safety recitation blocklist prohibited_content")
add("content-filter", "spii image_safety image_prohibited_content image_recitation language model_armor error_toxic")
add("content-filter", "guardrail_intervened sensitive")
add("tool-calls", "tool_calls tool_call tool_use function_call function_calls")
add("pause", "pause_turn pause")
add("error", "error network_error insufficient_system_resource abort aborted cancelled canceled timeout failed failure")
add("error", "interrupted overloaded service_unavailable unavailable model_error user_cancel")
add(
  "bad-call",
  "function_call_filter malformed_function_call malformed_tool_call malformed_response unexpected_tool_call"
)
add(
  "bad-call",
  "too_many_tool_calls missing_thought_signature malformed_model_output malformed_tool_use invalid_function_call"
)

/** The finish reason in the answer: a string, or an object or array that has it. */
export const sentReason = (value: unknown): string | undefined => {
  if (typeof value === "string") return value === "" ? undefined : value
  if (Array.isArray(value)) return sentReason(value[0])
  return Json.isObject(value) ? sentReason(value["type"] ?? value["reason"]) : undefined
}

/** Reads a finish reason in any case and spelling, such as `MAX_TOKENS`, `FinishReason.STOP` and `endTurn`. */
export const finishReason = (sent: string): Ending => endings.get(sent) ?? ofWord(sent)

const ofWord = (sent: string): Ending => {
  const word = sent.trim()
    .replace(/([a-z])([A-Z])/g, "$1_$2")
    .toLowerCase()
    .replace(/[\s-]+/g, "_")
    .replace(/^finish_?reason[._]/, "")
  const known = endings.get(word)
  if (known !== undefined) return known
  // A reason with a detail, such as `function_call_filter: MALFORMED_FUNCTION_CALL`.
  const [kind, detail] = word.split(/:_*/, 2)
  const split = detail === undefined ? undefined : endings.get(detail) ?? endings.get(kind ?? "")
  if (split !== undefined) return split
  return /(^|_)error(_|$)/.test(word) ? "error" : "other"
}

/** Whether the model was cut off. */
export const isIncomplete = (ending: Ending): boolean => ending === "length" || ending === "content-filter"

const ranks: { readonly [_ in Ending]: number } = {
  "unknown": 0,
  "other": 0,
  "stop": 1,
  "pause": 2,
  "tool-calls": 2,
  "content-filter": 3,
  "length": 3,
  "bad-call": 4,
  "error": 5
}

/** The more specific reason. Some servers send a `stop` after `tool_calls`, for the end of the stream. */
export const stronger = (first: Ending, second: Ending): Ending => ranks[second] > ranks[first] ? second : first
