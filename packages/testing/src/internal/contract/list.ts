import type { Snapshot } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import { type CheckBodies, type Fixture, ring, withoutTimes } from "./check.ts"
import { expect } from "../frame.ts"

/** Texts that are special in a database, a file name, a pattern or an object. */
const unusualTexts = [
  "a",
  "A",
  "a ",
  " a",
  "\u00e9",
  "e\u0301",
  "\u00df",
  "ss",
  "\u{1F4A5}",
  "\uE000",
  "line\nbreak",
  "tab\t",
  "{",
  "}",
  "{a}",
  "a}:{a",
  ":",
  "a:",
  "a:l",
  "a:e",
  "a:e:10",
  "a/b",
  "../a",
  "*",
  "?[a-z]",
  "%",
  "_",
  "\\",
  "'; --",
  "\"",
  "null",
  "0",
  "-1",
  "__proto__",
  "constructor",
  "x".repeat(1_024)
]

const window = ring(100)

export const list: CheckBodies = {
  "list returns circuits page by page in the order of their keys": Effect.fnUntraced(function*(fixture: Fixture) {
    // By code unit the last one comes before the one before it; by code point or in UTF-8 it comes after.
    const suffixes = ["b", "aa", "c", "a", "B", "10", "9", "\u00e9", "\uE000", "\u{1F4A5}"]
    for (const suffix of suffixes) yield* fixture.circuit({ suffix, window }).record(0, "X")
    const sorted = suffixes.toSorted()
    for (const limit of [1, 3, 100]) {
      const pages = yield* pagesOf(fixture, limit)
      const keys = pages.flat().map(({ key }) => key.slice(fixture.prefix.length))
      yield* expect("circuits are listed once, in the order of their keys", keys, sorted)
    }
    const [page] = yield* pagesOf(fixture, 3)
    yield* expect("a page has `limit` circuits if there are enough", page?.length, 3)
    const next = yield* fixture.store.list({ window, after: `${fixture.prefix}a!`, limit: 1 })
    yield* expect("`after` can be a missing key", next.map(({ key }) => key), [`${fixture.prefix}aa`])
  }),

  "list shows each circuit as read does, for the requested window": Effect.fnUntraced(function*(fixture: Fixture) {
    const wheel = { calls: 3, bucketMillis: 600_000, buckets: 2 }
    const closed = fixture.circuit({ suffix: "closed", window: wheel })
    yield* closed.record(0, "X0")
    yield* closed.withWindow(window).record(0, "Y")
    const open = fixture.circuit({ suffix: "open", window: wheel })
    yield* open.lease(yield* open.makeHalfOpen, "probe")
    const forced = fixture.circuit({ suffix: "forced", window: wheel })
    yield* forced.force(0, "force", "ObserveOnly")

    for (const requested of [wheel, window, ring(7)]) {
      const listed = (yield* fixture.store.list({ window: requested, after: fixture.prefix, limit: 10 }))
        .filter(({ key }) => key.startsWith(fixture.prefix))
      const snapshots: Array<Snapshot> = []
      for (const circuit of [closed, forced, open]) snapshots.push(yield* circuit.withWindow(requested).read)
      yield* expect(
        "`list` returns the snapshots that `read` returns",
        listed.map(withoutTimes),
        snapshots.map(withoutTimes)
      )
    }
  }),

  "list contains every circuit, whichever verb made it": Effect.fnUntraced(function*(fixture: Fixture) {
    const target = { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" } as const
    yield* fixture.circuit({ suffix: "recorded" }).record(0, "0")
    yield* fixture.circuit({ suffix: "moved" }).transition(0, "close", target)
    const keys = (yield* pagesOf(fixture, 10)).flat().map(({ key }) => key)
    yield* expect("every circuit is listed", keys, ["moved", "recorded"].map((name) => fixture.prefix + name))
  })
}

export const keys: CheckBodies = {
  "any text is a key, and no two keys share a circuit": Effect.fnUntraced(function*(fixture: Fixture) {
    for (const [nth, suffix] of unusualTexts.entries()) {
      yield* fixture.circuit({ suffix, window }).record(0, "X".repeat(nth + 1))
    }
    for (const [nth, suffix] of unusualTexts.entries()) {
      const circuit = fixture.circuit({ suffix, window })
      const { evidence, key } = yield* circuit.read
      yield* expect("every circuit has its own key and evidence", [key, evidence.ring.length], [circuit.key, nth + 1])
    }
    const listed = (yield* pagesOf(fixture, 7)).flat().map(({ evidence, key }) => [key, evidence.ring.length])
    const sorted = unusualTexts.map((suffix, nth) => [fixture.prefix + suffix, nth + 1] as const)
      .toSorted(([a], [b]) => a < b ? -1 : 1)
    yield* expect("every circuit is listed with its own evidence", listed, sorted)
  }),

  "names of object properties and the empty text are ordinary keys": Effect.fnUntraced(
    function*({ prefix, store }: Fixture) {
      for (const key of ["__proto__", "constructor", "toString", "hasOwnProperty", ""]) {
        // The circuit may exist from an earlier run.
        const { generation } = yield* store.read({ key, window })
        const { snapshot: closed } = yield* store.transition({
          key,
          window,
          generation,
          by: prefix,
          to: { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" }
        })
        yield* store.record({ key, window, generation: closed.generation, samples: "X0" })
        const { control, evidence: { ring }, key: actualKey } = yield* store.read({ key, window })
        yield* expect(`${JSON.stringify(key)} is an ordinary key`, [actualKey, control.by, ring], [key, prefix, "X0"])
      }
      const [first] = yield* store.list({ window, limit: 1 })
      yield* expect("the empty key is the first in the list", first?.key, "")
    }
  ),

  "circuits with different keys share neither transitions nor leases": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const [a, b] = [circuit({ suffix: "a" }), circuit({ suffix: "b" })]
      yield* b.record(0, "X")
      const before = yield* b.read
      yield* a.lease(yield* a.makeHalfOpen, "probe")
      yield* expect("requests for one circuit do not change another", withoutTimes(yield* b.read), withoutTimes(before))
      const open = yield* b.open(before.generation, "half-open", 0)
      yield* expect("the id of a transition can be used in another circuit", open.ok, true)
      const own = yield* b.lease(open.snapshot.generation, "probe")
      yield* expect("the id of a lease can be used in another circuit", [own.ok, own.snapshot.probing], [true, 1])
    }
  )
}

