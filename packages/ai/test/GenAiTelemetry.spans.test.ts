import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Option, Redacted, Stream, Tracer } from "effect"
import { AiError, LanguageModel, Telemetry } from "effect/ai"
import * as GenAiTelemetry from "@sluice/ai/GenAiTelemetry"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import {
  drain,
  generate,
  handlers,
  instrumented,
  options,
  pacedModel,
  providerText,
  secret,
  stream,
  toolCallingModel,
  tools,
  withClock
} from "./support/instrumented.ts"
import { modelAt } from "./support/model.ts"
import {
  attributesOf,
  collectMetrics,
  delta,
  failure,
  finish,
  layerOf,
  lengthOf,
  makeTracer,
  metadata,
  metricsOf,
  modelOf,
  parentOf,
  spanText,
  start,
  usage
} from "./support/telemetry.ts"

describe("GenAiTelemetry spans", () => {
  it.effect("a call has one span, a child of the caller's span, with the attributes of the conventions", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const model = modelOf({
        whole: () => Effect.delay(Effect.succeed([metadata, { type: "text", text: providerText }, finish]), 700)
      })
      yield* withClock(instrumented(generate, model).pipe(Effect.withSpan("caller"), Effect.provide(layer)), 700)
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

  it.effect("a span has the attributes that the adapter adds, and is the parent of the adapter's spans", () =>
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
      yield* instrumented(Effect.andThen(generate, drain), model).pipe(Effect.provide(layer))
      assert.deepStrictEqual(spans.map(({ name }) => name), ["chat m1", "http", "chat m1", "http"])
      for (const [chat, http] of [[spans[0], spans[1]], [spans[2], spans[3]]]) {
        assert.strictEqual(parentOf(http), chat?.spanId)
        assert.strictEqual(http?.traceId, chat?.traceId)
        assert.strictEqual(attributesOf(chat)["gen_ai.request.temperature"], 0.5)
      }
    }))

  it.effect("the span of a stream ends with the stream and is not the parent of its consumer's spans", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const consume = Stream.runForEach(stream, () => Effect.withSpan(Effect.void, "consumer"))
      yield* withClock(instrumented(consume, pacedModel).pipe(Effect.withSpan("caller"), Effect.provide(layer)), 1200)
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

  it.effect("the span of a stream that ends early has the reason as its error.type", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const failing = modelOf({
        streamed: () =>
          Stream.concat(
            Stream.make(start, delta("a")),
            Stream.fail(failure(new AiError.InternalProviderError({ description: providerText })))
          )
      })
      const streamErrors = modelOf({
        streamed: () => Stream.make(start, { type: "error", error: { overloaded: providerText } })
      })
      const cut = modelOf({ streamed: () => Stream.make(start, delta("a")) })
      yield* Effect.all([
        instrumented(stream.pipe(Stream.take(3), Stream.runDrain), pacedModel),
        Effect.timeoutOption(instrumented(drain, pacedModel), 700),
        Effect.exit(instrumented(drain, failing)),
        instrumented(drain, streamErrors),
        instrumented(drain, cut)
      ], { concurrency: 1 }).pipe(
        Effect.provide(layer),
        (self) => withClock(self, 5000)
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
      assert.notInclude(spanText(spans), providerText)
    }))

  it.effect("a call without a tracer or with tracing disabled has no span", () =>
    Effect.gen(function*() {
      let made = 0
      const model = modelOf({
        whole: ({ span }) => Effect.sync(() => (made += span.name === "LanguageModel.generateText" ? 1 : 0, [finish]))
      })
      // Replaces any tracer that the tests themselves run under.
      yield* instrumented(generate, model).pipe(Effect.provideService(Tracer.Tracer, Tracer.Tracer.defaultValue()))
      const { layer, spans } = makeTracer()
      yield* instrumented(generate, model).pipe(Effect.withTracerEnabled(false), Effect.provide(layer))
      assert.deepStrictEqual([made, spans.length], [2, 0])
    }))

  it.effect("telemetry does not change the results and errors of a model", () =>
    Effect.gen(function*() {
      const { layer } = makeTracer()
      const bare = yield* modelOf({})
      const run = Effect.all([generate, Stream.runCollect(stream), LanguageModel.generateText({ prompt: "a" })])
      const expected = yield* Effect.provide(run, layerOf(bare))
      assert.deepStrictEqual(yield* instrumented(run), expected)
      assert.deepStrictEqual(yield* instrumented(run).pipe(Effect.provide(layer)), expected)
      const error = failure(new AiError.RateLimitError({}))
      const failed = yield* Effect.exit(
        instrumented(generate, modelOf({ whole: () => Effect.fail(error) })).pipe(Effect.provide(layer))
      )
      assert.isTrue(
        Exit.isFailure(failed) && failed.cause.reasons[0]?._tag === "Fail" && failed.cause.reasons[0].error === error
      )
    }))
})

