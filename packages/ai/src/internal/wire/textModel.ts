import type * as Response from "effect/ai/Response"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import type { Answer, TextModel } from "../../TextModel.ts"
import { setFacts } from "../kit/modelFacts.ts"
import { collect, type Part } from "./collect.ts"
import type { RequestConfig } from "./config.ts"
import { factsOf } from "./facts.ts"
import { sending } from "./sending.ts"
import type { ProviderOptions, Settings } from "./settings.ts"
import type { Wire, WireRequest } from "./wire.ts"

/** Builds a model that collects one whole text from a stream. */
export const buildText = <C extends RequestConfig>(
  wire: Wire<C>,
  options: ProviderOptions<C>,
  settings: Settings
): Effect.Effect<TextModel, never, HttpClient.HttpClient> =>
  Effect.map(HttpClient.HttpClient, (client) => modelOver(wire, options, settings, client))

const modelOver = <C extends RequestConfig>(
  wire: Wire<C>,
  options: ProviderOptions<C>,
  settings: Settings,
  client: HttpClient.HttpClient
): TextModel => {
  const send = sending(wire, options, settings, client)
  const model: TextModel = {
    ask: (prompt) =>
      Effect.map(
        Effect.flatMap(
          // The model is given no tools, so no id of a call is used.
          send({ method: "streamText", call: { ...textOnly, prompt }, streams: true, newId: "call" }),
          collect
        ),
        answerOf
      )
  }
  return setFacts(model, factsOf(wire, options, settings))
}

const textOnly: Omit<WireRequest<RequestConfig>["call"], "prompt"> = {
  tools: [],
  toolChoice: "none",
  responseFormat: { type: "text" }
}

const noUsage: Answer["usage"] = {
  inputTokens: { total: undefined, uncached: undefined, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: undefined, text: undefined, reasoning: undefined }
}

const answerOf = (parts: ReadonlyArray<Part>): Answer => {
  let id: string | undefined
  let model: string | undefined
  let text = ""
  let reasoning = ""
  let finishReason: Response.FinishReason = "unknown"
  let usage = noUsage
  for (const part of parts) {
    switch (part.type) {
      case "text":
        text += part.text
        break
      case "text-delta":
        text += part.delta
        break
      case "reasoning":
        reasoning += part.text
        break
      case "reasoning-delta":
        reasoning += part.delta
        break
      case "response-metadata":
        id = part.id ?? undefined
        model = part.modelId ?? undefined
        break
      case "finish":
        finishReason = part.reason
        usage = part.usage
        break
    }
  }
  return { id, model, text, reasoning, finishReason, usage, from: undefined }
}
