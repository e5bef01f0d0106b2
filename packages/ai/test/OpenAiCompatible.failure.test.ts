import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Redacted, Schema, Stream } from "effect"
import { AiError } from "effect/ai"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AiRejection from "@sluice/ai/AiRejection"
import type * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import type * as Http from "node:http"
import * as Zlib from "node:zlib"
import { throughJson } from "./support/json.ts"
import { aiErrorOf, failureOf, generate, modelAt, stream, streamedText } from "./support/model.ts"
import { type Answer, completion, delta, done, finish, json, rawServer, sse } from "./support/rawServer.ts"
import { failuresOf, httpOf } from "./support/wires.ts"

/** The errors of a whole answer and of a stream. */
const failures = (answer: Answer, options?: Partial<OpenAiCompatible.Options>) =>
  failuresOf((url) => modelAt(url, options), answer)

/** The error of a whole answer, which has the reason of the stream's error. */
const failure = (answer: Answer, options?: Partial<OpenAiCompatible.Options>) =>
  Effect.map(failures(answer, options), ([whole, streamed]) => {
    assert.strictEqual(whole?.reason._tag, streamed?.reason._tag)
    return whole!
  })

const refusal = (status: number, error: object = {}, headers: Http.OutgoingHttpHeaders = {}) =>
  failure((response) => json(response, status, { error: { message: "why", ...error } }, headers))

describe("error statuses of OpenAiCompatible", () => {
  const table: ReadonlyArray<readonly [number, object, AiError.AiErrorReason["_tag"]]> = [
    [400, {}, "InvalidRequestError"],
    [400, { code: "content_filter" }, "ContentPolicyError"],
    [401, {}, "AuthenticationError"],
    [402, {}, "QuotaExhaustedError"],
    [403, {}, "AuthenticationError"],
    [404, {}, "InvalidRequestError"],
    [408, {}, "InternalProviderError"],
    [409, {}, "InternalProviderError"],
    [413, {}, "InvalidRequestError"],
    [422, {}, "InvalidRequestError"],
    [429, {}, "RateLimitError"],
    [429, { type: "insufficient_quota" }, "QuotaExhaustedError"],
    [429, { code: "insufficient_quota" }, "QuotaExhaustedError"],
    [500, {}, "InternalProviderError"],
    [503, {}, "InternalProviderError"],
    [529, {}, "InternalProviderError"]
  ]
  for (const [status, error, tag] of table) {
    it.live(`status ${status}${Object.entries(error).map(([key, value]) => ` with ${key} ${value}`).join("")} is a ${tag}`, () =>
      Effect.gen(function*() {
        const failed = yield* refusal(status, error)
        assert.strictEqual(failed.reason._tag, tag)
        assert.strictEqual(httpOf(failed)?.response?.status, status)
      }))
  }

  it.live("an error keeps its headers and the beginning of its body", () =>
    Effect.gen(function*() {
      const failed = yield* refusal(500, {}, { "x-request-id": "req-1", "set-cookie": "session=secret" })
      const http = httpOf(failed)
      assert.strictEqual(http?.response?.headers["x-request-id"], "req-1")
      assert.isTrue(Redacted.isRedacted(http?.response?.headers["set-cookie"]))
      assert.strictEqual(http?.body, "{\"error\":{\"message\":\"why\"}}")

      const long = yield* failure((response) => json(response, 500, "x".repeat(1_000_000)))
      assert.strictEqual(httpOf(long)?.body?.length, 2048)
      assert.isBelow(long.message.length, 500)
    }))

  it.live("an error names the model that was not found and the parameter that was wrong", () =>
    Effect.gen(function*() {
      const notFound = yield* refusal(404, { message: "no such model" })
      assert.include(notFound.message, "model \"m1\"")
      assert.include(notFound.message, "no such model")
      const wrong = yield* refusal(400, { param: "temperature", message: "too hot" })
      assert.strictEqual(wrong.reason._tag === "InvalidRequestError" && wrong.reason.parameter, "temperature")
    }))

  it.live("a missing key and a wrong key have different kinds", () =>
    Effect.gen(function*() {
      const kind = (options?: Partial<OpenAiCompatible.Options>) =>
        Effect.map(
          failure((response) => json(response, 401, {}), options),
          ({ reason }) => reason._tag === "AuthenticationError" ? reason.kind : undefined
        )
      assert.strictEqual(yield* kind(), "MissingKey")
      assert.strictEqual(yield* kind({ apiKey: Redacted.make("sk-test-key") }), "InvalidKey")
    }))

  it.live("a 429 and a 503 have the delay of any kind of Retry-After header", () =>
    Effect.gen(function*() {
      const date = new Date(Date.now() + 3_600_000).toUTCString()
      for (const status of [429, 503]) {
        const delay = (headers: Http.OutgoingHttpHeaders) =>
          Effect.map(refusal(status, {}, headers), (error) => RetryAfter.fromAiError(error))
        assert.deepStrictEqual(yield* delay({ "retry-after": "7" }), Duration.seconds(7))
        assert.deepStrictEqual(yield* delay({ "retry-after-ms": "6500", "retry-after": "7" }), Duration.millis(6500))
        const until = yield* delay({ "retry-after": date })
        assert.closeTo(until === undefined ? 0 : Duration.toMinutes(until), 60, 1)
        assert.isUndefined(yield* delay({}))
        assert.deepStrictEqual(yield* delay({ "retry-after": "99999999" }), Duration.days(1))
      }
    }))

  it.live("an error body may have any form", () =>
    Effect.gen(function*() {
      const bodies = [
        "",
        "<html>bad gateway</html>",
        "{\"error\":\"text\"}",
        "{\"detail\":\"text\"}",
        "{\"message\":\"text\"}",
        "[1]",
        "{\"error\":{\"message\":{\"a\":1},\"code\":[]}}",
        "[".repeat(50_000)
      ]
      for (const body of bodies) {
        const failed = yield* failure((response) => json(response, 502, body))
        assert.strictEqual(failed.reason._tag, "InternalProviderError")
        if (body.includes("text")) assert.include(failed.message, "HTTP 502: text")
      }
    }))

  it.live("an encoded and decoded error keeps its delay and outcome", () =>
    Effect.gen(function*() {
      const failed = yield* refusal(503, {}, { "retry-after": "7" })
      const decoded = throughJson(AiError.AiError, failed)
      assert.deepStrictEqual(RetryAfter.fromAiError(decoded), Duration.seconds(7))
      assert.deepStrictEqual(AiOutcome.fromAiError(decoded), AiOutcome.fromAiError(failed))
    }))
})

