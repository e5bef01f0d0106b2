import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { generateText } from "ai"
import { Effect, Redacted, Schedule } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import OpenAI from "openai"
import { refused, run } from "../support/command.ts"
import { folder } from "../support/files.ts"
import { addKey, ask, type Gateway, keys, logsOf, over, send, start } from "../support/gateway.ts"
import { processTimeout } from "../support/timeouts.ts"

const stop = ({ command }: Gateway) =>
  Effect.promise(() => {
    command.process.kill("SIGTERM")
    return command.ended
  })

describe("sluice serve", { timeout: processTimeout }, () => {
  it.live("the official client gets answers and streams through a fallback, and the log says why", () =>
    Effect.gen(function*() {
      const down = yield* LoopbackProvider.make({ turns: () => Turn.status(503) })
      const up = yield* LoopbackProvider.make({})
      const { args, env } = over(down, up)
      const gateway = yield* start(yield* folder, args, env)
      const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.token, maxRetries: 0 })
      const messages = [{ role: "user" as const, content: "Hello" }]

      const { data, response } = yield* Effect.promise(() =>
        client.chat.completions.create({ model: "m", messages }).withResponse()
      )
      assert.include(data.choices[0]?.message.content, "Hello")
      assert.strictEqual(response.headers.get("x-sluice-target"), "b")
      const streamed = yield* Effect.promise(async () => {
        let text = ""
        for await (const chunk of await client.chat.completions.create({ model: "m", messages, stream: true })) {
          text += chunk.choices[0]?.delta.content ?? ""
        }
        return text
      })
      assert.include(streamed, "Hello")

      const bearer = { headers: { authorization: `Bearer ${gateway.token}` } }
      const log = yield* send(gateway, `/sluice/calls/${response.headers.get("x-sluice-call")}`, bearer)
      const { answeredBy, steps } = JSON.parse(log.text)
      assert.strictEqual(answeredBy, "b")
      assert.include(steps.map(({ target }: { readonly target: string }) => target), "a")
      const metrics = yield* send(gateway, "/metrics", bearer)
      assert.match(String(metrics.headers["content-type"]), /^text\/plain; version=0\.0\.4/)
      assert.include(
        metrics.text,
        `sluice_gateway_requests_total{key="token",operation="chat",status="200",result="ok"} 2`
      )
      assert.include(metrics.text, "gen_ai_client_operation_duration_count")

      const { code, stderr } = yield* stop(gateway)
      assert.strictEqual(code, 0, stderr)
      const request = logsOf(stderr).find(({ event }) => event === "request")
      assert.deepInclude(request, { key: "token", operation: "chat", status: 200, result: "ok", target: "b" })
      assert.isAbove(Number(request?.["outputTokens"]), 0)
    }))

  it.live("with --answer whole a stream that breaks is retried, and the client gets one whole answer", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({
        turns: [Turn.cut({ afterTokens: 2 }), Turn.answer("one, two, three")]
      })
      const { args, env } = over(provider)
      const gateway = yield* start(yield* folder, [...args, "--answer", "whole"], env)
      const { headers, text } = yield* ask(gateway, gateway.token, { stream: true })
      assert.strictEqual(headers["x-sluice-attempts"], "2")
      // nginx would hold it again.
      assert.strictEqual(headers["x-accel-buffering"], "no")
      const deltas = [...text.matchAll(/"content":"([^"]*)"/g)].map(([, delta]) => delta)
      assert.strictEqual(deltas.join(""), "one, two, three")
      assert.include(text, "data: [DONE]")
    }))

  it.live("routes of the file send models to targets, which get names of their own", () =>
    Effect.gen(function*() {
      const first = yield* LoopbackProvider.make({ apiKey: false })
      const second = yield* LoopbackProvider.make({})
      const directory = yield* folder
      const env = { TEAM_KEY: Redacted.value(second.apiKey ?? Redacted.make("")) }
      const serve = {
        target: [`a=${first.url}#own`, { name: "b", url: second.url, key: "${TEAM_KEY}", models: { small: "tiny" } }],
        models: { "gpt-*": ["a"], small: ["b", "a"] },
        timeout: "30s"
      }
      writeFileSync(join(directory, "sluice.json"), JSON.stringify({ concurrency: 4, serve }))
      const gateway = yield* start(directory, [], env)
      const modelOf = (model: string) =>
        Effect.map(ask(gateway, gateway.token, { model }), ({ headers, status, text }) => [
          status,
          headers["x-sluice-target"],
          JSON.parse(text).model
        ])
      assert.deepStrictEqual(yield* modelOf("gpt-5"), [200, "a", "own"])
      assert.deepStrictEqual(yield* modelOf("small"), [200, "b", "tiny"])
      assert.isAtLeast((yield* ask(gateway, gateway.token, { model: "other" })).status, 400)
    }))

  it.live("a limited key gets its models and its rate, and nothing else", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({})
      const directory = yield* folder
      const { args, env } = over(provider)
      const limited = yield* addKey(directory, "ann", "--rpm", "2", "--models", "small,gpt-*")
      const free = yield* addKey(directory, "bob")
      const admin = yield* addKey(directory, "ops", "--admin")
      const gateway = yield* start(directory, args, env)
      assert.strictEqual(gateway.token, "")
      const statusOf = (token: string, model: string) =>
        Effect.map(ask(gateway, token, { model }), ({ status, text }) => [status, JSON.parse(text).error?.code])

      assert.deepStrictEqual(yield* statusOf(limited, "large"), [403, "model_not_allowed"])
      assert.deepStrictEqual(yield* statusOf(limited, "small"), [200, undefined])
      assert.deepStrictEqual(yield* statusOf(limited, "gpt-5"), [200, undefined])
      const third = yield* ask(gateway, limited, { model: "small" })
      assert.strictEqual(third.status, 429)
      assert.include(JSON.parse(third.text).error.message, "requests a minute")
      const wait = Number(third.headers["retry-after"])
      assert.isTrue(wait >= 1 && wait <= 60, third.text)
      assert.deepStrictEqual(yield* statusOf(free, "large"), [200, undefined])

      const batch = {
        headers: { authorization: `Bearer ${limited}`, "content-type": "application/json" },
        body: `{"input_file_id":"x"}`
      }
      assert.strictEqual((yield* send(gateway, "/v1/batches", batch)).status, 403)

      const call = String((yield* ask(gateway, free)).headers["x-sluice-call"])
      const read = (path: string, token: string) =>
        Effect.map(send(gateway, path, { headers: { "x-api-key": token } }), ({ status }) => status)
      assert.strictEqual(yield* read(`/sluice/calls/${call}`, free), 200)
      assert.strictEqual(yield* read(`/sluice/calls/${call}`, limited), 404)
      assert.strictEqual(yield* read(`/sluice/calls/${call}`, admin), 200)
      assert.strictEqual(yield* read("/metrics", free), 403)
      assert.strictEqual(yield* read("/metrics", admin), 200)

      assert.strictEqual((yield* keys(directory, "remove", "bob")).code, 0)
      yield* Effect.repeat(ask(gateway, free), { until: ({ status }) => status === 401, schedule: Schedule.spaced(50) })
      const last = yield* addKey(directory, "cleo")
      yield* Effect.repeat(ask(gateway, last), { until: ({ status }) => status === 200, schedule: Schedule.spaced(50) })
    }))

  it.live("a budget of a key holds over a restart", () =>
    Effect.gen(function*() {
      const answer = () => Effect.succeed({ text: "yes", inputTokens: 100, outputTokens: 900 })
      const provider = yield* LoopbackProvider.make({ answer })
      const directory = yield* folder
      const { args, env } = over(provider)
      const key = yield* addKey(directory, "ann", "--max-cost-per-day", "0.0025")
      const priced = [...args, "--price", "1,1"]
      const spend = (gateway: Gateway) => Effect.map(ask(gateway, key, { max_tokens: 1_000 }), ({ status }) => status)
      const gateway = yield* start(directory, priced, env)
      assert.strictEqual(yield* spend(gateway), 200)
      yield* stop(gateway)
      const again = yield* start(directory, priced, env)
      assert.strictEqual(yield* spend(again), 200)
      const refused = yield* ask(again, key, { max_tokens: 1_000 })
      assert.deepStrictEqual([refused.status, refused.headers["x-should-retry"]], [429, "false"])
      yield* stop(again)
      assert.include((yield* keys(directory, "list")).stdout, "$0.002 of $0.0025")
      const unpriced = yield* start(directory, args, env)
      assert.strictEqual((yield* ask(unpriced, key, { model: "unheard-of" })).status, 403)
    }))

  it.live("the log tells when a circuit opens, and once of a client whose retries multiply", () =>
    Effect.gen(function*() {
      const headers = { "retry-after-ms": "1" }
      const down = yield* LoopbackProvider.make({ turns: () => Turn.status(503, { headers }) })
      const { args, env } = over(down)
      const gateway = yield* start(yield* folder, [...args, "--max-attempts", "1"], env)
      const settings = { baseURL: `${gateway.url}/v1`, apiKey: gateway.token }
      const question = { model: "m", max_tokens: 100, messages: [{ role: "user" as const, content: "Hello" }] }
      const model = createOpenAICompatible({ ...settings, name: "gateway" })("m")
      const clients: ReadonlyArray<readonly [requests: number, () => PromiseLike<unknown>]> = [
        [1, () => new OpenAI({ ...settings, logLevel: "off" }).chat.completions.create(question)],
        [1, () => new Anthropic({ ...settings, baseURL: gateway.url, logLevel: "off" }).messages.create(question)],
        [3, () => generateText({ model, prompt: "Hello" })]
      ]
      // The official clients obey the gateway, and the AI SDK does not.
      for (const [requests, ask] of clients) {
        const before = (yield* down.journal).length
        yield* Effect.promise(() => ask().then(() => assert.fail("was answered"), () => {}))
        assert.strictEqual((yield* down.journal).length - before, requests)
      }
      const { stderr, stdout } = yield* stop(gateway)
      const logs = logsOf(stderr)
      assert.deepInclude(logs.find(({ event }) => event === "circuit"), { level: "warn", target: "a", to: "Open" })
      const warned = logs.filter(({ event }) => String(event).includes("maxRetries"))
      assert.strictEqual(warned.length, 1, stderr)
      assert.match(String(warned[0]?.["client"]), /^ai\/7/)
      assert.match(stdout, /Ctrl-C stops it\.\n$/)
    }))

  it("unusable settings are refused in one line", async () => {
    const target = ["--target", "a=http://127.0.0.1:1"]
    refused(await run(["serve", ...target, "--host", "0.0.0.0"]), "sluice keys add NAME")
    refused(await run(["serve", ...target, "--models", "x=b"]), "models sends x to b, which is no target")
    refused(await run(["serve", ...target, "--concurrency", "b=2"]), "--concurrency names b")
    refused(await run(["serve", "--target", "a=http://192.0.2.1"], { SLUICE_KEY_A: "long-secret-key" }), "unencrypted")
    refused(await run(["serve"]), "no key: OPENAI_API_KEY is not set")
    refused(await run(["serve", ...target, "--port", "70000"]), "from 0 to 65535")
    refused(
      await run(["serve", ...target, "--keys", import.meta.filename]),
      "cannot use the keys",
      "it is no file of SQLite"
    )
  })
})
