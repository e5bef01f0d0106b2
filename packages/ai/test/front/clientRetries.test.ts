import { createAnthropic } from "@ai-sdk/anthropic"
import { createOpenAI } from "@ai-sdk/openai"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it, vi } from "@effect/vitest"
import { ChatOpenAI } from "@langchain/openai"
import { generateText, type LanguageModel } from "ai"
import { Effect, Logger, References } from "effect"
import OpenAI from "openai"
import * as Front from "@sluice/ai/Front"
import { ClientRetries } from "../../src/internal/front/clientRetries.ts"
import { json, rawServer } from "../support/rawServer.ts"
import { frontOf, type Service, within } from "./edges.ts"

type Ask = (front: Pick<Service, "fetch">) => Promise<unknown>

const settingsOf = ({ fetch }: Pick<Service, "fetch">) => ({
  baseURL: "http://front/v1",
  apiKey: "client",
  fetch,
  maxRetries: 1
})
const question = { model: "m", max_tokens: 100, messages: [{ role: "user" as const, content: "Hello" }] }

const ofAiSdk = (model: (settings: ReturnType<typeof settingsOf>) => LanguageModel): Ask => (front) =>
  generateText({ model: model(settingsOf(front)), prompt: "Hello", maxRetries: 1 })
const ofCompatible = ofAiSdk((settings) => createOpenAICompatible({ ...settings, name: "front" })("m"))

const ofLangChain: Ask = (front) => {
  const { baseURL, fetch, ...settings } = settingsOf(front)
  return new ChatOpenAI({ ...settings, model: "m", configuration: { baseURL, fetch } }).invoke("Hello")
}
const ofOpenAi: Ask = (front) => new OpenAI({ ...settingsOf(front), logLevel: "off" }).chat.completions.create(question)
const ofAnthropic: Ask = (front) =>
  new Anthropic({ ...settingsOf(front), baseURL: "http://front", logLevel: "off" }).messages.create(question)

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
  it.live("a client that retries although all attempts failed is reported once", () =>
    Effect.gen(function*() {
      const { requests, warnings } = yield* ask([ofCompatible, ofCompatible])
      assert.strictEqual(requests, 12)
      assert.strictEqual(warnings.length, 1)
    }))

  const retrying: ReadonlyArray<readonly [name: string, client: RegExp, Ask]> = [
    ["the AI SDK with an OpenAI-compatible provider", /^ai\/7/, ofCompatible],
    ["the AI SDK with OpenAI's provider", /^ai\/7/, ofAiSdk((settings) => createOpenAI(settings).chat("m"))],
    ["the AI SDK with Anthropic's provider", /^ai\/7/, ofAiSdk((settings) => createAnthropic(settings)("m"))],
    ["LangChain JS", /^langchainjs-openai\//, ofLangChain]
  ]
  for (const [name, client, each] of retrying) {
    it.live(`${name} retries in spite of x-should-retry, and is reported with its name`, () =>
      Effect.gen(function*() {
        const { requests, warnings: [warning] } = yield* ask([each])
        assert.strictEqual(requests, 6)
        const [message, name] = warning as [string, string]
        assert.match(String(message), /set its maxRetries to 0/)
        assert.match(name, client)
      }))
  }

  const obedient: ReadonlyArray<readonly [name: string, Ask]> = [["openai", ofOpenAi], [
    "@anthropic-ai/sdk",
    ofAnthropic
  ]]
  for (const [name, each] of obedient) {
    it.live(`${name} obeys x-should-retry and is not reported, also if the program asks again`, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* ask([each, each]), { requests: 6, warnings: [] })
      }))
  }

  it.live("a front of `make` warns on standard error, so that the output of the program stays its own", () =>
    Effect.gen(function*() {
      const provider = yield* rawServer((response) =>
        json(response, 503, { error: { message: "down" } }, { "retry-after-ms": "1" })
      )
      const target = { name: "a", url: provider.url, speaks: "openai", breaker: false } as const
      const front = yield* Effect.acquireRelease(
        Effect.promise(() => Front.make({ targets: [target] })),
        (front) => Effect.promise(front.close)
      )
      const [output, errors] = yield* Effect.acquireRelease(
        Effect.sync(() => (["log", "error"] as const).map((to) => vi.spyOn(console, to).mockImplementation(() => {}))),
        (spies) => Effect.sync(() => spies.forEach((spy) => spy.mockRestore()))
      )
      yield* Effect.promise(() => ofCompatible(front).then(() => assert.fail("was answered"), () => {}))
      assert.strictEqual(output?.mock.calls.length, 0)
      assert.match(String(errors?.mock.calls), /set its maxRetries to 0/)
    }).pipe(Effect.scoped, within))

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
        retries.began(request("a", { "x-stainless-retry-count": count, "user-agent": "OpenAI/Python 3.22.1" }), 1)
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
