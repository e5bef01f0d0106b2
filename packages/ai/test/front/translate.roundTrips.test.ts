import { assert, describe, it } from "@effect/vitest"
import { chatOverMessages, messagesOverChat } from "../../src/internal/front/translate/translation.ts"
import { random } from "./streams.ts"
import { answered, answerOptions, chunk, dataOf, done, event, type Json, requested, streamed } from "./translated.ts"

// What both wires can say comes back as it went. Each case is made from a seed, which the message of a failure names.

type Below = (n: number) => number

const words = [
  "",
  "a",
  "é漢字🙂",
  "\u2028",
  "line\nbreak\r\n",
  "\"quoted\"",
  "[DONE]",
  "\\",
  "data: {}\n\n",
  "{\"a\":1}",
  "\u0000"
]

const make = (below: Below) => {
  const pick = <A>(values: ReadonlyArray<A>): A => values[below(values.length)]!
  const maybe = (value: Json): Json => below(2) === 0 ? value : {}
  const text = (): string => `${pick(words)}${pick(words)}x`
  const list = <A>(most: number, item: (i: number) => A): ReadonlyArray<A> =>
    Array.from({ length: 1 + below(most) }, (_, i) => item(i))
  const json = (depth: number): unknown =>
    pick<() => unknown>([
      () => text(),
      () => below(1000) / 8,
      () => below(2) === 0,
      () => null,
      () => depth === 0 ? 0 : list(3, () => json(depth - 1)),
      () => depth === 0 ? 1 : object(depth - 1)
    ])()
  const object = (depth: number): Json => Object.fromEntries(list(3, () => [text(), json(depth)]))
  return { pick, maybe, text, list, object }
}

const requestOf = (below: Below): Json => {
  const { list, maybe, object, pick, text } = make(below)
  const textPart = () => ({ type: "text", text: text() })
  const part = () =>
    pick<() => Json>([
      textPart,
      () => ({ type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } }),
      () => ({ type: "image_url", image_url: { url: `https://example.com/${below(9)}.png` } }),
      () => ({ type: "file", file: { filename: text(), file_data: "data:application/pdf;base64,AAAA" } })
    ])()
  // A single text is a string.
  const content = () => below(2) === 0 ? text() : [part(), textPart()]
  const texts = () => below(2) === 0 ? text() : [textPart(), textPart()]
  const messages: Array<Json> = below(2) === 0 ? [] : [{ role: "system", content: texts() }]
  for (let turn = below(4); turn >= 0; turn--) {
    messages.push({ role: "user", content: content() })
    if (below(3) === 0) {
      messages.push({ role: "assistant", content: text() })
      continue
    }
    const calls = list(3, (i) => ({
      id: `call_${turn}_${i}`,
      type: "function",
      function: { name: "f", arguments: JSON.stringify(object(3)) }
    }))
    messages.push({ role: "assistant", content: below(2) === 0 ? null : text(), tool_calls: calls })
    for (const { id } of calls) messages.push({ role: "tool", tool_call_id: id, content: texts() })
  }
  return {
    model: "m",
    messages,
    max_tokens: 1 + below(1000),
    ...maybe({ temperature: below(9) / 8 }),
    ...maybe({ top_p: below(9) / 8 }),
    ...maybe({ stop: list(3, text) }),
    ...maybe({ user: text() }),
    ...maybe({ service_tier: "default" }),
    ...maybe({ stream: true, stream_options: { include_usage: true } }),
    ...maybe({ reasoning_effort: pick(["none", "low", "medium", "high", "xhigh", "max"]) }),
    ...maybe({
      response_format: { type: "json_schema", json_schema: { name: "answer", schema: object(3), strict: true } }
    }),
    ...maybe({
      tools: list(3, () => ({
        type: "function",
        function: {
          name: text(),
          ...maybe({ description: text() }),
          parameters: object(4),
          ...maybe({ strict: below(2) === 0 })
        }
      })),
      ...maybe({ tool_choice: pick<unknown>(["auto", "required", { type: "function", function: { name: "f" } }]) })
    })
  }
}

const reasons = ["end_turn", "max_tokens", "tool_use", "refusal"]

/** An answer of messages, with adjacent texts joined. */
const messageOf = (below: Below): Json => {
  const { maybe, object, pick, text } = make(below)
  const calls = Array.from(
    { length: below(4) },
    (_, i) => ({ type: "tool_use", id: `t${i}`, name: "f", input: object(3) })
  )
  return {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "m",
    content: [
      ...(below(2) === 0 ? [] : [{ type: "thinking", thinking: text(), signature: "" }]),
      ...(below(2) === 0 && calls.length > 0 ? [] : [{ type: "text", text: text() }]),
      ...calls
    ],
    stop_reason: calls.length > 0 ? "tool_use" : pick(reasons.filter((reason) => reason !== "tool_use")),
    stop_sequence: null,
    usage: {
      input_tokens: 1 + below(9),
      cache_creation_input_tokens: below(3),
      cache_read_input_tokens: below(3),
      output_tokens: 1 + below(9),
      ...maybe({ output_tokens_details: { thinking_tokens: 1 } })
    }
  }
}

/** A text in pieces. */
const piecesOf = (text: string, below: Below): ReadonlyArray<string> => {
  const pieces: Array<string> = []
  for (let from = 0; from < text.length;) {
    const size = 1 + below(6)
    pieces.push(text.slice(from, from + size))
    from += size
  }
  return pieces
}

