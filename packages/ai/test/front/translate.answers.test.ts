import { assert, describe, it } from "@effect/vitest"
import * as Models from "../../src/internal/front/translate/models.ts"
import { chatOverMessages, messagesOverChat } from "../../src/internal/front/translate/translation.ts"
import { answered, bytesOf, type Json } from "./translated.ts"

const usage = { input_tokens: 3, output_tokens: 5 }
const message = (content: unknown, more: Json = {}): Json => ({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "claude",
  content,
  stop_reason: "end_turn",
  stop_sequence: null,
  usage,
  ...more
})

const completion = (message: Json, finish_reason: unknown = "stop", more: Json = {}): Json => ({
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1,
  model: "gpt",
  choices: [{ index: 0, message: { role: "assistant", ...message }, finish_reason }],
  usage: { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 },
  ...more
})

const text = [{ type: "text", text: "hello" }]

const choiceOf = (answer: Json | undefined): Json => {
  const { choices } = answer as { readonly choices: ReadonlyArray<Json> } // It was made here.
  return choices[0]!
}

describe("whole answers of messages as chat completions", () => {
  it("a text", () => {
    assert.deepStrictEqual(answered(chatOverMessages, message(text)), {
      id: "msg_1",
      object: "chat.completion",
      created: 1_700_000_000,
      model: "claude",
      choices: [{
        index: 0,
        message: { role: "assistant", content: "hello", refusal: null },
        logprobs: null,
        finish_reason: "stop"
      }],
      usage: {
        prompt_tokens: 3,
        completion_tokens: 5,
        total_tokens: 8,
        prompt_tokens_details: { cached_tokens: 0 }
      }
    })
  })

  it("texts, a thought and tool calls, with all digits of the arguments", () => {
    const answer = JSON.stringify(message([
      { type: "thinking", thinking: "hm", signature: "s" },
      { type: "redacted_thinking", data: "x" },
      { type: "text", text: "a" },
      { type: "text", text: "b" },
      { type: "tool_use", id: "t1", name: "f", input: { x: "<n>" } },
      { type: "tool_use", id: "t2", name: "g", input: {} }
    ], { stop_reason: "tool_use" })).replace(`"<n>"`, "12345678901234567890")
    assert.deepStrictEqual(choiceOf(answered(chatOverMessages, answer)), {
      index: 0,
      message: {
        role: "assistant",
        content: "ab",
        refusal: null,
        reasoning_content: "hm",
        tool_calls: [
          { id: "t1", type: "function", function: { name: "f", arguments: `{"x":12345678901234567890}` } },
          { id: "t2", type: "function", function: { name: "g", arguments: "{}" } }
        ]
      },
      logprobs: null,
      finish_reason: "tool_calls"
    })
  })

  const reasons = [
    ["end_turn", "stop"],
    ["stop_sequence", "stop"],
    ["max_tokens", "length"],
    ["model_context_window_exceeded", "length"],
    ["tool_use", "tool_calls"],
    ["refusal", "content_filter"],
    ["pause_turn", "stop"],
    ["a_reason_of_next_year", "stop"],
    ["MALFORMED_FUNCTION_CALL", "content_filter"]
  ] as const
  for (const [sent, expected] of reasons) {
    it(`the stop reason ${sent} becomes ${expected}`, () => {
      const answer = answered(chatOverMessages, message(text, { stop_reason: sent }))
      assert.strictEqual(choiceOf(answer)["finish_reason"], expected)
    })
  }

  it("a turn that ends with a tool call says so", () => {
    const answer = answered(chatOverMessages, message([{ type: "tool_use", id: "t", name: "f", input: {} }]))
    assert.strictEqual(choiceOf(answer)["finish_reason"], "tool_calls")
    assert.isNull((choiceOf(answer)["message"] as Json)["content"])
  })

  it("cached tokens count as a part of the prompt", () => {
    const counts = {
      input_tokens: 3,
      cache_read_input_tokens: 10,
      cache_creation_input_tokens: 100,
      output_tokens: 5,
      output_tokens_details: { thinking_tokens: 2 }
    }
    assert.deepStrictEqual(answered(chatOverMessages, message(text, { usage: counts }))?.["usage"], {
      prompt_tokens: 113,
      completion_tokens: 5,
      total_tokens: 118,
      prompt_tokens_details: { cached_tokens: 10, cache_write_tokens: 100 },
      completion_tokens_details: { reasoning_tokens: 2 }
    })
  })

  it("a call without an id gets one of its own", () => {
    const call = { type: "tool_use", name: "f", input: {} }
    const { message: said } = choiceOf(answered(chatOverMessages, message([call, call])))
    const calls = (said as { readonly tool_calls: ReadonlyArray<Json> }).tool_calls
    assert.deepStrictEqual(calls.map(({ id }) => id), ["call_1_0", "call_1_1"])
  })
})

