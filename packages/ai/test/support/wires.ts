import { Layer } from "effect"
import type { AiError, LanguageModel, Model } from "effect/ai"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import type * as Http from "node:http"
import * as Raw from "./rawServer.ts"

type Shared = Partial<Pick<OpenAiCompatible.Options, keyof OpenAiCompatible.Options & keyof AnthropicMessages.Options>>

/** One vendor's wire, as a server speaks it. */
export interface Wire {
  readonly module: string
  readonly path: string
  readonly keyHeader: string
  readonly modelAt: (
    url: string,
    options?: Shared
  ) => Layer.Layer<LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName, InvalidOptions>
  /** What comes before the content of a stream. */
  readonly head: string
  readonly delta: (text: string) => string
  /** An event with content, as a value. */
  readonly content: (text: string) => object
  /** The beginning of a tool call, with its name and no parameters yet. */
  readonly toolCall: string
  /** Why the answer ends. */
  readonly finish: string
  /** What comes after it. */
  readonly done: string
  readonly whole: (text: string) => object
  /** An error as the wire has it, in a body or in an event. */
  readonly error: (error: { readonly type?: string; readonly code?: string; readonly message: string }) => object
  /** How it comes within a stream. */
  readonly errorEvent: (error: { readonly type?: string; readonly code?: string; readonly message: string }) => string
}

const transport = Layer.provide(HttpTransport.layer({ environment: {} }))

const openAiContent = (content: string) => ({ id: "c1", model: "m1", choices: [{ index: 0, delta: { content } }] })

export const openAi: Wire = {
  module: "OpenAiCompatible",
  path: "/v1/chat/completions",
  keyHeader: "authorization",
  modelAt: (url, options) => transport(OpenAiCompatible.layer({ url, model: "m1", ...options })),
  head: Raw.event({ id: "c1", model: "m1", choices: [{ index: 0, delta: { role: "assistant", content: "" } }] }),
  delta: (text) => Raw.event(openAiContent(text)),
  content: openAiContent,
  toolCall: Raw.event({
    choices: [{ index: 0, delta: { tool_calls: [{ index: 0, id: "t1", function: { name: "add" } }] } }]
  }),
  finish: Raw.finish(),
  done: Raw.event({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } }) + Raw.done,
  whole: (content) => Raw.completion({ role: "assistant", content }),
  error: (error) => ({ error: { param: null, code: null, type: null, ...error } }),
  errorEvent: (error) => Raw.event({ error })
}

/** One event of Anthropic's, which names its type twice. */
export const named = (data: { readonly type: string; readonly [field: string]: unknown }): string =>
  `event: ${data.type}\n${Raw.event(data)}`

const textDelta = (text: string) => ({
  type: "content_block_delta",
  index: 0,
  delta: { type: "text_delta", text }
})

export const messageStart = (message: object = {}) =>
  named({
    type: "message_start",
    message: {
      id: "msg_1",
      type: "message",
      role: "assistant",
      model: "m1",
      content: [],
      stop_reason: null,
      usage: { input_tokens: 3, output_tokens: 1 },
      ...message
    }
  })

export const messageDelta = (stop_reason: string, usage: object = { output_tokens: 4 }) =>
  named({ type: "message_delta", delta: { stop_reason, stop_sequence: null }, usage })

export const message = (content: ReadonlyArray<object>, more: object = {}) => ({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "m1",
  content,
  stop_reason: "end_turn",
  stop_sequence: null,
  usage: { input_tokens: 3, output_tokens: 4 },
  ...more
})

const anthropicError = ({ code, message, type }: { type?: string; code?: string; message: string }) => ({
  type: "error",
  error: { type: type ?? code ?? "api_error", message },
  request_id: "req_1"
})

export const anthropic: Wire = {
  module: "AnthropicMessages",
  path: "/v1/messages",
  keyHeader: "x-api-key",
  modelAt: (url, options) => transport(AnthropicMessages.layer({ url, model: "m1", ...options })),
  head: messageStart() +
    named({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } }) +
    named({ type: "ping" }),
  delta: (text) => named(textDelta(text)),
  content: textDelta,
  toolCall: named({ type: "content_block_stop", index: 0 }) +
    named({
      type: "content_block_start",
      index: 1,
      content_block: { type: "tool_use", id: "t1", name: "add", input: {} }
    }),
  finish: named({ type: "content_block_stop", index: 0 }) + messageDelta("end_turn"),
  done: named({ type: "message_stop" }),
  whole: (text) => message([{ type: "text", text }]),
  error: anthropicError,
  errorEvent: (error) => named(anthropicError(error))
}

export const wires: ReadonlyArray<Wire> = [openAi, anthropic]

export const isStreamed = (body: string): boolean => JSON.parse(body).stream === true

/** Sends the head of a stream, and what of it is there so far. */
export const begin = (response: Http.ServerResponse, text: string | Uint8Array = ""): void => {
  response.writeHead(200, { "content-type": "text/event-stream" })
  response.flushHeaders()
  if (text.length > 0) response.write(text)
}

export const httpOf = ({ reason }: AiError.AiError) => "http" in reason ? reason.http : undefined
