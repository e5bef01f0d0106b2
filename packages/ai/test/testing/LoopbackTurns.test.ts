import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Redacted } from "effect"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import type OpenAI from "openai"
import { official, question } from "../support/provider.ts"

type Provider = LoopbackProvider.LoopbackProvider["Service"]
type Headers = Record<string, string>

/** What a client got: as much of a body as came, and whether its connection broke. */
interface Got {
  readonly status: number | undefined
  readonly headers: Headers
  readonly body: string
  readonly broke: boolean
}

const post = (url: string, headers: Headers, body: object, patience = 5000) =>
  Effect.promise(async (): Promise<Got> => {
    const got: { -readonly [K in keyof Got]: Got[K] } = { status: undefined, headers: {}, body: "", broke: false }
    try {
      const response = await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify(body),
        redirect: "manual",
        signal: AbortSignal.timeout(patience)
      })
      got.status = response.status
      got.headers = Object.fromEntries(response.headers)
      const decoder = new TextDecoder()
      for await (const chunk of response.body ?? []) got.body += decoder.decode(chunk, { stream: true })
    } catch {
      got.broke = true
    }
    return got
  })

const key = ({ apiKey }: Provider) => apiKey === undefined ? "none" : Redacted.value(apiKey)

/** One of the two formats, asked by hand. */
interface Wire {
  readonly name: "openai" | "anthropic"
  readonly ask: (
    provider: Provider,
    stream: boolean,
    more?: object,
    headers?: Headers,
    patience?: number
  ) => Effect.Effect<Got>
  /** What of an answer can be read, with its stop reason. */
  readonly whole: (body: string) => readonly [text: string, finish: string | null]
  readonly streamed: (body: string) => readonly [text: string, finish: string | null | undefined]
  readonly finish: { readonly stop: string; readonly tools: string }
  readonly last: string
  /** The type and the message of an error. */
  readonly error: (body: string) => readonly [type: string, message: string]
}

const messages = [{ role: "user", content: "hi" }]

interface Fragment {
  readonly index: number
  readonly function: { readonly name?: string; readonly arguments: string }
}

/** What an event of either format may have. */
interface Event {
  readonly type?: string
  readonly choices?: ReadonlyArray<{
    readonly delta: { readonly content?: string; readonly tool_calls?: ReadonlyArray<Fragment> }
    readonly finish_reason: string | null
  }>
  readonly delta?: { readonly text?: string; readonly partial_json?: string; readonly stop_reason?: string | null }
}

const events = (body: string): ReadonlyArray<Event> =>
  body.split("\n\n").flatMap((event) => {
    const data = event.split("\n").find((line) => line.startsWith("data: "))?.slice(6)
    if (data === undefined || data === "[DONE]") return []
    try {
      return [JSON.parse(data)]
    } catch {
      return []
    }
  })

const openai: Wire = {
  name: "openai",
  ask: (provider, stream, more, headers, patience) =>
    post(`${provider.url}/chat/completions`, { authorization: `Bearer ${key(provider)}`, ...headers }, {
      model: "m1",
      messages,
      stream,
      stream_options: stream ? { include_usage: true } : undefined,
      ...more
    }, patience),
  whole: (body) => {
    const [choice] = JSON.parse(body).choices
    return [choice.message.content, choice.finish_reason]
  },
  streamed: (body) => [
    events(body).map(({ choices }) => choices?.[0]?.delta?.content ?? "").join(""),
    events(body).map(({ choices }) => choices?.[0]?.finish_reason).findLast((reason) => reason)
  ],
  finish: { stop: "stop", tools: "tool_calls" },
  last: "data: [DONE]",
  error: (body) => {
    const { error } = JSON.parse(body)
    assert.hasAllKeys(error, ["message", "type", "param", "code"])
    return [error.type, error.message]
  }
}

