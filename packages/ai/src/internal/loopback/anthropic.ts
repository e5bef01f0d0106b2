import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Turn from "../../testing/Turn.ts"
import * as Conversation from "./conversation.ts"
import type { Dialect, Head, Writer } from "./dialect.ts"
import * as Refusals from "./refusals.ts"
import type { Block, Counts } from "./speech.ts"

// The provider's side of Anthropic's messages API.

const nullish = <S extends Schema.Top>(schema: S) => Schema.optional(Schema.NullOr(schema))

const Request = Schema.fromJsonString(Schema.Struct({
  model: Schema.String,
  max_tokens: Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)),
  system: Schema.optional(Schema.Unknown),
  messages: Schema.NonEmptyArray(Schema.Struct({
    role: Schema.Literals(["user", "assistant", "system"]),
    content: Schema.Union([Schema.String, Schema.Array(Schema.Unknown)])
  })),
  stream: nullish(Schema.Boolean)
}))

const decode = Schema.decodeUnknownResult(Request)

const isToolResult = Schema.is(Schema.Struct({ type: Schema.Literal("tool_result") }))

/** The format has no role for tools: their results come as a message of the user. */
const roleOf = ({ content, role }: { readonly role: string; readonly content: string | ReadonlyArray<unknown> }) =>
  typeof content !== "string" && content.length > 0 && content.every((block) => isToolResult(block)) ? "tool" : role

const invalid = (message: string): Refusals.ErrorDetails => ({ type: "invalid_request_error", message })

const stopReasons: { readonly [Finish in Turn.Finish]: string | null } = {
  stop: "end_turn",
  length: "max_tokens",
  "content-filter": "refusal",
  "tool-calls": "tool_use",
  none: null
}

const common = ({ model, n }: Head) => ({
  id: `msg_loopback_${n}`,
  type: "message",
  role: "assistant",
  model
})

const usage = (counts: Counts | undefined, output: number) =>
  counts === undefined ? {} : {
    usage: {
      input_tokens: counts.input,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
      output_tokens: output
    }
  }

const signature = "bG9vcGJhY2s="

const contentOf = (block: Block) => {
  switch (block.type) {
    case "text":
      return { type: "text", text: block.text }
    case "reasoning":
      return { type: "thinking", thinking: block.text, signature }
    case "tool-call":
      return { type: "tool_use", id: block.id, name: block.name, input: JSON.parse(block.text) }
  }
}

const emptyContentOf = (block: Block) => {
  switch (block.type) {
    case "text":
      return { type: "text", text: "" }
    case "reasoning":
      return { type: "thinking", thinking: "", signature: "" }
    case "tool-call":
      return { type: "tool_use", id: block.id, name: block.name, input: {} }
  }
}

const deltaOf = (block: Block, text: string) => {
  switch (block.type) {
    case "text":
      return { type: "text_delta", text }
    case "reasoning":
      return { type: "thinking_delta", thinking: text }
    case "tool-call":
      return { type: "input_json_delta", partial_json: text }
  }
}

const event = (type: string, fields: object): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`

const ping = event("ping", {})

export const dialect: Dialect = {
  wire: "anthropic",
  ping,
  requestId: "request-id",

  read: (body, headers) => {
    if (headers["anthropic-version"] === undefined) {
      return Result.fail(invalid("anthropic-version: header is required"))
    }
    return Result.map(
      Result.mapError(decode(body), ({ message }) => invalid(message)),
      (request) => {
        const { model, system } = request
        const messages = request.messages.map((message) => ({ role: roleOf(message), content: message.content }))
        const hasSystem = system !== undefined && system !== null
        return {
          conversation: Conversation.fromMessages(
            model,
            hasSystem ? [{ role: "system", content: system }, ...messages] : messages
          ),
          stream: request.stream === true,
          withUsage: true,
          maxTokens: request.max_tokens
        }
      }
    )
  },

  whole: (head, { blocks, finish, reported }) => ({
    ...common(head),
    content: blocks.map(contentOf),
    stop_reason: stopReasons[finish],
    stop_sequence: null,
    ...usage(reported, reported?.output ?? 0)
  }),

  writer: (head, { reported }): Writer => {
    let open: { readonly index: number; readonly block: Block } | undefined
    const close = (): string => {
      if (open === undefined) return ""
      const { block, index } = open
      open = undefined
      const signed = block.type === "reasoning"
        ? event("content_block_delta", { index, delta: { type: "signature_delta", signature } })
        : ""
      return signed + event("content_block_stop", { index })
    }
    return {
      start: () =>
        event("message_start", {
          message: { ...common(head), content: [], stop_reason: null, stop_sequence: null, ...usage(reported, 1) }
        }) + ping,
      piece: (index, block, text) => {
        const isNew = open?.index !== index
        const before = isNew
          ? close() + event("content_block_start", { index, content_block: emptyContentOf(block) })
          : ""
        if (isNew) open = { index, block }
        return before + event("content_block_delta", { index, delta: deltaOf(block, text) })
      },
      error: (details) => `event: error\ndata: ${Refusals.body("anthropic", details)}\n\n`,
      end: (finish, done) =>
        close() +
        (finish === "none" && reported === undefined ? "" : event("message_delta", {
          delta: { stop_reason: stopReasons[finish], stop_sequence: null },
          ...(reported === undefined ? {} : { usage: { output_tokens: reported.output } })
        })) +
        (done ? event("message_stop", {}) : "")
    }
  }
}

export const models = (names: ReadonlyArray<string>) => ({
  data: names.map((id) => ({ type: "model", id, display_name: id, created_at: "1970-01-01T00:00:00Z" })),
  has_more: false,
  first_id: names[0] ?? null,
  last_id: names.at(-1) ?? null
})
