import * as AiError from "effect/ai/AiError"
import { toCodecAnthropic } from "effect/ai/AnthropicStructuredOutput"
import type * as LanguageModel from "effect/ai/LanguageModel"
import * as Tool from "effect/ai/Tool"
import * as Effect from "effect/Effect"
import type * as JsonSchema from "effect/JsonSchema"
import type * as Schema from "effect/Schema"
import type { RequestConfig } from "../../../AnthropicMessages.ts"
import * as Failure from "../failure.ts"
import * as Fields from "../fields.ts"
import type { WireRequest } from "../wire.ts"
import { defaultMaxTokens } from "./maxTokens.ts"
import * as Messages from "./messages.ts"

type Call = WireRequest<RequestConfig>["call"]

/** Builds the JSON of a request. Fails if the API has no form for a part of it. */
export const body = (
  { call, config, fields, origin, streams }: WireRequest<RequestConfig>
): Effect.Effect<string, AiError.AiError> =>
  Effect.try({
    try: () => {
      const { messages, system } = Messages.fromPrompt(call.prompt, config.system, origin.provider)
      return JSON.stringify(Fields.apply(fields, {
        max_tokens: config.maxTokens ?? defaultMaxTokens,
        temperature: config.temperature,
        ...tools(call),
        ...config.body,
        ...object(call, config),
        // This module depends on these, so `config.body` does not override them.
        model: origin.model,
        system,
        messages,
        stream: streams
      }))
    },
    catch: (error) => AiError.isAiErrorReason(error) ? Failure.make(origin, error) : Failure.unencodable(origin, error)
  })

const tools = ({ toolChoice, tools }: Call) =>
  tools.length === 0 ? {} : { tools: tools.map(definition), tool_choice: choice(toolChoice) }

const definition = (tool: Tool.Any) => {
  if (Tool.isProviderDefined(tool)) {
    throw new AiError.ToolConfigurationError({
      toolName: tool.name,
      description: "AnthropicMessages does not support tools that the provider runs itself"
    })
  }
  return {
    name: tool.name,
    description: Tool.getDescription(tool),
    input_schema: Tool.getJsonSchema(tool),
    strict: Tool.getStrictMode(tool)
  }
}

// With `oneOf`, Effect has already removed the other tools.
const choice = (toolChoice: LanguageModel.ProviderOptions["toolChoice"]) => {
  if (typeof toolChoice === "object" && "tool" in toolChoice) return { type: "tool", name: toolChoice.tool }
  const mode = typeof toolChoice === "string" ? toolChoice : toolChoice.mode ?? "auto"
  return { type: mode === "required" ? "any" : mode }
}

/** The fields that request an object, if the call does. */
const object = (call: Call, config: RequestConfig): object => {
  const { responseFormat } = call
  if (responseFormat.type === "text") return {}
  const schema = toJsonSchema(responseFormat.schema)
  if (config.objects === "tool") {
    if (schema["type"] !== "object") {
      throw new AiError.UnsupportedSchemaError({
        description: "the parameters of a tool must be an object"
      })
    }
    const description = "Gives the answer, as the only way to give it."
    const objectTool = { name: responseFormat.objectName, description, input_schema: schema }
    return {
      tools: [...call.tools.map(definition), objectTool],
      // The model must be able to call the caller's tools first.
      tool_choice: call.tools.length === 0 ? { type: "tool", name: objectTool.name } : { type: "any" }
    }
  }
  const given = config.body?.["output_config"]
  const others = typeof given === "object" && given !== null && !Array.isArray(given) ? given : {}
  return { output_config: { ...others, format: { type: "json_schema", schema } } }
}

const toJsonSchema = (schema: Schema.ConstraintCodec<unknown, unknown, unknown, unknown>): JsonSchema.JsonSchema => {
  try {
    return toCodecAnthropic(schema).jsonSchema
  } catch (error) {
    throw new AiError.UnsupportedSchemaError({ description: error instanceof Error ? error.message : String(error) })
  }
}
