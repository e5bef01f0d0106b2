// The client `openai` over two providers.
//
//     npx node --conditions=@sluice/source examples/front/openai.ts
import OpenAI from "openai"
import * as Front from "@sluice/ai/Front"
import * as Turn from "@sluice/ai/testing/Turn"
import { provider } from "./provider.ts"

const main = await provider([Turn.status(503), Turn.cut({ afterTokens: 3 })])
const spare = await provider([Turn.answer("Good morning to you all.")])

const front = await Front.make({
  targets: [
    { name: "main", url: main.url, speaks: "openai", apiKey: main.apiKey },
    // A target can have the other API: its requests and answers are translated.
    { name: "spare", url: spare.url, speaks: "anthropic", apiKey: spare.apiKey, model: "claude-haiku-4-5" }
  ],
  retriesHere: 0
})

// The only change to a program: `fetch` and `maxRetries`. The key stays with the front.
const client = new OpenAI({ baseURL: "http://front/v1", apiKey: "none", fetch: front.fetch, maxRetries: 0 })

const ask = async (): Promise<string> => {
  const stream = await client.chat.completions.create({
    model: "gpt-5-mini",
    messages: [{ role: "user", content: "Greet us" }],
    stream: true
  })
  let text = ""
  for await (const { choices } of stream) text += choices[0]?.delta.content ?? ""
  return text
}

// The first target is down. The client does not see it.
console.log(await ask()) // => Good morning to you all.

// The first target breaks its answer off. Without the front this client takes the half for the whole.
console.log(await ask().catch((error: Error) => error.message)) // => The answer ended before it was complete.

await front.close()
await main.close()
await spare.close()
