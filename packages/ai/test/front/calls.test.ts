import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Random, Redacted, Stream } from "effect"
import * as Front from "@sluice/ai/Front"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import type * as Http from "node:http"
import { type Answer, json, rawServer } from "../support/rawServer.ts"
import { type Edge, edges, fetched, frontOf, node, overNode, served, web, within } from "./edges.ts"
import { anthropic, chat, type FrontWire, responses, wires } from "./wires.ts"

const whole = (wire: FrontWire): string => wire.head + wire.word("fine") + wire.finish + wire.end

const answer: Answer = (response, { body, path }) => {
  const wire = wires.find((each) => each.path === path.split("?")[0]) ?? chat
  if (!body.includes("\"stream\":true")) return json(response, 200, wire.answer, { "x-request-id": "req_1" })
  response.writeHead(200, { "content-type": "text/event-stream", "x-ratelimit-remaining-requests": "7" })
  response.end(whole(wire))
}

const at = (
  url: string,
  speaks: "openai" | "anthropic" = "openai",
  more?: Partial<Front.FrontTarget>
): Front.FrontTarget => ({
  name: speaks,
  url,
  speaks,
  ...more
})

const ask = (edge: Edge, front: Front.Front["Service"], wire: FrontWire, more?: object) =>
  within(edge.ask(front, { path: wire.path, body: wire.stream, ...more }))

describe("requests and answers", () => {
  it.live("bytes pass as they are on every wire and edge, also numbers that JSON would change", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(answer)
      for (const edge of edges) {
        for (const wire of wires) {
          const front = yield* frontOf([at(provider.url, wire.speaks)])
          const streamed = yield* ask(edge, front, wire)
          const collected = yield* ask(edge, front, wire, { body: wire.whole })
          const cell = `${wire.wire} ${edge.name}`
          assert.strictEqual(streamed.text, whole(wire), cell)
          assert.strictEqual(collected.text, wire.answer, cell)
          assert.strictEqual(collected.headers["x-request-id"], "req_1", cell)
          assert.strictEqual(collected.headers["content-length"], String(wire.answer.length), cell)
          assert.strictEqual(streamed.headers["x-ratelimit-remaining-requests"], "7", cell)
          const [first, second] = provider.requests.slice(-2)
          assert.deepStrictEqual([first?.body, second?.body], [wire.stream, wire.whole], cell)
        }
      }
    }).pipe(Effect.scoped))

  it.live("the target's key, headers and model replace those of the client, and everything else passes", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(answer)
      const front = yield* frontOf([
        at(provider.url, "anthropic", {
          apiKey: Redacted.make("target-key"),
          headers: { "x-team": "ours" },
          model: "their-model"
        })
      ])
      yield* ask(node, front, anthropic, {
        path: "/v1/messages?beta=true",
        body: anthropic.whole.replace("{", "{\"big\":12345678901234567890,"),
        headers: { "anthropic-beta": "a,b", "x-team": "theirs", cookie: "c=1", "idempotency-key": "mine" }
      })
      const [received] = provider.requests
      const { headers } = received!
      assert.strictEqual(received?.path, "/v1/messages?beta=true")
      assert.strictEqual(
        received?.body,
        anthropic.whole.replace("{", "{\"big\":12345678901234567890,").replace("\"m\"", "\"their-model\"")
      )
      assert.deepStrictEqual(
        [headers["x-api-key"], headers.authorization, headers["anthropic-beta"], headers["x-team"], headers.cookie],
        ["target-key", undefined, "a,b", "ours", undefined]
      )
      assert.strictEqual(headers["idempotency-key"], "mine")
      assert.strictEqual(headers["accept-encoding"], "identity")
    }).pipe(Effect.scoped))

  it.live("the response names the target, the attempts and the call, whose log is kept", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response, received, n) =>
        n === 1 ? json(response, 503, { error: { message: "down" } }) : answer(response, received, n)
      )
      const front = yield* frontOf([at(provider.url)])
      for (const body of [chat.stream, chat.whole]) {
        const { headers } = yield* ask(fetched, front, chat, { body })
        const id = headers["x-sluice-call"]!
        const log = front.call(id)
        assert.strictEqual(headers["x-sluice-target"], "openai")
        assert.strictEqual(headers["x-sluice-attempts"], body === chat.stream ? "2" : "1")
        assert.strictEqual(log?.result, "Success")
        assert.deepStrictEqual(log?.usage, { inputTokens: 3, outputTokens: 4, estimated: false })
        assert.strictEqual(log?.method, body === chat.stream ? "streamText" : "generateText")
        const shown = yield* ask(fetched, front, chat, { path: `/sluice/calls/${id}`, method: "GET", body: undefined })
        assert.strictEqual((JSON.parse(shown.text) as { readonly id: string }).id, id)
      }
      const unknown = yield* ask(node, front, chat, { path: "/sluice/calls/none", method: "GET", body: undefined })
      assert.strictEqual(unknown.status, 404)
    }).pipe(Effect.scoped))

  it.live("calls are published when they end", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(answer)
      const front = yield* frontOf([at(provider.url)])
      const reader = yield* Effect.forkChild(Stream.runCollect(Stream.take(front.calls, 1)), { startImmediately: true })
      yield* ask(fetched, front, chat)
      const [log] = yield* Fiber.join(reader)
      assert.strictEqual(log?.answeredBy, "openai")
    }).pipe(Effect.scoped))
})

