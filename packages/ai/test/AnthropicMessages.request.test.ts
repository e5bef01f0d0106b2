import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, Schema, Stream } from "effect"
import { AiError, Chat, LanguageModel, Prompt } from "effect/ai"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import { aiErrorOf, generate, stream } from "./support/model.ts"
import { json, rawServer, sse } from "./support/rawServer.ts"
import { calculator, calculatorHandlers } from "./support/tools.ts"
import {
  answering,
  anthropic,
  blockDelta,
  blockStart,
  blockStop,
  bodyOf,
  capture,
  message,
  messageDelta,
  messageStart
} from "./support/wires.ts"

/** The error of a prompt that is refused without a request. */
const refused = (prompt: Prompt.RawInput) =>
  Effect.gen(function*() {
    const server = yield* rawServer(answering(anthropic))
    const error = yield* Effect.flip(
      Effect.provide(LanguageModel.generateText({ prompt }), anthropic.modelAt(server.url))
    )
    assert.strictEqual(server.requests.length, 0)
    return aiErrorOf(error)
  })

describe("requests of AnthropicMessages", () => {
  it.live("a request is for a whole answer or a stream, with the required max_tokens", () =>
    Effect.gen(function*() {
      const whole = yield* capture(anthropic, generate("hi"), { apiKey: Redacted.make("sk-test-key") })
      assert.deepInclude(whole.requests[0], { method: "POST", path: "/v1/messages" })
      assert.deepInclude(whole.requests[0]?.headers, {
        "x-api-key": "sk-test-key",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json"
      })
      assert.isUndefined(whole.requests[0]?.headers.authorization)
      const body = { model: "m1", max_tokens: 4096, messages: [{ role: "user", content: "hi" }] }
      assert.deepStrictEqual(bodyOf(whole), { ...body, stream: false })
      const streamed = yield* capture(anthropic, Stream.runDrain(stream("hi")))
      assert.deepStrictEqual(bodyOf(streamed), { ...body, stream: true })
    }))

  it.live("the URL may have a prefix, a version, a trailing slash, the whole path or a query", () =>
    Effect.gen(function*() {
      const server = yield* rawServer(answering(anthropic))
      const urls = ["", "/", "/v1", "/v1/", "/v1/messages", "?beta=true", "/proxy/v1", "/proxy"]
      for (const url of urls) yield* Effect.provide(generate(), anthropic.modelAt(server.origin + url))
      assert.deepStrictEqual(server.requests.map(({ path }) => path), [
        ...Array.from({ length: 5 }, () => "/v1/messages"),
        "/v1/messages?beta=true",
        "/proxy/v1/messages",
        "/proxy/v1/messages"
      ])
    }))

  it.live("the caller's configuration overrides the model's", () =>
    Effect.gen(function*() {
      const server = yield* capture(
        anthropic,
        generate("hi").pipe(
          AnthropicMessages.withConfigOverride({ temperature: 0, body: { top_k: 7 } }),
          AnthropicMessages.withConfigOverride({ temperature: 0.9, maxTokens: 5, model: "m2" })
        ),
        {
          config: {
            system: "Be brief.",
            temperature: 0.5,
            body: { top_p: 0.1, top_k: 1, model: "other", messages: [], stream: true }
          }
        }
      )
      assert.deepStrictEqual(bodyOf(server), {
        max_tokens: 5,
        temperature: 0,
        top_p: 0.1,
        top_k: 7,
        model: "m2",
        system: "Be brief.",
        messages: [{ role: "user", content: "hi" }],
        stream: false
      })
    }))

  it.live("a conversation with images, documents, reasoning and tool results is encoded", () =>
    Effect.gen(function*() {
      const bytes = new Uint8Array([1, 2, 3])
      const cacheControl = { type: "ephemeral" }
      const prompt = Prompt.make([
        { role: "system", content: "Be brief." },
        { role: "system", content: "Be kind.", options: { anthropic: { cacheControl } } },
        {
          role: "user",
          content: [
            { type: "text", text: "what is this?" },
            { type: "text", text: "" },
            { type: "file", mediaType: "image/png", data: bytes },
            { type: "file", mediaType: "image/jpeg", data: new URL("https://example.com/a.jpg") },
            { type: "file", mediaType: "image/*", data: "data:image/png;base64,AQID" },
            { type: "file", mediaType: "application/pdf", data: bytes, fileName: "a.pdf" },
            { type: "file", mediaType: "application/pdf", data: new URL("https://example.com/b.pdf") },
            {
              type: "file",
              mediaType: "text/plain",
              data: new TextEncoder().encode("näive"),
              options: { anthropic: { cacheControl } }
            }
          ]
        },
        {
          role: "assistant",
          content: [
            { type: "reasoning", text: "hm", options: { anthropic: { info: { type: "thinking", signature: "s1" } } } },
            {
              type: "reasoning",
              text: "",
              options: { anthropic: { info: { type: "redacted_thinking", redactedData: "xx" } } }
            },
            { type: "reasoning", text: "of another model" },
            { type: "text", text: "let me see" },
            { type: "tool-call", id: "functions.add:0", name: "add", params: { x: 1, y: 2 } },
            { type: "tool-call", id: "c2", name: "now", params: {} }
          ]
        },
        {
          role: "tool",
          content: [
            { type: "tool-result", id: "functions.add:0", name: "add", isFailure: false, result: { sum: 3 } },
            { type: "tool-result", id: "c2", name: "now", isFailure: true, result: "no clock" }
          ]
        },
        { role: "user", content: "and?" },
        { role: "assistant", content: "It is \n" }
      ])
      const server = yield* capture(anthropic, LanguageModel.generateText({ prompt }))
      const { messages, system } = bodyOf(server)
      assert.deepStrictEqual(system, [
        { type: "text", text: "Be brief." },
        { type: "text", text: "Be kind.", cache_control: cacheControl }
      ])
      assert.deepStrictEqual(messages, [
        {
          role: "user",
          content: [
            { type: "text", text: "what is this?" },
            { type: "image", source: { type: "base64", media_type: "image/png", data: "AQID" } },
            { type: "image", source: { type: "url", url: "https://example.com/a.jpg" } },
            { type: "image", source: { type: "base64", media_type: "image/png", data: "AQID" } },
            {
              type: "document",
              source: { type: "base64", media_type: "application/pdf", data: "AQID" },
              title: "a.pdf"
            },
            { type: "document", source: { type: "url", url: "https://example.com/b.pdf" } },
            {
              type: "document",
              source: { type: "text", media_type: "text/plain", data: "näive" },
              cache_control: cacheControl
            }
          ]
        },
        {
          role: "assistant",
          content: [
            { type: "thinking", thinking: "hm", signature: "s1" },
            { type: "redacted_thinking", data: "xx" },
            { type: "text", text: "let me see" },
            { type: "tool_use", id: "functions_add_0", name: "add", input: { x: 1, y: 2 } },
            { type: "tool_use", id: "c2", name: "now", input: {} }
          ]
        },
        {
          role: "user",
          content: [
            { type: "tool_result", tool_use_id: "functions_add_0", content: "{\"sum\":3}" },
            { type: "tool_result", tool_use_id: "c2", content: "no clock", is_error: true },
            { type: "text", text: "and?" }
          ]
        },
        { role: "assistant", content: "It is" }
      ])
    }))

  it.live("a prompt with a part that the wire cannot encode is refused without a request", () =>
    Effect.gen(function*() {
      const video = yield* refused([{
        role: "user",
        content: [{ type: "file", mediaType: "video/mp4", data: new Uint8Array([1]) }]
      }])
      assert.strictEqual(video.reason._tag, "InvalidUserInputError")
      assert.include(video.message, "video/mp4")
      const late = yield* refused([{ role: "user", content: "hi" }, { role: "system", content: "Be brief." }])
      assert.strictEqual(late.reason._tag, "InvalidUserInputError")
      const noBase64 = yield* refused([{
        role: "user",
        content: [{ type: "file", mediaType: "text/plain", data: "%%%" }]
      }])
      assert.strictEqual(noBase64.reason._tag, "InvalidUserInputError")
    }))

  it.live("a request has the tools and the tool choice", () =>
    Effect.gen(function*() {
      const choices = ["auto", "none", "required", { tool: "add" }, { oneOf: ["now"], mode: "required" }, {
        oneOf: ["now"]
      }] as const
      const bodies = yield* Effect.forEach(choices, (toolChoice) =>
        Effect.map(
          capture(
            anthropic,
            LanguageModel.generateText({ prompt: "hi", toolkit: calculator, toolChoice }).pipe(
              Effect.provide(calculatorHandlers)
            )
          ),
          (server) => bodyOf(server)
        ))
      assert.deepStrictEqual(bodies.map((body) => body.tool_choice), [
        { type: "auto" },
        { type: "none" },
        { type: "any" },
        { type: "tool", name: "add" },
        { type: "any" },
        { type: "auto" }
      ])
      assert.deepStrictEqual(bodies[4].tools.map((tool: { name: string }) => tool.name), ["now"])
      const [add, now] = bodies[0].tools
      assert.deepInclude(add, { name: "add", description: "Adds two numbers" })
      assert.deepStrictEqual(add.input_schema.required, ["x", "y"])
      assert.strictEqual(now.input_schema.type, "object")
    }))

  it.live("an object is requested by its JSON schema", () =>
    Effect.gen(function*() {
      const schema = Schema.Struct({ name: Schema.String, age: Schema.optionalKey(Schema.Int) })
      const server = yield* rawServer((response) =>
        json(response, 200, anthropic.whole("{\"name\":\"Ada\",\"age\":null}"))
      )
      const { value } = yield* LanguageModel.generateObject({ prompt: "who?", schema }).pipe(
        AnthropicMessages.withConfigOverride({ body: { output_config: { effort: "low", format: "mine" } } }),
        Effect.provide(anthropic.modelAt(server.url))
      )
      assert.deepStrictEqual(value, { name: "Ada" })
      const { output_config, tools } = bodyOf(server)
      assert.strictEqual(output_config.effort, "low")
      assert.strictEqual(output_config.format.type, "json_schema")
      assert.deepStrictEqual(output_config.format.schema.required, ["name", "age"])
      assert.isUndefined(tools)
    }))

  it.live("`objects: \"tool\"` requests an object as the input of a tool", () =>
    Effect.gen(function*() {
      const schema = Schema.Struct({ name: Schema.String })
      const server = yield* rawServer((response) =>
        json(
          response,
          200,
          message([
            { type: "text", text: "Here it is." },
            { type: "tool_use", id: "t1", name: "person", input: { name: "Ada" } }
          ], { stop_reason: "tool_use" })
        )
      )
      const answer = yield* LanguageModel.generateObject({ prompt: "who?", schema, objectName: "person" }).pipe(
        AnthropicMessages.withConfigOverride({ objects: "tool" }),
        Effect.provide(anthropic.modelAt(server.url))
      )
      assert.deepStrictEqual(answer.value, { name: "Ada" })
      assert.strictEqual(answer.finishReason, "stop")
      assert.deepStrictEqual(bodyOf(server).tool_choice, { type: "tool", name: "person" })
      assert.strictEqual(bodyOf(server).tools[0].input_schema.type, "object")
      assert.isUndefined(bodyOf(server).output_config)
    }))

  it.live("a schema that the wire cannot encode is refused without a request", () =>
    Effect.gen(function*() {
      const server = yield* rawServer(answering(anthropic))
      interface Tree {
        readonly children: ReadonlyArray<Tree>
      }
      const tree = Schema.Struct({ children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => tree)) })
      const fail = Effect.gen(function*() {
        const error = yield* Effect.flip(
          Effect.provide(LanguageModel.generateObject({ prompt: "who?", schema: tree }), anthropic.modelAt(server.url))
        )
        return AiError.isAiError(error) ? error.reason._tag : error._tag
      })
      assert.strictEqual(yield* fail, "UnsupportedSchemaError")
      assert.strictEqual(server.requests.length, 0)
    }))
})

