import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Metric, Stream } from "effect"
import { AiError, LanguageModel, Model } from "effect/ai"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as GenAiTelemetry from "@sluice/ai/GenAiTelemetry"
import { drain, generate, instrumented, pacedModel, providerText, withClock } from "./support/instrumented.ts"
import { collectMetrics, failure, finish, metadata, metricsOf, modelOf, usage } from "./support/telemetry.ts"

const labels = {
  "gen_ai.operation.name": "chat",
  "gen_ai.provider.name": "acme",
  "gen_ai.request.model": "m1",
  "gen_ai.response.model": "m1-2026",
  "server.address": "api.acme.test",
  "server.port": "443"
}

describe("GenAiTelemetry metrics", () => {
  it.effect("a call records its duration and tokens under the names and buckets of the conventions", () =>
    Effect.gen(function*() {
      const model = modelOf({
        whole: () => Effect.delay(Effect.succeed([metadata, { type: "text", text: "hello" }, finish]), 1500)
      })
      const metrics = yield* collectMetrics(withClock(instrumented(generate, model), 1500))
      assert.deepStrictEqual(metrics.map(({ id }) => id), [
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
        "gen_ai.client.token.usage"
      ])
      const [duration, input, output] = metrics
      assert.deepStrictEqual(duration?.attributes, { ...labels, unit: "s" })
      assert.deepStrictEqual({ ...duration?.state, buckets: [] }, {
        buckets: [],
        count: 1,
        sum: 1.5,
        min: 1.5,
        max: 1.5
      })
      assert.deepStrictEqual(
        duration?.state.buckets.map(([boundary]) => boundary),
        [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
      )
      assert.deepStrictEqual(duration?.state.buckets.map(([, count]) => count), [
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
        1,
        1,
        1,
        1
      ])
      assert.deepStrictEqual(input?.attributes, { ...labels, "gen_ai.token.type": "input", unit: "{token}" })
      assert.strictEqual(input?.state.sum, usage.input)
      assert.deepStrictEqual(output?.attributes, { ...labels, "gen_ai.token.type": "output", unit: "{token}" })
      assert.strictEqual(output?.state.sum, usage.output)
    }))

  it.effect("a stream also records the time to its first output chunk and between output chunks", () =>
    Effect.gen(function*() {
      const metrics = yield* collectMetrics(withClock(instrumented(drain, pacedModel), 1200))
      const [first] = metricsOf(metrics, "gen_ai.client.operation.time_to_first_chunk")
      assert.strictEqual(first?.state.sum, 0.6)
      assert.deepStrictEqual(first?.attributes, { ...labels, unit: "s" })
      const [between] = metricsOf(metrics, "gen_ai.client.operation.time_per_output_chunk")
      assert.deepStrictEqual({ ...between?.state, buckets: [] }, {
        buckets: [],
        count: 2,
        sum: 0.1,
        min: 0.04,
        max: 0.06
      })
      assert.deepStrictEqual(between?.state.buckets.slice(0, 4), [[0.01, 0], [0.025, 0], [0.05, 1], [0.075, 2]])
      assert.strictEqual(metricsOf(metrics, "gen_ai.client.operation.duration")[0]?.state.sum, 1.2)
    }))

  it.effect("a failed call records its error type and nothing else about the error", () =>
    Effect.gen(function*() {
      const error = failure(new AiError.InvalidRequestError({ description: providerText }))
      const whole = yield* collectMetrics(instrumented(generate, modelOf({ whole: () => Effect.fail(error) })))
      const streamed = yield* collectMetrics(instrumented(drain, modelOf({ streamed: () => Stream.fail(error) })))
      for (const metrics of [whole, streamed]) {
        assert.strictEqual(metrics.length, 1)
        assert.strictEqual(metrics[0]?.attributes["error.type"], "InvalidRequestError")
        assert.isUndefined(metrics[0]?.attributes["gen_ai.response.model"])
        assert.notInclude(JSON.stringify(metrics), providerText)
      }
    }))

  it.effect("error.type is the tag of a rejection, _OTHER for a defect and Interrupted for an interruption", () =>
    Effect.gen(function*() {
      const empty = AiRejection.toAiError(new AiRejection.EmptyAnswer({ target: "first" }), "generateText")
      const types = yield* Effect.forEach(
        [Effect.fail(empty), Effect.die(providerText), Effect.interrupt],
        (whole) =>
          Effect.map(collectMetrics(instrumented(generate, modelOf({ whole: () => whole }))), ([metrics]) => metrics)
      )
      assert.deepStrictEqual(types.map((metrics) => metrics?.attributes["error.type"]), [
        "EmptyAnswer",
        "_OTHER",
        "Interrupted"
      ])
    }))

  it.effect("an unusable answer records the tokens that it cost", () =>
    Effect.gen(function*() {
      const unusable = failure(
        new AiError.InvalidOutputError({ description: providerText, usage: { promptTokens: 8, completionTokens: 9 } })
      )
      const metrics = yield* collectMetrics(instrumented(generate, modelOf({ whole: () => Effect.fail(unusable) })))
      const tokens = metricsOf(metrics, "gen_ai.client.token.usage")
      assert.deepStrictEqual(
        tokens.map(({ attributes, state }) => [attributes["gen_ai.token.type"], attributes["error.type"], state.sum]),
        [["input", "InvalidOutputError", 8], ["output", "InvalidOutputError", 9]]
      )
    }))

  it.effect("equal calls add up in one series, which has the attributes that the program sets", () =>
    Effect.gen(function*() {
      const metrics = yield* collectMetrics(
        instrumented(Effect.replicateEffect(generate, 3)).pipe(
          Effect.provideService(Metric.CurrentMetricAttributes, { region: "eu" })
        )
      )
      const durations = metricsOf(metrics, "gen_ai.client.operation.duration")
      assert.strictEqual(durations.length, 1)
      assert.strictEqual(durations[0]?.attributes["region"], "eu")
      assert.strictEqual(durations[0]?.state.count, 3)
    }))

  it.effect("provider and model default to the names that the model's layer provides", () =>
    Effect.gen(function*() {
      const Base = Model.make("acme", "m2", Layer.effect(LanguageModel.LanguageModel, modelOf({})))
      const metrics = yield* collectMetrics(Effect.provide(generate, GenAiTelemetry.layer().pipe(Layer.provide(Base))))
      assert.strictEqual(metrics[0]?.attributes["gen_ai.provider.name"], "acme")
      assert.strictEqual(metrics[0]?.attributes["gen_ai.request.model"], "m2")
      assert.notProperty(metrics[0]?.attributes, "server.address")
    }))

  it.effect("20 response models have their own series, and all others share _OTHER", () =>
    Effect.gen(function*() {
      let calls = 0
      const model = modelOf({
        whole: () => Effect.sync(() => [{ ...metadata, modelId: `m1-${++calls}` }, { type: "text", text: "a" }, finish])
      })
      const metrics = yield* collectMetrics(instrumented(Effect.replicateEffect(generate, 10_000), model))
      const durations = metricsOf(metrics, "gen_ai.client.operation.duration")
      assert.strictEqual(durations.length, 21)
      const others = durations.find(({ attributes }) => attributes["gen_ai.response.model"] === "_OTHER")
      assert.strictEqual(others?.state.count, 9980)
      assert.strictEqual(metrics.length, 3 * 21)
    }), 60_000)

  it.effect("the requested model has its own series, and a name of more than 128 characters counts as _OTHER", () =>
    Effect.gen(function*() {
      const modelIds = ["x".repeat(129), ...Array.from({ length: 30 }, (_, n) => `m1-${n}`), "m1", "__proto__"]
      const model = modelOf({
        whole: () =>
          Effect.sync(() => [{ ...metadata, modelId: modelIds.shift() }, { type: "text", text: "a" }, finish])
      })
      const metrics = yield* collectMetrics(instrumented(Effect.replicateEffect(generate, modelIds.length), model))
      const durations = metricsOf(metrics, "gen_ai.client.operation.duration")
      const names = durations.map(({ attributes }) => attributes["gen_ai.response.model"])
      assert.strictEqual(names.length, 22)
      assert.include(names, "m1")
      assert.strictEqual(durations[names.indexOf("_OTHER")]?.state.count, 12)
    }))
})
