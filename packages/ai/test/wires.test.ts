import { assert, describe, it } from "@effect/vitest"
import {
  Config,
  ConfigProvider,
  Duration,
  Effect,
  Fiber,
  Layer,
  Option,
  Redacted,
  Schema,
  Stream,
  Tracer
} from "effect"
import { AiError, LanguageModel, Model, Tool, Toolkit } from "effect/ai"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import { CurrentIdempotencyKey } from "@sluice/ai/IdempotencyKey"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import type * as Http from "node:http"
import * as Zlib from "node:zlib"
import { generate, stream, streamedText } from "./support/model.ts"
import { json, rawServer, sse } from "./support/rawServer.ts"
import { begin, httpOf, isStreamed, type Wire, wires } from "./support/wires.ts"

// What both wires have in common, on both, over real sockets.

type Answer = Parameters<typeof rawServer>[0]

const aiError = (error: unknown): AiError.AiError =>
  AiError.isAiError(error) ? error : assert.fail("expected an AiError")

const textAt = (wire: Wire, answer: Answer) =>
  Effect.flatMap(rawServer(answer), ({ url }) => Effect.provide(streamedText(), wire.modelAt(url)))

const answering = (wire: Wire, text = "hello"): Answer => (response, { body }) =>
  isStreamed(body)
    ? sse(response, wire.head + wire.delta(text) + wire.finish + wire.done)
    : json(response, 200, wire.whole(text))

/** How a whole and a streamed answer fail. */
const failures = (wire: Wire, answer: Answer, options?: Parameters<Wire["modelAt"]>[1]) =>
  Effect.gen(function*() {
    const server = yield* rawServer(answer)
    return yield* Effect.forEach(
      [Effect.asVoid(generate()), Stream.runDrain(stream())],
      (ask) => Effect.map(Effect.flip(Effect.provide(ask, wire.modelAt(server.url, options))), aiError)
    )
  })

const streamFailure = (wire: Wire, answer: Answer, options?: Parameters<Wire["modelAt"]>[1]) =>
  Effect.gen(function*() {
    const server = yield* rawServer(answer)
    const parts: Array<string> = []
    const failed = yield* stream().pipe(
      Stream.runForEach((part) => Effect.sync(() => parts.push(part.type))),
      Effect.provide(wire.modelAt(server.url, options)),
      Effect.flip
    )
    return { error: aiError(failed), parts }
  })

const everything = (error: AiError.AiError): string =>
  JSON.stringify(Schema.encodeSync(Schema.toCodecJson(AiError.AiError))(error)) + String(error.stack)

