import { assert, describe, it } from "@effect/vitest"
import { chatOverMessages, messagesOverChat } from "../../src/internal/front/translate/translation.ts"
import { answerOptions, bytesOf, chunk, dataOf, done, ended, event, type Json, streamed } from "./translated.ts"

const toChat = (includeUsage = true) => chatOverMessages.stream({ ...answerOptions, includeUsage })
const toMessages = () => messagesOverChat.stream(answerOptions)

// ---------- messages to chat completions

const start = event("message_start", {
  message: {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "claude",
    content: [],
    stop_reason: null,
    usage: { input_tokens: 3, cache_read_input_tokens: 10, output_tokens: 1 }
  }
})
const begin = (index: number, content_block: Json) => event("content_block_start", { index, content_block })
const delta = (index: number, delta: Json) => event("content_block_delta", { index, delta })
const stop = (index: number) => event("content_block_stop", { index })
const finish = (stop_reason: string) =>
  event("message_delta", { delta: { stop_reason, stop_sequence: null }, usage: { output_tokens: 5 } })
const messageStop = event("message_stop")

const agent = [
  start,
  event("ping"),
  begin(0, { type: "thinking", thinking: "", signature: "" }),
  delta(0, { type: "thinking_delta", thinking: "hm" }),
  delta(0, { type: "signature_delta", signature: "s" }),
  stop(0),
  begin(1, { type: "text", text: "" }),
  delta(1, { type: "text_delta", text: "I " }),
  delta(1, { type: "text_delta", text: "look \"up\"\u2028.\n\n" }),
  stop(1),
  begin(2, { type: "tool_use", id: "t1", name: "f", input: {} }),
  delta(2, { type: "input_json_delta", partial_json: "" }),
  delta(2, { type: "input_json_delta", partial_json: `{"a":12345678901234567890` }),
  delta(2, { type: "input_json_delta", partial_json: "}" }),
  stop(2),
  begin(3, { type: "tool_use", id: "t2", name: "g", input: {} }),
  stop(3),
  finish("tool_use"),
  messageStop
]

const deltasOf = (text: string): ReadonlyArray<unknown> =>
  dataOf(text).flatMap((data) => {
    if (typeof data === "string") return []
    const [choice] = data["choices"] as ReadonlyArray<Json> // Written by the translator.
    return choice === undefined ? [] : [choice["delta"]]
  })

