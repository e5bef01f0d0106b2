import * as Context from "effect/Context"

/**
 * The limits of the guard around a stream. A reader that waits after the finish reason stops before they fail a complete
 * answer. `undefined`: there is no guard.
 */
export interface Limits {
  readonly idleMillis?: number | undefined
  readonly deadlineAt?: number | undefined
}

export const StreamLimits: Context.Reference<Limits | undefined> = Context.Reference<Limits | undefined>(
  "@sluice/ai/internal/stream/StreamLimits",
  { defaultValue: () => undefined }
)
