import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as StreamError from "./streamError.ts"

/** What a decoded and an encoded part of a response have in common: all that is looked at here. */
export interface AnyPart {
  readonly type: Response.AnyPart["type"]
}

/**
 * Whether the part is some of the answer, so that a consumer who has seen it has half of one: a text or a reasoning that is
 * not empty, a tool's name, a file. A part that only announces another one is none.
 */
export const isOutput = (part: AnyPart): boolean => {
  switch (part.type) {
    case "text":
    case "reasoning":
      return (part as { readonly text?: string }).text !== ""
    case "text-delta":
    case "reasoning-delta":
      return (part as { readonly delta?: string }).delta !== ""
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

/** The part that says that the answer is complete, if this is it. */
export const asFinish = (part: AnyPart): Finish | undefined => part.type === "finish" ? part as Finish : undefined

/** Whether the part says that the answer is complete. */
export const isFinish = (part: AnyPart): boolean => part.type === "finish"

/** A finish part, decoded or encoded. */
export interface Finish extends AnyPart {
  readonly type: "finish"
  readonly reason: Response.FinishReason
  readonly usage: {
    readonly inputTokens: { readonly total?: number | undefined }
    readonly outputTokens: { readonly total?: number | undefined }
  }
  readonly metadata?: { readonly [name: string]: unknown } | undefined
}

/** The finish part of a whole answer. */
export const finishOf = (content: ReadonlyArray<AnyPart>): Finish | undefined =>
  content.map(asFinish).find((finish) => finish !== undefined)

/** The whole answer with no finish part but the first. */
export const withOneFinish = <A extends AnyPart>(content: ReadonlyArray<A>): ReadonlyArray<A> => {
  const first = content.findIndex(isFinish)
  return content.filter((part, at) => part.type !== "finish" || at === first)
}

/** Whether the whole answer has nothing in it, although nothing cut it short. */
export const isEmpty = (content: ReadonlyArray<AnyPart>): boolean =>
  !content.some(isOutput) && content.every((part) => (asFinish(part)?.reason ?? "stop") === "stop")

/** About how much memory a part takes, in bytes: for a bound, not for a bill. */
export const sizeOf = (part: AnyPart): number => 100 + 2 * textOf(part).length

/** What of a part is text, in the provider's count of tokens. */
export const textOf = (part: AnyPart): string => {
  switch (part.type) {
    case "text":
    case "reasoning":
      return (part as { readonly text?: string }).text ?? ""
    case "text-delta":
    case "reasoning-delta":
    case "tool-params-delta":
      return (part as { readonly delta?: string }).delta ?? ""
    default:
      return ""
  }
}

/** The error that a part of a stream stands for. */
export const failureOf = (part: AnyPart): AiError.AiError | undefined =>
  part.type === "error" ? StreamError.fromPart((part as { readonly error?: unknown }).error) : undefined
