import { assert, describe, it } from "@effect/vitest"
import { chatOverMessages, messagesOverChat } from "../../src/internal/front/translate/translation.ts"
import { type Json, refused, requested } from "./translated.ts"

const hi = [{ role: "user", content: "hi" }]
const chat = (more: Json = {}): Json => ({ model: "m", messages: hi, max_tokens: 10, ...more })
const messages = (more: Json = {}): Json => ({ model: "m", messages: hi, max_tokens: 10, ...more })

const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
const chatTool = { type: "function", function: { name: "weather", description: "d", parameters: schema, strict: true } }
const messagesTool = { name: "weather", description: "d", input_schema: schema, strict: true }
const tools = { chat: { tools: [chatTool] }, messages: { tools: [messagesTool] } }

interface Row {
  readonly title: string
  readonly chat: Json
  readonly messages: Json
}

// Each row is translated both ways.
const both: ReadonlyArray<Row> = [
  { title: "a text", chat: chat(), messages: messages() },
  {
    title: "instructions",
    chat: chat({ messages: [{ role: "system", content: "be brief" }, ...hi] }),
    messages: messages({ system: "be brief" })
  },
  {
    title: "instructions in parts",
    chat: chat({
      messages: [{ role: "system", content: [{ type: "text", text: "a" }, { type: "text", text: "b" }] }, ...hi]
    }),
    messages: messages({ system: [{ type: "text", text: "a" }, { type: "text", text: "b" }] })
  },
  {
    title: "instructions within a conversation, which keep their place",
    chat: chat({ messages: [...hi, { role: "system", content: "be brief" }, { role: "assistant", content: "yes" }] }),
    messages: messages({
      messages: [...hi, { role: "system", content: "be brief" }, { role: "assistant", content: "yes" }]
    })
  },
  {
    title: "images as data and by URL",
    chat: chat({
      messages: [{
        role: "user",
        content: [
          { type: "text", text: "what is this?" },
          { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
          { type: "image_url", image_url: { url: "https://example.com/a.png" } }
        ]
      }]
    }),
    messages: messages({
      messages: [{
        role: "user",
        content: [
          { type: "text", text: "what is this?" },
          { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } },
          { type: "image", source: { type: "url", url: "https://example.com/a.png" } }
        ]
      }]
    })
  },
  {
    title: "a PDF",
    chat: chat({
      messages: [{
        role: "user",
        content: [{ type: "file", file: { filename: "a.pdf", file_data: "data:application/pdf;base64,AAAA" } }]
      }]
    }),
    messages: messages({
      messages: [{
        role: "user",
        content: [{
          type: "document",
          source: { type: "base64", media_type: "application/pdf", data: "AAAA" },
          title: "a.pdf"
        }]
      }]
    })
  },
  {
    title: "tool calls with their results",
    chat: chat({
      ...tools.chat,
      messages: [
        ...hi,
        {
          role: "assistant",
          content: "I look.",
          tool_calls: [
            { id: "call_1", type: "function", function: { name: "weather", arguments: `{"city":"Rome"}` } },
            { id: "call_2", type: "function", function: { name: "weather", arguments: `{}` } }
          ]
        },
        { role: "tool", tool_call_id: "call_1", content: "sunny" },
        { role: "tool", tool_call_id: "call_2", content: [{ type: "text", text: "a" }, { type: "text", text: "b" }] },
        { role: "user", content: "thanks" }
      ]
    }),
    messages: messages({
      ...tools.messages,
      messages: [
        ...hi,
        {
          role: "assistant",
          content: [
            { type: "text", text: "I look." },
            { type: "tool_use", id: "call_1", name: "weather", input: { city: "Rome" } },
            { type: "tool_use", id: "call_2", name: "weather", input: {} }
          ]
        },
        {
          role: "user",
          content: [
            { type: "tool_result", tool_use_id: "call_1", content: "sunny" },
            {
              type: "tool_result",
              tool_use_id: "call_2",
              content: [{ type: "text", text: "a" }, { type: "text", text: "b" }]
            },
            { type: "text", text: "thanks" }
          ]
        }
      ]
    })
  },
  {
    title: "a tool call without text",
    chat: chat({
      ...tools.chat,
      messages: [...hi, {
        role: "assistant",
        content: null,
        tool_calls: [{ id: "c", type: "function", function: { name: "weather", arguments: `{"city":"Rome"}` } }]
      }]
    }),
    messages: messages({
      ...tools.messages,
      messages: [...hi, {
        role: "assistant",
        content: [{ type: "tool_use", id: "c", name: "weather", input: { city: "Rome" } }]
      }]
    })
  },
  {
    title: "sampling and stops",
    chat: chat({ temperature: 0.5, top_p: 0.9, stop: ["a", "b"] }),
    messages: messages({ temperature: 0.5, top_p: 0.9, stop_sequences: ["a", "b"] })
  },
  { title: "the user", chat: chat({ user: "u1" }), messages: messages({ metadata: { user_id: "u1" } }) },
  {
    title: "the free choice of tools",
    chat: chat({ ...tools.chat, tool_choice: "auto" }),
    messages: messages({ ...tools.messages, tool_choice: { type: "auto" } })
  },
  {
    title: "no choice of tools",
    chat: chat({ ...tools.chat, tool_choice: "none" }),
    messages: messages({ ...tools.messages, tool_choice: { type: "none" } })
  },
  {
    title: "the forced choice of any tool",
    chat: chat({ ...tools.chat, tool_choice: "required" }),
    messages: messages({ ...tools.messages, tool_choice: { type: "any" } })
  },
  {
    title: "the forced choice of one tool, without parallel calls",
    chat: chat({
      ...tools.chat,
      tool_choice: { type: "function", function: { name: "weather" } },
      parallel_tool_calls: false
    }),
    messages: messages({
      ...tools.messages,
      tool_choice: { type: "tool", name: "weather", disable_parallel_tool_use: true }
    })
  },
  {
    title: "an object",
    chat: chat({ response_format: { type: "json_schema", json_schema: { name: "answer", schema, strict: true } } }),
    messages: messages({ output_config: { format: { type: "json_schema", schema } } })
  },
  {
    title: "the effort with an object",
    chat: chat({
      reasoning_effort: "high",
      response_format: { type: "json_schema", json_schema: { name: "answer", schema, strict: true } }
    }),
    messages: messages({ output_config: { effort: "high", format: { type: "json_schema", schema } } })
  },
  {
    title: "no reasoning",
    chat: chat({ reasoning_effort: "none" }),
    messages: messages({ thinking: { type: "disabled" } })
  },
  {
    title: "the tier of service",
    chat: chat({ service_tier: "default" }),
    messages: messages({ service_tier: "standard_only" })
  },
  {
    title: "a stream",
    chat: chat({ stream: true, stream_options: { include_usage: true } }),
    messages: messages({ stream: true })
  }
]

