import { LLMock } from "@copilotkit/aimock"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schema, Stream } from "effect"
import { AiError, Chat, LanguageModel, Tool, Toolkit } from "effect/ai"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import { generate, stream, streamedText, textOf } from "./support/model.ts"
import { anthropic, type Wire, wires } from "./support/wires.ts"

/** A server that others wrote, with what it is told to say. */
const aimockAt = (wire: Wire) => (tell: (mock: LLMock) => void) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const mock = new LLMock({ port: 0, logLevel: "silent" })
        tell(mock)
        await mock.start()
        return mock
      }),
      (mock) => Effect.promise(() => mock.stop())
    ),
    (mock) => wire.modelAt(`${mock.url}/v1`)
  )

// Each wire has its own names for them.
const usage = { prompt_tokens: 3, completion_tokens: 4, input_tokens: 3, output_tokens: 4 }

const sentence = "The quick brown fox jumps over the lazy dog, and then over another one."

const failureOf = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(self), (error) => AiError.isAiError(error) ? error : assert.fail("expected an AiError"))

for (const wire of wires) {
  describe(`a server written by others, ${wire.module}`, () => {
    const aimock = aimockAt(wire)

    it.live("answers in one piece and streamed, with its token counts", () =>
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

    it.live("calls tools, whole and streamed, and takes their results", () =>
      Effect.gen(function*() {
        const tools = Toolkit.make(
          Tool.make("weather", { parameters: Schema.Struct({ city: Schema.String }), success: Schema.String })
        )
        const model = yield* aimock((mock) => {
          mock.onMessage("weather?", { toolCalls: [{ name: "weather", arguments: "{\"city\":\"Oslo\"}" }] })
        })
        const toolkit = Effect.provide(
          tools,
          tools.toLayer({ weather: ({ city }) => Effect.succeed(`sun in ${city}`) })
        )
        const whole = yield* Effect.provide(LanguageModel.generateText({ prompt: "weather?", toolkit }), model)
        assert.deepStrictEqual(whole.toolResults.map(({ result }) => result), ["sun in Oslo"])
        const parts = yield* Effect.provide(
          Stream.runCollect(LanguageModel.streamText({ prompt: "weather?", toolkit })),
          model
        )
        assert.deepStrictEqual(parts.flatMap((part) => part.type === "tool-result" ? [part.result] : []), [
          "sun in Oslo"
        ])
      }))

    it.live("fills in a schema", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) => mock.onMessage("who?", { content: "{\"name\":\"Ada\",\"age\":36}" }))
        const schema = Schema.Struct({ name: Schema.String, age: Schema.Int })
        const { value } = yield* Effect.provide(LanguageModel.generateObject({ prompt: "who?", schema }), model)
        assert.deepStrictEqual(value, { name: "Ada", age: 36 })
      }))

    it.live("limits the rate, and says for how long", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) =>
          mock.onMessage("hi", {
            error: { message: "slow down", type: "rate_limit_error" },
            status: 429,
            retryAfter: 3
          })
        )
        for (const ask of [Effect.asVoid(generate()), Effect.asVoid(streamedText())]) {
          const error = yield* failureOf(Effect.provide(ask, model))
          assert.strictEqual(error.reason._tag, "RateLimitError")
          assert.deepStrictEqual(RetryAfter.fromAiError(error), Duration.seconds(3))
        }
      }))

    it.live("is down", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) =>
          mock.onMessage("hi", { error: { message: "overloaded", type: "server_error" }, status: 503 })
        )
        for (const ask of [Effect.asVoid(generate()), Effect.asVoid(streamedText())]) {
          const error = yield* failureOf(Effect.provide(ask, model))
          assert.strictEqual(error.reason._tag, "InternalProviderError")
          assert.deepInclude(AiOutcome.fromAiError(error), { _tag: "Failure", retryable: true })
        }
      }))

    it.live("sends malformed JSON", () =>
      Effect.gen(function*() {
        const model = yield* aimock((mock) =>
          mock.onMessage("hi", { content: sentence }, { chaos: { malformedRate: 1 } })
        )
        for (const ask of [Effect.asVoid(generate()), Effect.asVoid(streamedText())]) {
          const error = yield* failureOf(Effect.provide(ask, model))
          assert.strictEqual(error.reason._tag, "InternalProviderError")
          assert.include(error.message, "malformed answer")
        }
      }))

    it.live("cuts a stream, or drops the connection", () =>
      Effect.gen(function*() {
        const faults = [{ truncateAfterChunks: 3 }, { chaos: { disconnectRate: 1 } }]
        for (const fault of faults) {
          const model = yield* aimock((mock) => mock.onMessage("hi", { content: sentence }, { chunkSize: 5, ...fault }))
          const error = yield* failureOf(Effect.provide(streamedText(), model))
          assert.include(["InternalProviderError", "NetworkError"], error.reason._tag)
          assert.deepInclude(AiOutcome.fromAiError(error), { _tag: "Failure", retryable: true })
        }
      }))

    it.live("does not know the model", () =>
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

describe("a server written by others that speaks Anthropic's wire", () => {
  it.live("thinks, and checks what of it comes back with a tool's result", () =>
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
