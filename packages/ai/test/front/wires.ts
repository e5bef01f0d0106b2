import type { Wire } from "../../src/internal/front/guard.ts"

/** The bytes of one wire, as a provider writes them. */
export interface FrontWire {
  readonly wire: Wire
  readonly speaks: "openai" | "anthropic"
  readonly path: string
  /** The request of a stream. */
  readonly stream: string
  readonly whole: string
  /** The events before the first output. */
  readonly head: string
  readonly word: (text: string) => string
  /** The event that makes the answer complete. */
  readonly finish: string
  /** The events after it. */
  readonly end: string
  readonly error: string
  /** A whole answer, with a number that JSON.parse would change. */
  readonly answer: string
}

const named = (type: string, fields: object = {}): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`
const data = (event: object): string => `data: ${JSON.stringify(event)}\n\n`
const chunk = (delta: object, finish_reason: string | null = null) =>
  data({
    id: "c1",
    object: "chat.completion.chunk",
    created: 1_700_000_000,
    model: "m",
    choices: [{ index: 0, delta, finish_reason }]
  })

const request = (fields: object): string => JSON.stringify({ model: "m", ...fields })
const messages = [{ role: "user", content: "Hello" }]

export const chat: FrontWire = {
  wire: "chat",
  speaks: "openai",
  path: "/v1/chat/completions",
  stream: request({ messages, stream: true, big: 1 }).replace("\"big\":1", "\"big\":12345678901234567890,\"f\":1.0"),
  whole: request({ messages }),
  head: chunk({ role: "assistant", content: "" }),
  word: (content) => chunk({ content }),
  finish: chunk({}, "stop"),
  end: data({ id: "c1", choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } }) + "data: [DONE]\n\n",
  error: data({ error: { message: "secret words", type: "server_error", code: null, param: null } }),
  answer: "{\"id\":\"c1\",\"big\":12345678901234567890,\"f\":1.0,\"choices\":[{\"index\":0,\"message\":" +
    "{\"role\":\"assistant\",\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"new\":{},\"usage\":" +
    "{\"prompt_tokens\":3,\"completion_tokens\":4}}"
}

export const anthropic: FrontWire = {
  wire: "messages",
  speaks: "anthropic",
  path: "/v1/messages",
  stream: request({ messages, max_tokens: 100, stream: true }),
  whole: request({ messages, max_tokens: 100 }),
  head: named("message_start", {
    message: {
      id: "m1",
      type: "message",
      role: "assistant",
      model: "m",
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: { input_tokens: 3, output_tokens: 0 }
    }
  }) +
    named("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
  word: (text) => named("content_block_delta", { index: 0, delta: { type: "text_delta", text } }),
  finish: named("content_block_stop", { index: 0 }) +
    named("message_delta", { delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 4 } }),
  end: named("message_stop"),
  error: named("error", { error: { type: "api_error", message: "secret words" } }),
  answer:
    "{\"id\":\"m1\",\"type\":\"message\",\"big\":12345678901234567890,\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]," +
    "\"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}"
}

const response = (status: string) => ({
  response: {
    id: "r1",
    object: "response",
    created_at: 1_700_000_000,
    model: "m",
    status,
    error: null,
    output: [],
    usage: { input_tokens: 3, output_tokens: 4, total_tokens: 7 }
  }
})
const place = { item_id: "i1", output_index: 0, content_index: 0 }
const item = (status: string) => ({
  output_index: 0,
  item: { id: "i1", type: "message", role: "assistant", status, content: [] }
})

export const responses: FrontWire = {
  wire: "responses",
  speaks: "openai",
  path: "/v1/responses",
  stream: request({ input: "Hello", stream: true }),
  whole: request({ input: "Hello" }),
  head: named("response.created", { sequence_number: 0, ...response("in_progress") }) +
    named("response.output_item.added", { sequence_number: 1, ...item("in_progress") }) +
    named("response.content_part.added", {
      sequence_number: 2,
      ...place,
      part: { type: "output_text", text: "", annotations: [] }
    }),
  word: (delta) => named("response.output_text.delta", { sequence_number: 3, ...place, delta }),
  finish: named("response.output_item.done", { sequence_number: 4, ...item("completed") }) +
    named("response.completed", { sequence_number: 5, ...response("completed") }),
  end: "",
  error: named("error", {
    sequence_number: 4,
    code: "server_error",
    message: "secret words",
    param: null,
    error: { code: "server_error", message: "secret words" }
  }),
  answer:
    "{\"id\":\"r1\",\"object\":\"response\",\"status\":\"completed\",\"big\":12345678901234567890,\"output\":[]," +
    "\"error\":null,\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}"
}

export const wires = [chat, responses, anthropic]
