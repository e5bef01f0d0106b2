import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Turn from "../../testing/Turn.ts"
import * as Conversation from "./conversation.ts"
import { type Dialect, type Head, textOf, toolCallsOf, type Writer } from "./dialect.ts"
import * as Refusals from "./refusals.ts"
import type { Block, Counts } from "./speech.ts"

// The provider's side of chat completions.

const nullish = <S extends Schema.Top>(schema: S) => Schema.optional(Schema.NullOr(schema))

const Request = Schema.fromJsonString(Schema.Struct({
  model: Schema.String,
  messages: Schema.NonEmptyArray(Schema.Struct({ role: Schema.String, content: Schema.optional(Schema.Unknown) })),
  stream: nullish(Schema.Boolean),
  stream_options: nullish(Schema.Struct({ include_usage: nullish(Schema.Boolean) })),
  max_tokens: nullish(Schema.Int),
  max_completion_tokens: nullish(Schema.Int)
}))

const decode = Schema.decodeUnknownResult(Request)

const finishReasons: { readonly [Finish in Turn.Finish]: string | null } = {
  stop: "stop",
  length: "length",
  "content-filter": "content_filter",
  "tool-calls": "tool_calls",
  none: null
}

const usage = (counts: Counts) => ({
  prompt_tokens: counts.input,
  completion_tokens: counts.output,
  total_tokens: counts.input + counts.output
})

type ToolCall = Extract<Block, { readonly type: "tool-call" }>

const toolCall = (block: ToolCall, text: string) => ({
  id: block.id,
  type: "function",
  function: { name: block.name, arguments: text }
})

const common = (object: string, { created, model, n }: Head) => ({
  id: `chatcmpl-loopback-${n}`,
  object,
  created,
  model
})

export const dialect: Dialect = {
  wire: "openai",
  // OpenAI sends none, but proxies do: a comment of the event format.
  ping: ": keep-alive\n\n",
  requestId: "x-request-id",

  read: (body) =>
    Result.map(
      Result.mapError(
        decode(body),
        (): Refusals.ErrorDetails => ({ type: "invalid_request_error", message: "not a chat request" })
      ),
      (request) => ({
        conversation: Conversation.fromMessages(request.model, request.messages),
        stream: request.stream === true,
        withUsage: request.stream_options?.include_usage === true,
        maxTokens: request.max_completion_tokens ?? request.max_tokens ?? Number.POSITIVE_INFINITY
      })
    ),

  whole: (head, speech) => {
    const calls = toolCallsOf(speech)
    const content = textOf(speech, "text")
    const thoughts = textOf(speech, "reasoning")
    const message = {
      role: "assistant",
      content: content === "" && calls.length > 0 ? null : content,
      ...(thoughts === "" ? {} : { reasoning_content: thoughts }),
      ...(calls.length === 0 ? {} : { tool_calls: calls.map((call) => toolCall(call, call.text)) })
    }
    return {
      ...common("chat.completion", head),
      choices: [{ index: 0, message, logprobs: null, finish_reason: finishReasons[speech.finish] }],
      ...(speech.reported === undefined ? {} : { usage: usage(speech.reported) })
    }
  },

  writer: (head, speech): Writer => {
    const calls: ReadonlyArray<Block> = toolCallsOf(speech)
    const begun = new Set<number>()
    const event = (choices: ReadonlyArray<unknown>, more?: object): string =>
      `data: ${JSON.stringify({ ...common("chat.completion.chunk", head), choices, ...more })}\n\n`
    const delta = (delta: object): string => event([{ index: 0, delta, finish_reason: null }])
    return {
      start: () => delta({ role: "assistant", content: "" }),
      piece: (at, block, text) => {
        if (block.type !== "tool-call") {
          return delta({ [block.type === "text" ? "content" : "reasoning_content"]: text })
        }
        const index = calls.indexOf(block)
        if (begun.has(at)) return delta({ tool_calls: [{ index, function: { arguments: text } }] })
        begun.add(at)
        return delta({ tool_calls: [{ index, ...toolCall(block, text) }] })
      },
      error: (details) => `data: ${Refusals.body("openai", details)}\n\n`,
      end: (finish, done) =>
        (finish === "none" ? "" : event([{ index: 0, delta: {}, finish_reason: finishReasons[finish] }])) +
        (head.withUsage && speech.reported !== undefined ? event([], { usage: usage(speech.reported) }) : "") +
        (done ? "data: [DONE]\n\n" : "")
    }
  }
}

export const models = (names: ReadonlyArray<string>) => ({
  object: "list",
  data: names.map((id) => ({ id, object: "model", created: 0, owned_by: "loopback" }))
})
