import { assert, describe, it } from "@effect/vitest"
import type { Ended } from "../../src/serve/Live.ts"
import { Live } from "../../src/serve/Live.ts"

const call = (at: number, more: Partial<Ended> = {}): Ended => ({
  id: `call_${at}`,
  at,
  millis: 5,
  status: "answered",
  why: null,
  key: "ann",
  operation: "chat",
  tries: 1,
  targets: ["a"],
  ...more
})

const run = (live: Live, at: number, more?: Partial<Ended>) =>
  live.ended(live.began("ann", "chat", at), call(at, more), undefined, 0.5, at + 5)

describe("the state of the live page", () => {
  it("is bounded, however many calls and hours there are", () => {
    const live = new Live(0)
    for (let at = 0; at < 20_000_000; at += 1_000) run(live, at)
    run(live, 10 * 86_400_000)
    for (let reason = 0; reason < 1_000; reason++) live.refused(`x${reason}`, 10 * 86_400_000)
    const { calls, columns, head } = live.snapshot(10 * 86_400_000 + 5_000)
    assert.lengthOf(calls, 200)
    assert.strictEqual(calls[0]?.at, 10 * 86_400_000)
    assert.isAtMost(columns.length, 180)
    assert.strictEqual(Object.keys(columns.at(-1)?.why ?? {}).length, 64)
    assert.strictEqual(head.calls, 20_001)
    assert.strictEqual(head.inFlight, 0)
  })

  it("a delta has what is new, and calls that were not plain before others", () => {
    const live = new Live(0)
    for (let at = 0; at < 20; at++) run(live, at)
    run(live, 20, { status: "failed", why: "HTTP 503" })
    const first = live.delta(100, true)
    assert.lengthOf(first.calls ?? [], 12)
    assert.strictEqual(first.leftOut, 9)
    assert.isTrue(first.calls?.some(({ status }) => status === "failed"))
    assert.isUndefined(live.delta(200, true).calls)
    assert.lengthOf(live.delta(5_000, true).columns ?? [], 1)
    assert.isUndefined(live.delta(5_001, true).columns)
  })

  it("the last minute counts calls that were answered, without those of clients that left", () => {
    const live = new Live(0)
    run(live, 0, { status: "failed", why: "HTTP 503" })
    for (const status of ["answered", "cut", "refused", "left"] as const) run(live, 70_000, { status })
    const { head } = live.delta(71_000, true)
    assert.deepInclude(head, { ended: 3, answered: 1, calls: 5, cost: 2.5 })
    assert.deepInclude(live.keys([{ name: "ann", levels: undefined }])[0], {
      calls: 5,
      refused: 1,
      cost: 2.5,
      limits: null
    })
    assert.deepInclude(live.keys([{ name: "bob", levels: [] }])[0], { calls: 0 })
    assert.deepInclude(live.keys([{ name: "ann", levels: [] }])[0], { calls: 0 })
  })

  it("changes by hand are sent once, and the last 20 are kept", () => {
    const live = new Live(0)
    const change = { target: "a", what: "open", reason: "it moves", forMs: null, who: "ann" } as const
    for (let at = 0; at < 30; at++) live.changed({ ...change, id: `${at}`, at })
    assert.deepStrictEqual(live.snapshot(31).audit.map(({ at }) => at), Array.from({ length: 20 }, (_, n) => 29 - n))
    assert.lengthOf(live.delta(31, false).audit ?? [], 20)
    assert.isUndefined(live.delta(32, false).audit)
    live.changed({ ...change, id: "29", at: 29 })
    live.changed({ ...change, id: "before all that are kept", at: 1 })
    assert.isUndefined(live.delta(33, false).audit)
    live.changed({ ...change, id: "of another gateway", at: 15 })
    assert.deepStrictEqual(live.delta(34, false).audit?.map(({ at }) => at), [15])
    assert.deepStrictEqual(live.snapshot(35).audit.slice(13, 16).map(({ at }) => at), [16, 15, 15])
  })

  it("a flight has a target from the first output on", () => {
    const live = new Live(0)
    const one = live.began("ann", "chat", 0)
    live.began("bob", "messages", 1)
    live.streams(one, "a")
    const { flights, head } = live.delta(2, false)
    assert.deepStrictEqual(flights.map(({ target }) => target), ["a", null])
    assert.deepInclude(head.phases, { waiting: 1, streaming: 1 })
    live.ended(one, call(0), undefined, 0, 3)
    assert.deepInclude(live.delta(4, false).head.phases, { waiting: 1, streaming: 0 })
  })
})
