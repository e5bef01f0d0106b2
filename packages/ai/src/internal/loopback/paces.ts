import type * as Turn from "../../testing/Turn.ts"
import type { OptionsReader } from "@sluice/core/OptionsReader"
import type { Pace } from "./speech.ts"

const longest = 2 ** 31 - 1

/** Checks a pace, and adds the defaults: all tokens at once, one token in each event. */
export const check = (checked: OptionsReader, pace: Turn.Pace | undefined): Pace => ({
  firstTokenMillis: checked.integer("pace.firstTokenMillis", pace?.firstTokenMillis ?? 0, 0, longest),
  tokenMillis: checked.integer("pace.tokenMillis", pace?.tokenMillis ?? 0, 0, longest),
  tokensPerChunk: checked.integer("pace.tokensPerChunk", pace?.tokensPerChunk ?? 1, 1, longest)
})
