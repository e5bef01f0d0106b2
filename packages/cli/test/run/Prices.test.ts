import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import * as Flag from "../../src/Flag.ts"
import * as Prices from "../../src/run/Prices.ts"
import { folder, write } from "../support/files.ts"

const openAi = { url: "https://api.openai.com/v1" }

describe("Prices", () => {
  it.live("the price list of sluice has a date, a source and hosts for each provider, and output costs more than input", () =>
    Effect.gen(function*() {
      const list = yield* Prices.read()
      assert.deepStrictEqual(list.map(({ provider }) => provider), [
        "OpenAI",
        "Anthropic",
        "Gemini",
        "Mistral",
        "Groq",
        "DeepSeek"
      ])
      for (const { date, hosts, models, provider, source } of list) {
        assert.isTrue(date !== undefined && source !== undefined && hosts !== undefined, provider)
        for (const [model, { input, long, output }] of Object.entries(models)) {
          assert.isAbove(output, input, model)
          if (long !== undefined) assert.isTrue(long.input > input && long.output > output, model)
        }
      }
    }))

  it.live("a model has the price of its own host, also under the name of a dated snapshot", () =>
    Effect.gen(function*() {
      const prices = new Prices.Prices(undefined, yield* Prices.read())
      assert.deepStrictEqual(prices.of(openAi, "gpt-5-mini")?.price, { input: 0.25, output: 2 })
      assert.deepStrictEqual(prices.of(openAi, "gpt-5-mini-2025-08-07"), prices.of(openAi, "gpt-5-mini"))
      assert.deepStrictEqual(
        prices.of({ url: "https://api.anthropic.com" }, "claude-haiku-4-5-20251001")?.price,
        { input: 1, output: 5 }
      )
      assert.isUndefined(prices.of({ url: "https://gateway.example.com/v1" }, "gpt-5-mini"))
      assert.isUndefined(prices.of(openAi, "constructor"))
    }))

  it("a price of the flag applies to every model and host", () => {
    const prices = new Prices.Prices({ input: 1, output: 2 }, [])
    assert.deepStrictEqual(prices.of({ url: "http://127.0.0.1:1/v1" }, "any")?.price, { input: 1, output: 2 })
  })

  it("costs are whole millionths of a dollar, rounded up, and long prompts have their own rates", () => {
    const price = { input: 0.25, output: 2, long: { above: 1_000, input: 0.5, output: 3 } }
    assert.strictEqual(Prices.costOf(price, { inputTokens: 3, outputTokens: 1 }), 3)
    assert.strictEqual(Prices.costOf(price, { inputTokens: 1_000, outputTokens: 10 }), 270)
    assert.strictEqual(Prices.costOf(price, { inputTokens: 1_001, outputTokens: 10 }), 531)
    assert.strictEqual(Prices.costOf({ input: 0.1, output: 0.2 }, { inputTokens: 30, outputTokens: 0 }), 3)
  })

  it("a price is old after 90 days", () => {
    const found = { price: { input: 1, output: 2 }, provider: "OpenAI", date: "2026-01-01" }
    assert.isUndefined(Prices.ageOf(found, Date.parse("2026-04-01T12:00:00Z")))
    assert.strictEqual(
      Prices.ageOf(found, Date.parse("2026-04-02T12:00:00Z")),
      "the prices of OpenAI are of 2026-01-01, 91 days old"
    )
  })

  it("amounts below a dollar keep three digits", () => {
    assert.deepStrictEqual([0, 123, 12_345_678, 999_999].map(Prices.shown), ["$0", "$0.000123", "$12.35", "$1"])
  })

  it.live.each<readonly [name: string, text: string]>([
    ["text", "oops"],
    ["another form", `{"gpt-5":[1,2]}`],
    ["a negative price", `[{"models":{"a":{"input":-1,"output":2}}}]`]
  ])("a price file with %s is refused with an example", ([, text]) =>
    Effect.gen(function*() {
      const path = write(join(yield* folder, "prices.json"), [text])
      const { message } = yield* Effect.flip(Prices.read(path))
      assert.include(message, `[{"models":{"NAME":{"input":1.25,"output":10}}}]`)
    }))

  it("flags read counts, dollars and prices", () => {
    const read = <A>(parse: (text: string) => Flag.Read<A>, ...texts: ReadonlyArray<string>) =>
      texts.map((text) => {
        const result = parse(text)
        return result.ok ? result.value : undefined
      })
    assert.deepStrictEqual(read(Flag.count, "500", "200k", "1.5M", "2m", "0", "1.5", "k", "-1"), [
      500,
      200_000,
      1_500_000,
      2_000_000,
      undefined,
      undefined,
      undefined,
      undefined
    ])
    assert.deepStrictEqual(read(Flag.dollars, "5", "$0.50", "0", "x"), [5, 0.5, undefined, undefined])
    assert.deepStrictEqual(read(Flag.price, "1.25,10", "0,0", "1", "1,", "1;2"), [
      { input: 1.25, output: 10 },
      { input: 0, output: 0 },
      undefined,
      undefined,
      undefined
    ])
  })
})