describe("requests in both directions", () => {
  for (const row of both) {
    it(`chat completions to messages: ${row.title}`, () => {
      assert.deepStrictEqual(requested(chatOverMessages, row.chat).request, row.messages)
    })
    it(`messages to chat completions: ${row.title}`, () => {
      assert.deepStrictEqual(requested(messagesOverChat, row.messages).request, row.chat)
    })
  }
})

describe("requests of chat completions as messages", () => {
  const rows: ReadonlyArray<Row> = [
    {
      title: "a developer gives instructions",
      chat: chat({ messages: [{ role: "developer", content: "x" }, ...hi] }),
      messages: messages({ system: "x" })
    },
    {
      title: "max_completion_tokens counts before max_tokens",
      chat: chat({ max_completion_tokens: 20 }),
      messages: messages({ max_tokens: 20 })
    },
    {
      title: "a request without a limit gets one",
      chat: { model: "m", messages: hi },
      messages: messages({ max_tokens: 4096 })
    },
    { title: "a single stop becomes a list", chat: chat({ stop: "x" }), messages: messages({ stop_sequences: ["x"] }) },
    {
      title: "null counts as absent",
      chat: chat({ seed: null, stop: null, tools: null, n: null }),
      messages: messages()
    },
    {
      title: "values that ask for what happens anyway are accepted",
      chat: chat({
        n: 1,
        store: false,
        logprobs: false,
        presence_penalty: 0,
        frequency_penalty: 0,
        modalities: ["text"],
        logit_bias: {},
        response_format: { type: "text" },
        service_tier: "auto",
        parallel_tool_calls: true,
        tools: [],
        tool_choice: "auto",
        verbosity: "medium",
        stop: []
      }),
      messages: messages()
    },
    {
      title: "a tool without parameters takes none",
      chat: chat({ tools: [{ type: "function", function: { name: "now" } }] }),
      messages: messages({ tools: [{ name: "now", input_schema: { type: "object", properties: {} } }] })
    },
    {
      title: "parallel calls are ruled out for the free choice too",
      chat: chat({ ...tools.chat, parallel_tool_calls: false }),
      messages: messages({ ...tools.messages, tool_choice: { type: "auto", disable_parallel_tool_use: true } })
    },
    {
      title: "the description of an object goes into its schema",
      chat: chat({ response_format: { type: "json_schema", json_schema: { name: "n", description: "d", schema } } }),
      messages: messages({
        output_config: { format: { type: "json_schema", schema: { description: "d", ...schema } } }
      })
    },
    {
      title: "ids of other providers are made valid, in calls and results alike",
      chat: chat({
        messages: [
          ...hi,
          {
            role: "assistant",
            content: null,
            tool_calls: [{ id: "a:1.b", type: "function", function: { name: "f", arguments: "" } }]
          },
          { role: "tool", tool_call_id: "a:1.b", content: "x" }
        ]
      }),
      messages: messages({
        messages: [
          ...hi,
          { role: "assistant", content: [{ type: "tool_use", id: "a_1_b", name: "f", input: {} }] },
          { role: "user", content: [{ type: "tool_result", tool_use_id: "a_1_b", content: "x" }] }
        ]
      })
    },
    {
      title: "an answer of the SDK is taken back as it came",
      chat: chat({
        messages: [...hi, { role: "assistant", content: "yes", refusal: null, annotations: [], tool_calls: [] }, ...hi]
      }),
      messages: messages({ messages: [...hi, { role: "assistant", content: "yes" }, ...hi] })
    },
    {
      title: "a refusal is what the model said",
      chat: chat({ messages: [...hi, { role: "assistant", content: null, refusal: "no" }, ...hi] }),
      messages: messages({ messages: [...hi, { role: "assistant", content: "no" }, ...hi] })
    },
    {
      title: "messages of one role become one turn",
      chat: chat({ messages: [{ role: "user", content: "a" }, { role: "user", content: "b" }] }),
      messages: messages({
        messages: [{ role: "user", content: [{ type: "text", text: "a" }, { type: "text", text: "b" }] }]
      })
    },
    {
      title: "empty texts are left out",
      chat: chat({
        messages: [{ role: "user", content: [{ type: "text", text: "" }, { type: "text", text: "b" }] }, {
          role: "assistant",
          content: ""
        }]
      }),
      messages: messages({ messages: [{ role: "user", content: "b" }] })
    }
  ]
  for (const row of rows) {
    it(row.title, () => assert.deepStrictEqual(requested(chatOverMessages, row.chat).request, row.messages))
  }

  it("the target's model and limit replace those of the request", () => {
    const options = { model: "claude", maxTokens: 99 }
    assert.deepStrictEqual(
      requested(chatOverMessages, { model: "gpt", messages: hi }, options).request,
      messages({ model: "claude", max_tokens: 99 })
    )
  })

  it("fields that change only the cost are left out and named", () => {
    const { omitted, request } = requested(
      chatOverMessages,
      chat({
        prompt_cache_key: "k",
        messages: [{ role: "assistant", content: "x", reasoning_content: "because" }, ...hi]
      })
    )
    assert.deepStrictEqual(omitted, ["prompt_cache_key", "reasoning_content"])
    assert.deepStrictEqual(request, messages({ messages: [{ role: "assistant", content: "x" }, ...hi] }))
  })
})

