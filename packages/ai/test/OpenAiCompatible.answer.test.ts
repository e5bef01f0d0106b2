import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Tracer } from "effect"
import { Model } from "effect/ai"
import { generate, modelAt, streamedText } from "./support/model.ts"
import { completion, delta, done, finish, json, rawServer, sse } from "./support/rawServer.ts"

const answering = (body: unknown) =>
  Effect.gen(function*() {
    const server = yield* rawServer((response) => json(response, 200, body))
    return yield* Effect.provide(generate(), modelAt(server.url))
  })

describe("a whole answer", () => {
  it.live("tells who answered, when, why it ended and what it cost", () =>
    Effect.gen(function*() {
      const response = yield* answering(
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

  it.live("may leave out everything but the message", () =>
    Effect.gen(function*() {
      const response = yield* answering({ choices: [{ message: { content: "hello" } }] })
      assert.strictEqual(response.text, "hello")
      assert.strictEqual(response.finishReason, "unknown")
      assert.isUndefined(response.usage.outputTokens.total)
    }))

  it.live("may be strange where we can do without", () =>
    Effect.gen(function*() {
      const response = yield* answering({
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

it.live("the layer says what provider and model it is", () =>
  Effect.gen(function*() {
    const server = yield* rawServer(() => undefined)
    const names = yield* Effect.provide(Effect.all([Model.ProviderName, Model.ModelName]), modelAt(server.url))
    assert.deepStrictEqual(names, ["127.0.0.1", "m1"])
  }))

it.live("a span says what was asked of whom, and what it cost, and no words of either side", () =>
  Effect.gen(function*() {
    const server = yield* rawServer((response, { body }) =>
      JSON.parse(body).stream === true
        ? sse(response, delta("secret answer") + finish() + done)
        : json(response, 200, completion({ content: "secret answer" }, { usage: { prompt_tokens: 3 } }))
    )
    const spans = yield* recordedSpans(
      Effect.andThen(generate("secret question"), streamedText("secret question")).pipe(
        Effect.provide(modelAt(server.url))
      )
    )
    const asked = spans.filter(({ name }) => name.startsWith("LanguageModel."))
    assert.strictEqual(asked.length, 2)
    for (const { attributes } of asked) {
      assert.deepInclude(attributes, {
        "gen_ai.provider.name": "127.0.0.1",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m1",
        "gen_ai.response.id": "c1"
      })
      assert.deepStrictEqual(attributes["gen_ai.response.finish_reasons"], ["stop"])
    }
    assert.strictEqual(asked[0]?.attributes["gen_ai.usage.input_tokens"], 3)
    assert.notInclude(JSON.stringify(spans), "secret")
  }))

const recordedSpans = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const spans: Array<Tracer.NativeSpan> = []
    const tracer = Tracer.make({
      span(options) {
        const span = new Tracer.NativeSpan(options)
        spans.push(span)
        return span
      }
    })
    yield* Effect.provideService(self, Tracer.Tracer, tracer)
    return spans.map(({ attributes, name }) => ({ name, attributes: Object.fromEntries(attributes) }))
  })
