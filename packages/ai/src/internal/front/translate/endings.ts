import type { Ending } from "../../wire/finishReason.ts"

// Both wires' words are read by the one table of finish reasons, which also knows the words of other APIs that gateways forward.

interface Words {
  readonly chat: "stop" | "length" | "tool_calls" | "content_filter"
  readonly messages: "end_turn" | "max_tokens" | "tool_use" | "refusal"
}

const words: { readonly [_ in Ending]: Words } = {
  "stop": { chat: "stop", messages: "end_turn" },
  "length": { chat: "length", messages: "max_tokens" },
  "tool-calls": { chat: "tool_calls", messages: "tool_use" },
  "content-filter": { chat: "content_filter", messages: "refusal" },
  // A pause of tools that the provider runs. Requests with such tools are not translated.
  "pause": { chat: "stop", messages: "end_turn" },
  "other": { chat: "stop", messages: "end_turn" },
  "unknown": { chat: "stop", messages: "end_turn" },
  // The provider withheld the answer. No word for success may follow. The guard ends an answer with `error` before it comes here.
  "bad-call": { chat: "content_filter", messages: "refusal" },
  "error": { chat: "content_filter", messages: "refusal" }
}

/** The words for the end of an answer. Clients run tools only if it says so, which some servers forget. */
const wordsOf = (ending: Ending, hasCalls: boolean): Words =>
  words[hasCalls && (ending === "stop" || ending === "other") ? "tool-calls" : ending]

export const toChat = (ending: Ending, hasCalls: boolean): Words["chat"] => wordsOf(ending, hasCalls).chat

export const toMessages = (ending: Ending, hasCalls: boolean): Words["messages"] => wordsOf(ending, hasCalls).messages
