import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Metric, Option, Redacted, Schema, Stream, Tracer } from "effect"
import { AiError, LanguageModel, Model, Telemetry, Tool, Toolkit } from "effect/ai"
import { TestClock } from "effect/testing"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as GenAiTelemetry from "@sluice/ai/GenAiTelemetry"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { modelAt } from "./support/model.ts"
import {
  attributesOf,
  delta,
  end,
  exitOf,
  failure,
  finish,
  layerOf,
  lengthOf,
  makeTracer,
  measured,
  metadata,
  modelOf,
  named,
  parentOf,
  readable,
  start,
  usage
} from "./support/telemetry.ts"

const options: GenAiTelemetry.Options = {
  provider: "acme",
  model: "m1",
  server: { address: "api.acme.test", port: 443 },
  target: "first"
}

const secret = "the-secret-of-the-user"
const confidence = "the-words-of-the-provider"

const provided = <A, E>(
  self: Effect.Effect<A, E, LanguageModel.LanguageModel>,
  model: Effect.Effect<LanguageModel.LanguageModel> = modelOf({})
): Effect.Effect<A, E> =>
  Effect.flatMap(
    model,
    (model) => Effect.provide(self, GenAiTelemetry.layer(options).pipe(Layer.provide(layerOf(model))))
  )

const generate = LanguageModel.generateText({ prompt: secret })
const stream = LanguageModel.streamText({ prompt: secret })
const drain = Stream.runDrain(stream)

/** Runs a call while `millis` pass on the test clock. */
const timed = <A, E>(self: Effect.Effect<A, E>, millis: number) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(self)
    yield* TestClock.adjust(millis)
    return yield* Fiber.await(fiber)
  })

const labels = {
  "gen_ai.operation.name": "chat",
  "gen_ai.provider.name": "acme",
  "gen_ai.request.model": "m1",
  "gen_ai.response.model": "m1-2026",
  "server.address": "api.acme.test",
  "server.port": "443"
}

