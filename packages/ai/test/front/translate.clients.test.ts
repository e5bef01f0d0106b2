import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import OpenAI, { BadRequestError } from "openai"
import { chatOverMessages, messagesOverChat } from "../../src/internal/front/translate/translation.ts"
import { got } from "../support/cases.ts"
import { answerOptions, bytesOf, chunk, done, event, type Json, streamed } from "./translated.ts"

// Translated answers, read by OpenAI's own client and by this package's reader of messages.

const begin = (index: number, content_block: Json) => event("content_block_start", { index, content_block })
const delta = (index: number, delta: Json) => event("content_block_delta", { index, delta })
const stop = (index: number) => event("content_block_stop", { index })

const events = [
  event("message_start", {
    message: {
      id: "msg_1",
      type: "message",
      role: "assistant",
      model: "claude",
      content: [],
      usage: { input_tokens: 3, output_tokens: 1 }
    }
  }),
  event("ping"),
  begin(0, { type: "text", text: "" }),
  delta(0, { type: "text_delta", text: "I " }),
  delta(0, { type: "text_delta", text: "look." }),
  stop(0),
  begin(1, { type: "tool_use", id: "t1", name: "f", input: {} }),
  delta(1, { type: "input_json_delta", partial_json: `{"a":` }),
  delta(1, { type: "input_json_delta", partial_json: "1}" }),
  stop(1),
  begin(2, { type: "tool_use", id: "t2", name: "g", input: {} }),
  stop(2),
  event("message_delta", { delta: { stop_reason: "tool_use" }, usage: { output_tokens: 5 } }),
  event("message_stop")
]

const whole = JSON.stringify({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "claude",
  content: [
    { type: "text", text: "I look." },
    { type: "tool_use", id: "t1", name: "f", input: { a: 1 } },
    { type: "tool_use", id: "t2", name: "g", input: {} }
  ],
  stop_reason: "tool_use",
  usage: { input_tokens: 3, output_tokens: 5 }
})

/** A provider of messages behind the translation. */
const client = new OpenAI({
  apiKey: "-",
  baseURL: "http://front/v1",
  maxRetries: 0,
  fetch: (_, init) => {
    const request = chatOverMessages.request(bytesOf(String(init?.body)), {})
    if (Result.isFailure(request)) {
      const error = { message: request.failure.message, param: request.failure.param }
      return Promise.resolve(Response.json({ error }, { status: 400 }))
    }
    const { includeUsage, isStream } = request.success
    const body = isStream
      ? streamed(chatOverMessages.stream({ ...answerOptions, includeUsage }), events)
      : chatOverMessages.answer(bytesOf(whole), answerOptions)
    const type = isStream ? "text/event-stream" : "application/json"
    return Promise.resolve(new Response(body, { headers: { "content-type": type } }))
  }
})

const params: OpenAI.ChatCompletionCreateParamsNonStreaming = {
  model: "m",
  messages: [{ role: "user", content: "hi" }],
  tools: [{ type: "function", function: { name: "f", parameters: { type: "object", properties: {} } } }]
}

const summary = ({ choices, usage }: OpenAI.ChatCompletion): object => ({
  text: choices[0]?.message.content,
  calls: choices[0]?.message.tool_calls?.map((call) => call.type === "function" ? call.function : call),
  finish: choices[0]?.finish_reason,
  tokens: usage?.total_tokens
})

const expected = {
  text: "I look.",
  calls: [{ name: "f", arguments: `{"a":1}` }, { name: "g", arguments: "{}" }],
  finish: "tool_calls",
  tokens: 8
}

describe("OpenAI's client with a provider of messages", () => {
  it("reads a whole answer", async () => {
    const answer = await client.chat.completions.create(params)
    assert.deepStrictEqual(summary(answer), expected)
  })

  it("collects a stream", async () => {
    const stream = client.chat.completions.stream({
      ...params,
      stream: true,
      stream_options: { include_usage: true }
    })
    assert.deepStrictEqual(summary(await stream.finalChatCompletion()), expected)
  })

  it("shows the field that has no equivalent", async () => {
    const error = await client.chat.completions.create({ ...params, seed: 7 }).then(() => undefined, (error) => error)
    assert.instanceOf(error, BadRequestError)
    assert.strictEqual(error instanceof BadRequestError ? error.param : undefined, "seed")
  })
})

describe("a reader of messages with a provider of chat completions", () => {
  it.effect("collects a stream", () =>
    Effect.gen(function*() {
      const text = streamed(messagesOverChat.stream(answerOptions), [
        chunk({ role: "assistant", content: "" }),
        chunk({ reasoning_content: "hm" }),
        chunk({ content: "I " }),
        chunk({ content: "look." }),
        chunk({
          tool_calls: [{ index: 0, id: "t1", type: "function", function: { name: "add", arguments: `{"a":` } }]
        }),
        chunk({ tool_calls: [{ index: 0, function: { arguments: "1}" } }] }),
        chunk({ tool_calls: [{ index: 1, id: "t2", type: "function", function: { name: "now", arguments: "{}" } }] }),
        chunk({}, "tool_calls"),
        `data: ${
          JSON.stringify({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 } })
        }\n\n`,
        done
      ])
      const answer = yield* got({ wire: "anthropic", stream: text })
      assert.isUndefined(answer.error, answer.message)
      assert.deepStrictEqual(
        [answer.thoughts, answer.text, answer.calls, answer.finish, answer.tokens],
        ["hm", "I look.", [["add", { a: 1 }], ["now", {}]], "tool-calls", [3, 5]]
      )
    }))
})
