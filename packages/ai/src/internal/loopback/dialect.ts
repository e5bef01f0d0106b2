import type * as Result from "effect/Result"
import type { IncomingHttpHeaders } from "node:http"
import type * as Turn from "../../testing/Turn.ts"
import type { Conversation } from "./conversation.ts"
import type { Trouble, Wire } from "./refusals.ts"
import type { Block, Speech } from "./speech.ts"

/** A request, whatever its format. */
export interface Asked {
  readonly conversation: Conversation
  readonly stream: boolean
  /** Whether a stream is to report token counts. */
  readonly withUsage: boolean
  /** The longest answer, in tokens. */
  readonly maxTokens: number
}

/** What an answer says of itself. */
export interface Head {
  readonly n: number
  readonly model: string
  /** Epoch seconds. */
  readonly created: number
  readonly withUsage: boolean
}

/** Writes the events of one stream. */
export interface Writer {
  readonly start: () => string
  /** Some tokens of a block; its number and itself say which. */
  readonly piece: (index: number, block: Block, text: string) => string
  readonly error: (trouble: Trouble) => string
  readonly end: (finish: Turn.Finish, done: boolean) => string
}

/** One of the formats that are spoken here. */
export interface Dialect {
  readonly wire: Wire
  /** The sign of life of a stream. */
  readonly ping: string
  /** The header with which an answer names its request. */
  readonly requestId: string
  readonly read: (body: string, headers: IncomingHttpHeaders) => Result.Result<Asked, Trouble>
  readonly whole: (head: Head, speech: Speech) => unknown
  readonly writer: (head: Head, speech: Speech) => Writer
}

/** An event that no client can read. */
export const malformed = (text: string): string => `data: ${text}\n\n`

/** The text of all blocks of a kind. */
export const textOf = ({ blocks }: Speech, type: Block["type"]): string =>
  blocks.filter((block) => block.type === type).map(({ text }) => text).join("")

export const toolCallsOf = ({ blocks }: Speech) => blocks.filter((block) => block.type === "tool-call")
