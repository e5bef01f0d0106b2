import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Redacted } from "effect"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import type * as Script from "@sluice/ai/testing/Script"
import * as Http from "node:http"
import { generate, streamedText } from "../support/model.ts"
import { official, officialText, ourModel, type Provider, waitForJournal } from "../support/provider.ts"

interface HttpResult {
  readonly status: number
  readonly body: string
}

/** A request with any method, headers and body. */
const request = (
  url: string,
  options: { readonly method?: string; readonly headers?: Record<string, string>; readonly body?: string } = {}
) =>
  Effect.callback<HttpResult, Error>((resume) => {
    const sending = Http.request(
      url,
      { method: options.method, headers: options.headers, agent: false },
      (response) => {
        let body = ""
        response.setEncoding("utf8").on("data", (chunk: string) => body += chunk).on(
          "end",
          () => resume(Effect.succeed({ status: response.statusCode!, body }))
        )
      }
    )
    sending.on("error", (error) => resume(Effect.fail(error)))
    sending.end(options.body)
  })

const send = (
  provider: Provider,
  prompt: string,
  more: { readonly headers?: Record<string, string>; readonly body?: object } = {}
) =>
  request(`${provider.url}/chat/completions`, {
    method: "POST",
    headers: {
      ...(provider.apiKey === undefined ? {} : { authorization: `Bearer ${Redacted.value(provider.apiKey)}` }),
      ...more.headers
    },
    body: JSON.stringify({ model: "m1", messages: [{ role: "user", content: prompt }], ...more.body })
  })

const statuses = (provider: Provider) => Effect.map(provider.journal, (entries) => entries.map(({ status }) => status))