const paced = modelOf({
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

describe("the metrics of a call", () => {
  it.effect("are its duration and its tokens, under the names and with the buckets of the conventions", () =>
    Effect.gen(function*() {
      const model = modelOf({
        whole: () => Effect.delay(Effect.succeed([metadata, { type: "text", text: "hello" }, finish]), 1500)
      })
      const seen = yield* measured(timed(provided(generate, model), 1500))
      assert.deepStrictEqual(seen.map(({ id }) => id), [
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
        "gen_ai.client.token.usage"
      ])
      const [duration, input, output] = seen
      assert.deepStrictEqual(duration?.attributes, { ...labels, unit: "s" })
      assert.deepStrictEqual({ ...duration?.state, buckets: [] }, {
        buckets: [],
        count: 1,
        sum: 1.5,
        min: 1.5,
        max: 1.5
      })
      assert.deepStrictEqual(
        duration?.state.buckets.map(([boundary]) => boundary),
        [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
      )
      assert.deepStrictEqual(duration?.state.buckets.map(([, count]) => count), [
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
        1,
        1,
        1,
        1
      ])
      assert.deepStrictEqual(input?.attributes, { ...labels, "gen_ai.token.type": "input", unit: "{token}" })
      assert.strictEqual(input?.state.sum, usage.input)
      assert.deepStrictEqual(output?.attributes, { ...labels, "gen_ai.token.type": "output", unit: "{token}" })
      assert.strictEqual(output?.state.sum, usage.output)
    }))

  it.effect("of a stream are also the time to its first chunk of output and between the others", () =>
    Effect.gen(function*() {
      const seen = yield* measured(timed(provided(drain, paced), 1200))
      const [first] = named(seen, "gen_ai.client.operation.time_to_first_chunk")
      assert.strictEqual(first?.state.sum, 0.6)
      assert.deepStrictEqual(first?.attributes, { ...labels, unit: "s" })
      const [between] = named(seen, "gen_ai.client.operation.time_per_output_chunk")
      assert.deepStrictEqual({ ...between?.state, buckets: [] }, {
        buckets: [],
        count: 2,
        sum: 0.1,
        min: 0.04,
        max: 0.06
      })
      assert.deepStrictEqual(between?.state.buckets.slice(0, 4), [[0.01, 0], [0.025, 0], [0.05, 1], [0.075, 2]])
      assert.strictEqual(named(seen, "gen_ai.client.operation.duration")[0]?.state.sum, 1.2)
    }))

  it.effect("of a failure say of what kind, and nothing else of it", () =>
    Effect.gen(function*() {
      const limited = failure(new AiError.InvalidRequestError({ description: confidence }))
      const whole = yield* measured(provided(generate, modelOf({ whole: () => Effect.fail(limited) })))
      const streamed = yield* measured(provided(drain, modelOf({ streamed: () => Stream.fail(limited) })))
      for (const seen of [whole, streamed]) {
        assert.strictEqual(seen.length, 1)
        assert.strictEqual(seen[0]?.attributes["error.type"], "InvalidRequestError")
        assert.isUndefined(seen[0]?.attributes["gen_ai.response.model"])
        assert.notInclude(JSON.stringify(seen), confidence)
      }
    }))

  it.effect("name a rejection by its own tag, a defect and a foreign error by _OTHER", () =>
    Effect.gen(function*() {
      const empty = AiRejection.toAiError(new AiRejection.EmptyAnswer({ target: "first" }), "generateText")
      const types = yield* Effect.forEach(
        [Effect.fail(empty), Effect.die(confidence), Effect.interrupt],
        (whole) => Effect.map(measured(provided(generate, modelOf({ whole: () => whole }))), ([seen]) => seen)
      )
      assert.deepStrictEqual(types.map((seen) => seen?.attributes["error.type"]), [
        "EmptyAnswer",
        "_OTHER",
        "Interrupted"
      ])
    }))

  it.effect("hold the tokens of an answer that was paid for and is of no use", () =>
    Effect.gen(function*() {
      const useless = failure(
        new AiError.InvalidOutputError({ description: confidence, usage: { promptTokens: 8, completionTokens: 9 } })
      )
      const seen = yield* measured(provided(generate, modelOf({ whole: () => Effect.fail(useless) })))
      const tokens = named(seen, "gen_ai.client.token.usage")
      assert.deepStrictEqual(
        tokens.map(({ attributes, state }) => [attributes["gen_ai.token.type"], attributes["error.type"], state.sum]),
        [["input", "InvalidOutputError", 8], ["output", "InvalidOutputError", 9]]
      )
    }))

  it.effect("add up over calls, and take the attributes that the program sets", () =>
    Effect.gen(function*() {
      const seen = yield* measured(
        provided(Effect.replicateEffect(generate, 3)).pipe(
          Effect.provideService(Metric.CurrentMetricAttributes, { region: "eu" })
        )
      )
      const durations = named(seen, "gen_ai.client.operation.duration")
      assert.strictEqual(durations.length, 1)
      assert.strictEqual(durations[0]?.attributes["region"], "eu")
      assert.strictEqual(durations[0]?.state.count, 3)
    }))

  it.effect("take provider and model from the layer's own, where they are not given", () =>
    Effect.gen(function*() {
      const Base = Model.make("acme", "m2", Layer.effect(LanguageModel.LanguageModel, modelOf({})))
      const seen = yield* measured(Effect.provide(generate, GenAiTelemetry.layer().pipe(Layer.provide(Base))))
      assert.strictEqual(seen[0]?.attributes["gen_ai.provider.name"], "acme")
      assert.strictEqual(seen[0]?.attributes["gen_ai.request.model"], "m2")
      assert.notProperty(seen[0]?.attributes, "server.address")
    }))

  it.effect("keep 20 names of answering models, and know all others by one", () =>
    Effect.gen(function*() {
      let calls = 0
      const model = modelOf({
        whole: () => Effect.sync(() => [{ ...metadata, modelId: `m1-${++calls}` }, { type: "text", text: "a" }, finish])
      })
      const seen = yield* measured(provided(Effect.replicateEffect(generate, 10_000), model))
      const durations = named(seen, "gen_ai.client.operation.duration")
      assert.strictEqual(durations.length, 21)
      const others = durations.find(({ attributes }) => attributes["gen_ai.response.model"] === "_OTHER")
      assert.strictEqual(others?.state.count, 9980)
      assert.strictEqual(seen.length, 3 * 21)
    }), 30_000)

  it.effect("always know the model that was asked for, and no name that is too long to be one", () =>
    Effect.gen(function*() {
      const answering = ["x".repeat(129), ...Array.from({ length: 30 }, (_, n) => `m1-${n}`), "m1", "__proto__"]
      const model = modelOf({
        whole: () =>
          Effect.sync(() => [{ ...metadata, modelId: answering.shift() }, { type: "text", text: "a" }, finish])
      })
      const seen = yield* measured(provided(Effect.replicateEffect(generate, answering.length), model))
      const durations = named(seen, "gen_ai.client.operation.duration")
      const names = durations.map(({ attributes }) => attributes["gen_ai.response.model"])
      assert.strictEqual(names.length, 22)
      assert.include(names, "m1")
      assert.strictEqual(durations[names.indexOf("_OTHER")]?.state.count, 12)
    }))
})

describe("the span of a call", () => {
  it.effect("is one, a child of the caller's, with the attributes of the conventions", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const model = modelOf({
        whole: () => Effect.delay(Effect.succeed([metadata, { type: "text", text: confidence }, finish]), 700)
      })
      yield* timed(provided(generate, model).pipe(Effect.withSpan("caller"), Effect.provide(layer)), 700)
      const [caller, chat] = spans
      assert.deepStrictEqual(spans.map(({ name }) => name), ["caller", "chat m1"])
      assert.strictEqual(parentOf(chat), caller?.spanId)
      assert.strictEqual(chat?.kind, "client")
      assert.strictEqual(lengthOf(chat), 700)
      assert.deepStrictEqual(attributesOf(chat), {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "acme",
        "gen_ai.request.model": "m1",
        "server.address": "api.acme.test",
        "server.port": 443,
        "gen_ai.request.stream": false,
        "gen_ai.output.type": "text",
        "sluice.target": "first",
        "sluice.attempt": 1,
        "effect.ai.tool_choice": "auto",
        "effect.ai.concurrency": "unbounded",
        "gen_ai.response.id": "resp-1",
        "gen_ai.response.model": "m1-2026",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": usage.input,
        "gen_ai.usage.output_tokens": usage.output,
        "gen_ai.usage.cache_read.input_tokens": usage.cacheRead,
        "gen_ai.usage.cache_creation.input_tokens": usage.cacheWrite,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning
      })
    }))

  it.effect("has what the provider's adapter notes, and the spans beneath it", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const answer = Effect.succeed([metadata, finish]).pipe(Effect.withSpan("http"))
      const note = ({ span }: LanguageModel.ProviderOptions) =>
        Telemetry.addGenAIAnnotations(span, { request: { temperature: 0.5 } })
      const model = modelOf({
        whole: (options) => Effect.suspend(() => (note(options), answer)),
        streamed: (options) =>
          Stream.unwrap(Effect.suspend(() => (note(options), Effect.map(answer, Stream.fromIterable))))
      })
      yield* provided(Effect.andThen(generate, drain), model).pipe(Effect.provide(layer))
      assert.deepStrictEqual(spans.map(({ name }) => name), ["chat m1", "http", "chat m1", "http"])
      for (const [chat, http] of [[spans[0], spans[1]], [spans[2], spans[3]]]) {
        assert.strictEqual(parentOf(http), chat?.spanId)
        assert.strictEqual(http?.traceId, chat?.traceId)
        assert.strictEqual(attributesOf(chat)["gen_ai.request.temperature"], 0.5)
      }
    }))

  it.effect("of a stream ends with it, and is nobody's of its consumer", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const consume = Stream.runForEach(stream, () => Effect.withSpan(Effect.void, "consumer"))
      yield* timed(provided(consume, paced).pipe(Effect.withSpan("caller"), Effect.provide(layer)), 1200)
      const chat = spans.find(({ name }) => name === "chat m1")
      const caller = spans[0]
      assert.strictEqual(lengthOf(chat), 1200)
      assert.strictEqual(attributesOf(chat)["gen_ai.request.stream"], true)
      assert.strictEqual(attributesOf(chat)["gen_ai.response.time_to_first_chunk"], 0.6)
      assert.deepStrictEqual(attributesOf(chat)["gen_ai.response.finish_reasons"], ["stop"])
      const consumers = spans.filter(({ name }) => name === "consumer")
      assert.strictEqual(consumers.length, 7)
      for (const consumer of consumers) assert.strictEqual(parentOf(consumer), caller?.spanId)
    }))

  it.effect("of a stream that is left, interrupted, cut or fails says so", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const failing = modelOf({
        streamed: () =>
          Stream.concat(
            Stream.make(start, delta("a")),
            Stream.fail(failure(new AiError.InternalProviderError({ description: confidence })))
          )
      })
      const streamErrors = modelOf({
        streamed: () => Stream.make(start, { type: "error", error: { overloaded: confidence } })
      })
      const cut = modelOf({ streamed: () => Stream.make(start, delta("a")) })
      yield* Effect.all([
        provided(stream.pipe(Stream.take(3), Stream.runDrain), paced),
        Effect.timeoutOption(provided(drain, paced), 700),
        Effect.exit(provided(drain, failing)),
        provided(drain, streamErrors),
        provided(drain, cut)
      ], { concurrency: 1 }).pipe(
        Effect.provide(layer),
        (self) => timed(self, 5000)
      )
      assert.deepStrictEqual(spans.map((span) => attributesOf(span)["error.type"]), [
        "Interrupted",
        "Interrupted",
        "InternalProviderError",
        "InternalProviderError",
        "TruncatedStream"
      ])
      assert.deepStrictEqual(spans.slice(0, 2).map(lengthOf), [600, 700])
      assert.isTrue(spans.every((span) => span.status._tag === "Ended"))
      assert.notInclude(readable(spans), confidence)
    }))

  it.effect("is there only where a tracer is, and not where tracing is off", () =>
    Effect.gen(function*() {
      let made = 0
      const model = modelOf({
        whole: ({ span }) => Effect.sync(() => (made += span.name === "LanguageModel.generateText" ? 1 : 0, [finish]))
      })
      // Whatever tracer the tests themselves run under.
      yield* provided(generate, model).pipe(Effect.provideService(Tracer.Tracer, Tracer.Tracer.defaultValue()))
      const { layer, spans } = makeTracer()
      yield* provided(generate, model).pipe(Effect.withTracerEnabled(false), Effect.provide(layer))
      assert.deepStrictEqual([made, spans.length], [2, 0])
    }))

  it.effect("does not change what a call gives", () =>
    Effect.gen(function*() {
      const { layer } = makeTracer()
      const bare = yield* modelOf({})
      const run = Effect.all([generate, Stream.runCollect(stream), LanguageModel.generateText({ prompt: "a" })])
      const expected = yield* Effect.provide(run, layerOf(bare))
      assert.deepStrictEqual(yield* provided(run), expected)
      assert.deepStrictEqual(yield* provided(run).pipe(Effect.provide(layer)), expected)
      const error = failure(new AiError.RateLimitError({}))
      const failed = yield* Effect.exit(
        provided(generate, modelOf({ whole: () => Effect.fail(error) })).pipe(Effect.provide(layer))
      )
      assert.isTrue(
        Exit.isFailure(failed) && failed.cause.reasons[0]?._tag === "Fail" && failed.cause.reasons[0].error === error
      )
    }))
})

