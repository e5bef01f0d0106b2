import * as AiError from "effect/ai/AiError"
import type * as Prompt from "effect/ai/Prompt"
import * as Base64 from "effect/encoding/Base64"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Echo from "../echo.ts"
import * as File from "../file.ts"

// The conversation in the format of this API: a system prompt, and alternating turns. A part that the API has no form
// for is refused. Left out are thoughts of other models, which only those models can use, and tool calls that a
// provider ran itself.

type Cached<A> = A & { readonly cache_control?: Schema.Json }

type Text = Cached<{ readonly type: "text"; readonly text: string }>

type Source =
  | { readonly type: "base64"; readonly media_type: string; readonly data: string }
  | { readonly type: "text"; readonly media_type: "text/plain"; readonly data: string }
  | { readonly type: "url"; readonly url: string }

type Block =
  | Text
  | Cached<{ readonly type: "image"; readonly source: Source }>
  | Cached<{ readonly type: "document"; readonly source: Source; readonly title?: string | undefined }>
  | { readonly type: "thinking"; readonly thinking: string; readonly signature: string }
  | { readonly type: "redacted_thinking"; readonly data: string }
  | Cached<{ readonly type: "tool_use"; readonly id: string; readonly name: string; readonly input: unknown }>
  | Cached<
    {
      readonly type: "tool_result"
      readonly tool_use_id: string
      readonly content: string | ReadonlyArray<Block>
      readonly is_error?: true
    }
  >

interface Turn {
  readonly role: "user" | "assistant"
  readonly content: Array<Block>
}

export interface Conversation {
  readonly system: string | ReadonlyArray<Text> | undefined
  readonly messages: ReadonlyArray<{ readonly role: Turn["role"]; readonly content: string | ReadonlyArray<Block> }>
}

/** Converts a prompt, after `system`. Throws an `AiErrorReason` for a part that the API has no form for. */
export const fromPrompt = (prompt: Prompt.Prompt, system: string | undefined, host: string): Conversation => {
  const instructions: Array<Text> = system === undefined ? [] : [{ type: "text", text: system }]
  const turns: Array<Turn> = []
  for (const message of prompt.content) {
    switch (message.role) {
      case "system":
        if (turns.length > 0) throw unsupported("system messages after the first of the conversation")
        instructions.push(cached({ type: "text", text: message.content }, message.options))
        break
      case "user":
        append(turns, "user", message.content.flatMap(userBlock))
        break
      case "assistant":
        append(turns, "assistant", message.content.flatMap((part) => assistantBlock(part, host)))
        break
      case "tool":
        append(turns, "user", message.content.flatMap(toolBlock))
        break
    }
  }
  trimEnd(turns)
  return {
    system: instructions.length === 0 ? undefined : plain(instructions),
    messages: turns.map(({ content, role }) => ({ role, content: plain(content) }))
  }
}

// Consecutive messages of one role become one turn, such as tool results and the user's message after them.
const append = (turns: Array<Turn>, role: Turn["role"], blocks: ReadonlyArray<Block>): void => {
  if (blocks.length === 0) return
  const last = turns.at(-1)
  if (last?.role === role) last.content.push(...blocks)
  else turns.push({ role, content: [...blocks] })
}

/** The API refuses a last turn of the assistant that ends with white space. */
const trimEnd = (turns: ReadonlyArray<Turn>): void => {
  const last = turns.at(-1)
  const block = last?.role === "assistant" ? last.content.at(-1) : undefined
  if (last === undefined || block?.type !== "text") return
  last.content.pop()
  const text = block.text.trimEnd()
  if (text !== "") last.content.push({ ...block, text })
}

// A single text is sent as a string. Not every server accepts a list.
const plain = <B extends Block>(blocks: ReadonlyArray<B>): string | ReadonlyArray<B> => {
  const [only] = blocks
  return blocks.length === 1 && only?.type === "text" && !("cache_control" in only) ? only.text : blocks
}

const userBlock = (part: Prompt.UserMessagePart): ReadonlyArray<Block> => {
  if (part.type === "file") return [file(part)]
  return part.text === "" ? [] : [cached({ type: "text", text: part.text }, part.options)]
}

