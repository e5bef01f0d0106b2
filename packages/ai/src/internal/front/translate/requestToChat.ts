import type * as Result from "effect/Result"
import type * as Json from "../../wire/json.ts"
import { join, level, type Reader, type Refusal, refuse, type Translated, translated } from "./level.ts"

// A request of Anthropic's messages as one of chat completions.

export interface Options {
  /** The name of the model at the target. By default the one in the request. */
  readonly model?: string | undefined
  /** Whether the target is OpenAI, which names the limit `max_completion_tokens` and takes no thoughts. Other servers take `max_tokens`. */
  readonly isOpenAi?: boolean | undefined
  readonly omittable?: ReadonlyArray<string> | undefined
}

const requestLevel = level(
  "model messages max_tokens system temperature top_p stop_sequences stream tools tool_choice metadata output_config " +
    "output_format thinking service_tier",
  { omitted: "cache_control", neutral: { speed: ["standard"] } }
)

export const requestToChat = (request: unknown, options: Options): Result.Result<Translated, Refusal> =>
  translated(request, options.omittable ?? [], (request, reader) => {
    reader.object(request, "", requestLevel)
    const stream = reader.optionalBoolean(request, "stream", "")
    const limit = reader.optionalNumber(request, "max_tokens", "") ?? refuse("max_tokens", "is required")
    return {
      model: options.model ?? reader.text(request["model"], "model"),
      messages: [
        ...systemOf(request["system"], reader),
        ...reader.array(request["messages"], "messages").flatMap((message, i) =>
          messagesOf(message, `messages[${i}]`, options, reader)
        )
      ],
      [options.isOpenAi === true ? "max_completion_tokens" : "max_tokens"]: limit,
      ...toolsOf(request, reader),
      temperature: reader.optionalNumber(request, "temperature", ""),
      top_p: reader.optionalNumber(request, "top_p", ""),
      stop: stopOf(request["stop_sequences"], reader),
      user: userOf(request["metadata"], reader),
      service_tier: serviceTierOf(request["service_tier"]),
      ...effortAndFormat(request, reader),
      stream,
      // The messages API always counts tokens.
      stream_options: stream === true ? { include_usage: true } : undefined
    }
  })

const stopOf = (stop: unknown, reader: Reader): ReadonlyArray<string> | undefined => {
  const at = "stop_sequences"
  const texts = reader.array(stop ?? [], at).map((each, i) => reader.text(each, `${at}[${i}]`))
  return texts.length === 0 ? undefined : texts
}

const metadataLevel = level("user_id")

const userOf = (metadata: unknown, reader: Reader): string | undefined =>
  reader.optionalText(reader.object(metadata ?? {}, "metadata", metadataLevel), "user_id", "metadata")

const serviceTierOf = (tier: unknown): string | undefined => {
  if (tier === null || tier === undefined || tier === "auto") return undefined
  return tier === "standard_only" ? "default" : refuse("service_tier", "is auto or standard_only at this target")
}

const outputLevel = level("effort format")
const formatLevel = level("type schema")
const thinkingLevel = level("type", { omitted: "display" })

const effortAndFormat = (request: Json.JsonObject, reader: Reader): object => {
  const output = reader.object(request["output_config"] ?? {}, "output_config", outputLevel)
  const effort = reader.optionalText(output, "effort", "output_config")
  // `output_format` is the name that the beta of the field had.
  const [at, sent] = output["format"] === null || output["format"] === undefined
    ? ["output_format", request["output_format"]]
    : ["output_config.format", output["format"]]
  return {
    reasoning_effort: isThoughtless(request["thinking"], reader) ? withoutThoughts(effort) : effort,
    response_format: sent === null || sent === undefined ? undefined : formatOf(sent, at, reader)
  }
}

const formatOf = (sent: unknown, at: string, reader: Reader): object => {
  const { schema, type } = reader.object(sent, at, formatLevel)
  if (type !== "json_schema") refuse(`${at}.type`)
  // The API requires a name.
  return {
    type: "json_schema",
    json_schema: { name: "answer", schema: reader.anyObject(schema, `${at}.schema`), strict: true }
  }
}

const isThoughtless = (thinking: unknown, reader: Reader): boolean => {
  const at = "thinking"
  if (thinking === null || thinking === undefined) return false
  const { type } = reader.anyObject(thinking, at)
  if (type !== "adaptive" && type !== "disabled") {
    refuse(at, "has no equivalent in the API of this target, except the types adaptive and disabled")
  }
  reader.object(thinking, at, thinkingLevel)
  return type === "disabled"
}

const withoutThoughts = (effort: string | undefined): string =>
  effort === undefined
    ? "none"
    : refuse("output_config.effort", "and disabled thinking exclude each other at this target")

