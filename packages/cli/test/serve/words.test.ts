import { assert, describe, it } from "@effect/vitest"

interface Verdict {
  readonly level: string
  readonly says: string
  readonly more: string
}

/** What the tests use of the script. */
interface Words {
  readonly verdict: (page: object, now: number) => Verdict
  readonly title: (verdict: Verdict, targets: ReadonlyArray<object>) => string
  readonly circuit: (target: object, now: number) => string
  readonly time: (millis: number | null) => string
  readonly percent: (share: number) => string
  readonly reason: (code: string) => string
  readonly steps: (log: object) => ReadonlyArray<{ readonly text: string }>
  readonly headline: (log: object) => string
  readonly change: (change: object) => string
  readonly changes: { readonly [what: string]: readonly [(name: string) => string, string] }
  readonly batchState: (batch: object, now: number) => readonly [string, string]
  readonly progress: (batch: object) => string
  readonly waits: (batch: object, now: number) => string
  readonly batchesNote: (batches: object) => string
  readonly ends: (now: number) => ReadonlyArray<readonly [number | null, string]>
}

const Words: Words = await import(new URL("../../page/words.js", import.meta.url).href)

const now = 1_000_000
const minute = 60_000

const target = (name: string, state = "closed", more = {}) => ({
  name,
  state,
  since: now - 5_000,
  until: null,
  reason: "",
  isKnown: true,
  error: null,
  strip: [[now - 60_000, "closed"], [now - 5_000, state]],
  ...more
})

const page = (targets: ReadonlyArray<object>, more = {}) => ({
  link: "live",
  origin: "http://h",
  at: now,
  head: { calls: 10, inFlight: 0, ended: 10, answered: 10 },
  routes: {},
  targets,
  ...more
})

const failing = { head: { calls: 200, inFlight: 0, ended: 200, answered: 100 } }
const a = target("a")
const drained = target("d", "forced-open", { draining: true, running: 0, reason: "it moves" })
const down = target("b", "open", { error: { at: now, why: "HTTP 503", times: 3 } })

