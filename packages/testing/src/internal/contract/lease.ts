import type { Mode } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import { type CheckBodies, type Fixture, ring, short, untilOf } from "./check.ts"
import { expect, expectThat, long } from "../frame.ts"

const everyMode: ReadonlyArray<Mode> = ["ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"]

export const lease: CheckBodies = {
  "a lease is refused in a missing, a closed and a forced circuit": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const missing = yield* circuit({ suffix: "missing" }).lease(0, "probe")
      yield* expect(
        "a missing circuit grants no lease",
        [missing.ok, missing.snapshot.generation, missing.snapshot.probing],
        [false, 0, 0]
      )
      const a = circuit()
      let generation = yield* a.makeClosed
      const closed = yield* a.lease(generation, "probe")
      yield* expect("a closed circuit grants no lease", [closed.ok, closed.snapshot.probing], [false, 0])
      for (const mode of everyMode) {
        const forced = yield* a.force(generation, mode, mode)
        generation = forced.snapshot.generation
        const { ok, snapshot } = yield* a.lease(generation, "probe")
        yield* expect(`a circuit in mode \`${mode}\` grants no lease`, [ok, snapshot.probing], [false, 0])
      }
    }
  ),

  "a lease of another generation is refused, and the answer shows the current circuit": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const a = circuit()
      const older = yield* a.makeHalfOpen
      const { snapshot: { control, generation } } = yield* a.open(older, "again", 0)
      for (const other of [older, 0, generation + 1]) {
        const { ok, snapshot } = yield* a.lease(other, "probe")
        yield* expect(
          "a lease needs the current generation",
          [ok, snapshot.generation, snapshot.control, snapshot.probing],
          [false, generation, control, 0]
        )
      }
    }
  ),

  "a lease is refused until the open time has elapsed by the store's clock": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const later = circuit({ suffix: "later" })
      const { snapshot: { generation: open } } = yield* later.open(0, "open", long)
      const refused = yield* later.lease(open, "probe")
      yield* expect("no lease is granted before `until`", [refused.ok, refused.snapshot.probing], [false, 0])

      const soon = circuit({ suffix: "soon" })
      const { snapshot: opened } = yield* soon.open(0, "open", short)
      const until = yield* untilOf(opened)
      for (const at of [opened.now, until - 1, until]) {
        yield* soon.waitUntil(at)
        const { ok, snapshot } = yield* soon.lease(opened.generation, "probe")
        yield* expect("a lease is granted from `until` on", [ok, snapshot.now], [snapshot.now >= until, snapshot.now])
      }
    }
  ),

  "a lease is granted at once if the open time is 0": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const { ok, snapshot } = yield* a.lease(yield* a.makeHalfOpen, "probe")
    yield* expect("a lease takes a probe slot", [ok, snapshot.probing], [true, 1])
    yield* expect("the lease expires after `ttlMillis`", snapshot.leaseMillis, long)
  }),

  "live and reported probes together are at most limit": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeHalfOpen
    const request = (id: string) => Effect.map(a.lease(generation, id, { limit: 3 }), ({ ok }) => ok)
    yield* expect("`limit` leases are granted", [yield* request("1"), yield* request("2"), yield* request("3")], [
      true,
      true,
      true
    ])
    yield* expect("no more than `limit` leases are granted", yield* request("4"), false)
    yield* a.record(generation, "0", "1")
    yield* expect("a probe that has reported keeps its slot", yield* request("4"), false)
    yield* a.record(generation, "", "2")
    yield* expect("a probe without an outcome frees its slot", [yield* request("4"), yield* request("5")], [
      true,
      false
    ])
    yield* a.record(generation, "X", "3")
    yield* a.record(generation, "X", "4")
    yield* expect("no lease is granted after `limit` outcomes", yield* request("5"), false)
    const more = yield* a.lease(generation, "5", { limit: 4 })
    yield* expect("a higher `limit` grants another lease", more.ok, true)
  }),

  "a live id renews its lease and takes no second slot": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeHalfOpen
    yield* a.lease(generation, "probe", { ttlMillis: short })
    const { ok, snapshot } = yield* a.lease(generation, "probe", { ttlMillis: long })
    yield* expect(
      "a request with a live id renews its lease",
      [ok, snapshot.probing, snapshot.leaseMillis],
      [true, 1, long]
    )
    yield* expect("the renewed lease takes one slot", (yield* a.lease(generation, "other")).ok, false)
    yield* a.waitUntil(snapshot.now + 2 * short)
    const { ok: counts } = yield* a.record(generation, "0", "probe")
    yield* expect("a renewed lease is live for longer", counts, true)
  }),

  "a lease expires after ttlMillis": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeHalfOpen
    const { snapshot: granted } = yield* a.lease(generation, "probe", { ttlMillis: short })
    const expiresAt = granted.now + granted.leaseMillis
    for (const at of [granted.now, expiresAt - 1, expiresAt]) {
      const { leaseMillis, now, probing } = yield* a.waitUntil(at)
      yield* expect(
        "a lease is live until it expires, and `leaseMillis` is the time until then",
        { now, probing, leaseMillis },
        now < expiresAt ? { now, probing: 1, leaseMillis: expiresAt - now } : { now, probing: 0, leaseMillis: 0 }
      )
    }
    const { ok, snapshot } = yield* a.lease(generation, "other")
    yield* expect("the slot of an expired lease is free", [ok, snapshot.probing], [true, 1])
    const { ok: renewed } = yield* a.lease(generation, "probe")
    yield* expect("an expired lease cannot be renewed while its slot is taken", renewed, false)
  }),

  "each lease expires at its own time": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeHalfOpen
    yield* a.lease(generation, "long", { limit: 2 })
    const { snapshot: both } = yield* a.lease(generation, "short", { limit: 2, ttlMillis: short })
    yield* expectThat(
      "`leaseMillis` is the time until the next lease expires",
      both.leaseMillis <= short,
      both.leaseMillis,
      `at most ${short}`
    )
    yield* a.waitUntil(both.now + both.leaseMillis)
    const { ok, snapshot } = yield* a.lease(generation, "next", { limit: 2 })
    yield* expect("one lease has expired, the other is live", [ok, snapshot.probing], [true, 2])
    const third = yield* a.lease(generation, "third", { limit: 2 })
    yield* expect("the live lease keeps its slot", third.ok, false)
  }),

  "all windows share the leases": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit({ window: ring(5) })
    const b = a.withWindow(ring(6))
    const generation = yield* a.makeHalfOpen
    yield* a.lease(generation, "probe")
    const { ok, snapshot } = yield* b.lease(generation, "other")
    yield* expect("a lease takes its slot for every window", [ok, snapshot.probing], [false, 1])
  })
}
