import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { AiError, LanguageModel, type Response } from "effect/ai"
import type * as Http from "node:http"
import { failureOf, generate, stream, textOf } from "./support/model.ts"
import { rawServer } from "./support/rawServer.ts"
import { calculator, calculatorHandlers } from "./support/tools.ts"
import {
  blockDelta,
  blockStart,
  blockStop,
  message,
  messageDelta,
  messageStart,
  openAi,
  type Wire,
  wires
} from "./support/wires.ts"

// The format of a body decides how it is read. The reports are issues and pull requests on GitHub.

type Requested = "whole" | "stream"

interface Row {
  readonly what: string
  /** The repository and number of a public report, or another source. */
  readonly report: string
  readonly requested: Requested
  readonly type: string | undefined
  readonly body: (wire: Wire) => string
  /** The pieces in which the body is sent. Default: one. */
  readonly pieces?: number
}

const events = (wire: Wire) => wire.head + wire.delta("one ") + wire.delta("two") + wire.finish + wire.done
const whole = (wire: Wire) => JSON.stringify(wire.whole("one two"))

const rows: ReadonlyArray<Row> = [
  { what: "events as JSON", report: "LitServe 359", requested: "stream", type: "application/json", body: events },
  {
    what: "events as JSON with a charset",
    report: "microsoft/foundry-dev-tools 195",
    requested: "stream",
    type: "application/json; charset=utf-8",
    body: events
  },
  { what: "events as plain text", report: "Nordlys 37", requested: "stream", type: "text/plain", body: events },
  { what: "events as a page", report: "LitServe 359", requested: "stream", type: "text/html", body: events },
  {
    what: "events without a type",
    report: "nearai/private-ml-sdk 20",
    requested: "stream",
    type: undefined,
    body: events
  },
  {
    what: "events as lines of JSON by their type",
    report: "huggingface/chat-ui 1744",
    requested: "stream",
    type: "application/x-ndjson",
    body: events
  },
  {
    what: "events after a comment and blank lines",
    report: "DeepSeek's documentation of keep-alives",
    requested: "stream",
    type: "application/json",
    body: (wire) => `\n\n: keep-alive\n\n${events(wire)}`
  },
  {
    what: "events after a byte order mark, byte by byte",
    report: "LitServe 359",
    requested: "stream",
    type: "application/json",
    body: (wire) => `\ufeff${events(wire)}`,
    pieces: 40
  },
  {
    what: "a whole answer as JSON",
    report: "mistralai/mistral-vibe 619",
    requested: "stream",
    type: "application/json",
    body: whole
  },
  {
    what: "a whole answer as events",
    report: "bounty-challenge 17821",
    requested: "stream",
    type: "text/event-stream",
    body: whole
  },
  {
    what: "a whole answer without a type",
    report: "mistral-vibe 619",
    requested: "stream",
    type: undefined,
    body: whole
  },
  {
    what: "a whole answer as plain text",
    report: "cloudflare/agents 447",
    requested: "stream",
    type: "text/plain",
    body: whole
  },
  {
    what: "a whole answer after blank lines",
    report: "DeepSeek's documentation of keep-alives",
    requested: "stream",
    type: "application/json",
    body: (wire) => `\n\n\n${whole(wire)}`,
    pieces: 5
  },
  {
    what: "a whole answer of several lines",
    report: "mistral-vibe 619",
    requested: "stream",
    type: "application/json",
    body: (wire) => JSON.stringify(wire.whole("one two"), undefined, 2)
  },
  { what: "events", report: "kaito 1880", requested: "whole", type: "text/event-stream", body: events },
  { what: "events", report: "sub2api 867", requested: "whole", type: "text/event-stream; charset=utf-8", body: events },
  { what: "events as JSON", report: "unsloth 6570", requested: "whole", type: "application/json", body: events },
  { what: "events without a type", report: "codebuddy2api 11", requested: "whole", type: undefined, body: events },
  {
    what: "a whole answer with the end of a stream",
    report: "9router 3492",
    requested: "whole",
    type: "text/event-stream",
    body: (wire) => `${whole(wire)}\n\ndata: [DONE]\n\n`
  },
  {
    what: "a whole answer with the end of a stream",
    report: "9router 3492",
    requested: "stream",
    type: "text/event-stream",
    body: (wire) => `${whole(wire)}\n\ndata: [DONE]\n\n`
  },
  {
    what: "events after 20 KB of blanks",
    report: "DeepSeek's documentation of keep-alives",
    requested: "stream",
    type: "text/event-stream",
    body: (wire) => "\n".repeat(20_000) + events(wire)
  },
  {
    what: "a whole answer after 20 KB of blanks",
    report: "DeepSeek's documentation of keep-alives",
    requested: "whole",
    type: "application/json",
    body: (wire) => "\n".repeat(20_000) + whole(wire)
  },
  ...(["whole", "stream"] as const).map((requested): Row => ({
    what: "chunks as lines of JSON",
    report: "Nordlys 37, unsloth 5047",
    requested,
    type: "application/x-ndjson",
    body: (wire) => (events(wire).match(/^data: \{.*$/gm) ?? []).map((line) => line.slice("data: ".length)).join("\n")
  }))
]

const sending = ({ body, pieces = 1, type }: Row, wire: Wire) => (response: Http.ServerResponse): void => {
  const bytes = Buffer.from(body(wire))
  response.writeHead(200, type === undefined ? {} : { "content-type": type })
  const send = (sent: number): void => {
    const isLast = sent + 1 >= pieces
    if (isLast) return void response.end(bytes.subarray(sent))
    response.write(bytes.subarray(sent, sent + 1), () => setImmediate(send, sent + 1))
  }
  send(0)
}

const call = (requested: Requested): Effect.Effect<string, unknown, LanguageModel.LanguageModel> =>
  requested === "whole"
    ? Effect.map(generate(), ({ finishReason, text }) => `${text}|${finishReason}`)
    : Effect.map(Stream.runCollect(stream()), (parts) => `${textOf(parts)}|${finishOf(parts)}`)

const finishOf = (parts: ReadonlyArray<Response.AnyPart>): string =>
  parts.map((part) => part.type === "finish" ? part.reason : "").join("")

for (const wire of wires) {
  describe(`bodies that are not what was requested, ${wire.module}`, () => {
    for (const row of rows) {
      it.live(`the model reads ${row.what} under ${row.type ?? "no type"} where a ${row.requested} was requested (${row.report})`, () =>
        Effect.gen(function*() {
          const server = yield* rawServer(sending(row, wire))
          assert.strictEqual(yield* Effect.provide(call(row.requested), wire.modelAt(server.url)), "one two|stop")
          assert.strictEqual(server.requests.length, 1)
        }))
    }

    it.live(
      "a stream where a whole answer was requested ends with its end, though the connection stays open",
      () =>
        Effect.gen(function*() {
          const server = yield* rawServer((response) => {
            response.writeHead(200, { "content-type": "text/event-stream" })
            response.write(events(wire))
          })
          const text = yield* Effect.provide(call("whole"), wire.modelAt(server.url)).pipe(Effect.timeout("50 seconds"))
          assert.strictEqual(text, "one two|stop")
        })
    )

    it.live("a stream that breaks off is no whole answer", () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response) => {
          response.writeHead(200, { "content-type": "application/json" })
          response.end(wire.head + wire.delta("one "))
        })
        for (const requested of ["whole", "stream"] as const) {
          const failed = yield* failureOf(Effect.provide(call(requested), wire.modelAt(server.url)))
          assert.strictEqual(failed.reason._tag, "InternalProviderError")
          assert.include(failed.message, "truncated")
        }
      }))

    // a2aproject/a2a-rs 79 and 146: an error under 200 that was lost, since the body was fed to a reader of events.
    for (const type of ["text/event-stream", "text/plain", "application/json", undefined]) {
      it.live(`an error as JSON under ${type ?? "no type"} keeps its words where a stream was requested (a2a-rs 146)`, () =>
        Effect.gen(function*() {
          const server = yield* rawServer((response) => {
            response.writeHead(200, type === undefined ? {} : { "content-type": type })
            response.end(JSON.stringify(wire.error({ type: "overloaded_error", message: "Come back later" })))
          })
          const failed = yield* failureOf(Effect.provide(call("stream"), wire.modelAt(server.url)))
          assert.strictEqual(failed.reason._tag, "InternalProviderError")
          assert.include(failed.message, "Come back later")
        }))
    }

    it.live("an answer that is too large is refused where a stream was requested", () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response) => {
          response.writeHead(200, { "content-type": "application/json" })
          response.end(JSON.stringify(wire.whole("x".repeat(5_000))))
        })
        const failed = yield* failureOf(
          Effect.provide(call("stream"), wire.modelAt(server.url, { maxAnswerSize: 1_000 }))
        )
        assert.strictEqual(failed.reason._tag, "InvalidResponseError")
        assert.include(failed.message, "more than 1000 bytes")
      }))
  })
}

