/**
 * An `EmbeddingModel` that does what its turns say, without a socket and by Effect's `Clock`, as `ScriptedModel` does.
 *
 * **Details**
 *
 * Its vectors depend on the text and nothing else: they are those of `LoopbackProvider`, of length 1, and texts that share
 * words are closer to each other than texts that share none. One request to the provider, which may be of many texts, meets
 * one turn. What its turn says is left out, since nothing is said here, and so is everything that may become of a stream:
 * such a turn is met as when a whole answer is asked for.
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
 * What a model is built from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** What its requests meet, see `Turn.Turns`. Default: good answers. */
  readonly turns?: Turn.Turns | undefined
  /** How many numbers a vector has. Default 16. */
  readonly dimensions?: number | undefined
  /** What the model is called. Default `scripted`. */
  readonly name?: string | undefined
}

/**
 * A scripted model of embeddings, and what it saw.
 *
 * @since 0.1.0
 * @category services
 */
export class ScriptedEmbedding extends Context.Service<ScriptedEmbedding, {
  readonly name: string
  /** The model itself. */
  readonly model: EmbeddingModel.EmbeddingModel
  /** The same as a layer, for what is built from layers. */
  readonly layer: Layer.Layer<EmbeddingModel.EmbeddingModel | EmbeddingModel.Dimensions>
  /** Every request so far, the oldest first, also those that have not ended. */
  readonly journal: Effect.Effect<ReadonlyArray<ScriptedModel.Call>>
  /** How many requests are open now. */
  readonly open: Effect.Effect<number>
  /** Forgets the requests and begins its turns anew. */
  readonly clear: Effect.Effect<void>
}>()("@sluice/ai/testing/ScriptedEmbedding") {}

/**
 * Builds a model.
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
        const asked = [{ role: "user", content: inputs.join("\n") }]
        const performance = yield* calls.begin("embedMany", () => Conversation.fromMessages(name, asked))
        yield* Scripted.whole(performance)
        return {
          results: inputs.map((text) => [...Embeddings.vector(text, dimensions)]),
          usage: { inputTokens: performance.call.inputTokens }
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
 * Provides a model, as the `EmbeddingModel` of a program and as what the test looks at.
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