describe("LoopbackProvider", () => {
  it.live("a provider listens on a free local port and stops with its scope", () =>
    Effect.gen(function*() {
      const { port, url } = yield* Effect.scoped(Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({ apiKey: false })
        assert.strictEqual(provider.url, `http://127.0.0.1:${provider.port}/v1`)
        assert.isUndefined(provider.apiKey)
        assert.strictEqual((yield* send(provider, "hi")).status, 200)
        return provider
      }))
      assert.isAbove(port, 0)
      assert.include((yield* Effect.flip(request(`${url}/models`))).message, "ECONNREFUSED")
      const again = yield* LoopbackProvider.make({ port })
      assert.strictEqual(again.port, port)
    }))

  it.live("a port in use is a ListenError", () =>
    Effect.gen(function*() {
      const { port } = yield* LoopbackProvider.make()
      const error = yield* Effect.flip(LoopbackProvider.make({ port }))
      assert.deepInclude(error, { _tag: "ListenError", port, code: "EADDRINUSE" })
    }))

  it.effect("invalid options are refused", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(LoopbackProvider.make({
        port: 70_000,
        pace: { tokenMillis: -1, tokensPerChunk: 0 },
        journalCapacity: 0,
        script: { faults: { cut: 2 } }
      }))
      assert.deepStrictEqual(
        error._tag === "InvalidOptions" && error.issues.map(({ option }) => option),
        ["script", "port", "pace.tokenMillis", "pace.tokensPerChunk", "journalCapacity"]
      )
    }))

  it.live("each provider requires its own API key", () =>
    Effect.gen(function*() {
      const one = yield* LoopbackProvider.make()
      const two = yield* LoopbackProvider.make()
      assert.notStrictEqual(Redacted.value(one.apiKey!), Redacted.value(two.apiKey!))
      for (const authorization of ["", "Bearer wrong", Redacted.value(one.apiKey!)]) {
        const refused = yield* send(one, "hi", { headers: { authorization } })
        assert.strictEqual(refused.status, 401)
        assert.include(refused.body, "invalid_api_key")
      }
      const error = yield* Effect.flip(officialText(official({ ...one, apiKey: two.apiKey }), "hi"))
      assert.strictEqual(error.constructor.name, "AuthenticationError")
    }))

  it.live("only the host names of this machine are answered", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make()
      for (const host of ["evil.example", "127.0.0.1.evil.example", `evil.example:${provider.port}`]) {
        assert.strictEqual((yield* send(provider, "hi", { headers: { host } })).status, 403)
      }
      assert.strictEqual((yield* send(provider, "hi", { headers: { host: `localhost:${provider.port}` } })).status, 200)
    }))

  it.live("the provider lists its models and refuses others", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ models: ["m1", "m2"] })
      const client = official(provider)
      const models = yield* Effect.promise(() => client.models.list())
      assert.deepStrictEqual(models.data.map(({ id }) => id), ["m1", "m2"])
      assert.strictEqual((yield* send(provider, "hi")).status, 200)
      const refused = yield* send(provider, "hi", { body: { model: "constructor" } })
      assert.strictEqual(refused.status, 404)
      assert.deepInclude(JSON.parse(refused.body).error, { code: "model_not_found", param: "model" })
    }))

  it.live("invalid requests and unknown paths are refused", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ apiKey: false })
      const post = (body: string) => request(`${provider.url}/chat/completions`, { method: "POST", body })
      for (const body of ["", "{", "[]", "{\"model\":\"m1\"}", "{\"model\":\"m1\",\"messages\":[]}"]) {
        assert.strictEqual((yield* post(body)).status, 400)
      }
      assert.strictEqual((yield* post("x".repeat(17 * 2 ** 20))).status, 413)
      assert.strictEqual((yield* request(`${provider.url}/completions`)).status, 404)
      assert.strictEqual((yield* request(`${provider.url}/chat/completions`)).status, 404)
    }), 20_000)

  it.live("the answer option sets the text and the token counts", () =>
    Effect.gen(function*() {
      const questions: Array<unknown> = []
      const provider = yield* LoopbackProvider.make({
        answer: (question) =>
          Effect.sync(() => {
            questions.push(question)
            return { text: `for ${question.prompt}`, inputTokens: 70, outputTokens: 40 }
          })
      })
      yield* Effect.provide(generate("the question"), ourModel(provider))
      assert.deepStrictEqual(questions, [
        { model: "m1", prompt: "the question", messages: [{ role: "user", content: "the question" }] }
      ])
      assert.deepInclude((yield* provider.journal)[0], { inputTokens: 70, outputTokens: 40 })
    }))

  it.live("a failing answer has the status of its error", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({
        answer: ({ prompt }) =>
          prompt === "bug"
            ? Effect.die("bug")
            : Effect.fail(new LoopbackProvider.AnswerError({ status: 422, message: "too long" }))
      })
      const refused = yield* send(provider, "hi")
      assert.deepStrictEqual([refused.status, JSON.parse(refused.body).error.message], [422, "too long"])
      assert.strictEqual((yield* send(provider, "bug")).status, 500)
      assert.deepStrictEqual((yield* provider.journal).map(({ ending }) => ending), ["refused", "refused"])
    }))

  it.live("an answer stops at max_tokens", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make()
      const { body } = yield* send(provider, "a b c d", { body: { max_tokens: 3 } })
      assert.deepInclude(JSON.parse(body).choices[0], { finish_reason: "length" })
      assert.strictEqual(JSON.parse(body).choices[0].message.content, "Loopback echo: a")
    }))

  it.live("the pace delays the first token and the tokens after it", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({
        pace: { firstTokenMillis: 60, tokenMillis: 10, tokensPerChunk: 2 },
        answer: () => Effect.succeed({ text: "a b c d e f" })
      })
      assert.strictEqual(yield* Effect.provide(streamedText(), ourModel(provider)), "a b c d e f")
      const [entry] = yield* provider.journal
      assert.isAtLeast(entry!.firstByte!.monotonic - entry!.received.monotonic, 58)
      assert.isAtLeast(entry!.ended!.monotonic - entry!.firstByte!.monotonic, 38)
    }))
})