const thinkingMessage = message([
  { type: "thinking", thinking: "hm", signature: "sig" },
  { type: "text", text: "so" },
  { type: "tool_use", id: "t1", name: "add", input: { x: 1, y: 2 } }
], { stop_reason: "tool_use" })

const thinkingEvents = messageStart() +
  blockStart(0, { type: "thinking", thinking: "" }) +
  blockDelta(0, { type: "thinking_delta", thinking: "hm" }) +
  blockDelta(0, { type: "signature_delta", signature: "sig" }) +
  blockStop(0) +
  blockStart(1, { type: "text", text: "" }) +
  blockDelta(1, { type: "text_delta", text: "so" }) +
  blockStop(1) +
  blockStart(2, { type: "tool_use", id: "t1", name: "add", input: {} }) +
  blockDelta(2, { type: "input_json_delta", partial_json: "{\"x\":1,\"y\":2}" }) +
  blockStop(2) +
  messageDelta("tool_use")

describe("parts of bodies that are not what was requested", () => {
  const [, anthropic = openAi] = wires

  it.live("a thought with its signature, a text and a tool call pass in both directions, and the tool runs once", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response, { body }) => {
        response.writeHead(200, { "content-type": "application/octet-stream" })
        response.end(JSON.parse(body).stream === true ? JSON.stringify(thinkingMessage) : thinkingEvents)
      })
      const answered = yield* Effect.gen(function*() {
        const { content } = yield* LanguageModel.generateText({ prompt: "hi", toolkit: calculator })
        const streamed = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "hi", toolkit: calculator }))
        return { content, streamed }
      }).pipe(Effect.provide(calculatorHandlers), Effect.provide(anthropic.modelAt(server.url)))
      const types = answered.content.map(({ type }) => type).filter((type) => type !== "response-metadata")
      assert.deepStrictEqual(types, ["reasoning", "text", "tool-call", "finish", "tool-result"])
      const thought = answered.content.find((part) => part.type === "reasoning")
      assert.deepInclude(thought, { text: "hm" })
      const thoughtEnd = answered.streamed.find((part) => part.type === "reasoning-end")
      assert.deepStrictEqual(thoughtEnd?.metadata, thought?.metadata)
      assert.include(JSON.stringify(thought?.metadata), "sig")
      const notOfTheModel = new Set(["response-metadata", "tool-result"])
      assert.deepStrictEqual(
        answered.streamed.map(({ type }) => type).filter((type) => !notOfTheModel.has(type)),
        [
          "reasoning-start",
          "reasoning-delta",
          "reasoning-end",
          "text-start",
          "text-delta",
          "text-end",
          "tool-params-start",
          "tool-params-delta",
          "tool-params-end",
          "tool-call",
          "finish"
        ]
      )
      for (const parts of [answered.content, answered.streamed]) {
        const [result, second] = parts.filter((part) => part.type === "tool-result")
        assert.isDefined(result)
        assert.isUndefined(second)
      }
    }))

  it.live("an unreadable body names its content type where a stream was requested", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "text/html" })
        response.end("<html>Sign in</html>")
      })
      const failed = yield* failureOf(Effect.provide(call("stream"), openAi.modelAt(server.url)))
      assert.isTrue(AiError.isAiError(failed))
      assert.include(failed.message, "text/html instead of JSON")
    }))
})
