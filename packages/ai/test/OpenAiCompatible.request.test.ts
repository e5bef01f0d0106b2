import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, Schema, Stream } from "effect"
import { Chat, LanguageModel, Prompt } from "effect/ai"
import { HttpClient, HttpClientResponse } from "effect/http"
import { CurrentAttempt } from "@sluice/core/RetryPolicy"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import { generate, modelAt, stream } from "./support/model.ts"
import { completion, done, finish, json, rawServer, sse } from "./support/rawServer.ts"
import { calculator, calculatorHandlers } from "./support/tools.ts"
import { answering, bodyOf, capture, openAi } from "./support/wires.ts"

describe("requests of OpenAiCompatible", () => {
  it.live("a request is for a whole answer or a stream", () =>
    Effect.gen(function*() {
      const whole = yield* capture(openAi, generate("hi"))
      assert.deepInclude(whole.requests[0], { method: "POST", path: "/v1/chat/completions" })
      assert.deepStrictEqual(bodyOf(whole), { model: "m1", messages: [{ role: "user", content: "hi" }], stream: false })

      const streamed = yield* capture(openAi, Stream.runDrain(stream("hi")))
      assert.deepStrictEqual(bodyOf(streamed), {
        model: "m1",
        messages: [{ role: "user", content: "hi" }],
        stream: true,
        stream_options: { include_usage: true }
      })
    }))

  it.live("the URL may end with a slash, the whole path or a query", () =>
    Effect.gen(function*() {
      const server = yield* rawServer(answering(openAi))
      for (
        const url of [server.url, `${server.url}/`, `${server.url}/chat/completions`, `${server.url}?api-version=1`]
      ) {
        yield* Effect.provide(generate(), modelAt(url))
      }
      assert.deepStrictEqual(server.requests.map(({ path }) => path), [
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/v1/chat/completions?api-version=1"
      ])
    }))

  it.live("a request carries the API key, and without one it has no such header", () =>
    Effect.gen(function*() {
      const withKey = yield* capture(openAi, generate(), { apiKey: Redacted.make("sk-test-key") })
      assert.strictEqual(withKey.requests[0]?.headers.authorization, "Bearer sk-test-key")
      const without = yield* capture(openAi, generate())
      assert.isUndefined(without.requests[0]?.headers.authorization)
      assert.isUndefined(without.requests[0]?.headers["idempotency-key"])
      assert.isUndefined(without.requests[0]?.headers["x-sluice-attempt"])
    }))

  it.live("the caller's configuration overrides the model's", () =>
    Effect.gen(function*() {
      const server = yield* capture(
        openAi,
        generate("hi").pipe(
          OpenAiCompatible.withConfigOverride({ temperature: 0, body: { seed: 7 }, idempotencyKey: "once" }),
          OpenAiCompatible.withConfigOverride({ temperature: 0.9, maxTokens: 5, model: "m2" })
        ),
        { config: { system: "Be brief.", temperature: 0.5, body: { top_p: 0.1, seed: 1 } } }
      )
      assert.deepStrictEqual(bodyOf(server), {
        temperature: 0,
        max_tokens: 5,
        top_p: 0.1,
        seed: 7,
        model: "m2",
        messages: [{ role: "system", content: "Be brief." }, { role: "user", content: "hi" }],
        stream: false
      })
      assert.strictEqual(server.requests[0]?.headers["idempotency-key"], "once")
    }))

  it.effect("maxTokens is sent as max_completion_tokens to OpenAI and as max_tokens elsewhere", () =>
    Effect.gen(function*() {
      const bodies: Array<Record<string, unknown>> = []
      const transport = HttpClient.make((request) =>
        Effect.sync(() => {
          if (request.body._tag === "Uint8Array") bodies.push(JSON.parse(new TextDecoder().decode(request.body.body)))
          return HttpClientResponse.fromWeb(request, Response.json(completion({ content: "hello" })))
        })
      )
      for (const url of ["https://api.openai.com/v1", "https://openai.example.com/v1"]) {
        yield* generate("hi").pipe(
          Effect.provide(OpenAiCompatible.layer({ url, model: "m1", config: { maxTokens: 5 } })),
          Effect.provideService(HttpClient.HttpClient, transport)
        )
      }
      assert.deepInclude(bodies[0], { max_completion_tokens: 5 })
      assert.notProperty(bodies[0], "max_tokens")
      assert.deepInclude(bodies[1], { max_tokens: 5 })
      assert.notProperty(bodies[1], "max_completion_tokens")
    }))

  it.live("the body option cannot change the model, the messages or stream", () =>
    Effect.gen(function*() {
      const body = { model: "other", messages: [], stream: false, ["__proto__"]: { x: 1 } }
      const server = yield* capture(openAi, Stream.runDrain(stream("hi")), { config: { body } })
      assert.deepInclude(bodyOf(server), { model: "m1", messages: [{ role: "user", content: "hi" }], stream: true })
      assert.isUndefined(({} as { x?: number }).x)
    }))

  it.live("a request within a retry carries its attempt number", () =>
    Effect.gen(function*() {
      const server = yield* capture(
        openAi,
        Effect.provideService(generate(), CurrentAttempt, { attempt: 3, maxAttempts: 5 })
      )
      assert.strictEqual(server.requests[0]?.headers["x-sluice-attempt"], "3")
    }))

  it.live("a conversation with images, answers and tool results is encoded", () =>
    Effect.gen(function*() {
      const image = new Uint8Array([1, 2, 3])
      const prompt = Prompt.make([
        { role: "system", content: "Be brief." },
        {
          role: "user",
          content: [
            { type: "text", text: "what is this?" },
            { type: "file", mediaType: "image/png", data: image },
            { type: "file", mediaType: "image/jpeg", data: new URL("https://example.com/a.jpg") },
            { type: "file", mediaType: "application/pdf", data: image, fileName: "a.pdf" },
            { type: "file", mediaType: "audio/wav", data: image }
          ]
        },
        {
          role: "assistant",
          content: [
            { type: "reasoning", text: "hm" },
            { type: "text", text: "let me see" },
            { type: "tool-call", id: "c1", name: "add", params: { x: 1, y: 2 } }
          ]
        },
        {
          role: "tool",
          content: [
            { type: "tool-result", id: "c1", name: "add", isFailure: false, result: { sum: 3 } },
            { type: "tool-result", id: "c2", name: "now", isFailure: false, result: "noon" }
          ]
        }
      ])
      const server = yield* capture(openAi, LanguageModel.generateText({ prompt }))
      assert.deepStrictEqual(bodyOf(server).messages, [
        { role: "system", content: "Be brief." },
        {
          role: "user",
          content: [
            { type: "text", text: "what is this?" },
            { type: "image_url", image_url: { url: "data:image/png;base64,AQID" } },
            { type: "image_url", image_url: { url: "https://example.com/a.jpg" } },
            { type: "file", file: { filename: "a.pdf", file_data: "data:application/pdf;base64,AQID" } },
            { type: "input_audio", input_audio: { data: "AQID", format: "wav" } }
          ]
        },
        {
          role: "assistant",
          content: "let me see",
          tool_calls: [{ id: "c1", type: "function", function: { name: "add", arguments: "{\"x\":1,\"y\":2}" } }]
        },
        { role: "tool", tool_call_id: "c1", content: "{\"sum\":3}" },
        { role: "tool", tool_call_id: "c2", content: "noon" }
      ])
    }))

  it.live("a prompt with a part that the wire cannot encode is refused without a request", () =>
    Effect.gen(function*() {
      const server = yield* rawServer(answering(openAi))
      const prompt = Prompt.make([{
        role: "user",
        content: [{ type: "file", mediaType: "video/mp4", data: new Uint8Array([1]) }]
      }])
      const error = yield* Effect.flip(
        Effect.provide(LanguageModel.generateText({ prompt }), modelAt(server.url))
      )
      assert.strictEqual(error._tag === "AiError" && error.reason._tag, "InvalidUserInputError")
      assert.include(error.message, "video/mp4")
      assert.strictEqual(server.requests.length, 0)
    }))

  it.live("a request has the tools and the tool choice", () =>
    Effect.gen(function*() {
      const choices = ["auto", "none", "required", { tool: "add" }, { oneOf: ["now"], mode: "required" }] as const
      const bodies = yield* Effect.forEach(choices, (toolChoice) =>
        Effect.map(
          capture(
            openAi,
            LanguageModel.generateText({ prompt: "hi", toolkit: calculator, toolChoice }).pipe(
              Effect.provide(calculatorHandlers)
            )
          ),
          (server) => bodyOf(server)
        ))
      assert.deepStrictEqual(bodies.map((body) => body.tool_choice), [
        "auto",
        "none",
        "required",
        { type: "function", function: { name: "add" } },
        "required"
      ])
      assert.deepStrictEqual(bodies[4].tools.map((tool: { function: { name: string } }) => tool.function.name), ["now"])
      const [add, now] = bodies[0].tools
      assert.deepInclude(add.function, { name: "add", description: "Adds two numbers" })
      assert.deepStrictEqual(add.function.parameters.required, ["x", "y"])
      assert.strictEqual(now.function.parameters.type, "object")
    }))

  it.live("an object is requested by its JSON schema", () =>
    Effect.gen(function*() {
      const schema = Schema.Struct({ name: Schema.String, age: Schema.optionalKey(Schema.Int) })
      const server = yield* rawServer((response) =>
        json(response, 200, completion({ content: "{\"name\":\"Ada\",\"age\":null}" }))
      )
      const { value } = yield* LanguageModel.generateObject({ prompt: "who?", schema, objectName: "person" }).pipe(
        Effect.provide(modelAt(server.url))
      )
      assert.deepStrictEqual(value, { name: "Ada" })
      const format = bodyOf(server).response_format
      assert.deepInclude(format, { type: "json_schema" })
      assert.deepInclude(format.json_schema, { name: "person", strict: true })
      assert.deepStrictEqual(format.json_schema.schema.required, ["name", "age"])
    }))

  it.live("a schema that the wire cannot encode is refused without a request", () =>
    Effect.gen(function*() {
      const server = yield* rawServer(answering(openAi))
      const schema = Schema.Union([Schema.Struct({ a: Schema.String }), Schema.Struct({ b: Schema.String })])
      const error = yield* LanguageModel.generateObject({ prompt: "who?", schema }).pipe(
        Effect.provide(modelAt(server.url)),
        Effect.flip
      )
      assert.strictEqual(error._tag === "AiError" && error.reason._tag, "UnsupportedSchemaError")
      assert.strictEqual(server.requests.length, 0)
    }))
})

