import { Effect, Redacted } from "effect"
import type * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import OpenAI from "openai"
import { modelAt } from "./model.ts"

type Provider = LoopbackProvider.LoopbackProvider["Service"]

/** Our model at a loopback provider. */
export const ourModel = (provider: Provider) => modelAt(provider.url, { apiKey: provider.apiKey })

/** The official client at a loopback provider. */
export const official = (provider: Provider, options?: { readonly maxRetries?: number }) =>
  new OpenAI({
    baseURL: provider.url,
    apiKey: provider.apiKey === undefined ? "none" : Redacted.value(provider.apiKey),
    ...options
  })

export const question = (content: string) => ({ model: "m1", messages: [{ role: "user" as const, content }] })

/** The text of a whole answer to the official client. */
export const officialText = (client: OpenAI, prompt: string) =>
  Effect.tryPromise({
    try: () =>
      client.chat.completions.create(question(prompt)).then(({ choices }) => choices[0]?.message.content ?? ""),
    catch: (error) => error as Error
  })

/** The text of a streamed answer to the official client. */
export const officialStream = (client: OpenAI, prompt: string) =>
  Effect.tryPromise({
    try: async () => {
      let text = ""
      for await (const chunk of await client.chat.completions.create({ ...question(prompt), stream: true })) {
        text += chunk.choices[0]?.delta.content ?? ""
      }
      return text
    },
    catch: (error) => error as Error
  })