describe("requests of messages as chat completions", () => {
  it("OpenAI gets the limit by its own name", () => {
    const { max_tokens, ...rest } = chat()
    assert.deepStrictEqual(
      requested(messagesOverChat, messages(), { isOpenAi: true }).request,
      { ...rest, max_completion_tokens: max_tokens }
    )
  })

  it("a failed tool is told in words", () => {
    const result = (content: unknown) =>
      requested(
        messagesOverChat,
        messages({
          messages: [{ role: "user", content: [{ type: "tool_result", tool_use_id: "c", content, is_error: true }] }]
        })
      ).request["messages"]
    assert.deepStrictEqual(result("no such city"), [
      { role: "tool", tool_call_id: "c", content: "The tool failed: no such city" }
    ])
    assert.deepStrictEqual(result(undefined), [{ role: "tool", tool_call_id: "c", content: "The tool failed." }])
  })

  it("marks for the cache and adaptive thinking go, and the marks are named", () => {
    const cache_control = { type: "ephemeral" }
    const { omitted, request } = requested(
      messagesOverChat,
      messages({
        system: [{ type: "text", text: "s", cache_control }],
        messages: [{ role: "user", content: [{ type: "text", text: "hi", cache_control }] }],
        tools: [{ ...messagesTool, type: "custom", cache_control }],
        thinking: { type: "adaptive" }
      })
    )
    assert.deepStrictEqual(omitted, ["cache_control"])
    assert.deepStrictEqual(request, chat({ messages: [{ role: "system", content: "s" }, ...hi], ...tools.chat }))
  })

  it("signed thoughts are left out and named, and unsigned ones go back with their tool call", () => {
    const turn = (signature: string) => [...hi, {
      role: "assistant",
      content: [
        { type: "thinking", thinking: "hm", signature },
        { type: "redacted_thinking", data: "x" },
        { type: "tool_use", id: "c", name: "f", input: {} }
      ]
    }]
    const calls = [{ id: "c", type: "function", function: { name: "f", arguments: "{}" } }]
    const signed = requested(messagesOverChat, messages({ messages: turn("abc") }))
    assert.deepStrictEqual(signed.omitted, ["thinking", "redacted_thinking"])
    assert.deepStrictEqual(signed.request["messages"], [...hi, { role: "assistant", content: null, tool_calls: calls }])
    assert.deepStrictEqual(requested(messagesOverChat, messages({ messages: turn("") })).request["messages"], [
      ...hi,
      { role: "assistant", content: null, reasoning_content: "hm", tool_calls: calls }
    ])
    const openAi = requested(messagesOverChat, messages({ messages: turn("") }), { isOpenAi: true })
    assert.deepStrictEqual(openAi.request["messages"], signed.request["messages"])
  })

  it("the beta's name for the form of the answer is read too", () => {
    assert.deepStrictEqual(
      requested(messagesOverChat, messages({ output_format: { type: "json_schema", schema } })).request,
      chat({ response_format: { type: "json_schema", json_schema: { name: "answer", schema, strict: true } } })
    )
  })
})

