import { Effect, Layer, Stream } from "effect"
import { type AiError, LanguageModel, type Response as AiResponse, Tool, Toolkit } from "effect/ai"
import { HttpClient, HttpClientResponse } from "effect/http"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"

const encoder = new TextEncoder()

/** A transport over which exactly these pieces arrive, one by one. */
const transport = (chunks: ReadonlyArray<string | Uint8Array>) =>
  Layer.succeed(
    HttpClient.HttpClient,
    HttpClient.make((request) =>
      Effect.sync(() => {
        const pieces = chunks.map((chunk) => typeof chunk === "string" ? encoder.encode(chunk) : chunk)
        const body = new ReadableStream<Uint8Array>({
          pull(controller) {
            const piece = pieces.shift()
            if (piece === undefined) controller.close()
            else controller.enqueue(piece)
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

// Tools whose parameters are whatever the model sends, and that nobody runs.
const tools = Toolkit.make(Tool.dynamic("add"), Tool.dynamic("multiply"), Tool.dynamic("now"))

/** What a consumer of the stream gets of these pieces. */
export const read = (
  chunks: ReadonlyArray<string | Uint8Array>,
  options?: Partial<OpenAiCompatible.Options>
): Effect.Effect<Read> =>
  Effect.gen(function*() {
    const parts: Array<AiResponse.AnyPart> = []
    const model = yield* LanguageModel.LanguageModel
    const toolkit = yield* tools
    const ended = yield* model.streamText({ prompt: "hi", toolkit, disableToolCallResolution: true }).pipe(
      Stream.runForEach((part) => Effect.sync(() => parts.push(part))),
      Effect.result
    )
    return {
      parts,
      text: parts.map((part) => part.type === "text-delta" ? part.delta : "").join(""),
      failure: ended._tag === "Failure" ? ended.failure : undefined
    }
  }).pipe(
    Effect.provide(
      OpenAiCompatible.layer({ url: "http://127.0.0.1/v1", model: "m1", ...options }).pipe(
        Layer.provide(transport(chunks))
      )
    ),
    Effect.provide(tools.toLayer({ add: unused, multiply: unused, now: unused })),
    Effect.orDie
  )

const unused = () => Effect.die("no tool is run here")