const assistantBlock = (part: Prompt.AssistantMessagePart, host: string): ReadonlyArray<Block> => {
  switch (part.type) {
    case "text":
      return part.text === "" ? [] : [cached({ type: "text", text: part.text }, part.options)]
    case "reasoning":
      return thought(part, host)
    case "tool-call": {
      // The provider ran this tool itself. The API takes neither the call nor its result.
      if (part.providerExecuted) return []
      const call = { type: "tool_use", id: toolId(part.id), name: part.name, input: part.params ?? {} } as const
      return [cached(call, part.options)]
    }
    case "file":
      throw unsupported("files in a message of the assistant")
    case "tool-result": // Only of a tool that the provider ran.
    case "tool-approval-request":
      return []
  }
}

const toolBlock = (part: Prompt.ToolMessagePart): ReadonlyArray<Block> => {
  if (part.type !== "tool-result") return []
  const result = {
    type: "tool_result",
    tool_use_id: toolId(part.id),
    content: toolContent(part),
    ...(part.isFailure ? { is_error: true } as const : {})
  } as const
  return [cached(result, part.options)]
}

const toolContent = (part: Prompt.ToolResultPart): string | ReadonlyArray<Block> => {
  if (part.modelOutput !== undefined) {
    return plain(
      part.modelOutput.map((output) => output.type === "text" ? { type: "text", text: output.text } : file(output))
    )
  }
  return typeof part.result === "string" ? part.result : JSON.stringify(part.result ?? null)
}

// Anthropic accepts letters, digits, `_` and `-`. A conversation that began with another vendor can have other ids.
const toolId = (id: string): string => id.replace(/[^A-Za-z0-9_-]/g, "_")

const file = (part: Prompt.FilePart): Block => {
  const { mediaType } = part
  const source = File.source(part)
  if (mediaType.startsWith("image/")) {
    const media_type = mediaType === "image/*" ? "image/png" : mediaType
    return cached({ type: "image", source: encoded(source, media_type) }, part.options)
  }
  if (mediaType === "application/pdf" || (mediaType === "text/plain" && "url" in source)) {
    return cached({ type: "document", source: encoded(source, mediaType), title: part.fileName }, part.options)
  }
  if (mediaType === "text/plain" && "base64" in source) {
    const data = Result.getOrThrowWith(Base64.decodeString(source.base64), () => unsupported("text that is not base64"))
    const text = { type: "text", media_type: "text/plain", data } as const
    return cached({ type: "document", source: text, title: part.fileName }, part.options)
  }
  throw unsupported(`files of type ${mediaType}`)
}

const encoded = (source: File.Source, media_type: string): Source =>
  "url" in source ? { type: "url", url: source.url } : { type: "base64", media_type, data: source.base64 }

const unsupported = (what: string) =>
  new AiError.InvalidUserInputError({ description: `Anthropic's messages API does not support ${what}` })

// ---------- Anthropic's options of a part

const Options = Schema.Struct({
  cacheControl: Schema.optional(Schema.Unknown),
  info: Schema.optional(Schema.Unknown)
})
const Info = Schema.Union([
  Schema.Struct({ type: Schema.Literal("thinking"), signature: Schema.String }),
  Schema.Struct({ type: Schema.Literal("redacted_thinking"), redactedData: Schema.String })
])
const decodeOptions = Schema.decodeUnknownOption(Options)
const decodeInfo = Schema.decodeUnknownOption(Info)
const decodeCacheControl = Schema.decodeUnknownOption(Schema.Record(Schema.String, Schema.Json))

const thought = (part: Prompt.ReasoningPart, host: string): ReadonlyArray<Block> => {
  const info = Option.flatMap(decodeOptions(part.options["anthropic"]), ({ info }) => decodeInfo(info))
  if (Option.isNone(info)) {
    // Only Anthropic signs its thoughts. DeepSeek and Kimi require theirs without a signature.
    return Echo.fieldsFor(part.options, host) === undefined
      ? []
      : [{ type: "thinking", thinking: part.text, signature: "" }]
  }
  return info.value.type === "thinking"
    ? [{ type: "thinking", thinking: part.text, signature: info.value.signature }]
    : [{ type: "redacted_thinking", data: info.value.redactedData }]
}

/** Adds the part's `cacheControl`, which marks the end of a cacheable prefix. */
const cached = <B extends object>(block: B, options: Prompt.ProviderOptions): Cached<B> => {
  const decoded = decodeOptions(options["anthropic"])
  const mark = Option.flatMap(decoded, ({ cacheControl }) => decodeCacheControl(cacheControl))
  return Option.match(mark, { onNone: () => block, onSome: (cache_control) => ({ ...block, cache_control }) })
}
