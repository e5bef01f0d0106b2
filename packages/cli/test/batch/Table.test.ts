import type { State, Status } from "@sluice/batch/Batch"
import { assert, describe, it } from "@effect/vitest"
import * as Table from "../../src/batch/Table.ts"
import * as Terminal from "../../src/Terminal.ts"

const batch = (fields: Partial<Status>): Status => ({
  id: "batch_814b16e5ede7",
  owner: undefined,
  name: "prompts.jsonl",
  state: "in_progress",
  total: 100_000,
  ok: 12_333,
  failed: 12,
  marked: 0,
  inputTokens: 1,
  outputTokens: 1,
  micros: 1_200_000,
  maxMicros: undefined,
  priority: 0,
  weight: 1,
  createdAt: 1,
  startedAt: 2,
  expiresAt: undefined,
  stoppingAt: undefined,
  endedAt: undefined,
  rate: 510,
  etaMillis: 172_000,
  waiting: undefined,
  endpoint: undefined,
  source: undefined,
  metadata: {},
  error: undefined,
  ...fields
})

const states: ReadonlyArray<State> = [
  "validating",
  "in_progress",
  "cancelling",
  "expiring",
  "capping",
  "completed",
  "cancelled",
  "expired",
  "capped",
  "failed"
]

describe("the table of batches", () => {
  it("a row has the progress, and below it are the name, the rate, the weight, the budget and what the batch waits for", () => {
    const waiting = { for: "the circuit of main is open", until: 13_000 }
    assert.strictEqual(
      Table.render([
        batch({ maxMicros: 5_000_000, waiting, weight: 3 }),
        batch({ state: "completed", rate: undefined })
      ], 1_000),
      [
        "batch               state                  done  failed   cost    left",
        "batch_814b16e5ede7  in progress  12,345/100,000      12  $1.20  2m 52s",
        "  prompts.jsonl, 510/s, weight 3, at most $5.00",
        "  waits: the circuit of main is open, for 12s",
        "batch_814b16e5ede7  completed    12,345/100,000      12  $1.20  2m 52s",
        "  prompts.jsonl",
        ""
      ].join("\n")
    )
  })

  it("a batch that no worker runs names the command that runs it, and a cancelled one also the cancel", () => {
    const waiting = { for: "no worker runs", until: undefined }
    const shown = (state: State) => Table.render([batch({ state, waiting })], 0)
    assert.include(shown("in_progress"), "  waits: no worker runs; run `sluice batch work`\n")
    assert.include(shown("cancelling"), "  waits: no worker runs; run `sluice batch work`, or cancel it again\n")
  })

  it("a cost without a price is unknown, and a cost of nothing is none", () => {
    const text = Table.render([batch({ micros: 0 })], 0)
    assert.match(text, / \?  2m 52s\n/)
    assert.include(text, "cost unknown: no price of its model; set it with --price IN,OUT of work")
    assert.propertyVal(Table.toJson(batch({ micros: 0 })), "costDollars", null)
    const unasked = batch({ micros: 0, inputTokens: 0, outputTokens: 0 })
    assert.include(Table.render([unasked], 0), "$0")
    assert.propertyVal(Table.toJson(unasked), "costDollars", 0)
  })

  it("an id of OpenAI's API has a line of its own, so that it can be copied", () => {
    const id = `batch_${"a".repeat(32)}`
    const [, first, second] = Table.render([batch({ id })], 0).split("\n")
    assert.strictEqual(first, id)
    assert.match(second ?? "", /^ {20}in progress/)
  })

  it("a row of a million requests in any state has at most 80 columns", () => {
    const large = { total: 1_000_000, ok: 899_999, failed: 100_000, micros: 12_345_670_000, etaMillis: 86_000_000 }
    const name = "東京".repeat(50)
    for (const state of states) {
      for (const line of Table.render([batch({ ...large, name, state })], 0).split("\n")) {
        assert.isAtMost(Terminal.width(line), 80, line)
      }
    }
  })

  it("an unusable file says why, in at most 80 columns", () => {
    const problems = [{ code: "a", line: 2, message: "東京".repeat(50) }, { code: "b", message: "c" }]
    const [, , name, first = "", more] = Table.render([batch({ state: "failed", error: JSON.stringify(problems) })], 0)
      .split("\n")
    assert.strictEqual(name, "  prompts.jsonl, 510/s")
    assert.isTrue(first.startsWith("  line 2: 東京"))
    assert.isAtMost(Terminal.width(first), 80)
    assert.strictEqual(more, "  and 1 more problem")
    // A text of another program.
    assert.notInclude(Table.render([batch({ error: "{" })], 0), "{")
  })

  it("a name cannot move the cursor", () => {
    assert.notInclude(Table.render([batch({ name: "a\u001b[2Jb" })], 0), "\u001b")
  })
})