describe("streams of messages as chat completions", () => {
  it("a thought, a text and two tool calls", () => {
    const text = streamed(toChat(), agent)
    assert.deepStrictEqual(deltasOf(text), [
      { role: "assistant", content: "" },
      { reasoning_content: "hm" },
      { content: "I " },
      { content: "look \"up\"\u2028.\n\n" },
      { tool_calls: [{ index: 0, id: "t1", type: "function", function: { name: "f", arguments: "" } }] },
      { tool_calls: [{ index: 0, function: { arguments: `{"a":12345678901234567890` } }] },
      { tool_calls: [{ index: 0, function: { arguments: "}" } }] },
      { tool_calls: [{ index: 1, id: "t2", type: "function", function: { name: "g", arguments: "" } }] },
      { tool_calls: [{ index: 1, function: { arguments: "{}" } }] },
      {}
    ])
    const events = dataOf(text)
    assert.deepStrictEqual(events.at(-3), {
      id: "msg_1",
      object: "chat.completion.chunk",
      created: 1_700_000_000,
      model: "claude",
      choices: [{ index: 0, delta: {}, logprobs: null, finish_reason: "tool_calls" }]
    })
    assert.deepStrictEqual(events.at(-2), {
      id: "msg_1",
      object: "chat.completion.chunk",
      created: 1_700_000_000,
      model: "claude",
      choices: [],
      usage: {
        prompt_tokens: 13,
        completion_tokens: 5,
        total_tokens: 18,
        prompt_tokens_details: { cached_tokens: 10 }
      }
    })
    assert.strictEqual(events.at(-1), "[DONE]")
  })

  it("token counts come only if the client asked for them", () => {
    const text = streamed(toChat(false), agent)
    assert.notInclude(text, "usage")
    assert.isTrue(text.endsWith(done))
  })

  it("a ping keeps the connection open as a comment", () => {
    assert.strictEqual(streamed(toChat(), [event("ping")]), ": ping\n\n")
  })

  it("pieces of two open tool calls go to the right call", () => {
    const text = streamed(toChat(), [
      start,
      begin(1, { type: "tool_use", id: "a", name: "f", input: {} }),
      begin(4, { type: "tool_use", id: "b", name: "f", input: {} }),
      delta(1, { type: "input_json_delta", partial_json: `{"x":1}` }),
      delta(4, { type: "input_json_delta", partial_json: `{"x":2}` })
    ])
    assert.deepStrictEqual(deltasOf(text).slice(-2), [
      { tool_calls: [{ index: 0, function: { arguments: `{"x":1}` } }] },
      { tool_calls: [{ index: 1, function: { arguments: `{"x":2}` } }] }
    ])
  })

  it("content that comes with the start of a block counts once", () => {
    const text = streamed(toChat(), [
      start,
      begin(0, { type: "text", text: "Hel" }),
      delta(0, { type: "text_delta", text: "Hel" }),
      delta(0, { type: "text_delta", text: "lo" }),
      stop(0),
      begin(1, { type: "tool_use", id: "a", name: "f", input: { x: 1 } }),
      stop(1),
      begin(2, { type: "tool_use", id: "b", name: "f", input: { x: 2 } }),
      delta(2, { type: "input_json_delta", partial_json: `{"x":2}` }),
      stop(2)
    ])
    assert.deepStrictEqual(deltasOf(text).slice(1), [
      { content: "Hel" },
      { content: "lo" },
      { tool_calls: [{ index: 0, id: "a", type: "function", function: { name: "f", arguments: "" } }] },
      { tool_calls: [{ index: 0, function: { arguments: `{"x":1}` } }] },
      { tool_calls: [{ index: 1, id: "b", type: "function", function: { name: "f", arguments: "" } }] },
      { tool_calls: [{ index: 1, function: { arguments: `{"x":2}` } }] }
    ])
  })

  it("an error event becomes one of chat completions, and ends the stream", () => {
    const error = event("error", { error: { type: "overloaded_error", message: "busy" } })
    const text = streamed(toChat(), [start, error, finish("end_turn"), messageStop])
    assert.deepStrictEqual(dataOf(text).at(-1), {
      error: { message: "busy", type: "server_error", param: null, code: "overloaded_error" }
    })
  })
})

// ---------- chat completions to messages

const call = (index: number, fields: Json) => chunk({ tool_calls: [{ index, ...fields }] })
const usage = `data: ${
  JSON.stringify({
    id: "chatcmpl-1",
    choices: [],
    usage: { prompt_tokens: 13, completion_tokens: 5, total_tokens: 18, prompt_tokens_details: { cached_tokens: 10 } }
  })
}\n\n`

const chatAgent = [
  chunk({ role: "assistant", content: "" }),
  ": keep-alive\n\n",
  chunk({ reasoning_content: "hm" }),
  chunk({ content: "I " }),
  chunk({ content: "look." }),
  call(0, { id: "t1", type: "function", function: { name: "f", arguments: "" } }),
  call(0, { function: { arguments: `{"a":12345678901234567890` } }),
  call(0, { function: { arguments: "}" } }),
  call(1, { id: "t2", type: "function", function: { name: "g", arguments: "{}" } }),
  chunk({}, "tool_calls"),
  usage,
  done
]

/** The content of the blocks, as a client collects it. Fails if two are open at a time. */
const blocksOf = (text: string): ReadonlyArray<Json> => {
  const blocks: Array<Json & { json?: string }> = []
  let open: number | undefined
  for (const data of dataOf(text)) {
    if (typeof data === "string") continue
    const { content_block, delta, index, type } = data as {
      readonly type: string
      readonly index: number
      readonly content_block: Json
      readonly delta: Json
    }
    if (type === "content_block_start") {
      assert.isUndefined(open, "two open blocks")
      assert.strictEqual(index, blocks.length)
      open = index
      blocks.push({ ...content_block })
    } else if (type === "content_block_delta") {
      assert.strictEqual(index, open)
      const block = blocks[index]!
      for (const [from, to] of [["text", "text"], ["thinking", "thinking"], ["partial_json", "json"]] as const) {
        if (delta[from] !== undefined) blocks[index] = { ...block, [to]: `${block[to] ?? ""}${String(delta[from])}` }
      }
    } else if (type === "content_block_stop") {
      assert.strictEqual(index, open)
      open = undefined
    }
  }
  return blocks
}