describe("fallback", () => {
  it.live("a call moves to the next target with its own model, and back-off is not waited for", () =>
    Effect.gen(function*() {
      const down = yield* rawServer((response) => json(response, 503, { error: { message: "down" } }))
      const up = yield* rawServer(answer)
      const front = yield* frontOf(
        [at(down.url, "openai", { name: "down" }), at(up.url, "openai", { name: "up", models: { m: "other" } })],
        { retriesHere: 0, retry: RetryPolicy.exponential({ baseDelay: "1 minute" }) }
      )
      const got = yield* ask(node, front, chat)
      assert.strictEqual(got.headers["x-sluice-target"], "up")
      assert.include(up.requests[0]?.body, "\"model\":\"other\"")
      assert.include(down.requests[0]?.body, "\"model\":\"m\"")
    }).pipe(Effect.scoped))

  it.live("a whole answer that reports a failure, or is none, is retried", () =>
    Effect.gen(function*() {
      const failures = [
        { choices: [{ index: 0, message: { content: "half" }, finish_reason: "error" }] },
        { status: "ok" },
        { choices: [{}] }
      ]
      const provider = yield* rawServer((response, received, n) =>
        n <= failures.length ? json(response, 200, failures[n - 1]) : answer(response, received, n)
      )
      const front = yield* frontOf([at(provider.url)], {
        retry: RetryPolicy.exponential({ maxAttempts: 4, baseDelay: 1 })
      })
      const got = yield* ask(fetched, front, chat, { body: chat.whole })
      assert.strictEqual(got.text, chat.answer)
      assert.strictEqual(got.headers["x-sluice-attempts"], "4")
    }).pipe(Effect.scoped))

  it.live("an answer to embeddings without a list is none", () =>
    Effect.gen(function*() {
      const embeddings = { object: "list", data: [{ index: 0, embedding: [1] }] }
      const provider = yield* rawServer((response, _, n) => json(response, 200, n === 1 ? { data: "no" } : embeddings))
      const front = yield* frontOf([at(provider.url)])
      const got = yield* fetched.ask(front, { path: "/v1/embeddings", body: `{"model":"m","input":"a"}` })
      assert.deepStrictEqual([got.status, got.text], [200, JSON.stringify(embeddings)])
      assert.strictEqual(provider.requests.length, 2)
    }).pipe(Effect.scoped))

  it.live("models have targets in an order of their own, also by the beginning of their names", () =>
    Effect.gen(function*() {
      const one = yield* rawServer(answer)
      const two = yield* rawServer(answer)
      const front = yield* frontOf([at(one.url, "openai", { name: "one" }), at(two.url, "openai", { name: "two" })], {
        models: { fast: ["two", "one"], "gpt-*": ["one"], "gpt-5*": ["two"] }
      })
      const targetOf = (model: string) =>
        Effect.map(
          ask(fetched, front, chat, { body: chat.whole.replace("\"m\"", `"${model}"`) }),
          ({ headers, status }) => headers["x-sluice-target"] ?? status
        )
      assert.deepStrictEqual(
        yield* Effect.forEach(["fast", "gpt-4o", "gpt-5-mini", "claude"], targetOf),
        ["two", "one", "two", 404]
      )
    }).pipe(Effect.scoped))

  it.live("targets of a route share the calls by its weights, and the next ones get what they cannot answer", () =>
    Effect.gen(function*() {
      const works = yield* rawServer(answer)
      const broken = yield* rawServer((response) => json(response, 503, { error: { message: "down" } }))
      const target = (name: string, url = works.url) => at(url, "openai", { name, weight: 9, breaker: false })
      const front = yield* frontOf([target("one"), target("three"), target("last"), target("broken", broken.url)], {
        models: { m: [{ one: 1, three: 3 }, "last"], n: [{ broken: 1 }, { last: 1 }] },
        retriesHere: 0
      }).pipe(Random.withSeed("shares"))
      const counts: Record<string, number> = {}
      for (let calls = 0; calls < 80; calls++) {
        const { headers } = yield* ask(fetched, front, chat, { body: chat.whole })
        const name = headers["x-sluice-target"] ?? "none"
        counts[name] = (counts[name] ?? 0) + 1
      }
      assert.deepStrictEqual(Object.keys(counts).toSorted(), ["one", "three"])
      assert.isAtLeast(counts["three"] ?? 0, 50)
      assert.isAtMost(counts["three"] ?? 0, 70)
      const fallback = yield* ask(fetched, front, chat, { body: chat.whole.replace("\"m\"", "\"n\"") })
      assert.strictEqual(fallback.headers["x-sluice-target"], "last")
    }).pipe(Effect.scoped))

  it.live("a request that depends on what a provider keeps stays within one account", () =>
    Effect.gen(function*() {
      const down = yield* rawServer((response) => json(response, 503, { error: { message: "down" } }))
      const up = yield* rawServer(answer)
      const front = yield* frontOf([at(down.url, "openai", { name: "down" }), at(up.url, "openai", { name: "up" })])
      const body = responses.whole.replace("{", "{\"previous_response_id\":\"r0\",")
      const got = yield* ask(node, front, responses, { body })
      assert.deepStrictEqual([got.status, up.requests.length], [503, 0])
    }).pipe(Effect.scoped))

  it.live("circuits open, and a call goes past them without a request", () =>
    Effect.gen(function*() {
      const down = yield* rawServer((response) => json(response, 503, { error: { message: "down" } }))
      const up = yield* rawServer(answer)
      const breaker = { trip: CircuitBreaker.consecutive(2), openFor: "1 minute" } as const
      const front = yield* frontOf(
        [at(down.url, "openai", { name: "down", breaker }), at(up.url, "openai", { name: "up" })],
        { retriesHere: 0 }
      )
      for (let n = 0; n < 4; n++) assert.strictEqual((yield* ask(fetched, front, chat)).text, whole(chat))
      assert.strictEqual(down.requests.length, 2)
      const [state] = yield* front.targets
      assert.strictEqual(state?.circuit?._tag, "Open")
    }).pipe(Effect.scoped))
})

