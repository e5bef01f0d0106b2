import * as Context from "effect/Context"
import type * as Redacted from "effect/Redacted"

type Handler = (headers: { readonly [name: string]: string | Redacted.Redacted | undefined }) => void

/** Called with the headers of a response when they arrive. `RateLimits` exports it. */
export const OnHeaders: Context.Reference<Handler | undefined> = Context.Reference<Handler | undefined>(
  "@sluice/ai/OnHeaders",
  { defaultValue: () => undefined }
)
