import type { State, Status } from "@sluice/batch/Batch"
import { assert, describe, it } from "@effect/vitest"
import { BatchRows } from "../../src/serve/BatchRows.ts"

const batch = (id: string, state: State): Status => ({
  id,
  state,
  owner: undefined,
  name: "secret.jsonl",
  total: 100,
  ok: 40,
  failed: 2,
  marked: 1,
  inputTokens: 1,
  outputTokens: 1,
  micros: 1_500_000,
  maxMicros: undefined,
  priority: 0,
  weight: 1,
  createdAt: 1,
  startedAt: 2,
  expiresAt: undefined,
  stoppingAt: undefined,
  endedAt: state === "completed" ? 3 : undefined,
  rate: 2,
  etaMillis: 28_500,
  waiting: { for: "no worker runs", until: undefined },
  endpoint: undefined,
  source: undefined,
  metadata: {},
  error: undefined
})

describe("the batches of the live page", () => {
  it("20 rows are shown, live ones first, without the name of the file", async () => {
    const ended = Array.from({ length: 30 }, (_, n) => batch(`ended-${n}`, "completed"))
    const rows = new BatchRows(() => Promise.resolve([...ended, batch("old", "in_progress")]))
    assert.deepStrictEqual(rows.shown, { at: null, isKnown: true, rows: [], more: 0 })
    await rows.poll(0)
    const { shown } = rows
    assert.deepStrictEqual(shown.rows.map(({ id }) => id), ["old", ...ended.slice(0, 19).map(({ id }) => id)])
    assert.deepStrictEqual(shown.rows[0], {
      id: "old",
      key: null,
      state: "in_progress",
      done: 43,
      total: 100,
      failed: 2,
      cost: 1.5,
      maxCost: null,
      rate: 2,
      left: 28_500,
      waits: { for: "no worker runs", until: null },
      endedAt: null
    })
    assert.notInclude(JSON.stringify(shown), "secret")
    rows.forget()
    assert.deepStrictEqual(rows.shown.rows, [])
  })

  it("a page says how many live ones it leaves out", async () => {
    const rows = new BatchRows(() => Promise.resolve(Array.from({ length: 23 }, (_, n) => batch(`${n}`, "validating"))))
    await rows.poll(0)
    assert.strictEqual(rows.shown.more, 3)
  })

  it("a database that fails or hangs is asked by one statement, and the last rows stay as old ones", async () => {
    let asked = 0
    let answer: (rows: ReadonlyArray<Status>) => void = () => {}
    const rows = new BatchRows(() => {
      asked++
      if (asked === 1) return Promise.resolve([batch("a", "in_progress")])
      if (asked === 2) return Promise.reject(new Error("down"))
      return new Promise((resolve) => {
        answer = resolve
      })
    })
    const isKnown = () => [rows.shown.isKnown, rows.shown.rows.map(({ id }) => id)]
    await rows.poll(0)
    assert.deepStrictEqual(isKnown(), [true, ["a"]])
    await rows.poll(1_000)
    assert.deepStrictEqual(isKnown(), [false, ["a"]])
    const hung = rows.poll(2_000)
    await rows.poll(5_001)
    assert.deepStrictEqual(isKnown(), [false, ["a"]])
    assert.strictEqual(asked, 3)
    answer([batch("b", "in_progress")])
    await hung
    assert.deepStrictEqual(isKnown(), [true, ["b"]])
  })
})