describe("numbers", () => {
  const long = "12345678901234567890"

  it("long numbers in schemas and arguments keep every digit, both ways", () => {
    const chatText =
      `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\\"id\\":${long}}"}}]}],` +
      `"max_tokens":10,"tools":[{"type":"function","function":{"name":"f","parameters":{"maximum":${long},"minimum":1e-400}}}]}`
    const there = requested(chatOverMessages, chatText).text
    assert.include(there, `"input":{"id":${long}}`)
    assert.include(there, `"input_schema":{"maximum":${long},"minimum":1e-400}`)
    const back = requested(messagesOverChat, there).text
    assert.include(back, `"arguments":"{\\"id\\":${long}}"`)
    assert.include(back, `"parameters":{"maximum":${long},"minimum":1e-400}`)
  })

  it("a long number where an object belongs is refused", () => {
    assert.strictEqual(
      refused(messagesOverChat, `{"model":"m","max_tokens":1,"messages":[${long}]}`).param,
      "messages[0]"
    )
    assert.strictEqual(
      refused(
        chatOverMessages,
        chat({
          messages: [{ role: "assistant", tool_calls: [{ id: "c", function: { name: "f", arguments: long } }] }]
        })
      ).param,
      "messages[0].tool_calls[0].function.arguments"
    )
  })

  it("a temperature with many digits is still a temperature", () => {
    const text = (temperature: string) => `{"model":"m","max_tokens":1,"messages":[],"temperature":${temperature}}`
    assert.include(requested(chatOverMessages, text("0.12345678901234567890")).text, "0.12345678901234567890")
    assert.strictEqual(refused(chatOverMessages, text("1.00000000000000000001e1")).param, "temperature")
  })
})