describe("redirects", () => {
  it.live("a redirect is not followed, and the error has its location", () =>
    Effect.gen(function*() {
      for (const status of [301, 302, 307, 308]) {
        const target = yield* rawServer((response) => json(response, 200, completion({ content: "stolen" })))
        const failed = yield* failure((response) => {
          response.writeHead(status, { location: `${target.origin}/elsewhere?token=secret` })
          response.end()
        }, { apiKey: Redacted.make("sk-test-key") })
        assert.strictEqual(failed.reason._tag, "InvalidRequestError")
        assert.include(failed.message, `redirects to ${target.origin}/elsewhere`)
        assert.notInclude(failed.message, "token")
        assert.strictEqual(target.requests.length, 0)
      }
    }))
})

describe("secrets in errors", () => {
  it.live("a key is masked wherever a provider repeats it", () =>
    Effect.gen(function*() {
      const key = "topsecret/key+1"
      const echo = `bad key ${key} (${encodeURIComponent(key)}), sk-proj-abcdefgh12345678 neither`
      const answers: ReadonlyArray<Answer> = [
        (response) => json(response, 401, { error: { message: echo, param: echo, code: echo } }, { "x-echo": echo }),
        (response) => json(response, 500, echo),
        (response) => json(response, 400, { error: { message: echo, param: echo } }),
        (response) => json(response, 200, { error: { message: echo } }),
        (response) => json(response, 200, echo),
        (response) => sse(response, `data: ${echo}\n\n`),
        (response) => sse(response, `data: {"choices":"${echo}"}\n\n`)
      ]
      for (const answer of answers) {
        for (const failed of yield* failures(answer, { apiKey: Redacted.make(key) })) {
          const text = JSON.stringify(Schema.encodeSync(Schema.toCodecJson(AiError.AiError))(failed)) +
            String(failed.stack)
          assert.include(text, "[masked]")
          assert.notInclude(text, key)
          assert.notInclude(text, encodeURIComponent(key))
          assert.notInclude(text, "sk-proj-abcdefgh12345678")
        }
      }
    }))

  it.live("the query of the URL is sent to the provider and appears in no error", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => response.destroy())
      const failed = yield* generate().pipe(
        Effect.provide(modelAt(`${server.url}?key=hunter22`)),
        failureOf
      )
      assert.strictEqual(server.requests[0]?.path, "/v1/chat/completions?key=hunter22")
      assert.notInclude(JSON.stringify(failed) + String(failed.stack), "hunter22")
    }))
})

