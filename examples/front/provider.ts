import { Effect, Exit, type Redacted, Scope } from "effect"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import type * as Turn from "@sluice/ai/testing/Turn"

export interface Provider {
  readonly url: string
  readonly apiKey: Redacted.Redacted | undefined
  readonly close: () => Promise<void>
}

/** A provider on this machine that plays these turns, in the formats of OpenAI and Anthropic. In place of one with a real key. */
export const provider = async (turns: ReadonlyArray<Turn.Turn>): Promise<Provider> => {
  const scope = Scope.makeUnsafe()
  const { apiKey, url } = await Effect.runPromise(Scope.provide(LoopbackProvider.make({ turns }), scope))
  return { url, apiKey, close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}
