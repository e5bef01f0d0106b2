import type * as Response from "effect/ai/Response"
import type { Answer, TextModel } from "../../TextModel.ts"
import * as Parts from "./parts.ts"
import * as PromptSize from "./promptSize.ts"
import type { Engine, Reading } from "./engine.ts"

/** Builds a model that sends every call through the engine. */
export const make = (engine: Engine<TextModel>): TextModel => ({
  ask: (prompt) =>
    engine.run(
      {
        method: "streamText",
        ask: ({ service }) => service.ask(prompt),
        promptLength: (measure) => PromptSize.ofPrompt(prompt, measure),
        content: () => ({ prompt })
      },
      answers
    )
})

const answers: Reading<Answer> = {
  isEmpty: ({ finishReason, reasoning, text, usage }) =>
    text === "" && reasoning === "" && finishReason !== "tool-calls" &&
    !Parts.explainsEmpty({ type: "finish", reason: finishReason, usage }),
  finish: ({ finishReason, usage }) => ({ type: "finish", reason: finishReason, usage }),
  length: ({ reasoning, text }) => reasoning.length + text.length,
  sign: (answer, from) => ({ ...answer, from }),
  observe: ({ finishReason, id, model, reasoning, text, usage }, watch) => {
    const parts: ReadonlyArray<Response.PartEncoded> = [
      { type: "response-metadata", id, modelId: model, timestamp: undefined },
      ...(reasoning === "" ? [] : [{ type: "reasoning", text: reasoning } as const]),
      { type: "text", text },
      { type: "finish", reason: finishReason, usage, response: undefined }
    ]
    // The fields that telemetry reads are the same, encoded or decoded.
    watch.parts(parts as unknown as ReadonlyArray<Response.AnyPart>)
  }
}
