import type * as Result from "effect/Result"
import { defaultMaxTokens } from "../../wire/anthropic/maxTokens.ts"
import type * as Json from "../../wire/json.ts"
import * as ExactJson from "./exactJson.ts"
import { level, type Reader, type Refusal, refuse, type Translated, translated } from "./level.ts"

// A request of chat completions as one of Anthropic's messages.

export interface Options {
  /** The name of the model at the target. By default the one in the request. */
  readonly model?: string | undefined
  /** The limit of an answer for requests without one. The API requires a limit. */
  readonly maxTokens?: number | undefined
  readonly omittable?: ReadonlyArray<string> | undefined
}

const requestLevel = level(
  "model messages max_tokens max_completion_tokens temperature top_p stop stream stream_options tools tool_choice " +
    "parallel_tool_calls user safety_identifier reasoning_effort response_format service_tier",
  {
    omitted: "prompt_cache_key prompt_cache_retention prompt_cache_options",
    neutral: {
      n: [1],
      store: [false],
      logprobs: [false],
      top_logprobs: [0],
      logit_bias: [{}],
      metadata: [{}],
      modalities: [["text"]],
      frequency_penalty: [0],
      presence_penalty: [0],
      verbosity: ["medium"],
      functions: [[]]
    }
  }
)

export const requestToMessages = (request: unknown, options: Options): Result.Result<Translated, Refusal> =>
  translated(request, options.omittable ?? [], (request, reader) => {
    reader.object(request, "", requestLevel)
    reader.object(request["stream_options"] ?? {}, "stream_options", streamOptionsLevel)
    const tools = toolsOf(request["tools"], reader)
    return {
      model: options.model ?? reader.text(request["model"], "model"),
      max_tokens: reader.optionalNumber(request, "max_completion_tokens", "") ??
        reader.optionalNumber(request, "max_tokens", "") ?? options.maxTokens ?? defaultMaxTokens,
      ...conversationOf(request["messages"], reader),
      tools,
      tool_choice: toolChoiceOf(request, tools !== undefined, reader),
      temperature: temperatureOf(request, reader),
      top_p: reader.optionalNumber(request, "top_p", ""),
      stop_sequences: stopOf(request["stop"], reader),
      metadata: metadataOf(request, reader),
      service_tier: serviceTierOf(request["service_tier"]),
      ...effortAndFormat(request, reader),
      stream: reader.optionalBoolean(request, "stream", "")
    }
  })

const streamOptionsLevel = level("include_usage", { neutral: { include_obfuscation: [false] } })

const temperatureOf = (request: Json.JsonObject, reader: Reader): unknown => {
  const temperature = reader.optionalNumber(request, "temperature", "")
  return (ExactJson.numberOf(temperature) ?? 0) > 1 ? refuse("temperature", "is at most 1 at this target") : temperature
}

const stopOf = (stop: unknown, reader: Reader): ReadonlyArray<string> | undefined => {
  if (stop === null || stop === undefined) return undefined
  if (typeof stop === "string") return [stop]
  const texts = reader.array(stop, "stop").map((each, i) => reader.text(each, `stop[${i}]`))
  return texts.length === 0 ? undefined : texts
}

const metadataOf = (request: Json.JsonObject, reader: Reader): object | undefined => {
  const user = reader.optionalText(request, "user", "")
  const safety = reader.optionalText(request, "safety_identifier", "")
  if (user !== undefined && safety !== undefined && user !== safety) {
    refuse("user", "differs from safety_identifier, and the API of this target has one field for both")
  }
  const id = safety ?? user
  return id === undefined ? undefined : { user_id: id }
}

const serviceTierOf = (tier: unknown): string | undefined => {
  if (tier === null || tier === undefined || tier === "auto") return undefined
  return tier === "default" ? "standard_only" : refuse("service_tier", "is auto or default at this target")
}

const efforts = new Set<unknown>(["low", "medium", "high", "xhigh", "max"])

