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
}

const Words: Words = await import(new URL("../../page/words.js", import.meta.url).href)

const now = 1_000_000

const target = (name: string, state = "closed", more = {}) => ({
  name,
  state,
  since: now - 5_000,
  until: null,
  reason: "",
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
      [page([a, target("c", "forced-open")]), "note", "c is held by hand"],
      [page([a, target("c")]), "calm", "All 2 targets take calls"],
      [page([a]), "calm", "The target takes calls"]
    ]
    for (const [given, level, says] of cases) {
      const verdict = Words.verdict(given, now)
      assert.deepStrictEqual([verdict.level, verdict.says], [level, says])
    }
    assert.include(Words.verdict(page([a, down]), now).more, "HTTP 503, for 5s. 10 of 10 calls")
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
