// The client `@anthropic-ai/sdk` over two providers.
//
//     npx node --conditions=@sluice/source examples/front/anthropic.ts
import Anthropic from "@anthropic-ai/sdk"
import * as Front from "@sluice/ai/Front"
import * as Turn from "@sluice/ai/testing/Turn"
import { provider } from "./provider.ts"

const main = await provider([Turn.refusal("overloaded"), Turn.answer("Hello again.")])
const spare = await provider([Turn.answer("Good morning to you all.")])

const front = await Front.make({
  targets: [
    { name: "main", url: main.url, speaks: "anthropic", apiKey: main.apiKey },
    { name: "spare", url: spare.url, speaks: "openai", apiKey: spare.apiKey, model: "gpt-5-mini" }
  ],
  retriesHere: 0
})

// This client adds /v1 itself.
const client = new Anthropic({ baseURL: "http://front", apiKey: "none", fetch: front.fetch, maxRetries: 0 })

for (let call = 1; call <= 2; call++) {
  const { data, response } = await client.messages.create({
    model: "claude-haiku-4-5",
    max_tokens: 100,
    messages: [{ role: "user", content: "Greet us" }]
  }).withResponse()
  const [block] = data.content
  console.log(`${response.headers.get("x-sluice-target")}: ${block?.type === "text" ? block.text : ""}`)
}
// => spare: Good morning to you all.
// => main: Hello again.

await front.close()
await main.close()
await spare.close()
