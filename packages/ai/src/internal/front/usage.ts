import type * as Json from "../wire/json.ts"
import { Usage } from "../wire/openai/usage.ts"
import type * as Parts from "../resilient/parts.ts"

/** The token counts of embeddings. */
export const usageOf = (answer: Json.JsonObject): Parts.Finish["usage"] => {
  const usage = new Usage()
  usage.add(answer, undefined)
  return usage.encoded()
}
