import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import { AiError, LanguageModel, type Response, Tool, Toolkit } from "effect/ai"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as InterruptionProbe from "@sluice/testing/InterruptionProbe"

const finish: Response.FinishPartEncoded = {
  type: "finish",
  reason: "stop",
  usage: {
    inputTokens: { uncached: 1, total: 1, cacheRead: 0, cacheWrite: 0 },
    outputTokens: { total: 1, text: 1, reasoning: 0 }
  },
  response: undefined
}
const down = AiError.make({
  module: "Test",
  method: "test",
  reason: new AiError.InternalProviderError({ description: "down" })
})

/** A model over two targets, the first of which fails, and the number of open calls. */
const subject = Effect.gen(function*() {
  let open = 0
  const during = <A, E>(work: Effect.Effect<A, E>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => void open++),
      () => Effect.andThen(InterruptionProbe.yields(4), work),
      () => Effect.sync(() => void open--)
    )
  const modelOf = (isDown: boolean) =>
    LanguageModel.make({
      generateText: () =>
        during(
          isDown
            ? Effect.fail(down)
            : Effect.succeed<Array<Response.PartEncoded>>([{ type: "text", text: "ok" }, finish])
        ),
      streamText: () =>
        Stream.unwrap(
          Effect.as(
            Effect.acquireRelease(Effect.sync(() => void open++), () => Effect.sync(() => void open--)),
            Stream.fromIterable<Response.StreamPartEncoded>([
              { type: "text-start", id: "1" },
              { type: "text-delta", id: "1", delta: "o" },
              { type: "text-delta", id: "1", delta: "k" },
              finish
            ]).pipe(
              Stream.rechunk(1),
              Stream.mapEffect((part) =>
                Effect.andThen(
                  InterruptionProbe.yields(2),
                  isDown && part.type === "text-delta" ? Effect.fail(down) : Effect.succeed(part)
                )
              )
            )
          )
        )
    })
  const target = (name: string, isDown: boolean) => ({
    name,
    layer: Layer.effect(LanguageModel.LanguageModel, modelOf(isDown)),
    backpressure: { capacity: 1 },
    breaker: { trip: CircuitBreaker.consecutive(1) }
  })
  const context = yield* Layer.build(Layer.fresh(ResilientModel.layer({
    retry: RetryPolicy.exponential({ baseDelay: "1 millis" }),
    targets: [target("A", true), target("B", false)]
  })))
  return { context, open: () => open }
}).pipe(Effect.orDie)

type Subject = Effect.Success<typeof subject>

const nothingLeft = ({ context, open }: Subject, at: string) =>
  Effect.gen(function*() {
    const { targets } = yield* ResilientModel.ResilientModel
    for (const { circuit, name, permits } of yield* targets) {
      assert.strictEqual(permits?.running, 0, `permits of ${name}, ${at}`)
      assert.strictEqual(permits?.queued, 0, `queued for ${name}, ${at}`)
      // An interruption is no evidence. Only the failure itself counts against a circuit.
      assert.isAtMost(circuit?.evidence.failures ?? 0, name === "A" ? 1 : 0, `${name}, ${at}`)
    }
    assert.strictEqual(open(), 0, `open calls, ${at}`)
  }).pipe(Effect.provideContext(context))

const Echo = Tool.make("echo", { parameters: Schema.Struct({}), success: Schema.String })
const echoing = Toolkit.make(Echo)
const toolkit = Effect.provide(echoing, echoing.toLayer({ echo: () => Effect.succeed("echo") }))

const everywhere = (run: Effect.Effect<unknown, unknown, LanguageModel.LanguageModel>) =>
  InterruptionProbe.everywhere({
    make: subject,
    run: ({ context }) => Effect.ignore(Effect.provideContext(run, context)),
    after: nothingLeft
  })

// 301 runs each take longer than the default timeout on a busy machine.
const timeoutMillis = 60_000

describe("interruption of a resilient model at every step", () => {
  it.effect("an interrupted whole answer leaves no open call or permit", () =>
    Effect.gen(function*() {
      assert.isAtLeast(yield* everywhere(LanguageModel.generateText({ prompt: "hi" })), 300)
    }), timeoutMillis)

  it.effect(
    "an interrupted whole answer with tools leaves no open call or permit",
    () =>
      Effect.gen(function*() {
        assert.isAtLeast(yield* everywhere(LanguageModel.generateText({ prompt: "hi", toolkit })), 300)
      }),
    timeoutMillis
  )

  it.effect("an interrupted stream leaves no open call or permit", () =>
    Effect.gen(function*() {
      assert.isAtLeast(yield* everywhere(Stream.runDrain(LanguageModel.streamText({ prompt: "hi" }))), 300)
    }), timeoutMillis)

  it.effect("an interrupted stream with tools leaves no open call or permit", () =>
    Effect.gen(function*() {
      const stream = Stream.runDrain(LanguageModel.streamText({ prompt: "hi", toolkit }))
      assert.isAtLeast(yield* everywhere(stream), 300)
    }), timeoutMillis)

  it.effect("an interrupted call in the queue leaves no open call or permit", () =>
    Effect.gen(function*() {
      const threeCalls = Effect.gen(function*() {
        const calls = yield* Effect.forEach([1, 2, 3], () =>
          Effect.forkChild(Effect.ignore(LanguageModel.generateText({ prompt: "hi" }))))
        yield* Effect.forEach(calls, Fiber.await)
      })
      assert.isAtLeast(yield* everywhere(threeCalls), 300)
    }), timeoutMillis)
})
