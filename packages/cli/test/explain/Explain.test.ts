import { assert, describe, it } from "@effect/vitest"
import type { Attempt } from "@sluice/ai/CallLog"
import { Duration } from "effect"
import * as Explain from "../../src/explain/Explain.ts"
import * as Terminal from "../../src/Terminal.ts"
import { attempt, call, hostile, record, refused } from "../support/records.ts"

const fallback = record({
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
  it("a record shows attempts with times and outcomes, skipped targets, and the cost", () => {
    assert.strictEqual(
      Explain.render(fallback, undefined, 80),
      [
        "p1 (line 1): answered by backup (large) after 2.4s and 3 attempts",
        "  call call_1",
        "",
        "   +100ms  main    attempt 1: rate limit (HTTP 429), Retry-After 20s, after",
        "                   100ms; falls back to another target",
        "   +200ms  main    skipped: rate-limited, retry in 20s",
        "   +200ms  backup  attempt 2: idle timeout: silent for 500ms after 7 parts,",
        "                   after 700ms (first token after 100ms); 10 tokens in, 5 out;",
        "                   discards the partial output and starts over",
        "    +1.2s  backup  attempt 3, delayed by 300ms: answered in 1.2s (first token",
        "                   after 100ms); 10 tokens in, 5 out",
        "",
        "  paid: 10 tokens in, 5 out",
        ""
      ].join("\n")
    )
  })

  it("a record fits the width of the terminal", () => {
    for (const columns of [40, 60, 80, 120]) {
      for (const line of Explain.render(fallback, undefined, columns).split("\n")) {
        assert.isAtMost(Terminal.width(line), columns, line)
      }
    }
    assert.isBelow(Explain.render(fallback, undefined, 120).length, Explain.render(fallback, undefined, 60).length)
  })

  it("a prompt without its own call shows the call that it shared", () => {
    const leader = record({ line: 3, id: "p3" })
    const joined = record({ line: 9, id: "p9", how: "joined", attempts: 0, calls: [] })
    const text = Explain.render(joined, leader, 120)
    assert.include(text, "No call of its own: shared the call of the equal prompt on line 3, which was in flight.")
    assert.include(text, "attempt 1: answered in 100ms")
    assert.include(text, "paid by line 3:")
    const withoutLeader = Explain.render({ ...joined, how: "cached" }, undefined, 80)
    assert.include(withoutLeader, "No call of its own: reused the answer to an equal prompt.")
    assert.notInclude(withoutLeader, "attempt 1")
  })

  it("a record shows waits between calls, the number of omitted calls, and an incomplete answer", () => {
    const open = { _tag: "Skipped", at: 1_000, target: "main", why: "CircuitOpen" } as const
    const later = { ...call(attempt({ startedAt: 3_000, endedAt: 3_100 })), startedAt: 3_000, endedAt: 3_100 }
    const text = Explain.render(record({ calls: [call(open), later], leftOut: 598, finish: "length" }), undefined, 120)
    assert.include(text, "skipped: circuit open\n")
    assert.include(text, "waited 1.5s")
    assert.include(text, "598 more calls are omitted")
    assert.include(text, "; incomplete: length")
  })

  it("a failed prompt shows its error, and estimated tokens are marked", () => {
    const usage = { inputTokens: 10, outputTokens: 5, estimated: true }
    const calls = [{ ...call(refused(503, { next: "Stop" })), usage }]
    const { finish: _, ...failed } = record({ status: "failed", error: "InternalProviderError", calls })
    const text = Explain.render(failed, undefined, 80)
    assert.include(text, "p1 (line 1): failed after 500ms and 1 attempt: InternalProviderError")
    assert.include(text, "HTTP 503 after 100ms; the call ends")
    assert.include(text, "paid: about 10 tokens in, 5 out")
  })

  it("a record contains no control characters", () => {
    const text = Explain.render(
      record({
        id: hostile,
        model: hostile,
        target: hostile,
        call: hostile,
        calls: [call(attempt({ target: hostile }))]
      }),
      undefined,
      80
    )
    assert.notMatch(text.replaceAll("\n", ""), /[\p{Cc}\p{Cf}]/u)
  })

  it("a search finds prompts by id, or else by line number", () => {
    const { id: _, ...nameless } = record({ line: 7 })
    const lines = (name: string, ...records: ReadonlyArray<Parameters<Explain.Search["add"]>[0]>) => {
      const search = new Explain.Search(name)
      for (const each of records) search.add(each)
      return search.found.map(({ line }) => line)
    }
    assert.deepStrictEqual(lines("p1", record(), record({ line: 2, id: "p2" }), record({ line: 3 })), [1, 3])
    assert.deepStrictEqual(lines("7", nameless, record()), [7])
    assert.deepStrictEqual(lines("7", record({ line: 7 })), [7])
    // An id wins over a line number, in any order.
    assert.deepStrictEqual(lines("7", record({ line: 7 }), record({ line: 9, id: "7" })), [9])
    assert.deepStrictEqual(lines("8", record({ line: 7 })), [])
    assert.deepStrictEqual(lines("__proto__", record({ id: "__proto__" })), [1])
  })

  it("an attempt that waited for its quota says how long, and for which limit", () => {
    const textOf = (dimension: string) => {
      const quota = { dimension, waitedMillis: 12_000 }
      return Explain.render(record({ calls: [call(attempt({ waitedMillis: 12_000, quota }))] }), undefined, 120)
    }
    assert.include(textOf("tokens"), "attempt 1, waited 12s for the limit of tokens: answered")
    assert.include(textOf("atOnce"), "attempt 1, waited 12s for the limit of calls at once: answered")
  })

  it("events that an attempt skipped are shown, if there were any", () => {
    const rendered = (changes: Partial<Attempt>) =>
      Explain.render(record({ calls: [call(attempt(changes))] }), undefined, 120)
    assert.include(rendered({ skippedEvents: 3 }), "answered in 100ms; skipped 3 unreadable events; 10 tokens in")
    assert.include(rendered({ skippedEvents: 1 }), "skipped 1 unreadable event;")
    assert.notInclude(rendered({ skippedEvents: 0 }), "skipped")
    assert.notInclude(rendered({}), "skipped")
  })

  it("a delay below 10 ms is not shown", () => {
    const rendered = (changes: Partial<Attempt>) =>
      Explain.render(record({ calls: [call(attempt(changes))] }), undefined, 120)
    assert.include(rendered({ waitedMillis: 2 }), "attempt 1: answered")
    assert.include(rendered({ waitedMillis: 300 }), "attempt 1, delayed by 300ms: answered")
    assert.include(rendered({ waitedMillis: 10 }), "attempt 1, delayed by 10ms: answered")
  })
})