interface Block {
  readonly type: "text" | "thinking" | "tool_use"
  readonly text?: string
  readonly thinking?: string
  readonly input?: unknown
}

/** The stream of an answer of messages. */
const streamOf = (message: Json, below: Below): ReadonlyArray<string> => {
  const { content, stop_reason, usage } = message as { content: ReadonlyArray<Block>; stop_reason: string; usage: Json }
  const blocks = content.flatMap((block, index) => {
    const [empty, kind, field, whole] = block.type === "text"
      ? [{ ...block, text: "" }, "text_delta", "text", block.text ?? ""] as const
      : block.type === "thinking"
      ? [{ ...block, thinking: "" }, "thinking_delta", "thinking", block.thinking ?? ""] as const
      : [{ ...block, input: {} }, "input_json_delta", "partial_json", JSON.stringify(block.input)] as const
    const deltas = piecesOf(whole, below).map((piece) =>
      event("content_block_delta", { index, delta: { type: kind, [field]: piece } })
    )
    return [
      event("content_block_start", { index, content_block: empty }),
      deltas.join(""),
      event("content_block_stop", { index })
    ]
  })
  return [
    event("message_start", {
      message: { ...message, content: [], stop_reason: null, usage: { ...usage, output_tokens: 1 } }
    }),
    ...blocks,
    event("message_delta", { delta: { stop_reason, stop_sequence: null }, usage }),
    event("message_stop")
  ]
}

/** The answer of messages that a stream brings. */
const collected = (text: string): Json => {
  let message: Json = {}
  const content: Array<{ [field: string]: unknown }> = []
  const inputs: Array<string> = []
  for (const data of dataOf(text)) {
    const { content_block, delta, index, message: begun, type, usage } = data as {
      readonly type: string
      readonly index: number
      readonly message: Json
      readonly content_block: Json
      readonly usage: Json
      readonly delta: { readonly [field: string]: string }
    }
    switch (type) {
      case "message_start":
        message = begun
        break
      case "content_block_start":
        content[index] = { ...content_block }
        inputs[index] = ""
        break
      case "content_block_delta": {
        const block = content[index]!
        if (delta["text"] !== undefined) block["text"] = String(block["text"]) + delta["text"]
        if (delta["thinking"] !== undefined) block["thinking"] = String(block["thinking"]) + delta["thinking"]
        inputs[index] += delta["partial_json"] ?? ""
        break
      }
      case "content_block_stop":
        if (inputs[index] !== "") content[index]!["input"] = JSON.parse(inputs[index]!)
        break
      case "message_delta":
        message = { ...message, ...delta, usage }
    }
  }
  return { ...message, content }
}

describe("there and back", () => {
  it("requests of chat completions that messages can say", () => {
    for (let seed = 0; seed < 500; seed++) {
      const chat = requestOf(random(seed))
      const messages = requested(chatOverMessages, chat).request
      assert.deepStrictEqual(requested(messagesOverChat, messages).request, chat, `seed ${seed}`)
      assert.deepStrictEqual(
        requested(chatOverMessages, requested(messagesOverChat, messages).request).request,
        messages,
        `seed ${seed}`
      )
    }
  })

  it("whole answers of messages that chat completions can say", () => {
    for (let seed = 0; seed < 500; seed++) {
      const message = messageOf(random(seed))
      const chat = answered(chatOverMessages, message)
      assert.deepStrictEqual(answered(messagesOverChat, chat ?? {}), message, `seed ${seed}`)
    }
  })

  it("streams, which bring the same as whole answers", () => {
    for (let seed = 0; seed < 300; seed++) {
      const below = random(seed)
      const message = messageOf(below)
      const chat = streamed(chatOverMessages.stream({ ...answerOptions, includeUsage: true }), streamOf(message, below))
      const events = chat.split(/(?<=\n\n)/)
      const back = streamed(messagesOverChat.stream(answerOptions), events)
      assert.deepStrictEqual(collected(back), message, `seed ${seed}`)
      assert.strictEqual(streamed(messagesOverChat.stream(answerOptions), [chat]), back, `seed ${seed}`)
    }
  })

  it("tool calls whose pieces come in any order, as long as each call has its own in order", () => {
    for (let seed = 0; seed < 300; seed++) {
      const below = random(seed)
      const { object } = make(below)
      const inputs = Array.from({ length: 1 + below(4) }, () => object(3))
      const waiting = inputs.map((input, index) => [
        { index, id: `t${index}`, type: "function", function: { name: "f", arguments: "" } },
        ...piecesOf(JSON.stringify(input), below).map((piece) => ({ index, function: { arguments: piece } }))
      ])
      const events: Array<string> = []
      // Each call begins before the next one does.
      let begun = 0
      while (waiting.some((pieces) => pieces.length > 0)) {
        const at = below(Math.min(begun + 1, waiting.length))
        const piece = waiting[at]!.shift()
        if (piece === undefined) continue
        begun = Math.max(begun, at + 1)
        events.push(chunk({ tool_calls: [piece] }))
      }
      const text = streamed(messagesOverChat.stream(answerOptions), [...events, chunk({}, "tool_calls"), done])
      assert.deepStrictEqual(
        collected(text)["content"],
        inputs.map((input, index) => ({ type: "tool_use", id: `t${index}`, name: "f", input })),
        `seed ${seed}`
      )
    }
  })
})