const effortAndFormat = (request: Json.JsonObject, reader: Reader): object => {
  const effort = request["reasoning_effort"] ?? undefined
  const format = formatOf(request["response_format"], reader)
  if (effort === "none") return { thinking: { type: "disabled" }, output_config: format && { format } }
  if (effort !== undefined && !efforts.has(effort)) {
    refuse("reasoning_effort", "is none, low, medium, high, xhigh or max at this target")
  }
  return { output_config: effort === undefined && format === undefined ? undefined : { effort, format } }
}

const formatLevel = level("type json_schema")
// The name is a label, and the API has no answers that only try to follow the schema.
const jsonSchemaLevel = level("name description schema strict")

const formatOf = (value: unknown, reader: Reader): object | undefined => {
  if (value === null || value === undefined) return undefined
  const at = "response_format"
  const { json_schema, type } = reader.object(value, at, formatLevel)
  if (type === "text") return undefined
  if (type !== "json_schema") refuse(at, "is text or json_schema at this target")
  const definition = reader.object(json_schema, `${at}.json_schema`, jsonSchemaLevel)
  const schema = reader.anyObject(definition["schema"], `${at}.json_schema.schema`)
  const description = reader.optionalText(definition, "description", `${at}.json_schema`)
  return { type: "json_schema", schema: description === undefined ? schema : { description, ...schema } }
}

// ---------- tools

const toolLevel = level("type function")
const functionLevel = level("name description parameters strict")

const toolsOf = (value: unknown, reader: Reader): ReadonlyArray<object> | undefined => {
  if (value === null || value === undefined) return undefined
  const tools = reader.array(value, "tools").map((sent, i) => {
    const at = `tools[${i}]`
    if (reader.anyObject(sent, at)["type"] !== "function") refuse(`${at}.type`, "is function at this target")
    const own = reader.object(reader.object(sent, at, toolLevel)["function"], `${at}.function`, functionLevel)
    return {
      name: reader.text(own["name"], `${at}.function.name`),
      description: reader.optionalText(own, "description", `${at}.function`),
      input_schema: reader.anyObject(
        own["parameters"] ?? { type: "object", properties: {} },
        `${at}.function.parameters`
      ),
      strict: reader.optionalBoolean(own, "strict", `${at}.function`)
    }
  })
  return tools.length === 0 ? undefined : tools
}

const choiceLevel = level("type function")
const choiceFunctionLevel = level("name")

const toolChoiceOf = (request: Json.JsonObject, hasTools: boolean, reader: Reader): object | undefined => {
  const isParallel = reader.optionalBoolean(request, "parallel_tool_calls", "") ?? true
  const choice = choiceOf(request["tool_choice"], reader)
  // Without tools there is nothing to choose. The API refuses a choice then.
  if (!hasTools && (choice === undefined || choice.type === "auto" || choice.type === "none")) return undefined
  if (isParallel || choice?.type === "none") return choice
  return { ...(choice ?? { type: "auto" }), disable_parallel_tool_use: true }
}

const choiceOf = (choice: unknown, reader: Reader): { readonly type: string; readonly name?: string } | undefined => {
  const at = "tool_choice"
  if (choice === null || choice === undefined) return undefined
  if (choice === "auto" || choice === "none") return { type: choice }
  if (choice === "required") return { type: "any" }
  const { function: own, type } = reader.object(choice, at, choiceLevel)
  if (type !== "function") refuse(`${at}.type`)
  const { name } = reader.object(own, `${at}.function`, choiceFunctionLevel)
  return { type: "tool", name: reader.text(name, `${at}.function.name`) }
}

// ---------- conversation

type Block = Json.JsonObject

interface Turn {
  readonly role: "user" | "assistant" | "system"
  readonly content: Array<Block>
}

