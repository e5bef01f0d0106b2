import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect } from "effect"
import { Model } from "effect/ai"
import { generate, modelAt, streamedText } from "./support/model.ts"
import { completion, delta, done, finish, json, rawServer, sse } from "./support/rawServer.ts"
import { attributesOf, makeTracer } from "./support/telemetry.ts"

const answerFrom = (body: unknown) =>
  Effect.gen(function*() {
    const server = yield* rawServer((response) => json(response, 200, body))
    return yield* Effect.provide(generate(), modelAt(server.url))
  })

describe("whole answers of OpenAiCompatible", () => {
  it.live("a whole answer has its text, reasoning, id, model, time, finish reason and usage", () =>
    Effect.gen(function*() {
      const response = yield* answerFrom(
        completion({ content: "hello", reasoning_content: "hm" }, { usage: { prompt_tokens: 3, completion_tokens: 4 } })
      )
      assert.strictEqual(response.text, "hello")
      assert.strictEqual(response.reasoningText, "hm")
      assert.strictEqual(response.finishReason, "stop")
      assert.deepInclude(response.usage.inputTokens, { total: 3 })
      assert.deepInclude(response.usage.outputTokens, { total: 4 })
      const metadata = response.content.find((part) => part.type === "response-metadata")
      assert.deepInclude(metadata, { id: "c1", modelId: "m1" })
      assert.strictEqual(DateTime.toEpochMillis(metadata!.timestamp!), 1_700_000_000_000)
    }))

  it.live("everything but the message is optional", () =>
    Effect.gen(function*() {
      const response = yield* answerFrom({ choices: [{ message: { content: "hello" } }] })
      assert.strictEqual(response.text, "hello")
      assert.strictEqual(response.finishReason, "unknown")
      assert.isUndefined(response.usage.outputTokens.total)
    }))

  it.live("optional fields of the wrong form are ignored", () =>
    Effect.gen(function*() {
      const response = yield* answerFrom({
        id: 7,
        model: null,
        created: 1e300,
        usage: "none",
        system_fingerprint: {},
        choices: [{ index: 0, message: { content: "hello", tool_calls: null }, finish_reason: "stop", logprobs: [] }]
      })
      assert.strictEqual(response.text, "hello")
      assert.deepInclude(response.content[0], { type: "response-metadata", id: undefined, timestamp: undefined })
    }))
})

it.live("the layer provides the names of its provider and model", () =>
  Effect.gen(function*() {
    const server = yield* rawServer(() => undefined)
    const names = yield* Effect.provide(Effect.all([Model.ProviderName, Model.ModelName]), modelAt(server.url))
    assert.deepStrictEqual(names, ["127.0.0.1", "m1"])
  }))

it.live("a span has the provider, model, finish reason and usage, and no text of prompt or answer", () =>
  Effect.gen(function*() {
    const server = yield* rawServer((response, { body }) =>
      JSON.parse(body).stream === true
        ? sse(response, delta("secret answer") + finish() + done)
        : json(response, 200, completion({ content: "secret answer" }, { usage: { prompt_tokens: 3 } }))
    )
    const { layer, spans } = makeTracer()
    yield* Effect.andThen(generate("secret question"), streamedText("secret question")).pipe(
      Effect.provide(modelAt(server.url)),
      Effect.provide(layer)
    )
    const recorded = spans.map((span) => ({ name: span.name, attributes: attributesOf(span) }))
    const calls = recorded.filter(({ name }) => name.startsWith("LanguageModel."))
    assert.strictEqual(calls.length, 2)
    for (const { attributes } of calls) {
      assert.deepInclude(attributes, {
        "gen_ai.provider.name": "127.0.0.1",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m1",
        "gen_ai.response.id": "c1"
      })
      assert.deepStrictEqual(attributes["gen_ai.response.finish_reasons"], ["stop"])
    }
    assert.strictEqual(calls[0]?.attributes["gen_ai.usage.input_tokens"], 3)
    assert.notInclude(JSON.stringify(recorded), "secret")
  }))
