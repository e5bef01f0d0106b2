import { Effect, Layer, Stream } from "effect"
import { type AiError, LanguageModel, type Response as AiResponse, Tool, Toolkit } from "effect/ai"
import { HttpClient, HttpClientResponse } from "effect/http"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import { unusedHandler } from "./tools.ts"

const encoder = new TextEncoder()

/** A transport that delivers exactly these chunks, one at a time. */
const transport = (chunks: ReadonlyArray<string | Uint8Array>) =>
  Layer.succeed(
    HttpClient.HttpClient,
    HttpClient.make((request) =>
      Effect.sync(() => {
        const remaining = chunks.map((chunk) => typeof chunk === "string" ? encoder.encode(chunk) : chunk)
        const body = new ReadableStream<Uint8Array>({
          pull(controller) {
            const chunk = remaining.shift()
            if (chunk === undefined) controller.close()
            else controller.enqueue(chunk)
          }
        })
        return HttpClientResponse.fromWeb(
          request,
          new Response(body, { headers: { "content-type": "text/event-stream" } })
        )
      })
    )
  )

export interface Read {
  readonly parts: ReadonlyArray<AiResponse.AnyPart>
  readonly text: string
  readonly failure: AiError.AiError | undefined
}

// Tools that take any parameters. They are never run.
const tools = Toolkit.make(Tool.dynamic("add"), Tool.dynamic("multiply"), Tool.dynamic("now"))

/** What the consumer of a stream receives if these chunks arrive. */
export const read = (
  chunks: ReadonlyArray<string | Uint8Array>,
  options?: Partial<OpenAiCompatible.Options>
): Effect.Effect<Read> =>
  Effect.gen(function*() {
    const parts: Array<AiResponse.AnyPart> = []
    const model = yield* LanguageModel.LanguageModel
    const toolkit = yield* tools
    const result = yield* model.streamText({ prompt: "hi", toolkit, disableToolCallResolution: true }).pipe(
      Stream.runForEach((part) => Effect.sync(() => parts.push(part))),
      Effect.result
    )
    return {
      parts,
      text: parts.map((part) => part.type === "text-delta" ? part.delta : "").join(""),
      failure: result._tag === "Failure" ? result.failure : undefined
    }
  }).pipe(
    Effect.provide(
      OpenAiCompatible.layer({ url: "http://127.0.0.1/v1", model: "m1", ...options }).pipe(
        Layer.provide(transport(chunks))
      )
    ),
    Effect.provide(tools.toLayer({ add: unusedHandler, multiply: unusedHandler, now: unusedHandler })),
    Effect.orDie
  )
