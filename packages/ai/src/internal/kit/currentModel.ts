import * as Context from "effect/Context"

/** The model that a call requests. For each attempt, `ResilientModel` replaces it with the target's name for that model. */
export const CurrentModel: Context.Reference<string | undefined> = Context.Reference<string | undefined>(
  "@sluice/ai/ResilientModel/CurrentModel",
  { defaultValue: () => undefined }
)
