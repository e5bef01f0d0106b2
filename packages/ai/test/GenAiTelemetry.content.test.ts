import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Stream, type Tracer } from "effect"
import { AiError, LanguageModel, Tool } from "effect/ai"
import * as GenAiTelemetry from "@sluice/ai/GenAiTelemetry"
import {
  drain,
  generate,
  handlers,
  instrumented,
  providerText,
  secret,
  toolCallingModel,
  tools,
  Weather,
  withClock
} from "./support/instrumented.ts"
import {
  attributesOf,
  delta,
  end,
  exitOf,
  failure,
  finish,
  makeTracer,
  metadata,
  modelOf,
  spanText,
  start
} from "./support/telemetry.ts"

describe("GenAiTelemetry content", () => {
  const prompt = [
    { role: "system", content: "be brief" },
    {
      role: "user",
      content: [{ type: "text", text: secret }, { type: "file", mediaType: "image/png", data: new Uint8Array(9) }]
    },
    { role: "assistant", content: [{ type: "tool-call", id: "c0", name: "weather", params: { city: "Ulm" } }] },
    { role: "tool", content: [{ type: "tool-result", id: "c0", name: "weather", isFailure: false, result: "sunny" }] }
  ] as const

  const parsed = (span: Tracer.Span | undefined, name: string): unknown => {
    const value = attributesOf(span)[name]
    return typeof value === "string" ? JSON.parse(value) : value
  }

  const traced = <A, E>(
    self: Effect.Effect<A, E, LanguageModel.LanguageModel>,
    model: Effect.Effect<LanguageModel.LanguageModel>,
    content: GenAiTelemetry.ContentOptions | undefined
  ) =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      yield* withClock(
        instrumented(self, model).pipe(Effect.provide(layer), Effect.provideService(GenAiTelemetry.Content, content)),
        10_000
      )
      return spans
    })

  it.effect("spans contain no prompt, answer or provider text by default", () =>
    Effect.gen(function*() {
      const answers = modelOf({
        whole: () => Effect.succeed([metadata, { type: "text", text: providerText }, finish]),
        streamed: () => Stream.make(metadata, start, delta(providerText), end, finish)
      })
      const error = failure(new AiError.AuthenticationError({ kind: "InvalidKey", description: providerText }))
      const fails = modelOf({ whole: () => Effect.fail(error), streamed: () => Stream.fail(error) })
      for (const model of [answers, fails]) {
        const spans = yield* traced(Effect.andThen(Effect.exit(generate), Effect.exit(drain)), model, undefined)
        assert.strictEqual(spans.length, 2)
        assert.notInclude(spanText(spans), secret)
        assert.notInclude(spanText(spans), providerText)
      }
    }))

  it.effect("enabled content is recorded in the JSON format of the conventions", () =>
    Effect.gen(function*() {
      const call = LanguageModel.generateText({ prompt, toolkit: tools }).pipe(Effect.provide(handlers))
      const [chat] = yield* traced(call, toolCallingModel, {})
      assert.deepStrictEqual(parsed(chat, "gen_ai.system_instructions"), [{ type: "text", content: "be brief" }])
      assert.deepStrictEqual(parsed(chat, "gen_ai.input.messages"), [
        {
          role: "user",
          parts: [
            { type: "text", content: secret },
            { type: "blob", modality: "image", mime_type: "image/png", content: "" }
          ]
        },
        { role: "assistant", parts: [{ type: "tool_call", id: "c0", name: "weather", arguments: { city: "Ulm" } }] },
        { role: "tool", parts: [{ type: "tool_call_response", id: "c0", response: "sunny" }] }
      ])
      assert.deepStrictEqual(parsed(chat, "gen_ai.output.messages"), [{
        role: "assistant",
        parts: [{ type: "tool_call", id: "c1", name: "weather", arguments: { city: secret } }],
        finish_reason: "stop"
      }])
      assert.deepStrictEqual(parsed(chat, "gen_ai.tool.definitions"), [{
        type: "function",
        name: "weather",
        description: "the weather",
        parameters: Tool.getJsonSchema(Weather)
      }])
      assert.notProperty(attributesOf(chat), "sluice.content.truncated")
    }))

  it.effect("the content of a stream is assembled from its deltas, even if the stream fails", () =>
    Effect.gen(function*() {
      const reasoning = { type: "reasoning-delta", id: "r", delta: "think" } as const
      const error = failure(new AiError.InternalProviderError({ description: providerText }))
      const model = modelOf({
        streamed: () =>
          Stream.concat(
            Stream.make(
              { type: "reasoning-start", id: "r" } as const,
              reasoning,
              reasoning,
              start,
              delta("hel"),
              delta("lo")
            ),
            Stream.fail(error)
          )
      })
      const [chat] = yield* traced(Effect.exit(drain), model, {})
      assert.deepStrictEqual(parsed(chat, "gen_ai.output.messages"), [{
        role: "assistant",
        parts: [{ type: "reasoning", content: "thinkthink" }, { type: "text", content: "hello" }],
        finish_reason: "error"
      }])
      const exit = exitOf(chat)
      assert.include(
        exit !== undefined && Exit.isFailure(exit) ? String(exit.cause) + JSON.stringify(exit) : "",
        providerText
      )
    }))

  it.effect("content over maxLength is truncated, stays valid JSON and is marked as truncated", () =>
    Effect.gen(function*() {
      const long = "x".repeat(100_000)
      const model = modelOf({
        whole: () => Effect.succeed([{ type: "text", text: long }, { type: "text", text: long }, finish]),
        streamed: () =>
          Stream.fromIterable([start, ...Array.from({ length: 1000 }, () => delta(long.slice(0, 1000))), end, finish])
      })
      const messages = Array.from({ length: 1000 }, (_, n) => ({ role: "user" as const, content: `message ${n}` }))
      const request = { prompt: [{ role: "system" as const, content: long }, ...messages] }
      const run = Effect.andThen(
        LanguageModel.generateText(request),
        Stream.runDrain(LanguageModel.streamText(request))
      )
      for (const span of yield* traced(run, model, { maxLength: 1000 })) {
        assert.strictEqual(attributesOf(span)["sluice.content.truncated"], true)
        for (const name of ["gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages"]) {
          assert.isAtMost(String(attributesOf(span)[name]).length, 1600, name)
          assert.isArray(parsed(span, name))
        }
        // The last messages are kept.
        assert.include(String(attributesOf(span)["gen_ai.input.messages"]), "message 999")
      }
    }))

  it.effect("tool names that a provider makes up are truncated to the bound too", () =>
    Effect.gen(function*() {
      const long = "x".repeat(100_000)
      const calls = Array.from({ length: 200 }, () =>
        ({ type: "tool-call", id: long, name: long, params: { long } }) as const)
      const model = modelOf({
        whole: () =>
          Effect.succeed([...calls, finish])
      })
      const call = LanguageModel.generateText({
        prompt: "a",
        disableToolCallResolution: true,
        toolCallValidation: "deferred"
      })
      const [chat] = yield* traced(call, model, { maxLength: 1000 })
      assert.isAtMost(String(attributesOf(chat)["gen_ai.output.messages"]).length, 2600)
      assert.isArray(parsed(chat, "gen_ai.output.messages"))
    }))

  it.effect("content that cannot be encoded does not fail the call", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const circular: { self?: unknown } = {}
      circular.self = circular
      const params = {
        role: "assistant",
        content: [{ type: "tool-call", id: "c", name: "t", params: circular }]
      } as const
      const text = yield* instrumented(LanguageModel.generateText({ prompt: [params] })).pipe(
        Effect.map(({ text }) => text),
        Effect.provide(layer),
        Effect.provideService(GenAiTelemetry.Content, {})
      )
      assert.strictEqual(text, "hello")
      assert.strictEqual(spans[0]?.status._tag, "Ended")
    }))
})