const Weather = Tool.make("weather", {
  description: "the weather",
  parameters: Schema.Struct({ city: Schema.String }),
  success: Schema.String
})
const tools = Toolkit.make(Weather)
const callsTool = modelOf({
  whole: () =>
    Effect.delay(
      Effect.succeed([{ type: "tool-call", id: "c1", name: "weather", params: { city: secret } }, finish]),
      1000
    )
})
const Handlers = tools.toLayer({
  weather: () => Effect.delay(Effect.succeed(confidence), 4000).pipe(Effect.withSpan("handler"))
})

describe("a call with tools", () => {
  it.effect("ends when the model has answered, and shows nothing of what the tools are given", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const call = LanguageModel.generateText({ prompt: secret, toolkit: tools }).pipe(Effect.provide(Handlers))
      const seen = yield* measured(timed(provided(call, callsTool).pipe(Effect.provide(layer)), 5000))
      assert.strictEqual(named(seen, "gen_ai.client.operation.duration")[0]?.state.sum, 1)
      const [chat] = spans
      assert.strictEqual(lengthOf(chat), 1000)
      assert.strictEqual(attributesOf(chat)["gen_ai.usage.output_tokens"], usage.output)
      assert.isTrue(spans.some(({ name }) => name === "handler"))
      assert.notInclude(readable(spans), secret)
      assert.notInclude(readable(spans), confidence)
    }))

  it.effect("is no failure of the model if a tool fails", () =>
    Effect.gen(function*() {
      const broken = tools.toLayer({ weather: () => Effect.die(confidence) })
      const call = LanguageModel.generateText({ prompt: "a", toolkit: tools }).pipe(Effect.provide(broken))
      const seen = yield* measured(timed(provided(call, callsTool), 1000))
      assert.notProperty(seen[0]?.attributes, "error.type")
    }))

  it.effect("counts the calls that its tools make", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const asking = tools.toLayer({ weather: () => Effect.map(Effect.orDie(provided(generate)), ({ text }) => text) })
      const call = LanguageModel.generateText({ prompt: "a", toolkit: tools }).pipe(Effect.provide(asking))
      const seen = yield* measured(timed(provided(call, callsTool).pipe(Effect.provide(layer)), 1000))
      assert.strictEqual(spans.filter(({ name }) => name === "chat m1").length, 2)
      const counts = named(seen, "gen_ai.client.operation.duration").map(({ state }) => state.count)
      assert.strictEqual(counts.reduce((a, b) => a + b, 0), 2)
    }))
})

