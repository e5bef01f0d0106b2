import { assert, describe, it } from "@effect/vitest"
import type { Malformed, Prompt } from "../../src/run/Prompt.ts"
import * as PromptLine from "../../src/run/Prompt.ts"

const read = (line: unknown, system?: string) =>
  PromptLine.read({ system }, {
    _tag: "Line",
    line: 3,
    isPlain: false,
    text: typeof line === "string" ? line : JSON.stringify(line)
  })

const prompt = (line: unknown, system?: string): Prompt => {
  const item = read(line, system)
  if (item._tag === "Malformed") return assert.fail(item.message)
  return item
}

const malformed = (line: unknown): Malformed => {
  const item = read(line)
  if (item._tag === "Prompt") return assert.fail("it was read")
  return item
}

const user = (content: string) => ({ role: "user" as const, content })

describe("Prompt", () => {
  it("a line with a prompt is a user message", () => {
    const { id, line, messages, model } = prompt({ prompt: "hello" })
    assert.deepStrictEqual({ id, line, messages, model }, {
      id: undefined,
      line: 3,
      messages: [user("hello")],
      model: undefined
    })
  })

  it("a conversation is read, and texts in parts are joined", () => {
    const { messages } = prompt({
      messages: [{ role: "developer", content: "be brief" }, {
        role: "user",
        content: [{ type: "text", text: "a" }, { type: "text", text: "b" }]
      }]
    })
    assert.deepStrictEqual(messages, [{ role: "system", content: "be brief" }, user("ab")])
  })

  it("a batch line is read with its request fields", () => {
    const item = prompt({
      custom_id: "c-1",
      method: "POST",
      url: "/v1/chat/completions",
      body: { model: "m", messages: [user("hello")], max_tokens: 5, temperature: 0.1, top_p: 0.9, stream: false }
    })
    assert.deepStrictEqual(item, {
      _tag: "Prompt",
      line: 3,
      id: "c-1",
      messages: [user("hello")],
      model: "m",
      body: { max_tokens: 5, temperature: 0.1, top_p: 0.9 }
    })
  })

  it("a plain line is not parsed, even if it looks like JSON", () => {
    const item = PromptLine.read({}, { _tag: "Line", line: 1, isPlain: true, text: `{"id":"x"}` })
    assert.deepStrictEqual(item._tag === "Prompt" && item.messages, [user(`{"id":"x"}`)])
  })

  it("the system message comes first", () => {
    assert.deepStrictEqual(prompt({ prompt: "hello" }, "be kind").messages, [
      { role: "system", content: "be kind" },
      user("hello")
    ])
  })

  it("a numeric id becomes a string", () => {
    assert.strictEqual(prompt({ id: 7, prompt: "hello" }).id, "7")
  })

  it("__proto__ and constructor are ordinary ids, models and fields", () => {
    for (const id of ["__proto__", "constructor", "toString"]) {
      const item = prompt({ custom_id: id, body: { model: id, messages: [user("hello")] } })
      assert.deepStrictEqual([item.id, item.model], [id, id])
    }
    const item = prompt(`{"prompt":"hello","__proto__":{"model":"evil","temperature":2}}`)
    assert.deepStrictEqual([item.model, item.body], [undefined, undefined])
    assert.include(
      malformed(`{"body":{"messages":[{"role":"user","content":"x"}],"__proto__":{"n":3}}}`).message,
      "body.__proto__ is not supported"
    )
    assert.include(malformed(`{"__proto__":{"prompt":"inherited"}}`).message, "neither")
  })

  it("a malformed line keeps its id, and its message is one line", () => {
    assert.deepStrictEqual(malformed({ id: "a", prompt: 3 }).id, "a")
    assert.include(malformed({ id: "a", prompt: 3 }).message, "prompt")
    assert.strictEqual(malformed("{oops").message, "the line is not JSON")
    assert.strictEqual(malformed("[1]").message, "the line is JSON, but not an object")
    assert.include(malformed({ text: "x" }).message, `neither "prompt" nor "messages" nor "body"`)
    assert.include(malformed({ prompt: "  " }).message, "must not be empty")
    assert.include(malformed({ prompt: 3 }).message, "prompt must be a text")
    assert.include(malformed({ messages: [{ role: "system", content: "x" }] }).message, "must include a user message")
    assert.include(
      malformed({ url: "/v1/embeddings", body: { messages: [user("x")] } }).message,
      "must end in /chat/completions"
    )
    assert.notInclude(malformed({ messages: [{ role: "tool", content: "x" }] }).message, "\n")
  })

  /** A line with these request fields, in each of the three forms. */
  const forms = (fields: object): ReadonlyArray<readonly [form: string, line: object]> => [
    ["prompt", { prompt: "x", ...fields }],
    ["messages", { messages: [user("x")], ...fields }],
    ["body", { custom_id: "c", body: { messages: [user("x")], ...fields } }]
  ]

  it.each<readonly [name: string, value: unknown]>([
    ["temperature", 0.3],
    ["temperature", 0],
    ["max_tokens", 99],
    ["max_completion_tokens", 99],
    ["top_p", 0.5],
    ["top_k", 40],
    ["seed", 0],
    ["stop", "END"],
    ["stop", ["a", "b"]],
    ["presence_penalty", -0.5],
    ["frequency_penalty", 0.5],
    ["logit_bias", { 50256: -100 }],
    ["response_format", { type: "json_object" }],
    ["response_format", { type: "json_schema", json_schema: { name: "a", schema: { type: "object" } } }],
    ["reasoning_effort", "low"],
    ["verbosity", "low"],
    ["service_tier", "flex"],
    ["min_p", 0.1],
    ["chat_template_kwargs", { enable_thinking: false }]
  ])("the request field %s: %j is sent under its own name, in all forms of a line", (name, value) => {
    for (const [form, line] of forms({ [name]: value })) {
      assert.deepStrictEqual(prompt(line).body, { [name]: value } as unknown, form)
    }
  })

  it("a line's own model is read in all forms", () => {
    for (const [form, line] of forms({ model: "own" })) assert.strictEqual(prompt(line).model, "own", form)
  })

  it.each<readonly [fields: object, problem: string]>([
    [{ tools: [{ type: "function", function: { name: "f" } }] }, "tools is not supported, since a result has one text"],
    [{ tool_choice: "auto" }, "tool_choice is not supported"],
    [{ parallel_tool_calls: false }, "parallel_tool_calls is not supported"],
    [{ functions: [] }, "functions is not supported"],
    [{ n: 2 }, "n is not supported"],
    [{ logprobs: true }, "logprobs is not supported"],
    [{ top_logprobs: 3 }, "top_logprobs is not supported"],
    [{ modalities: ["audio"] }, "modalities is not supported"],
    [{ maxTokens: 5 }, "maxTokens is not supported; did you mean max_tokens?"],
    [{ "max-tokens": 5 }, "max-tokens is not supported; did you mean max_tokens?"],
    [{ temprature: 0 }, "temprature is not supported; did you mean temperature?"],
    [{ topP: 1 }, "topP is not supported; did you mean top_p?"],
    [{ temperature: "0" }, "temperature must be a number from 0 to 2"],
    [{ temperature: 3 }, "temperature must be a number from 0 to 2"],
    [{ max_tokens: 0 }, "max_tokens must be a whole number from 1"],
    [{ max_completion_tokens: 1.5 }, "max_completion_tokens must be a whole number from 1"],
    [{ seed: "7" }, "seed must be a whole number"],
    [{ stop: [1] }, "stop must be a text or a list of texts"],
    [{ response_format: "json" }, `response_format must be an object with a "type"`],
    [{ model: 7 }, "model must be a text"],
    [{ model: "" }, "model must not be empty"]
  ])("a line with %j is refused by the name of the field, in all forms", (fields, problem) => {
    for (const [form, line] of forms(fields)) {
      const { line: number, message } = malformed(line)
      assert.strictEqual(number, 3)
      assert.include(message, form === "body" ? `body.${problem}` : problem)
    }
  })

  it("fields of the run, null, and values without effect are left out", () => {
    const fields = {
      stream: true,
      stream_options: {},
      n: 1,
      logprobs: false,
      stop: null,
      temperature: null,
      tools: null
    }
    for (const [form, line] of forms(fields)) assert.isUndefined(prompt(line).body, form)
  })

  it("other columns of a line are the user's own, and unknown fields of a body are refused", () => {
    const columns = {
      category: "a",
      metadata: { a: 1 },
      user: "ann",
      response: "b",
      mode: "c",
      label: 3,
      language: "en"
    }
    assert.isUndefined(prompt({ prompt: "x", ...columns }).body)
    assert.isUndefined(prompt({ messages: [user("x")], ...columns }).body)
    assert.deepStrictEqual(prompt({ body: { messages: [user("x")], user: "ann", store: true } }).body, {
      user: "ann",
      store: true
    })
    assert.strictEqual(
      malformed({ body: { messages: [user("x")], category: "a" } }).message,
      "body.category is not supported"
    )
  })

  it("a request field beside the body of a batch line is refused", () => {
    for (const field of ["temperature", "model", "messages", "tools"]) {
      const message = malformed({ [field]: 1, body: { messages: [user("x")] } }).message
      assert.strictEqual(message, `${field} must be in body, beside the messages`)
    }
  })

  it("a line's own system message comes after that of the flag", () => {
    for (const line of [{ prompt: "x", system: "brief" }, { messages: [user("x")], system: "brief" }]) {
      assert.deepStrictEqual(prompt(line, "kind").messages, [
        { role: "system", content: "kind" },
        { role: "system", content: "brief" },
        user("x")
      ])
    }
  })

  it("images, audio and PDFs of a user message are read", () => {
    const png = "data:image/png;base64,iVBORw0KGgo="
    const { messages } = prompt({
      messages: [{
        role: "user",
        content: [
          { type: "text", text: "what is it?" },
          { type: "image_url", image_url: { url: png, detail: "low" } },
          { type: "image_url", image_url: "https://one.example/a.jpg" },
          { type: "input_audio", input_audio: { data: "UklGRg==", format: "wav" } },
          { type: "file", file: { filename: "a.pdf", file_data: "data:application/pdf;base64,JVBERg==" } }
        ]
      }]
    })
    assert.deepStrictEqual(messages, [{
      role: "user",
      content: [
        { type: "text", text: "what is it?" },
        { type: "file", mediaType: "image/png", data: png, options: { openai: { imageDetail: "low" } } },
        { type: "file", mediaType: "image/*", data: "https://one.example/a.jpg" },
        { type: "file", mediaType: "audio/wav", data: "UklGRg==" },
        { type: "file", mediaType: "application/pdf", data: "data:application/pdf;base64,JVBERg==", fileName: "a.pdf" }
      ]
    }])
  })

  it("an image of a data URL with parameters is read, and a long text that only begins like one is refused", () => {
    const read = (url: string) =>
      prompt({ messages: [{ role: "user", content: [{ type: "image_url", image_url: { url } }] }] })
    const url = `data:image/png;name=a;base64,${"QUJD".repeat(2 ** 22)}`
    assert.deepStrictEqual(read(url).messages, [{
      role: "user",
      content: [{ type: "file", mediaType: "image/png", data: url }]
    }])
    for (const long of [";", ";a", "a"]) {
      assert.throws(() => read(`data:image/png${long.repeat(2 ** 23)}`), /must be an http/)
    }
  })

  it.each<readonly [message: unknown, problem: string]>([
    ["x", "messages[0].role must be"],
    [{ role: "user" }, "messages[0].content must be a text or a list of parts"],
    [{ role: "user", content: "x", name: "ann" }, "messages[0].name is not supported"],
    [{ role: "assistant", content: "x", tool_calls: [{}] }, "messages[0].tool_calls is not supported"],
    [{ role: "tool", content: "x", tool_call_id: "1" }, `messages[0].role is "tool", which is not supported`],
    [{ role: "wizard", content: "x" }, "messages[0].role must be system, developer, user or assistant"],
    [{ role: "system", content: [{ type: "image_url", image_url: { url: "https://a.example" } }] }, "has a file"],
    [{ role: "user", content: [{ type: "text", text: 1 }] }, "messages[0].content[0].text must be a text"],
    [
      { role: "user", content: [{ type: "text", text: "x", cache_control: {} }] },
      "messages[0].content[0].cache_control is not supported"
    ],
    [{ role: "user", content: [{ type: "video_url" }] }, "messages[0].content[0].type must be"],
    [{ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] }, "image_url.url must be"],
    [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:text/html;base64,eA==" } }] }, "must be"],
    [
      { role: "user", content: [{ type: "image_url", image_url: { url: "https://a.example", size: 1 } }] },
      "image_url.size is not supported"
    ],
    [
      { role: "user", content: [{ type: "input_audio", input_audio: { data: "", format: "ogg" } }] },
      "input_audio.format must be wav or mp3"
    ],
    [{ role: "user", content: [{ type: "file", file: { file_id: "f" } }] }, "file.file_id is not supported"]
  ])("the message %j is refused by the path of its problem", (message, problem) => {
    assert.include(malformed({ messages: [message, user("x")] }).message, problem)
    assert.include(malformed({ body: { messages: [message, user("x")] } }).message, problem)
  })

  it("null in place of an absent field of a message is allowed, as in answers of the API", () => {
    const { messages } = prompt({
      messages: [user("x"), { role: "assistant", content: "y", tool_calls: null, refusal: null }, user("z")]
    })
    assert.deepStrictEqual(messages, [user("x"), { role: "assistant", content: "y" }, user("z")])
  })

  it("deeply nested JSON is refused, and brackets in strings do not count", () => {
    const deep = `{"prompt":"x","a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`
    assert.include(malformed(deep).message, "levels deep")
    assert.strictEqual(prompt({ prompt: `"${"[{".repeat(200)}` }).messages.length, 1)
  })
})
