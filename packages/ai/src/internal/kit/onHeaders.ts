import * as Context from "effect/Context"
import type { Headers } from "../../RetryAfter.ts"

export const OnHeaders: Context.Reference<((headers: Headers) => void) | undefined> = Context.Reference<
  ((headers: Headers) => void) | undefined
>("@sluice/ai/OnHeaders", { defaultValue: () => undefined })
