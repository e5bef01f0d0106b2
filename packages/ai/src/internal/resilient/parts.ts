import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as StreamError from "./streamError.ts"

/** A decoded or encoded part. The fields that are read here are the same in both. */
export interface AnyPart {
  readonly type: Response.AnyPart["type"]
  readonly text?: unknown
  readonly delta?: unknown
  readonly error?: unknown
  readonly id?: unknown
  readonly data?: unknown
}

/**
 * Whether the part is output: a consumer that has it has a partial answer. Text and reasoning are output unless empty.
 * A part that only announces a text is not.
 */
export const isOutput = (part: AnyPart): boolean => {
  switch (part.type) {
    case "text":
    case "reasoning":
      return part.text !== ""
    case "text-delta":
    case "reasoning-delta":
      return part.delta !== ""
    case "tool-params-start":
    case "tool-params-delta":
    case "tool-call":
    case "tool-result":
    case "tool-approval-request":
    case "file":
    case "source":
      return true
    default:
      return false
  }
}

/** Returns the part if it is the finish part, which completes the answer. */
export const asFinish = (part: AnyPart): Finish | undefined => isFinish(part) ? part : undefined

// By its type, a part has these fields.
export const isFinish = (part: AnyPart): part is Finish => part.type === "finish"

/** A finish part, decoded or encoded. */
export interface Finish extends AnyPart {
  readonly type: "finish"
  readonly reason: Response.FinishReason
  readonly usage: {
    readonly inputTokens: { readonly total?: number | undefined; readonly cacheRead?: number | undefined }
    readonly outputTokens: { readonly total?: number | undefined }
  }
  readonly metadata?: { readonly [name: string]: unknown } | undefined
}

export const finishOf = (content: ReadonlyArray<AnyPart>): Finish | undefined =>
  content.map(asFinish).find((finish) => finish !== undefined)

/** Removes every finish part but the first. */
export const withOneFinish = <A extends AnyPart>(content: ReadonlyArray<A>): ReadonlyArray<A> => {
  const first = content.findIndex(isFinish)
  return content.filter((part, at) => part.type !== "finish" || at === first)
}

/** Whether the whole answer is empty, though no limit or filter cut it. */
export const isEmpty = (content: ReadonlyArray<AnyPart>): boolean =>
  !content.some(isOutput) && content.every((part) => !explainsEmpty(asFinish(part)))

/** Whether the finish reason says why an answer is empty. A pause asks for the rest of the turn. */
export const explainsEmpty = (finish: Finish | undefined): boolean =>
  finish?.reason === "length" || finish?.reason === "content-filter" || finish?.reason === "pause"

/** Estimates the memory that a part takes, in bytes. */
export const sizeOf = (part: AnyPart): number => 100 + 2 * textOf(part).length + fileSize(part)

const fileSize = ({ data }: AnyPart): number =>
  typeof data === "string" ? 2 * data.length : data instanceof Uint8Array ? data.byteLength : 0

/** The text of a part that providers count as tokens. */
export const textOf = (part: AnyPart): string => {
  switch (part.type) {
    case "text":
    case "reasoning":
      return typeof part.text === "string" ? part.text : ""
    case "text-delta":
    case "reasoning-delta":
    case "tool-params-delta":
      return typeof part.delta === "string" ? part.delta : ""
    default:
      return ""
  }
}

export const failureOf = (part: AnyPart): AiError.AiError | undefined =>
  part.type === "error" ? StreamError.fromPart(part.error) : undefined
