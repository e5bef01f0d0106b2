import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Script from "@sluice/ai/testing/Script"

const decode = (script: Script.Encoded) => Schema.decodeUnknownSync(Script.Script)(script)
const prompts = Array.from({ length: 4000 }, (_, i) => `prompt ${i}`)

const share = (script: Script.Script, fault: Script.Fault | undefined, attempt = 1) =>
  prompts.filter((prompt) => Script.fault(script, prompt, attempt) === fault).length / prompts.length

describe("Script", () => {
  it("is without faults by default", () => {
    const script = decode({})
    assert.strictEqual(share(script, undefined), 1)
    assert.isUndefined(script.outage)
  })

  it("meets its rates, each by itself", () => {
    const rates = { rateLimit: 0.1, unavailable: 0.05, reset: 0.15, hang: 0.02, slowStart: 0.08, cut: 0.2 }
    const script = decode({ faults: rates })
    for (const fault of Script.Fault.literals) assert.closeTo(share(script, fault), rates[fault], 0.025, fault)
    assert.closeTo(share(script, undefined), 0.4, 0.03)
  })

  it("decides by seed, prompt and attempt, and by nothing else", () => {
    const faults = { rateLimit: 0.3, cut: 0.3 }
    const decisions = (seed: number) => prompts.map((prompt) => Script.fault(decode({ seed, faults }), prompt, 1))
    assert.deepStrictEqual(decisions(7), decisions(7))
    assert.notDeepEqual(decisions(7), decisions(8))
  })

  it("is clean from the second attempt on, unless more attempts may be faulty", () => {
    assert.strictEqual(share(decode({ faults: { reset: 1 } }), "reset", 1), 1)
    assert.strictEqual(share(decode({ faults: { reset: 1 } }), "reset", 2), 0)
    const longer = decode({ faults: { reset: 1 }, faultyAttempts: 4 })
    assert.closeTo(share(longer, "reset", 2), 0.75, 0.03)
    assert.closeTo(share(longer, "reset", 4), 0.25, 0.03)
    assert.strictEqual(share(longer, "reset", 5), 0)
    assert.strictEqual(share(decode({ faults: { reset: 1 }, faultyAttempts: 0 }), "reset", 1), 0)
  })

  it("cuts an answer after its first token and before its last", () => {
    const script = decode({})
    const after = new Set(prompts.map((prompt) => Script.cutAfter(script, prompt, 1, 5)))
    assert.deepStrictEqual([...after].sort(), [1, 2, 3, 4])
    assert.strictEqual(Script.cutAfter(script, "a", 1, 1), 0)
    assert.strictEqual(Script.cutAfter(script, "a", 1, 0), 0)
  })

  it.effect("refuses rates that are none, or too many, and fields that it does not know", () =>
    Effect.gen(function*() {
      const refusal = (script: unknown) => Effect.map(Effect.flip(Script.decode(script)), (error) => error.message)
      assert.include(yield* refusal({ faults: { cut: 1.5 } }), "cut")
      assert.include(yield* refusal({ faults: { cut: 0.6, reset: 0.6 } }), "more than 1")
      assert.include(yield* refusal({ fualts: {} }), "fualts")
      assert.include(yield* refusal({ outage: { afterCalls: -1, requests: 1, atMostMillis: 1 } }), "outage")
    }))

  it.effect("reads an outage by count and by time, and writes it down again", () =>
    Effect.gen(function*() {
      for (const outage of [{ afterCalls: 5, requests: 3, atMostMillis: 100 }, { fromMillis: 5, forMillis: 10 }]) {
        const script = yield* Script.decode({ outage })
        assert.deepInclude(script.outage, { ...outage, how: "unavailable" })
        assert.deepStrictEqual(yield* Script.decode(Schema.encodeSync(Script.Script)(script)), script)
      }
    }))
})
