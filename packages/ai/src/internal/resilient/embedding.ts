import * as EmbeddingModel from "effect/ai/EmbeddingModel"
import * as Effect from "effect/Effect"
import * as Mark from "../telemetry/mark.ts"
import type { Engine, Reading } from "./engine.ts"

type Model = EmbeddingModel.EmbeddingModel

/** Builds a model that sends every request through the engine. */
export const make = (engine: Engine<Model>): Effect.Effect<Model> =>
  Effect.map(
    EmbeddingModel.make({
      embedMany: ({ inputs }) =>
        Effect.map(
          engine.run(
            {
              method: "embed",
              ask: ({ service }) => service.embedMany(inputs),
              promptLength: (measure) => inputs.reduce((sum, input) => sum + measure(input), 0)
            },
            vectors
          ),
          ({ embeddings, usage }) => ({
            results: embeddings.map(({ vector }) => [...vector]),
            usage: { inputTokens: usage.inputTokens }
          })
        )
    }),
    Mark.mark
  )

const vectors: Reading<EmbeddingModel.EmbedManyResponse> = {
  isEmpty: () => false,
  finish: ({ usage }) => ({
    type: "finish",
    reason: "stop",
    usage: { inputTokens: { total: usage.inputTokens }, outputTokens: { total: 0 } }
  }),
  length: () => 0,
  sign: (answer) => answer,
  observe: ({ usage }, watch) => watch.answered({ inputTokens: usage.inputTokens })
}
