/** Layers that keep their circuits in this process do not share them, in any composition. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { EmbeddingModel, LanguageModel } from "effect/ai"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as ScriptedEmbedding from "@sluice/ai/testing/ScriptedEmbedding"
import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
import type * as Turn from "@sluice/ai/testing/Turn"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Sluice from "@sluice/core/Sluice"
import { failed, ok, plainRetry, summaryOf } from "./support/resilient.ts"

const breaker = { trip: CircuitBreaker.consecutive(1) } as const
const retry = plainRetry({ maxAttempts: 1 })

/** Every layer has the same name and the same target's name. */
const model = (turns: Turn.Turns) =>
  ResilientModel.layer({ retry, targets: [{ name: "A", breaker, layer: ScriptedModel.layer({ turns }) }] })

const embedding = (turns: Turn.Turns) =>
  ResilientModel.layerEmbedding({ retry, targets: [{ name: "A", breaker, layer: ScriptedEmbedding.layer({ turns }) }] })

const generate = Effect.map(LanguageModel.generateText({ prompt: "hi" }), ({ text }) => text)
const embed = Effect.as(Effect.flatMap(EmbeddingModel.EmbeddingModel, (model) => model.embed("hi")), "embedded")

const calls: ReadonlyArray<
  Effect.Effect<string, unknown, LanguageModel.LanguageModel | EmbeddingModel.EmbeddingModel>
> = [generate, generate, embed, embed]

class Down extends Context.Service<Down, LanguageModel.LanguageModel>()("test/Down") {}
class Up extends Context.Service<Up, LanguageModel.LanguageModel>()("test/Up") {}
const renamed = <Self, S, E>(
  tag: Context.Key<Self, S>,
  service: Context.Key<S, S>,
  layer: Layer.Layer<S | ResilientModel.ResilientModel, E>
) => Layer.effect(tag, service).pipe(Layer.provide(layer))

const call = (model: LanguageModel.LanguageModel) =>
  Effect.map(model.generateText({ prompt: "hi" }), ({ text }) => text)

describe("layers that keep their circuits in this process", () => {
  it.effect("two layers in Layer.mergeAll have their own circuits", () =>
    Effect.gen(function*() {
      const layers = Layer.mergeAll(
        renamed(Down, LanguageModel.LanguageModel, model([failed])),
        renamed(Up, LanguageModel.LanguageModel, model([ok]))
      )
      const program = Effect.gen(function*() {
        const down = call(yield* Down)
        const up = call(yield* Up)
        return [
          summaryOf(yield* Effect.exit(down)),
          summaryOf(yield* Effect.exit(down)),
          summaryOf(yield* Effect.exit(up))
        ]
      })
      assert.deepStrictEqual(yield* Effect.provide(program, layers), [
        "InternalProviderError",
        "CircuitOpen",
        "good"
      ])
    }))

  it.effect("two layers in nested Effect.provide have their own circuits", () =>
    Effect.gen(function*() {
      const inner = Effect.provide(Effect.exit(generate), model([ok]))
      const outer = Effect.gen(function*() {
        const first = summaryOf(yield* Effect.exit(generate))
        const second = summaryOf(yield* Effect.exit(generate))
        return [first, second, summaryOf(yield* inner)]
      })
      assert.deepStrictEqual(yield* Effect.provide(outer, model([failed])), [
        "InternalProviderError",
        "CircuitOpen",
        "good"
      ])
    }))

  it.effect("layer and layerEmbedding of equal names have their own circuits, whichever failed", () =>
    Effect.gen(function*() {
      const results = (layers: Layer.Layer<LanguageModel.LanguageModel | EmbeddingModel.EmbeddingModel, unknown>) =>
        Effect.gen(function*() {
          const lines: Array<string> = []
          for (const each of calls) lines.push(summaryOf(yield* Effect.exit(each)))
          return lines
        }).pipe(Effect.provide(layers))
      assert.deepStrictEqual(yield* results(Layer.mergeAll(model([failed]), embedding([ok]))), [
        "InternalProviderError",
        "CircuitOpen",
        "embedded",
        "embedded"
      ])
      assert.deepStrictEqual(yield* results(Layer.mergeAll(model([ok]), embedding([failed]))), [
        "good",
        "good",
        "InternalProviderError",
        "CircuitOpen"
      ])
    }))

  it.effect("a resilient model, a circuit breaker and a policy of equal names have their own circuits", () =>
    Effect.gen(function*() {
      class Policy extends Sluice.Service<Policy>()("test/Policy", { name: "model/A", breaker }) {}
      const layers = Layer.mergeAll(
        model([failed]),
        CircuitBreaker.layer({ ...breaker, name: "model/A" }),
        Policy.layer
      )
      const program = Effect.gen(function*() {
        const breaker = yield* CircuitBreaker.CircuitBreaker
        const policy = yield* Policy
        yield* Effect.exit(generate)
        const [target] = yield* (yield* ResilientModel.ResilientModel).targets
        return [
          target?.circuit?._tag,
          (yield* breaker.state("model/A"))._tag,
          (yield* policy.breaker.state("model/A"))._tag
        ]
      })
      assert.deepStrictEqual(yield* Effect.provide(program, layers), ["Open", "Closed", "Closed"])
    }))
})
