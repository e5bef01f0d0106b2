import * as Context from "effect/Context"
import type { ModelFacts } from "../kit/modelFacts.ts"
import { merge, type RequestConfig } from "./config.ts"
import type { ProviderOptions, Settings } from "./settings.ts"
import type { Wire } from "./wire.ts"

/** What a model knows of its requests. */
export const factsOf = <C extends RequestConfig>(
  wire: Wire<C>,
  options: ProviderOptions<C>,
  { endpoint }: Settings
): ModelFacts => ({
  maxOutputTokens: (context) => {
    const inner = Context.get(context, wire.config)
    return maxTokensOf(options.config === undefined ? inner : merge(options.config, inner)) ?? wire.defaultMaxTokens
  },
  // Groq has OpenAI's API, and is known by its host.
  countsCacheReads: wire.countsCacheReads && !/\bgroq\b/.test(endpoint.host)
})

/** The most tokens of an answer that a configuration asks for. */
const maxTokensOf = ({ body, maxTokens }: RequestConfig): number | undefined => {
  const own = body?.["max_completion_tokens"] ?? body?.["max_tokens"]
  return typeof own === "number" ? own : maxTokens
}
