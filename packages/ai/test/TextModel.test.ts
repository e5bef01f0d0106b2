import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted, Stream, Tracer } from "effect"
import { type AiError, LanguageModel, Prompt } from "effect/ai"
import { HttpClient } from "effect/http"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as TextModel from "@sluice/ai/TextModel"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { failureOf, generate, textOf } from "./support/model.ts"
import * as Raw from "./support/rawServer.ts"
import { answering, begin, openAi, type Wire, wires } from "./support/wires.ts"

const transport = HttpTransport.layer({ environment: {} })

const textAt = (wire: Wire, url: string) => {
  const options = { url, model: "m1" }
  return (wire === openAi ? OpenAiCompatible.layerText(options) : AnthropicMessages.layerText(options)).pipe(
    Layer.provide(transport)
  )
}

const resilientAt = (
  wire: Wire,
  url: string,
  options?: Partial<Omit<ResilientModel.TextLayerOptions, "targets">> & { readonly malformedEvent?: "skip" }
) =>
  ResilientModel.layerText({
    retry: RetryPolicy.none,
    ...options,
    targets: [{ name: "a", layer: textAt(wire, url) }]
  })

const ask = (prompt = "hi") => Effect.flatMap(TextModel.TextModel, (model) => model.ask(Prompt.make(prompt)))

const rejectionOf = (error: AiError.AiError) =>
  AiRejection.fromAiError(error).pipe((some) => some._tag === "Some" ? some.value : undefined)

