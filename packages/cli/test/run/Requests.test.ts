import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Wire } from "../../src/Flag.ts"
import * as PromptLine from "../../src/run/Prompt.ts"
import { engineFor } from "../support/engine.ts"
import { chatAnswer, httpServer } from "../support/httpServer.ts"

const answers: { readonly [_ in Wire]: object } = {
  openai: chatAnswer,
  anthropic: {
    id: "1",
    type: "message",
    role: "assistant",
    model: "rules",
    content: [{ type: "text", text: "fine" }],
    stop_reason: "end_turn",
    usage: { input_tokens: 1, output_tokens: 1 }
  }
}

/** Sends a line and returns the result, and the body of its request. */
const send = Effect.fnUntraced(function*(
  wire: Wire,
  line: object,
  flags: { readonly temperature?: number; readonly maxTokens?: number } = {}
) {
  const { bodies, url } = yield* httpServer(() => ({ json: answers[wire] }))
  const engine = yield* engineFor({ apiKey: undefined, url }, {
    targets: [{ name: "main", wire, url, model: "rules", apiKey: undefined, keySource: "the test" }],
    noStream: true,
    maxAttempts: 1,
    ...flags
  })
  const prompt = PromptLine.read({}, { _tag: "Line", line: 1, isPlain: false, text: JSON.stringify(line) })
  if (prompt._tag === "Malformed") return yield* Effect.die(prompt.message)
  const { result } = yield* engine.complete(prompt)
  return { result, body: bodies[0], requests: bodies.length }
})

const image = { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=", detail: "low" } }
const question = { role: "user", content: "Hello" }

describe("the request of a line", () => {
  it.live("has the line's own fields under their own names, for all forms of a line", () =>
    Effect.gen(function*() {
      const fields = {
        max_completion_tokens: 99,
        temperature: 0.25,
        seed: 7,
        top_p: 0.5,
        stop: ["END"],
        response_format: { type: "json_object" }
      }
      for (
        const line of [
          { prompt: "Hello", model: "own", ...fields },
          { messages: [question], model: "own", ...fields },
          { custom_id: "a", body: { messages: [question], model: "own", ...fields } }
        ]
      ) {
        const { body, result } = yield* send("openai", line)
        assert.deepInclude(result, { status: "ok", text: "fine" })
        assert.deepStrictEqual(body, { ...fields, model: "own", messages: [question], stream: false })
      }
    }).pipe(Effect.scoped))

  it.live("prefers the line's limit and temperature to the flags, and never has two limits", () =>
    Effect.gen(function*() {
      const flags = { temperature: 1, maxTokens: 5 }
      const plain = yield* send("openai", { prompt: "Hello" }, flags)
      assert.deepInclude(plain.body, { temperature: 1, max_tokens: 5 })
      const own = yield* send("openai", { prompt: "Hello", temperature: 0, max_completion_tokens: 99 }, flags)
      assert.deepInclude(own.body, { temperature: 0, max_completion_tokens: 99 })
      assert.notProperty(own.body, "max_tokens")
      const other = yield* send("openai", { prompt: "Hello", max_tokens: 7 }, flags)
      assert.deepInclude(other.body, { max_tokens: 7 })
      assert.notProperty(other.body, "max_completion_tokens")
    }).pipe(Effect.scoped))

  it.live("has the images of its messages, on both wires", () =>
    Effect.gen(function*() {
      const line = { messages: [{ role: "user", content: [{ type: "text", text: "What is it?" }, image] }] }
      const openai = yield* send("openai", line)
      assert.deepStrictEqual(openai.body?.["messages"], line.messages)
      const anthropic = yield* send("anthropic", line)
      assert.deepStrictEqual(anthropic.body?.["messages"], [{
        role: "user",
        content: [
          { type: "text", text: "What is it?" },
          { type: "image", source: { type: "base64", media_type: "image/png", data: "iVBORw0KGgo=" } }
        ]
      }])
    }).pipe(Effect.scoped))

  it.live("has the fields that Anthropic's API supports, under its names", () =>
    Effect.gen(function*() {
      const { body } = yield* send("anthropic", {
        body: {
          messages: [question],
          max_completion_tokens: 99,
          temperature: 0.5,
          top_p: 0.9,
          stop: "END",
          response_format: { type: "text" },
          user: "ann"
        }
      }, { maxTokens: 5 })
      assert.deepStrictEqual(body, {
        model: "rules",
        messages: [question],
        max_tokens: 99,
        temperature: 0.5,
        top_p: 0.9,
        stop_sequences: ["END"],
        stream: false
      })
    }).pipe(Effect.scoped))

  it.live("is not made if Anthropic's API lacks a field of the line, and the result names it", () =>
    Effect.gen(function*() {
      for (
        const [field, value] of [
          ["seed", 7],
          ["response_format", { type: "json_object" }],
          ["presence_penalty", 1],
          ["logit_bias", {}],
          ["reasoning_effort", "low"]
        ] as const
      ) {
        const { requests, result } = yield* send("anthropic", { prompt: "Hello", [field]: value })
        assert.strictEqual(requests, 0)
        assert.strictEqual(result.status, "failed")
        assert.include(JSON.stringify(result), `the target main cannot honour ${field}`)
      }
    }).pipe(Effect.scoped))
})