interface Refused {
  readonly request: Json
  readonly param: string
}

const user = (part: unknown): Json => ({ messages: [{ role: "user", content: [part] }] })
const assistant = (message: Json): Json => ({ messages: [...hi, { role: "assistant", ...message }] })

describe("chat completions that messages have no equivalent for are refused", () => {
  const rows: ReadonlyArray<Refused> = [
    { request: { n: 2 }, param: "n" },
    { request: { logprobs: true }, param: "logprobs" },
    { request: { top_logprobs: 3 }, param: "top_logprobs" },
    { request: { seed: 7 }, param: "seed" },
    { request: { logit_bias: { "50256": -100 } }, param: "logit_bias" },
    { request: { audio: { voice: "alloy", format: "wav" } }, param: "audio" },
    { request: { modalities: ["text", "audio"] }, param: "modalities" },
    { request: { prediction: { type: "content", content: "x" } }, param: "prediction" },
    { request: { web_search_options: {} }, param: "web_search_options" },
    { request: { store: true }, param: "store" },
    { request: { metadata: { a: "b" } }, param: "metadata" },
    { request: { presence_penalty: 1 }, param: "presence_penalty" },
    { request: { frequency_penalty: 1 }, param: "frequency_penalty" },
    { request: { verbosity: "low" }, param: "verbosity" },
    { request: { temperature: 1.5 }, param: "temperature" },
    { request: { service_tier: "flex" }, param: "service_tier" },
    { request: { reasoning_effort: "minimal" }, param: "reasoning_effort" },
    { request: { response_format: { type: "json_object" } }, param: "response_format" },
    { request: { functions: [{ name: "f" }] }, param: "functions" },
    { request: { function_call: "auto" }, param: "function_call" },
    { request: { a_field_of_next_year: 1 }, param: "a_field_of_next_year" },
    { request: { stream_options: { include_obfuscation: true } }, param: "stream_options.include_obfuscation" },
    { request: { user: "a", safety_identifier: "b" }, param: "user" },
    { request: { tools: [{ type: "custom", custom: { name: "x" } }] }, param: "tools[0].type" },
    { request: { tools: [{ ...chatTool, x: 1 }] }, param: "tools[0].x" },
    { request: { ...tools.chat, tool_choice: { type: "allowed_tools" } }, param: "tool_choice.type" },
    { request: { messages: [{ role: "function", name: "f", content: "x" }] }, param: "messages[0].role" },
    { request: { messages: [{ role: "user", name: "ann", content: "x" }] }, param: "messages[0].name" },
    {
      request: user({ type: "input_audio", input_audio: { data: "", format: "wav" } }),
      param: "messages[0].content[0].input_audio"
    },
    { request: user({ type: "video_url", video_url: {} }), param: "messages[0].content[0].video_url" },
    {
      request: user({ type: "image_url", image_url: { url: "https://a", detail: "low" } }),
      param: "messages[0].content[0].image_url.detail"
    },
    {
      request: user({ type: "image_url", image_url: { url: "http://a/b.png" } }),
      param: "messages[0].content[0].image_url.url"
    },
    { request: user({ type: "file", file: { file_id: "f" } }), param: "messages[0].content[0].file.file_id" },
    {
      request: user({ type: "file", file: { file_data: "data:text/csv;base64,AA" } }),
      param: "messages[0].content[0].file.file_data"
    },
    { request: assistant({ audio: { id: "a" } }), param: "messages[1].audio" },
    { request: assistant({ function_call: { name: "f" } }), param: "messages[1].function_call" },
    {
      request: assistant({ tool_calls: [{ id: "c", type: "custom", custom: {} }] }),
      param: "messages[1].tool_calls[0].type"
    },
    {
      request: assistant({ tool_calls: [{ id: "c", type: "function", function: { name: "f", arguments: "{" } }] }),
      param: "messages[1].tool_calls[0].function.arguments"
    },
    {
      request: { messages: [{ role: "tool", tool_call_id: "c", content: [{ type: "image_url" }] }] },
      param: "messages[0].content[0].type"
    }
  ]
  for (const { param, request } of rows) {
    it(`${param}: ${JSON.stringify(request).slice(0, 90)}`, () => {
      const refusal = refused(chatOverMessages, chat(request))
      assert.strictEqual(refusal.param, param)
      assert.include(refusal.message, param)
    })
  }
})

