import { assert, describe, it } from "@effect/vitest"
import type { Malformed, Prompt } from "../../src/run/Prompt.ts"
import * as PromptLine from "../../src/run/Prompt.ts"

const read = (line: unknown, system?: string) =>
  PromptLine.read({ isPlain: false, system }, 3, typeof line === "string" ? line : JSON.stringify(line))

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
      temperature: 0.1,
      maxTokens: 5,
      body: { top_p: 0.9 }
    })
  })

  it("a plain line is not parsed, even if it looks like JSON", () => {
    const item = PromptLine.read({ isPlain: true }, 1, `{"id":"x"}`)
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
    assert.deepStrictEqual([item.model, item.temperature], [undefined, undefined])
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
    assert.include(malformed({ messages: [{ role: "system", content: "x" }] }).message, "must include a user message")
    assert.include(
      malformed({ url: "/v1/embeddings", body: { messages: [user("x")] } }).message,
      "must end in /chat/completions"
    )
    assert.notInclude(malformed({ messages: [{ role: "tool", content: "x" }] }).message, "\n")
  })

  it("unsupported fields and content are refused", () => {
    assert.strictEqual(malformed({ body: { messages: [user("x")], tools: [] } }).message, "body.tools is not supported")
    malformed({ messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] }] })
  })

  it("deeply nested JSON is refused, and brackets in strings do not count", () => {
    const deep = `{"prompt":"x","a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`
    assert.include(malformed(deep).message, "levels deep")
    assert.strictEqual(prompt({ prompt: `"${"[{".repeat(200)}` }).messages.length, 1)
  })
})
