import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/** Returns a function that logs a warning the first time that it is called. */
export const once = (context: Context.Context<never>, message: string): () => void => {
  let hasWarned = false
  return () => {
    if (hasWarned) return
    hasWarned = true
    Effect.runForkWith(context)(Effect.logWarning(message))
  }
}
