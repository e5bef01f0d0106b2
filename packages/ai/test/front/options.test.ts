import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import * as Quota from "@sluice/core/Quota"
import type * as Front from "@sluice/ai/Front"
import * as Zlib from "node:zlib"
import { json, rawServer } from "../support/rawServer.ts"
import { edges, fetched, frontOf, node, within } from "./edges.ts"
import { anthropic, chat, wires } from "./wires.ts"

const whole = chat.head + chat.word("fine") + chat.finish + chat.end
const asking = { path: chat.path, body: chat.stream }
const at = (url: string, more?: Partial<Front.FrontTarget>): Front.FrontTarget => ({
  name: "a",
  url,
  speaks: "openai",
  ...more
})

describe("options", () => {
  it.effect("all issues are reported together, with their places and without secrets", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Effect.scoped(frontOf(
        [
          // A URL without a scheme, and a key that cannot be sent.
          { ...at("localhost"), apiKey: Redacted.make("a b"), extra: 1 } as Front.FrontTarget,
          at("https://x/v1", { name: "b", endpoints: ["messages"] })
        ],
        { heartbeat: -1, maxBodyBytes: 0, models: { m: ["c"] }, omittable: ["x\r\ny"], reasks: 1 } as Partial<
          Front.FrontOptions
        >
      )))
      const paths = error.issues.map(({ option }) => option)
      for (
        const path of [
          "reasks",
          "targets[0].extra",
          "targets[0].url",
          "targets[0].apiKey",
          "targets[1].endpoints",
          "models[\"m\"]",
          "heartbeat",
          "maxBodyBytes",
          "omittable"
        ]
      ) assert.include(paths, path)
      assert.isTrue(error.message.startsWith("Front: "), error.message)
      assert.notInclude(error.message, "a b")
    }))

  it.effect("a route names targets once each, with weights above 0", () =>
    Effect.gen(function*() {
      const targets = [at("https://x/v1", { name: "a" }), at("https://y/v1", { name: "b" })]
      const routes: ReadonlyArray<readonly [route: unknown, option: string]> = [
        [[{ a: 0 }], "models[\"m\"].a"],
        [[{ a: "3" }], "models[\"m\"].a"],
        [[{ a: 1, c: 1 }], "models[\"m\"]"],
        [[{}], "models[\"m\"]"],
        [["a", { a: 1, b: 1 }], "models[\"m\"]"],
        [["b", "b"], "models[\"m\"]"],
        [[null], "models[\"m\"]"],
        ["a", "models[\"m\"]"]
      ]
      for (const [route, option] of routes) {
        // Options can come from a file.
        const models = { m: route } as Front.FrontOptions["models"]
        const { issues } = yield* Effect.flip(Effect.scoped(frontOf(targets, { models })))
        assert.deepStrictEqual(issues.map((issue) => issue.option), [option], JSON.stringify(route))
      }
    }))
})

describe("answer: whole", () => {
  it.live("a stream that fails after output is retried, and the client gets one whole answer", () =>
    Effect.gen(function*() {
      for (const wire of wires) {
        const provider = yield* rawServer((response, _, n) => {
          response.writeHead(200, { "content-type": "text/event-stream" })
          if (n > 1) response.end(wire.head + wire.word("all") + wire.finish + wire.end)
          else response.write(wire.head + wire.word("lost"), () => setTimeout(() => response.destroy(), 5))
        })
        const front = yield* frontOf([at(provider.url, { speaks: wire.speaks })], { answer: "whole" })
        const got = yield* node.ask(front, { path: wire.path, body: wire.stream })
        assert.strictEqual(got.text, wire.head + wire.word("all") + wire.finish + wire.end)
        assert.strictEqual(got.headers["x-sluice-attempts"], "2")
      }
    }).pipe(Effect.scoped, within))

  it.live("an answer above maxWholeBytes is live from there", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(chat.head + chat.word("x".repeat(1000)), () => setTimeout(() => response.destroy(), 20))
      })
      const front = yield* frontOf([at(provider.url)], { answer: "whole", maxWholeBytes: 500 })
      const got = yield* node.ask(front, asking)
      assert.include(got.text, "truncated_stream")
      assert.strictEqual(provider.requests.length, 1)
    }).pipe(Effect.scoped, within))
})

