import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer, Redacted, Schema, Tracer } from "effect"
import { LanguageModel, Model, Tool, Toolkit } from "effect/ai"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import { CurrentIdempotencyKey } from "@sluice/ai/IdempotencyKey"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import type * as Http from "node:http"
import { aiErrorOf, generate, streamedText } from "./support/model.ts"
import { type Answer, json, rawServer } from "./support/rawServer.ts"
import { answering, errorText, failures, type Wire, wires } from "./support/wires.ts"

// Behaviour that both wires share, on each of them, over real sockets.

for (const wire of wires) {
  describe(`request headers, ${wire.module}`, () => {
    const sent = (
      options: Parameters<Wire["modelAt"]>[1],
      around: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = (self) => self
    ): Effect.Effect<Http.IncomingHttpHeaders, unknown, never> =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* rawServer(answering(wire))
        yield* around(generate()).pipe(Effect.provide(wire.modelAt(server.url, options)))
        assert.strictEqual(server.requests[0]?.path, wire.path)
        return server.requests[0]!.headers
      }))

    const withHeaders =
      (headers: Record<string, string | Redacted.Redacted>) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
        self.pipe(
          OpenAiCompatible.withConfigOverride({ headers }),
          AnthropicMessages.withConfigOverride({ headers })
        )

    it.live("a request carries the API key, and without values it has no such headers", () =>
      Effect.gen(function*() {
        assert.include((yield* sent({ apiKey: Redacted.make("sk-test-key") }))[wire.keyHeader], "sk-test-key")
        const none = yield* sent({})
        for (const name of [wire.keyHeader, "idempotency-key", "x-sluice-attempt"]) assert.isUndefined(none[name])
      }))

    it.live("a request carries the idempotency key of the call unless the configuration has another", () =>
      Effect.gen(function*() {
        const keyed = Effect.provideService(CurrentIdempotencyKey, "call-1")
        assert.strictEqual((yield* sent({}, keyed))["idempotency-key"], "call-1")
        const named = yield* sent({ config: { idempotencyKey: "mine" } }, keyed)
        assert.strictEqual(named["idempotency-key"], "mine")
      }))

    it.live("an idempotency key that is no valid header is refused without a request", () =>
      Effect.gen(function*() {
        const server = yield* rawServer(answering(wire))
        const failed = yield* generate().pipe(
          Effect.provideService(CurrentIdempotencyKey, "a\r\nx-evil: 1"),
          Effect.provide(wire.modelAt(server.url)),
          Effect.flip
        )
        assert.strictEqual(aiErrorOf(failed).reason._tag, "InvalidUserInputError")
        assert.strictEqual(server.requests.length, 0)
      }))

    it.live("headers are not sent to the location of a redirect", () =>
      Effect.gen(function*() {
        const elsewhere = yield* rawServer(answering(wire))
        for (const status of [301, 302, 307, 308]) {
          const failed = yield* failures(wire, (response) => {
            response.writeHead(status, { location: `${elsewhere.origin}/?token=secret` })
            response.end()
          }, { apiKey: Redacted.make("sk-test-key") })
          for (const error of failed) {
            assert.strictEqual(error.reason._tag, "InvalidRequestError")
            assert.notInclude(error.message, "token")
          }
        }
        assert.strictEqual(elsewhere.requests.length, 0)
      }))

    it.live("a request carries the caller's headers, secret or not, per model and per request", () =>
      Effect.gen(function*() {
        const headers = yield* sent(
          {
            headers: { "Api-Key": Redacted.make("azure-secret"), "X-Region": "eu", "user-agent": "mine" },
            config: { headers: { "x-team": "a" } }
          },
          withHeaders({ "x-region": "us" })
        )
        assert.deepInclude(headers, {
          "api-key": "azure-secret",
          "x-region": "us",
          "user-agent": "mine",
          "x-team": "a"
        })
      }))

    it.live("a key that cannot be sent is refused, and the error does not show it", () =>
      Effect.gen(function*() {
        const cases = [
          ["", "apiKey is \"\"; must not be empty; is its environment variable set?"],
          ["hunter22\n", "apiKey is [masked]; must be visible ASCII characters, without spaces or line ends"],
          ["hünter22", "apiKey is [masked]; must be visible ASCII characters, without spaces or line ends"]
        ] as const
        for (const [key, sentence] of cases) {
          const model = wire.modelAt("https://api.example.com", { apiKey: Redacted.make(key) })
          const invalid = yield* Effect.flip(Effect.provide(generate(), model))
          if (invalid._tag !== "InvalidOptions") return assert.fail(invalid._tag)
          assert.strictEqual(invalid.message, `${wire.module}: ${sentence}`)
        }
      }))

    it.live("headers that the caller may not set are refused, and the error does not show their values", () =>
      Effect.gen(function*() {
        const apiKey = Redacted.make("sk-test-key")
        const wrong: ReadonlyArray<Record<string, string | Redacted.Redacted>> = [
          { "Content-Type": "hunter22" },
          { host: "hunter22" },
          { "transfer-encoding": "hunter22" },
          { [wire.keyHeader.toUpperCase()]: Redacted.make("hunter22") },
          { "bad name": "hunter22" },
          { "": "hunter22" },
          { "x-bad": "hunter22\r\nx-evil: 1" },
          { "x-bad": Redacted.make("hunter22\n") },
          { "x-bad": "hünter22" }
        ]
        for (const headers of wrong) {
          for (const options of [{ headers }, { config: { headers } }]) {
            const invalid = yield* Effect.flip(
              Effect.provide(generate(), wire.modelAt("https://api.example.com", { apiKey, ...options }))
            )
            if (invalid._tag !== "InvalidOptions") return assert.fail(invalid._tag)
            assert.strictEqual(invalid.module, wire.module)
            assert.deepStrictEqual(invalid.issues.map(({ option }) => option), [
              "headers" in options ? "headers" : "config.headers"
            ])
            assert.notInclude(JSON.stringify(invalid) + invalid.message, "nter22")
          }
          const server = yield* rawServer(answering(wire))
          const refused = yield* Effect.flip(
            Effect.provide(withHeaders(headers)(generate()), wire.modelAt(server.url, { apiKey }))
          )
          assert.strictEqual(aiErrorOf(refused).reason._tag, "InvalidUserInputError")
          assert.notInclude(errorText(aiErrorOf(refused)), "nter22")
          assert.strictEqual(server.requests.length, 0)
        }
        assert.strictEqual((yield* sent({ headers: { [wire.keyHeader]: "mine" } }))[wire.keyHeader], "mine")
      }))

    it.live("secret headers are not sent unencrypted and are masked in errors", () =>
      Effect.gen(function*() {
        const headers = { "api-key": Redacted.make("azure-secret") }
        const invalid = yield* Effect.flip(
          Effect.provide(generate(), wire.modelAt("http://api.example.com/v1", { headers }))
        )
        assert.strictEqual(invalid._tag, "InvalidOptions")
        const echo = "bad keys azure-secret and team-secret"
        const server = yield* rawServer((response) =>
          json(response, 401, wire.error({ message: echo }), { "x-echo": echo })
        )
        const failed = yield* withHeaders({ "x-team": Redacted.make("team-secret") })(generate()).pipe(
          Effect.provide(wire.modelAt(server.url, { headers })),
          Effect.flip
        )
        const text = errorText(aiErrorOf(failed))
        assert.include(text, "[masked]")
        assert.notInclude(text, "azure-secret")
        assert.notInclude(text, "team-secret")
      }))
  })

  describe(`spans, ${wire.module}`, () => {
    const recorded = (options: Parameters<Wire["modelAt"]>[1], answer: Answer) =>
      Effect.gen(function*() {
        const seen: Array<unknown> = []
        const spans: Array<Tracer.NativeSpan> = []
        const tracer = Tracer.make({
          span(options) {
            const span = new Tracer.NativeSpan(options)
            const end = span.end.bind(span)
            // Keeps the exit of every span, which exporters read for the status.
            span.end = (time, exit) => {
              if (!span.name.startsWith("LanguageModel.")) seen.push(exit)
              end(time, exit)
            }
            spans.push(span)
            return span
          }
        })
        const server = yield* rawServer(answer)
        yield* Effect.andThen(Effect.exit(generate("secret question")), Effect.exit(streamedText("secret question")))
          .pipe(
            Effect.provide(wire.modelAt(`${server.url}?token=secret-query`, options)),
            Effect.provideService(Tracer.Tracer, tracer)
          )
        const attributes = spans.map(({ attributes, events, name }) => ({
          name,
          attributes: Object.fromEntries(attributes),
          events
        }))
        return { attributes, text: inspect({ seen, attributes }), requests: server.requests }
      })

    const options = { apiKey: Redacted.make("secret-key-1"), headers: { "x-team": "secret-team" } }

    it.live("a span contains no prompt, response text, key or query, however the call ends", () =>
      Effect.gen(function*() {
        const answers: ReadonlyArray<Answer> = [
          answering(wire, "forty-two"),
          (response) => json(response, 500, wire.error({ message: "down" })),
          (response) => response.destroy()
        ]
        for (const answer of answers) {
          const { attributes, text } = yield* recorded(options, answer)
          assert.notInclude(text, "secret")
          const http = attributes.filter(({ name }) => name === "http.client POST")
          assert.strictEqual(http.length, 2)
          for (const { attributes } of http) {
            assert.deepInclude(attributes, { "http.request.method": "POST", "server.address": "127.0.0.1" })
          }
        }
        const { attributes } = yield* recorded(options, answers[1]!)
        assert.deepInclude(attributes.find(({ name }) => name.startsWith("http."))?.attributes, {
          "http.response.status_code": 500,
          "error.type": "500"
        })
      }))

    it.live("a request carries trace headers only with propagateTrace", () =>
      Effect.gen(function*() {
        const { requests } = yield* recorded({}, answering(wire))
        for (const { headers } of requests) {
          assert.isUndefined(headers["traceparent"])
          assert.isUndefined(headers["b3"])
        }
        const propagated = yield* recorded({ propagateTrace: true }, answering(wire))
        for (const { headers } of propagated.requests) assert.match(String(headers["traceparent"]), /^00-[0-9a-f]{32}-/)
      }))
  })
}