describe("the attempt number of a request", () => {
  const attempts = (headers: ReadonlyArray<Record<string, string>>, prompt = (_: number) => "same") =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ apiKey: false })
      for (const [i, each] of headers.entries()) yield* send(provider, prompt(i), { headers: each })
      return (yield* provider.journal).map(({ attempt }) => attempt)
    })

  it.live("the attempt number comes from the client's headers, and the official client's takes precedence", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(
        yield* attempts([
          { "x-stainless-retry-count": "0" },
          { "x-stainless-retry-count": "4" },
          { "x-sluice-attempt": "7" },
          { "x-stainless-retry-count": "1", "x-sluice-attempt": "7" }
        ]),
        [1, 5, 7, 2]
      )
    }))

  it.live("without a valid header, the attempt number counts requests of the same conversation", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(
        yield* attempts([{}, { "x-sluice-attempt": "0" }, { "x-stainless-retry-count": "-1" }, {
          "x-sluice-attempt": "x"
        }]),
        [1, 2, 3, 4]
      )
      assert.deepStrictEqual(yield* attempts([{}, {}, {}, {}], (i) => i % 2 === 0 ? "__proto__" : "constructor"), [
        1,
        1,
        2,
        2
      ])
    }))

  it.live("the attempt number does not depend on how a client encodes a text", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ apiKey: false })
      const messages = [{ role: "user", content: [{ type: "text", text: "a " }, { type: "text", text: "b" }] }]
      yield* send(provider, "a b")
      yield* send(provider, "", { body: { messages } })
      assert.deepStrictEqual((yield* provider.journal).map(({ attempt, prompt }) => [attempt, prompt]), [[1, "a b"], [
        2,
        "a b"
      ]])
    }))
})

describe("outages of LoopbackProvider", () => {
  const journalWith = (outage: Script.Encoded["outage"], requests: ReadonlyArray<readonly [string, number]>) =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ apiKey: false, script: { outage: outage! } })
      for (const [prompt, attempt] of requests) {
        yield* Effect.ignore(send(provider, prompt, { headers: { "x-sluice-attempt": String(attempt) } }))
      }
      return yield* provider.journal
    })
  const firstAttempts = (n: number) => Array.from({ length: n }, (_, i) => [`p${i}`, 1] as const)

  it.live("an outage begins after `afterCalls` first attempts and refuses `requests` requests", () =>
    Effect.gen(function*() {
      const journal = yield* journalWith({ afterCalls: 2, requests: 3, atMostMillis: 60_000 }, firstAttempts(7))
      assert.deepStrictEqual(journal.map(({ status }) => status), [200, 200, 503, 503, 503, 200, 200])
      assert.deepStrictEqual(Journal.whileDown(journal).map(({ n }) => n), [3, 4, 5])
    }))

  it.live("a retry does not begin an outage but is refused by it", () =>
    Effect.gen(function*() {
      const journal = yield* journalWith({ afterCalls: 1, requests: 2, atMostMillis: 60_000 }, [
        ["a", 1],
        ["a", 2],
        ["a", 3],
        ["b", 1],
        ["b", 2],
        ["b", 3]
      ])
      assert.deepStrictEqual(journal.map(({ status }) => status), [200, 200, 200, 503, 503, 200])
    }))

  it.live("an outage ends after atMostMillis without requests", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({
        apiKey: false,
        script: { outage: { afterCalls: 0, requests: 1000, atMostMillis: 50 } }
      })
      yield* send(provider, "a")
      yield* Effect.sleep(60)
      yield* send(provider, "b")
      assert.deepStrictEqual(yield* statuses(provider), [503, 200])
    }))

  it.live("an outage may reset connections or send a Retry-After", () =>
    Effect.gen(function*() {
      const reset = yield* journalWith(
        { afterCalls: 0, requests: 1, atMostMillis: 60_000, how: "reset" },
        firstAttempts(1)
      )
      assert.deepInclude(reset[0], { ending: "reset", down: true })
      const journal = yield* journalWith(
        { afterCalls: 0, requests: 1, atMostMillis: 60_000, retryAfterSeconds: 3 },
        firstAttempts(1)
      )
      assert.deepInclude(journal[0], { status: 503, retryAfterMillis: 3000 })
    }))

  it.live("an outage may be set by time", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({
        apiKey: false,
        script: { outage: { fromMillis: 0, forMillis: 800 } }
      })
      yield* send(provider, "a")
      yield* Effect.sleep(900)
      yield* send(provider, "b")
      assert.deepStrictEqual(yield* statuses(provider), [503, 200])
      yield* provider.clear
      yield* send(provider, "c")
      assert.deepStrictEqual(yield* statuses(provider), [503])
    }), 20_000)

  it.live("down and up begin and end an outage", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ apiKey: false })
      yield* provider.down
      yield* send(provider, "a")
      yield* provider.up
      yield* send(provider, "b")
      assert.deepStrictEqual(yield* statuses(provider), [503, 200])
    }))
})