const instructionsLevel = level("role content")
const userLevel = level("role content")
// The name of the tool, which older clients send, is in the call too.
const toolMessageLevel = level("role content tool_call_id name")
const assistantLevel = level("role content tool_calls refusal", {
  // Thoughts have no signature of Anthropic, which refuses them then. The last three only their provider can read.
  omitted:
    "reasoning_content reasoning reasoning_text thinking thought reasoning_details extra_content reasoning_opaque",
  neutral: { annotations: [[]] }
})

const conversationOf = (value: unknown, reader: Reader): { readonly system: unknown; readonly messages: unknown } => {
  const system: Array<Block> = []
  const turns: Array<Turn> = []
  reader.array(value, "messages").forEach((message, i) => {
    const at = `messages[${i}]`
    const { role } = reader.anyObject(message, at)
    switch (role) {
      case "system":
      case "developer": {
        const instructions = blocksOf(reader.object(message, at, instructionsLevel), at, reader, textBlock)
        // Newer models of Anthropic take instructions within a conversation. The provider refuses them for the others.
        if (turns.length > 0) append(turns, "system", instructions)
        else for (const block of instructions) system.push(block)
        break
      }
      case "user":
        append(turns, "user", blocksOf(reader.object(message, at, userLevel), at, reader, userBlock))
        break
      case "tool":
        append(turns, "user", [toolResult(reader.object(message, at, toolMessageLevel), at, reader)])
        break
      case "assistant":
        append(turns, "assistant", assistantBlocks(reader.object(message, at, assistantLevel), at, reader))
        break
      default:
        refuse(`${at}.role`, "is system, developer, user, assistant or tool at this target")
    }
  })
  return {
    system: system.length === 0 ? undefined : plain(system),
    messages: turns.map(({ content, role }) => ({ role, content: plain(content) }))
  }
}

// Consecutive messages of one role become one turn, such as the results of several tools. Not every server with this API takes
// two turns of one role.
const append = (turns: Array<Turn>, role: Turn["role"], blocks: ReadonlyArray<Block>): void => {
  if (blocks.length === 0) return
  const last = turns.at(-1)
  if (last?.role === role) { for (const block of blocks) last.content.push(block) }
  else turns.push({ role, content: [...blocks] })
}

/** A single text as a string. Not every server accepts a list. */
const plain = (blocks: ReadonlyArray<Block>): unknown =>
  blocks.length === 1 && blocks[0]?.["type"] === "text" ? blocks[0]["text"] : blocks

const blocksOf = (
  { content }: Json.JsonObject,
  at: string,
  reader: Reader,
  block: (part: unknown, at: string, reader: Reader) => Block
): ReadonlyArray<Block> => {
  if (typeof content === "string") return content === "" ? [] : [{ type: "text", text: content }]
  return reader.array(content, `${at}.content`).map((part, i) => block(part, `${at}.content[${i}]`, reader))
    // The API refuses an empty text.
    .filter((block) => block["text"] !== "")
}

const textLevel = level("type text", { omitted: "prompt_cache_breakpoint" })

const textBlock = (part: unknown, at: string, reader: Reader): Block => {
  if (reader.anyObject(part, at)["type"] !== "text") refuse(`${at}.type`)
  return { type: "text", text: reader.text(reader.object(part, at, textLevel)["text"], `${at}.text`) }
}

const imageLevel = level("type image_url", { omitted: "prompt_cache_breakpoint" })
const imageUrlLevel = level("url", { neutral: { detail: ["auto"] } })
const fileLevel = level("type file", { omitted: "prompt_cache_breakpoint" })
const fileDataLevel = level("file_data filename")

