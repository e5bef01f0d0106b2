/** A model that is chosen per call: the targets that offer it, and the model names in their requests. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import { AiError, EmbeddingModel, LanguageModel } from "effect/ai"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as ScriptedEmbedding from "@sluice/ai/testing/ScriptedEmbedding"
import * as Turn from "@sluice/ai/testing/Turn"
import { atOnce, build, errorOf, failed, ok, rejectionOf, summaryOf } from "./support/resilient.ts"
import { makeTracer } from "./support/telemetry.ts"
import { callModel, methods, provider, resilient, settled, target, wireNames } from "./support/wireCalls.ts"

describe("a model chosen per call", () => {
  it.effect("targets that do not offer the model are skipped, in generateText and in streams", () =>
    Effect.gen(function*() {
      const { model, targetCalls } = yield* build({
        A: { turns: [ok], model: "large" },
        B: { turns: [failed], model: "mini", models: ["small"] },
        C: { turns: [ok], models: { small: "small-7b" } }
      }, atOnce)
      const response = yield* ResilientModel.withModel(model.generateText({ prompt: "hi" }), "small")
      assert.deepInclude(ResilientModel.answeredBy(response), { target: "C", model: "small-7b", attempts: 2 })
      const parts = yield* Stream.runCollect(
        ResilientModel.withModelStream(model.streamText({ prompt: "hi" }), "small")
      )
      const last = parts.at(-1)
      assert.deepInclude(last === undefined ? undefined : ResilientModel.answeredBy(last), { model: "small-7b" })
      assert.deepStrictEqual((yield* targetCalls).map((line) => line[0]), ["B", "B", "C", "C"])
      const own = yield* ResilientModel.withModel(model.generateText({ prompt: "hi" }), "large")
      assert.deepInclude(ResilientModel.answeredBy(own), { target: "A", model: "large" })
    }))

  it.effect("a model that no target offers is a typed error with the offered models, without a request", () =>
    Effect.gen(function*() {
      const { generate, resilient, stream, targetCalls } = yield* build({
        A: { turns: [ok], model: "large", models: { fast: "mini" } },
        B: { turns: [ok], model: "large", models: ["small"] }
      })
      const expected = { _tag: "ModelNotOffered" as const, model: "huge", offered: ["large", "fast", "small"] }
      const calls: ReadonlyArray<Effect.Effect<void, AiError.AiError>> = [
        Effect.asVoid(generate),
        Stream.runDrain(stream)
      ]
      for (const call of calls) {
        const [exit, logs] = yield* ResilientModel.withLogs(
          ResilientModel.withModel(call, "huge")
        )
        assert.deepInclude(rejectionOf(exit), expected)
        assert.isFalse(errorOf(exit).isRetryable)
        assert.deepInclude(AiRejection.toHttp(errorOf(exit)), { status: 404, code: "model_not_found" })
        assert.deepInclude(logs[0], { result: "Failure", steps: [] })
      }
      assert.deepStrictEqual(yield* targetCalls, [])
      const states = yield* resilient.targets
      assert.deepStrictEqual(states.map(({ models }) => models), [["large", "fast"], ["large", "small"]])
    }))

  it.effect("without `withModel` every target gets a request for its own model", () =>
    Effect.gen(function*() {
      const seen: Array<string | undefined> = []
      const reading = LanguageModel.make({
        generateText: () =>
          Effect.flatMap(ResilientModel.CurrentModel, (model) => {
            seen.push(model)
            return Effect.fail(
              AiError.make({
                module: "Test",
                method: "x",
                reason: new AiError.InvalidRequestError({ description: "no" })
              })
            )
          }),
        streamText: () => Stream.die("not used")
      })
      const layer = ResilientModel.layer({
        targets: [{
          name: "A",
          model: "label",
          models: { fast: "mini" },
          layer: Layer.effect(LanguageModel.LanguageModel, reading)
        }]
      })
      const call = LanguageModel.generateText({ prompt: "hi" })
      yield* Effect.provide(
        Effect.all([
          Effect.exit(call),
          Effect.exit(ResilientModel.withModel(call, "fast")),
          Effect.exit(ResilientModel.withModel(call, "label"))
        ]),
        layer
      )
      assert.deepStrictEqual(seen, [undefined, "mini", undefined])
    }))

  it.effect("a nested layer gets the outer layer's name for the model, and a call with a toolkit too", () =>
    Effect.gen(function*() {
      const inner = yield* build({ A: { turns: [ok], models: { "gpt-4": "deployment-4" } } })
      const context = yield* Layer.build(ResilientModel.layer({
        targets: [{
          name: "inner",
          models: { best: "gpt-4" },
          layer: Layer.succeed(LanguageModel.LanguageModel, inner.model)
        }]
      }))
      const outer = Context.get(context, LanguageModel.LanguageModel)
      const [, logs] = yield* ResilientModel.withLogs(
        ResilientModel.withModel(outer.generateText({ prompt: "hi" }), "best")
      )
      assert.deepStrictEqual(logs.map(({ result }) => result), ["Success", "Success"])
      const wrong = yield* Effect.exit(ResilientModel.withModel(outer.generateText({ prompt: "hi" }), "gpt-4"))
      assert.strictEqual(summaryOf(wrong), "ModelNotOffered")
    }))

  it.effect("the span of an attempt has the target's own name for the model", () =>
    Effect.gen(function*() {
      const { generate } = yield* build({ A: { turns: [ok], model: "large", models: { fast: "mini-2" } } })
      const { layer, spans } = makeTracer()
      yield* Effect.provide(Effect.andThen(generate, ResilientModel.withModel(generate, "fast")), layer)
      assert.deepStrictEqual(spans.map(({ name }) => name), ["chat large", "chat mini-2"])
    }))

  it.effect("embeddings ignore the chosen model", () =>
    Effect.gen(function*() {
      const layer = ResilientModel.layerEmbedding({ targets: [{ name: "A", layer: ScriptedEmbedding.layer() }] })
      const embed = Effect.flatMap(EmbeddingModel.EmbeddingModel, (model) => model.embed("red"))
      const exit = yield* Effect.exit(Effect.provide(ResilientModel.withModel(embed, "huge"), layer))
      assert.strictEqual(exit._tag, "Success")
    }))

  for (const wire of wireNames) {
    it.live(`a request of ${wire} has the target's own name of the model`, () =>
      Effect.gen(function*() {
        for (const method of methods) {
          const at = yield* provider([Turn.answer("well")])
          const layer = resilient([target("A", wire, at, { models: { fast: "m2-mini" } })])
          const calls = Effect.gen(function*() {
            yield* callModel(method)
            const { answeredBy } = yield* ResilientModel.withModel(callModel(method), "fast")
            assert.strictEqual(answeredBy?.model, "m2-mini")
          })
          yield* Effect.provide(calls, layer)
          assert.deepStrictEqual((yield* settled(at)).map(({ model }) => model), ["m1", "m2-mini"])
        }
      }))
  }
})