const anthropic: Wire = {
  name: "anthropic",
  ask: (provider, stream, more, headers, patience) =>
    post(
      `${provider.origin}/v1/messages`,
      {
        "x-api-key": key(provider),
        "anthropic-version": "2023-06-01",
        ...headers
      },
      { model: "m1", max_tokens: 100, messages, stream, ...more },
      patience
    ),
  whole: (body) => {
    const { content, stop_reason } = JSON.parse(body)
    return [content.map(({ text }: { text?: string }) => text ?? "").join(""), stop_reason]
  },
  streamed: (body) => [
    events(body).map(({ delta }) => delta?.text ?? "").join(""),
    events(body).map(({ delta }) => delta?.stop_reason).findLast((reason) => reason)
  ],
  finish: { stop: "end_turn", tools: "tool_use" },
  last: "event: message_stop",
  error: (body) => {
    const { error, type } = JSON.parse(body)
    assert.strictEqual(type, "error")
    assert.hasAllKeys(error, ["type", "message"])
    return [error.type, error.message]
  }
}

const make = (turns: Turn.Turns, options?: LoopbackProvider.Options) =>
  LoopbackProvider.make({ turns, answer: () => Effect.succeed({ text: "a b c d" }), ...options })

const entryOf = (provider: Provider) => Effect.map(provider.journal, (entries) => entries.at(-1)!)

/** Waits for what the provider hears a moment after its client did it. */
const until = (provider: Provider, isSo: (entry: Journal.Entry) => boolean): Effect.Effect<Journal.Entry> =>
  Effect.flatMap(provider.journal, (entries) => {
    const last = entries.at(-1)
    return last !== undefined && isSo(last)
      ? Effect.succeed(last)
      : Effect.andThen(Effect.sleep(5), until(provider, isSo))
  })

