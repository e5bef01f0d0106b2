import { assert } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { AiError, LanguageModel, type Response } from "effect/ai"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"

/** The model at a URL, over `HttpTransport`. Ignores the proxy settings of the machine that runs the tests. */
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

/** An error as an `AiError`. Any other error fails the test. */
export const aiErrorOf = (error: unknown): AiError.AiError =>
  AiError.isAiError(error) ? error : assert.fail("expected an AiError")

/** The `AiError` that an effect fails with. */
export const failureOf = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<AiError.AiError, A, R> =>
  Effect.map(Effect.flip(self), aiErrorOf)
