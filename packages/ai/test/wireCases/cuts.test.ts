import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option, Stream } from "effect"
import { AiError } from "effect/ai"
import { HttpClient, HttpClientResponse } from "effect/http"
import type * as Http from "node:http"
import * as Zlib from "node:zlib"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import { throughJson } from "../support/json.ts"
import { failureOf, generate, stream } from "../support/model.ts"
import { begin, failures, httpOf, streamFailure, type Wire, wires } from "../support/wires.ts"

// A connection that is lost within an answer: one error for all names of the socket's error.

const truncatedOf = (error: AiError.AiError | undefined): AiRejection.TruncatedStream => {
  assert.strictEqual(error?.reason._tag, "InternalProviderError")
  assert.deepInclude(AiOutcome.fromAiError(error!), { _tag: "Failure", retryable: true })
  assert.strictEqual(httpOf(error!)?.response?.status, 200)
  // As it arrives from another process.
  const rejection = Option.getOrThrow(AiRejection.fromAiError(throughJson(AiError.AiError, error!)))
  if (rejection._tag !== "TruncatedStream") return assert.fail(rejection._tag)
  assert.include(error!.message, rejection.message)
  return rejection
}

/** The ways in which a server loses a connection. */
const losses: ReadonlyArray<readonly [string, (response: Http.ServerResponse) => void]> = [
  ["a reset", (response) => response.socket?.resetAndDestroy()],
  ["a close without the last chunk", (response) => response.destroy()],
  ["a half-closed socket", (response) => response.socket?.end()],
  ["a chunk that is no chunk", (response) => response.socket?.end("zz\r\nno chunk\r\n")]
]

