import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import * as Comparison from "../../demo/Comparison.ts"

/** A request that was answered in full, with these changes. */
const entry = (changes: Partial<Journal.Entry>): Journal.Entry => ({
  n: 1,
  digest: "d",
  prompt: "a",
  attempt: 1,
  model: "rules",
  down: false,
  received: { epoch: 0, monotonic: 0 },
  ended: { epoch: 100, monotonic: 100 },
  ending: "complete",
  inputTokens: 10,
  outputTokens: 5,
  open: 1,
  ...changes
})

const journals = (...first: ReadonlyArray<Journal.Entry>) => ({ first, second: [] })

describe("Comparison", () => {
  it("an answer counts only if a provider sent exactly it for exactly this prompt", () => {
    const journal = [
      entry({ prompt: "a", answer: Journal.digest("whole") }),
      entry({ prompt: "b", answer: Journal.digest("other") }),
      entry({ prompt: "c", ending: "cut" })
    ]
    const counts = Comparison.counts(
      [
        { prompt: "a", text: "whole" },
        { prompt: "b", text: "whole" },
        { prompt: "c", text: "wh" },
        { prompt: "d", text: undefined }
      ],
      journals(...journal)
    )
    assert.deepInclude(counts, { answered: 1, cutShort: 2, failed: 1, requests: 3 })
  })

  it("a shared answer counts for every ticket, and its request once", () => {
    const outcome = { prompt: "a", text: "whole" }
    const counts = Comparison.counts([outcome, outcome, outcome], journals(entry({ answer: Journal.digest("whole") })))
    assert.deepInclude(counts, { answered: 3, requests: 1, tokens: 15 })
  })

  it("the requests of both providers are added, and those of the second are also counted apart", () => {
    const outcomes = [{ prompt: "a", text: "whole" }, { prompt: "b", text: "other" }]
    const counts = Comparison.counts(outcomes, {
      first: [entry({ prompt: "a", answer: Journal.digest("whole") }), entry({ prompt: "b", ending: "cut" })],
      second: [entry({ prompt: "b", answer: Journal.digest("other") })]
    })
    assert.deepInclude(counts, { answered: 2, requests: 3, bySecond: 1 })
  })

  it("an empty answer counts if the provider sent it", () => {
    const outcomes = [{ prompt: "a", text: "" }]
    assert.strictEqual(Comparison.counts(outcomes, journals(entry({ answer: Journal.digest("") }))).answered, 1)
    assert.strictEqual(Comparison.counts(outcomes, journals(entry({ ending: "cut" }))).answered, 0)
  })

  it("requests, early retries, tokens and time are counted at the provider", () => {
    const counts = Comparison.counts(
      [],
      journals(
        entry({ n: 1, attempt: 1, status: 429, ending: "refused", retryAfterMillis: 1_000 }),
        entry({ n: 2, attempt: 2, received: { epoch: 600, monotonic: 600 }, ended: { epoch: 2500, monotonic: 2500 } }),
        entry({ n: 3, digest: "e", down: true, inputTokens: 0, outputTokens: 0 })
      )
    )
    assert.deepStrictEqual(counts, {
      answered: 0,
      failed: 0,
      cutShort: 0,
      requests: 3,
      bySecond: 0,
      whileDown: 1,
      tooSoon: 1,
      tokens: 30,
      millis: 2_500
    })
  })

  it("the table fits in 80 columns even with large numbers", () => {
    const counts = Comparison.counts([], journals())
    const many = { ...counts, tokens: 123_456_789, millis: 3_600_000, requests: 1_000_000 }
    const table = Comparison.table({
      official: many,
      sluice: { ...counts, answered: 204 },
      withSecond: { ...counts, answered: 203, bySecond: 61 },
      gateway: { ...many, answered: 201 }
    })
    for (const line of table) assert.isAtMost(line.length, 80)
    assert.match(table[1] ?? "", /^ +client +Sluice +a second +a gateway$/)
    assert.isTrue(table.some((line) => /^ {2}answered in full +0 +204 +203 +201$/.test(line)))
    assert.isTrue(table.some((line) => /^ {2}requests received +1,000,000 +0 +0 +1,000,000$/.test(line)))
  })
})