describe("the journal of LoopbackProvider", () => {
  it.live("the journal shows how many requests were open at once", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const provider = yield* LoopbackProvider.make({
        answer: () => Effect.as(Deferred.await(gate), { text: "a" })
      })
      const fiber = yield* Effect.forEach(
        ["a", "b", "c"],
        (prompt) => Effect.forkChild(Effect.provide(generate(prompt), ourModel(provider)))
      )
      yield* waitForJournal(provider, ({ length }) => length === 3)
      assert.deepStrictEqual((yield* provider.journal).map(({ ending }) => ending), ["open", "open", "open"])
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.joinAll(fiber)
      yield* Effect.provide(generate("d"), ourModel(provider))
      const journal = yield* provider.journal
      assert.strictEqual(Journal.maxOpen(journal), 3)
      assert.strictEqual(journal[3]?.open, 1)
    }))

  it.live("the journal never counts more open requests than the client had", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make()
      yield* Effect.forEach(
        Array.from({ length: 200 }, (_, i) => `p${i}`),
        (prompt) => Effect.asVoid(generate(prompt)),
        { concurrency: 8 }
      ).pipe(Effect.provide(ourModel(provider)))
      const journal = yield* provider.journal
      assert.strictEqual(journal.length, 200)
      assert.isAtMost(Journal.maxOpen(journal), 8)
    }), 20_000)

  it.live("the journal has the output for a client that left, and that it left", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ pace: { tokenMillis: 5 } })
      const fiber = yield* Effect.forkChild(
        Effect.provide(streamedText("word ".repeat(400).trim()), ourModel(provider))
      )
      yield* waitForJournal(provider, ([entry]) => (entry?.outputTokens ?? 0) > 0)
      yield* Fiber.interrupt(fiber)
      const [entry] = yield* waitForJournal(provider, ([entry]) => entry?.ending !== "open")
      assert.deepInclude(entry, { ending: "clientClosed", status: 200, inputTokens: 400 })
      assert.isBelow(entry!.outputTokens, 400)
      assert.isUndefined(entry!.answer)
    }))

  it.live("the journal keeps the last requests, and no prompts with keepPrompts: false", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ apiKey: false, journalCapacity: 2, keepPrompts: false })
      for (const prompt of ["a", "b", "c"]) yield* send(provider, prompt)
      const journal = yield* provider.journal
      assert.deepStrictEqual(journal.map(({ n }) => n), [2, 3])
      assert.isTrue(journal.every((entry) => !("prompt" in entry)))
      assert.strictEqual(yield* provider.dropped, 1)
      yield* provider.clear
      assert.deepStrictEqual(yield* provider.journal, [])
      assert.strictEqual(yield* provider.dropped, 0)
    }))

  it.live("clear resets the journal and the faults", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({
        apiKey: false,
        script: { faults: { unavailable: 1 }, outage: { afterCalls: 1, requests: 1, atMostMillis: 60_000 } }
      })
      const run = Effect.gen(function*() {
        for (const prompt of ["a", "a", "b", "b"]) yield* send(provider, prompt)
        const seen = (yield* provider.journal).map(({ attempt, down, n, status }) => ({ attempt, down, n, status }))
        yield* provider.clear
        return seen
      })
      const first = yield* run
      assert.deepStrictEqual(first.map(({ status }) => status), [503, 200, 503, 200])
      assert.deepStrictEqual(yield* run, first)
    }))
})

it.live("a long answer arrives completely", () =>
  Effect.gen(function*() {
    const text = "word ".repeat(40_000)
    const provider = yield* LoopbackProvider.make({ answer: () => Effect.succeed({ text }) })
    assert.strictEqual(yield* Effect.provide(streamedText(), ourModel(provider)), text)
  }), 60_000)