describe("refusals", () => {
  const refusalOf = (
    wire: FrontWire,
    response: (response: Http.ServerResponse) => void,
    options?: Partial<Front.FrontOptions>
  ) =>
    Effect.gen(function*() {
      const provider = yield* rawServer(response)
      const front = yield* frontOf([at(provider.url, wire.speaks, { breaker: false })], {
        retry: RetryPolicy.none,
        ...options
      })
      const got = yield* ask(node, front, wire)
      return {
        ...got,
        json: JSON.parse(got.text) as { readonly error: { readonly code?: string; readonly type: string } }
      }
    }).pipe(Effect.scoped)

  it.live("the provider's own last error passes with its status and headers, and asks for no retry", () =>
    Effect.gen(function*() {
      const body = "{\"error\":{\"message\":\"slow down\",\"type\":\"x\",\"new\":12345678901234567890}}"
      const got = yield* refusalOf(
        chat,
        (response) => json(response, 429, body, { "retry-after": "7", "x-request-id": "r" })
      )
      assert.deepStrictEqual([got.status, got.text], [429, body])
      assert.deepStrictEqual(
        [got.headers["retry-after"], got.headers["x-should-retry"], got.headers["x-request-id"]],
        ["7", "false", "r"]
      )
    }))

  it.live("an error about the target's key becomes a 502 without its words", () =>
    Effect.gen(function*() {
      for (const status of [401, 402, 403]) {
        const got = yield* refusalOf(chat, (response) => json(response, status, { error: { message: "sk-part" } }))
        assert.deepStrictEqual([got.status, got.json.error.code], [502, "credential_refused"])
        assert.notInclude(got.text, "sk-part")
      }
    }))

  it.live("another error that quotes a key passes without it", () =>
    Effect.gen(function*() {
      const error = { error: { message: "the key target-key-1 or sk-another-key has no such model" } }
      const apiKey = Redacted.make("target-key-1")
      const provider = yield* rawServer((response) => json(response, 400, error))
      const front = yield* frontOf([at(provider.url, "openai", { apiKey })])
      const text = `{"error":{"message":"the key [masked] or [masked] has no such model"}}`
      const got = yield* ask(node, front, chat)
      assert.deepStrictEqual([got.status, got.text], [400, text])
      assert.strictEqual(got.headers["content-length"], String(text.length))
      const passed = yield* ask(node, front, chat, { path: "/v1/files/f1", method: "GET", body: undefined })
      assert.deepStrictEqual([passed.status, passed.text, passed.end], [400, text, "Clean"])
    }).pipe(Effect.scoped))

  it.live("a lost answer is a 502 in the form of the client's API", () =>
    Effect.gen(function*() {
      const cut = (response: Http.ServerResponse) => {
        response.destroy()
      }
      const openAi = yield* refusalOf(chat, cut)
      const claude = yield* refusalOf(anthropic, cut)
      assert.deepStrictEqual([openAi.status, openAi.json.error.code], [502, "connection_failed"])
      assert.deepStrictEqual([claude.status, claude.json.error.type], [502, "api_error"])
      const silent = yield* refusalOf(chat, () => {}, { firstTokenTimeout: "20 millis" })
      assert.deepStrictEqual([silent.status, silent.json.error.code], [502, "first_token_timeout"])
      const late = yield* refusalOf(chat, () => {}, { deadline: "20 millis" })
      assert.deepStrictEqual([late.status, late.json.error.code], [504, "deadline_exceeded"])
      assert.strictEqual(late.headers["x-should-retry"], "false")
    }))

  it.live("requests that are not for a model are refused or answered by the front", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(answer)
      const front = yield* frontOf([at(provider.url, "openai", { models: ["m"] })], { maxBodyBytes: 200 })
      const status = (more: object) => Effect.map(ask(node, front, chat, more), ({ status }) => status)
      assert.strictEqual(yield* status({ path: "/", method: "HEAD", body: undefined }), 200)
      assert.strictEqual(yield* status({ method: "OPTIONS", body: undefined }), 405)
      assert.strictEqual(yield* status({ path: "/v1/../x" }), 404)
      assert.strictEqual(yield* status({ body: "no json" }), 400)
      assert.strictEqual(yield* status({ body: chat.stream + " ".repeat(200) }), 413)
      assert.strictEqual(yield* status({ headers: { upgrade: "websocket", connection: "Upgrade" } }), 426)
      assert.strictEqual(yield* status({ body: "{\"model\":\"x\"}" }), 404)
      assert.strictEqual(yield* status({ path: anthropic.path, body: "{\"model\":\"m\",\"top_k\":1}" }), 400)
      assert.strictEqual((yield* ask(web, front, chat, { body: " ".repeat(201) })).status, 413)
      assert.strictEqual((yield* ask(fetched, front, chat, { body: " ".repeat(201) })).status, 413)
      assert.strictEqual(provider.requests.length, 0)
    }).pipe(Effect.scoped))

  it.live("a shed call may be retried by the client soon", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer(() => {})
      const front = yield* frontOf([at(provider.url, "openai", { backpressure: { capacity: 1 } })])
      yield* Effect.forkScoped(ask(fetched, front, chat), { startImmediately: true })
      yield* Effect.sleep("50 millis")
      const got = yield* ask(node, front, chat)
      assert.deepStrictEqual([got.status, got.headers["x-should-retry"]], [503, "true"])
    }).pipe(Effect.scoped))
})

