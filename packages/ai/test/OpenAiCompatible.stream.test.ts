import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Stream } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import { type Read, read } from "./support/bytes.ts"
import { stream } from "./support/model.ts"
import { delta, done, event, finish } from "./support/rawServer.ts"

const bytes = (text: string) => new TextEncoder().encode(text)

const message = ({ failure }: Read): string => failure?.message ?? "no failure"

const reason = (chunks: string) => Effect.map(read([chunks]), ({ failure }) => failure?.reason._tag)

const last = (chunks: string) => Effect.map(read([chunks]), ({ parts }) => parts.at(-1))

describe("streams of OpenAiCompatible", () => {
  it.effect("the text of a stream is the same wherever its bytes are split", () =>
    Effect.gen(function*() {
      const whole = bytes(delta("naïve 😀 日本") + delta("…") + finish() + done)
      for (let at = 0; at <= whole.length; at++) {
        const { failure, text } = yield* read([whole.subarray(0, at), whole.subarray(at)])
        assert.isUndefined(failure)
        assert.strictEqual(text, "naïve 😀 日本…", `split at byte ${at}`)
      }
    }), 30_000)

  it.effect("the text of a stream is the same if every byte arrives by itself", () =>
    Effect.gen(function*() {
      const whole = bytes(delta("naïve 😀") + finish() + done)
      assert.strictEqual((yield* read([...whole].map((byte) => Uint8Array.of(byte)))).text, "naïve 😀")
    }))

  it.effect("a stream may use any line ending, comments, other fields and data over several lines", () =>
    Effect.gen(function*() {
      const json = JSON.stringify({ choices: [{ index: 0, delta: { content: "a b" } }] }, null, 1)
      const multiline = json.split("\n").map((line) => `data: ${line}`).join("\n") + "\n\n"
      const text = `\uFEFF: keep-alive\n\nevent: message\nid: 1\nretry: 10\n${multiline}:ping\n` +
        `data:${JSON.stringify({ choices: [{ delta: { content: "c" } }] })}\n\n` + finish() + done
      for (const ending of ["\n", "\r\n", "\r"]) {
        const answer = yield* read([text.replaceAll("\n", ending)])
        assert.isUndefined(answer.failure)
        assert.strictEqual(answer.text, "a bc")
      }
    }))

  it.effect("a stream with a finish reason succeeds, with or without [DONE], and ignores what follows", () =>
    Effect.gen(function*() {
      const after = [delta("not for us"), "data: {broken\n\n", event({ error: "overloaded" }), "data: [1]\n\n"]
      for (const end of [done, "", ...after.map((text) => done + text), ...after.slice(1)]) {
        const answer = yield* read([delta("a") + finish() + end])
        assert.isUndefined(answer.failure)
        assert.strictEqual(answer.text, "a")
        assert.strictEqual(answer.parts.at(-1)?.type, "finish")
      }
    }))

  it.effect("a stream without a finish reason fails as truncated, with or without [DONE]", () =>
    Effect.gen(function*() {
      for (const end of [done, "", "data: {\"choices\":[]"]) {
        const answer = yield* read([delta("a") + delta("b") + end])
        assert.strictEqual(answer.text, "ab")
        assert.strictEqual(answer.failure?.reason._tag, "InternalProviderError")
        assert.include(message(answer), "truncated")
        assert.include(message(answer), "after 4 parts, without a finish reason; partial output was handed on")
      }
      assert.include(message(yield* read([])), "after 0 parts, without a finish reason; no output was handed on")
    }))

  it.effect("an event that is not JSON fails with its first characters", () =>
    Effect.gen(function*() {
      const answer = yield* read([delta("a") + `data: {"choices": <<<${"x".repeat(200)}\n\n` + finish()])
      assert.strictEqual(answer.text, "a")
      assert.strictEqual(answer.failure?.reason._tag, "InternalProviderError")
      assert.include(message(answer), `malformed response: "{\\"choices\\": <<<xxx`)
      assert.notInclude(message(answer), "x".repeat(80))
    }))

  it.effect("an error event fails with a reason by its code and type", () =>
    Effect.gen(function*() {
      const failed = (error: unknown) => reason(delta("a") + event({ error }) + done)
      assert.strictEqual(yield* failed({ message: "overloaded", type: "server_error" }), "InternalProviderError")
      assert.strictEqual(yield* failed("overloaded"), "InternalProviderError")
      assert.strictEqual(yield* failed({ message: "bad gateway", code: 502 }), "InternalProviderError")
      assert.strictEqual(yield* failed({ message: "slow down", code: "rate_limit_exceeded" }), "RateLimitError")
      assert.strictEqual(yield* failed({ message: "slow down", code: 429 }), "RateLimitError")
      assert.strictEqual(yield* failed({ message: "pay", code: "insufficient_quota" }), "QuotaExhaustedError")
      assert.strictEqual(yield* failed({ message: "no", type: "invalid_request_error" }), "InvalidRequestError")
      assert.strictEqual(yield* failed({ message: "no", code: "content_filter" }), "ContentPolicyError")
    }))

  it.effect("a refusal of the model fails with its text", () =>
    Effect.gen(function*() {
      const refusal = (text: string) => event({ choices: [{ index: 0, delta: { refusal: text } }] })
      const answer = yield* read([refusal("I cannot ") + refusal("help.") + finish() + done])
      assert.strictEqual(answer.failure?.reason._tag, "ContentPolicyError")
      assert.include(message(answer), "I cannot help.")
    }))

  it.effect("JSON that is no part of an answer is an invalid response", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* reason("data: [1,2]\n\n"), "InvalidResponseError")
      assert.strictEqual(yield* reason(event({ choices: "none" })), "InvalidResponseError")
    }))

  it.effect("the size, the events and the depth of a stream are bounded", () =>
    Effect.gen(function*() {
      const long = delta("x".repeat(200))
      assert.include(message(yield* read([long + finish()], { maxAnswerSize: 199 })), "more than 199 characters")
      assert.include(message(yield* read([long + finish()], { maxEventSize: 100 })), "an event of more than 100")
      assert.include(
        message(yield* read([`data: ${"x".repeat(200)}`], { maxEventSize: 100 })),
        "an event of more than 100"
      )
      const deep = `data: {"x":${"[".repeat(20)}${"]".repeat(20)}}\n\n`
      assert.include(message(yield* read([deep + finish()], { maxJsonDepth: 16 })), "deeper than 16")
    }))

  it.effect("the bounds count the text that a consumer gets, not the JSON around it", () =>
    Effect.gen(function*() {
      const many = Array.from({ length: 100 }, () => delta("12345")).join("")
      assert.isUndefined((yield* read([many + finish()], { maxAnswerSize: 500 })).failure)
      const brackets = event({ x: "[".repeat(500) })
      assert.isUndefined((yield* read([brackets + finish()], { maxJsonDepth: 16 })).failure)
    }))

  it.effect("fields called __proto__ and constructor are plain fields", () =>
    Effect.gen(function*() {
      const hostile = `"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}`
      const answer = yield* read([`data: {${hostile},"choices":[{"delta":{"content":"a",${hostile}}}]}\n\n`, finish()])
      assert.strictEqual(answer.text, "a")
      assert.isUndefined(({} as { polluted?: number }).polluted)
    }))

  it.effect("reasoning and text are separate parts, under either name for reasoning", () =>
    Effect.gen(function*() {
      for (const name of ["reasoning", "reasoning_content"]) {
        const thought = event({ choices: [{ index: 0, delta: { [name]: "hm" } }] })
        const { parts } = yield* read([thought + thought + delta("a") + finish() + done])
        assert.deepStrictEqual(parts.map(({ type }) => type), [
          "response-metadata",
          "reasoning-start",
          "reasoning-delta",
          "reasoning-delta",
          "reasoning-end",
          "text-start",
          "text-delta",
          "text-end",
          "finish"
        ])
      }
    }))

  it.effect("other choices are ignored", () =>
    Effect.gen(function*() {
      const other = event({ choices: [{ index: 1, delta: { content: "other" }, finish_reason: "length" }] })
      const answer = yield* read([delta("a") + other + finish()])
      assert.strictEqual(answer.text, "a")
      assert.deepInclude(answer.parts.at(-1), { type: "finish", reason: "stop" })
    }))

  it.effect("finish reasons become Effect's finish reasons", () =>
    Effect.gen(function*() {
      const reasons = [
        ["stop", "stop"],
        ["length", "length"],
        ["content_filter", "content-filter"],
        ["tool_calls", "tool-calls"],
        ["function_call", "tool-calls"],
        ["something_new", "other"]
      ] as const
      for (const [sent, expected] of reasons) {
        assert.deepInclude(yield* last(delta("a") + finish(sent)), { type: "finish", reason: expected })
      }
      assert.strictEqual(yield* reason(delta("a") + finish("error")), "InternalProviderError")
    }))

  it.effect("valid token counts are used, and others are left out", () =>
    Effect.gen(function*() {
      const usage = (sent: unknown) =>
        Effect.map(
          last(delta("a") + finish() + event({ choices: [], usage: sent }) + done),
          (part) => part?.type === "finish" ? [part.usage.inputTokens, part.usage.outputTokens] : undefined
        )
      assert.deepStrictEqual(
        yield* usage({
          prompt_tokens: 10,
          completion_tokens: 7,
          prompt_tokens_details: { cached_tokens: 4 },
          completion_tokens_details: { reasoning_tokens: 5 }
        }),
        [
          { total: 10, uncached: 6, cacheRead: 4, cacheWrite: undefined },
          { total: 7, text: 2, reasoning: 5 }
        ]
      )
      const none = [
        { total: undefined, uncached: undefined, cacheRead: undefined, cacheWrite: undefined },
        { total: undefined, text: undefined, reasoning: undefined }
      ]
      for (
        const sent of [null, undefined, 5, {}, { prompt_tokens: -1, completion_tokens: "7" }, { prompt_tokens: 1.5 }]
      ) {
        assert.deepStrictEqual(yield* usage(sent), none)
      }
    }))
})

