import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import { assert, describe, it } from "@effect/vitest"
import { generateText } from "ai"
import { Effect, Logger, References } from "effect"
import OpenAI from "openai"
import { ClientRetries } from "../../src/internal/front/clientRetries.ts"
import { json, rawServer } from "../support/rawServer.ts"
import { frontOf, type Service, within } from "./edges.ts"

type Ask = (front: Service) => Promise<unknown>

const ofAiSdk: Ask = ({ fetch }) =>
  generateText({
    model: createOpenAICompatible({ name: "front", baseURL: "http://front/v1", fetch })("m"),
    prompt: "Hello",
    maxRetries: 1
  })

const ofOpenAi: Ask = ({ fetch }) =>
  new OpenAI({ baseURL: "http://front/v1", apiKey: "client", fetch, maxRetries: 1, logLevel: "off" })
    .chat.completions.create({ model: "m", messages: [{ role: "user", content: "Hello" }] })

/** Asks a provider that is down. Returns the requests that it received, and the warnings of the front. */
const ask = (asks: ReadonlyArray<Ask>) => {
  const warnings: Array<unknown> = []
  const logger = Logger.make(({ fiber, message }) => {
    warnings.push([message, fiber.getRef(References.CurrentLogAnnotations)["client"]])
  })
  return Effect.gen(function*() {
    const provider = yield* rawServer((response) =>
      json(response, 503, { error: { message: "down" } }, { "retry-after-ms": "1" })
    )
    const front = yield* frontOf([{ name: "a", url: provider.url, speaks: "openai", breaker: false }])
    for (const each of asks) yield* Effect.promise(() => each(front).catch(() => {}))
    return { requests: provider.requests.length, warnings }
  }).pipe(Effect.scoped, within, Effect.provide(Logger.layer([logger])))
}

describe("retries of clients", () => {
  it.live("a client that retries although all attempts failed is reported once, with its name", () =>
    Effect.gen(function*() {
      const { requests, warnings } = yield* ask([ofAiSdk, ofAiSdk])
      assert.strictEqual(requests, 12)
      assert.strictEqual(warnings.length, 1)
      const [[message, client]] = warnings as [[string, string]]
      assert.match(String(message), /set its maxRetries to 0/)
      assert.match(client, /^ai\/7/)
    }))

  it.live("a client that obeys x-should-retry is not reported", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* ask([ofOpenAi]), { requests: 3, warnings: [] })
    }))

  const request = (text: string, headers = {}) => ({ method: "POST", path: "/", headers, body: Buffer.from(text) })
  const reports = (use: (retries: ClientRetries) => void): number => {
    let reported = 0
    use(new ClientRetries(() => reported++))
    return reported
  }

  it("a request that comes again after ten seconds, or one like it, is not reported", () => {
    assert.strictEqual(
      reports((retries) => {
        retries.failed(request("a"), 0)
        retries.began(request("b"), 1)
        retries.began(request("a"), 10_000)
      }),
      0
    )
  })

  it("an equal request of a client that says that it does not retry is not reported", () => {
    const withCount = (count: string) =>
      reports((retries) => {
        retries.failed(request("a"), 0)
        retries.began(request("a", { "x-stainless-retry-count": count }), 1)
      })
    assert.deepStrictEqual([withCount("0"), withCount("1")], [0, 1])
  })

  it("the last eight failures are known", () => {
    const afterOthers = (others: number) =>
      reports((retries) => {
        for (let n = 0; n <= others; n++) retries.failed(request(`request ${n}`), 0)
        retries.began(request("request 0"), 1)
      })
    assert.deepStrictEqual([afterOthers(7), afterOthers(8)], [1, 0])
  })
})
