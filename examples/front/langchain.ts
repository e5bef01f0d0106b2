// LangChain JS, which calls through `openai`.
//
//     npx node --conditions=@sluice/source examples/front/langchain.ts
import { ChatOpenAI } from "@langchain/openai"
import * as Front from "@sluice/ai/Front"
import * as Turn from "@sluice/ai/testing/Turn"
import { provider } from "./provider.ts"

const main = await provider([Turn.status(503), Turn.cut({ afterTokens: 3 })])
const spare = await provider([Turn.answer("Good morning to you all.")])
const front = await Front.make({
  targets: [
    { name: "main", url: main.url, speaks: "openai", apiKey: main.apiKey },
    { name: "spare", url: spare.url, speaks: "anthropic", apiKey: spare.apiKey, model: "claude-haiku-4-5" }
  ],
  retriesHere: 0
})

// `maxRetries` is an option of LangChain, which retries six times by default.
const model = new ChatOpenAI({
  model: "gpt-5-mini",
  apiKey: "none",
  maxRetries: 0,
  configuration: { baseURL: "http://front/v1", fetch: front.fetch }
})

const { text } = await model.invoke("Greet us")
console.log(text) // => Good morning to you all.

try {
  for await (const _ of await model.stream("Greet us"));
} catch (error) {
  console.log(error instanceof Error ? error.message : error) // => The answer ended before it was complete.
}

await front.close()
await main.close()
await spare.close()
