import * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import * as Tool from "effect/ai/Tool"
import * as Effect from "effect/Effect"
import type { RequestConfig } from "../config.ts"
import type { Endpoint } from "../endpoint.ts"
import * as Failure from "../failure.ts"
import * as Fields from "../fields.ts"
import * as Messages from "./messages.ts"
import type { WireRequest } from "../wire.ts"

type Call = WireRequest<RequestConfig>["call"]

/** Builds the JSON of a request. Fails if the API has no form for a part of it. */
export const body = (
  { call, config, endpoint, fields, origin, streams }: WireRequest<RequestConfig>
): Effect.Effect<string, AiError.AiError> =>
  Effect.try({
    try: () =>
      JSON.stringify(Fields.apply(fields, {
        temperature: config.temperature,
        ...limit(config, endpoint),
        response_format: responseFormat(call.responseFormat),
        ...tools(call),
        ...config.body,
        // This module depends on these, so `config.body` does not override them.
        model: origin.model,
        messages: Messages.fromPrompt(call.prompt, config.system, origin.provider),
        ...streaming(config, streams)
      })),
    catch: (error) =>
      AiError.isAiErrorReason(error)
        ? Failure.make(origin, error)
        : Failure.unencodable(origin, error)
  })

/** The longest response. A caller's own field for it takes precedence, since providers refuse two of them. */
const limit = ({ body, maxTokens }: RequestConfig, { isOpenAi }: Endpoint): object =>
  body !== undefined && limits.some((name) => Object.hasOwn(body, name))
    ? {}
    : { [isOpenAi ? "max_completion_tokens" : "max_tokens"]: maxTokens }

const limits = ["max_tokens", "max_completion_tokens"]

const streaming = ({ body }: RequestConfig, streams: boolean): object => {
  if (!streams) return { stream: false, stream_options: undefined }
  const given = body?.["stream_options"]
  const others = typeof given === "object" && given !== null && !Array.isArray(given) ? given : {}
  return { stream: true, stream_options: { include_usage: true, ...others } }
}

const responseFormat = (format: LanguageModel.ProviderOptions["responseFormat"]) => {
  if (format.type === "text") return undefined
  try {
    const { jsonSchema } = toCodecOpenAI(format.schema)
    return { type: "json_schema", json_schema: { name: format.objectName, strict: true, schema: jsonSchema } }
  } catch (error) {
    throw new AiError.UnsupportedSchemaError({ description: error instanceof Error ? error.message : String(error) })
  }
}

const tools = ({ toolChoice, tools }: Call) =>
  tools.length === 0 ? {} : { tools: tools.map(definition), tool_choice: choice(toolChoice) }

const definition = (tool: Tool.Any) => {
  if (Tool.isProviderDefined(tool)) {
    throw new AiError.ToolConfigurationError({
      toolName: tool.name,
      description: "OpenAiCompatible does not support tools that the provider runs itself"
    })
  }
  return {
    type: "function",
    function: {
      name: tool.name,
      description: Tool.getDescription(tool),
      parameters: Tool.getJsonSchema(tool),
      strict: Tool.getStrictMode(tool)
    }
  }
}

// With `oneOf`, Effect has already removed the other tools.
const choice = (toolChoice: LanguageModel.ProviderOptions["toolChoice"]) => {
  if (typeof toolChoice === "string") return toolChoice
  if ("tool" in toolChoice) return { type: "function", function: { name: toolChoice.tool } }
  return toolChoice.mode === "required" ? "required" : "auto"
}
