import type * as Prompt from "effect/ai/Prompt"
import * as Schema from "effect/Schema"
import { digest } from "../kit/hash.ts"

export interface Message {
  readonly role: string
  readonly content: string
}

export interface Conversation {
  readonly model: string
  readonly messages: ReadonlyArray<Message>
  /** The text of the last message of the user. */
  readonly prompt: string
  /** Identifies all messages, whether the client sent a text as a string or as a list of one. */
  readonly digest: string
}

const isText = Schema.is(Schema.Struct({ type: Schema.Literal("text"), text: Schema.String }))

export const fromMessages = (
  model: string,
  messages: ReadonlyArray<{ readonly role: string; readonly content?: unknown }>
): Conversation => make(model, messages.map(({ content, role }) => ({ role, content: textOf(content) })))

/** The conversation of a prompt that is not sent as a request. */
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

// A word with the space before it, or the space at the end. A long word is several tokens.
const token = /\s*\S{1,16}|\s+/gu

/** Splits a text into tokens. Joined they are the text again. */
export const tokens = (text: string): ReadonlyArray<string> => text.match(token) ?? []

export const countTokens = (messages: ReadonlyArray<Message>): number =>
  messages.reduce((sum, { content }) => sum + tokens(content).length, 0)