for (const wire of wires) {
  describe(`a text over ${wire.module}`, () => {
    it.live("is the text, the finish reason, the counts and the source of a streamed answer", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer(answering(wire))
        const { finishReason, from, model, text, usage } = yield* Effect.provide(ask(), resilientAt(wire, server.url))
        assert.deepStrictEqual([text, finishReason, model], ["hello", "stop", "m1"])
        assert.deepStrictEqual([usage.inputTokens.total, usage.outputTokens.total], [3, 4])
        assert.deepStrictEqual([from?.target, from?.inputTokens, from?.outputTokens], ["a", 3, 4])
      }))

    it.live("is requested with the body and the headers of a stream", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer(answering(wire))
        const streamed = Effect.map(Stream.runCollect(LanguageModel.streamText({ prompt: "hi" })), textOf)
        yield* Effect.provide(streamed, wire.modelAt(server.url))
        yield* Effect.provide(ask(), textAt(wire, server.url))
        const [stream, text] = server.requests
        assert.deepStrictEqual(JSON.parse(text?.body ?? ""), JSON.parse(stream?.body ?? ""))
        assert.deepStrictEqual({ ...text?.headers }, { ...stream?.headers })
      }))

    it.live("fails after the first-token limit, if only comments arrive", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer((response) => {
          begin(response)
          const timer = setInterval(() => response.write(": keep-alive\n\n"), 10)
          response.on("close", () => clearInterval(timer))
        })
        const error = yield* failureOf(
          Effect.provide(ask(), resilientAt(wire, server.url, { firstTokenTimeout: "300 millis" }))
        )
        assert.strictEqual(rejectionOf(error)?._tag, "FirstTokenTimeout")
      }))

    it.live("fails after the idle limit, if only comments follow the beginning, and logs the paid part", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer((response) => {
          begin(response, wire.head + wire.delta("hello, and more"))
          const timer = setInterval(() => response.write(": keep-alive\n\n"), 10)
          response.on("close", () => clearInterval(timer))
        })
        const [exit, logs] = yield* ask().pipe(
          ResilientModel.withLogs(),
          Effect.provide(resilientAt(wire, server.url, { idleTimeout: "200 millis" }))
        )
        const error = yield* failureOf(exit)
        assert.strictEqual(rejectionOf(error)?._tag, "IdleTimeout")
        const [step] = logs[0]?.steps ?? []
        assert.deepInclude(step, { usage: { inputTokens: 1, outputTokens: 4, estimated: true } })
        assert.isDefined(step?._tag === "Attempt" ? step.firstTokenAt : undefined)
      }))

    it.live("may take longer than the idle limit between its beginning and its end", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer((response) => {
          begin(response, wire.head)
          let sent = 0
          const timer = setInterval(() => {
            response.write(sent++ < 10 ? wire.delta(`${sent} `) : wire.finish + wire.done)
            if (sent <= 10) return
            response.end()
            clearInterval(timer)
          }, 150)
        })
        const { text } = yield* Effect.provide(ask(), resilientAt(wire, server.url, { idleTimeout: "1 second" }))
        assert.strictEqual(text, "1 2 3 4 5 6 7 8 9 10 ")
      }))

    it.live("holds the place of a probe while its text arrives, and closes the circuit", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer((response, received, n) => {
          if (n === 1) return void response.writeHead(503).end()
          if (n === 3) return answering(wire)(response, received, n)
          begin(response, wire.head)
          let sent = 0
          const timer = setInterval(() => {
            response.write(sent++ < 32 ? wire.delta(`${sent} `) : wire.finish + wire.done)
            if (sent <= 32) return
            response.end()
            clearInterval(timer)
          }, 50)
        })
        const breaker = {
          trip: CircuitBreaker.consecutive(1),
          openFor: "1 milli",
          probeLease: "800 millis",
          probesToClose: 1
        } as const
        const model = ResilientModel.layerText({
          retry: RetryPolicy.none,
          targets: [{ name: "a", layer: textAt(wire, server.url), breaker }]
        })
        yield* Effect.gen(function*() {
          yield* failureOf(ask())
          yield* Effect.sleep("10 millis")
          const probe = yield* Effect.forkChild(ask(), { startImmediately: true })
          yield* Effect.sleep("1200 millis")
          const refused = yield* failureOf(ask())
          assert.strictEqual(rejectionOf(refused)?._tag, "CircuitOpen")
          assert.match((yield* Fiber.join(probe)).text, /^1 2 .* 32 $/)
          assert.strictEqual((yield* ask()).from?.target, "a")
        }).pipe(Effect.provide(model))
        assert.strictEqual(server.requests.length, 3)
      }))

    it.live("is retried after half an answer", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer((response, received, n) => {
          if (n > 1) return answering(wire)(response, received, n)
          begin(response, wire.head + wire.delta("half"))
          setTimeout(() => response.destroy(), 20)
        })
        const retry = RetryPolicy.constant({ baseDelay: "1 milli", jitter: "none" })
        const { from, text } = yield* Effect.provide(ask(), resilientAt(wire, server.url, { retry }))
        assert.deepStrictEqual([text, from?.attempts], ["hello", 2])
      }))

    it.live("uses one connection for requests that follow each other at once", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer(answering(wire))
        // `Effect.repeat` would yield between them.
        const asked = Effect.forEach(Array.from({ length: 21 }), () => ask(), { discard: true })
        yield* Effect.provide(asked, textAt(wire, server.url))
        assert.deepStrictEqual([server.requests.length, server.connections()], [21, 1])
      }))

    it.live("closes its connection when it is interrupted", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer((response) => begin(response, wire.head + wire.delta("half")))
        yield* Effect.gen(function*() {
          const closed = yield* Effect.forkChild(server.nextClose, { startImmediately: true })
          yield* Effect.ignore(Effect.timeout(ask(), "200 millis"))
          yield* Effect.timeout(Fiber.join(closed), "10 seconds")
        }).pipe(Effect.provide(textAt(wire, server.url)))
      }))

    it.live("goes through a client that the caller has transformed", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer(answering(wire))
        let seen = 0
        const counted = Layer.effect(
          HttpClient.HttpClient,
          Effect.map(HttpClient.HttpClient, HttpClient.tapRequest(() => Effect.sync(() => seen++)))
        ).pipe(Layer.provide(transport))
        const options = { url: server.url, model: "m1" }
        const model = wire === openAi ? OpenAiCompatible.makeText(options) : AnthropicMessages.makeText(options)
        const { text } = yield* Effect.flatMap(model, (model) => model.ask(Prompt.make("hi"))).pipe(
          Effect.provide(counted)
        )
        assert.deepStrictEqual([text, seen], ["hello", 1])
      }))

    it.live("has a span of its request, which ends with the head and holds no prompt", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer(answering(wire))
        const spans: Array<Tracer.Span> = []
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            return span
          }
        })
        yield* ask().pipe(Effect.provideService(Tracer.Tracer, tracer), Effect.provide(textAt(wire, server.url)))
        const [span] = spans
        assert.deepStrictEqual([spans.length, span?.name, span?.status._tag], [1, "http.client POST", "Ended"])
        assert.strictEqual(span?.attributes.get("http.response.status_code"), 200)
      }))

    it.live("shows the key in no error", () =>
      Effect.gen(function*() {
        const key = "sk-very-secret-0123456789"
        const server = yield* Raw.rawServer((response) =>
          Raw.json(response, 401, wire.error({ message: `bad key ${key}` }))
        )
        const options = { url: server.url, model: "m1", apiKey: Redacted.make(key), allowInsecureKey: true }
        const model = wire === openAi ? OpenAiCompatible.makeText(options) : AnthropicMessages.makeText(options)
        const error = yield* failureOf(
          Effect.flatMap(model, (model) => model.ask(Prompt.make("hi"))).pipe(Effect.provide(transport))
        )
        assert.strictEqual(error.reason._tag, "AuthenticationError")
        assert.notInclude(JSON.stringify(error), key)
      }))
  })

  describe(`generateText from a stream over ${wire.module}`, () => {
    const modelAt = (url: string, options?: Partial<ResilientModel.StreamOptions>) =>
      ResilientModel.layer({
        retry: RetryPolicy.none,
        ...options,
        targets: [{ name: "a", layer: wire.modelAt(url, { wholeFromStream: true }) }]
      })

    it.live("requests a stream, and returns the whole answer", () =>
      Effect.gen(function*() {
        const server = yield* Raw.rawServer(answering(wire))
        const { finishReason, text, usage } = yield* Effect.provide(generate(), modelAt(server.url))
        assert.deepStrictEqual([text, finishReason, usage.outputTokens.total], ["hello", "stop", 4])
        assert.isTrue(JSON.parse(server.requests[0]?.body ?? "{}").stream)
      }))

    it.live("fails after the limits for the first token and for silence", () =>
      Effect.gen(function*() {
        let sent = wire.head
        const server = yield* Raw.rawServer((response) => begin(response, sent))
        const limits = { firstTokenTimeout: "200 millis", idleTimeout: "200 millis" } as const
        const first = yield* failureOf(Effect.provide(generate(), modelAt(server.url, limits)))
        sent += wire.delta("half")
        const second = yield* failureOf(Effect.provide(generate(), modelAt(server.url, limits)))
        assert.deepStrictEqual([rejectionOf(first)?._tag, rejectionOf(second)?._tag], [
          "FirstTokenTimeout",
          "IdleTimeout"
        ])
      }))
  })
}
