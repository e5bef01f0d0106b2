import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Option } from "effect"
import { AiError } from "effect/ai"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as Zlib from "node:zlib"
import { throughJson } from "./support/json.ts"
import { generate, streamedText } from "./support/model.ts"
import { type Answer, json, rawServer, sse } from "./support/rawServer.ts"
import { begin, failures, httpOf, isStreamed, streamFailure, textAt, wires } from "./support/wires.ts"

// Behaviour that both wires share, on each of them, over real sockets.

for (const wire of wires) {
  describe(`bytes of a stream, ${wire.module}`, () => {
    it.live("a stream may be split within any character", () =>
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

    it.live("a stream may have any line ending, comments and data over several lines", () =>
      Effect.gen(function*() {
        const lines = JSON.stringify(wire.content("a b"), null, 1).split("\n")
        const multiline = lines.map((line) => `data: ${line}`).join("\n") + "\n\n"
        const text = `\uFEFF: keep-alive\n\nid: 1\nretry: 10\n${wire.head}${multiline}:ping\n${wire.finish}${wire.done}`
        for (const ending of ["\n", "\r\n", "\r"]) {
          const sent = text.replaceAll("\n", ending)
          assert.strictEqual(yield* textAt(wire, (response) => sse(response, sent)), "a b", JSON.stringify(ending))
        }
      }))

    it.live("an event may have nearly 1 Mi characters and no more", () =>
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

    it.live("whole answers and streams may be compressed", () =>
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

  describe(`endless streams, ${wire.module}`, () => {
    const failsAtBound = (event: (n: number) => string) =>
      Effect.gen(function*() {
        let n = 0
        const { error } = yield* streamFailure(wire, (response) => {
          begin(response, wire.head)
          const timer = setInterval(() => response.write(event(n++)), 1)
          response.on("close", () => clearInterval(timer))
        }, { maxAnswerSize: 100 })
        assert.include(error.message, "more than 100 characters")
      })

    it.live("an endless stream is bounded by its text and by the names of its tool calls", () =>
      Effect.gen(function*() {
        yield* failsAtBound(() => wire.delta("some text"))
        yield* failsAtBound((n) => wire.toolCall.replace("t1", `t${n}`))
      }))
  })

  describe(`incomplete answers, ${wire.module}`, () => {
    const phases: ReadonlyArray<readonly [string, string, number, boolean]> = [
      ["before its first event", "", 0, false],
      ["within its first event", wire.head.slice(0, 20), 0, false],
      ["before its first content", wire.head, 1, false],
      ["after some content", wire.head + wire.delta("a") + wire.delta("b"), 3, true],
      ["within an event", wire.head + wire.delta("a") + wire.delta("b").slice(0, -10), 2, true],
      ["within a tool call", wire.head + wire.toolCall, 2, true],
      ["within its finish reason", wire.head + wire.delta("a") + wire.finish.slice(0, -10), 2, true]
    ]
    for (const [when, sent, atLeast, hadOutput] of phases) {
      it.live(`a stream that ends ${when} is truncated`, () =>
        Effect.gen(function*() {
          const { error } = yield* streamFailure(wire, (response) => sse(response, sent))
          assert.strictEqual(error.reason._tag, "InternalProviderError")
          assert.include(error.message, "127.0.0.1: answer truncated after ")
          assert.include(error.message, "without a finish reason; ")
          assert.strictEqual(httpOf(error)?.response?.status, 200)
          assert.deepInclude(AiOutcome.fromAiError(error), { _tag: "Failure", retryable: true })
          const rejection = Option.getOrThrow(AiRejection.fromAiError(throughJson(AiError.AiError, error)))
          if (rejection._tag !== "TruncatedStream") return assert.fail(rejection._tag)
          assert.deepInclude({ ...rejection }, { target: "127.0.0.1", hadOutput })
          assert.isAtLeast(rejection.parts, atLeast)
        }))

      it.live(`a stream that is reset ${when} is truncated`, () =>
        Effect.gen(function*() {
          const { error } = yield* streamFailure(wire, (response) => {
            begin(response, sent)
            setTimeout(() => response.destroy(), 10)
          })
          assert.strictEqual(error.reason._tag, "InternalProviderError")
          assert.deepInclude(AiOutcome.fromAiError(error), { _tag: "Failure", retryable: true })
          const rejection = Option.getOrThrow(AiRejection.fromAiError(throughJson(AiError.AiError, error)))
          if (rejection._tag !== "TruncatedStream") return assert.fail(rejection._tag)
          assert.deepInclude({ ...rejection }, { target: "127.0.0.1", hadOutput })
          assert.include(error.message, rejection.message)
        }))
    }

    it.live("a connection lost before the response is a network error", () =>
      Effect.gen(function*() {
        for (const error of yield* failures(wire, (response) => response.destroy())) {
          assert.strictEqual(error.reason._tag, "NetworkError")
        }
      }))

    it.live("a whole answer that is cut is malformed, and one that is reset is truncated", () =>
      Effect.gen(function*() {
        const half = JSON.stringify(wire.whole("hello")).slice(0, -20)
        const [cut] = yield* failures(wire, (response) => json(response, 200, half))
        assert.strictEqual(cut?.reason._tag, "InternalProviderError")
        const [reset] = yield* failures(wire, (response) => {
          response.writeHead(200, { "content-type": "application/json" })
          response.write(half)
          setTimeout(() => response.destroy(), 10)
        })
        assert.isTrue(AiRejection.is("TruncatedStream", reset))
      }))

    it.live("a compressed stream that is cut is truncated before its finish reason and complete after it", () =>
      Effect.gen(function*() {
        const cut = (sent: string): Answer => (response) => {
          response.writeHead(200, { "content-type": "text/event-stream", "content-encoding": "gzip" })
          const zip = Zlib.createGzip()
          zip.on("data", (bytes) => response.write(bytes))
          zip.write(sent)
          zip.flush(() => setTimeout(() => response.end(), 10))
        }
        const { error } = yield* streamFailure(wire, cut(wire.head + wire.delta("a")))
        assert.isTrue(AiRejection.is("TruncatedStream", error))
        assert.strictEqual(yield* textAt(wire, cut(wire.head + wire.delta("whole") + wire.finish)), "whole")
      }))

    it.live("a stream that is cut or reset after its finish reason is complete", () =>
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

    it.live(
      "a stream ends soon after its finish reason if the server keeps the connection open",
      () =>
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
              assert.isBelow(Duration.toMillis(took), 30_000)
              yield* Effect.timeout(Fiber.join(closed), "30 seconds")
            }), { concurrency: "unbounded" })
        }),
      30_000
    )
  })
}