// ---------- tools

const toolLevel = level("type name description input_schema strict", {
  // These set how soon the arguments are sent, and what a cache keeps.
  omitted: "cache_control eager_input_streaming",
  neutral: { defer_loading: [false], allowed_callers: [["direct"]], input_examples: [[]] }
})
const choiceLevel = level("type name disable_parallel_tool_use")

const toolsOf = (request: Json.JsonObject, reader: Reader): object => {
  const tools = reader.array(request["tools"] ?? [], "tools").map((sent, i) => {
    const at = `tools[${i}]`
    const { type } = reader.anyObject(sent, at)
    // Every other type is a tool that the provider runs.
    if (type !== undefined && type !== null && type !== "custom") refuse(`${at}.type`)
    const tool = reader.object(sent, at, toolLevel)
    return {
      type: "function",
      function: {
        name: reader.text(tool["name"], `${at}.name`),
        description: reader.optionalText(tool, "description", at),
        parameters: reader.anyObject(tool["input_schema"], `${at}.input_schema`),
        strict: reader.optionalBoolean(tool, "strict", at)
      }
    }
  })
  return { tools: tools.length === 0 ? undefined : tools, ...toolChoiceOf(request["tool_choice"], reader) }
}

const toolChoiceOf = (value: unknown, reader: Reader): object => {
  if (value === null || value === undefined) return {}
  const at = "tool_choice"
  const choice = reader.object(value, at, choiceLevel)
  const isSingle = reader.optionalBoolean(choice, "disable_parallel_tool_use", at) === true
  return { tool_choice: choiceOf(choice, at, reader), parallel_tool_calls: isSingle ? false : undefined }
}

const choiceOf = ({ name, type }: Json.JsonObject, at: string, reader: Reader): unknown => {
  switch (type) {
    case "auto":
    case "none":
      return type
    case "any":
      return "required"
    case "tool":
      return { type: "function", function: { name: reader.text(name, `${at}.name`) } }
    default:
      return refuse(`${at}.type`)
  }
}

// ---------- conversation

type Text = { readonly type: "text"; readonly text: string }

type Message = Json.JsonObject

const messageLevel = level("role content")
const textLevel = level("type text", { omitted: "cache_control", neutral: { citations: [[]] } })

const textOf = (block: unknown, at: string, reader: Reader): Text => {
  if (reader.anyObject(block, at)["type"] !== "text") refuse(`${at}.type`)
  return { type: "text", text: reader.text(reader.object(block, at, textLevel)["text"], `${at}.text`) }
}

const textsOf = (content: unknown, at: string, reader: Reader): ReadonlyArray<Text> =>
  typeof content === "string"
    ? [{ type: "text", text: content }]
    : reader.array(content, at).map((block, i) => textOf(block, `${at}[${i}]`, reader))

/** A single text as a string. Not every server accepts a list. */
const plain = (parts: ReadonlyArray<Json.JsonObject>): unknown => {
  const [only] = parts
  return parts.length === 1 && only?.["type"] === "text" ? only["text"] : parts
}

const systemOf = (system: unknown, reader: Reader): ReadonlyArray<Message> => {
  if (system === null || system === undefined) return []
  const texts = textsOf(system, "system", reader)
  return texts.length === 0 ? [] : [{ role: "system", content: plain(texts) }]
}

const messagesOf = (value: unknown, at: string, options: Options, reader: Reader): ReadonlyArray<Message> => {
  const { content, role } = reader.object(value, at, messageLevel)
  const inside = join(at, "content")
  const blocks = typeof content === "string" ? [{ type: "text", text: content }] : reader.array(content, inside)
  switch (role) {
    case "user":
      return userMessages(blocks, inside, reader)
    case "assistant":
      return assistantMessages(blocks, inside, options, reader)
    case "system":
      return [{ role, content: plain(textsOf(content, inside, reader)) }]
    default:
      return refuse(`${at}.role`, "must be user, assistant or system")
  }
}

const userMessages = (blocks: ReadonlyArray<unknown>, at: string, reader: Reader): ReadonlyArray<Message> => {
  const results: Array<Message> = []
  const parts: Array<Json.JsonObject> = []
  blocks.forEach((block, i) => {
    const here = `${at}[${i}]`
    if (reader.anyObject(block, here)["type"] !== "tool_result") return parts.push(userPart(block, here, reader))
    // The results must follow the calls at once, in both APIs.
    if (parts.length > 0) refuse(here, "must come before other content")
    return results.push(toolMessage(block, here, reader))
  })
  return parts.length === 0 ? results : [...results, { role: "user", content: plain(parts) }]
}

