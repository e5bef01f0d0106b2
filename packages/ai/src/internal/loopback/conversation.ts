import * as Schema from "effect/Schema"
import { digest } from "../hash.ts"

const nullish = <S extends Schema.Top>(schema: S) => Schema.optional(Schema.NullOr(schema))

/** What is read of a request for a chat completion. */
export const ChatRequest = Schema.fromJsonString(Schema.Struct({
  model: Schema.String,
  messages: Schema.NonEmptyArray(Schema.Struct({ role: Schema.String, content: Schema.optional(Schema.Unknown) })),
  stream: nullish(Schema.Boolean),
  stream_options: nullish(Schema.Struct({ include_usage: nullish(Schema.Boolean) })),
  max_tokens: nullish(Schema.Int),
  max_completion_tokens: nullish(Schema.Int)
}))

export type ChatRequest = typeof ChatRequest.Type

export interface Message {
  readonly role: string
  readonly content: string
}

export interface Conversation {
  readonly model: string
  readonly messages: ReadonlyArray<Message>
  /** The text of the last message of the user. */
  readonly prompt: string
  /** Stands for all messages, however their client wrote them: a text as such or as a list of one. */
  readonly digest: string
}

const Text = Schema.Struct({ type: Schema.Literal("text"), text: Schema.String })
const isText = Schema.is(Text)

export const fromRequest = (request: ChatRequest): Conversation => {
  const messages = request.messages.map(({ content, role }) => ({ role, content: textOf(content) }))
  return {
    model: request.model,
    messages,
    prompt: messages.findLast(({ role }) => role === "user")?.content ?? "",
    digest: digest(JSON.stringify(messages.map(({ content, role }) => [role, content])))
  }
}

const textOf = (content: unknown): string => {
  if (typeof content === "string") return content
  return Array.isArray(content) ? content.filter(isText).map(({ text }) => text).join("") : ""
}

// A word with the space before it, or the space at the end. Long words are several tokens, as with any model.
const token = /\s*\S{1,16}|\s+/gu

/** A text in pieces of the size of a token. Put together they are the text. */
export const tokens = (text: string): ReadonlyArray<string> => text.match(token) ?? []