for (const wire of wires) {
  describe(`${wire.module}: the bytes of a streamed answer`, () => {
    it.live("may be split within every character", () =>
      Effect.gen(function*() {
        const text = "aé😀日b"
        const whole = new TextEncoder().encode(wire.head + wire.delta(text) + wire.finish + wire.done)
        const encoded = new TextEncoder().encode(text)
        const from = whole.findIndex((_, i) => encoded.every((byte, j) => whole[i + j] === byte))
        yield* Effect.forEach(
          Array.from(encoded, (_, i) => from + i + 1),
          (at) =>
            Effect.map(
              textAt(wire, (response) => {
                response.socket?.setNoDelay(true)
                begin(response, whole.subarray(0, at))
                setTimeout(() => response.end(whole.subarray(at)), 5)
              }),
              (answer) => assert.strictEqual(answer, text, `split at byte ${at}`)
            ),
          { concurrency: 4 }
        )
      }))

    it.live("may have any line ending, comments, and data over several lines", () =>
      Effect.gen(function*() {
        const lines = JSON.stringify(wire.content("a b"), null, 1).split("\n")
        const multiline = lines.map((line) => `data: ${line}`).join("\n") + "\n\n"
        const text = `\uFEFF: keep-alive\n\nid: 1\nretry: 10\n${wire.head}${multiline}:ping\n${wire.finish}${wire.done}`
        for (const ending of ["\n", "\r\n", "\r"]) {
          const sent = text.replaceAll("\n", ending)
          assert.strictEqual(yield* textAt(wire, (response) => sse(response, sent)), "a b", JSON.stringify(ending))
        }
      }))

    it.live("may be events of nearly 1 Mi, and no more", () =>
      Effect.gen(function*() {
        const large = "x".repeat(2 ** 20 - 500)
        const text = yield* textAt(wire, (response) =>
          sse(response, wire.head + wire.delta(large) + wire.delta(large) + wire.finish + wire.done))
        assert.strictEqual(text.length, 2 * large.length)
        const { error } = yield* streamFailure(
          wire,
          (response) =>
            sse(response, wire.head + wire.delta("x".repeat(2 ** 20)) + wire.finish + wire.done)
        )
        assert.strictEqual(error.reason._tag, "InvalidResponseError")
        assert.include(error.message, "an event of more than 1048576 characters")
      }))

    it.live("may be compressed, whole answers too", () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response, { body }) => {
          const type = isStreamed(body) ? "text/event-stream" : "application/json"
          response.writeHead(200, { "content-type": type, "content-encoding": "gzip" })
          response.end(Zlib.gzipSync(
            isStreamed(body)
              ? wire.head + wire.delta("zipped") + wire.finish + wire.done
              : JSON.stringify(wire.whole("zipped"))
          ))
        })
        const model = wire.modelAt(server.url)
        assert.strictEqual((yield* Effect.provide(generate(), model)).text, "zipped")
        assert.strictEqual(yield* Effect.provide(streamedText(), model), "zipped")
      }))
  })

  describe(`${wire.module}: a stream without an end`, () => {
    const bounded = (event: (n: number) => string) =>
      Effect.gen(function*() {
        let n = 0
        const { error } = yield* streamFailure(wire, (response) => {
          begin(response, wire.head)
          const timer = setInterval(() => response.write(event(n++)), 1)
          response.on("close", () => clearInterval(timer))
        }, { maxAnswerSize: 100 })
        assert.include(error.message, "more than 100 characters")
      })

    it.live("is bounded, by its text and by the names of its tool calls", () =>
      Effect.gen(function*() {
        yield* bounded(() => wire.delta("some text"))
        yield* bounded((n) => wire.toolCall.replace("t1", `t${n}`))
      }))
  })

  describe(`${wire.module}: an answer that is none`, () => {
    it.live("is another server's page with status 200", () =>
      Effect.gen(function*() {
        const failed = yield* failures(wire, (response) => {
          response.writeHead(200, { "content-type": "text/html" })
          response.end("<!doctype html><title>Sign in</title>")
        })
        for (const error of failed) {
          assert.strictEqual(error.reason._tag, "InvalidResponseError")
          assert.include(error.message, `${wire.module}.`)
          assert.include(error.message, "text/html instead of JSON: \"<!doctype html>")
        }
      }))

    it.live("is JSON of something else", () =>
      Effect.gen(function*() {
        for (const body of ["{}", "[]", "null", "\"hi\"", "{\"content\":7,\"choices\":7}"]) {
          const failed = yield* failures(wire, (response, request) =>
            isStreamed(request.body) ? sse(response, `data: ${body}\n\n`) : json(response, 200, body))
          assert.strictEqual(failed[0]?.reason._tag, "InvalidResponseError", body)
          assert.include(["InvalidResponseError", "InternalProviderError"], failed[1]?.reason._tag, body)
        }
      }))

    it.live("is malformed, and says so in a rejection with its first 80 characters, masked", () =>
      Effect.gen(function*() {
        const key = "topsecret-key-1"
        const broken = `{"choices": <<<${key} ${"x".repeat(200)}`
        const failed = yield* failures(
          wire,
          (response, { body }) =>
            isStreamed(body) ? sse(response, `${wire.head}data: ${broken}\n\n`) : json(response, 200, broken),
          { apiKey: Redacted.make(key) }
        )
        for (const error of failed) {
          assert.strictEqual(error.reason._tag, "InternalProviderError")
          assert.strictEqual(httpOf(error)?.response?.status, 200)
          assert.notInclude(everything(error), key)
          const rejection = Option.getOrThrow(AiRejection.fromAiError(error))
          if (rejection._tag !== "MalformedEvent") return assert.fail(rejection._tag)
          assert.strictEqual(rejection.target, "127.0.0.1")
          assert.strictEqual(rejection.sample, `{"choices": <<<[masked] ${"x".repeat(56)}`)
        }
      }))
  })

  describe(`${wire.module}: an answer that breaks off`, () => {
    const phases: ReadonlyArray<readonly [string, string, number, boolean]> = [
      ["before its first event", "", 0, false],
      ["within its first event", wire.head.slice(0, 20), 0, false],
      ["before its first content", wire.head, 1, false],
      ["after some content", wire.head + wire.delta("a") + wire.delta("b"), 3, true],
      ["within an event", wire.head + wire.delta("a") + wire.delta("b").slice(0, -10), 2, true],
      ["within a tool call", wire.head + wire.toolCall, 2, true],
      ["within the reason of its end", wire.head + wire.delta("a") + wire.finish.slice(0, -10), 2, true]
    ]
    for (const [when, sent, atLeast, hadOutput] of phases) {
      it.live(`${when} is truncated`, () =>
        Effect.gen(function*() {
          const { error } = yield* streamFailure(wire, (response) => sse(response, sent))
          assert.strictEqual(error.reason._tag, "InternalProviderError")
          assert.include(error.message, "answer truncated")
          assert.strictEqual(httpOf(error)?.response?.status, 200)
          assert.deepInclude(AiOutcome.fromAiError(error), { _tag: "Failure", retryable: true })
          const wireCodec = Schema.toCodecJson(AiError.AiError)
          const back = Schema.decodeUnknownSync(wireCodec)(
            JSON.parse(JSON.stringify(Schema.encodeSync(wireCodec)(error)))
          )
          const rejection = Option.getOrThrow(AiRejection.fromAiError(back))
          if (rejection._tag !== "TruncatedStream") return assert.fail(rejection._tag)
          assert.deepInclude({ ...rejection }, { target: "127.0.0.1", hadOutput })
          assert.isAtLeast(rejection.parts, atLeast)
        }))

      it.live(`${when} by a reset is a network error`, () =>
        Effect.gen(function*() {
          const { error } = yield* streamFailure(wire, (response) => {
            begin(response, sent)
            setTimeout(() => response.destroy(), 10)
          })
          assert.strictEqual(error.reason._tag, "NetworkError")
          assert.include(error.message, "connection lost within the answer")
          assert.deepInclude(AiOutcome.fromAiError(error), { _tag: "Failure", retryable: true })
        }))
    }

    it.live("before its head is a network error", () =>
      Effect.gen(function*() {
        for (const error of yield* failures(wire, (response) => response.destroy())) {
          assert.strictEqual(error.reason._tag, "NetworkError")
        }
      }))

    it.live("within a whole answer is malformed, and a network error by a reset", () =>
      Effect.gen(function*() {
        const half = JSON.stringify(wire.whole("hello")).slice(0, -20)
        const [cut] = yield* failures(wire, (response) => json(response, 200, half))
        assert.strictEqual(cut?.reason._tag, "InternalProviderError")
        const [reset] = yield* failures(wire, (response) => {
          response.writeHead(200, { "content-type": "application/json" })
          response.write(half)
          setTimeout(() => response.destroy(), 10)
        })
        assert.strictEqual(reset?.reason._tag, "NetworkError")
      }))

    it.live("while it is compressed is a network error, and whole after the reason of its end", () =>
      Effect.gen(function*() {
        const cut = (sent: string): Answer => (response) => {
          response.writeHead(200, { "content-type": "text/event-stream", "content-encoding": "gzip" })
          const zip = Zlib.createGzip()
          zip.on("data", (bytes) => response.write(bytes))
          zip.write(sent)
          zip.flush(() => setTimeout(() => response.end(), 10))
        }
        const { error } = yield* streamFailure(wire, cut(wire.head + wire.delta("a")))
        assert.strictEqual(error.reason._tag, "NetworkError")
        assert.strictEqual(yield* textAt(wire, cut(wire.head + wire.delta("whole") + wire.finish)), "whole")
      }))

    it.live("after the reason of its end is whole, by a cut and by a reset", () =>
      Effect.gen(function*() {
        const sent = wire.head + wire.delta("whole") + wire.finish
        for (const more of ["", wire.done.slice(0, 20), wire.done]) {
          assert.strictEqual(yield* textAt(wire, (response) => sse(response, sent + more)), "whole")
          const reset: Answer = (response) => {
            begin(response, sent + more)
            setTimeout(() => response.destroy(), 10)
          }
          assert.strictEqual(yield* textAt(wire, reset), "whole")
        }
      }))

    it.live("is whole soon after the reason of its end, if its server keeps the connection and sends no more", () =>
      Effect.gen(function*() {
        const servers: ReadonlyArray<Answer> = [
          (response) => begin(response, wire.head + wire.delta("whole") + wire.finish),
          (response) => {
            begin(response, wire.head + wire.delta("whole") + wire.finish)
            const timer = setInterval(() => response.write(": keep-alive\n\n"), 50)
            response.on("close", () => clearInterval(timer))
          },
          (response) => begin(response, wire.head + wire.delta("whole") + wire.finish + wire.done)
        ]
        yield* Effect.forEach(servers, (answer) =>
          Effect.gen(function*() {
            const server = yield* rawServer(answer)
            const closed = yield* Effect.forkChild(server.nextClose, { startImmediately: true })
            const [took, text] = yield* Effect.timed(Effect.provide(streamedText(), wire.modelAt(server.url)))
            assert.strictEqual(text, "whole")
            assert.isBelow(Duration.toMillis(took), 4000)
            yield* Effect.timeout(Fiber.join(closed), "1 second")
          }), { concurrency: "unbounded" })
      }))
  })

  describe(`${wire.module}: an error as the provider sends it`, () => {
    const table: ReadonlyArray<readonly [number, string, AiError.AiErrorReason["_tag"]]> = [
      [400, "invalid_request_error", "InvalidRequestError"],
      [401, "authentication_error", "AuthenticationError"],
      [402, "billing_error", "QuotaExhaustedError"],
      [403, "permission_error", "AuthenticationError"],
      [404, "not_found_error", "InvalidRequestError"],
      [408, "timeout", "InternalProviderError"],
      [409, "conflict", "InternalProviderError"],
      [413, "request_too_large", "InvalidRequestError"],
      [422, "invalid_request_error", "InvalidRequestError"],
      [429, "rate_limit_error", "RateLimitError"],
      [429, "insufficient_quota", "QuotaExhaustedError"],
      [500, "api_error", "InternalProviderError"],
      [502, "api_error", "InternalProviderError"],
      [503, "server_error", "InternalProviderError"],
      [504, "timeout_error", "InternalProviderError"],
      [529, "overloaded_error", "InternalProviderError"]
    ]
    for (const [status, type, tag] of table) {
      it.live(`${status} ${type} is a ${tag}`, () =>
        Effect.gen(function*() {
          const failed = yield* failures(
            wire,
            (response) => json(response, status, wire.error({ type, message: "why" }))
          )
          for (const error of failed) {
            assert.strictEqual(error.reason._tag, tag)
            assert.strictEqual(httpOf(error)?.response?.status, status)
            assert.include(httpOf(error)?.body, "why")
            assert.isTrue(Option.isNone(AiRejection.fromAiError(error)))
          }
        }))
    }

    const withoutStatus = new Map(table.map(([, type, tag]) => [type, tag] as const))
    for (const [type, tag] of withoutStatus) {
      if (type === "conflict" || type === "timeout") continue
      it.live(`${type} within a 200 is a ${tag}`, () =>
        Effect.gen(function*() {
          const { error, parts } = yield* streamFailure(
            wire,
            (response) => sse(response, wire.head + wire.delta("a") + wire.errorEvent({ type, message: "why" }))
          )
          assert.strictEqual(error.reason._tag, tag)
          assert.include(parts, "text-delta")
          assert.strictEqual(httpOf(error)?.response?.status, 200)
          const [whole] = yield* failures(wire, (response) => json(response, 200, wire.error({ type, message: "why" })))
          assert.strictEqual(whole?.reason._tag, tag)
          assert.notInclude(whole?.message, "HTTP")
        }))
    }

    it.live("is a used-up quota where it says so in words only", () =>
      Effect.gen(function*() {
        const message = "Your credit balance is too low to access the API. Please go to Plans & Billing to upgrade."
        const type = "invalid_request_error"
        for (const error of yield* failures(wire, (response) => json(response, 400, wire.error({ type, message })))) {
          assert.strictEqual(error.reason._tag, "QuotaExhaustedError")
        }
        const { error } = yield* streamFailure(wire, (response) => sse(response, wire.errorEvent({ type, message })))
        assert.strictEqual(error.reason._tag, "QuotaExhaustedError")
      }))

    it.live("carries how long to stay away, also where AiError has no field for it", () =>
      Effect.gen(function*() {
        for (const status of [429, 503, 529]) {
          const failed = yield* failures(
            wire,
            (response) => json(response, status, wire.error({ message: "later" }), { "retry-after": "7" })
          )
          for (const error of failed) assert.deepStrictEqual(RetryAfter.fromAiError(error), Duration.seconds(7))
        }
      }))

    it.live("is nothing after the reason of the end", () =>
      Effect.gen(function*() {
        const error = wire.errorEvent({ type: "overloaded_error", message: "late" })
        const sent = wire.head + wire.delta("whole") + wire.finish + error
        assert.strictEqual(yield* textAt(wire, (response) => sse(response, sent)), "whole")
      }))
  })

  describe(`${wire.module}: the headers of a request`, () => {
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

    it.live("carry the key, and nothing of the kind without one", () =>
      Effect.gen(function*() {
        assert.include((yield* sent({ apiKey: Redacted.make("sk-test-key") }))[wire.keyHeader], "sk-test-key")
        const none = yield* sent({})
        for (const name of [wire.keyHeader, "idempotency-key", "x-sluice-attempt"]) assert.isUndefined(none[name])
      }))

    it.live("carry the idempotency key of the call, unless the configuration names another", () =>
      Effect.gen(function*() {
        const keyed = Effect.provideService(CurrentIdempotencyKey, "call-1")
        assert.strictEqual((yield* sent({}, keyed))["idempotency-key"], "call-1")
        const named = yield* sent({ config: { idempotencyKey: "mine" } }, keyed)
        assert.strictEqual(named["idempotency-key"], "mine")
      }))

    it.live("carry no idempotency key that is no header", () =>
      Effect.gen(function*() {
        const server = yield* rawServer(answering(wire))
        const failed = yield* generate().pipe(
          Effect.provideService(CurrentIdempotencyKey, "a\r\nx-evil: 1"),
          Effect.provide(wire.modelAt(server.url)),
          Effect.flip
        )
        assert.strictEqual(aiError(failed).reason._tag, "InvalidUserInputError")
        assert.strictEqual(server.requests.length, 0)
      }))

    it.live("go nowhere else, whatever the provider says", () =>
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

    it.live("carry those of the caller, secret or not, per model and per request", () =>
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

    it.live("are refused where they are not the caller's to set, without their values", () =>
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
          assert.strictEqual(aiError(refused).reason._tag, "InvalidUserInputError")
          assert.notInclude(everything(aiError(refused)), "nter22")
          assert.strictEqual(server.requests.length, 0)
        }
        assert.strictEqual((yield* sent({ headers: { [wire.keyHeader]: "mine" } }))[wire.keyHeader], "mine")
      }))

    it.live("that are secret go over no open wire, and are masked wherever they come back", () =>
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
        const text = everything(aiError(failed))
        assert.include(text, "[masked]")
        assert.notInclude(text, "azure-secret")
        assert.notInclude(text, "team-secret")
      }))
  })

  describe(`${wire.module}: a span`, () => {
    const recorded = (options: Parameters<Wire["modelAt"]>[1], answer: Answer) =>
      Effect.gen(function*() {
        const seen: Array<unknown> = []
        const spans: Array<Tracer.NativeSpan> = []
        const tracer = Tracer.make({
          span(options) {
            const span = new Tracer.NativeSpan(options)
            const end = span.end.bind(span)
            // A tracer that looks into the result of every span, as exporters do for their status.
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
        return { attributes, told: inspect({ seen, attributes }), requests: server.requests }
      })

    const options = { apiKey: Redacted.make("secret-key-1"), headers: { "x-team": "secret-team" } }

    it.live("holds no prompt, no request, no key and no query, whatever came of it", () =>
      Effect.gen(function*() {
        const answers: ReadonlyArray<Answer> = [
          answering(wire, "forty-two"),
          (response) => json(response, 500, wire.error({ message: "down" })),
          (response) => response.destroy()
        ]
        for (const answer of answers) {
          const { attributes, told } = yield* recorded(options, answer)
          assert.notInclude(told, "secret")
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

    it.live("is nobody else's business, unless its owner says so", () =>
      Effect.gen(function*() {
        const { requests } = yield* recorded({}, answering(wire))
        for (const { headers } of requests) {
          assert.isUndefined(headers["traceparent"])
          assert.isUndefined(headers["b3"])
        }
        const told = yield* recorded({ propagateTrace: true }, answering(wire))
        for (const { headers } of told.requests) assert.match(String(headers["traceparent"]), /^00-[0-9a-f]{32}-/)
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
    // Errors have fields that JSON leaves out, and objects of classes have them behind a toJSON.
    const fields = Object.fromEntries(Object.getOwnPropertyNames(held).map((name) => [name, Reflect.get(held, name)]))
    return Array.isArray(held) ? held : fields
  })
}

describe("a conversation", () => {
  it.live("that one vendor began goes on with the other", () =>
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
  const wanted = { model: Config.String("MODEL"), apiKey: Config.Redacted("KEY") }
  const names = Effect.all([Model.ProviderName, Model.ModelName])

  it.effect("reads place, model and key from the configuration, and refuses what layer refuses", () =>
    Effect.gen(function*() {
      for (const make of [OpenAiCompatible.layerConfig, AnthropicMessages.layerConfig]) {
        const at = (url: string) =>
          make({ url: Config.String(url), ...wanted }).pipe(
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