describe("whole answers of chat completions as messages", () => {
  it("a text", () => {
    assert.deepStrictEqual(answered(messagesOverChat, completion({ content: "hello" })), {
      id: "chatcmpl-1",
      type: "message",
      role: "assistant",
      model: "gpt",
      content: text,
      stop_reason: "end_turn",
      stop_sequence: null,
      usage: { input_tokens: 3, cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 5 }
    })
  })

  it("a thought, a text and tool calls, with all digits of the arguments", () => {
    const answer = completion({
      content: "ab",
      reasoning_content: "hm",
      tool_calls: [
        { id: "t1", type: "function", function: { name: "f", arguments: `{"x":12345678901234567890}` } },
        { id: "t2", type: "function", function: { name: "g", arguments: "" } }
      ]
    }, "tool_calls")
    const body = messagesOverChat.answer(bytesOf(JSON.stringify(answer)), { created: 0, id: "" })
    assert.include(body, `"input":{"x":12345678901234567890}`)
    const { content, stop_reason } = JSON.parse(body ?? "")
    assert.strictEqual(stop_reason, "tool_use")
    assert.deepStrictEqual(content.map(({ type }: Json) => type), ["thinking", "text", "tool_use", "tool_use"])
    assert.deepStrictEqual(content[0], { type: "thinking", thinking: "hm", signature: "" })
    assert.deepStrictEqual(content[3], { type: "tool_use", id: "t2", name: "g", input: {} })
  })

  const reasons = [
    ["stop", "end_turn"],
    ["length", "max_tokens"],
    ["tool_calls", "tool_use"],
    ["function_call", "tool_use"],
    ["content_filter", "refusal"],
    ["eos", "end_turn"],
    ["a_reason_of_next_year", "end_turn"],
    ["malformed_function_call", "refusal"]
  ] as const
  for (const [sent, expected] of reasons) {
    it(`the finish reason ${sent} becomes ${expected}`, () => {
      assert.strictEqual(answered(messagesOverChat, completion({ content: "x" }, sent))?.["stop_reason"], expected)
    })
  }

  it("an answer with tool calls that stops says so", () => {
    const calls = [{ id: "t", type: "function", function: { name: "f", arguments: "{}" } }]
    assert.strictEqual(
      answered(messagesOverChat, completion({ content: null, tool_calls: calls }, "stop"))?.["stop_reason"],
      "tool_use"
    )
  })

  it("a refusal of the model is a text and the reason of the end", () => {
    const answer = answered(messagesOverChat, completion({ content: null, refusal: "no" }))
    assert.deepStrictEqual(answer?.["content"], [{ type: "text", text: "no" }])
    assert.strictEqual(answer?.["stop_reason"], "refusal")
  })

  it("cached tokens count beside the input", () => {
    const counts = {
      prompt_tokens: 113,
      completion_tokens: 5,
      total_tokens: 118,
      prompt_tokens_details: { cached_tokens: 10, cache_write_tokens: 100 },
      completion_tokens_details: { reasoning_tokens: 2 }
    }
    assert.deepStrictEqual(
      answered(messagesOverChat, completion({ content: "x" }, "stop", { usage: counts }))?.["usage"],
      {
        input_tokens: 3,
        cache_creation_input_tokens: 100,
        cache_read_input_tokens: 10,
        output_tokens: 5,
        output_tokens_details: { thinking_tokens: 2 }
      }
    )
  })

  it("an answer whose arguments cannot be read is malformed, unless it was cut", () => {
    const calls = [{ id: "t", type: "function", function: { name: "f", arguments: `{"a":` } }]
    assert.isUndefined(answered(messagesOverChat, completion({ content: null, tool_calls: calls }, "tool_calls")))
    const cut = answered(messagesOverChat, completion({ content: null, tool_calls: calls }, "length"))
    assert.strictEqual(cut?.["stop_reason"], "max_tokens")
    assert.deepStrictEqual(cut?.["content"], [{ type: "tool_use", id: "t", name: "f", input: {} }])
  })
})

