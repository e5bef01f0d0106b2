import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { EmbeddingModel } from "effect/ai"
import { TestClock } from "effect/testing"
import * as ScriptedEmbedding from "@sluice/ai/testing/ScriptedEmbedding"
import * as Turn from "@sluice/ai/testing/Turn"

const embed = (...texts: ReadonlyArray<string>) =>
  Effect.flatMap(EmbeddingModel.EmbeddingModel, (model) => model.embedMany(texts))

it.effect("a scripted embedding returns equal vectors for equal texts and follows its turns", () =>
  Effect.gen(function*() {
    const scripted = yield* ScriptedEmbedding.make({
      dimensions: 4,
      turns: [Turn.answer(), Turn.delay(Turn.refusal("overloaded"), "1 second"), Turn.hang()]
    })
    const fiber = yield* Effect.forkChild(
      Effect.gen(function*() {
        const { embeddings, usage } = yield* embed("a b", "c", "a b")
        const error = yield* Effect.flip(embed("d"))
        const silence = yield* Effect.timeoutOption(embed("e"), "1 minute")
        return { vectors: embeddings.map(({ vector }) => vector), usage, error, silence }
      }).pipe(Effect.provide(scripted.layer))
    )
    yield* TestClock.adjust("2 minutes")
    const { error, silence, usage, vectors } = yield* Fiber.join(fiber)
    assert.deepStrictEqual([vectors[0]?.length, usage.inputTokens], [4, 5])
    assert.deepStrictEqual(vectors[0], vectors[2])
    assert.notDeepEqual(vectors[0], vectors[1])
    assert.deepStrictEqual([error.reason._tag, error.method, silence._tag], [
      "InternalProviderError",
      "embedMany",
      "None"
    ])
    assert.deepStrictEqual(
      (yield* scripted.journal).map(({ ending, prompt, startedAt }) => [prompt, startedAt, ending]),
      [
        ["a b\nc\na b", 0, "complete"],
        ["d", 0, "failed"],
        ["e", 1000, "interrupted"]
      ]
    )
    assert.strictEqual(yield* scripted.open, 0)
  }))

it.effect("the layer provides its dimensions, and zero dimensions are refused", () =>
  Effect.gen(function*() {
    assert.strictEqual(yield* Effect.provide(EmbeddingModel.Dimensions, ScriptedEmbedding.layer({ dimensions: 7 })), 7)
    const error = yield* Effect.flip(ScriptedEmbedding.make({ dimensions: 0, turns: [Turn.status(1)] }))
    assert.deepStrictEqual(error.issues.map(({ option }) => option), ["turns", "dimensions"])
  }))
