import * as Anthropic from "../wire/anthropic/event.ts"
import type * as Json from "../wire/json.ts"
import * as OpenAi from "../wire/openai/usage.ts"
import type * as Parts from "../resilient/parts.ts"

/** The token counts of a whole answer. */
export const usageOf = (answer: Json.JsonObject, isAnthropic: boolean): Parts.Finish["usage"] => {
  if (isAnthropic) return new Anthropic.Usage().addFrom(answer).encoded()
  const usage = new OpenAi.Usage()
  usage.add(answer, undefined)
  return usage.encoded()
}
