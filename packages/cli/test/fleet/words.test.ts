import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Control, Snapshot } from "@sluice/core/CircuitBreakerStore"
import * as Circuits from "../../src/fleet/Circuits.ts"
import * as Fleet from "../../src/fleet/Fleet.ts"
import * as Table from "../../src/fleet/Table.ts"

const now = new Date(2026, 10, 30, 12, 0).getTime()
const by = "x.1"
const because = { calls: 5, failures: 5, slow: 0 }
const open = { _tag: "Open", since: now - 68_000, until: now + 7_000, openings: 1, hinted: 0, because, by } as const
const forced = {
  _tag: "Forced",
  since: now,
  until: now + 3_600_000,
  mode: "ForcedOpen",
  reason: "it moves",
  by
} as const
const closed = { _tag: "Closed", since: 0, until: 0, openings: 0, lastOpen: 0, reason: "", by: "" } as const

const snapshot = (control: Control, probing = 0): Snapshot => ({
  key: "gateway/main",
  generation: 1,
  control,
  evidence: { ring: "", wheel: [] },
  probing,
  leaseMillis: 0,
  now
})

describe("a circuit in words", () => {
  const cases: ReadonlyArray<readonly [state: string, words: string, Control, probing?: number]> = [
    ["closed", "takes calls", closed],
    ["ramp", "coming back: takes a growing part of its calls, all in 30s", { ...closed, until: now + 30_000 }],
    ["open", "takes no calls for 1m 08s, asked again in 7.0s", open],
    ["open", "takes no calls, after 1 failed probe, asked again in 7.0s", { ...open, openings: 2 }],
    ["open", "takes no calls, after 2 failed rounds of probes, asked again in 7.0s", { ...open, openings: 3 }],
    ["probe", "takes no calls for 1m 08s, asked again at the next call", { ...open, until: now }],
    ["probe", "asked again; down for 1m 08s", { ...open, until: now }, 1],
    ["forced-open", "held open, no calls, until 13:00: it moves", forced],
    ["forced-open", "held open, no calls, until 1 Dec 12:00: it moves", { ...forced, until: now + 86_400_000 }],
    ["forced-open", "held open, no calls, without an end", { ...forced, until: 0, reason: "" }],
    ["forced-closed", "held closed, all calls, until 13:00: it moves", { ...forced, mode: "ForcedClosed" }],
    ["disabled", "switched off, all calls, until 13:00: it moves", { ...forced, mode: "Disabled" }],
    ["observe-only", "observed only, all calls, until 13:00: it moves", { ...forced, mode: "ObserveOnly" }],
    ["closed", "takes calls", { ...forced, until: now }],
    ["forced-open", String.raw`held open, no calls, until 13:00: \x1b[2J`, { ...forced, reason: "\u001b[2J" }]
  ]
  for (const [state, words, control, probing] of cases) {
    it(`a circuit that is ${state} says: ${words}`, () => {
      assert.deepStrictEqual(
        [Circuits.stateOf(snapshot(control, probing)), Circuits.words(snapshot(control, probing))],
        [
          state,
          words
        ]
      )
    })
  }
})

describe("a table of a fleet", () => {
  const rows = [
    ["main/gpt-5", "money/day", "$3.25 used of what the day allows"],
    ["backup/claude-haiku-4-5-thinking", "requests/min", "13 used"]
  ]

  it("on a terminal no name is cut: the sentence of a long one is below it, and long sentences are wrapped", () => {
    assert.strictEqual(
      Table.render(rows, 50),
      "main/gpt-5  money/day  $3.25 used of what the day\n" +
        "                       allows\n" +
        "backup/claude-haiku-4-5-thinking  requests/min\n" +
        "                       13 used\n"
    )
  })

  it("in a pipe a row is one line", () => {
    assert.strictEqual(
      Table.render(rows, undefined),
      "main/gpt-5                        money/day     $3.25 used of what the day allows\n" +
        "backup/claude-haiku-4-5-thinking  requests/min  13 used\n"
    )
  })
})

describe("a name of a fleet", () => {
  const found = (asked: string, ...names: ReadonlyArray<string>) =>
    Effect.match(Fleet.find("quota", asked, names), {
      onSuccess: (name) => name,
      onFailure: ({ problem }) => problem
    })

  it.effect("the name of a target is enough for its circuit and for its quota, unless it has several", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* found("main", "gateway/main", "gateway/backup"), "gateway/main")
      assert.strictEqual(yield* found("main", "main", "main/gpt-5"), "main")
      assert.strictEqual(yield* found("main", "main/gpt-5", "backup/gpt-5"), "main/gpt-5")
      assert.strictEqual(yield* found("main", "main/a", "main/b"), "main can be main/a or main/b; write it whole")
    }))
})