describe("lost connections", () => {
  it.live("a refused or reset connection is a network error with its cause", () =>
    Effect.gen(function*() {
      const { origin } = yield* Effect.scoped(rawServer(() => undefined))
      const refused = yield* Effect.flip(Effect.provide(generate(), modelAt(`${origin}/v1`)))
      assert.strictEqual(aiErrorOf(refused).reason._tag, "NetworkError")
      assert.include(refused.message, "ECONNREFUSED")
      assert.deepInclude(AiOutcome.fromAiError(aiErrorOf(refused)), { _tag: "Failure", retryable: true })

      const reset = yield* failure((response) => response.destroy())
      assert.strictEqual(reset.reason._tag, "NetworkError")
    }))

  it.live("a connection lost within a stream is a truncated stream", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(delta("half"))
        setTimeout(() => response.destroy(), 10)
      })
      const parts: Array<string> = []
      const failed = yield* stream().pipe(
        Stream.runForEach((part) => Effect.sync(() => parts.push(part.type))),
        Effect.provide(modelAt(server.url)),
        Effect.flip
      )
      assert.include(parts, "text-delta")
      assert.isTrue(AiRejection.is("TruncatedStream", failed))
      assert.include(failed.message, "parts, connection lost (")
      assert.include(failed.message, "); partial output was handed on")
    }))

  it.live("a connection lost after the finish reason is a complete answer", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(delta("whole") + finish())
        setTimeout(() => response.destroy(), 10)
      })
      assert.strictEqual(yield* Effect.provide(streamedText(), modelAt(server.url)), "whole")
    }))
})

describe("invalid responses", () => {
  it.live("broken JSON is malformed, and a page of another server is an invalid response", () =>
    Effect.gen(function*() {
      const malformed = yield* failure((response) => json(response, 200, "{\"choices\": [<<<"))
      assert.strictEqual(malformed.reason._tag, "InternalProviderError")
      assert.include(malformed.message, "malformed response: \"{\\\"choices\\\": [<<<\"")

      const page = yield* failure((response) => {
        response.writeHead(200, { "content-type": "text/html" })
        response.end("<!doctype html><title>Sign in</title>")
      })
      assert.strictEqual(page.reason._tag, "InvalidResponseError")
      assert.include(page.message, "text/html instead of JSON: \"<!doctype html>")
    }))

  it.live("an error with status 200 is a failure", () =>
    Effect.gen(function*() {
      const failed = yield* failure((response) => json(response, 200, { error: { message: "slow down", code: 429 } }))
      assert.strictEqual(failed.reason._tag, "RateLimitError")
    }))

  it.live("a refusal and the finish reason \"error\" are failures", () =>
    Effect.gen(function*() {
      const whole = (choice: object) =>
        Effect.gen(function*() {
          const server = yield* rawServer((response) => json(response, 200, { choices: [choice] }))
          return aiErrorOf(yield* Effect.flip(Effect.provide(generate(), modelAt(server.url))))
        })
      const declined = yield* whole({ message: { content: null, refusal: "I cannot." }, finish_reason: "stop" })
      assert.strictEqual(declined.reason._tag, "ContentPolicyError")
      assert.include(declined.message, "I cannot.")
      const unfinished = yield* whole({ message: { content: "a" }, finish_reason: "error" })
      assert.strictEqual(unfinished.reason._tag, "InternalProviderError")
    }))

  it.live("a response without choices fails, whole or where a stream was requested", () =>
    Effect.gen(function*() {
      const none = yield* failure((response) => json(response, 200, { choices: [] }))
      assert.strictEqual(none.reason._tag, "InvalidResponseError")
      const server = yield* rawServer((response) => json(response, 200, { choices: [] }))
      const streamed = yield* Effect.flip(Effect.provide(streamedText(), modelAt(server.url)))
      assert.include(streamed.message, "not a chat completion")
    }))

  it.live("a response that is too large fails, compressed or not", () =>
    Effect.gen(function*() {
      const large = JSON.stringify(completion({ content: "x".repeat(8 * 2 ** 20) }))
      const gzip = Zlib.gzipSync(large)
      assert.isBelow(gzip.length, 10_000)
      const answers: ReadonlyArray<Answer> = [
        (response) => json(response, 200, large),
        (response) => {
          response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" })
          response.end(gzip)
        }
      ]
      for (const answer of answers) {
        const server = yield* rawServer(answer)
        const failed = yield* generate().pipe(
          Effect.provide(modelAt(server.url, { maxAnswerSize: 2 ** 20 })),
          Effect.flip
        )
        assert.strictEqual(aiErrorOf(failed).reason._tag, "InvalidResponseError")
        assert.include(failed.message, "more than 1048576 bytes")
      }
    }), 20_000)

  it.live("a response that is nested too deep fails", () =>
    Effect.gen(function*() {
      const failed = yield* failure((response) => json(response, 200, "[".repeat(100_000)))
      assert.include(failed.message, "deeper than 64")
    }))
})

