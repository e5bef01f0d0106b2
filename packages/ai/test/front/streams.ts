import type { Wire } from "../../src/internal/front/guard.ts"

// Streams of the three wires, made up from a seed. Each event says what it is, so that the right verdict is known.

/** A generator of numbers below `n`, the same for each seed. */
export const random = (seed: number) => {
  let state = seed + 1
  return (n: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
}

/** `Finish`: the last finish reason, which makes the answer complete. `End`: the wire's own last event. */
export type Kind = "Preamble" | "Output" | "Nothing" | "Finish" | "End" | "Error" | "Malformed"

export interface Event {
  readonly kind: Kind
  readonly text: string
}

export interface MadeStream {
  readonly wire: Wire
  readonly choices: number
  readonly events: ReadonlyArray<Event>
  readonly isCrlf: boolean
}

/** Texts that look like events, ends and errors. */
const hostile = [
  "{\"finish_reason\":\"stop\"}",
  "[DONE]",
  "data: {\"error\":{\"message\":\"x\"}}",
  "\n\ndata: [DONE]\n\n",
  "\r\n\r\ndata: [DONE]\r\r",
  "\\\"finish_reason\\\": \\\"stop\\\"",
  "event: error\n",
  "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
  "é漢字🙂",
  "\"delta\"",
  "\u2028",
  "message_stop",
  "\"error\":{\"a\":1}",
  "\uFEFF",
  "}",
  "{\"choices\":[],\"usage\":{}}",
  "\"type\":\"response.completed\""
]

const toolJson = (text: string) => JSON.stringify({ finish_reason: "stop", delta: text, error: { message: text } })

export const makeStream = (below: (n: number) => number): MadeStream => {
  const pick = <A>(values: ReadonlyArray<A>): A => values[below(values.length)]!
  const wire = pick<Wire>(["chat", "messages", "responses"])
  const newline = pick(["\n", "\n", "\r\n", "\r"])
  const isPython = below(3) === 0
  const choices = wire === "chat" && below(4) === 0 ? 2 + below(3) : 1
  const events: Array<Event> = []
  const text = () => pick(hostile) + pick(hostile)

  const json = (value: object): string => {
    // As Python's json module writes it.
    return isPython ? JSON.stringify(value, null, 1).replaceAll(/\n */g, " ") : JSON.stringify(value)
  }
  const framed = (value: { readonly type?: string }): string => {
    const name = wire === "chat" ? [] : [`event: ${value.type}`]
    const lines = below(12) === 0
      ? [...name, ...JSON.stringify(value, null, 1).split("\n").map((line) => `data: ${line}`)]
      : below(12) === 0
      ? [": a comment", ...name, `data:${json(value)}`, "id: 7"]
      : [...name, `data: ${json(value)}`]
    return lines.join(newline) + newline + newline
  }
  const add = (kind: Kind, value: object): void => {
    events.push({ kind, text: framed(value) })
    if (below(8) === 0) events.push({ kind: "Nothing", text: `: keep-alive${newline}${newline}` })
    if (below(20) === 0) events.push({ kind: "Nothing", text: newline })
    if (below(10) === 0 && wire === "messages") events.push({ kind: "Nothing", text: framed({ type: "ping" }) })
  }
  const chunk = (index: number, delta: object, finish: string | null = null) => ({
    id: "c",
    choices: [{ index, delta, logprobs: null, finish_reason: finish }],
    usage: null
  })
  const output = (index: number): object => {
    switch (wire) {
      case "chat":
        return chunk(
          index,
          pick([
            { content: text() },
            { tool_calls: [{ index: 0, function: { arguments: toolJson(text()) } }] },
            { reasoning_content: text() },
            { refusal: text() }
          ])
        )
      case "messages":
        return {
          type: "content_block_delta",
          index: 0,
          delta: pick([
            { type: "text_delta", text: text() },
            { type: "input_json_delta", partial_json: toolJson(text()) },
            { type: "thinking_delta", thinking: text() }
          ])
        }
      case "responses":
        return pick([
          { type: "response.output_text.delta", delta: text() },
          { type: "response.function_call_arguments.delta", delta: toolJson(text()) }
        ])
    }
  }
  const finish = (): void => {
    switch (wire) {
      case "chat":
        for (let index = choices - 1; index >= 0; index--) {
          if (index === 0) add("Finish", chunk(index, {}, pick(["stop", "length", "tool_calls"])))
          else {
            add("Output", chunk(index, { content: "last" }))
            add("Output", chunk(index, {}, "stop"))
          }
        }
        if (below(2) === 0) add("Nothing", { choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } })
        events.push({ kind: "End", text: `data: [DONE]${newline}${newline}` })
        return
      case "messages":
        add("Finish", { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 4 } })
        return add("End", { type: "message_stop" })
      case "responses":
        return add("Finish", { type: "response.completed", response: { usage: { input_tokens: 3 } } })
    }
  }

  if (below(10) === 0) events.push({ kind: "Nothing", text: `\uFEFF: begins${newline}${newline}` })
  switch (wire) {
    case "chat":
      add("Preamble", chunk(0, { role: "assistant", content: "", refusal: null }))
      break
    case "messages":
      add("Preamble", { type: "message_start", message: { content: [], usage: { input_tokens: 3 } } })
      add("Preamble", { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } })
      break
    case "responses":
      add("Preamble", { type: "response.created", response: { error: null } })
      add("Preamble", { type: "response.output_item.added", item: { type: "message" } })
  }
  for (let left = below(5); left >= 0; left--) add("Output", output(below(choices)))
  switch (below(8)) {
    case 0:
      add("Error", { type: "error", error: { message: "overloaded" } })
      break
    case 1:
      events.push({ kind: "Malformed", text: `data: {"choices":[{"delta":{"con${newline}${newline}` })
      break
    case 2:
      break
    default:
      finish()
  }
  return { wire, choices, events, isCrlf: newline === "\r\n" }
}

/** The bytes in pieces of any length. */
export const cutAnywhere = (bytes: Uint8Array, below: (n: number) => number): ReadonlyArray<Uint8Array> => {
  const pieces: Array<Uint8Array> = []
  const longest = [2, 3, 40, 400, 100_000][below(5)]!
  for (let at = 0; at < bytes.length;) {
    const length = 1 + below(longest)
    // A copy, so that a piece that is kept by reference would show.
    pieces.push(Uint8Array.from(bytes.subarray(at, at + length)))
    at += length
  }
  return pieces
}