describe("two layers", () => {
  it.effect("count a call once, also with a decorator between them", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const inner = GenAiTelemetry.instrument(yield* modelOf({}), options)
      const outer = GenAiTelemetry.instrument({ ...inner }, { provider: "other", model: "other" })
      const seen = yield* measured(
        Effect.andThen(generate, drain).pipe(Effect.provide(layerOf(outer)), Effect.provide(layer))
      )
      assert.deepStrictEqual(spans.map(({ name }) => name), ["chat m1", "chat m1"])
      assert.strictEqual(
        named(seen, "gen_ai.client.operation.duration").reduce((sum, { state }) => sum + state.count, 0),
        2
      )
    }))
})

describe("content", () => {
  const prompt = [
    { role: "system", content: "be brief" },
    {
      role: "user",
      content: [{ type: "text", text: secret }, { type: "file", mediaType: "image/png", data: new Uint8Array(9) }]
    },
    { role: "assistant", content: [{ type: "tool-call", id: "c0", name: "weather", params: { city: "Ulm" } }] },
    { role: "tool", content: [{ type: "tool-result", id: "c0", name: "weather", isFailure: false, result: "sunny" }] }
  ] as const

  const parsed = (span: Tracer.Span | undefined, name: string): unknown => {
    const value = attributesOf(span)[name]
    return typeof value === "string" ? JSON.parse(value) : value
  }

  const traced = <A, E>(
    self: Effect.Effect<A, E, LanguageModel.LanguageModel>,
    model: Effect.Effect<LanguageModel.LanguageModel>,
    content: GenAiTelemetry.ContentOptions | undefined
  ) =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      yield* timed(
        provided(self, model).pipe(Effect.provide(layer), Effect.provideService(GenAiTelemetry.Content, content)),
        10_000
      )
      return spans
    })

  it.effect("stays out: prompt, answer and the provider's words are in no span", () =>
    Effect.gen(function*() {
      const answers = modelOf({
        whole: () => Effect.succeed([metadata, { type: "text", text: confidence }, finish]),
        streamed: () => Stream.make(metadata, start, delta(confidence), end, finish)
      })
      const error = failure(new AiError.AuthenticationError({ kind: "InvalidKey", description: confidence }))
      const fails = modelOf({ whole: () => Effect.fail(error), streamed: () => Stream.fail(error) })
      for (const model of [answers, fails]) {
        const spans = yield* traced(Effect.andThen(Effect.exit(generate), Effect.exit(drain)), model, undefined)
        assert.strictEqual(spans.length, 2)
        assert.notInclude(readable(spans), secret)
        assert.notInclude(readable(spans), confidence)
      }
    }))

  it.effect("comes in the JSON of the conventions where it is switched on", () =>
    Effect.gen(function*() {
      const call = LanguageModel.generateText({ prompt, toolkit: tools }).pipe(Effect.provide(Handlers))
      const [chat] = yield* traced(call, callsTool, {})
      assert.deepStrictEqual(parsed(chat, "gen_ai.system_instructions"), [{ type: "text", content: "be brief" }])
      assert.deepStrictEqual(parsed(chat, "gen_ai.input.messages"), [
        {
          role: "user",
          parts: [
            { type: "text", content: secret },
            { type: "blob", modality: "image", mime_type: "image/png", content: "" }
          ]
        },
        { role: "assistant", parts: [{ type: "tool_call", id: "c0", name: "weather", arguments: { city: "Ulm" } }] },
        { role: "tool", parts: [{ type: "tool_call_response", id: "c0", response: "sunny" }] }
      ])
      assert.deepStrictEqual(parsed(chat, "gen_ai.output.messages"), [{
        role: "assistant",
        parts: [{ type: "tool_call", id: "c1", name: "weather", arguments: { city: secret } }],
        finish_reason: "stop"
      }])
      assert.deepStrictEqual(parsed(chat, "gen_ai.tool.definitions"), [{
        type: "function",
        name: "weather",
        description: "the weather",
        parameters: Tool.getJsonSchema(Weather)
      }])
      assert.notProperty(attributesOf(chat), "sluice.content.truncated")
    }))

  it.effect("of a stream is put together from its pieces, also if it breaks off", () =>
    Effect.gen(function*() {
      const reasoning = { type: "reasoning-delta", id: "r", delta: "think" } as const
      const error = failure(new AiError.InternalProviderError({ description: confidence }))
      const model = modelOf({
        streamed: () =>
          Stream.concat(
            Stream.make(
              { type: "reasoning-start", id: "r" } as const,
              reasoning,
              reasoning,
              start,
              delta("hel"),
              delta("lo")
            ),
            Stream.fail(error)
          )
      })
      const [chat] = yield* traced(Effect.exit(drain), model, {})
      assert.deepStrictEqual(parsed(chat, "gen_ai.output.messages"), [{
        role: "assistant",
        parts: [{ type: "reasoning", content: "thinkthink" }, { type: "text", content: "hello" }],
        finish_reason: "error"
      }])
      const exit = exitOf(chat)
      assert.include(
        exit !== undefined && Exit.isFailure(exit) ? String(exit.cause) + JSON.stringify(exit) : "",
        confidence
      )
    }))

  it.effect("keeps to its bound, stays JSON, and says that it was cut", () =>
    Effect.gen(function*() {
      const long = "x".repeat(100_000)
      const model = modelOf({
        whole: () => Effect.succeed([{ type: "text", text: long }, { type: "text", text: long }, finish]),
        streamed: () =>
          Stream.fromIterable([start, ...Array.from({ length: 1000 }, () => delta(long.slice(0, 1000))), end, finish])
      })
      const messages = Array.from({ length: 1000 }, (_, n) => ({ role: "user" as const, content: `message ${n}` }))
      const ask = { prompt: [{ role: "system" as const, content: long }, ...messages] }
      const run = Effect.andThen(LanguageModel.generateText(ask), Stream.runDrain(LanguageModel.streamText(ask)))
      for (const span of yield* traced(run, model, { maxLength: 1000 })) {
        assert.strictEqual(attributesOf(span)["sluice.content.truncated"], true)
        for (const name of ["gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages"]) {
          assert.isAtMost(String(attributesOf(span)[name]).length, 1600, name)
          assert.isArray(parsed(span, name))
        }
        // What was said last is what is kept.
        assert.include(String(attributesOf(span)["gen_ai.input.messages"]), "message 999")
      }
    }))

  it.effect("keeps to its bound also where a provider makes up the names of tools", () =>
    Effect.gen(function*() {
      const long = "x".repeat(100_000)
      const calls = Array.from({ length: 200 }, () =>
        ({ type: "tool-call", id: long, name: long, params: { long } }) as const)
      const model = modelOf({
        whole: () =>
          Effect.succeed([...calls, finish])
      })
      const ask = LanguageModel.generateText({
        prompt: "a",
        disableToolCallResolution: true,
        toolCallValidation: "deferred"
      })
      const [chat] = yield* traced(ask, model, { maxLength: 1000 })
      assert.isAtMost(String(attributesOf(chat)["gen_ai.output.messages"]).length, 2600)
      assert.isArray(parsed(chat, "gen_ai.output.messages"))
    }))

  it.effect("that cannot be read fails no call", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const circular: { self?: unknown } = {}
      circular.self = circular
      const params = {
        role: "assistant",
        content: [{ type: "tool-call", id: "c", name: "t", params: circular }]
      } as const
      const text = yield* provided(LanguageModel.generateText({ prompt: [params] })).pipe(
        Effect.map(({ text }) => text),
        Effect.provide(layer),
        Effect.provideService(GenAiTelemetry.Content, {})
      )
      assert.strictEqual(text, "hello")
      assert.strictEqual(spans[0]?.status._tag, "Ended")
    }))
})

