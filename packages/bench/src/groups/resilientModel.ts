import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Response from "effect/ai/Response"
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionPlan from "effect/ExecutionPlan"
import * as Layer from "effect/Layer"
import type * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { ofEffect, type Run, timed } from "../measure.ts"
import type { Builders } from "./builders.ts"

type Part = Response.StreamPart<Record<string, never>>
type Chunk = Arr.NonEmptyReadonlyArray<Part>

const finish = Response.makePart("finish", {
  reason: "stop",
  response: undefined,
  usage: new Response.Usage({
    inputTokens: { uncached: 1, total: 1, cacheRead: undefined, cacheWrite: undefined },
    outputTokens: { total: 1, text: 1, reasoning: undefined }
  })
})
const text = Response.makePart("text", { text: "hello" })
const delta: Chunk = [Response.makePart("text-delta", { id: "1", delta: "hello " })]
const answer = Effect.succeed(new LanguageModel.GenerateTextResponse([text, finish]))

/** Each part is its own chunk, as providers send them. */
const parts = (count: number): Stream.Stream<Part> =>
  Stream.fromPull(Effect.sync(() => {
    let left = count
    const each = Effect.succeed(delta)
    const last = Effect.succeed<Chunk>([finish])
    return Effect.suspend((): Pull.Pull<Chunk> => left === 0 ? Cause.done() : --left === 0 ? last : each)
  }))

/** Answers at once. A model made by Effect would decode every part, which costs more than everything that is measured here. */
const modelOf = (count: number): LanguageModel.LanguageModel => {
  const model = {
    generateText: () => answer,
    generateObject: () => answer,
    streamText: () => parts(count),
    supportsSystemMessagesInHistory: Effect.succeed(true)
  }
  // The types of the methods depend on the options of each call.
  return model as unknown as LanguageModel.LanguageModel
}

const layerOf = (count: number) => Layer.succeed(LanguageModel.LanguageModel, modelOf(count))

const resilient = (count: number) =>
  Effect.map(
    Layer.build(
      ResilientModel.layer({
        targets: [{ name: "first", layer: layerOf(count) }, { name: "second", layer: layerOf(count) }]
      })
    ),
    Context.get(LanguageModel.LanguageModel)
  )

const options = { prompt: "hello" }

const call = Effect.gen(function*() {
  const bare = modelOf(0)
  const ours = yield* resilient(0)
  const step = { provide: layerOf(0), attempts: 3, schedule: Schedule.exponential("500 millis") }
  const plan = ExecutionPlan.make(step, step)
  return timed({
    "the model alone": ofEffect(() => bare.generateText(options)),
    "Sluice": ofEffect(() => ours.generateText(options)),
    "Effect": ofEffect(() => Effect.withExecutionPlan(LanguageModel.generateText(options), plan))
  })
}).pipe(Effect.orDie)

const part = Effect.sync(() => {
  const of = (stream: (count: number) => Effect.Effect<Stream.Stream<Part, unknown>, never, never>): Run => (count) =>
    Effect.runPromise(Effect.flatMap(stream(count), Stream.runDrain))
  return timed({
    "the stream alone": of((count) => Effect.succeed(parts(count))),
    "Sluice": of((count) =>
      Effect.scoped(Effect.map(Effect.orDie(resilient(count)), (model) => model.streamText(options)))
    ),
    "Effect": of((count) => Effect.succeed(Stream.timeout(parts(count), Duration.minutes(1))))
  })
})

export const builders: Builders<"resilientModel"> = {
  "model-call": call,
  "model-part": part
}
