import type * as Prompt from "effect/ai/Prompt"
import * as Schema from "effect/Schema"
import { digest } from "../hash.ts"

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

const isText = Schema.is(Schema.Struct({ type: Schema.Literal("text"), text: Schema.String }))

export const fromMessages = (
  model: string,
  messages: ReadonlyArray<{ readonly role: string; readonly content?: unknown }>
): Conversation => make(model, messages.map(({ content, role }) => ({ role, content: textOf(content) })))

/** The same of a prompt that never becomes a request. */
export const fromPrompt = (prompt: Prompt.Prompt, model: string): Conversation => fromMessages(model, prompt.content)

const make = (model: string, messages: ReadonlyArray<Message>): Conversation => ({
  model,
  messages,
  prompt: messages.findLast(({ role }) => role === "user")?.content ?? "",
  digest: digest(JSON.stringify(messages.map(({ content, role }) => [role, content])))
})

const textOf = (content: unknown): string => {
  if (typeof content === "string") return content
  return Array.isArray(content) ? content.filter(isText).map(({ text }) => text).join("") : ""
}

// A word with the space before it, or the space at the end. Long words are several tokens, as with any model.
const token = /\s*\S{1,16}|\s+/gu

/** A text in pieces of the size of a token. Put together they are the text. */
export const tokens = (text: string): ReadonlyArray<string> => text.match(token) ?? []

/** How many tokens all messages have. */
export const countTokens = (messages: ReadonlyArray<Message>): number =>
  messages.reduce((sum, { content }) => sum + tokens(content).length, 0)
