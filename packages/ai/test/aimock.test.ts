import { LLMock } from "@copilotkit/aimock"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schema, Stream } from "effect"
import { Chat, LanguageModel, Tool, Toolkit } from "effect/ai"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import { failureOf, generate, stream, streamedText, textOf } from "./support/model.ts"
import { weatherToolkit } from "./support/tools.ts"
import { anthropic, type Wire, wires } from "./support/wires.ts"

/** The model at an aimock server, a mock that is not ours. `script` sets its answers. */
const aimockAt = (wire: Wire) => (script: (mock: LLMock) => void) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const mock = new LLMock({ port: 0, logLevel: "silent" })
        script(mock)
        await mock.start()
        return mock
      }),
      (mock) => Effect.promise(() => mock.stop())
    ),
    (mock) => wire.modelAt(`${mock.url}/v1`)
  )

// Each wire has its own names for the token counts.
const usage = { prompt_tokens: 3, completion_tokens: 4, input_tokens: 3, output_tokens: 4 }

const sentence = "The quick brown fox jumps over the lazy dog, and then over another one."

for (const wire of wires) {
  describe(`${wire.module} with aimock`, () => {
    const aimock = aimockAt(wire)

    it.live("whole answers and streams of aimock are read with their token counts", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) => mock.onMessage("hi", { content: sentence, usage }))
        const whole = yield* Effect.provide(generate(), model)
        assert.strictEqual(whole.text, sentence)
        assert.strictEqual(whole.finishReason, "stop")
        assert.isAbove(whole.usage.outputTokens.total ?? 0, 0)
        const parts = yield* Effect.provide(Stream.runCollect(stream()), model)
        assert.strictEqual(textOf(parts), sentence)
        const last = parts.at(-1)
        assert.isAbove(last?.type === "finish" ? last.usage.outputTokens.total ?? 0 : 0, 0)
      }))

    it.live("tools run for whole answers and streams of aimock", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) => {
          mock.onMessage("weather?", { toolCalls: [{ name: "weather", arguments: "{\"city\":\"Oslo\"}" }] })
        })
        const whole = yield* Effect.provide(
          LanguageModel.generateText({ prompt: "weather?", toolkit: weatherToolkit }),
          model
        )
        assert.deepStrictEqual(whole.toolResults.map(({ result }) => result), ["sun in Oslo"])
        const parts = yield* Effect.provide(
          Stream.runCollect(LanguageModel.streamText({ prompt: "weather?", toolkit: weatherToolkit })),
          model
        )
        assert.deepStrictEqual(parts.flatMap((part) => part.type === "tool-result" ? [part.result] : []), [
          "sun in Oslo"
        ])
      }))

    it.live("an object from aimock is decoded by its schema", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) => mock.onMessage("who?", { content: "{\"name\":\"Ada\",\"age\":36}" }))
        const schema = Schema.Struct({ name: Schema.String, age: Schema.Int })
        const { value } = yield* Effect.provide(LanguageModel.generateObject({ prompt: "who?", schema }), model)
        assert.deepStrictEqual(value, { name: "Ada", age: 36 })
      }))

    it.live("a rate limit of aimock has its Retry-After", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) =>
          mock.onMessage("hi", {
            error: { message: "slow down", type: "rate_limit_error" },
            status: 429,
            retryAfter: 3
          })
        )
        for (const call of [Effect.asVoid(generate()), Effect.asVoid(streamedText())]) {
          const error = yield* failureOf(Effect.provide(call, model))
          assert.strictEqual(error.reason._tag, "RateLimitError")
          assert.deepStrictEqual(RetryAfter.fromAiError(error), Duration.seconds(3))
        }
      }))

    it.live("an outage of aimock is a retryable failure", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) =>
          mock.onMessage("hi", { error: { message: "overloaded", type: "server_error" }, status: 503 })
        )
        for (const call of [Effect.asVoid(generate()), Effect.asVoid(streamedText())]) {
          const error = yield* failureOf(Effect.provide(call, model))
          assert.strictEqual(error.reason._tag, "InternalProviderError")
          assert.deepInclude(AiOutcome.fromAiError(error), { _tag: "Failure", retryable: true })
        }
      }))

    it.live("malformed JSON from aimock is a malformed answer", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) =>
          mock.onMessage("hi", { content: sentence }, { chaos: { malformedRate: 1 } })
        )
        for (const call of [Effect.asVoid(generate()), Effect.asVoid(streamedText())]) {
          const error = yield* failureOf(Effect.provide(call, model))
          assert.strictEqual(error.reason._tag, "InternalProviderError")
          assert.include(error.message, "malformed response")
        }
      }))

    it.live("a cut stream and a dropped connection of aimock are retryable failures", () =>
      Effect.gen(function*() {
        const faults = [{ truncateAfterChunks: 3 }, { chaos: { disconnectRate: 1 } }]
        for (const fault of faults) {
          const model = yield* aimock((mock) => mock.onMessage("hi", { content: sentence }, { chunkSize: 5, ...fault }))
          const error = yield* failureOf(Effect.provide(streamedText(), model))
          assert.include(["InternalProviderError", "NetworkError"], error.reason._tag)
          assert.deepInclude(AiOutcome.fromAiError(error), { _tag: "Failure", retryable: true })
        }
      }))

    it.live("a model that aimock does not have is an InvalidRequestError that names it", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) =>
          mock.onMessage("hi", { error: { message: "no such model", code: "model_not_found" }, status: 404 })
        )
        const error = yield* failureOf(Effect.provide(generate(), model))
        assert.strictEqual(error.reason._tag, "InvalidRequestError")
        assert.include(error.message, "model \"m1\"")
      }))
  })
}

describe("reasoning over Anthropic's wire with aimock", () => {
  it.live("reasoning is streamed and sent back with the tool's result, which aimock checks", () =>
    Effect.gen(function*() {
      const tools = Toolkit.make(Tool.make("now", { success: Schema.String }))
      const model = yield* aimockAt(anthropic)((mock) => {
        mock.on({ userMessage: "time?", hasToolResult: true }, { content: "It is noon." })
        mock.on({ userMessage: "time?" }, {
          content: "",
          reasoning: "I need a clock.",
          reasoningSignature: "s1",
          toolCalls: [{ name: "now", arguments: "{}" }]
        })
      })
      const text = yield* Effect.gen(function*() {
        const chat = yield* Chat.empty
        const parts = yield* Stream.runCollect(chat.streamText({ prompt: "time?", toolkit: tools }))
        assert.isTrue(parts.some((part) => part.type === "reasoning-delta"))
        return (yield* chat.generateText({ prompt: [], toolkit: tools })).text
      }).pipe(
        AnthropicMessages.withConfigOverride({ body: { thinking: { type: "enabled", budget_tokens: 1024 } } }),
        Effect.provide(tools.toLayer({ now: () => Effect.succeed("noon") })),
        Effect.provide(model)
      )
      assert.strictEqual(text, "It is noon.")
    }))
})
