import * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import * as Tool from "effect/ai/Tool"
import * as Effect from "effect/Effect"
import type { RequestConfig } from "./config.ts"
import * as Failure from "./failure.ts"
import * as Messages from "./messages.ts"
import type { Asked } from "./provider.ts"

/** The JSON of a request. Fails with what the wire cannot carry. */
export const body = (
  { call: options, config, endpoint, origin }: Asked<RequestConfig>
): Effect.Effect<string, AiError.AiError> =>
  Effect.try({
    try: () =>
      JSON.stringify({
        temperature: config.temperature,
        [endpoint.isOpenAi ? "max_completion_tokens" : "max_tokens"]: config.maxTokens,
        response_format: responseFormat(options.responseFormat),
        ...tools(options),
        ...config.body,
        // What follows is how this module works, and no business of `body`.
        model: origin.model,
        messages: Messages.fromPrompt(options.prompt, config.system),
        ...(origin.method === "streamText"
          ? { stream: true, stream_options: { include_usage: true } }
          : { stream: false })
      }),
    catch: (error) =>
      AiError.isAiErrorReason(error)
        ? Failure.make(origin, error)
        : Failure.unencodable(origin, error)
  })

const responseFormat = (format: LanguageModel.ProviderOptions["responseFormat"]) => {
  if (format.type === "text") return undefined
  try {
    const { jsonSchema } = toCodecOpenAI(format.schema)
    return { type: "json_schema", json_schema: { name: format.objectName, strict: true, schema: jsonSchema } }
  } catch (error) {
    throw new AiError.UnsupportedSchemaError({ description: error instanceof Error ? error.message : String(error) })
  }
}

const tools = ({ toolChoice, tools }: LanguageModel.ProviderOptions) =>
  tools.length === 0 ? {} : { tools: tools.map(definition), tool_choice: choice(toolChoice) }

const definition = (tool: Tool.Any) => {
  if (Tool.isProviderDefined(tool)) {
    throw new AiError.ToolConfigurationError({
      toolName: tool.name,
      description: "chat completions have no tools that the provider runs by itself"
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

// With `oneOf` the other tools have been left out of the request already.
const choice = (toolChoice: LanguageModel.ProviderOptions["toolChoice"]) => {
  if (typeof toolChoice === "string") return toolChoice
  if ("tool" in toolChoice) return { type: "function", function: { name: toolChoice.tool } }
  return toolChoice.mode === "required" ? "required" : "auto"
}