describe("tools of OpenAiCompatible", () => {
  const toolCall = (id: string, name: string, args: string) => ({
    id,
    type: "function",
    function: { name, arguments: args }
  })

  it.live("a tool runs, and its result is sent with the next request", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response, _, n) =>
        json(
          response,
          200,
          n === 1
            ? completion({ content: null, tool_calls: [toolCall("c1", "add", "{\"x\":2,\"y\":3}")] })
            : completion({ content: "5" })
        )
      )
      const text = yield* Effect.gen(function*() {
        const chat = yield* Chat.empty
        const first = yield* chat.generateText({ prompt: "2 + 3?", toolkit: calculator })
        assert.deepStrictEqual(first.toolResults.map(({ result }) => result), [5])
        return (yield* chat.generateText({ prompt: [], toolkit: calculator })).text
      }).pipe(Effect.provide(calculatorHandlers), Effect.provide(modelAt(server.url)))
      assert.strictEqual(text, "5")
      assert.deepStrictEqual(bodyOf(server, 1).messages.slice(1), [
        { role: "assistant", content: null, tool_calls: [toolCall("c1", "add", "{\"x\":2,\"y\":3}")] },
        { role: "tool", tool_call_id: "c1", content: "5" }
      ])
    }))

  it.live("a tool that is called in a stream runs", () =>
    Effect.gen(function*() {
      const fragment = (index: number, more: object) =>
        `data: ${JSON.stringify({ choices: [{ index: 0, delta: { tool_calls: [{ index, ...more }] } }] })}\n\n`
      const server = yield* rawServer((response) =>
        sse(
          response,
          fragment(0, { id: "c1", function: { name: "add", arguments: "{\"x\":2" } }) +
            fragment(0, { function: { arguments: ",\"y\":3}" } }) + finish("tool_calls") + done
        )
      )
      const parts = yield* LanguageModel.streamText({ prompt: "2 + 3?", toolkit: calculator }).pipe(
        Stream.runCollect,
        Effect.provide(calculatorHandlers),
        Effect.provide(modelAt(server.url))
      )
      assert.deepStrictEqual(parts.flatMap((part) => part.type === "tool-result" ? [part.result] : []), [5])
    }))
})
