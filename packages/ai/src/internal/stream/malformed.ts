import * as Context from "effect/Context"

/**
 * Called for an event of a stream that is not JSON. The stream then continues. `undefined`, the default: the stream fails at the
 * event. A stream in which a tool call has begun always fails, since a tool must not run with half its input.
 */
export const OnMalformedEvent: Context.Reference<(() => void) | undefined> = Context.Reference<
  (() => void) | undefined
>("@sluice/ai/OnMalformedEvent", { defaultValue: () => undefined })