const inspect = (value: unknown): string => {
  const seen = new Set<unknown>()
  return JSON.stringify(value, (_, held: unknown) => {
    if (typeof held === "bigint") return String(held)
    if (held instanceof Uint8Array) return new TextDecoder().decode(held)
    if (typeof held !== "object" || held === null) return held
    if (seen.has(held)) return undefined
    seen.add(held)
    // Includes the fields of errors, which JSON leaves out, and those of classes with a toJSON.
    const fields = Object.fromEntries(Object.getOwnPropertyNames(held).map((name) => [name, Reflect.get(held, name)]))
    return Array.isArray(held) ? held : fields
  })
}

describe("conversations over several wires", () => {
  it.live("a conversation that began with one vendor continues with the other", () =>
    Effect.gen(function*() {
      const Add = Tool.make("add", { parameters: Schema.Struct({ x: Schema.Int }), success: Schema.Int })
      const tools = Toolkit.make(Add)
      for (const wire of wires) {
        const server = yield* rawServer(answering(wire, "5"))
        const { text } = yield* LanguageModel.generateText({
          prompt: [
            { role: "system", content: "Be brief." },
            { role: "user", content: "2 + 3?" },
            {
              role: "assistant",
              content: [
                {
                  type: "reasoning",
                  text: "hm",
                  options: { anthropic: { info: { type: "thinking", signature: "s1" } } }
                },
                { type: "tool-call", id: "functions.add:0", name: "add", params: { x: 2 }, providerExecuted: false }
              ]
            },
            {
              role: "tool",
              content: [{ type: "tool-result", id: "functions.add:0", name: "add", isFailure: false, result: 5 }]
            }
          ],
          toolkit: tools
        }).pipe(
          Effect.provide(tools.toLayer({ add: ({ x }) => Effect.succeed(x) })),
          Effect.provide(wire.modelAt(server.url))
        )
        assert.strictEqual(text, "5")
      }
    }))
})