const imageLevel = level("type source", { omitted: "cache_control" })
const documentLevel = level("type source title", {
  omitted: "cache_control",
  neutral: { citations: [{ enabled: false }] }
})
const base64Level = level("type media_type data")
const urlLevel = level("type url")

const userPart = (block: unknown, at: string, reader: Reader): Json.JsonObject => {
  const { type } = reader.anyObject(block, at)
  switch (type) {
    case "text": {
      const { text } = textOf(block, at, reader)
      return { type, text }
    }
    case "image": {
      const { source } = reader.object(block, at, imageLevel)
      const from = `${at}.source`
      switch (reader.anyObject(source, from)["type"]) {
        case "base64":
          return { type: "image_url", image_url: { url: dataUrl(source, from, reader) } }
        case "url": {
          const url = reader.text(reader.object(source, from, urlLevel)["url"], `${from}.url`)
          return { type: "image_url", image_url: { url } }
        }
        default:
          return refuse(`${from}.type`, "is base64 or url at this target")
      }
    }
    case "document": {
      const document = reader.object(block, at, documentLevel)
      const { source } = document
      if (reader.anyObject(source, `${at}.source`)["type"] !== "base64") {
        refuse(`${at}.source.type`, "is base64 at this target")
      }
      const filename = reader.optionalText(document, "title", at)
      return { type: "file", file: { filename, file_data: dataUrl(source, `${at}.source`, reader) } }
    }
    default:
      return refuse(`${at}.type`)
  }
}

const dataUrl = (source: unknown, at: string, reader: Reader): string => {
  const { data, media_type } = reader.object(source, at, base64Level)
  return `data:${reader.text(media_type, `${at}.media_type`)};base64,${reader.text(data, `${at}.data`)}`
}

const toolResultLevel = level("type tool_use_id content is_error", { omitted: "cache_control" })

const toolMessage = (block: unknown, at: string, reader: Reader): Message => {
  const result = reader.object(block, at, toolResultLevel)
  const texts = textsOf(result["content"] ?? "", `${at}.content`, reader)
  const failed = reader.optionalBoolean(result, "is_error", at) === true
  return {
    role: "tool",
    tool_call_id: reader.text(result["tool_use_id"], `${at}.tool_use_id`),
    content: plain(failed ? withFailure(texts) : texts)
  }
}

/** Says in words that the tool failed. Chat completions have no field for it. */
const withFailure = ([first, ...rest]: ReadonlyArray<Text>): ReadonlyArray<Text> => [
  {
    type: "text",
    text: first === undefined || first.text === "" ? "The tool failed." : `The tool failed: ${first.text}`
  },
  ...rest
]

const thoughtLevel = level("type thinking signature")
const redactedLevel = level("type data")
const toolUseLevel = level("type id name input", {
  omitted: "cache_control",
  neutral: { caller: [{ type: "direct" }] }
})

const assistantMessages = (
  blocks: ReadonlyArray<unknown>,
  at: string,
  options: Options,
  reader: Reader
): ReadonlyArray<Message> => {
  let text = ""
  let thought = ""
  const calls: Array<object> = []
  blocks.forEach((block, i) => {
    const here = `${at}[${i}]`
    const { type } = reader.anyObject(block, here)
    switch (type) {
      case "text":
        text += textOf(block, here, reader).text
        break
      case "tool_use":
        calls.push(toolCall(block, here, reader))
        break
      case "thinking": {
        const { signature, thinking } = reader.object(block, here, thoughtLevel)
        // Anthropic signs its thoughts. One without a signature is of a server with chat completions, some of which require it
        // before the tool call that it led to.
        if (signature === "" && options.isOpenAi !== true) thought += reader.text(thinking, `${here}.thinking`)
        else reader.omitted.add("thinking")
        break
      }
      case "redacted_thinking":
        reader.object(block, here, redactedLevel)
        reader.omitted.add("redacted_thinking")
        break
      default:
        refuse(`${here}.type`)
    }
  })
  if (thought !== "" && calls.length === 0) reader.omitted.add("thinking")
  if (text === "" && calls.length === 0) return []
  return [{
    role: "assistant",
    content: text === "" ? null : text,
    reasoning_content: thought === "" || calls.length === 0 ? undefined : thought,
    tool_calls: calls.length === 0 ? undefined : calls
  }]
}

const toolCall = (block: unknown, at: string, reader: Reader): object => {
  const { id, input, name } = reader.object(block, at, toolUseLevel)
  return {
    id: reader.text(id, `${at}.id`),
    type: "function",
    function: {
      name: reader.text(name, `${at}.name`),
      arguments: JSON.stringify(reader.anyObject(input, `${at}.input`))
    }
  }
}
