import { Effect, Layer, Schema, type Scope, Stream } from "effect"
import { AiError, type LanguageModel, type Model } from "effect/ai"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import type * as Http from "node:http"
import { failureOf, generate, stream, streamedText } from "./model.ts"
import * as Raw from "./rawServer.ts"

type Shared = Partial<Pick<OpenAiCompatible.Options, keyof OpenAiCompatible.Options & keyof AnthropicMessages.Options>>

/** The wire format of one vendor, as a server writes it. */
export interface Wire {
  readonly module: string
  readonly path: string
  readonly keyHeader: string
  readonly modelAt: (
    url: string,
    options?: Shared
  ) => Layer.Layer<LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName, InvalidOptions>
  /** The events before the content of a stream. */
  readonly head: string
  readonly delta: (text: string) => string
  /** The data of an event with content. */
  readonly content: (text: string) => object
  /** The start of a tool call: its name, without parameters. */
  readonly toolCall: string
  /** The event with the finish reason. */
  readonly finish: string
  /** The events after it. */
  readonly done: string
  readonly whole: (text: string) => object
  /** The JSON of an error, in a body or in an event. */
  readonly error: (error: { readonly type?: string; readonly code?: string; readonly message: string }) => object
  /** The event of an error within a stream. */
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

/** One event of Anthropic's wire, which has its type in two places. */
export const namedEvent = (data: { readonly type: string; readonly [field: string]: unknown }): string =>
  `event: ${data.type}\n${Raw.event(data)}`

/** The start of a content block of Anthropic's wire. */
export const blockStart = (index: number, content_block: object) =>
  namedEvent({ type: "content_block_start", index, content_block })

export const blockDelta = (index: number, delta: object) => namedEvent({ type: "content_block_delta", index, delta })

export const blockStop = (index: number) => namedEvent({ type: "content_block_stop", index })

const textDelta = (text: string) => ({
  type: "content_block_delta",
  index: 0,
  delta: { type: "text_delta", text }
})

export const messageStart = (message: object = {}) =>
  namedEvent({
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
  namedEvent({ type: "message_delta", delta: { stop_reason, stop_sequence: null }, usage })

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
    blockStart(0, { type: "text", text: "" }) +
    namedEvent({ type: "ping" }),
  delta: (text) => namedEvent(textDelta(text)),
  content: textDelta,
  toolCall: blockStop(0) + blockStart(1, { type: "tool_use", id: "t1", name: "add", input: {} }),
  finish: blockStop(0) + messageDelta("end_turn"),
  done: namedEvent({ type: "message_stop" }),
  whole: (text) => message([{ type: "text", text }]),
  error: anthropicError,
  errorEvent: (error) => namedEvent(anthropicError(error))
}

export const wires: ReadonlyArray<Wire> = [openAi, anthropic]

export const isStreamed = (body: string): boolean => JSON.parse(body).stream === true

/** Sends the headers of a stream and its first text, and leaves it open. */
export const begin = (response: Http.ServerResponse, text: string | Uint8Array = ""): void => {
  response.writeHead(200, { "content-type": "text/event-stream" })
  response.flushHeaders()
  if (text.length > 0) response.write(text)
}

export const httpOf = ({ reason }: AiError.AiError) => "http" in reason ? reason.http : undefined

/** Answers every request with the text, whole or streamed. */
export const answering = (wire: Wire, text = "hello"): Raw.Answer => (response, { body }) =>
  isStreamed(body)
    ? Raw.sse(response, wire.head + wire.delta(text) + wire.finish + wire.done)
    : Raw.json(response, 200, wire.whole(text))

/** Runs the effect against a server that answers "hello". Returns the server with the requests that it got. */
export const capture = <A, E>(
  wire: Wire,
  self: Effect.Effect<A, E, LanguageModel.LanguageModel>,
  options?: Shared
): Effect.Effect<Raw.RawServer, E | InvalidOptions, Scope.Scope> =>
  Effect.gen(function*() {
    const server = yield* Raw.rawServer(answering(wire))
    yield* Effect.provide(self, wire.modelAt(server.url, options))
    return server
  })

/** The JSON body of a request. The first is 0. */
export const bodyOf = (server: Raw.RawServer, n = 0) => JSON.parse(server.requests[n]?.body ?? "{}")

/** The errors of a whole answer and of a stream from a server. */
export const failuresOf = (
  modelAt: (url: string) => Layer.Layer<LanguageModel.LanguageModel, InvalidOptions>,
  answer: Raw.Answer
) =>
  Effect.gen(function*() {
    const server = yield* Raw.rawServer(answer)
    return yield* Effect.forEach(
      [Effect.asVoid(generate()), Stream.runDrain(stream())],
      (call) => failureOf(Effect.provide(call, modelAt(server.url)))
    )
  })

/** The errors of a whole answer and of a stream over a wire. */
export const failures = (wire: Wire, answer: Raw.Answer, options?: Shared) =>
  failuresOf((url) => wire.modelAt(url, options), answer)

/** The text of a stream from a server. */
export const textAt = (wire: Wire, answer: Raw.Answer) =>
  Effect.flatMap(Raw.rawServer(answer), ({ url }) => Effect.provide(streamedText(), wire.modelAt(url)))

/** The error of a stream and the parts before it. */
export const streamFailure = (wire: Wire, answer: Raw.Answer, options?: Shared) =>
  Effect.gen(function*() {
    const server = yield* Raw.rawServer(answer)
    const parts: Array<string> = []
    const error = yield* stream().pipe(
      Stream.runForEach((part) => Effect.sync(() => parts.push(part.type))),
      Effect.provide(wire.modelAt(server.url, options)),
      failureOf
    )
    return { error, parts }
  })

/** All text of an error: its JSON and its stack. */
export const errorText = (error: AiError.AiError): string =>
  JSON.stringify(Schema.encodeSync(Schema.toCodecJson(AiError.AiError))(error)) + String(error.stack)