describe("streams of chat completions as messages", () => {
  it("a thought, a text and two tool calls", () => {
    const text = streamed(toMessages(), chatAgent)
    assert.deepStrictEqual(blocksOf(text), [
      { type: "thinking", thinking: "hm", signature: "" },
      { type: "text", text: "I look." },
      { type: "tool_use", id: "t1", name: "f", input: {}, json: `{"a":12345678901234567890}` },
      { type: "tool_use", id: "t2", name: "g", input: {} }
    ])
    const events = dataOf(text)
    assert.deepStrictEqual(events[0], {
      type: "message_start",
      message: {
        id: "chatcmpl-1",
        type: "message",
        role: "assistant",
        model: "m1",
        content: [],
        stop_reason: null,
        stop_sequence: null,
        usage: { input_tokens: 0, output_tokens: 0 }
      }
    })
    assert.deepStrictEqual(events[1], { type: "ping" })
    assert.deepStrictEqual(events.slice(-2), [
      {
        type: "message_delta",
        delta: { stop_reason: "tool_use", stop_sequence: null },
        usage: { input_tokens: 3, cache_creation_input_tokens: 0, cache_read_input_tokens: 10, output_tokens: 5 }
      },
      { type: "message_stop" }
    ])
    // Anthropic's clients ignore events without a name.
    for (const line of text.split("\n\n").filter((each) => each !== "")) {
      const [name, data] = line.split("\n")
      assert.strictEqual(name, `event: ${JSON.parse(data!.slice(6)).type}`)
    }
  })

  it("interleaved tool calls become one block after the other, with all their arguments", () => {
    const text = streamed(toMessages(), [
      call(0, { id: "a", function: { name: "f", arguments: `{"x":` } }),
      call(1, { id: "b", function: { name: "g", arguments: `{"y":` } }),
      call(2, { id: "c", function: { name: "h", arguments: "" } }),
      call(0, { function: { arguments: "\"}\\\"}\"" } }),
      call(1, { function: { arguments: "2" } }),
      call(0, { function: { arguments: "}" } }),
      call(2, { function: { arguments: `{"z":3}` } }),
      call(1, { function: { arguments: "}" } }),
      chunk({}, "tool_calls"),
      done
    ])
    assert.deepStrictEqual(blocksOf(text).map(({ id, json }) => [id, json]), [
      ["a", `{"x":"}\\"}"}`],
      ["b", `{"y":2}`],
      ["c", `{"z":3}`]
    ])
  })

  it("a tool call starts before the one after it, also if its arguments never become whole", () => {
    const text = streamed(toMessages(), [
      call(0, { id: "a", function: { name: "f", arguments: `{"x":` } }),
      call(1, { id: "b", function: { name: "g", arguments: "{}" } }),
      chunk({}, "length"),
      done
    ])
    assert.deepStrictEqual(blocksOf(text).map(({ id, json }) => [id, json]), [["a", `{"x":`], ["b", undefined]])
    assert.include(text, `"stop_reason":"max_tokens"`)
  })

  it("servers may leave out the index, the id, or send the same index for all", () => {
    const ids = (events: ReadonlyArray<string>) =>
      blocksOf(streamed(toMessages(), [...events, chunk({}, "stop"), done])).map((
        { id, json, name }
      ) => [id, name, json])
    const piece = (fields: Json) => chunk({ tool_calls: [fields] })
    const arguments_ = `{"a":1}`
    assert.deepStrictEqual(
      ids([
        piece({ id: "a", function: { name: "f", arguments: arguments_ } }),
        piece({ id: "b", function: { name: "f", arguments: arguments_ } })
      ]),
      [["a", "f", arguments_], ["b", "f", arguments_]]
    )
    assert.deepStrictEqual(
      ids([
        call(0, { id: "a", function: { name: "f", arguments: arguments_ } }),
        call(0, { id: "b", function: { name: "g", arguments: arguments_ } })
      ]),
      [["a", "f", arguments_], ["b", "g", arguments_]]
    )
    assert.deepStrictEqual(
      ids([
        call(0, { function: { name: "f", arguments: "" } }),
        call(0, { function: { arguments: arguments_ } }),
        call(1, { function: { name: "f", arguments: arguments_ } })
      ]),
      [["chatcmpl-1_0", "f", arguments_], ["chatcmpl-1_1", "f", arguments_]]
    )
    // Another id with every piece.
    assert.deepStrictEqual(
      ids([
        call(0, { id: "a", function: { name: "f", arguments: `{"a":` } }),
        call(0, { id: "x", function: { arguments: "1}" } })
      ]),
      [["a", "f", arguments_]]
    )
    // The name comes late.
    assert.deepStrictEqual(
      ids([call(0, { id: "a" }), call(0, { function: { name: "f", arguments: arguments_ } })]),
      [["a", "f", arguments_]]
    )
    // The old field for a single call.
    assert.deepStrictEqual(
      ids([chunk({ function_call: { name: "f", arguments: `{"a":` } }), chunk({ function_call: { arguments: "1}" } })]),
      [["chatcmpl-1_0", "f", arguments_]]
    )
    // The call again at the end, and an empty object before the arguments.
    assert.deepStrictEqual(
      ids([
        call(0, { id: "a", function: { name: "f", arguments: "{}" } }),
        call(0, { function: { arguments: arguments_ } }),
        call(0, { id: "a", function: { name: "f", arguments: arguments_ } })
      ]),
      [["a", "f", arguments_]]
    )
  })

  it("a text after a tool call gets a block of its own", () => {
    const text = streamed(toMessages(), [
      chunk({ content: "a" }),
      call(0, { id: "t", function: { name: "f", arguments: "{}" } }),
      chunk({ content: "b" }),
      chunk({}, "stop"),
      done
    ])
    assert.deepStrictEqual(blocksOf(text).map(({ type }) => type), ["text", "tool_use", "text"])
    assert.include(text, `"stop_reason":"tool_use"`)
  })

  it("thoughts are read under every name, and parts of content by their type", () => {
    const text = streamed(toMessages(), [
      chunk({ reasoning: "a" }),
      chunk({ content: [{ type: "thinking", thinking: [{ type: "text", text: "b" }] }, { type: "text", text: "c" }] })
    ])
    assert.deepStrictEqual(blocksOf(text), [
      { type: "thinking", thinking: "ab", signature: "" },
      { type: "text", text: "c" }
    ])
  })

  it("a refusal is a text and the reason of the end", () => {
    const text = streamed(toMessages(), [chunk({ refusal: "no" }), chunk({}, "stop"), done])
    assert.deepStrictEqual(blocksOf(text), [{ type: "text", text: "no" }])
    assert.include(text, `"stop_reason":"refusal"`)
  })

  it("the finish reason after the last content counts, and the stronger one of several", () => {
    const reason = (events: ReadonlyArray<string>) => /"stop_reason":"(\w+)"/.exec(streamed(toMessages(), events))?.[1]
    const a = { content: "a" }
    assert.strictEqual(reason([chunk(a, "stop"), chunk(a, "length"), done]), "max_tokens")
    assert.strictEqual(reason([chunk(a, "length"), chunk({}, "stop"), done]), "max_tokens")
    assert.strictEqual(reason([chunk({}, "length"), chunk(a, "stop"), done]), "end_turn")
  })

  it("an error object becomes an error event, and ends the stream", () => {
    const error = `data: ${JSON.stringify({ error: { message: "busy", type: "server_error", code: 503 } })}\n\n`
    const text = streamed(toMessages(), [chunk({ content: "a" }), error, chunk({}, "stop"), done])
    assert.isTrue(
      text.endsWith(`event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n`)
    )
  })

  it("counts that come with the finish reason are read", () => {
    const counts = { usage: { prompt_tokens: 3, completion_tokens: 4 } }
    const text = streamed(toMessages(), [chunk({ content: "a" }), chunk({}, "stop", counts), done])
    assert.include(text, `"input_tokens":3`)
    assert.include(text, `"output_tokens":4}`)
  })
})

