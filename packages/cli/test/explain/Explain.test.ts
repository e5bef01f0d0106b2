import { assert, describe, it } from "@effect/vitest"
import type { Attempt } from "@sluice/ai/CallLog"
import { Duration } from "effect"
import * as Explain from "../../src/explain/Explain.ts"
import * as Terminal from "../../src/Terminal.ts"
import { attempt, call, hostile, record, refused } from "../support/records.ts"

const moved = record({
  attempts: 3,
  milliseconds: 2_400,
  target: "backup",
  model: "large",
  calls: [call(
    refused(429, {
      fault: { type: "RateLimitError", message: "HTTP 429", status: 429, retryAfterMillis: 20_000 }
    }),
    { _tag: "Skipped", at: 1_200, target: "main", why: "RateLimited", retryAfter: Duration.seconds(20) },
    attempt({
      n: 2,
      target: "backup",
      startedAt: 1_200,
      firstTokenAt: 1_300,
      endedAt: 1_900,
      outcome: "Failure",
      fault: { type: "IdleTimeout", message: "backup: silent for 500ms after 7 parts" },
      next: "Restart"
    }),
    attempt({ n: 3, target: "backup", waitedMillis: 300, startedAt: 2_200, endedAt: 3_400, firstTokenAt: 2_300 })
  )]
})

describe("Explain", () => {
  it("tells what was tried, when, what came of it, what was passed over, and what it cost", () => {
    assert.strictEqual(
      Explain.render(moved, undefined, 80),
      [
        "p1 (line 1): answered by backup (large) after 2.4s and 3 tries",
        "  call call_1",
        "",
        "   +100ms  main    try 1: rate limit (HTTP 429), wants to be left alone for 20s,",
        "                   after 100ms; another target is asked",
        "   +200ms  main    passed over: it asked to be left alone, for 20s",
        "   +200ms  backup  try 2: silence: silent for 500ms after 7 parts, after 700ms",
        "                   (first token after 100ms); 10 tokens in, 5 out; what had come",
        "                   is thrown away, and the answer begins anew",
        "    +1.2s  backup  try 3, after a wait of 300ms: answered in 1.2s (first token",
        "                   after 100ms); 10 tokens in, 5 out",
        "",
        "  paid: 10 tokens in, 5 out",
        ""
      ].join("\n")
    )
  })

  it("fits into its columns, few or many", () => {
    for (const columns of [40, 60, 80, 120]) {
      for (const line of Explain.render(moved, undefined, columns).split("\n")) {
        assert.isAtMost(Terminal.width(line), columns, line)
      }
    }
    assert.isBelow(Explain.render(moved, undefined, 120).length, Explain.render(moved, undefined, 60).length)
  })

  it("tells whose call answered a prompt that made none", () => {
    const leader = record({ line: 3, id: "p3" })
    const joined = record({ line: 9, id: "p9", how: "joined", attempts: 0, calls: [] })
    const told = Explain.render(joined, leader, 120)
    assert.include(told, "it waited with the equal prompt on line 3, whose call ran")
    assert.include(told, "try 1: answered in 100ms")
    assert.include(told, "paid by line 3:")
    const alone = Explain.render({ ...joined, how: "cached" }, undefined, 80)
    assert.include(alone, "an equal prompt had been answered")
    assert.notInclude(alone, "try 1")
  })

  it("tells of waits between calls, of calls that are left out, and of answers that are not whole", () => {
    const open = { _tag: "Skipped", at: 1_000, target: "main", why: "CircuitOpen" } as const
    const later = { ...call(attempt({ startedAt: 3_000, endedAt: 3_100 })), startedAt: 3_000, endedAt: 3_100 }
    const told = Explain.render(record({ calls: [call(open), later], leftOut: 598, finish: "length" }), undefined, 120)
    assert.include(told, "passed over: its circuit is open\n")
    assert.include(told, "waited for 1.5s")
    assert.include(told, "598 more rounds like these are left out")
    assert.include(told, "the answer is not whole: length")
  })

  it("says what a prompt failed with, and marks what is estimated", () => {
    const usage = { inputTokens: 10, outputTokens: 5, estimated: true }
    const calls = [{ ...call(refused(503, { next: "Stop" })), usage }]
    const { finish: _, ...failed } = record({ status: "failed", error: "InternalProviderError", calls })
    const told = Explain.render(failed, undefined, 80)
    assert.include(told, "p1 (line 1): failed after 500ms and 1 try: InternalProviderError")
    assert.include(told, "HTTP 503 after 100ms; the call ends")
    assert.include(told, "paid: about 10 tokens in, 5 out")
  })

  it("lets nothing through that moves the cursor", () => {
    const told = Explain.render(
      record({ id: hostile, model: hostile, target: "main", calls: [call(attempt({ target: hostile }))] }),
      undefined,
      80
    )
    assert.notMatch(told.replaceAll("\n", ""), /[\p{Cc}\p{Cf}]/u)
  })

  it("finds a prompt by its id, or else by its line, with an id or without", () => {
    const { id: _, ...nameless } = record({ line: 7 })
    const lines = (name: string, ...records: ReadonlyArray<Parameters<Explain.Wanted["add"]>[0]>) => {
      const wanted = new Explain.Wanted(name)
      for (const each of records) wanted.add(each)
      return wanted.found.map(({ line }) => line)
    }
    assert.deepStrictEqual(lines("p1", record(), record({ line: 2, id: "p2" }), record({ line: 3 })), [1, 3])
    assert.deepStrictEqual(lines("7", nameless, record()), [7])
    assert.deepStrictEqual(lines("7", record({ line: 7 })), [7])
    // The id wins, whichever comes first.
    assert.deepStrictEqual(lines("7", record({ line: 7 }), record({ line: 9, id: "7" })), [9])
    assert.deepStrictEqual(lines("8", record({ line: 7 })), [])
    assert.deepStrictEqual(lines("__proto__", record({ id: "__proto__" })), [1])
  })

  it("tells no wait that is only the time to begin", () => {
    const told = (changes: Partial<Attempt>) =>
      Explain.render(record({ calls: [call(attempt(changes))] }), undefined, 120)
    assert.include(told({ waitedMillis: 2 }), "try 1: answered")
    assert.include(told({ waitedMillis: 300 }), "try 1, after a wait of 300ms: answered")
    assert.include(told({ waitedMillis: 10 }), "try 1, after a wait of 10ms: answered")
  })
})