describe("whole answers that are none", () => {
  const deep = `{"content":${"[".repeat(100_000)}${"]".repeat(100_000)}}`
  const bodies = ["", "{", "[]", "null", "{}", `{"choices":[]}`, `{"content":[],"usage":{}}`, `{"choices":3}`, deep]
  for (const body of bodies) {
    it(`are malformed: ${body.slice(0, 40)}`, () => {
      assert.isUndefined(answered(chatOverMessages, body))
      assert.isUndefined(answered(messagesOverChat, body))
    })
  }
})

describe("errors of providers in the form of the other wire", () => {
  const messagesError = (type: string) => JSON.stringify({ type: "error", error: { type, message: "words" } })
  const chatError = (type: string, code: string | null = null) =>
    JSON.stringify({ error: { message: "words", type, code, param: null } })

  const toChat = [
    [400, "invalid_request_error", 400, "invalid_request_error"],
    [401, "authentication_error", 401, "authentication_error"],
    [403, "permission_error", 403, "permission_error"],
    [404, "not_found_error", 404, "invalid_request_error"],
    [413, "request_too_large", 413, "invalid_request_error"],
    [429, "rate_limit_error", 429, "rate_limit_error"],
    [500, "api_error", 500, "server_error"],
    [529, "overloaded_error", 503, "server_error"]
  ] as const
  for (const [status, type, expectedStatus, expectedType] of toChat) {
    it(`messages to chat completions: ${status} ${type}`, () => {
      const error = chatOverMessages.error(status, bytesOf(messagesError(type)))
      assert.strictEqual(error.status, expectedStatus)
      assert.deepStrictEqual(JSON.parse(error.body), {
        error: { message: "words", type: expectedType, param: null, code: type }
      })
    })
  }

  const toMessages = [
    [400, "invalid_request_error", 400, "invalid_request_error"],
    [401, "invalid_request_error", 401, "authentication_error"],
    [403, "permission", 403, "permission_error"],
    [404, "invalid_request_error", 404, "not_found_error"],
    [413, "invalid_request_error", 413, "request_too_large"],
    [422, "invalid_request_error", 422, "invalid_request_error"],
    [429, "requests", 429, "rate_limit_error"],
    [500, "server_error", 500, "api_error"],
    [503, "server_error", 529, "overloaded_error"],
    [504, "timeout", 504, "timeout_error"]
  ] as const
  for (const [status, type, expectedStatus, expectedType] of toMessages) {
    it(`chat completions to messages: ${status} ${type}`, () => {
      const error = messagesOverChat.error(status, bytesOf(chatError(type)))
      assert.strictEqual(error.status, expectedStatus)
      assert.deepStrictEqual(JSON.parse(error.body), {
        type: "error",
        error: { type: expectedType, message: "words" }
      })
    })
  }

  it("a page or no body is an error too", () => {
    for (const body of ["", "<html>bad gateway</html>", "[".repeat(100_000)]) {
      assert.strictEqual(JSON.parse(chatOverMessages.error(502, bytesOf(body)).body).error.type, "server_error")
      assert.strictEqual(JSON.parse(messagesOverChat.error(502, bytesOf(body)).body).error.type, "api_error")
    }
  })
})

describe("models", () => {
  it("are listed in the form of each wire", () => {
    assert.deepStrictEqual(Models.chatModels(["a"], "sluice"), {
      object: "list",
      data: [{ id: "a", object: "model", created: 0, owned_by: "sluice" }]
    })
    const model = { type: "model", id: "a", display_name: "a", created_at: "1970-01-01T00:00:00Z" }
    assert.deepStrictEqual(Models.messagesModels(["a", "b"]), {
      data: [model, { ...model, id: "b", display_name: "b" }],
      has_more: false,
      first_id: "a",
      last_id: "b"
    })
    assert.deepStrictEqual(Models.messagesModels([]), { data: [], has_more: false, first_id: null, last_id: null })
  })
})
