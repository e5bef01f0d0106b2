import { createAnthropic } from "@ai-sdk/anthropic"
import { createOpenAI } from "@ai-sdk/openai"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import Anthropic from "@anthropic-ai/sdk"
import { generateText, type LanguageModel, streamText } from "ai"
import { Effect, type Scope } from "effect"
import OpenAI from "openai"
import type * as Front from "@sluice/ai/Front"
import type { Wire } from "../../src/internal/front/guard.ts"
import { served, type Service } from "./edges.ts"

// The official clients, each asked for one text.

/** Where a client sends its requests. */
export interface Place {
  /** Without a path. */
  readonly origin: string
  readonly fetch: typeof globalThis.fetch
}

/** What a program sees of a stream. */
export interface Seen {
  readonly text: string
  /** The words of the error. `undefined`: the client reported none. */
  readonly error: string | undefined
}

export interface OfficialClient {
  readonly name: string
  readonly wire: Wire
  /** `cell` goes to the provider in a header. */
  readonly ask: (place: Place, cell: string) => Promise<Seen>
}

/** The header with the name of a cell. */
export const cellHeader = "x-cell"

const model = "m"
const messages = [{ role: "user", content: "Hello" }] as const
const quiet = { apiKey: "client", maxRetries: 0, logLevel: "off" } as const

/** Reads texts until they end or throw. */
const collect = async (read: (add: (text: string) => void) => Promise<unknown>): Promise<Seen> => {
  let text = ""
  try {
    await read((more) => {
      text += more
    })
    return { text, error: undefined }
  } catch (error) {
    return { text, error: error instanceof Error ? error.message : String(error) }
  }
}

const openai = ({ fetch, origin }: Place, cell: string) =>
  new OpenAI({ ...quiet, baseURL: `${origin}/v1`, fetch, defaultHeaders: { [cellHeader]: cell } })
const anthropic = ({ fetch, origin }: Place, cell: string) =>
  new Anthropic({ ...quiet, baseURL: origin, fetch, defaultHeaders: { [cellHeader]: cell } })

type OfAiSdk = (settings: {
  readonly apiKey: string
  readonly baseURL: string
  readonly fetch: typeof globalThis.fetch
  readonly headers: Record<string, string>
}) => LanguageModel

const aiSdk = (make: OfAiSdk): OfficialClient["ask"] => ({ fetch, origin }, cell) =>
  collect(async (add) => {
    const settings = { apiKey: "client", baseURL: `${origin}/v1`, fetch, headers: { [cellHeader]: cell } }
    // The default handler prints the error.
    const result = streamText({
      model: make(settings),
      prompt: "Hello",
      maxRetries: 0,
      maxOutputTokens: 100,
      onError: () => {}
    })
    for await (const part of result.stream) {
      if (part.type === "text-delta") add(part.text)
      if (part.type === "error") throw wordsOf(part.error)
    }
  })

const aiSdkWhole = (make: OfAiSdk): OfficialClient["ask"] => ({ fetch, origin }, cell) =>
  collect(async (add) => {
    const settings = { apiKey: "client", baseURL: `${origin}/v1`, fetch, headers: { [cellHeader]: cell } }
    add((await generateText({ model: make(settings), prompt: "Hello", maxRetries: 0, maxOutputTokens: 100 })).text)
  })

/** The words of an error part, which can be the provider's object. */
const wordsOf = (error: unknown): unknown => {
  if (error instanceof Error || typeof error !== "object" || error === null) return error
  const { error: inner, message } = error as { readonly error?: unknown; readonly message?: unknown }
  return typeof message === "string" ? message : wordsOf(inner) ?? JSON.stringify(error)
}

const compatible: OfAiSdk = (settings) => createOpenAICompatible({ ...settings, name: "front" })(model)
const openaiChat: OfAiSdk = (settings) => createOpenAI(settings).chat(model)
const openaiResponses: OfAiSdk = (settings) => createOpenAI(settings).responses(model)
const anthropicMessages: OfAiSdk = (settings) => createAnthropic(settings)(model)

