import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Script from "@sluice/ai/testing/Script"

const decode = (script: Script.Encoded) => Schema.decodeUnknownSync(Script.Script)(script)
const prompts = Array.from({ length: 4000 }, (_, i) => `prompt ${i}`)

const share = (script: Script.Script, fault: Script.Fault | undefined, attempt = 1) =>
  prompts.filter((prompt) => Script.fault(script, prompt, attempt) === fault).length / prompts.length

describe("Script", () => {
  it("a script has no faults by default", () => {
    const script = decode({})
    assert.strictEqual(share(script, undefined), 1)
    assert.isUndefined(script.outage)
  })

  it("each fault occurs at its own rate", () => {
    const rates = { rateLimit: 0.1, unavailable: 0.05, reset: 0.15, hang: 0.02, slowStart: 0.08, cut: 0.2 }
    const script = decode({ faults: rates })
    for (const fault of Script.Fault.literals) assert.closeTo(share(script, fault), rates[fault], 0.025, fault)
    assert.closeTo(share(script, undefined), 0.4, 0.03)
  })

  it("the fault depends on seed, prompt and attempt only", () => {
    const faults = { rateLimit: 0.3, cut: 0.3 }
    const decisions = (seed: number) => prompts.map((prompt) => Script.fault(decode({ seed, faults }), prompt, 1))
    assert.deepStrictEqual(decisions(7), decisions(7))
    assert.notDeepEqual(decisions(7), decisions(8))
  })

  it("only first attempts have faults unless faultyAttempts allows more", () => {
    assert.strictEqual(share(decode({ faults: { reset: 1 } }), "reset", 1), 1)
    assert.strictEqual(share(decode({ faults: { reset: 1 } }), "reset", 2), 0)
    const longer = decode({ faults: { reset: 1 }, faultyAttempts: 4 })
    assert.closeTo(share(longer, "reset", 2), 0.75, 0.03)
    assert.closeTo(share(longer, "reset", 4), 0.25, 0.03)
    assert.strictEqual(share(longer, "reset", 5), 0)
    assert.strictEqual(share(decode({ faults: { reset: 1 }, faultyAttempts: 0 }), "reset", 1), 0)
  })

  it("an answer is cut after its first token and before its last", () => {
    const script = decode({})
    const after = new Set(prompts.map((prompt) => Script.cutAfter(script, prompt, 1, 5)))
    assert.deepStrictEqual([...after].sort(), [1, 2, 3, 4])
    assert.strictEqual(Script.cutAfter(script, "a", 1, 1), 0)
    assert.strictEqual(Script.cutAfter(script, "a", 1, 0), 0)
  })

  it.effect("invalid rates, rates that add up to more than 1 and unknown fields are refused", () =>
    Effect.gen(function*() {
      const refusal = (script: unknown) => Effect.map(Effect.flip(Script.decode(script)), (error) => error.message)
      assert.include(yield* refusal({ faults: { cut: 1.5 } }), "cut")
      assert.include(yield* refusal({ faults: { cut: 0.6, reset: 0.6 } }), "more than 1")
      assert.include(yield* refusal({ fualts: {} }), "fualts")
      assert.include(yield* refusal({ outage: { afterCalls: -1, requests: 1, atMostMillis: 1 } }), "outage")
    }))

  it.effect("an outage by count or by time is unchanged after decoding and encoding", () =>
    Effect.gen(function*() {
      for (const outage of [{ afterCalls: 5, requests: 3, atMostMillis: 100 }, { fromMillis: 5, forMillis: 10 }]) {
        const script = yield* Script.decode({ outage })
        assert.deepInclude(script.outage, { ...outage, how: "unavailable" })
        assert.deepStrictEqual(yield* Script.decode(Schema.encodeSync(Script.Script)(script)), script)
      }
    }))
})
