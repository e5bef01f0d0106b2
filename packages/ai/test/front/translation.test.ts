import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import type * as Front from "@sluice/ai/Front"
import { type Answer, json, rawServer } from "../support/rawServer.ts"
import { fetched, frontOf, node, within } from "./edges.ts"
import { anthropic, chat, type FrontWire } from "./wires.ts"

const answering = (wire: FrontWire): Answer => (response, { body }) => {
  if (!body.includes("\"stream\":true")) return json(response, 200, wire.answer)
  response.writeHead(200, { "content-type": "text/event-stream" })
  response.end(wire.head + wire.word("hi ") + wire.word("you") + wire.finish + wire.end)
}

const at = (url: string, wire: FrontWire, more?: Partial<Front.FrontTarget>): Front.FrontTarget => ({
  name: wire.speaks,
  url,
  speaks: wire.speaks,
  ...more
})

/** The texts of the deltas of a stream. */
const textOf = (stream: string): string =>
  [...stream.matchAll(/"(?:content|text)":"([^"]*)"/g)].map(([, text = ""]) => text).join("")

const pairs = [
  { client: chat, target: anthropic, end: "data: [DONE]\n\n" },
  { client: anthropic, target: chat, end: anthropic.end }
] as const

// The wires of `wires.ts` have fields without an equal, so that they show what passes.
const plain = (body: string): string =>
  body.replace("\"big\":12345678901234567890,\"f\":1.0,", "").replace(/,"big".*\}$/, "}")

