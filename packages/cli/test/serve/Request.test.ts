import { assert, describe, it } from "@effect/vitest"
import * as Request from "../../src/serve/Request.ts"

const read = (json: string) => Request.read(Buffer.from(json))

describe("what a request of a limited key asks for", () => {
  it("its model and the most tokens of its answer are read", () => {
    assert.deepStrictEqual(read(`{"model":"a","max_tokens":7,"n":3}`), {
      model: "a",
      inputTokens: 12,
      outputTokens: 21
    })
    assert.strictEqual(read(`{"model":"a","max_completion_tokens":5}`)?.outputTokens, 5)
    assert.strictEqual(read(`{"model":"a"}`)?.outputTokens, 4_096)
  })

  it("a second model is refused however it is written, since the provider could take it", () => {
    assert.isUndefined(read(`{"model":"cheap","model":"dear"}`))
    assert.isUndefined(read(`{"model":"cheap","m\\u006fdel" : "dear"}`))
    assert.isUndefined(read(`{"x":"\\"","model":"cheap","y":"\\\\","model":"dear"}`))
  })

  it("a model within another field is no second one", () => {
    const body = { tools: [{ properties: { model: { type: "string" } } }], model: "a", note: `"model":"b", {"model":` }
    assert.strictEqual(read(JSON.stringify(body))?.model, "a")
    assert.strictEqual(read(`{"model":"a","x":"model","y":["model"]}`)?.model, "a")
  })

  it("a body that is no object with a model is refused", () => {
    for (const body of ["", "[]", "null", `"model"`, `{"model":1}`, `{"model":"a"`, "{}"]) {
      assert.isUndefined(read(body))
    }
  })

  it("a body of 31 MB of brackets is refused before it is parsed", () => {
    const before = process.cpuUsage()
    assert.isUndefined(read(`{"model":"a","x":${"[".repeat(15_500_000)}${"]".repeat(15_500_000)}}`))
    // To parse it takes seconds, in which no other request is answered.
    assert.isBelow(process.cpuUsage(before).user / 1_000, 600)
  })

  it("only calls whose use is known are allowed", () => {
    assert.isTrue(Request.isKnown("POST", "/v1/chat/completions"))
    assert.isTrue(Request.isKnown("GET", "/v1/models/a"))
    assert.isFalse(Request.isKnown("POST", "/v1/batches"))
    assert.isFalse(Request.isKnown("GET", "/v1/files"))
    assert.isFalse(Request.isKnown("POST", "/v1/chat/completions/"))
  })
})