for (const wire of [openai, anthropic]) {
  describe(`a turn over ${wire.name}'s wire`, () => {
    const { ask } = wire

    it.live("answer: whole and streamed, with its token counts and its end", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.answer("e f g", { usage: { inputTokens: 70, outputTokens: 40 } })])
        const whole = yield* ask(provider, false)
        assert.deepStrictEqual(wire.whole(whole.body), ["e f g", wire.finish.stop])
        const streamed = yield* ask(provider, true)
        assert.deepStrictEqual(wire.streamed(streamed.body), ["e f g", wire.finish.stop])
        assert.include(streamed.headers["content-type"], "text/event-stream")
        assert.include(streamed.body, wire.last)
        for (const { body } of [whole, streamed]) {
          assert.match(body, /"(prompt|input)_tokens":70/)
          assert.match(body, /"(completion|output)_tokens":40/)
        }
        const journal = yield* provider.journal
        assert.deepStrictEqual(journal.map((entry) => [entry.wire, entry.stream, entry.turn, entry.ending]), [
          [wire.name, false, "Answer", "complete"],
          [wire.name, true, "Answer", "complete"]
        ])
        assert.strictEqual(new Set(journal.map(({ answer }) => answer)).size, 1)
        assert.deepInclude(journal[1], { inputTokens: 70, outputTokens: 40 })
      }))

    it.live("answer without anything: what the answerer says, cut at max_tokens", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.answer()])
        assert.deepStrictEqual(wire.whole((yield* ask(provider, false)).body)[0], "a b c d")
        const [text, finish] = wire.whole((yield* ask(provider, false, { max_tokens: 2 })).body)
        assert.deepStrictEqual([text, finish], ["a b", wire.name === "openai" ? "length" : "max_tokens"])
      }))

    it.live("answer without token counts, without its last event, and with another reason", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.answer("e f", { usage: "none", done: false, finish: "content-filter" })])
        const { body } = yield* ask(provider, true)
        assert.deepStrictEqual(wire.streamed(body), ["e f", wire.name === "openai" ? "content_filter" : "refusal"])
        assert.notInclude(body, wire.last)
        assert.notInclude(body, "_tokens")
        assert.notInclude((yield* ask(provider, false)).body, "_tokens")
      }))

    it.live("empty: complete, and nothing said", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.empty()])
        assert.deepStrictEqual(wire.whole((yield* ask(provider, false)).body), ["", wire.finish.stop])
        assert.deepStrictEqual(wire.streamed((yield* ask(provider, true)).body), ["", wire.finish.stop])
      }))

    it.live("noFinish: all of it, a tidy end, and no reason", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.noFinish()])
        const { body, broke } = yield* ask(provider, true)
        assert.deepStrictEqual([...wire.streamed(body), broke], ["a b c d", undefined, false])
        assert.include(body, wire.last)
        assert.deepStrictEqual(wire.whole((yield* ask(provider, false)).body), ["a b c d", null])
      }))

    it.live("stall: silence after some tokens, until the client has had enough", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.stall({ afterTokens: 2 })])
        for (const stream of [true, false]) {
          const asking = yield* Effect.forkChild(ask(provider, stream, {}, {}, 250))
          yield* until(provider, ({ outputTokens, stream: asked }) => asked === stream && outputTokens === 2)
          yield* Effect.sleep(20)
          assert.strictEqual((yield* entryOf(provider)).ending, "open")
          const { body, broke } = yield* Fiber.join(asking)
          assert.isTrue(broke)
          if (stream) assert.deepStrictEqual(wire.streamed(body), ["a b", undefined])
          yield* until(provider, ({ ending }) => ending === "clientClosed")
        }
      }))

    it.live("stall for a time: the rest comes after it", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.stall({ afterTokens: 2, duration: "80 millis" })])
        for (const stream of [true, false]) {
          const { body } = yield* ask(provider, stream)
          const read = stream ? wire.streamed : wire.whole
          assert.deepStrictEqual(read(body), ["a b c d", wire.finish.stop])
          const { ended, received } = yield* entryOf(provider)
          assert.isAtLeast(ended!.monotonic - received.monotonic, 78)
        }
      }))

    it.live("stall with pings: the connection lives, and the answer does not", () =>
      Effect.gen(function*() {
        const sign = wire.name === "openai" ? ": keep-alive" : "event: ping"
        const signs = (body: string) => body.split(sign).length - (wire.name === "openai" ? 1 : 2)
        const provider = yield* make([
          Turn.stall({ afterTokens: 2, ping: "20 millis", duration: "100 millis" }),
          Turn.stall({ afterTokens: 2, ping: "20 millis" }),
          Turn.hang({ headers: true, ping: "20 millis" })
        ])
        const ending = yield* ask(provider, true)
        assert.deepStrictEqual(wire.streamed(ending.body), ["a b c d", wire.finish.stop])
        assert.strictEqual(signs(ending.body), 4)
        const endless = yield* ask(provider, true, {}, {}, 250)
        assert.deepStrictEqual([wire.streamed(endless.body)[0], endless.broke], ["a b", true])
        assert.isAtLeast(signs(endless.body), 3)
        assert.include((yield* ask(provider, true, {}, {}, 250)).body, sign)
      }))

    it.live("cut: some tokens and a tidy end", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.cut({ afterTokens: 3 })])
        const streamed = yield* ask(provider, true)
        assert.deepStrictEqual([...wire.streamed(streamed.body), streamed.broke], ["a b c", undefined, false])
        const whole = yield* ask(provider, false)
        assert.throws(() => JSON.parse(whole.body))
        assert.deepInclude(yield* entryOf(provider), { status: 200, ending: "cut", outputTokens: 3, turn: "Cut" })
      }))

    it.live("reset: before any answer, or after some tokens", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.reset(), Turn.reset(), Turn.reset({ afterTokens: 2 })])
        for (const stream of [true, false]) {
          assert.deepInclude(yield* ask(provider, stream), { status: undefined, broke: true })
        }
        const within = yield* ask(provider, true)
        assert.deepStrictEqual([within.status, within.broke, wire.streamed(within.body)[0]], [200, true, "a b"])
        assert.deepInclude(yield* ask(provider, false), { status: 200, broke: true })
        assert.deepStrictEqual((yield* provider.journal).map(({ ending }) => ending), Array(4).fill("reset"))
      }))

    it.live("malformed: an event that is no JSON among others", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.malformed({ afterTokens: 2, text: "{oops" })])
        const { body } = yield* ask(provider, true)
        assert.include(body, "data: {oops\n\n")
        assert.deepStrictEqual(wire.streamed(body), ["a b c d", wire.finish.stop])
        assert.strictEqual((yield* ask(provider, false)).body, "{oops")
      }))

    it.live("error: within a stream whose status was 200, in the shape of the wire", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.error({ type: "overloaded_error", message: "no more", afterTokens: 2 })])
        const { body, status } = yield* ask(provider, true)
        const last = events(body).at(-1)
        assert.deepStrictEqual([status, wire.streamed(body)[0]], [200, "a b"])
        assert.deepStrictEqual(wire.error(JSON.stringify(last)), ["overloaded_error", "no more"])
        if (wire.name === "anthropic") assert.include(body, "event: error\n")
        const whole = yield* ask(provider, false)
        assert.deepStrictEqual([whole.status, ...wire.error(whole.body)], [200, "overloaded_error", "no more"])
      }))

    it.live("status: any, with the wire's own error, its wait and its headers", () =>
      Effect.gen(function*() {
        const provider = yield* make([
          Turn.status(429, { retryAfter: "1500 millis", headers: { "X-Region": "b" } }),
          Turn.status(500, { error: { message: "mine" } }),
          Turn.status(418, { body: "teapot", headers: { "Content-Type": "text/plain" } })
        ])
        const limited = yield* ask(provider, true)
        assert.deepInclude(limited.headers, { "retry-after": "2", "retry-after-ms": "1500", "x-region": "b" })
        assert.strictEqual(wire.error(limited.body)[0], wire.name === "openai" ? "requests" : "rate_limit_error")
        assert.deepInclude(yield* entryOf(provider), { status: 429, ending: "refused", retryAfterMillis: 1500 })
        assert.deepStrictEqual(wire.error((yield* ask(provider, false)).body), [
          wire.name === "openai" ? "server_error" : "api_error",
          "mine"
        ])
        const teapot = yield* ask(provider, false)
        assert.deepStrictEqual([teapot.status, teapot.body, teapot.headers["content-type"]], [
          418,
          "teapot",
          "text/plain"
        ])
      }))

    it.live("redirect and html: no answers", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.redirect("https://elsewhere.example/v1"), Turn.html()])
        const redirected = yield* ask(provider, true)
        assert.deepStrictEqual([redirected.status, redirected.headers["location"]], [
          307,
          "https://elsewhere.example/v1"
        ])
        const page = yield* ask(provider, true)
        assert.include(page.headers["content-type"], "text/html")
        assert.include(page.body, "<html>")
      }))

    it.live("refusal: each reason has its status and its words", () =>
      Effect.gen(function*() {
        const provider = yield* make(Turn.Why.literals.map((why) => Turn.refusal(why)))
        const seen = yield* Effect.forEach(Turn.Why.literals, (why) =>
          Effect.map(ask(provider, false), ({ body, status }) => `${why} ${status} ${wire.error(body)[0]}`))
        assert.deepStrictEqual(
          seen,
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

    it.live("hang: nothing, or nothing after the status", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.hang(), Turn.hang({ headers: true })])
        assert.deepInclude(yield* ask(provider, true, {}, {}, 250), {
          status: undefined,
          broke: true
        })
        assert.deepInclude(yield* ask(provider, true, {}, {}, 250), { status: 200, body: "", broke: true })
        const entry = yield* until(provider, ({ ending }) => ending === "clientClosed")
        assert.deepInclude(entry, { inputTokens: 0, outputTokens: 0, turn: "Hang" })
      }))

    it.live("delay: nothing before its time", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.delay(Turn.status(503), "60 millis")])
        assert.strictEqual((yield* ask(provider, true)).status, 503)
        const { firstByte, received } = yield* entryOf(provider)
        assert.isAtLeast(firstByte!.monotonic - received.monotonic, 58)
      }))

    it.live("pace: the turn's own", () =>
      Effect.gen(function*() {
        const provider = yield* make([
          Turn.answer("a b c d e", { firstTokenMillis: 40, tokenMillis: 10, tokensPerChunk: 2 })
        ])
        const { body } = yield* ask(provider, true)
        assert.include(body, JSON.stringify("a b"))
        assert.include(body, JSON.stringify(" c d"))
        const { ended, firstByte, received } = yield* entryOf(provider)
        assert.isAtLeast(firstByte!.monotonic - received.monotonic, 38)
        assert.isAtLeast(ended!.monotonic - firstByte!.monotonic, 28)
      }))

    it.live("thoughts and tool calls, with tools in the request", () =>
      Effect.gen(function*() {
        const provider = yield* make([
          Turn.answer([
            { type: "reasoning", text: "hm hm" },
            { type: "text", text: "let me see" },
            { type: "tool-call", name: "weather", params: { city: "New York" }, id: "t1" },
            { type: "tool-call", name: "clock", params: {} }
          ])
        ])
        const tools = wire.name === "openai"
          ? [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }]
          : [{ name: "weather", input_schema: { type: "object" } }]
        const whole = yield* ask(provider, false, { tools })
        assert.deepStrictEqual(wire.whole(whole.body), ["let me see", wire.finish.tools])
        const { body } = yield* ask(provider, true, { tools })
        assert.deepStrictEqual(wire.streamed(body), ["let me see", wire.finish.tools])
        if (wire.name === "openai") {
          const { message } = JSON.parse(whole.body).choices[0]
          assert.strictEqual(message.reasoning_content, "hm hm")
          assert.deepStrictEqual(
            message.tool_calls.map((call: Fragment & { readonly id: string }) => [call.id, call.function]),
            [
              ["t1", { name: "weather", arguments: "{\"city\":\"New York\"}" }],
              ["call_loopback_1_3", { name: "clock", arguments: "{}" }]
            ]
          )
          const fragments = events(body).flatMap(({ choices }) => choices?.[0]?.delta.tool_calls ?? [])
          assert.strictEqual(
            fragments.filter(({ index }) => index === 0).map((call) => call.function.arguments).join(""),
            "{\"city\":\"New York\"}"
          )
        } else {
          const { content } = JSON.parse(whole.body)
          assert.deepStrictEqual(content.map(({ type }: { type: string }) => type), [
            "thinking",
            "text",
            "tool_use",
            "tool_use"
          ])
          assert.deepStrictEqual(content[2].input, { city: "New York" })
          const named = events(body).filter(({ type }) => type !== "content_block_delta").map(({ type }) => type)
          const block = ["content_block_start", "content_block_stop"]
          assert.deepStrictEqual(named, [
            "message_start",
            "ping",
            ...block,
            ...block,
            ...block,
            ...block,
            "message_delta",
            "message_stop"
          ])
          assert.strictEqual(
            events(body).map(({ delta }) => delta?.partial_json ?? "").join(""),
            "{\"city\":\"New York\"}{}"
          )
        }
      }))

    it.live("a function decides, and what it leaves is the script's", () =>
      Effect.gen(function*() {
        const asked: Array<Turn.Request> = []
        const provider = yield* make((request) => {
          asked.push(request)
          return request.attempt === 1 ? Turn.status(500) : undefined
        }, { script: { faults: { unavailable: 1 }, faultyAttempts: 9 } })
        assert.strictEqual((yield* ask(provider, true)).status, 500)
        assert.strictEqual((yield* ask(provider, false, {}, { "x-sluice-attempt": "2" })).status, 503)
        assert.deepInclude(asked[1], { n: 2, attempt: 2, prompt: "hi", model: "m1", wire: wire.name, stream: false })
        assert.isAbove(asked[1]!.at, 0)
        assert.deepStrictEqual((yield* provider.journal).map(({ fault, turn }) => [turn, fault]), [
          ["Status", undefined],
          [undefined, "unavailable"]
        ])
      }))

    it.live("the key, the host and the model are asked for in its own words", () =>
      Effect.gen(function*() {
        const provider = yield* make([], { models: ["m1"] })
        const wrong = yield* ask(provider, false, {}, { authorization: "Bearer no", "x-api-key": "no" })
        assert.deepStrictEqual(
          [wrong.status, wire.error(wrong.body)[0]],
          [401, wire.name === "openai" ? "invalid_request_error" : "authentication_error"]
        )
        const unknown = yield* ask(provider, false, { model: "m2" })
        assert.deepStrictEqual([unknown.status, wire.error(unknown.body)[1].includes("m2")], [404, true])
        const bad = yield* ask(provider, false, { messages: [] })
        assert.deepStrictEqual([bad.status, wire.error(bad.body)[0]], [400, "invalid_request_error"])
      }))

    it.live("limits: requests per minute are refused with what is left, and how long to wait", () =>
      Effect.gen(function*() {
        const provider = yield* make([], { limits: { requestsPerMinute: 600, tokensPerMinute: 100_000 } })
        const first = yield* ask(provider, false)
        const prefix = wire.name === "openai" ? "x-ratelimit-" : "anthropic-ratelimit-"
        const name = (what: string, kind: string) =>
          prefix + (wire.name === "openai" ? `${kind}-${what}` : `${what}-${kind}`)
        assert.strictEqual(first.headers[name("requests", "limit")], "600")
        assert.strictEqual(first.headers[name("requests", "remaining")], "599")
        assert.match(
          first.headers[name("tokens", "reset")]!,
          wire.name === "openai" ? /^\d+(\.\d+)?m?s$/ : /^\d{4}-.*Z$/
        )
        const few = yield* make([], { limits: { requestsPerMinute: 2 } })
        const statuses = yield* Effect.forEach([1, 2, 3], () => ask(few, true))
        assert.deepStrictEqual(statuses.map(({ status }) => status), [200, 200, 429])
        const limited = statuses[2]!
        assert.strictEqual(limited.headers[name("requests", "remaining")], "0")
        const wait = RetryAfter.fromHeaders(limited.headers)!
        assert.isTrue(Duration.between(wait, { minimum: Duration.seconds(28), maximum: Duration.seconds(30) }))
        assert.deepInclude(yield* entryOf(few), { limited: "requests", ending: "refused", outputTokens: 0 })
        yield* few.clear
        assert.strictEqual((yield* ask(few, true)).status, 200)
      }))

    it.live("limits: tokens are counted in and out, and fill up again", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.answer("a b c d e f g h i j k l m n")], { limits: { tokensPerMinute: 600 } })
        // 604 of 600 with the first answer, so that the next has to wait for five of them: half a second.
        const first = yield* ask(provider, false, { messages: [{ role: "user", content: "w ".repeat(590).trim() }] })
        assert.strictEqual(first.status, 200)
        const second = yield* ask(provider, false)
        assert.strictEqual(second.status, 429)
        assert.strictEqual((yield* entryOf(provider)).limited, "tokens")
        yield* Effect.sleep(Duration.sum(RetryAfter.fromHeaders(second.headers)!, Duration.millis(5)))
        assert.strictEqual((yield* ask(provider, false)).status, 200)
      }))

    it.live("limits: so many at once", () =>
      Effect.gen(function*() {
        const provider = yield* make([Turn.answer("a", { firstTokenMillis: 100 })], { limits: { concurrent: 2 } })
        const all = yield* Effect.forEach([1, 2, 3, 4], () => ask(provider, false), { concurrency: "unbounded" })
        assert.deepStrictEqual(all.map(({ status }) => status).toSorted(), [200, 200, 429, 429])
        assert.strictEqual((yield* ask(provider, false)).status, 200)
        assert.deepStrictEqual(
          (yield* provider.journal).flatMap(({ limited }) => limited === undefined ? [] : [limited]),
          ["concurrent", "concurrent"]
        )
      }))
  })
}

