import { Effect, Redacted } from "effect"
import type * as Journal from "@sluice/ai/testing/Journal"
import type * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import OpenAI from "openai"
import { modelAt } from "./model.ts"

export type Provider = LoopbackProvider.LoopbackProvider["Service"]

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

/** The text that the official client reads from a whole answer. */
export const officialText = (client: OpenAI, prompt: string) =>
  Effect.tryPromise({
    try: () =>
      client.chat.completions.create(question(prompt)).then(({ choices }) => choices[0]?.message.content ?? ""),
    catch: (error) => error as Error
  })

/** The text that the official client reads from a stream. */
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

/** Waits until the journal of a provider matches. The provider sees a closed connection shortly after its client closed it. */
export const waitForJournal = (
  provider: Provider,
  matches: (entries: ReadonlyArray<Journal.Entry>) => boolean
): Effect.Effect<ReadonlyArray<Journal.Entry>> =>
  Effect.flatMap(provider.journal, (entries) =>
    matches(entries)
      ? Effect.succeed(entries)
      : Effect.andThen(Effect.sleep(5), waitForJournal(provider, matches)))
