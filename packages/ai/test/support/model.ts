import { Effect, Layer, Stream } from "effect"
import { LanguageModel, type Response } from "effect/ai"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"

/** The model at a URL, over the transport that we recommend, untouched by the proxies of whoever runs the tests. */
export const modelAt = (url: string, options?: Partial<OpenAiCompatible.Options>) =>
  OpenAiCompatible.layer({ url, model: "m1", ...options }).pipe(
    Layer.provide(HttpTransport.layer({ environment: {} }))
  )

export const generate = (prompt = "hi") => LanguageModel.generateText({ prompt })

export const stream = (prompt = "hi") => LanguageModel.streamText({ prompt })

/** The whole text of a streamed answer. */
export const streamedText = (prompt = "hi") => Effect.map(Stream.runCollect(stream(prompt)), textOf)

export const textOf = (parts: ReadonlyArray<Response.AnyPart>): string =>
  parts.map((part) => part.type === "text-delta" ? part.delta : "").join("")