describe("the official client meets a turn", () => {
  const asking = (client: OpenAI) =>
    Effect.tryPromise({
      try: () => client.chat.completions.create(question("hi")).then(({ choices }) => choices[0]!),
      catch: (error) => error as Error
    })

  it.live("comes back as it is told, and calls the tool", () =>
    Effect.gen(function*() {
      const provider = yield* make([
        Turn.refusal("rateLimit", { retryAfter: "300 millis" }),
        Turn.refusal("overloaded"),
        Turn.toolCall("weather", { city: "Oslo" })
      ])
      const { finish_reason, message } = yield* asking(official(provider))
      const [call] = message.tool_calls!
      assert.deepStrictEqual([finish_reason, call!.type === "function" && call!.function.arguments], [
        "tool_calls",
        "{\"city\":\"Oslo\"}"
      ])
      const journal = yield* provider.journal
      assert.deepStrictEqual(journal.map(({ attempt, status }) => [attempt, status]), [[1, 429], [2, 503], [3, 200]])
      const [first, second, ...more] = Journal.gaps(journal)
      assert.deepStrictEqual(more, [])
      assert.isAtLeast(first!, 298)
      assert.isAtLeast(second!, 0)
    }), 10_000)

  it.live("names what it is refused for", () =>
    Effect.gen(function*() {
      const names = { key: "AuthenticationError", permission: "PermissionDeniedError", model: "NotFoundError" } as const
      for (const why of ["key", "permission", "model"] as const) {
        const provider = yield* make([Turn.refusal(why)])
        const error = yield* Effect.flip(asking(official(provider, { maxRetries: 0 })))
        assert.strictEqual(error.constructor.name, names[why])
      }
    }))

  it.live("throws on an error within a stream", () =>
    Effect.gen(function*() {
      const provider = yield* make([Turn.error({ type: "server_error", message: "boom", afterTokens: 2 })])
      const read = Effect.tryPromise({
        try: async () => {
          for await (const _ of await official(provider).chat.completions.create({ ...question("hi"), stream: true })) {
            // Only its end matters.
          }
        },
        catch: (error) => error as Error
      })
      assert.include((yield* Effect.flip(read)).message, "boom")
    }))

  it.live("gets embeddings: the same for the same text, closer for closer texts", () =>
    Effect.gen(function*() {
      const provider = yield* make([], { limits: { requestsPerMinute: 3 } })
      const client = official(provider, { maxRetries: 0 })
      const embed = (input: string | Array<string>, dimensions?: number) =>
        Effect.tryPromise({
          try: () =>
            client.embeddings.create({ model: "m1", input, ...(dimensions === undefined ? {} : { dimensions }) }, {
              headers: { "idempotency-key": "k1" }
            }),
          catch: (error) => error as Error
        })
      const { data, usage } = yield* embed(["a red house", "a red car", "bonsai", "a red house"])
      const [house, car, bonsai, again] = data.map(({ embedding }) => embedding)
      const dot = (a: Array<number>, b: Array<number>) => a.reduce((sum, value, i) => sum + value * b[i]!, 0)
      assert.deepStrictEqual([house!.length, usage.prompt_tokens], [16, 10])
      assert.deepStrictEqual(again, house)
      assert.closeTo(dot(house!, house!), 1, 1e-6)
      assert.isAbove(dot(house!, car!), dot(house!, bonsai!))
      const float = yield* Effect.tryPromise(() =>
        client.embeddings.create({ model: "m1", input: "a red house", encoding_format: "float" })
      )
      for (const [i, value] of float.data[0]!.embedding.entries()) assert.closeTo(value, house![i]!, 1e-6)
      assert.strictEqual((yield* embed("x", 5)).data[0]!.embedding.length, 5)
      assert.strictEqual((yield* Effect.flip(embed("x"))).constructor.name, "RateLimitError")
      const [entry] = yield* provider.journal
      assert.deepInclude(entry, { endpoint: "embeddings", wire: "openai", idempotencyKey: "k1", inputTokens: 10 })
    }))
})

