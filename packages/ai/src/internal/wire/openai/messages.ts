import * as AiError from "effect/ai/AiError"
import * as Prompt from "effect/ai/Prompt"
import * as Echo from "../echo.ts"
import * as File from "../file.ts"
import * as Thoughts from "./thoughts.ts"

// The conversation in the format of this API. A part that the API has no form for is refused: an answer to half a
// prompt is worse than none. Left out are thoughts of another provider or without a tool call, and tool calls that a
// provider ran itself.

type Message =
  | { readonly role: "system"; readonly content: string }
  | { readonly role: "user"; readonly content: string | ReadonlyArray<Content> }
  | AssistantMessage
  | { readonly role: "tool"; readonly tool_call_id: string; readonly content: string }

interface AssistantMessage {
  readonly role: "assistant"
  readonly content: string | null
  readonly tool_calls?: ReadonlyArray<ToolCall>
  /** Thoughts, in the fields that the provider sent them in. */
  readonly [field: string]: unknown
}

type Content =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "image_url"; readonly image_url: { readonly url: string; readonly detail?: string } }
  | { readonly type: "input_audio"; readonly input_audio: { readonly data: string; readonly format: string } }
  | { readonly type: "file"; readonly file: { readonly filename: string; readonly file_data: string } }

interface ToolCall {
  readonly id: string
  readonly type: "function"
  readonly function: { readonly name: string; readonly arguments: string }
  /** Fields that the provider sent with the call. */
  readonly [field: string]: unknown
}

/**
 * Converts a prompt, after `system`. Throws an `AiErrorReason` for a part that the API has no form for.
 *
 * `host` is the provider. Its own thoughts before a tool call are sent back to it. DeepSeek, Kimi and others require them.
 */
export const fromPrompt = (
  prompt: Prompt.Prompt,
  system: string | undefined,
  host: string
): ReadonlyArray<Message> => {
  const messages: Array<Message> = system === undefined ? [] : [{ role: "system", content: system }]
  for (const message of prompt.content) {
    switch (message.role) {
      case "system":
        messages.push({ role: "system", content: message.content })
        break
      case "user":
        messages.push({ role: "user", content: userContent(message.content) })
        break
      case "assistant":
        messages.push(assistantMessage(message.content, host))
        break
      case "tool":
        messages.push(...toolMessages(message.content))
        break
    }
  }
  return messages
}

// A single text is sent as a string. Not every server accepts a list.
const userContent = (parts: ReadonlyArray<Prompt.UserMessagePart>): string | ReadonlyArray<Content> => {
  const [only] = parts
  if (parts.length === 1 && only?.type === "text") return only.text
  return parts.map((part) => part.type === "text" ? { type: "text", text: part.text } : file(part))
}

const audioFormats = new Map([["audio/wav", "wav"], ["audio/mp3", "mp3"], ["audio/mpeg", "mp3"]])

const file = (part: Prompt.FilePart): Content => {
  const { mediaType } = part
  const source = File.source(part)
  if (mediaType.startsWith("image/")) {
    const type = mediaType === "image/*" ? "image/png" : mediaType
    const url = "url" in source ? source.url : dataUrl(type, source.base64)
    return { type: "image_url", image_url: { url, ...detailOf(part) } }
  }
  if ("base64" in source) {
    const format = audioFormats.get(mediaType)
    if (format !== undefined) return { type: "input_audio", input_audio: { data: source.base64, format } }
    if (mediaType === "application/pdf") {
      const file_data = dataUrl(mediaType, source.base64)
      return { type: "file", file: { filename: part.fileName ?? "file.pdf", file_data } }
    }
  }
  throw unsupported(`files of type ${mediaType}${"url" in source ? " by URL" : ""}`)
}

/** The resolution at which an image is read, as Effect's own provider names it: `options: { openai: { imageDetail } }`. */
const detailOf = ({ options }: Prompt.FilePart): { readonly detail?: string } => {
  const own: unknown = options["openai"]
  const detail = typeof own === "object" && own !== null && "imageDetail" in own ? own.imageDetail : undefined
  return typeof detail === "string" ? { detail } : {}
}

const dataUrl = (mediaType: string, base64: string): string => `data:${mediaType};base64,${base64}`

const assistantMessage = (parts: ReadonlyArray<Prompt.AssistantMessagePart>, host: string): AssistantMessage => {
  let text = ""
  const toolCalls: Array<ToolCall> = []
  const thoughts: { [field: string]: string } = {}
  const details: Array<unknown> = []
  for (const part of parts) {
    switch (part.type) {
      case "text":
        text += part.text
        break
      case "tool-call":
        // The provider ran this tool itself. The API takes neither the call nor its result.
        if (part.providerExecuted) break
        toolCalls.push({
          ...Echo.fieldsFor(part.options, host),
          id: part.id,
          type: "function",
          function: { name: part.name, arguments: JSON.stringify(part.params ?? {}) }
        })
        break
      case "reasoning": {
        const echo = Thoughts.echoOf(part.text, part.options, host)
        if (echo?.field !== undefined) thoughts[echo.field] = (thoughts[echo.field] ?? "") + echo.text
        if (echo !== undefined) details.push(...echo.details)
        break
      }
      case "file":
        throw unsupported("files in a message of the assistant")
      case "tool-result": // Only of a tool that the provider ran.
      case "tool-approval-request":
        break
    }
  }
  // Thoughts are sent back only before a tool call. DeepSeek has refused other ones.
  if (toolCalls.length === 0) return { role: "assistant", content: text }
  return {
    role: "assistant",
    content: text === "" ? null : text,
    ...thoughts,
    ...(details.length === 0 ? {} : { reasoning_details: details }),
    tool_calls: toolCalls
  }
}

const toolMessages = (parts: ReadonlyArray<Prompt.ToolMessagePart>): ReadonlyArray<Message> =>
  parts.flatMap((part): ReadonlyArray<Message> =>
    part.type === "tool-result" ? [{ role: "tool", tool_call_id: part.id, content: toolContent(part) }] : []
  )

const toolContent = (part: Prompt.ToolResultPart): string => {
  if (part.modelOutput !== undefined) return Prompt.toolModelOutputToText(part.modelOutput)
  return typeof part.result === "string" ? part.result : JSON.stringify(part.result ?? null)
}

const unsupported = (what: string) =>
  new AiError.InvalidUserInputError({ description: `chat completions do not support ${what}` })
