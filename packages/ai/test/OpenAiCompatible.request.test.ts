import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, Schema, Stream } from "effect"
import { Chat, LanguageModel, Prompt, Tool, Toolkit } from "effect/ai"
import { HttpClient, HttpClientResponse } from "effect/http"
import { CurrentAttempt } from "@sluice/core/RetryPolicy"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import { generate, modelAt, stream } from "./support/model.ts"
import { completion, delta, done, finish, json, type RawServer, rawServer, sse } from "./support/rawServer.ts"

const answering = rawServer((response, { body }) =>
  JSON.parse(body).stream === true
    ? sse(response, delta("hello") + finish() + done)
    : json(response, 200, completion({ role: "assistant", content: "hello" }))
)

const sent = (server: RawServer, n = 0) => JSON.parse(server.requests[n]?.body ?? "{}")

const asking = <A, E>(
  ask: Effect.Effect<A, E, LanguageModel.LanguageModel>,
  options?: Partial<OpenAiCompatible.Options>
) =>
  Effect.gen(function*() {
    const server = yield* answering
    yield* Effect.provide(ask, modelAt(server.url, options))
    return server
  })

const Add = Tool.make("add", {
  description: "Adds two numbers",
  parameters: Schema.Struct({ x: Schema.Int, y: Schema.Int }),
  success: Schema.Int
})
const Now = Tool.make("now", { success: Schema.String })
const tools = Toolkit.make(Add, Now)
const handlers = tools.toLayer({ add: ({ x, y }) => Effect.succeed(x + y), now: () => Effect.succeed("noon") })

