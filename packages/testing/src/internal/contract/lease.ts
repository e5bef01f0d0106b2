import type { Mode } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import { type Bench, type Bodies, expect, expectThat, long, ring, short, untilOf } from "./check.ts"

const everyMode: ReadonlyArray<Mode> = ["ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"]

export const lease: Bodies = {
  "is refused where there is no circuit, and in one that is closed or forced": Effect.fnUntraced(
    function*({ circuit }: Bench) {
      const missing = yield* circuit({ suffix: "missing" }).lease(0, "probe")
      yield* expect(
        "there is no place in a circuit that is not there",
        [missing.ok, missing.snapshot.generation, missing.snapshot.probing],
        [false, 0, 0]
      )
      const a = circuit()
      let generation = yield* a.fresh
      const closed = yield* a.lease(generation, "probe")
      yield* expect("nor in a closed one", [closed.ok, closed.snapshot.probing], [false, 0])
      for (const mode of everyMode) {
        const forced = yield* a.force(generation, mode, mode)
        generation = forced.snapshot.generation
        const { ok, snapshot } = yield* a.lease(generation, "probe")
        yield* expect(`nor in one that is \`${mode}\``, [ok, snapshot.probing], [false, 0])
      }
    }
  ),

  "is refused under another generation, and says what stands": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const older = yield* a.halfOpen
    const { snapshot: { control, generation } } = yield* a.open(older, "again", 0)
    for (const other of [older, 0, generation + 1]) {
      const { ok, snapshot } = yield* a.lease(other, "probe")
      yield* expect(
        "a place is for the generation that stands",
        [ok, snapshot.generation, snapshot.control, snapshot.probing],
        [false, generation, control, 0]
      )
    }
  }),

  "is refused until the open time is over, by the store's clock": Effect.fnUntraced(function*({ circuit }: Bench) {
    const later = circuit({ suffix: "later" })
    const { snapshot: { generation: open } } = yield* later.open(0, "open", long)
    const refused = yield* later.lease(open, "probe")
    yield* expect("there is no place before `until`", [refused.ok, refused.snapshot.probing], [false, 0])

    const soon = circuit({ suffix: "soon" })
    const { snapshot: opened } = yield* soon.open(0, "open", short)
    const until = yield* untilOf(opened)
    for (const at of [opened.now, until - 1, until]) {
      yield* soon.waitUntil(at)
      const { ok, snapshot } = yield* soon.lease(opened.generation, "probe")
      yield* expect("there is a place from `until` on", [ok, snapshot.now], [snapshot.now >= until, snapshot.now])
    }
  }),

  "is granted at once where the open time is nothing": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const { ok, snapshot } = yield* a.lease(yield* a.halfOpen, "probe")
    yield* expect("a lease is a place", [ok, snapshot.probing], [true, 1])
    yield* expect("that lapses after `ttlMillis`", snapshot.leaseMillis, long)
  }),

  "is for as many as live or have answered": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.halfOpen
    const ask = (id: string) => Effect.map(a.lease(generation, id, { limit: 3 }), ({ ok }) => ok)
    yield* expect("fewer than `limit` may live", [yield* ask("1"), yield* ask("2"), yield* ask("3")], [
      true,
      true,
      true
    ])
    yield* expect("and not one more", yield* ask("4"), false)
    yield* a.record(generation, "0", "1")
    yield* expect("who has answered keeps its place", yield* ask("4"), false)
    yield* a.record(generation, "", "2")
    yield* expect("who leaves without an answer does not", [yield* ask("4"), yield* ask("5")], [true, false])
    yield* a.record(generation, "X", "3")
    yield* a.record(generation, "X", "4")
    yield* expect("`limit` outcomes end a round", yield* ask("5"), false)
    const more = yield* a.lease(generation, "5", { limit: 4 })
    yield* expect("`limit` is the caller's", more.ok, true)
  }),

  "is renewed by its id, and takes no second place": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.halfOpen
    yield* a.lease(generation, "probe", { ttlMillis: short })
    const { ok, snapshot } = yield* a.lease(generation, "probe", { ttlMillis: long })
    yield* expect(
      "asked again with an id that lives, it renews that lease",
      [ok, snapshot.probing, snapshot.leaseMillis],
      [true, 1, long]
    )
    yield* expect("the place is still one", (yield* a.lease(generation, "other")).ok, false)
    yield* a.waitUntil(snapshot.now + 2 * short)
    const { ok: counts } = yield* a.record(generation, "0", "probe")
    yield* expect("a lease that was renewed lives longer", counts, true)
  }),

  "lapses when its time is over": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.halfOpen
    const { snapshot: granted } = yield* a.lease(generation, "probe", { ttlMillis: short })
    const lapsesAt = granted.now + granted.leaseMillis
    for (const at of [granted.now, lapsesAt - 1, lapsesAt]) {
      const { leaseMillis, now, probing } = yield* a.waitUntil(at)
      yield* expect(
        "a lease lives until its time is over, and `leaseMillis` says how long",
        { now, probing, leaseMillis },
        now < lapsesAt ? { now, probing: 1, leaseMillis: lapsesAt - now } : { now, probing: 0, leaseMillis: 0 }
      )
    }
    const { ok, snapshot } = yield* a.lease(generation, "other")
    yield* expect("its place is free then", [ok, snapshot.probing], [true, 1])
    const { ok: anew } = yield* a.lease(generation, "probe")
    yield* expect("also for its former holder, who comes too late", anew, false)
  }),

  "is held until its own end, not until another's": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.halfOpen
    yield* a.lease(generation, "long", { limit: 2 })
    const { snapshot: both } = yield* a.lease(generation, "short", { limit: 2, ttlMillis: short })
    yield* expectThat(
      "`leaseMillis` is the time until the next of them lapses",
      both.leaseMillis <= short,
      both.leaseMillis,
      `at most ${short}`
    )
    yield* a.waitUntil(both.now + both.leaseMillis)
    const { ok, snapshot } = yield* a.lease(generation, "next", { limit: 2 })
    yield* expect("one lapses, the other lives", [ok, snapshot.probing], [true, 2])
    const third = yield* a.lease(generation, "third", { limit: 2 })
    yield* expect("and holds its place", third.ok, false)
  }),

  "is one, through whatever window": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit({ window: ring(5) })
    const b = a.through(ring(6))
    const generation = yield* a.halfOpen
    yield* a.lease(generation, "probe")
    const { ok, snapshot } = yield* b.lease(generation, "other")
    yield* expect("leases belong to the control", [ok, snapshot.probing], [false, 1])
  })
}
