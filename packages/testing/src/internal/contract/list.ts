import type { Snapshot } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import { type Bench, type Bodies, expect, lasting, ring } from "./check.ts"

/** What is particular to a database, a file name, a pattern or an object is ordinary in a key. */
const oddSuffixes = [
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

export const list: Bodies = {
  "is in the order of the keys, page by page": Effect.fnUntraced(function*(bench: Bench) {
    // By code unit the second of the last two comes first, by code point or UTF-8 the first.
    const suffixes = ["b", "aa", "c", "a", "B", "10", "9", "\u00e9", "\uE000", "\u{1F4A5}"]
    for (const suffix of suffixes) yield* bench.circuit({ suffix, window }).record(0, "X")
    const sorted = suffixes.toSorted()
    for (const limit of [1, 3, 100]) {
      const pages = yield* pagesOf(bench, limit)
      const keys = pages.flat().map(({ key }) => key.slice(bench.prefix.length))
      yield* expect("circuits come in the order of their keys, each once", keys, sorted)
    }
    const [page] = yield* pagesOf(bench, 3)
    yield* expect("a page has `limit` circuits, if there are so many", page?.length, 3)
    const behind = yield* bench.store.list({ window, after: `${bench.prefix}a!`, limit: 1 })
    yield* expect("`after` need not be a key that is there", behind.map(({ key }) => key), [`${bench.prefix}aa`])
  }),

  "shows each circuit as `read` does, through the window asked for": Effect.fnUntraced(function*(bench: Bench) {
    const wheel = { calls: 3, bucketMillis: 600_000, buckets: 2 }
    const closed = bench.circuit({ suffix: "closed", window: wheel })
    yield* closed.record(0, "X0")
    yield* closed.through(window).record(0, "Y")
    const open = bench.circuit({ suffix: "open", window: wheel })
    yield* open.lease(yield* open.halfOpen, "probe")
    const forced = bench.circuit({ suffix: "forced", window: wheel })
    yield* forced.force(0, "force", "ObserveOnly")

    for (const through of [wheel, window, ring(7)]) {
      const listed = (yield* bench.store.list({ window: through, after: bench.prefix, limit: 10 }))
        .filter(({ key }) => key.startsWith(bench.prefix))
      const seen: Array<Snapshot> = []
      for (const circuit of [closed, forced, open]) seen.push(yield* circuit.through(through).read)
      yield* expect("`list` shows what `read` shows", listed.map(lasting), seen.map(lasting))
    }
  }),

  "has every circuit once it is made, by whichever verb": Effect.fnUntraced(function*(bench: Bench) {
    const target = { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" } as const
    yield* bench.circuit({ suffix: "recorded" }).record(0, "0")
    yield* bench.circuit({ suffix: "moved" }).transition(0, "close", target)
    const keys = (yield* pagesOf(bench, 10)).flat().map(({ key }) => key)
    yield* expect("a circuit that was made is listed", keys, ["moved", "recorded"].map((name) => bench.prefix + name))
  })
}

export const keys: Bodies = {
  "are any text, and no two are the same": Effect.fnUntraced(function*(bench: Bench) {
    for (const [nth, suffix] of oddSuffixes.entries()) {
      yield* bench.circuit({ suffix, window }).record(0, "X".repeat(nth + 1))
    }
    for (const [nth, suffix] of oddSuffixes.entries()) {
      const circuit = bench.circuit({ suffix, window })
      const { evidence, key } = yield* circuit.read
      yield* expect("a circuit has its own key and evidence", [key, evidence.ring.length], [circuit.key, nth + 1])
    }
    const listed = (yield* pagesOf(bench, 7)).flat().map(({ evidence, key }) => [key, evidence.ring.length])
    const sorted = oddSuffixes.map((suffix, nth) => [bench.prefix + suffix, nth + 1] as const)
      .toSorted(([a], [b]) => a < b ? -1 : 1)
    yield* expect("and all are listed", listed, sorted)
  }),

  "may be what an object has already, or nothing": Effect.fnUntraced(function*({ prefix, store }: Bench) {
    for (const key of ["__proto__", "constructor", "toString", "hasOwnProperty", ""]) {
      // It may be there from an earlier run.
      const { generation } = yield* store.read({ key, window })
      const { snapshot: closed } = yield* store.transition({
        key,
        window,
        generation,
        by: prefix,
        to: { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" }
      })
      yield* store.record({ key, window, generation: closed.generation, samples: "X0" })
      const { control, evidence: { ring }, key: seen } = yield* store.read({ key, window })
      yield* expect(`${JSON.stringify(key)} is an ordinary key`, [seen, control.by, ring], [key, prefix, "X0"])
    }
    const [first] = yield* store.list({ window, limit: 1 })
    yield* expect("the shortest is the first", first?.key, "")
  }),

  "keep their moves and leases apart": Effect.fnUntraced(function*({ circuit }: Bench) {
    const [a, b] = [circuit({ suffix: "a" }), circuit({ suffix: "b" })]
    yield* b.record(0, "X")
    const before = yield* b.read
    yield* a.lease(yield* a.halfOpen, "probe")
    yield* expect("what happens to one circuit happens to no other", lasting(yield* b.read), lasting(before))
    const open = yield* b.open(before.generation, "half-open", 0)
    yield* expect("an id names something within its circuit", open.ok, true)
    const own = yield* b.lease(open.snapshot.generation, "probe")
    yield* expect("a lease of the same id is another's", [own.ok, own.snapshot.probing], [true, 1])
  })
}

export const texts: Bodies = {
  "are kept as they are": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    let generation = 0
    for (const text of [...oddSuffixes, "{\"a\":[1,null]}", "a,b;c|d", "1e21", " "]) {
      const target = { _tag: "Forced", forMillis: 0, mode: "ObserveOnly", reason: text } as const
      const { snapshot } = yield* a.transition(generation, `by ${text}`, target)
      const { control } = yield* a.read
      yield* expect(
        "`reason` and `by` are any text",
        [control._tag === "Forced" && control.reason, control.by],
        [text, `by ${text}`]
      )
      generation = snapshot.generation
    }
  }),

  "name leases, each its own": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.halfOpen
    const limit = oddSuffixes.length
    for (const [nth, id] of oddSuffixes.entries()) {
      const granted = yield* a.lease(generation, id, { limit })
      yield* expect("an id is any text", [granted.ok, granted.snapshot.probing], [true, nth + 1])
    }
    for (const [nth, id] of oddSuffixes.entries()) {
      const { snapshot } = yield* a.record(generation, "", id)
      yield* expect("and frees its own lease", snapshot.probing, limit - nth - 1)
    }
  })
}

/** All circuits of this check. */
const pagesOf = Effect.fnUntraced(function*({ prefix, store }: Bench, limit: number) {
  const pages: Array<ReadonlyArray<Snapshot>> = []
  for (let after = prefix;;) {
    const page = (yield* store.list({ window, after, limit })).filter(({ key }) => key.startsWith(prefix))
    const last = page[page.length - 1]
    // A store that does not page by `after` gives the same for ever.
    if (last === undefined || pages.length > 100) return pages
    pages.push(page)
    after = last.key
  }
})
