import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import { LanguageModel, Tool, Toolkit } from "effect/ai"
import { TestClock } from "effect/testing"
import * as GenAiTelemetry from "@sluice/ai/GenAiTelemetry"
import { delta, end, finish, layerOf, metadata, modelOf, start } from "./telemetry.ts"

export const options: GenAiTelemetry.Options = {
  provider: "acme",
  model: "m1",
  server: { address: "api.acme.test", port: 443 },
  target: "first"
}

/** The prompt. It must not appear in telemetry by default. */
export const secret = "the-secret-of-the-user"
/** Text of the provider. It must not appear in telemetry by default. */
export const providerText = "the-words-of-the-provider"

/** Provides a model with telemetry. */
export const instrumented = <A, E>(
  self: Effect.Effect<A, E, LanguageModel.LanguageModel>,
  model: Effect.Effect<LanguageModel.LanguageModel> = modelOf({})
): Effect.Effect<A, E> =>
  Effect.flatMap(
    model,
    (model) => Effect.provide(self, GenAiTelemetry.layer(options).pipe(Layer.provide(layerOf(model))))
  )

export const generate = LanguageModel.generateText({ prompt: secret })
export const stream = LanguageModel.streamText({ prompt: secret })
export const drain = Stream.runDrain(stream)

/** Runs the effect while the clock advances by `millis`. */
export const withClock = <A, E>(self: Effect.Effect<A, E>, millis: number) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(self)
    yield* TestClock.adjust(millis)
    return yield* Fiber.await(fiber)
  })

/** A model that streams three deltas after 600 ms, with 40 and 60 ms between them, and ends after 1,200 ms. */
export const pacedModel = modelOf({
  streamed: () =>
    Stream.fromIterable([
      { part: metadata, after: 100 },
      { part: start, after: 200 },
      { part: delta("a"), after: 300 },
      { part: delta("b"), after: 40 },
      { part: delta("c"), after: 60 },
      { part: end, after: 0 },
      { part: finish, after: 500 }
    ]).pipe(
      Stream.mapEffect(({ after, part }) => Effect.as(Effect.sleep(after), part))
    )
})

export const Weather = Tool.make("weather", {
  description: "the weather",
  parameters: Schema.Struct({ city: Schema.String }),
  success: Schema.String
})
export const tools = Toolkit.make(Weather)
/** A model that calls the tool after one second. */
export const toolCallingModel = modelOf({
  whole: () =>
    Effect.delay(
      Effect.succeed([{ type: "tool-call", id: "c1", name: "weather", params: { city: secret } }, finish]),
      1000
    )
})
/** The tool takes four seconds. */
export const handlers = tools.toLayer({
  weather: () => Effect.delay(Effect.succeed(providerText), 4000).pipe(Effect.withSpan("handler"))
})
