import { assert, describe, it } from "@effect/vitest"
import * as Summary from "../../src/run/Summary.ts"
import { Tally } from "../../src/run/Tally.ts"
import * as Terminal from "../../src/Terminal.ts"
import { answered, failed } from "../support/results.ts"

const finish = (tally: Tally, ...results: ReadonlyArray<ReturnType<typeof answered> | ReturnType<typeof failed>>) => {
  for (const result of results) {
    tally.promptStarted()
    tally.promptFinished(result)
  }
}

describe("Summary", () => {
  it("the summary shows all counts", () => {
    const tally = new Tally()
    for (let request = 0; request < 1234; request++) tally.attemptStarted()
    tally.attemptFailed("HTTP 503")
    tally.attemptFailed("rate limit")
    tally.attemptFailed("rate limit")
    finish(tally, answered(), answered({ how: "joined" }), answered({ how: "cached" }), failed())
    tally.paid({ inputTokens: 10, outputTokens: 5, estimated: false })
    tally.malformedLine()
    assert.strictEqual(
      Summary.render(tally, 75_000),
      [
        "  answered         3",
        "  failed           2",
        "  requests         1,234",
        "  shared           1 joined a call in flight, 1 from cache",
        "  failed attempts  rate limit: 2, HTTP 503: 1",
        "  latency          p50 100ms   p95 100ms   p99 100ms",
        "  tokens           10 in, 5 out",
        "  tokens saved     20 in, 10 out",
        "  time             1m 15s",
        ""
      ].join("\n")
    )
  })

  it("the summary names incomplete answers, estimated tokens and unusable targets", () => {
    const tally = new Tally()
    finish(
      tally,
      answered({ finish: "length" }),
      answered({ finish: "content-filter" }),
      answered({ finish: "length" })
    )
    tally.paid({ inputTokens: 10, outputTokens: 5, estimated: true })
    tally.unusable.set("main", "the key from SLUICE_KEY_MAIN was refused: HTTP 401")
    const table = Summary.render(tally, 0)
    assert.include(table, "  incomplete       cut by the token limit: 2, cut by a content filter: 1\n")
    assert.include(table, "  tokens           10 in, 5 out, partly estimated\n")
    assert.include(table, "  unusable         main: the key from SLUICE_KEY_MAIN was refused: HTTP 401\n")
  })

  it("a run without answers has no latency", () => {
    assert.include(Summary.render(new Tally(), 0), "p50 -   p95 -   p99 -")
  })

  it("many reasons are all listed within 80 columns", () => {
    const tally = new Tally()
    for (let status = 500; status < 530; status++) tally.attemptFailed(`HTTP ${status}`)
    const table = Summary.render(tally, 0)
    for (const line of table.split("\n")) assert.isAtMost(Terminal.width(line), 80)
    for (let status = 500; status < 530; status++) assert.include(table, `HTTP ${status}: 1`)
  })
})