for (const wire of wires) {
  const half = JSON.stringify(wire.whole("hello")).slice(0, -20)

  describe(`lost connections, ${wire.module}`, () => {
    for (const [what, lose] of losses) {
      it.live(`${what} after some output is a truncated stream, which says that output was handed on`, () =>
        Effect.gen(function*() {
          const { error, parts } = yield* streamFailure(wire, (response) => {
            begin(response, wire.head + wire.delta("a"))
            setTimeout(() => lose(response), 10)
          })
          const rejection = truncatedOf(error)
          assert.deepStrictEqual([rejection.parts, rejection.hadOutput], [parts.length, true])
          assert.isString(rejection.lost)
          assert.strictEqual(
            rejection.message,
            `127.0.0.1: answer truncated after ${parts.length} parts, connection lost (${rejection.lost}); ` +
              "partial output was handed on"
          )
        }))

      it.live(`${what} before any output is a truncated stream, which says that nothing was handed on`, () =>
        Effect.gen(function*() {
          const { error, parts } = yield* streamFailure(wire, (response) => {
            begin(response, wire.head)
            setTimeout(() => lose(response), 10)
          })
          const rejection = truncatedOf(error)
          assert.deepStrictEqual([rejection.parts, rejection.hadOutput], [parts.length, false])
          assert.include(rejection.message, "; no output was handed on")
        }))

      it.live(`${what} within a whole answer is a truncated stream`, () =>
        Effect.gen(function*() {
          const [error] = yield* failures(wire, (response) => {
            response.writeHead(200, { "content-type": "application/json" })
            response.write(half)
            setTimeout(() => lose(response), 10)
          })
          const rejection = truncatedOf(error)
          assert.deepStrictEqual([rejection.parts, rejection.hadOutput], [0, false])
        }))
    }

    it.live("a body that is shorter than its content-length is truncated", () =>
      Effect.gen(function*() {
        const failed = yield* failures(wire, (response, { body }) => {
          const sent = JSON.parse(body).stream === true ? wire.head + wire.delta("a") : half
          response.writeHead(200, { "content-length": Buffer.byteLength(sent) + 100 })
          response.write(sent)
          setTimeout(() => response.destroy(), 10)
        })
        assert.strictEqual(failed.length, 2)
        for (const error of failed) truncatedOf(error)
      }))

    it.live("a compressed answer that ends within its compression is truncated", () =>
      Effect.gen(function*() {
        const { error } = yield* streamFailure(wire, (response) => {
          response.writeHead(200, { "content-type": "text/event-stream", "content-encoding": "gzip" })
          const zip = Zlib.createGzip()
          zip.on("data", (bytes) => response.write(bytes))
          zip.write(wire.head + wire.delta("a"))
          zip.flush(() => setTimeout(() => response.end(), 10))
        })
        assert.strictEqual(truncatedOf(error).hadOutput, true)
      }))

    it.live("a stream that ends in order and without a finish reason has the same words and the same count", () =>
      Effect.gen(function*() {
        const { error, parts } = yield* streamFailure(wire, (response) => {
          response.writeHead(200, { "content-type": "text/event-stream" })
          response.end(wire.head + wire.delta("a"))
        })
        const rejection = truncatedOf(error)
        assert.isUndefined(rejection.lost)
        assert.strictEqual(
          rejection.message,
          `127.0.0.1: answer truncated after ${parts.length} parts, without a finish reason; partial output was handed on`
        )
      }))
  })

  describe(`names of lost connections, ${wire.module}`, () => {
    const coded = (code: string, message: string) => Object.assign(new Error(message), { code })
    /** The names of the error in Node, undici, fetch and node-fetch. */
    const causes: ReadonlyArray<readonly [string, Error]> = [
      ["ECONNRESET", coded("ECONNRESET", "read ECONNRESET")],
      ["ECONNRESET", coded("ECONNRESET", "aborted")],
      ["EPIPE", coded("EPIPE", "write EPIPE")],
      ["ETIMEDOUT", coded("ETIMEDOUT", "read ETIMEDOUT")],
      ["ERR_STREAM_PREMATURE_CLOSE", coded("ERR_STREAM_PREMATURE_CLOSE", "Premature close")],
      ["UND_ERR_SOCKET", new TypeError("terminated", { cause: coded("UND_ERR_SOCKET", "other side closed") })],
      [
        "ERR_HTTP2_STREAM_ERROR",
        coded("ERR_HTTP2_STREAM_ERROR", "Stream closed with error code NGHTTP2_INTERNAL_ERROR")
      ],
      ["Z_BUF_ERROR", coded("Z_BUF_ERROR", "unexpected end of file")],
      ["terminated", new TypeError("terminated")],
      ["This operation was aborted", new DOMException("This operation was aborted", "AbortError")]
    ]

    for (const [name, cause] of causes) {
      it.effect(`"${cause.message}" (${name}) within an answer is a truncated stream`, () =>
        Effect.gen(function*() {
          const streamed = yield* failureOf(Stream.runDrain(stream())).pipe(
            Effect.provide(over(wire, wire.head + wire.delta("a"), cause))
          )
          const rejection = truncatedOf(streamed)
          assert.strictEqual(rejection.hadOutput, true)
          assert.include(rejection.lost, name)
          const whole = yield* failureOf(generate()).pipe(Effect.provide(over(wire, half, cause)))
          assert.include(truncatedOf(whole).lost, name)
        }))
    }
  })
}

/** The model over a client whose response sends the text, and then fails. */
const over = (wire: Wire, text: string, cause: Error) => {
  const client = HttpClient.make((request) =>
    Effect.sync(() => {
      let isSent = false
      const body = new ReadableStream<Uint8Array>({
        pull: (controller) => {
          if (isSent) return controller.error(cause)
          isSent = true
          controller.enqueue(new TextEncoder().encode(text))
        }
      })
      return HttpClientResponse.fromWeb(request, new Response(body, { status: 200 }))
    })
  )
  const options = { url: "http://127.0.0.1:1/v1", model: "m1" }
  const layer = wire.module === "OpenAiCompatible" ? OpenAiCompatible.layer(options) : AnthropicMessages.layer(options)
  return Layer.provide(layer, Layer.succeed(HttpClient.HttpClient, client))
}