describe("messages that chat completions have no equivalent for are refused", () => {
  const rows: ReadonlyArray<Refused> = [
    { request: { top_k: 5 }, param: "top_k" },
    { request: { container: "c" }, param: "container" },
    { request: { context_management: { edits: [] } }, param: "context_management" },
    { request: { mcp_servers: [{}] }, param: "mcp_servers" },
    { request: { speed: "fast" }, param: "speed" },
    { request: { inference_geo: "eu" }, param: "inference_geo" },
    { request: { thinking: { type: "enabled", budget_tokens: 1024 } }, param: "thinking" },
    { request: { thinking: { type: "disabled" }, output_config: { effort: "low" } }, param: "output_config.effort" },
    { request: { tools: [{ type: "web_search_20250305", name: "web_search" }] }, param: "tools[0].type" },
    { request: { tools: [{ ...messagesTool, defer_loading: true }] }, param: "tools[0].defer_loading" },
    { request: { messages: [{ role: "tool", content: "x" }] }, param: "messages[0].role" },
    { request: user({ type: "search_result" }), param: "messages[0].content[0].type" },
    {
      request: user({ type: "text", text: "x", citations: [{ type: "char_location" }] }),
      param: "messages[0].content[0].citations"
    },
    {
      request: user({ type: "image", source: { type: "file", file_id: "f" } }),
      param: "messages[0].content[0].source.type"
    },
    {
      request: user({ type: "document", source: { type: "text", media_type: "text/plain", data: "x" } }),
      param: "messages[0].content[0].source.type"
    },
    {
      request: user({
        type: "document",
        source: { type: "base64", media_type: "application/pdf", data: "A" },
        citations: { enabled: true }
      }),
      param: "messages[0].content[0].citations"
    },
    {
      request: user({ type: "tool_result", tool_use_id: "c", content: [{ type: "image", source: {} }] }),
      param: "messages[0].content[0].content[0].type"
    },
    {
      request: {
        messages: [{ role: "user", content: [{ type: "text", text: "x" }, { type: "tool_result", tool_use_id: "c" }] }]
      },
      param: "messages[0].content[1]"
    },
    { request: assistant({ content: [{ type: "server_tool_use" }] }), param: "messages[1].content[0].type" },
    { request: { max_tokens: null }, param: "max_tokens" }
  ]
  for (const { param, request } of rows) {
    it(`${param}: ${JSON.stringify(request).slice(0, 90)}`, () => {
      const refusal = refused(messagesOverChat, messages(request))
      assert.strictEqual(refusal.param, param)
      assert.include(refusal.message, param)
    })
  }
})

