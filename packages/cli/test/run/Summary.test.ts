import { assert, describe, it } from "@effect/vitest"
import * as Summary from "../../src/run/Summary.ts"
import { Tally } from "../../src/run/Tally.ts"
import * as Terminal from "../../src/Terminal.ts"
import { answered, failed } from "../support/results.ts"

const finish = (tally: Tally, ...results: ReadonlyArray<ReturnType<typeof answered> | ReturnType<typeof failed>>) => {
  for (const result of results) {
    tally.promptStarted()
    tally.promptFinished(result)
    tally.written(result)
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
        "                   error of the provider: 1",
        "                     line 1: it is down",
        "  requests         1,234",
        "  retries          4",
        "  failed attempts  rate limit: 2, HTTP 503: 1",
        "  shared           1 joined a request under way, 1 reused an answer",
        "  time per answer  half within 100ms, 95 % within 100ms, 99 % within 100ms",
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

  it("a run without answers has no time per answer", () => {
    assert.include(Summary.render(new Tally(), 0), "  time per answer  -\n")
  })

  it("failed lines are grouped by reason, the most frequent first, with the message of one line", () => {
    const tally = new Tally()
    const fail = (line: number, tag: string, message: string) =>
      finish(tally, failed({ line, attempts: 0, error: { tag, message, retryAfter: undefined } }))
    fail(2, "MalformedLine", "the line is not JSON")
    for (const line of [3, 5, 9]) fail(line, "InvalidRequestError", `not line ${line}`)
    fail(7, "AttemptTimeout", "no complete answer within 60s; raise --timeout")
    fail(8, "SomethingNewError", `${"very ".repeat(200)}long\n\x1b[31mtext`)
    const [, ...rows] = Summary.render(tally, 0).split("\n")
    assert.deepStrictEqual(rows.slice(0, 7), [
      "  failed           6",
      "                   refused by the provider: 3, for example",
      "                     line 3: not line 3",
      "                   not a prompt: 1",
      "                     line 2: the line is not JSON",
      "                   timeout: 1",
      "                     line 7: no complete answer within 60s; raise --timeout"
    ])
    assert.strictEqual(rows[7], "                   something new: 1")
    for (const row of rows) assert.isAtMost(Terminal.width(row), 80)
    assert.strictEqual(rows.filter((row) => row.includes("very")).length, 2)
    assert.notInclude(rows.join(""), "\x1b")
  })

  it("reasons of failed lines are bounded", () => {
    const tally = new Tally()
    for (let line = 1; line <= 1_000; line++) {
      finish(tally, failed({ line, error: { tag: `Tag${line}`, message: "m".repeat(10_000), retryAfter: undefined } }))
    }
    const reasons = tally.failedLines
    assert.isAtMost(reasons.length, 30)
    assert.strictEqual(reasons.reduce((sum, { times }) => sum + times, 0), 1_000)
    assert.isAtMost(reasons[0]?.message.length ?? 0, 300)
  })

  it("the reason why a target is unusable is wrapped, not clipped", () => {
    const tally = new Tally()
    tally.unusable.set("main", `the key was refused: ${"word ".repeat(30)}end`)
    const table = Summary.render(tally, 0)
    for (const line of table.split("\n")) assert.isAtMost(Terminal.width(line), 80)
    assert.include(table, " end\n")
  })

  it("many reasons are all listed within 80 columns", () => {
    const tally = new Tally()
    for (let status = 500; status < 530; status++) tally.attemptFailed(`HTTP ${status}`)
    const table = Summary.render(tally, 0)
    for (const line of table.split("\n")) assert.isAtMost(Terminal.width(line), 80)
    for (let status = 500; status < 530; status++) assert.include(table, `HTTP ${status}: 1`)
  })

  it("cost and learned limits have rows, which wrap", () => {
    const table = Summary.render(new Tally(), 0, {
      cost: "$1.23, $4.56 with earlier runs, of at most $5.00, the prices of OpenAI are of 2026-01-01, 99 days old",
      limits: ["main: 412 of 500 requests a minute", "backup: 37 of 64 calls at once"]
    })
    assert.include(table, "\n  cost             $1.23, $4.56 with earlier runs, of at most $5.00, the prices")
    assert.include(
      table,
      "\n  learned limits   main: 412 of 500 requests a minute\n                   backup: 37 of 64 calls at once\n"
    )
  })
})
