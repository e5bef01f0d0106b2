import { assert, describe, it } from "@effect/vitest"
import * as Request from "../../src/run/Request.ts"
import { prompt } from "../support/engine.ts"

const target = { name: "a", wire: "openai", url: "http://a/v1", model: "m", apiKey: undefined, keySource: "" } as const

const common: Request.Common = { temperature: undefined, maxTokens: undefined, omit: [], targets: [target] }

const base = Request.hasher(common)(prompt(1))

describe("Request", () => {
  it("equal requests have the same hash, on another line, at another URL, and with a second target", () => {
    assert.match(base, /^[0-9a-f]{16}$/)
    assert.strictEqual(Request.hasher(common)(prompt(2)), base)
    const elsewhere = { ...common, targets: [{ ...target, name: "b", url: "http://b/v1" }, target] } as const
    assert.strictEqual(Request.hasher(elsewhere)(prompt(1)), base)
    assert.strictEqual(Request.hasher(common)({ ...prompt(1), model: "m" }), base)
    assert.strictEqual(Request.hasher(common)({ ...prompt(1), sample: 1 }), base)
  })

  it("the order of a line's own fields has no meaning, that of a list has one", () => {
    const hash = (body: object) => Request.hasher(common)({ ...prompt(1), body: body as never })
    assert.strictEqual(hash({ seed: 1, stop: ["a", "b"] }), hash({ stop: ["a", "b"], seed: 1 }))
    assert.notStrictEqual(hash({ stop: ["a", "b"] }), hash({ stop: ["b", "a"] }))
    assert.notStrictEqual(hash({ a: [["b", 1]] }), hash({ a: { b: 2 } }))
  })

  it("every setting that shapes the answer changes the hash", () => {
    const hashes = [
      base,
      Request.hasher(common)(prompt(1, "Another question")),
      Request.hasher(common)({ ...prompt(1), model: "other" }),
      Request.hasher(common)({ ...prompt(1), body: { seed: 7 } }),
      Request.hasher(common)({ ...prompt(1), sample: 2 }),
      Request.hasher(common)({ ...prompt(1), sample: 3 }),
      Request.hasher({ ...common, temperature: 0 })(prompt(1)),
      Request.hasher({ ...common, maxTokens: 5 })(prompt(1)),
      Request.hasher({ ...common, omit: ["temperature"] })(prompt(1)),
      Request.hasher({ ...common, targets: [{ ...target, model: "other" }] })({ ...prompt(1), body: { seed: 8 } })
    ]
    assert.strictEqual(new Set(hashes).size, hashes.length)
  })
})