describe("a request", () => {
  it.live("asks the model for an answer, in one piece or streamed", () =>
    Effect.gen(function*() {
      const whole = yield* asking(generate("hi"))
      assert.deepInclude(whole.requests[0], { method: "POST", path: "/v1/chat/completions" })
      assert.deepStrictEqual(sent(whole), { model: "m1", messages: [{ role: "user", content: "hi" }], stream: false })

      const streamed = yield* asking(Stream.runDrain(stream("hi")))
      assert.deepStrictEqual(sent(streamed), {
        model: "m1",
        messages: [{ role: "user", content: "hi" }],
        stream: true,
        stream_options: { include_usage: true }
      })
    }))

  it.live("goes to the same place with a slash at the end, with the whole path, and with a query", () =>
    Effect.gen(function*() {
      const server = yield* answering
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

  it.live("carries the key, and nothing of the kind without one", () =>
    Effect.gen(function*() {
      const withKey = yield* asking(generate(), { apiKey: Redacted.make("sk-test-key") })
      assert.strictEqual(withKey.requests[0]?.headers.authorization, "Bearer sk-test-key")
      const without = yield* asking(generate())
      assert.isUndefined(without.requests[0]?.headers.authorization)
      assert.isUndefined(without.requests[0]?.headers["idempotency-key"])
      assert.isUndefined(without.requests[0]?.headers["x-sluice-attempt"])
    }))

  it.live("is configured by the model, and on top of that by whoever asks", () =>
    Effect.gen(function*() {
      const server = yield* asking(
        generate("hi").pipe(
          OpenAiCompatible.withConfigOverride({ temperature: 0, body: { seed: 7 }, idempotencyKey: "once" }),
          OpenAiCompatible.withConfigOverride({ temperature: 0.9, maxTokens: 5, model: "m2" })
        ),
        { config: { system: "Be brief.", temperature: 0.5, body: { top_p: 0.1, seed: 1 } } }
      )
      assert.deepStrictEqual(sent(server), {
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

  it.effect("asks OpenAI's own API for the longest answer by the name that it has there", () =>
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

  it.live("is not changed in what this module lives by, whatever the body says", () =>
    Effect.gen(function*() {
      const body = { model: "other", messages: [], stream: false, ["__proto__"]: { x: 1 } }
      const server = yield* asking(Stream.runDrain(stream("hi")), { config: { body } })
      assert.deepInclude(sent(server), { model: "m1", messages: [{ role: "user", content: "hi" }], stream: true })
      assert.isUndefined(({} as { x?: number }).x)
    }))

  it.live("says which attempt it is, when a policy says so", () =>
    Effect.gen(function*() {
      const server = yield* asking(
        Effect.provideService(generate(), CurrentAttempt, { attempt: 3, maxAttempts: 5 })
      )
      assert.strictEqual(server.requests[0]?.headers["x-sluice-attempt"], "3")
    }))

  it.live("writes a conversation with images, answers and tool results", () =>
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
      const server = yield* asking(LanguageModel.generateText({ prompt }))
      assert.deepStrictEqual(sent(server).messages, [
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

  it.live("is refused, not thinned out, if the wire has no form for a part of it", () =>
    Effect.gen(function*() {
      const server = yield* answering
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

  it.live("offers tools and says which to use", () =>
    Effect.gen(function*() {
      const choices = ["auto", "none", "required", { tool: "add" }, { oneOf: ["now"], mode: "required" }] as const
      const told = yield* Effect.forEach(choices, (toolChoice) =>
        Effect.map(
          asking(
            LanguageModel.generateText({ prompt: "hi", toolkit: tools, toolChoice }).pipe(Effect.provide(handlers))
          ),
          (server) => sent(server)
        ))
      assert.deepStrictEqual(told.map((body) => body.tool_choice), [
        "auto",
        "none",
        "required",
        { type: "function", function: { name: "add" } },
        "required"
      ])
      assert.deepStrictEqual(told[4].tools.map((tool: { function: { name: string } }) => tool.function.name), ["now"])
      const [add, now] = told[0].tools
      assert.deepInclude(add.function, { name: "add", description: "Adds two numbers" })
      assert.deepStrictEqual(add.function.parameters.required, ["x", "y"])
      assert.strictEqual(now.function.parameters.type, "object")
    }))

  it.live("asks for an object by its schema", () =>
    Effect.gen(function*() {
      const schema = Schema.Struct({ name: Schema.String, age: Schema.optionalKey(Schema.Int) })
      const server = yield* rawServer((response) =>
        json(response, 200, completion({ content: "{\"name\":\"Ada\",\"age\":null}" }))
      )
      const { value } = yield* LanguageModel.generateObject({ prompt: "who?", schema, objectName: "person" }).pipe(
        Effect.provide(modelAt(server.url))
      )
      assert.deepStrictEqual(value, { name: "Ada" })
      const format = sent(server).response_format
      assert.deepInclude(format, { type: "json_schema" })
      assert.deepInclude(format.json_schema, { name: "person", strict: true })
      assert.deepStrictEqual(format.json_schema.schema.required, ["name", "age"])
    }))

  it.live("is not sent for a schema that the wire cannot carry", () =>
    Effect.gen(function*() {
      const server = yield* answering
      const schema = Schema.Union([Schema.Struct({ a: Schema.String }), Schema.Struct({ b: Schema.String })])
      const error = yield* LanguageModel.generateObject({ prompt: "who?", schema }).pipe(
        Effect.provide(modelAt(server.url)),
        Effect.flip
      )
      assert.strictEqual(error._tag === "AiError" && error.reason._tag, "UnsupportedSchemaError")
      assert.strictEqual(server.requests.length, 0)
    }))
})

describe("tools", () => {
  const toolCall = (id: string, name: string, args: string) => ({
    id,
    type: "function",
    function: { name, arguments: args }
  })

  it.live("run, and their results go back with the next question", () =>
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
        const first = yield* chat.generateText({ prompt: "2 + 3?", toolkit: tools })
        assert.deepStrictEqual(first.toolResults.map(({ result }) => result), [5])
        return (yield* chat.generateText({ prompt: [], toolkit: tools })).text
      }).pipe(Effect.provide(handlers), Effect.provide(modelAt(server.url)))
      assert.strictEqual(text, "5")
      assert.deepStrictEqual(sent(server, 1).messages.slice(1), [
        { role: "assistant", content: null, tool_calls: [toolCall("c1", "add", "{\"x\":2,\"y\":3}")] },
        { role: "tool", tool_call_id: "c1", content: "5" }
      ])
    }))

  it.live("run in a stream as well", () =>
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
      const parts = yield* LanguageModel.streamText({ prompt: "2 + 3?", toolkit: tools }).pipe(
        Stream.runCollect,
        Effect.provide(handlers),
        Effect.provide(modelAt(server.url))
      )
      assert.deepStrictEqual(parts.flatMap((part) => part.type === "tool-result" ? [part.result] : []), [5])
    }))
})