export const texts: CheckBodies = {
  "reasons and transition ids are kept, whatever their text": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    let generation = 0
    for (const text of [...unusualTexts, "{\"a\":[1,null]}", "a,b;c|d", "1e21", " "]) {
      const target = { _tag: "Forced", forMillis: 0, mode: "ObserveOnly", reason: text } as const
      const { snapshot } = yield* a.transition(generation, `by ${text}`, target)
      const { control } = yield* a.read
      yield* expect(
        "`reason` and `by` can be any text",
        [control._tag === "Forced" && control.reason, control.by],
        [text, `by ${text}`]
      )
      generation = snapshot.generation
    }
  }),

  "every text is the id of its own lease": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeHalfOpen
    const limit = unusualTexts.length
    for (const [nth, id] of unusualTexts.entries()) {
      const granted = yield* a.lease(generation, id, { limit })
      yield* expect("a lease id can be any text", [granted.ok, granted.snapshot.probing], [true, nth + 1])
    }
    for (const [nth, id] of unusualTexts.entries()) {
      const { snapshot } = yield* a.record(generation, "", id)
      yield* expect("a record frees the lease with its id", snapshot.probing, limit - nth - 1)
    }
  })
}

/** All circuits of this check, as pages. */
const pagesOf = Effect.fnUntraced(function*({ prefix, store }: Fixture, limit: number) {
  const pages: Array<ReadonlyArray<Snapshot>> = []
  for (let after = prefix;;) {
    const page = (yield* store.list({ window, after, limit })).filter(({ key }) => key.startsWith(prefix))
    const last = page[page.length - 1]
    // A store that ignores `after` would return the same page for ever.
    if (last === undefined || pages.length > 100) return pages
    pages.push(page)
    after = last.key
  }
})
