import * as Context from "effect/Context"

/**
 * Called for an event of a stream that is not JSON, after which the stream goes on. `undefined`, the default: the stream fails with
 * it. A stream in which a tool call has begun fails in any case, since a tool must not run with half its input.
 */
export const OnMalformedEvent: Context.Reference<(() => void) | undefined> = Context.Reference<
  (() => void) | undefined
>("@sluice/ai/OnMalformedEvent", { defaultValue: () => undefined })
