import type * as Result from "effect/Result"
import type { IncomingHttpHeaders } from "node:http"
import type * as Turn from "../../testing/Turn.ts"
import type { Conversation } from "./conversation.ts"
import type { ErrorDetails, Wire } from "./refusals.ts"
import type { Block, Speech } from "./speech.ts"

/** A chat request, read from either format. */
export interface ChatRequest {
  readonly conversation: Conversation
  readonly stream: boolean
  /** Whether a stream has to report token counts. */
  readonly withUsage: boolean
  readonly maxTokens: number
}

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
  /** Some tokens of the block with this index. */
  readonly piece: (index: number, block: Block, text: string) => string
  readonly error: (details: ErrorDetails) => string
  readonly end: (finish: Turn.Finish, done: boolean) => string
}

/** A wire format that the provider serves. */
export interface Dialect {
  readonly wire: Wire
  /** The keep-alive of a stream. */
  readonly ping: string
  /** The response header with the id of the request. */
  readonly requestId: string
  readonly read: (body: string, headers: IncomingHttpHeaders) => Result.Result<ChatRequest, ErrorDetails>
  readonly whole: (head: Head, speech: Speech) => unknown
  readonly writer: (head: Head, speech: Speech) => Writer
}

/** An event that no client can read. */
export const malformed = (text: string): string => `data: ${text}\n\n`

export const textOf = ({ blocks }: Speech, type: Block["type"]): string =>
  blocks.filter((block) => block.type === type).map(({ text }) => text).join("")

export const toolCallsOf = ({ blocks }: Speech) => blocks.filter((block) => block.type === "tool-call")