describe("the end of a stream of OpenAiCompatible", () => {
  /** Starts a stream from a server that stays connected. Returns its `send` and the fiber that reads the stream. */
  const connected = (sent: string) =>
    Effect.gen(function*() {
      const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>()
      const writer = writable.getWriter()
      const send = (text: string) => Effect.sync(() => void writer.write(bytes(text)))
      const transport = HttpClient.make((request) =>
        Effect.succeed(
          HttpClientResponse.fromWeb(
            request,
            new Response(readable, { headers: { "content-type": "text/event-stream" } })
          )
        )
      )
      const model = OpenAiCompatible.layer({ url: "http://127.0.0.1/v1", model: "m1" }).pipe(
        Layer.provide(Layer.succeed(HttpClient.HttpClient, transport))
      )
      const hasText = yield* Deferred.make<void>()
      const reading = yield* stream().pipe(
        Stream.tap((part) => part.type === "text-delta" ? Deferred.succeed(hasText, undefined) : Effect.void),
        Stream.runLast,
        Effect.provide(model),
        Effect.forkChild
      )
      yield* send(sent)
      yield* Deferred.await(hasText)
      return { send, reading }
    })

  it.effect("after its finish reason, a stream waits five seconds for its end and no longer", () =>
    Effect.gen(function*() {
      const { reading } = yield* connected(delta("a") + finish())
      yield* TestClock.adjust("4999 millis")
      assert.isUndefined(reading.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const last = yield* Fiber.join(reading)
      assert.deepInclude(last._tag === "Some" ? last.value : {}, { type: "finish", reason: "stop" })
    }))

  it.effect("late token counts are used, and then the connection gets 100 ms to end", () =>
    Effect.gen(function*() {
      const { reading, send } = yield* connected(delta("a") + finish())
      yield* TestClock.adjust("900 millis")
      yield* send(event({ choices: [], usage: { completion_tokens: 7 } }) + done)
      yield* TestClock.withLive(Effect.sleep("20 millis"))
      yield* TestClock.adjust("100 millis")
      const last = yield* Fiber.join(reading)
      assert.strictEqual(
        last._tag === "Some" && last.value.type === "finish" ? last.value.usage.outputTokens.total : undefined,
        7
      )
    }))

  it.effect("before its finish reason, a stream waits without a limit", () =>
    Effect.gen(function*() {
      const { reading } = yield* connected(delta("a"))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(reading.pollUnsafe())
      yield* Fiber.interrupt(reading)
    }))
})

describe("tool calls in a stream of OpenAiCompatible", () => {
  const call = (fragment: object) => event({ choices: [{ index: 0, delta: { tool_calls: [fragment] } }] })
  const answerWith = (chunks: string, why = "tool_calls") => read([chunks + finish(why) + done])
  const callsOf = ({ parts }: Read) =>
    parts.flatMap((part) => part.type === "tool-call" ? [{ id: part.id, name: part.name, params: part.params }] : [])

  it.effect("tool calls are assembled from their fragments, even if these are interleaved", () =>
    Effect.gen(function*() {
      const answer = yield* answerWith(
        call({ index: 0, id: "a", function: { name: "add", arguments: "" } }) +
          call({ index: 1, id: "b", function: { name: "multiply", arguments: "{\"x\"" } }) +
          call({ index: 0, function: { arguments: "{\"x\":" } }) +
          call({ index: 1, id: "", function: { arguments: ":2}" } }) +
          call({ index: 0, id: "a", function: { name: "add", arguments: "1}" } })
      )
      assert.deepStrictEqual(callsOf(answer), [
        { id: "a", name: "add", params: { x: 1 } },
        { id: "b", name: "multiply", params: { x: 2 } }
      ])
      assert.deepStrictEqual(
        answer.parts.filter((part) => "id" in part && part.id === "a").map(({ type }) => type),
        ["tool-params-start", "tool-params-delta", "tool-params-delta", "tool-params-end", "tool-call"]
      )
    }))

  it.effect("tool calls are distinguished by id if the index is missing or constant", () =>
    Effect.gen(function*() {
      for (const index of [{}, { index: 0 }]) {
        const answer = yield* answerWith(
          call({ ...index, id: "a", function: { name: "add", arguments: "{}" } }) +
            call({ ...index, id: "b", function: { name: "multiply", arguments: "{}" } })
        )
        assert.deepStrictEqual(callsOf(answer).map(({ id }) => id), ["a", "b"])
      }
    }))

  it.effect("a tool call without an id gets one, and one without arguments gets empty ones", () =>
    Effect.gen(function*() {
      const calls = callsOf(
        yield* answerWith(call({ index: 0, function: { name: "now" } }) + call({ index: 1, function: { name: "now" } }))
      )
      assert.deepStrictEqual(calls.map(({ name, params }) => [name, params]), [["now", {}], ["now", {}]])
      assert.notStrictEqual(calls[0]?.id, calls[1]?.id)
    }))

  it.effect("a tool call with invalid JSON fails, unless the answer ended at its length limit", () =>
    Effect.gen(function*() {
      const broken = call({ index: 0, id: "a", function: { name: "add", arguments: "{\"x\":" } })
      assert.strictEqual((yield* answerWith(broken)).failure?.reason._tag, "ToolParameterValidationError")
      const cutOff = yield* answerWith(broken, "length")
      assert.isUndefined(cutOff.failure)
      assert.deepStrictEqual(callsOf(cutOff), [])
      assert.deepInclude(cutOff.parts.at(-1), { type: "finish", reason: "length" })
    }))

  it.effect("a tool call without a name or with too deeply nested arguments fails", () =>
    Effect.gen(function*() {
      const nameless = yield* answerWith(call({ index: 0, id: "a", function: { arguments: "{}" } }))
      assert.strictEqual(nameless.failure?.reason._tag, "ToolParameterValidationError")
      const deep = "[".repeat(80) + "]".repeat(80)
      const answer = yield* answerWith(call({ index: 0, id: "a", function: { name: "add", arguments: deep } }))
      assert.include(message(answer), "nested deeper than 64")
    }))
})