// ---------- both

describe("translated streams", () => {
  const both = [
    ["messages to chat completions", toChat, agent, 2, done],
    ["chat completions to messages", toMessages, chatAgent, 3, event("message_stop")]
  ] as const

  for (const [name, translator, events, last, end] of both) {
    it(`${name}: all events at once give the same as one by one`, () => {
      assert.strictEqual(streamed(translator(), [events.join("")]), streamed(translator(), events))
    })

    it(`${name}: line ends and the form of an event do not matter`, () => {
      const expected = streamed(translator(), events)
      for (const lineEnd of ["\r\n", "\r"]) {
        assert.strictEqual(streamed(translator(), events.map((each) => each.replaceAll("\n", lineEnd))), expected)
      }
      const spread = events.map((each) => each.replaceAll("data: {", "id: 1\ndata:{").replaceAll("{\"", "{\ndata:\""))
      assert.strictEqual(streamed(translator(), spread), expected)
    })

    it(`${name}: a stream that is cut at any event never looks complete`, () => {
      const whole = streamed(translator(), events)
      for (let cut = 0; cut <= events.length - last; cut++) {
        const half = translator()
        const text = streamed(half, events.slice(0, cut)) + ended(half)
        assert.isTrue(whole.startsWith(text), `cut ${cut}`)
        assert.notInclude(text, "[DONE]")
        assert.notInclude(text, "message_stop")
        assert.notMatch(text, /"(?:finish|stop)_reason":"/)
      }
    })

    it(`${name}: the end of a complete answer comes once, whether its last event came or not`, () => {
      const translated = translator()
      const text = streamed(translated, events)
      assert.isTrue(text.endsWith(end))
      assert.strictEqual(ended(translated), "")
      const cut = translator()
      assert.strictEqual(streamed(cut, events.slice(0, -1)) + ended(cut), text)
      assert.strictEqual(ended(cut), "")
    })

    it(`${name}: an event that cannot be read is reported, and nothing follows`, () => {
      const deep = `{"choices":[{"delta":{"content":${"[".repeat(50_000)}${"]".repeat(50_000)}}}],"type":"ping"}`
      for (const bad of ["{", "null", "[1]", "3", deep]) {
        const translated = translator()
        streamed(translated, events.slice(0, 4))
        assert.isFalse(translated.failed)
        assert.strictEqual(streamed(translated, [`data: ${bad}\n\n`, ...events.slice(4)]) + ended(translated), "")
        assert.isTrue(translated.failed)
      }
    })

    it(`${name}: events of any wrong type do not throw`, () => {
      const values = [null, 0, "x", true, [], {}, [[]], [null], [{}]]
      const names = ["type", "message", "index", "delta", "content_block", "usage", "choices", "error", "id", "model"]
      for (const value of values) {
        for (const name of names) {
          for (
            const type of ["message_start", "content_block_start", "content_block_delta", "message_delta", "error"]
          ) {
            const translated = translator()
            translated.feed(bytesOf(event(type, { choices: [{ index: 0, [name]: value }], [name]: value })))
            translated.feed(bytesOf(chunk({ content: value, tool_calls: value, reasoning: value, [name]: value })))
            translated.feed(
              bytesOf(
                event(type, {
                  delta: { text: value, type: "text_delta" },
                  content_block: { type: "tool_use", input: value }
                })
              )
            )
          }
        }
      }
    })

    it(`${name}: endless tool calls are cut off`, () => {
      const translated = translator()
      const piece = (n: number) =>
        name.startsWith("messages")
          ? begin(n, { type: "tool_use", id: "a", name: "f", input: {} })
          : call(n, { id: `${n}`, function: { name: "f", arguments: "{" } })
      for (let n = 0; n < 2000 && !translated.failed; n++) translated.feed(bytesOf(piece(n)))
      assert.isTrue(translated.failed)
    })
  }
})