const userBlock = (part: unknown, at: string, reader: Reader): Block => {
  const { type } = reader.anyObject(part, at)
  switch (type) {
    case "image_url": {
      const { image_url } = reader.object(part, at, imageLevel)
      const url = reader.text(reader.object(image_url, `${at}.image_url`, imageUrlLevel)["url"], `${at}.image_url.url`)
      const data = dataOf(url)
      if (data !== undefined) return { type: "image", source: { type: "base64", ...data } }
      if (!/^https:\/\//i.test(url)) refuse(`${at}.image_url.url`, "is an https URL or base64 data at this target")
      return { type: "image", source: { type: "url", url } }
    }
    case "file": {
      const file = reader.object(reader.object(part, at, fileLevel)["file"], `${at}.file`, fileDataLevel)
      const data = dataOf(reader.text(file["file_data"], `${at}.file.file_data`))
      if (data?.media_type !== "application/pdf") {
        refuse(`${at}.file.file_data`, "is base64 data of a PDF at this target")
      }
      return {
        type: "document",
        source: { type: "base64", ...data },
        title: reader.optionalText(file, "filename", `${at}.file`)
      }
    }
    case "text":
      return textBlock(part, at, reader)
    default:
      // Names the field of the part where it has one, such as `input_audio`.
      return refuse(typeof type === "string" && Object.hasOwn(Object(part), type) ? `${at}.${type}` : `${at}.type`)
  }
}

const base64Url = /^data:([^;,]+);base64,/i

const dataOf = (url: string): { readonly media_type: string; readonly data: string } | undefined => {
  const head = base64Url.exec(url)
  return head?.[1] === undefined ? undefined : { media_type: head[1].toLowerCase(), data: url.slice(head[0].length) }
}

const toolResult = (message: Json.JsonObject, at: string, reader: Reader): Block => ({
  type: "tool_result",
  tool_use_id: toolId(reader.text(message["tool_call_id"], `${at}.tool_call_id`)),
  content: plain(blocksOf(message, at, reader, textBlock))
})

/** Anthropic accepts letters, digits, `_` and `-` in ids. Those of other providers can have more. */
const toolId = (id: string): string => id.replace(/[^A-Za-z0-9_-]/g, "_")

const assistantBlocks = (message: Json.JsonObject, at: string, reader: Reader): ReadonlyArray<Block> => {
  const refusal = reader.optionalText(message, "refusal", at)
  const calls = reader.array(message["tool_calls"] ?? [], `${at}.tool_calls`)
  return [
    ...(message["content"] === null || message["content"] === undefined
      ? []
      : blocksOf(message, at, reader, saidBlock)),
    ...(refusal === undefined || refusal === "" ? [] : [{ type: "text", text: refusal }]),
    ...calls.map((call, i) => toolUse(call, `${at}.tool_calls[${i}]`, reader))
  ]
}

const refusalLevel = level("type refusal")

/** A part of what the model said. */
const saidBlock = (part: unknown, at: string, reader: Reader): Block =>
  reader.anyObject(part, at)["type"] === "refusal"
    ? { type: "text", text: reader.text(reader.object(part, at, refusalLevel)["refusal"], `${at}.refusal`) }
    : textBlock(part, at, reader)

// The index is that in a stream, which some clients keep.
const callLevel = level("id type function index", { omitted: "extra_content" })
const callFunctionLevel = level("name arguments")

const toolUse = (sent: unknown, at: string, reader: Reader): Block => {
  const call = reader.anyObject(sent, at)
  if (call["type"] !== "function" && call["type"] !== undefined) refuse(`${at}.type`, "is function at this target")
  const { function: own, id } = reader.object(sent, at, callLevel)
  const { arguments: input, name } = reader.object(own, `${at}.function`, callFunctionLevel)
  return {
    type: "tool_use",
    id: toolId(reader.text(id, `${at}.id`)),
    name: reader.text(name, `${at}.function.name`),
    input: inputOf(reader.text(input, `${at}.function.arguments`)) ??
      refuse(`${at}.function.arguments`, "must be a JSON object at this target")
  }
}

const maxArgumentsDepth = 64

/** The arguments of a call as an object. `undefined`: they are none. No arguments are no fields. */
export const inputOf = (text: string): Json.JsonObject | undefined => {
  if (text.trim() === "") return {}
  const value = ExactJson.parse(text, maxArgumentsDepth)?.value
  return ExactJson.isObject(value) ? value : undefined
}
