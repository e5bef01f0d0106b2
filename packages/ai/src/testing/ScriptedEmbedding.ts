/**
 * An `EmbeddingModel` test double that plays turns, without a socket and on Effect's `Clock`.
 *
 * **When to use**
 *
 * In tests, in place of a provider's layer. For a `LanguageModel`, use `ScriptedModel`.
 *
 * **Details**
 *
 * - A vector has length 1 and depends on the text alone. Texts that share words are closer to each other.
 *   `LoopbackProvider` returns the same vectors.
 * - One request plays one turn, for all its texts. The content of the turn is ignored, and a broken answer fails as it
 *   does without streaming.
 *
 * **Example** (Two texts that share a word)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { EmbeddingModel } from "effect/ai"
 * import * as ScriptedEmbedding from "@sluice/ai/testing/ScriptedEmbedding"
 *
 * const program = Effect.gen(function*() {
 *   const model = yield* EmbeddingModel.EmbeddingModel
 *   const { embeddings } = yield* model.embedMany(["a red house", "a red car"])
 *   return embeddings.map(({ vector }) => vector.length)
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.provide(ScriptedEmbedding.layer())))) // => [ 16, 16 ]
 * ```
 *
 * @since 0.1.0
 */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import * as AiError from "effect/ai/AiError"
import * as EmbeddingModel from "effect/ai/EmbeddingModel"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Calls } from "../internal/loopback/calls.ts"
import * as Conversation from "../internal/loopback/conversation.ts"
import * as Embeddings from "../internal/loopback/embeddings.ts"
import * as Paces from "../internal/loopback/paces.ts"
import * as Scripted from "../internal/loopback/scripted.ts"
import { check as checkTurns } from "../internal/loopback/turns.ts"
import type * as ScriptedModel from "./ScriptedModel.ts"
import type * as Turn from "./Turn.ts"

/**
 * Options for `make` and `layer`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The turns of its requests. Default: every request succeeds. */
  readonly turns?: Turn.Turns | undefined
  /** How many numbers a vector has: 1 to 4096. Default 16. */
  readonly dimensions?: number | undefined
  /** The model's name. Default `scripted`. */
  readonly name?: string | undefined
}

/**
 * A scripted embedding model and its journal.
 *
 * @since 0.1.0
 * @category services
 */
export class ScriptedEmbedding extends Context.Service<ScriptedEmbedding, {
  readonly name: string
  readonly model: EmbeddingModel.EmbeddingModel
  /** Provides the model, for a target of `ResilientModel.layerEmbedding`. */
  readonly layer: Layer.Layer<EmbeddingModel.EmbeddingModel | EmbeddingModel.Dimensions>
  /** All requests in order, also those that have not ended. */
  readonly journal: Effect.Effect<ReadonlyArray<ScriptedModel.Call>>
  /** How many requests are open now. */
  readonly open: Effect.Effect<number>
  /** Clears the journal, and starts the turns again. */
  readonly clear: Effect.Effect<void>
}>()("@sluice/ai/testing/ScriptedEmbedding") {}

/**
 * Builds a scripted embedding model.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = Effect.fnUntraced(function*(
  options?: Options
): Effect.fn.Return<ScriptedEmbedding["Service"], InvalidOptions> {
  const { dimensions, pace } = yield* check(options)
  const name = options?.name ?? "scripted"
  const calls = new Calls({ turns: options?.turns, pace, streamErrors: "parts", say: () => "" }, yield* Clock.Clock)

  const model = yield* EmbeddingModel.make({
    embedMany: ({ inputs }) =>
      Effect.gen(function*() {
        const messages = [{ role: "user", content: inputs.join("\n") }]
        const run = yield* calls.begin("embedMany", () => Conversation.fromMessages(name, messages))
        yield* Scripted.whole(run)
        return {
          results: inputs.map((text) => [...Embeddings.vector(text, dimensions)]),
          usage: { inputTokens: run.call.inputTokens }
        }
      }).pipe(
        Effect.mapError(({ module, reason }) => AiError.make({ module, method: "embedMany", reason }))
      )
  })
  return ScriptedEmbedding.of({
    name,
    model,
    layer: Layer.succeedContext(contextOf(model, dimensions)),
    journal: calls.journal,
    open: calls.open,
    clear: calls.clear
  })
})

/**
 * Provides a scripted embedding model: as the `EmbeddingModel` of the program, and as `ScriptedEmbedding` for the test.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: Options
): Layer.Layer<
  ScriptedEmbedding | EmbeddingModel.EmbeddingModel | EmbeddingModel.Dimensions,
  InvalidOptions
> =>
  Layer.effectContext(
    Effect.map(make(options), (scripted) =>
      Context.make(ScriptedEmbedding, scripted).pipe(
        Context.merge(contextOf(scripted.model, options?.dimensions ?? Embeddings.defaultDimensions))
      ))
  )

const contextOf = (model: EmbeddingModel.EmbeddingModel, dimensions: number) =>
  Context.make(EmbeddingModel.EmbeddingModel, model).pipe(Context.add(EmbeddingModel.Dimensions, dimensions))

const check = (options: Options | undefined) => {
  const checked = new OptionsReader("ScriptedEmbedding")
  checkTurns(checked, options?.turns)
  const pace = Paces.check(checked, undefined)
  const wanted = options?.dimensions ?? Embeddings.defaultDimensions
  return checked.check({ pace, dimensions: checked.integer("dimensions", wanted, 1, 4096) })
}