describe("both wires at once", () => {
  it.live("are one provider, with one outage, one list of turns and one journal", () =>
    Effect.gen(function*() {
      const provider = yield* make([Turn.answer("one"), Turn.answer("two")])
      assert.strictEqual(openai.whole((yield* openai.ask(provider, false)).body)[0], "one")
      assert.strictEqual(anthropic.whole((yield* anthropic.ask(provider, false)).body)[0], "two")
      yield* provider.down
      for (const wire of [openai, anthropic]) {
        const { body, status } = yield* wire.ask(provider, true)
        assert.strictEqual(status, 503)
        wire.error(body)
      }
      const journal = yield* provider.journal
      assert.deepStrictEqual(journal.map(({ attempt, down, wire }) => [wire, attempt, down]), [
        ["openai", 1, false],
        ["anthropic", 2, false],
        ["openai", 3, true],
        ["anthropic", 4, true]
      ])
    }))

  it.live("list the models, each in its own way", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ models: ["m1", "m2"] })
      const get = (headers: Headers) =>
        Effect.promise(() => fetch(`${provider.url}/models`, { headers }).then((response) => response.json()))
      assert.deepInclude(yield* get({ authorization: `Bearer ${key(provider)}` }), { object: "list" })
      assert.deepInclude(yield* get({ "x-api-key": key(provider), "anthropic-version": "2023-06-01" }), {
        first_id: "m1",
        last_id: "m2",
        has_more: false
      })
    }))

  it.live("Anthropic's wants its version, max_tokens and a system text of its own", () =>
    Effect.gen(function*() {
      const questions: Array<unknown> = []
      const provider = yield* LoopbackProvider.make({
        answer: ({ messages }) => Effect.sync(() => (questions.push(messages), { text: "ok" }))
      })
      const noVersion = yield* post(`${provider.url}/messages`, { "x-api-key": key(provider) }, {
        model: "m1",
        max_tokens: 5,
        messages
      })
      assert.deepStrictEqual([noVersion.status, anthropic.error(noVersion.body)[1]], [
        400,
        "anthropic-version: header is required"
      ])
      const noLimit = yield* anthropic.ask(provider, false, { max_tokens: undefined })
      assert.deepStrictEqual([noLimit.status, anthropic.error(noLimit.body)[1].includes("max_tokens")], [400, true])
      yield* anthropic.ask(provider, false, {
        system: [{ type: "text", text: "be brief" }],
        messages: [
          ...messages,
          { role: "assistant", content: [{ type: "tool_use", id: "t1", name: "t", input: {} }] },
          { role: "user", content: [{ type: "tool_result", tool_use_id: "t1", content: "sun" }] }
        ]
      })
      assert.deepStrictEqual(questions, [[
        { role: "system", content: "be brief" },
        { role: "user", content: "hi" },
        { role: "assistant", content: "" },
        { role: "tool", content: "" }
      ]])
    }))
})

it.effect("is not built from turns or limits that make no sense", () =>
  Effect.gen(function*() {
    const error = yield* Effect.flip(LoopbackProvider.make({
      turns: [Turn.status(99)],
      limits: { requestsPerMinute: 0, concurrent: 1.5 }
    }))
    assert.deepStrictEqual(error._tag === "InvalidOptions" && error.issues.map(({ option }) => option), [
      "turns",
      "limits.requestsPerMinute",
      "limits.concurrent"
    ])
  }))