describe("GenAiTelemetry of calls with tools", () => {
  it.effect("the recorded call ends when the model has answered, and contains no input or result of a tool", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const call = LanguageModel.generateText({ prompt: secret, toolkit: tools }).pipe(Effect.provide(handlers))
      const metrics = yield* collectMetrics(
        withClock(instrumented(call, toolCallingModel).pipe(Effect.provide(layer)), 5000)
      )
      assert.strictEqual(metricsOf(metrics, "gen_ai.client.operation.duration")[0]?.state.sum, 1)
      const [chat] = spans
      assert.strictEqual(lengthOf(chat), 1000)
      assert.strictEqual(attributesOf(chat)["gen_ai.usage.output_tokens"], usage.output)
      assert.isTrue(spans.some(({ name }) => name === "handler"))
      assert.notInclude(spanText(spans), secret)
      assert.notInclude(spanText(spans), providerText)
    }))

  it.effect("a failing tool is not recorded as a failure of the model", () =>
    Effect.gen(function*() {
      const broken = tools.toLayer({ weather: () => Effect.die(providerText) })
      const call = LanguageModel.generateText({ prompt: "a", toolkit: tools }).pipe(Effect.provide(broken))
      const metrics = yield* collectMetrics(withClock(instrumented(call, toolCallingModel), 1000))
      assert.notProperty(metrics[0]?.attributes, "error.type")
    }))

  it.effect("a model call made by a tool is recorded as a separate call", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const nested = tools.toLayer({
        weather: () => Effect.map(Effect.orDie(instrumented(generate)), ({ text }) => text)
      })
      const call = LanguageModel.generateText({ prompt: "a", toolkit: tools }).pipe(Effect.provide(nested))
      const metrics = yield* collectMetrics(
        withClock(instrumented(call, toolCallingModel).pipe(Effect.provide(layer)), 1000)
      )
      assert.strictEqual(spans.filter(({ name }) => name === "chat m1").length, 2)
      const counts = metricsOf(metrics, "gen_ai.client.operation.duration").map(({ state }) => state.count)
      assert.strictEqual(counts.reduce((a, b) => a + b, 0), 2)
    }))
})

describe("two layers of GenAiTelemetry", () => {
  it.effect("two layers record a call once, even with a decorator between them", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const inner = GenAiTelemetry.instrument(yield* modelOf({}), options)
      const outer = GenAiTelemetry.instrument({ ...inner }, { provider: "other", model: "other" })
      const metrics = yield* collectMetrics(
        Effect.andThen(generate, drain).pipe(Effect.provide(layerOf(outer)), Effect.provide(layer))
      )
      assert.deepStrictEqual(spans.map(({ name }) => name), ["chat m1", "chat m1"])
      assert.strictEqual(
        metricsOf(metrics, "gen_ai.client.operation.duration").reduce((sum, { state }) => sum + state.count, 0),
        2
      )
    }))
})

describe("tracers with GenAiTelemetry", () => {
  it.effect("a tracer gets its own span objects back as parents", () =>
    Effect.gen(function*() {
      class Own extends Tracer.NativeSpan {
        readonly handle = { id: this.spanId }
        #keys: Array<string> = []
        override attribute(key: string, value: unknown): void {
          this.#keys.push(key)
          super.attribute(key, value)
        }
        get keys(): ReadonlyArray<string> {
          return this.#keys
        }
      }
      const parents: Array<unknown> = []
      const spans: Array<Own> = []
      const tracer = Tracer.make({
        span: (options) => {
          const parent = Option.getOrUndefined(options.parent)
          if (parent !== undefined) parents.push(parent instanceof Own ? parent.handle.id : "a foreign span")
          const span = new Own(options)
          spans.push(span)
          return span
        }
      })
      const model = modelOf({ whole: () => Effect.succeed([finish]).pipe(Effect.withSpan("http")) })
      yield* instrumented(generate, model).pipe(Effect.provideService(Tracer.Tracer, tracer))
      assert.deepStrictEqual(parents, [spans[0]?.spanId])
      assert.isTrue(spans[0]?.keys.includes("gen_ai.output.type"))
    }))

  it.live("the span of an HTTP request is a child of its call's span and contains no key, prompt or answer", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const { apiKey, url } = yield* LoopbackProvider.LoopbackProvider
      const metrics = yield* collectMetrics(
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
      assert.notInclude(spanText(spans), secret)
      assert.notInclude(spanText(spans), apiKey === undefined ? secret : Redacted.value(apiKey))
      assert.strictEqual(metricsOf(metrics, "gen_ai.client.operation.time_to_first_chunk")[0]?.state.count, 1)
    }).pipe(Effect.provide(LoopbackProvider.layer())))

  it.effect("a tracer that wraps the evaluation of effects sees the span of the call", () =>
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
      yield* instrumented(generate).pipe(Effect.provideService(Tracer.Tracer, tracer))
      assert.isTrue(names.has("chat m1"))
    }))
})
