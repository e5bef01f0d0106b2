import type * as Response from "effect/ai/Response"
import type { Span } from "effect/Tracer"
import type { RequestConfig } from "./config.ts"

// The attributes of OpenTelemetry's conventions for generative AI, without prompts and responses. Effect's
// `Telemetry.addGenAIAnnotations` would spell each name anew for each call.

const attribute = (span: Span, name: string, value: unknown): void => {
  if (value !== undefined && value !== null) span.attribute(name, value)
}

/** `span`: that of the call. `undefined` without a tracer. */
export const request = (
  span: Span | undefined,
  provider: string,
  model: string,
  config: RequestConfig
): void => {
  if (span === undefined) return
  attribute(span, "gen_ai.provider.name", provider)
  attribute(span, "gen_ai.operation.name", "chat")
  attribute(span, "gen_ai.request.model", model)
  attribute(span, "gen_ai.request.temperature", config.temperature)
  attribute(span, "gen_ai.request.max_tokens", config.maxTokens)
}

export const parts = (
  span: Span | undefined,
  parts: ReadonlyArray<Response.PartEncoded | Response.StreamPartEncoded>
): void => {
  if (span === undefined) return
  for (const part of parts) {
    if (part.type === "response-metadata") {
      attribute(span, "gen_ai.response.id", part.id)
      attribute(span, "gen_ai.response.model", part.modelId)
    } else if (part.type === "finish") {
      attribute(span, "gen_ai.response.finish_reasons", [part.reason])
      attribute(span, "gen_ai.usage.input_tokens", part.usage.inputTokens.total)
      attribute(span, "gen_ai.usage.output_tokens", part.usage.outputTokens.total)
    }
  }
}