describe("other requests", () => {
  it.live("pass to the first target with their API, with their own method, body and status", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response, { method, path }) =>
        json(response, 201, { method, path }, { "x-kept": "1" })
      )
      const front = yield* frontOf([at(provider.url, "anthropic"), at(provider.url, "openai", { model: "own" })])
      const got = yield* ask(node, front, chat, { path: "/v1/files/f1?a=b", method: "DELETE", body: undefined })
      assert.deepStrictEqual([got.status, got.text], [201, "{\"method\":\"DELETE\",\"path\":\"/v1/files/f1?a=b\"}"])
      assert.deepStrictEqual([got.headers["x-sluice-target"], got.headers["x-kept"]], ["openai", "1"])
      yield* ask(fetched, front, chat, { path: "/v1/messages/count_tokens", body: anthropic.whole })
      yield* ask(fetched, front, chat, { path: "/v1/audio/speech", body: "{\"model\":\"tts\",\"input\":\"x\"}" })
      const [, counted, spoken] = provider.requests
      assert.strictEqual(counted?.path, "/v1/messages/count_tokens")
      assert.strictEqual(spoken?.body, "{\"model\":\"own\",\"input\":\"x\"}")
    }).pipe(Effect.scoped))

  it.live("a GET is tried again before its answer has begun, and other methods are not", () =>
    Effect.gen(function*() {
      const failures: ReadonlyArray<readonly [name: string, fail: Answer]> = [
        ["503", (response) => json(response, 503, { error: { message: "busy" } }, { "retry-after-ms": "1" })],
        ["reset", (response) => void response.destroy()]
      ]
      const asked = { path: "/v1/files/f1?a=b", body: undefined }
      for (const [name, fail] of failures) {
        const provider = yield* rawServer((response, received, n) =>
          n % 3 === 0 ? json(response, 200, { id: "f1" }) : fail(response, received, n)
        )
        const front = yield* frontOf([at(provider.url)])
        const got = yield* ask(node, front, chat, { ...asked, method: "GET" })
        assert.deepStrictEqual([got.status, got.headers["x-sluice-attempts"]], [200, "3"], name)
        const deleted = yield* ask(node, front, chat, { ...asked, method: "DELETE" })
        assert.deepStrictEqual([deleted.status, provider.requests.length], [name === "503" ? 503 : 502, 4], name)
      }
      const down = yield* rawServer((response) => json(response, 503, { error: { message: "down" } }))
      const front = yield* frontOf([at(down.url)])
      const got = yield* ask(node, front, chat, { ...asked, method: "GET" })
      assert.deepStrictEqual(
        [got.status, got.headers["x-should-retry"], down.requests.length],
        [503, "false", Number(got.headers["x-sluice-attempts"])]
      )
      const patient = yield* rawServer((response) => json(response, 429, {}, { "retry-after": "3600" }))
      const waiting = yield* frontOf([at(patient.url)])
      assert.strictEqual((yield* ask(node, waiting, chat, { ...asked, method: "GET" })).status, 429)
      assert.strictEqual(patient.requests.length, 1)
    }).pipe(Effect.scoped))

  it.live("files stay within the account of the first target, and the list of models does not", () =>
    Effect.gen(function*() {
      const down = yield* rawServer((response) => json(response, 503, { error: { message: "down" } }))
      const up = yield* rawServer((response) => json(response, 200, { data: [] }))
      const get = { method: "GET", body: undefined }
      const targets = (credential?: string) => [
        at(down.url, "openai", { name: "down", credential }),
        at(up.url, "openai", { name: "up", credential })
      ]
      const apart = yield* frontOf(targets())
      assert.strictEqual((yield* ask(node, apart, chat, { ...get, path: "/v1/files/f1" })).status, 503)
      assert.strictEqual(up.requests.length, 0)
      const models = yield* ask(node, apart, chat, { ...get, path: "/v1/models" })
      assert.deepStrictEqual([models.status, models.headers["x-sluice-target"]], [200, "up"])
      const together = yield* frontOf(targets("account"))
      const file = yield* ask(node, together, chat, { ...get, path: "/v1/files/f1" })
      assert.deepStrictEqual(
        [file.status, file.headers["x-sluice-target"], file.headers["x-sluice-attempts"]],
        [200, "up", "2"]
      )
    }).pipe(Effect.scoped))

  it.live("a large error passes as it comes, and one that is cut becomes a 502", () =>
    Effect.gen(function*() {
      const large = "x".repeat(3_000_000)
      const provider = yield* rawServer((response, { path }) => {
        response.writeHead(404, { "content-type": "text/plain" })
        if (path.endsWith("large")) return void response.end(large)
        response.write("{")
        setTimeout(() => response.destroy(), 20)
      })
      const front = yield* frontOf([at(provider.url)])
      const get = (path: string) => ask(node, front, chat, { path, method: "DELETE", body: undefined })
      const got = yield* get("/v1/files/large")
      assert.deepStrictEqual([got.status, got.end, got.text === large], [404, "Clean", true])
      const cut = yield* get("/v1/files/cut")
      assert.deepStrictEqual([cut.status, cut.end, cut.text.includes("connection_failed")], [502, "Clean", true])
    }).pipe(Effect.scoped))

  it.live("a cut within one does not look like its end", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "application/octet-stream" })
        response.write("half", () => setTimeout(() => response.destroy(), 10))
      })
      const front = yield* frontOf([at(provider.url)])
      for (const edge of edges) {
        const got = yield* ask(edge, front, chat, { path: "/v1/files/f1/content", method: "GET", body: undefined })
        assert.deepStrictEqual([got.text, got.end], ["half", "Broken"], edge.name)
      }
    }).pipe(Effect.scoped))

  it.live("the models are those that targets name, or the first target's if it has every model", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response) => json(response, 200, { data: ["theirs"] }))
      const get = { path: "/v1/models", method: "GET", body: undefined }
      const named = yield* frontOf([at(provider.url, "openai", { model: "large", models: { fast: "small" } })])
      const list = JSON.parse((yield* ask(node, named, chat, get)).text) as {
        readonly data: ReadonlyArray<{ readonly id: string }>
      }
      assert.deepStrictEqual(list.data.map(({ id }) => id), ["large", "fast"])
      const one = yield* ask(node, named, chat, { ...get, path: "/v1/models/fast" })
      assert.strictEqual(one.status, 200)
      const open = yield* frontOf([at(provider.url)])
      assert.strictEqual((yield* ask(node, open, chat, get)).text, "{\"data\":[\"theirs\"]}")
      // What a provider offers besides is not offered here.
      const routed = yield* frontOf([at(provider.url)], { models: { "gpt-*": ["openai"], large: ["openai"] } })
      const some = JSON.parse((yield* ask(node, routed, chat, get)).text) as typeof list
      assert.deepStrictEqual(some.data.map(({ id }) => id), ["large"])
      const status = (id: string) =>
        Effect.map(ask(node, routed, chat, { ...get, path: `/v1/models/${id}` }), ({ status }) => status)
      assert.deepStrictEqual([yield* status("gpt-5"), yield* status("o1")], [200, 404])
    }).pipe(Effect.scoped))

  it.live("embeddings are calls with retries", () =>
    Effect.gen(function*() {
      const body = "{\"data\":[{\"embedding\":[0.1]}],\"usage\":{\"prompt_tokens\":2}}"
      const provider = yield* rawServer((response, _, n) =>
        n === 1 ? json(response, 500, "{}") : json(response, 200, body)
      )
      const front = yield* frontOf([at(provider.url)])
      const got = yield* ask(node, front, chat, { path: "/v1/embeddings", body: "{\"model\":\"e\",\"input\":\"x\"}" })
      assert.deepStrictEqual([got.text, got.headers["x-sluice-attempts"]], [body, "2"])
      assert.strictEqual(front.call(got.headers["x-sluice-call"]!)?.method, "embed")
    }).pipe(Effect.scoped))
})