describe("connections that stay open after [DONE]", () => {
  it.live("a stream ends after [DONE] even if the server keeps the connection open", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(delta("whole") + finish() + done)
      })
      assert.strictEqual(
        yield* streamedText().pipe(Effect.provide(modelAt(server.url)), Effect.timeout("50 seconds")),
        "whole"
      )
    }))
})

describe("options of OpenAiCompatible", () => {
  const issues = (options: Partial<OpenAiCompatible.Options>) =>
    generate().pipe(
      Effect.provide(modelAt(options.url ?? "https://api.example.com/v1", options)),
      Effect.catchTag("InvalidOptions", (invalid) => Effect.succeed(invalid)),
      Effect.map((invalid) => {
        if (!("issues" in invalid)) return assert.fail("the options were accepted")
        return { message: invalid.message, options: invalid.issues.map(({ option }) => option) }
      })
    )

  it.effect("all invalid options are reported together, before anything is built", () =>
    Effect.gen(function*() {
      const refused = yield* issues({
        url: "ftp://example.com",
        model: "",
        maxAnswerSize: 0,
        maxEventSize: 0.5,
        maxJsonDepth: 0,
        maxErrorExcerpt: -1,
        maxRetryAfter: Duration.infinity
      })
      assert.deepStrictEqual(refused.options, [
        "url",
        "model",
        "maxAnswerSize",
        "maxEventSize",
        "maxJsonDepth",
        "maxErrorExcerpt",
        "maxRetryAfter"
      ])
    }))

  it.effect("an invalid URL and one with a password are refused, and the error does not show the password", () =>
    Effect.gen(function*() {
      for (const url of ["", "api.openai.com/v1", "/v1"]) {
        assert.deepStrictEqual((yield* issues({ url })).options, ["url"])
      }
      const { message, options } = yield* issues({ url: "https://user:hunter22@example.com/v1" })
      assert.deepStrictEqual(options, ["url"])
      assert.notInclude(message, "hunter22")
    }))

  it.effect("an invalid key is refused, and the error does not show it", () =>
    Effect.gen(function*() {
      for (const key of ["", "topsecret\n", "top secret", "töpsecret"]) {
        const { message, options } = yield* issues({ apiKey: Redacted.make(key) })
        assert.deepStrictEqual(options, ["apiKey"])
        assert.notInclude(message, "secret\n")
        assert.notInclude(message, "psecret")
      }
    }))

  it.effect("a key is sent unencrypted to another machine only with allowInsecureKey", () =>
    Effect.gen(function*() {
      const apiKey = Redacted.make("sk-test-key")
      for (const url of ["http://example.com/v1", "http://10.0.0.1/v1", "http://127.0.0.1.example.com/v1"]) {
        assert.deepStrictEqual((yield* issues({ url, apiKey })).options, ["url"])
      }
      const accepted = [
        { url: "http://example.com/v1", apiKey, allowInsecureKey: true },
        { url: "http://example.com/v1" },
        { url: "https://example.com/v1", apiKey },
        { url: "http://127.0.0.2:1/v1", apiKey },
        { url: "http://localhost:1/v1", apiKey },
        { url: "http://[::1]:1/v1", apiKey },
        { url: "http://0x7f.1:1/v1", apiKey }
      ]
      for (const options of accepted) yield* Effect.void.pipe(Effect.provide(modelAt(options.url, options)))
    }))
})
