import * as Engine from "../../src/run/Engine.ts"
import type { Prompt } from "../../src/run/Prompt.ts"
import type { Provider } from "./provider.ts"

/** The engine of a run with one target. */
export const engineFor = (
  { apiKey, url }: Pick<Provider, "apiKey" | "url">,
  changes: Partial<Engine.Options> = {},
  events: Partial<Engine.Events> = {}
) =>
  Engine.make(
    {
      targets: [{ name: "main", wire: "openai", url, model: "rules", apiKey, keySource: "the test" }],
      allowInsecureKey: false,
      headers: {},
      omit: [],
      temperature: undefined,
      maxTokens: undefined,
      concurrency: 16,
      maxAttempts: 5,
      timeoutMillis: 60_000,
      firstTokenTimeoutMillis: undefined,
      idleTimeoutMillis: 30_000,
      deadlineMillis: undefined,
      noStream: false,
      dedupeTtlMillis: 0,
      noShare: false,
      maxOutageMillis: 60_000,
      mask: (text) => text,
      ...changes
    },
    {
      attemptStarted: () => {},
      attemptFailed: () => {},
      paid: () => {},
      circuitChanged: () => {},
      unusable: () => {},
      ...events
    }
  )

/** A prompt on this line. All have the same request. */
export const prompt = (line: number, content = "The same question"): Prompt => ({
  _tag: "Prompt",
  line,
  id: undefined,
  messages: [{ role: "user", content }],
  model: undefined,
  body: undefined
})
