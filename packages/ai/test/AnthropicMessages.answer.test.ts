import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { LanguageModel, Tool, Toolkit } from "effect/ai"
import type * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import { generate } from "./support/model.ts"
import { json, rawServer, sse } from "./support/rawServer.ts"
import { unusedHandler } from "./support/tools.ts"
import {
  anthropic,
  blockDelta,
  blockStart,
  blockStop,
  message,
  messageDelta,
  messageStart,
  namedEvent
} from "./support/wires.ts"

const whole = (body: unknown) =>
  Effect.gen(function*() {
    const server = yield* rawServer((response) => json(response, 200, body))
    return yield* Effect.provide(generate(), anthropic.modelAt(server.url))
  })

// Tools that take any parameters. They are never run.
const tools = Toolkit.make(Tool.dynamic("add"), Tool.dynamic("now"))

const streamed = (text: string, options?: Partial<AnthropicMessages.Options>) =>
  Effect.gen(function*() {
    const server = yield* rawServer((response) => sse(response, text))
    const toolkit = yield* tools
    const parts = yield* LanguageModel.streamText({ prompt: "hi", toolkit, disableToolCallResolution: true }).pipe(
      Stream.runCollect,
      Effect.provide(anthropic.modelAt(server.url, options))
    )
    const finish = parts.at(-1)
    return { parts, finish: finish?.type === "finish" ? finish : assert.fail("no finish part") }
  }).pipe(Effect.provide(tools.toLayer({ add: unusedHandler, now: unusedHandler })))

const text = (index: number, text: string) =>
  blockStart(index, { type: "text", text: "" }) + blockDelta(index, { type: "text_delta", text }) + blockStop(index)

describe("whole answers of AnthropicMessages", () => {
  it.live("a whole answer has its text, reasoning, id, model, finish reason and usage", () =>
    Effect.gen(function*() {
      const response = yield* whole(message(
        [{ type: "thinking", thinking: "hm", signature: "s1" }, { type: "text", text: "hello" }],
        {
          usage: {
            input_tokens: 3,
            cache_read_input_tokens: 20,
            cache_creation_input_tokens: 100,
            output_tokens: 4,
            service_tier: "standard"
          }
        }
      ))
      assert.strictEqual(response.text, "hello")
      assert.strictEqual(response.reasoningText, "hm")
      assert.strictEqual(response.finishReason, "stop")
      assert.deepInclude(response.usage.inputTokens, { total: 123, uncached: 3, cacheRead: 20, cacheWrite: 100 })
      assert.deepInclude(response.usage.outputTokens, { total: 4 })
      assert.deepInclude(response.content[0], { type: "response-metadata", id: "msg_1", modelId: "m1" })
    }))

  it.live("optional fields of the wrong form are ignored", () =>
    Effect.gen(function*() {
      const response = yield* whole({
        id: 7,
        content: [{ type: "text", text: "hello", citations: null }, {
          type: "server_tool_use",
          id: "s1",
          name: "search"
        }],
        usage: "none",
        ["__proto__"]: { stop_reason: "max_tokens" }
      })
      assert.strictEqual(response.text, "hello")
      assert.strictEqual(response.finishReason, "unknown")
      assert.isUndefined(response.usage.outputTokens.total)
    }))

  it.live("a whole answer may be empty", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* whole(message([]))).text, "")
    }))
})

