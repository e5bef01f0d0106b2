// The AI SDK with its three packages of providers.
//
//     npx node --conditions=@sluice/source examples/front/ai-sdk.ts
import { createAnthropic } from "@ai-sdk/anthropic"
import { createOpenAI } from "@ai-sdk/openai"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import { generateText, streamText } from "ai"
import * as Front from "@sluice/ai/Front"
import * as Turn from "@sluice/ai/testing/Turn"
import { provider } from "./provider.ts"

const local = await provider([
  Turn.status(503),
  Turn.answer("one"),
  Turn.answer("two"),
  Turn.answer("three"),
  Turn.cut({ afterTokens: 2 })
])
const front = await Front.make({
  targets: [{ name: "local", url: local.url, speaks: "openai", apiKey: local.apiKey }]
})

const settings = { baseURL: "http://front/v1", apiKey: "none", fetch: front.fetch }
const compatible = createOpenAICompatible({ ...settings, name: "front" })("gpt-5-mini")
const openai = createOpenAI(settings).chat("gpt-5-mini")
const anthropic = createAnthropic(settings)("claude-haiku-4-5")

// `maxRetries: 0` in every call: the AI SDK retries without a look at `x-should-retry`.
for (const model of [compatible, openai, anthropic]) {
  const { text } = await generateText({ model, prompt: "Count", maxRetries: 0, maxOutputTokens: 100 })
  console.log(text)
}
// => one
// => two
// => three

// An error of a stream is a part of it. `textStream` leaves it out, so read it in `onError` or in `stream`.
const result = streamText({ model: openai, prompt: "Count", maxRetries: 0, onError: () => {} })
for await (const part of result.stream) {
  if (part.type === "error") console.log("the answer is lost") // => the answer is lost
}

await front.close()
await local.close()