describe("heartbeat", () => {
  it.live("a client that waits gets comments, then the answer or an error event", () =>
    Effect.gen(function*() {
      for (const edge of edges) {
        const provider = yield* rawServer((response, { body }) => {
          if (body.includes("fail")) return json(response, 400, { error: { message: "no" } })
          setTimeout(() => {
            response.writeHead(200, { "content-type": "text/event-stream" })
            response.end(whole)
          }, 400)
        })
        const front = yield* frontOf([at(provider.url, { backpressure: { capacity: 1, queue: 10 } })], {
          heartbeat: "30 millis"
        })
        const first = yield* Effect.forkScoped(edge.ask(front, asking), { startImmediately: true })
        for (let waits = 0; waits < 500 && provider.requests.length === 0; waits++) yield* Effect.sleep("2 millis")
        // Waits for the permit of the first.
        const bad = yield* edge.ask(front, { ...asking, body: chat.stream.replace("Hello", "fail") })
        const good = yield* Fiber.join(first)
        assert.match(good.text, /^(?:: sluice\n\n){2,}data/, edge.name)
        assert.isTrue(good.text.endsWith(whole))
        assert.strictEqual(bad.status, 200)
        assert.match(bad.text, /^(?:: sluice\n\n)+data: \{"error":\{.*"code":"invalid_request"/, edge.name)
      }
    }).pipe(Effect.scoped, within))
})

describe("countUsage", () => {
  it.live("asks for token counts, and leaves out the event with them", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.end(whole)
      })
      const front = yield* frontOf([at(provider.url)], { countUsage: true })
      const got = yield* node.ask(front, asking)
      assert.strictEqual(got.text, chat.head + chat.word("fine") + chat.finish + "data: [DONE]\n\n")
      assert.include(provider.requests[0]?.body, "\"stream_options\":{\"include_usage\":true}")
      assert.deepStrictEqual(front.call(got.headers["x-sluice-call"]!)?.usage.outputTokens, 4)
      const own = chat.stream.replace("{", "{\"stream_options\":{\"include_usage\":true},")
      assert.strictEqual((yield* node.ask(front, { ...asking, body: own })).text, whole)
    }).pipe(Effect.scoped, within))
})

describe("bounds", () => {
  it.live("an answer above maxAnswerBytes is refused, and a compressed one is decoded", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response, { body }) => {
        if (body.includes("large")) return json(response, 200, `{"text":"${"x".repeat(2000)}"}`)
        response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" })
        response.end(Zlib.gzipSync(chat.answer))
      })
      const front = yield* frontOf([at(provider.url)], { maxAnswerBytes: 1000 })
      const good = yield* node.ask(front, { ...asking, body: chat.whole })
      assert.deepStrictEqual([good.text, good.headers["content-encoding"]], [chat.answer, undefined])
      const bad = yield* node.ask(front, { ...asking, body: chat.whole.replace("Hello", "large") })
      assert.deepStrictEqual([bad.status, provider.requests.length], [502, 2])
    }).pipe(Effect.scoped, within))

  it.live("a compressed request passes as it is, and is refused if it would have to be changed", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response, { headers }) =>
        json(response, 200, { choices: [{ message: { content: headers["content-encoding"] } }] })
      )
      const same = yield* frontOf([at(provider.url)])
      const other = yield* frontOf([at(provider.url, { model: "other" })])
      const coded = { ...asking, headers: { "content-encoding": "gzip" } }
      assert.strictEqual((yield* fetched.ask(same, coded)).text, "{\"choices\":[{\"message\":{\"content\":\"gzip\"}}]}")
      assert.strictEqual((yield* fetched.ask(other, coded)).status, 415)
    }).pipe(Effect.scoped, within))

  it.live("a slow client pauses the provider, and does not count as its silence", () =>
    Effect.gen(function*() {
      let written = 0
      const word = chat.word("x".repeat(100_000))
      const provider = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        const more = () => {
          while (written < 400) {
            written++
            if (!response.write(word)) return response.once("drain", more)
          }
          return response.end(chat.finish)
        }
        more()
      })
      const front = yield* frontOf([at(provider.url)], { idleTimeout: "500 millis" })
      const response = yield* Effect.promise(() =>
        front.fetch(`http://x${chat.path}`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: chat.stream
        })
      )
      yield* Effect.sleep("1200 millis")
      assert.isBelow(written, 200)
      const text = yield* Effect.promise(() => response.text())
      assert.isTrue(text.endsWith(chat.finish + "data: [DONE]\n\n"))
      assert.strictEqual(written, 400)
    }).pipe(Effect.scoped, within))
})

describe("quotas and permits", () => {
  it.live("a call reserves what its request says, and settles what the answer used", () =>
    Effect.gen(function*() {
      let reserved: number | undefined
      const used = Effect.map(Effect.suspend(() => front.targets), ([state]) => state?.quota?.[0]?.used)
      const provider = yield* rawServer((response) => {
        reserved = Effect.runSync(used)
        json(response, 200, anthropic.answer)
      })
      const quota = { limits: [Quota.outputTokensPerMinute(1000)] }
      const front = yield* frontOf([at(provider.url, { speaks: "anthropic", model: "claude", quota })])
      const got = yield* node.ask(front, { path: anthropic.path, body: anthropic.whole.replace("100", "900") })
      assert.deepStrictEqual([got.status, reserved, yield* used], [200, 900, 4])
    }).pipe(Effect.scoped, within))

  it.live("permits bound how many calls run at a target", () =>
    Effect.gen(function*() {
      let running = 0
      let most = 0
      const provider = yield* rawServer((response) => {
        most = Math.max(most, ++running)
        setTimeout(() => {
          running--
          json(response, 200, chat.answer)
        }, 20)
      })
      const front = yield* frontOf([at(provider.url, { backpressure: { capacity: 2, queue: 10 } })])
      const got = yield* Effect.all(Array.from({ length: 6 }, () => node.ask(front, { ...asking, body: chat.whole })), {
        concurrency: 6
      })
      assert.deepStrictEqual([most, new Set(got.map(({ status }) => status)).size], [2, 1])
    }).pipe(Effect.scoped, within))
})