describe("streams of AnthropicMessages", () => {
  it.live("a stream has reasoning and text with their ends, and the end of a reasoning has its signature", () =>
    Effect.gen(function*() {
      const { parts } = yield* streamed(
        messageStart() +
          blockStart(0, { type: "thinking", thinking: "", signature: "" }) +
          blockDelta(0, { type: "thinking_delta", thinking: "hm" }) +
          blockDelta(0, { type: "signature_delta", signature: "s1" }) + blockStop(0) + text(1, "a") + text(2, "b") +
          messageDelta("end_turn") + anthropic.done
      )
      assert.deepStrictEqual(parts.map(({ type }) => type), [
        "response-metadata",
        "reasoning-start",
        "reasoning-delta",
        "reasoning-end",
        "text-start",
        "text-delta",
        "text-end",
        "text-start",
        "text-delta",
        "text-end",
        "finish"
      ])
      assert.deepStrictEqual(parts[3]?.metadata, { anthropic: { info: { type: "thinking", signature: "s1" } } })
      assert.notStrictEqual("id" in parts[4]! && parts[4].id, "id" in parts[7]! && parts[7].id)
    }))

  it.live("stop reasons become Effect's finish reasons", () =>
    Effect.gen(function*() {
      const reasons = [
        ["end_turn", "stop"],
        ["stop_sequence", "stop"],
        ["max_tokens", "length"],
        ["model_context_window_exceeded", "length"],
        ["tool_use", "tool-calls"],
        ["refusal", "content-filter"],
        ["pause_turn", "pause"],
        ["something_new", "other"]
      ] as const
      for (const [sent, expected] of reasons) {
        const { finish } = yield* streamed(messageStart() + text(0, "a") + messageDelta(sent) + anthropic.done)
        assert.strictEqual(finish.reason, expected)
        assert.strictEqual((yield* whole(message([], { stop_reason: sent }))).finishReason, expected)
      }
    }))

  it.live("the last valid token counts of a stream are used", () =>
    Effect.gen(function*() {
      const usage = (first: unknown, last: unknown) =>
        Effect.map(
          streamed(
            messageStart({ usage: first }) + text(0, "a") +
              namedEvent({ type: "message_delta", delta: { stop_reason: "end_turn" }, usage: last }) +
              anthropic.done
          ),
          ({ finish }) => [finish.usage.inputTokens.total, finish.usage.outputTokens.total]
        )
      const first = { input_tokens: 3, cache_read_input_tokens: 10, output_tokens: 1 }
      assert.deepStrictEqual(yield* usage(first, { output_tokens: 9 }), [13, 9])
      assert.deepStrictEqual(yield* usage(first, { input_tokens: 5, cache_read_input_tokens: 0, output_tokens: 9 }), [
        5,
        9
      ])
      assert.deepStrictEqual(yield* usage(first, undefined), [13, 1])
      assert.deepStrictEqual(yield* usage(null, { input_tokens: -1, output_tokens: "9" }), [undefined, undefined])
    }))

  it.live("unknown events and blocks are ignored", () =>
    Effect.gen(function*() {
      const { parts } = yield* streamed(
        namedEvent({ type: "ping" }) + messageStart() + namedEvent({ type: "weather_report", rain: true }) +
          blockStart(0, { type: "server_tool_use", id: "s1", name: "search", input: {} }) +
          blockDelta(0, { type: "weather_delta", rain: true }) + blockStop(0) + text(1, "a") +
          blockDelta(1, { type: "citations_delta", citation: {} }) + messageDelta("end_turn") + anthropic.done
      )
      assert.strictEqual(parts.map((part) => part.type === "text-delta" ? part.delta : "").join(""), "a")
      assert.strictEqual(parts.at(-1)?.type, "finish")
    }))

  it.live("tool calls may be fragmented, whole at their start, interleaved or without input", () =>
    Effect.gen(function*() {
      const { parts } = yield* streamed(
        messageStart() +
          blockStart(0, { type: "tool_use", id: "a", name: "add", input: {} }) +
          blockStart(1, { type: "tool_use", id: "b", name: "add", input: { x: 2 } }) +
          blockDelta(0, { type: "input_json_delta", partial_json: "{\"x\":" }) + blockStop(1) +
          blockDelta(0, { type: "input_json_delta", partial_json: "1}" }) + blockStop(0) +
          blockStart(2, { type: "tool_use", id: "c", name: "now", input: {} }) + blockStop(2) +
          messageDelta("tool_use") + anthropic.done
      )
      assert.deepStrictEqual(
        parts.flatMap((part) => part.type === "tool-call" ? [[part.id, part.name, part.params]] : []),
        [["a", "add", { x: 1 }], ["b", "add", { x: 2 }], ["c", "now", {}]]
      )
    }))

  it.live("a tool call cut off by max_tokens is left out, and any other incomplete tool call fails", () =>
    Effect.gen(function*() {
      const broken = messageStart() + blockStart(0, { type: "tool_use", id: "a", name: "add", input: {} }) +
        blockDelta(0, { type: "input_json_delta", partial_json: "{\"x\":" }) + blockStop(0)
      const { finish, parts } = yield* streamed(broken + messageDelta("max_tokens") + anthropic.done)
      assert.strictEqual(finish.reason, "length")
      assert.isFalse(parts.some(({ type }) => type === "tool-call"))
      const failed = yield* Effect.flip(streamed(broken + messageDelta("tool_use") + anthropic.done))
      assert.strictEqual(failed._tag === "AiError" && failed.reason._tag, "ToolParameterValidationError")
    }))

  it.live("the size and depth of a stream are bounded, including reasoning and signatures", () =>
    Effect.gen(function*() {
      const endings = [
        blockDelta(0, { type: "text_delta", text: "x".repeat(300) }),
        blockDelta(0, { type: "signature_delta", signature: "x".repeat(300) }),
        blockStart(1, { type: "redacted_thinking", data: "x".repeat(300) }),
        blockStart(1, { type: "tool_use", id: "a", name: "add", input: { x: "x".repeat(300) } }) + blockStop(1)
      ]
      for (const ending of endings) {
        const failed = yield* Effect.flip(streamed(messageStart() + ending + anthropic.finish, { maxAnswerSize: 299 }))
        assert.include(failed.message, "more than 299 characters")
      }
      const deep = `data: {"type":"ping","x":${"[".repeat(80)}${"]".repeat(80)}}\n\n`
      assert.include((yield* Effect.flip(streamed(messageStart() + deep + anthropic.finish))).message, "deeper than 64")
    }))
})