describe("layerConfig", () => {
  const provider = ConfigProvider.layer(ConfigProvider.fromEnvRecord({
    URL: "https://api.example.com",
    MODEL: "m1",
    KEY: "secret-key",
    BAD_URL: "http://example.com"
  }))
  const config = { model: Config.String("MODEL"), apiKey: Config.Redacted("KEY") }
  const names = Effect.all([Model.ProviderName, Model.ModelName])

  it.effect("layerConfig reads URL, model and key from the configuration and refuses what layer refuses", () =>
    Effect.gen(function*() {
      for (const make of [OpenAiCompatible.layerConfig, AnthropicMessages.layerConfig]) {
        const at = (url: string) =>
          make({ url: Config.String(url), ...config }).pipe(
            Layer.provide(HttpTransport.layer({ environment: {} })),
            Layer.provide(provider)
          )
        assert.deepStrictEqual(yield* Effect.provide(names, at("URL")), ["api.example.com", "m1"])
        const invalid = yield* Effect.flip(Effect.provide(names, at("BAD_URL")))
        assert.strictEqual(invalid._tag, "InvalidOptions")
        const missing = yield* Effect.flip(Effect.provide(names, at("NO_URL")))
        assert.strictEqual(missing._tag, "ConfigError")
      }
    }))
})