describe("clients that leave", () => {
  it.live("an upstream is closed, and permits are free, wherever the client leaves", () =>
    Effect.gen(function*() {
      for (const begun of ["", chat.head, chat.head + chat.word("one")]) {
        const provider = yield* rawServer((response) => {
          response.writeHead(200, { "content-type": "text/event-stream" })
          response.write(begun === "" ? ": hello\n\n" : begun)
        })
        const front = yield* frontOf([at(provider.url, "openai", { backpressure: { capacity: 1 } })], {
          firstTokenTimeout: "1 minute",
          idleTimeout: "1 minute"
        })
        const port = yield* served(front)
        for (
          const leave of [
            overNode(port, { path: chat.path, body: chat.stream }),
            fetched.ask(front, { path: chat.path, body: chat.stream }),
            web.ask(front, { path: chat.path, body: chat.stream })
          ]
        ) {
          const client = yield* Effect.forkScoped(leave, { startImmediately: true })
          yield* Effect.sleep("100 millis")
          const [running] = yield* front.targets
          assert.strictEqual(running?.permits?.running, 1)
          const closed = yield* Effect.forkScoped(provider.nextClose, { startImmediately: true })
          yield* Fiber.interrupt(client)
          yield* within(Fiber.join(closed), "5 seconds")
          const [left] = yield* front.targets
          assert.strictEqual(left?.permits?.running, 0)
          assert.strictEqual(left?.circuit?._tag, "Closed")
        }
      }
    }).pipe(Effect.scoped))

  it.live("a front that closes ends streams with an error, and refuses calls that wait", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response, { body }) => {
        if (body.includes("wait")) return
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(chat.head + chat.word("one"))
      })
      const front = yield* Effect.promise(() => Front.make({ targets: [at(provider.url)] }))
      const begun = (body: string) =>
        Effect.promise(() =>
          front.fetch(`http://x${chat.path}`, { method: "POST", headers: { "content-type": "application/json" }, body })
        )
      const stream = yield* begun(chat.stream)
      const waiting = yield* Effect.forkScoped(begun(chat.stream.replace("Hello", "wait")), { startImmediately: true })
      yield* Effect.sleep("50 millis")
      yield* Effect.promise(() => front.close())
      const text = yield* Effect.promise(() => stream.text())
      assert.isTrue(text.startsWith(chat.head + chat.word("one") + "data: {\"error\""), text)
      assert.strictEqual((yield* Fiber.join(waiting)).status, 503)
    }).pipe(Effect.scoped, within))
})
