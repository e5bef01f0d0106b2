import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Turn from "@sluice/ai/testing/Turn"
import { events, lastEntry, loopbackWires, makeProvider, shortTimeout } from "../support/loopbackWires.ts"
import { waitForJournal } from "../support/provider.ts"

for (const wire of loopbackWires) {
  describe(`faults over the ${wire.name} wire`, () => {
    const { send } = wire

    it.live("a stall is silent after some tokens until the client leaves", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.stall({ afterTokens: 2 })])
        for (const stream of [true, false]) {
          const fiber = yield* Effect.forkChild(send(provider, stream, {}, {}, shortTimeout))
          yield* waitForJournal(
            provider,
            (entries) => entries.at(-1)?.stream === stream && entries.at(-1)?.outputTokens === 2
          )
          yield* Effect.sleep(20)
          // On a busy machine the client may have left by now.
          assert.include(["open", "clientClosed"], (yield* lastEntry(provider)).ending)
          const { body, broke } = yield* Fiber.join(fiber)
          assert.isTrue(broke)
          if (stream) assert.deepStrictEqual(wire.streamed(body), ["a b", undefined])
          yield* waitForJournal(provider, (entries) => entries.at(-1)?.ending === "clientClosed")
        }
      }), 20_000)

    it.live("a stall with a duration sends the rest after it", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.stall({ afterTokens: 2, duration: "80 millis" })])
        for (const stream of [true, false]) {
          const { body } = yield* send(provider, stream)
          const read = stream ? wire.streamed : wire.whole
          assert.deepStrictEqual(read(body), ["a b c d", wire.finish.stop])
          const { ended, received } = yield* lastEntry(provider)
          assert.isAtLeast(ended!.monotonic - received.monotonic, 78)
        }
      }))

    it.live("a stall or a hang with pings keeps the connection alive without output", () =>
      Effect.gen(function*() {
        const sign = wire.name === "openai" ? ": keep-alive" : "event: ping"
        const signs = (body: string) => body.split(sign).length - (wire.name === "openai" ? 1 : 2)
        const provider = yield* makeProvider([
          Turn.stall({ afterTokens: 2, ping: "20 millis", duration: "100 millis" }),
          Turn.stall({ afterTokens: 2, ping: "20 millis" }),
          Turn.hang({ headers: true, ping: "20 millis" })
        ])
        const ending = yield* send(provider, true)
        assert.deepStrictEqual(wire.streamed(ending.body), ["a b c d", wire.finish.stop])
        assert.strictEqual(signs(ending.body), 4)
        const endless = yield* send(provider, true, {}, {}, shortTimeout)
        assert.deepStrictEqual([wire.streamed(endless.body)[0], endless.broke], ["a b", true])
        assert.isAtLeast(signs(endless.body), 3)
        assert.include((yield* send(provider, true, {}, {}, shortTimeout)).body, sign)
      }), 20_000)

    it.live("a cut sends some tokens and closes the response normally", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.cut({ afterTokens: 3 })])
        const streamed = yield* send(provider, true)
        assert.deepStrictEqual([...wire.streamed(streamed.body), streamed.broke], ["a b c", undefined, false])
        const whole = yield* send(provider, false)
        assert.throws(() => JSON.parse(whole.body))
        assert.deepInclude(yield* lastEntry(provider), { status: 200, ending: "cut", outputTokens: 3, turn: "Cut" })
      }))

    it.live("a reset occurs before any answer or after some tokens", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.reset(), Turn.reset(), Turn.reset({ afterTokens: 2 })])
        for (const stream of [true, false]) {
          assert.deepInclude(yield* send(provider, stream), { status: undefined, broke: true })
        }
        const within = yield* send(provider, true)
        assert.deepStrictEqual([within.status, within.broke, wire.streamed(within.body)[0]], [200, true, "a b"])
        assert.deepInclude(yield* send(provider, false), { status: 200, broke: true })
        assert.deepStrictEqual((yield* provider.journal).map(({ ending }) => ending), Array(4).fill("reset"))
      }))

    it.live("malformed sends an event that is not JSON among others", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.malformed({ afterTokens: 2, text: "{oops" })])
        const { body } = yield* send(provider, true)
        assert.include(body, "data: {oops\n\n")
        assert.deepStrictEqual(wire.streamed(body), ["a b c d", wire.finish.stop])
        assert.strictEqual((yield* send(provider, false)).body, "{oops")
      }))

    it.live("an error is sent within a response with status 200, in the form of the wire", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([
          Turn.error({ type: "overloaded_error", message: "no more", afterTokens: 2 })
        ])
        const { body, status } = yield* send(provider, true)
        const last = events(body).at(-1)
        assert.deepStrictEqual([status, wire.streamed(body)[0]], [200, "a b"])
        assert.deepStrictEqual(wire.error(JSON.stringify(last)), ["overloaded_error", "no more"])
        if (wire.name === "anthropic") assert.include(body, "event: error\n")
        const whole = yield* send(provider, false)
        assert.deepStrictEqual([whole.status, ...wire.error(whole.body)], [200, "overloaded_error", "no more"])
      }))

    it.live("a status has the error of the wire, its Retry-After and its headers", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([
          Turn.status(429, { retryAfter: "1500 millis", headers: { "X-Region": "b" } }),
          Turn.status(500, { error: { message: "mine" } }),
          Turn.status(418, { body: "teapot", headers: { "Content-Type": "text/plain" } })
        ])
        const limited = yield* send(provider, true)
        assert.deepInclude(limited.headers, { "retry-after": "2", "retry-after-ms": "1500", "x-region": "b" })
        assert.strictEqual(wire.error(limited.body)[0], wire.name === "openai" ? "requests" : "rate_limit_error")
        assert.deepInclude(yield* lastEntry(provider), { status: 429, ending: "refused", retryAfterMillis: 1500 })
        assert.deepStrictEqual(wire.error((yield* send(provider, false)).body), [
          wire.name === "openai" ? "server_error" : "api_error",
          "mine"
        ])
        const teapot = yield* send(provider, false)
        assert.deepStrictEqual([teapot.status, teapot.body, teapot.headers["content-type"]], [
          418,
          "teapot",
          "text/plain"
        ])
      }))

    it.live("redirect and html are no answers", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.redirect("https://elsewhere.example/v1"), Turn.html()])
        const redirected = yield* send(provider, true)
        assert.deepStrictEqual([redirected.status, redirected.headers["location"]], [
          307,
          "https://elsewhere.example/v1"
        ])
        const page = yield* send(provider, true)
        assert.include(page.headers["content-type"], "text/html")
        assert.include(page.body, "<html>")
      }))

    it.live("each refusal has its status and its error type", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider(Turn.Why.literals.map((why) => Turn.refusal(why)))
        const refusals = yield* Effect.forEach(Turn.Why.literals, (why) =>
          Effect.map(send(provider, false), ({ body, status }) => `${why} ${status} ${wire.error(body)[0]}`))
        assert.deepStrictEqual(
          refusals,
          wire.name === "openai"
            ? [
              "rateLimit 429 requests",
              "overloaded 503 server_error",
              "failed 500 server_error",
              "quota 429 insufficient_quota",
              "key 401 invalid_request_error",
              "permission 403 invalid_request_error",
              "model 404 invalid_request_error",
              "contextLength 400 invalid_request_error",
              "contentPolicy 400 invalid_request_error",
              "request 400 invalid_request_error"
            ]
            : [
              "rateLimit 429 rate_limit_error",
              "overloaded 529 overloaded_error",
              "failed 500 api_error",
              "quota 400 invalid_request_error",
              "key 401 authentication_error",
              "permission 403 permission_error",
              "model 404 not_found_error",
              "contextLength 400 invalid_request_error",
              "contentPolicy 400 invalid_request_error",
              "request 400 invalid_request_error"
            ]
        )
      }))

    it.live("a hang sends nothing, or nothing after the status", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.hang(), Turn.hang({ headers: true })])
        assert.deepInclude(yield* send(provider, true, {}, {}, shortTimeout), {
          status: undefined,
          broke: true
        })
        assert.deepInclude(yield* send(provider, true, {}, {}, shortTimeout), { status: 200, body: "", broke: true })
        const entries = yield* waitForJournal(provider, (entries) => entries.at(-1)?.ending === "clientClosed")
        assert.deepInclude(entries.at(-1), { inputTokens: 0, outputTokens: 0, turn: "Hang" })
      }), 20_000)
  })
}
