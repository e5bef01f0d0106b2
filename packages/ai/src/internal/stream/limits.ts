import type * as AiError from "effect/ai/AiError"
import * as Context from "effect/Context"

/**
 * The time limits of a stream. A reader that waits after the finish reason stops before they would fail a complete answer.
 * `undefined`: there are none.
 */
export interface Limits {
  /** When the current pull fails, in epoch milliseconds: as silent, or as late. */
  readonly failsAt: number
}

export const StreamLimits: Context.Reference<Limits | undefined> = Context.Reference<Limits | undefined>(
  "@sluice/ai/internal/stream/StreamLimits",
  { defaultValue: () => undefined }
)

/** The limits of an answer that is collected from a stream. Its reader keeps those of silence. */
export interface CollectLimits extends Limits {
  /** From the start of the attempt, including connecting, to the first content. */
  readonly firstTokenMillis: number
  /** The longest pause between two pieces of content. */
  readonly idleMillis: number
  /** Called once, at the first content. */
  readonly onFirst: () => void
  /** Called with the characters of content so far, whenever more arrived. */
  readonly onContent: (length: number) => void
  /** The error of a silent answer: before its first content, or after `parts` parts. */
  readonly silent: (phase: "first" | "idle", parts: number) => AiError.AiError
}

/** Provided to every attempt at a whole answer. Default `undefined`: no limits. */
export const CurrentCollectLimits: Context.Reference<CollectLimits | undefined> = Context.Reference<
  CollectLimits | undefined
>("@sluice/ai/internal/stream/CollectLimits", { defaultValue: () => undefined })
