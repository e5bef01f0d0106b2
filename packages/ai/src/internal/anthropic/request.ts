import * as AiError from "effect/ai/AiError"
import { toCodecAnthropic } from "effect/ai/AnthropicStructuredOutput"
import type * as LanguageModel from "effect/ai/LanguageModel"
import * as Tool from "effect/ai/Tool"
import * as Effect from "effect/Effect"
import type * as JsonSchema from "effect/JsonSchema"
import type * as Schema from "effect/Schema"
import type { RequestConfig } from "../../AnthropicMessages.ts"
import * as Failure from "../wire/failure.ts"
import type { Asked } from "../wire/provider.ts"
import * as Messages from "./messages.ts"

/**
 * The wire demands a limit. This one is a long answer (3,000 words), is within what every model gives, and costs nothing
 * where the answer is shorter.
 */
export const defaultMaxTokens = 4096

/** The JSON of a request. Fails with what the wire cannot carry. */
export const body = ({ call, config, origin }: Asked<RequestConfig>): Effect.Effect<string, AiError.AiError> =>
  Effect.try({
    try: () => {
      const { messages, system } = Messages.fromPrompt(call.prompt, config.system)
      return JSON.stringify({
        max_tokens: config.maxTokens ?? defaultMaxTokens,
        temperature: config.temperature,
        ...tools(call),
        ...config.body,
        ...object(call, config),
        // What follows is how this module works, and no business of `body`.
        model: origin.model,
        system,
        messages,
        stream: origin.method === "streamText"
      })
    },
    catch: (error) => AiError.isAiErrorReason(error) ? Failure.make(origin, error) : Failure.unencodable(origin, error)
  })

const tools = ({ toolChoice, tools }: LanguageModel.ProviderOptions) =>
  tools.length === 0 ? {} : { tools: tools.map(definition), tool_choice: choice(toolChoice) }

const definition = (tool: Tool.Any) => {
  if (Tool.isProviderDefined(tool)) {
    throw new AiError.ToolConfigurationError({
      toolName: tool.name,
      description: "this module has no tools that the provider runs by itself"
    })
  }
  return {
    name: tool.name,
    description: Tool.getDescription(tool),
    input_schema: Tool.getJsonSchema(tool),
    strict: Tool.getStrictMode(tool)
  }
}

// With `oneOf` the other tools have been left out of the request already.
const choice = (toolChoice: LanguageModel.ProviderOptions["toolChoice"]) => {
  if (typeof toolChoice === "object" && "tool" in toolChoice) return { type: "tool", name: toolChoice.tool }
  const mode = typeof toolChoice === "string" ? toolChoice : toolChoice.mode ?? "auto"
  return { type: mode === "required" ? "any" : mode }
}

/** What asks for an object of a schema, if one is asked for. */
const object = (call: LanguageModel.ProviderOptions, config: RequestConfig): object => {
  const { responseFormat } = call
  if (responseFormat.type === "text") return {}
  const schema = toJsonSchema(responseFormat.schema)
  if (config.objects === "tool") {
    if (schema["type"] !== "object") {
      throw new AiError.UnsupportedSchemaError({
        description: "the parameters of a tool are an object, not another type"
      })
    }
    const description = "Gives the answer, as the only way to give it."
    const answer = { name: responseFormat.objectName, description, input_schema: schema }
    return {
      tools: [...call.tools.map(definition), answer],
      // With tools of the caller's own the model has to be free to call those first.
      tool_choice: call.tools.length === 0 ? { type: "tool", name: answer.name } : { type: "any" }
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