describe("the words of the live page", () => {
  it("the verdict says the worst first", () => {
    const cases: ReadonlyArray<readonly [object, string, string]> = [
      [page([a], { link: "lost" }), "lost", "No word from the gateway"],
      [page([a], { link: "bye" }), "lost", "The gateway is shutting down"],
      [page([a], { link: "locked" }), "lost", "This page needs an admin key"],
      [page([down]), "bad", "No target takes calls"],
      [page([a], { head: { calls: 0, inFlight: 0, ended: 0, answered: 0 } }), "idle", "No call has come yet"],
      [page([a, down], { routes: { small: ["a"], large: ["b"] } }), "bad", "Calls for large are refused"],
      [page([a, down], failing), "bad", "b is down and calls fail"],
      [page([a], failing), "bad", "Calls fail"],
      [page([a, down]), "warn", "b is down; calls go elsewhere"],
      [page([a, target("c", "ramp")]), "warn", "c is coming back"],
      [page([a, target("c", "forced-open"), drained]), "note", "c is held by hand"],
      [page([a, drained]), "note", "d is drained by hand"],
      [
        page([a, target("c", "closed", { isKnown: false }), drained]),
        "warn",
        "The store does not answer; this gateway decides alone"
      ],
      [page([a, target("c", "ramp"), target("e", "forced-open")]), "warn", "c is coming back"],
      [page([target("c", "forced-open"), drained]), "bad", "No target takes calls"],
      [page([a, drained], { routes: { small: ["a"], large: ["d"] } }), "bad", "Calls for large are refused"],
      [page([a, target("c")]), "calm", "All 2 targets take calls"],
      [page([a]), "calm", "The target takes calls"]
    ]
    for (const [given, level, says] of cases) {
      const verdict = Words.verdict(given, now)
      assert.deepStrictEqual([verdict.level, verdict.says], [level, says])
    }
    assert.include(Words.verdict(page([a, down]), now).more, "HTTP 503, for 5s. 10 of 10 calls")
    assert.include(
      Words.verdict(page([a, drained]), now).more,
      "nothing runs there, without an end: it moves. 10 of 10"
    )
    assert.strictEqual(Words.title(Words.verdict(page([a, down]), now), [a, down]), "1 down · sluice")
  })

  it("an outage counts over its probes", () => {
    const strip = [[now - 90_000, "closed"], [now - 60_000, "open"], [now - 20_000, "probe"], [now - 5_000, "open"]]
    assert.strictEqual(
      Words.circuit(target("a", "open", { strip, until: now + 7_500 }), now),
      "takes no calls for 1m 00s, asked again in 7s"
    )
    assert.strictEqual(Words.circuit(a, now), "")
  })

  it("what is held says until when, why, and what still runs", () => {
    const at = (hours: number, minutes = 0) => new Date(2026, 0, 31, hours, minutes).getTime()
    const held = (state: string, more: object) =>
      Words.circuit(target("a", state, { until: at(6, 45), reason: "region moves", ...more }), at(6))
    const cases: ReadonlyArray<readonly [string, string]> = [
      [held("forced-open", {}), "held open, no calls, until 06:45: region moves"],
      [held("forced-closed", {}), "held closed, all calls, until 06:45: region moves"],
      [held("forced-open", { until: at(26) }), "held open, no calls, until 1 Feb 02:00: region moves"],
      [held("forced-open", { until: null }), "held open, no calls, without an end: region moves"],
      [
        held("forced-open", { draining: true, running: 1 }),
        "drains, 1 call runs there, until 06:45: region moves"
      ],
      [
        held("forced-open", { draining: true, running: 1_200 }),
        "drains, 1,200 calls run there, until 06:45: region moves"
      ],
      [held("forced-open", { draining: true, running: 0 }), "drained, nothing runs there, until 06:45: region moves"]
    ]
    for (const [line, words] of cases) assert.strictEqual(line, words)
  })

  it("a change names its target, its end, who made it and why", () => {
    const change = { target: "main", reason: "region moves", forMs: 15 * minute, who: "ann" }
    const lines = ["open", "close", "drain", "reset"].map((what) =>
      Words.change({ ...change, what, ...(what === "reset" ? { forMs: null } : {}) })
    )
    assert.deepStrictEqual(lines, [
      "held open for 15m 00s by ann: region moves",
      "held closed for 15m 00s by ann: region moves",
      "drained for 15m 00s by ann: region moves",
      "left to its circuit by ann: region moves"
    ])
    assert.strictEqual(
      Words.change({ ...change, what: "open", forMs: null }),
      "held open without an end by ann: region moves"
    )
    assert.deepStrictEqual(Object.values(Words.changes).map(([label]) => label("main")), [
      "Stop calls to main",
      "Send calls to main whatever happens",
      "Drain main",
      "Let the circuit of main decide"
    ])
  })

  it("a change lasts an hour unless something else is chosen, and no choice is longer than the gateway takes", () => {
    for (const hour of [0, 9, 23]) {
      const ends = Words.ends(new Date(2026, 1, 28, hour, 30).getTime())
      assert.strictEqual(ends[0]?.[0], 60 * minute)
      assert.deepStrictEqual(ends.at(-1), [null, "no end, until it is changed again"])
      const [tomorrow] = ends.find(([, words]) => words.startsWith("until tomorrow")) ?? []
      assert.strictEqual(tomorrow, (24 - hour + 8.5) * 60 * minute)
    }
  })

  it("shares are rounded down, and times at their edges", () => {
    assert.deepStrictEqual([0.9999, 1, 0].map(Words.percent), ["99.9%", "100%", "0.0%"])
    const times = [null, 0, 999, 999.6, 9_949, 59_600, 3_599_600, 172_800_000]
    assert.deepStrictEqual(times.map(Words.time), ["–", "0ms", "999ms", "1.0s", "9.9s", "1m 00s", "1h 00m", "2d 0h"])
    assert.deepStrictEqual(["HTTP 503", "IdleTimeout", "SomeReason", "some_code", "constructor"].map(Words.reason), [
      "HTTP 503",
      "the stream fell silent",
      "some reason",
      "some code",
      "constructor"
    ])
  })

  it("a call is told step by step", () => {
    const log = {
      id: "x",
      startedAt: 0,
      endedAt: 700,
      result: "Success",
      answeredBy: "c",
      steps: [
        { _tag: "Skipped", at: 0, target: "a", why: "CircuitOpen" },
        {
          _tag: "Attempt",
          n: 1,
          target: "b",
          waitedMillis: 0,
          startedAt: 1,
          endedAt: 90,
          fault: { type: "X", status: 503 },
          next: "Fallback"
        },
        {
          _tag: "Attempt",
          n: 2,
          target: "c",
          waitedMillis: 100,
          startedAt: 200,
          firstTokenAt: 300,
          endedAt: 700,
          next: "Done"
        }
      ]
    }
    assert.deepStrictEqual(Words.steps(log).map(({ text }) => text), [
      "passed over: its circuit is open",
      "try 1: HTTP 503 after 89ms; the next target is asked",
      "waited 100ms",
      "try 2: answered in 500ms, first token after 100ms",
      "answered by c after 700ms"
    ])
    assert.strictEqual(Words.headline(log), "Answered by c after 700ms, 2 tries")
    assert.strictEqual(
      Words.headline({ ...log, result: "Failure", fault: { type: "NoTarget" }, steps: [] }),
      "Failed: no target takes the call, after 700ms, without a try"
    )
  })
})