/** Each is asked for a stream. */
export const clients: ReadonlyArray<OfficialClient> = [
  {
    name: "openai chat create",
    wire: "chat",
    ask: (place, cell) =>
      collect(async (add) => {
        const stream = await openai(place, cell).chat.completions.create({
          model,
          messages: [...messages],
          stream: true
        })
        for await (const { choices } of stream) add(choices[0]?.delta.content ?? "")
      })
  },
  {
    name: "openai chat .stream()",
    wire: "chat",
    ask: (place, cell) =>
      collect(async (add) => {
        const stream = openai(place, cell).chat.completions.stream({ model, messages: [...messages] })
        stream.on("content", add)
        await stream.finalChatCompletion()
      })
  },
  {
    name: "openai responses create",
    wire: "responses",
    ask: (place, cell) =>
      collect(async (add) => {
        const stream = await openai(place, cell).responses.create({ model, input: "Hello", stream: true })
        for await (const event of stream) if (event.type === "response.output_text.delta") add(event.delta)
      })
  },
  {
    name: "openai responses .stream()",
    wire: "responses",
    ask: (place, cell) =>
      collect(async (add) => {
        const stream = openai(place, cell).responses.stream({ model, input: "Hello" })
        stream.on("response.output_text.delta", ({ delta }) => add(delta))
        await stream.finalResponse()
      })
  },
  {
    name: "anthropic create",
    wire: "messages",
    ask: (place, cell) =>
      collect(async (add) => {
        const stream = await anthropic(place, cell).messages
          .create({ model, max_tokens: 100, messages: [...messages], stream: true })
        for await (const event of stream) {
          if (event.type === "content_block_delta" && event.delta.type === "text_delta") add(event.delta.text)
        }
      })
  },
  {
    name: "anthropic .stream()",
    wire: "messages",
    ask: (place, cell) =>
      collect(async (add) => {
        const stream = anthropic(place, cell).messages.stream({ model, max_tokens: 100, messages: [...messages] })
        stream.on("text", add)
        await stream.finalMessage()
      })
  },
  { name: "AI SDK openai-compatible", wire: "chat", ask: aiSdk(compatible) },
  { name: "AI SDK openai chat", wire: "chat", ask: aiSdk(openaiChat) },
  { name: "AI SDK openai responses", wire: "responses", ask: aiSdk(openaiResponses) },
  { name: "AI SDK anthropic", wire: "messages", ask: aiSdk(anthropicMessages) }
]

/** Each is asked for a whole answer. */
export const wholeClients: ReadonlyArray<OfficialClient> = [
  {
    name: "openai chat",
    wire: "chat",
    ask: (place, cell) =>
      collect(async (add) => {
        const { choices } = await openai(place, cell).chat.completions.create({ model, messages: [...messages] })
        add(choices[0]?.message.content ?? "")
      })
  },
  {
    name: "openai responses",
    wire: "responses",
    ask: (place, cell) =>
      collect(async (add) => add((await openai(place, cell).responses.create({ model, input: "Hello" })).output_text))
  },
  {
    name: "anthropic",
    wire: "messages",
    ask: (place, cell) =>
      collect(async (add) => {
        const { content } = await anthropic(place, cell).messages
          .create({ model, max_tokens: 100, messages: [...messages] })
        for (const block of content) if (block.type === "text") add(block.text)
      })
  },
  { name: "AI SDK openai-compatible", wire: "chat", ask: aiSdkWhole(compatible) },
  { name: "AI SDK openai chat", wire: "chat", ask: aiSdkWhole(openaiChat) },
  { name: "AI SDK openai responses", wire: "responses", ask: aiSdkWhole(openaiResponses) },
  { name: "AI SDK anthropic", wire: "messages", ask: aiSdkWhole(anthropicMessages) }
]

/** A way of a client to the front. */
export interface Way {
  readonly name: string
  readonly place: (front: Service) => Effect.Effect<Place, never, Scope.Scope>
}

export const fetched: Way = {
  name: "fetch",
  place: ({ fetch }) => Effect.succeed({ origin: "http://front", fetch })
}

export const ways: ReadonlyArray<Way> = [
  {
    name: "node:http",
    place: (front) =>
      Effect.map(served(front), (port) => ({ origin: `http://127.0.0.1:${port}`, fetch: globalThis.fetch }))
  },
  {
    name: "the Web handler",
    place: ({ handler }) =>
      Effect.succeed({ origin: "http://front", fetch: (input, init) => handler(new Request(input, init)) })
  },
  fetched
]

/** A target with each API. */
export const both = (url: string): ReadonlyArray<Front.FrontTarget> => [
  { name: "openai", url, speaks: "openai", breaker: false },
  { name: "anthropic", url, speaks: "anthropic", breaker: false }
]