describe("fields that the operator lets go", () => {
  const request = messages({
    thinking: { type: "enabled", budget_tokens: 1024 },
    context_management: { edits: [] },
    top_k: 5
  })

  it("are left out and named", () => {
    const omittable = ["top_k", "thinking", "context_management", "seed"]
    const { omitted, request: sent } = requested(messagesOverChat, request, { omittable })
    assert.deepStrictEqual(sent, chat())
    assert.sameMembers([...omitted], ["top_k", "thinking", "context_management"])
  })

  it("are translated where they have an equivalent", () => {
    const disabled = messages({ thinking: { type: "disabled" } })
    assert.deepStrictEqual(
      requested(messagesOverChat, disabled, { omittable: ["thinking"] }).request,
      chat({ reasoning_effort: "none" })
    )
  })

  it("do not include what a request needs", () => {
    assert.strictEqual(
      refused(messagesOverChat, messages({ messages: 1 }), { omittable: ["messages"] }).param,
      "messages"
    )
  })
})

describe("hostile requests are refused and do not throw", () => {
  const deep = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`
  for (const [name, translation] of [["chat", chatOverMessages], ["messages", messagesOverChat]] as const) {
    it(`${name}: no JSON, another type, too deep`, () => {
      for (const body of ["", "{", "null", "[]", "3", `"x"`, deep(200_000), `{"model":${deep(10_000)}}`]) {
        assert.strictEqual(refused(translation, body).param, "")
      }
    })

    it(`${name}: every field in every wrong type`, () => {
      const fields = [
        "model",
        "messages",
        "max_tokens",
        "temperature",
        "top_p",
        "tools",
        "tool_choice",
        "stream",
        "thinking",
        "stop",
        "stop_sequences",
        "metadata",
        "system",
        "output_config",
        "response_format",
        "stream_options",
        "user",
        "parallel_tool_calls",
        "reasoning_effort",
        "service_tier"
      ]
      const values = [0, -1, "", "x", true, [], {}, [[]], [{}], [null], { type: 1 }, { type: "function" }, [{
        role: {}
      }]]
      let count = 0
      for (const field of fields) {
        for (const value of values) {
          const bytes = new TextEncoder().encode(JSON.stringify(chat({ [field]: value })))
          const result = translation.request(bytes, {})
          if (result._tag === "Failure") count++
        }
      }
      assert.isAbove(count, 150)
    })

    it(`${name}: every part of a conversation in every wrong type`, () => {
      const values = [0, "x", true, [], {}, [[]], [0], { type: "text" }, [{ type: {} }], [{ type: "text", text: 1 }]]
      const names = ["role", "content", "tool_calls", "tool_call_id", "refusal", "image_url", "source", "input", "id"]
      for (const value of values) {
        for (const name of names) {
          for (const role of ["system", "user", "assistant", "tool"]) {
            for (
              const type of ["text", "image_url", "image", "document", "file", "tool_use", "tool_result", "thinking"]
            ) {
              const message = {
                role,
                content: [{ type, [name]: value }],
                ...(name === "content" ? {} : { [name]: value })
              }
              translation.request(new TextEncoder().encode(JSON.stringify(chat({ messages: [message] }))), {})
            }
          }
        }
      }
    })

    it(`${name}: a great many parts`, () => {
      const parts = Array.from({ length: 200_000 }, () => ({ type: "text", text: "x" }))
      const sent = requested(
        translation,
        chat({ messages: [{ role: "user", content: parts }, { role: "user", content: parts }] })
      )
      assert.isAbove(sent.text.length, 10_000_000)
    })
  }

  it("a long name of a field is cut in the refusal", () => {
    const { message, param } = refused(chatOverMessages, chat({ ["x".repeat(100_000)]: 1 }))
    assert.isBelow(param.length + message.length, 300)
  })

  it("names of the prototype are no fields", () => {
    assert.strictEqual(refused(chatOverMessages, `{"model":"m","messages":[],"__proto__":{"n":2}}`).param, "__proto__")
    assert.strictEqual(
      refused(messagesOverChat, `{"model":"m","messages":[],"max_tokens":1,"constructor":1}`).param,
      "constructor"
    )
  })
})