describe("a tracer", () => {
  it.effect("recognises its own spans as parents, whatever they are made of", () =>
    Effect.gen(function*() {
      class Own extends Tracer.NativeSpan {
        readonly handle = { id: this.spanId }
        #noted: Array<string> = []
        override attribute(key: string, value: unknown): void {
          this.#noted.push(key)
          super.attribute(key, value)
        }
        get noted(): ReadonlyArray<string> {
          return this.#noted
        }
      }
      const seen: Array<unknown> = []
      const spans: Array<Own> = []
      const tracer = Tracer.make({
        span: (options) => {
          const parent = Option.getOrUndefined(options.parent)
          if (parent !== undefined) seen.push(parent instanceof Own ? parent.handle.id : "a stranger")
          const span = new Own(options)
          spans.push(span)
          return span
        }
      })
      const model = modelOf({ whole: () => Effect.succeed([finish]).pipe(Effect.withSpan("http")) })
      yield* provided(generate, model).pipe(Effect.provideService(Tracer.Tracer, tracer))
      assert.deepStrictEqual(seen, [spans[0]?.spanId])
      assert.isTrue(spans[0]?.noted.includes("gen_ai.output.type"))
    }))

  it.live("sees requests beneath the calls that make them, and no key, prompt or answer", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const { apiKey, url } = yield* LoopbackProvider.LoopbackProvider
      const seen = yield* measured(
        Effect.andThen(generate, drain).pipe(
          Effect.provide(GenAiTelemetry.layer({ provider: "loopback" }).pipe(Layer.provide(modelAt(url, { apiKey })))),
          Effect.provide(layer)
        )
      )
      const [whole, streamed] = spans.filter(({ name }) => name.startsWith("chat "))
      const requests = spans.filter(({ name }) => name.startsWith("http"))
      assert.deepStrictEqual(spans.map(({ name }) => name.split(" ")[0]), [
        "chat",
        "http.client",
        "chat",
        "http.client"
      ])
      assert.deepStrictEqual(requests.map(parentOf), [whole?.spanId, streamed?.spanId])
      for (const span of [whole, streamed]) {
        assert.isAbove(Number(attributesOf(span)["gen_ai.usage.output_tokens"]), 0)
        assert.deepStrictEqual(attributesOf(span)["gen_ai.response.finish_reasons"], ["stop"])
      }
      assert.notInclude(readable(spans), secret)
      assert.notInclude(readable(spans), apiKey === undefined ? secret : Redacted.value(apiKey))
      assert.strictEqual(named(seen, "gen_ai.client.operation.time_to_first_chunk")[0]?.state.count, 1)
    }).pipe(Effect.provide(LoopbackProvider.layer())))

  it.effect("that runs code in a context of its own still does", () =>
    Effect.gen(function*() {
      const names = new Set<string | undefined>()
      const tracer = Tracer.make({
        span: (options) => new Tracer.NativeSpan(options),
        context: (primitive, fiber) => {
          const span = Option.getOrUndefined(Context.getOption(fiber.context, Tracer.ParentSpan))
          names.add(span?._tag === "Span" ? span.name : undefined)
          return primitive["~effect/Effect/evaluate"](fiber)
        }
      })
      yield* provided(generate).pipe(Effect.provideService(Tracer.Tracer, tracer))
      assert.isTrue(names.has("chat m1"))
    }))
})
