import { assert, describe, it } from "@effect/vitest"
import { Histogram } from "../../src/run/Histogram.ts"
import { Tally } from "../../src/run/Tally.ts"
import { answered, failed } from "../support/results.ts"

describe("Tally", () => {
  it("prompts in progress, answered and failed are counted", () => {
    const tally = new Tally()
    tally.promptStarted()
    tally.promptStarted()
    tally.promptStarted()
    tally.promptFinished(answered())
    tally.promptFinished(failed())
    tally.malformedLine()
    assert.deepStrictEqual([tally.running, tally.answered, tally.failed, tally.done], [1, 1, 2, 3])
  })

  it("tokens of attempts are spent, and tokens of shared answers are saved", () => {
    const tally = new Tally()
    for (const how of ["led", "joined", "cached", "cached"] as const) {
      tally.promptStarted()
      tally.promptFinished(answered({ how }))
    }
    // A failed attempt can cost tokens, too.
    tally.paid({ inputTokens: 10, outputTokens: 5, estimated: false })
    tally.paid({ inputTokens: 7, outputTokens: 0, estimated: true })
    assert.deepStrictEqual([tally.spent, tally.saved], [
      { inputTokens: 17, outputTokens: 5, estimated: true },
      { inputTokens: 30, outputTokens: 15, estimated: false }
    ])
    assert.deepStrictEqual([tally.joined, tally.cached], [1, 2])
  })

  it("incomplete answers are counted by finish reason", () => {
    const tally = new Tally()
    for (const finish of ["stop", "length", "length", "content-filter"]) {
      tally.promptStarted()
      tally.promptFinished(answered({ finish }))
    }
    assert.deepStrictEqual([...tally.incomplete], [["length", 2], ["content-filter", 1]])
  })

  it("the most frequent reasons of failed attempts come first", () => {
    const tally = new Tally()
    for (const reason of ["a", "b", "b"]) tally.attemptFailed(reason)
    assert.deepStrictEqual(tally.failures, [["b", 2], ["a", 1]])
  })
})

describe("Histogram", () => {
  it("quantiles are within 2.5 % of the exact ones", () => {
    const histogram = new Histogram()
    for (let millis = 1; millis <= 10_000; millis++) histogram.add(millis)
    for (const share of [0.5, 0.95, 0.99]) {
      const exact = share * 10_000
      assert.closeTo(histogram.quantile(share) ?? 0, exact, exact * 0.0251)
    }
  })

  it("no quantile exceeds the longest duration, even beyond the last bucket", () => {
    const histogram = new Histogram()
    histogram.add(101)
    assert.strictEqual(histogram.quantile(0.99), 101)
    histogram.add(1e12)
    assert.isAtMost(histogram.quantile(1) ?? Number.NaN, 1e12)
  })

  it("an empty histogram has no quantile, and 0 is a duration", () => {
    const histogram = new Histogram()
    assert.isUndefined(histogram.quantile(0.5))
    histogram.add(0)
    assert.strictEqual(histogram.quantile(0.5), 0)
  })
})