describe("the words for batches", () => {
  const batch = { state: "in_progress", endedAt: null, waits: null, done: 12_345, failed: 0, total: 1_000_000 }
  const waits = { for: "the circuit of main is open", until: now + 12_000 }

  it("the state of a batch is a shape and a word, and a batch that waits says for what", () => {
    assert.deepStrictEqual(Words.batchState(batch, now), ["streaming", "in progress"])
    assert.deepStrictEqual(Words.batchState({ ...batch, waits }, now), ["waiting", "in progress"])
    const [shape, word] = Words.batchState({ ...batch, state: "capped", endedAt: now }, now)
    assert.strictEqual(shape, "cut")
    assert.match(word, /^ended at its budget at \d\d:\d\d$/)
    assert.strictEqual(Words.waits({ ...batch, waits }, now), "waits: the circuit of main is open, for 12s")
    assert.strictEqual(
      Words.waits({ ...batch, waits: { for: "no worker runs", until: null } }, now),
      "waits: no worker runs"
    )
    assert.strictEqual(Words.waits(batch, now), "")
  })

  it("progress counts requests and names failed ones", () => {
    assert.strictEqual(Words.progress(batch), "12,345 of 1,000,000")
    assert.strictEqual(Words.progress({ ...batch, failed: 1_200 }), "12,345 of 1,000,000, 1,200 failed")
  })

  it("rows of a database that does not answer are said to be old", () => {
    assert.strictEqual(Words.batchesNote({ at: null, isKnown: false, more: 0 }), "The database does not answer.")
    assert.match(
      Words.batchesNote({ at: now, isKnown: false, more: 0 }),
      /^The database does not answer\. What is shown is from \d\d:\d\d:\d\d\.$/
    )
    assert.strictEqual(Words.batchesNote({ at: now, isKnown: true, more: 3 }), "the 20 newest; 3 more are live")
  })

  it("a gateway whose batches run is not one without calls", () => {
    const page = { link: "live", at: now, head: { calls: 0, inFlight: 0, ended: 0, answered: 0 }, routes: {} }
    const all = { ...page, targets: [target("a")] }
    assert.strictEqual(Words.verdict(all, now).level, "idle")
    assert.strictEqual(Words.verdict({ ...all, batches: { rows: [batch] } }, now).level, "calm")
  })

  it("a cancel by hand names who did it", () => {
    const limit = { what: "requests/min at most 50", reason: "others need it", who: "ann@ops" }
    assert.strictEqual(
      Words.change({ ...limit, forMs: 3_600_000 }),
      "requests/min at most 50 for 1h 00m by ann@ops: others need it"
    )
    assert.strictEqual(
      Words.change({ ...limit, what: "requests/min as before", forMs: null }),
      "requests/min as before by ann@ops: others need it"
    )
    assert.strictEqual(Words.change({ what: "cancel", batch: "batch_1", who: "ann" }), "cancelled by ann")
  })
})
