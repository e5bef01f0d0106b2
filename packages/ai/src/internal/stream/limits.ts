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