describe("tools of AnthropicMessages", () => {
  it.live("a tool runs, and its result is sent with the reasoning before the call", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response, _, n) =>
        json(
          response,
          200,
          n === 1
            ? message([
              { type: "thinking", thinking: "hm", signature: "s1" },
              { type: "redacted_thinking", data: "xx" },
              { type: "tool_use", id: "t1", name: "add", input: { x: 2, y: 3 } }
            ], { stop_reason: "tool_use" })
            : message([{ type: "text", text: "5" }])
        )
      )
      const text = yield* Effect.gen(function*() {
        const chat = yield* Chat.empty
        const first = yield* chat.generateText({ prompt: "2 + 3?", toolkit: calculator })
        assert.deepStrictEqual(first.toolResults.map(({ result }) => result), [5])
        assert.strictEqual(first.finishReason, "tool-calls")
        return (yield* chat.generateText({ prompt: [], toolkit: calculator })).text
      }).pipe(Effect.provide(calculatorHandlers), Effect.provide(anthropic.modelAt(server.url)))
      assert.strictEqual(text, "5")
      assert.deepStrictEqual(bodyOf(server, 1).messages.slice(1), [
        {
          role: "assistant",
          content: [
            { type: "thinking", thinking: "hm", signature: "s1" },
            { type: "redacted_thinking", data: "xx" },
            { type: "tool_use", id: "t1", name: "add", input: { x: 2, y: 3 } }
          ]
        },
        { role: "user", content: [{ type: "tool_result", tool_use_id: "t1", content: "5" }] }
      ])
    }))

  it.live("a tool that is called in a stream runs, and its result is sent with the streamed reasoning", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response, _, n) =>
        sse(
          response,
          n === 1
            ? messageStart() +
              blockStart(0, { type: "thinking", thinking: "", signature: "" }) +
              blockDelta(0, { type: "thinking_delta", thinking: "h" }) +
              blockDelta(0, { type: "thinking_delta", thinking: "m" }) +
              blockDelta(0, { type: "signature_delta", signature: "s" }) +
              blockDelta(0, { type: "signature_delta", signature: "1" }) + blockStop(0) +
              blockStart(1, { type: "redacted_thinking", data: "xx" }) + blockStop(1) +
              blockStart(2, { type: "tool_use", id: "t1", name: "add", input: {} }) +
              blockDelta(2, { type: "input_json_delta", partial_json: "" }) +
              blockDelta(2, { type: "input_json_delta", partial_json: "{\"x\":2" }) +
              blockDelta(2, { type: "input_json_delta", partial_json: ",\"y\":3}" }) + blockStop(2) +
              messageDelta("tool_use") + anthropic.done
            : anthropic.head + anthropic.delta("5") + anthropic.finish + anthropic.done
        )
      )
      yield* Effect.gen(function*() {
        const chat = yield* Chat.empty
        const parts = yield* Stream.runCollect(chat.streamText({ prompt: "2 + 3?", toolkit: calculator }))
        assert.deepStrictEqual(parts.flatMap((part) => part.type === "tool-result" ? [part.result] : []), [5])
        yield* Stream.runDrain(chat.streamText({ prompt: [], toolkit: calculator }))
      }).pipe(Effect.provide(calculatorHandlers), Effect.provide(anthropic.modelAt(server.url)))
      assert.deepStrictEqual(bodyOf(server, 1).messages[1], {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "hm", signature: "s1" },
          { type: "redacted_thinking", data: "xx" },
          { type: "tool_use", id: "t1", name: "add", input: { x: 2, y: 3 } }
        ]
      })
    }))
})