describe("targets with the other API", () => {
  for (const { client, end, target } of pairs) {
    it.live(`a client of ${client.wire} gets whole and streamed answers of ${target.wire}`, () =>
      Effect.gen(function*() {
        const provider = yield* rawServer(answering(target))
        const front = yield* frontOf([at(provider.url, target, { apiKey: Redacted.make("key"), model: "theirs" })])
        const headers = { "anthropic-beta": "x", "openai-organization": "o" }
        const streamed = yield* node.ask(front, { path: client.path, body: plain(client.stream), headers })
        assert.strictEqual(textOf(streamed.text), "hi you")
        assert.isTrue(streamed.text.endsWith(end), streamed.text)
        const whole = yield* fetched.ask(front, { path: client.path, body: plain(client.whole) })
        assert.strictEqual(whole.status, 200)
        assert.strictEqual(whole.headers["content-length"], String(whole.text.length))
        assert.strictEqual(textOf(whole.text), "hi")
        const [first] = provider.requests
        assert.strictEqual(first?.path, target.path)
        assert.include(first?.body, "\"model\":\"theirs\"")
        assert.isUndefined(first?.headers["anthropic-beta"] ?? first?.headers["openai-organization"])
        assert.deepStrictEqual(front.call(streamed.headers["x-sluice-call"]!)?.usage, {
          inputTokens: 3,
          outputTokens: 4,
          estimated: false
        })
      }).pipe(Effect.scoped, within))

    it.live(`a stream of ${target.wire} that is cut ends with an error of ${client.wire}, and no end`, () =>
      Effect.gen(function*() {
        const provider = yield* rawServer((response, _, n) => {
          response.writeHead(200, { "content-type": "text/event-stream" })
          response.write(
            target.head + (n === 1 ? "" : target.word("one")),
            () => setTimeout(() => response.destroy(), 5)
          )
        })
        const front = yield* frontOf([at(provider.url, target)])
        const got = yield* node.ask(front, { path: client.path, body: plain(client.stream) })
        // The first attempt has no output.
        assert.strictEqual(provider.requests.length, 2)
        assert.strictEqual(textOf(got.text), "one")
        assert.strictEqual(got.end, "Clean")
        assert.include(got.text, "The answer ended before it was complete.")
        assert.isFalse(
          got.text.includes(end) || got.text.includes("finish_reason\":\"") || got.text.includes("stop_reason\":\"")
        )
        assert.strictEqual(got.text.includes("event: error"), client === anthropic)
      }).pipe(Effect.scoped, within))

    it.live(`an error of ${target.wire} has the form of ${client.wire}`, () =>
      Effect.gen(function*() {
        const error = { type: "error", error: { type: "invalid_request_error", message: "bad temperature" } }
        const provider = yield* rawServer((response) => json(response, 400, error))
        const front = yield* frontOf([at(provider.url, target)])
        const got = yield* fetched.ask(front, { path: client.path, body: plain(client.whole) })
        const body = JSON.parse(got.text) as { readonly type?: string; readonly error: { readonly message: string } }
        assert.deepStrictEqual([got.status, body.error.message], [400, "bad temperature"])
        assert.strictEqual(body.type, client === anthropic ? "error" : undefined)
      }).pipe(Effect.scoped, within))
  }

  const withSeed = plain(chat.whole).replace("{", "{\"seed\":1,")

  it.live("a request with a field that has no equal is refused by name, and never sent", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(answering(anthropic))
      const front = yield* frontOf([at(provider.url, anthropic)])
      const got = yield* node.ask(front, { path: chat.path, body: withSeed })
      const { error } = JSON.parse(got.text) as { readonly error: { readonly code: string; readonly param: string } }
      assert.deepStrictEqual([got.status, error.code, error.param], [400, "unsupported_parameter", "seed"])
      assert.strictEqual(provider.requests.length, 0)
    }).pipe(Effect.scoped, within))

  it.live("such a request goes only to targets with the client's API, and fails with their error", () =>
    Effect.gen(function*() {
      const other = yield* rawServer(answering(anthropic))
      const same = yield* rawServer((response, received, n) =>
        n === 1 ? answering(chat)(response, received, n) : json(response, 503, { error: { message: "down" } })
      )
      const front = yield* frontOf([at(other.url, anthropic), at(same.url, chat)])
      const first = yield* node.ask(front, { path: chat.path, body: withSeed })
      const second = yield* node.ask(front, { path: chat.path, body: withSeed })
      assert.deepStrictEqual([first.status, second.status, other.requests.length], [200, 503, 0])
    }).pipe(Effect.scoped, within))

  it.live("without translation only targets with the client's API are asked", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(answering(anthropic))
      const front = yield* frontOf([at(provider.url, anthropic)], { translate: false })
      const got = yield* node.ask(front, { path: chat.path, body: plain(chat.whole) })
      assert.deepStrictEqual([got.status, provider.requests.length], [404, 0])
    }).pipe(Effect.scoped, within))

  it.live("a field that changes only the cost is left out and named", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(answering(chat))
      const front = yield* frontOf([at(provider.url, chat)])
      const content = [{ type: "text", text: "Hello", cache_control: { type: "ephemeral" } }]
      const body = JSON.stringify({ model: "m", max_tokens: 9, messages: [{ role: "user", content }] })
      const got = yield* node.ask(front, { path: anthropic.path, body })
      assert.strictEqual(got.status, 200)
      assert.include(got.headers["x-sluice-omitted"], "cache_control")
    }).pipe(Effect.scoped, within))

  it.live("a field that the options let go is left out and named", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(answering(anthropic))
      const front = yield* frontOf([at(provider.url, anthropic)], { omittable: ["seed"] })
      const got = yield* node.ask(front, { path: chat.path, body: withSeed })
      assert.deepStrictEqual([got.status, got.headers["x-sluice-omitted"]], [200, "seed"])
      assert.notInclude(provider.requests[0]?.body, "seed")
    }).pipe(Effect.scoped, within))

  it.live("an overload has the status of the client's API", () =>
    Effect.gen(function*() {
      const error = { type: "error", error: { type: "overloaded_error", message: "busy" } }
      const provider = yield* rawServer((response) => json(response, 529, error))
      const front = yield* frontOf([at(provider.url, anthropic)], { retriesHere: 0 })
      const got = yield* fetched.ask(front, { path: chat.path, body: plain(chat.whole) })
      assert.strictEqual(got.status, 503)
      assert.include(got.text, "busy")
    }).pipe(Effect.scoped, within))
})
