import type { Bucket, Window } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import { type CheckBodies, type Fixture, ring, short } from "./check.ts"
import { expect, expectThat, long } from "../frame.ts"

/** Every sample: each weight, fast and slow. */
const everySample = Array.from({ length: 42 }, (_, code) => String.fromCharCode(48 + code)).join("")

/** Far above the generations of today, and a safe integer. */
const futureGeneration = 5_000_000_000_000_000

export const record: CheckBodies = {
  "a record makes a missing circuit and counts in it": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const { ok, snapshot } = yield* a.record(0, "X")
    yield* expect("the first sample makes the circuit and counts", [ok, snapshot.evidence.ring], [true, "X"])
    const { generation } = snapshot
    yield* expectThat(
      "a circuit has a generation",
      Number.isSafeInteger(generation) && generation > 0,
      generation,
      "an integer above 0"
    )
    yield* expect("a circuit starts closed", { ...snapshot.control, since: 0 }, {
      _tag: "Closed",
      since: 0,
      until: 0,
      openings: 0,
      lastOpen: 0,
      reason: "",
      by: ""
    })
  }),

  "a record makes an evicted circuit again and counts in it, whatever its generation was": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      for (const [suffix, former] of [["past", 3], ["future", futureGeneration]] as const) {
        const a = circuit({ suffix })
        const { ok, snapshot } = yield* a.record(former, "X")
        yield* expect("the first failure after an eviction is not lost", [ok, snapshot.evidence.ring], [true, "X"])
        yield* expectThat(
          "the next generation is greater than any that the key had",
          snapshot.generation > former,
          snapshot.generation,
          `more than ${former}`
        )
        const next = yield* a.record(snapshot.generation, "0")
        yield* expect("samples of the new generation count", [next.ok, next.snapshot.evidence.ring], [true, "X0"])
        const late = yield* a.record(former, "0")
        yield* expect("samples of the old generation no longer count", [late.ok, late.snapshot.evidence.ring], [
          false,
          "X0"
        ])
      }
    }
  ),

  "the ring keeps the last outcomes, oldest first": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit({ window: ring(5) })
    const rings: Array<string> = []
    for (const samples of ["0X", "D", "1Y", "X", "0D0D", "X10DYX0"]) {
      rings.push((yield* a.record(0, samples)).snapshot.evidence.ring)
    }
    const expected = ["0X", "0XD", "0XD1Y", "XD1YX", "X0D0D", "0DYX0"]
    yield* expect("`ring` has the last `calls` outcomes, oldest first", rings, expected)
  }),

  "the ring keeps up to 1,000 samples of every weight": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit({ window: { calls: 1_000, bucketMillis: long, buckets: 3 } })
    let last = ""
    const batch = everySample.repeat(5)
    for (let i = 0; i < 6; i++) {
      const { snapshot } = yield* a.record(0, batch)
      last = (last + batch).slice(-1_000)
      yield* expect("`ring` holds up to 1,000 outcomes of every weight", snapshot.evidence.ring, last)
    }
    const { evidence: { wheel } } = yield* a.read
    const sum = (count: (bucket: Bucket) => number) => wheel.reduce((sum, bucket) => sum + count(bucket), 0)
    yield* expect(
      "the wheel counts calls, weights in twentieths, and slow calls",
      [sum(({ calls }) => calls), sum(({ failures }) => failures), sum(({ slow }) => slow)],
      [30 * 42, 30 * 2 * 210, 30 * 21]
    )
  }),

  "a window of 0 calls has no ring, and a window of 0 buckets has no wheel": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const wheel = yield* circuit({ window: { calls: 0, bucketMillis: long, buckets: 2 } }).record(0, "X0")
      yield* expect("a ring of 0 calls is empty", wheel.snapshot.evidence.ring, "")
      yield* expect("the wheel counts although the ring is empty", wheel.snapshot.evidence.wheel.length, 1)
      const none = yield* circuit({ window: ring(0) }).record(0, "X0")
      yield* expect("a window of 0 calls and 0 buckets has no evidence", none.snapshot.evidence, {
        ring: "",
        wheel: []
      })
    }
  ),

  "each bucket sums the outcomes of its stretch of time": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const window = { calls: 3, bucketMillis: short, buckets: 1_000 }
    const a = circuit({ window })
    const wheel = new Wheel(window)
    const batches = [["X", 1, 20, 0], ["1", 1, 0, 1], ["DD", 2, 20, 0], ["Y0:", 3, 25, 1], ["0000", 4, 0, 0]] as const
    for (const [samples, calls, failures, slow] of batches) {
      for (let twice = 0; twice < 2; twice++) {
        const { snapshot } = yield* a.record(0, samples)
        wheel.add(snapshot.now, { calls, failures, slow })
        yield* expect(
          "a bucket starts at a multiple of the width, and sums calls, weights and slow calls",
          snapshot.evidence.wheel,
          wheel.at(snapshot.now)
        )
        yield* a.waitUntil(snapshot.now + 10)
      }
    }
  }),

  "buckets that are older than the window are dropped": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const window = { calls: 3, bucketMillis: short, buckets: 3 }
    const a = circuit({ window })
    const wheel = new Wheel(window)
    for (let i = 0; i < 3; i++) {
      const { snapshot: { now } } = yield* a.record(0, "X")
      wheel.add(now, { calls: 1, failures: 20, slow: 0 })
      yield* a.waitUntil((Math.floor(now / short) + 1) * short)
    }
    for (let snapshot = yield* a.read; wheel.at(snapshot.now).length > 0;) {
      const next = (Math.floor(snapshot.now / short) + 1) * short
      for (const at of [next - 1, next]) {
        snapshot = yield* a.waitUntil(at)
        yield* expect(
          "the window's number of buckets is kept, including the newest",
          snapshot.evidence.wheel,
          wheel.at(snapshot.now)
        )
      }
    }
    const { snapshot } = yield* a.record(0, "0")
    wheel.add(snapshot.now, { calls: 1, failures: 0, slow: 0 })
    yield* expect("dropped buckets do not come back", snapshot.evidence.wheel, wheel.at(snapshot.now))
    yield* expect("samples stay in the ring, however old they are", snapshot.evidence.ring, "XX0")
  }),

  "every window has its own evidence, under a shared control": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit({ window: ring(5) })
    const others = [
      ring(6),
      { calls: 5, bucketMillis: long, buckets: 2 },
      { calls: 5, bucketMillis: long, buckets: 3 },
      {
        calls: 5,
        bucketMillis: long + 1,
        buckets: 3
      }
    ].map((window) => a.withWindow(window))
    const { snapshot: { generation } } = yield* a.record(0, "XXX")
    for (const other of others) {
      const snapshot = yield* other.read
      yield* expect("windows share the control", snapshot.generation, generation)
      yield* expect("evidence of another window is not visible", snapshot.evidence, { ring: "", wheel: [] })
      yield* expect(
        "samples count in the window of the record",
        (yield* other.record(generation, "0")).snapshot.evidence.ring,
        "0"
      )
    }
    yield* expect("samples of other windows do not count", (yield* a.read).evidence.ring, "XXX")
  }),

  "samples of generation 0 count until the first transition": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    yield* a.record(0, "0")
    const second = yield* a.record(0, "X")
    yield* expect("a call that found no circuit counts in the one that was made since", [
      second.ok,
      second.snapshot.evidence.ring
    ], [
      true,
      "0X"
    ])
    let { generation } = second.snapshot
    const moves = [
      () => a.open(generation, "open", long),
      () => a.force(generation, "force", "ObserveOnly"),
      () => a.close(generation, "close")
    ]
    for (const move of moves) {
      const { snapshot } = yield* move()
      generation = snapshot.generation
      const late = yield* a.record(0, "X")
      yield* expect("samples of generation 0 do not count after a transition", [late.ok, late.snapshot.evidence.ring], [
        false,
        ""
      ])
    }
    const { ok, snapshot } = yield* a.record(generation, "0")
    yield* expect("samples of the current generation count", [ok, snapshot.evidence.ring], [true, "0"])
  }),

  "samples of an older generation do not count, and the answer shows the current circuit": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const a = circuit()
      const older = yield* a.makeClosed
      const { snapshot: closed } = yield* a.close(older, "close")
      yield* a.record(closed.generation, "0")
      const late = yield* a.record(older, "X")
      yield* expect("samples of an older generation do not count", late.ok, false)
      yield* expect(
        "the answer shows the current circuit",
        [late.snapshot.generation, late.snapshot.control, late.snapshot.evidence.ring],
        [closed.generation, closed.control, "0"]
      )
      const newer = yield* a.record(closed.generation + 1, "X")
      yield* expect("samples of a generation that does not exist do not count", [
        newer.ok,
        newer.snapshot.evidence.ring
      ], [false, "0"])
    }
  ),

  "samples without a lease do not count in an open circuit": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const { snapshot: { generation } } = yield* a.open(0, "open", long)
    const open = yield* a.record(generation, "X")
    yield* expect("samples do not count while the circuit is open", [open.ok, open.snapshot.evidence.ring], [false, ""])
    const b = circuit({ suffix: "b" })
    const halfOpen = yield* b.record(yield* b.makeHalfOpen, "0")
    yield* expect("samples without a lease do not count while the circuit is half-open", [
      halfOpen.ok,
      halfOpen.snapshot.evidence.ring
    ], [false, ""])
  }),

  "samples count in a forced circuit, unless it is Disabled": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    let generation = 0
    for (const [mode, counts] of [["ForcedClosed", true], ["Disabled", false], ["ObserveOnly", true]] as const) {
      const { snapshot: forced } = yield* a.force(generation, mode, mode)
      generation = forced.generation
      const { ok, snapshot } = yield* a.record(generation, "X")
      yield* expect(
        `samples ${counts ? "count" : "do not count"} in \`${mode}\``,
        [ok, snapshot.evidence.ring],
        counts ? [true, "X"] : [false, ""]
      )
    }
  }),

  "samples count during a ramp": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const target = { _tag: "Closed", rampMillis: long, openings: 2, lastOpen: 1_000, reason: "" } as const
    const { snapshot: { generation } } = yield* a.transition(0, "close", target)
    const { ok, snapshot } = yield* a.record(generation, "X")
    yield* expect("a circuit that ramps up is closed", [ok, snapshot.evidence.ring], [true, "X"])
  }),

  "the outcome of a probe counts once and frees its slot": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeHalfOpen
    yield* a.lease(generation, "probe")
    const first = yield* a.record(generation, "X", "probe")
    yield* expect(
      "the outcome of a probe counts, and its lease is freed",
      [first.ok, first.snapshot.evidence.ring, first.snapshot.probing, first.snapshot.leaseMillis],
      [true, "X", 0, 0]
    )
    const repeated = yield* a.record(generation, "X", "probe")
    yield* expect("a repeated outcome does not count", [repeated.ok, repeated.snapshot.evidence.ring], [false, "X"])
    const unknown = yield* a.record(generation, "X", "unknown")
    yield* expect("an outcome with an unknown lease does not count", [unknown.ok, unknown.snapshot.evidence.ring], [
      false,
      "X"
    ])
  }),

  "a probe without samples frees its slot": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeHalfOpen
    yield* a.lease(generation, "one", { limit: 2 })
    yield* a.lease(generation, "two", { limit: 2 })
    const { snapshot } = yield* a.record(generation, "", "one")
    yield* expect(
      "empty samples free this lease only",
      [snapshot.evidence.ring, snapshot.probing],
      ["", 1]
    )
    const next = yield* a.lease(generation, "three", { limit: 2 })
    yield* expect("the slot is free for the next probe", [next.ok, next.snapshot.probing], [true, 2])
  }),

  "the outcome of an expired lease does not count": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeHalfOpen
    const { snapshot: { leaseMillis, now } } = yield* a.lease(generation, "probe", { ttlMillis: short })
    yield* a.waitUntil(now + leaseMillis)
    const { ok, snapshot } = yield* a.record(generation, "0", "probe")
    yield* expect("samples count only while their lease is live", [ok, snapshot.evidence.ring], [false, ""])
  }),

  "the outcome of a probe of an older generation does not count, and frees its slot": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const a = circuit()
      const older = yield* a.makeHalfOpen
      yield* a.lease(older, "probe")
      const { snapshot: reopened } = yield* a.open(older, "again", 0)
      const { ok, snapshot } = yield* a.record(older, "0", "probe")
      yield* expect(
        "the lease is freed, and its samples do not count",
        [ok, snapshot.generation, snapshot.evidence.ring, snapshot.probing],
        [false, reopened.generation, "", 0]
      )
    }
  ),

  "the outcome of a probe does not count in a missing circuit": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const { ok, snapshot } = yield* circuit().record(7, "X", "probe")
    yield* expect("an unknown lease is not live", [ok, snapshot.evidence.ring], [false, ""])
  })
}

/** The expected buckets of a window. */
class Wheel {
  private readonly window: Window
  private buckets: ReadonlyArray<Bucket> = []

  constructor(window: Window) {
    this.window = window
  }

  add(now: number, counted: Omit<Bucket, "at">): void {
    const at = this.startOf(now)
    const known = this.buckets.find((bucket) => bucket.at === at) ?? { at, calls: 0, failures: 0, slow: 0 }
    this.buckets = [...this.buckets.filter((bucket) => bucket !== known), {
      at,
      calls: known.calls + counted.calls,
      failures: known.failures + counted.failures,
      slow: known.slow + counted.slow
    }]
  }

  at(now: number): ReadonlyArray<Bucket> {
    const { bucketMillis, buckets } = this.window
    return this.buckets.filter(({ at }) => this.startOf(now) - at < buckets * bucketMillis)
  }

  private startOf(now: number): number {
    return Math.floor(now / this.window.bucketMillis) * this.window.bucketMillis
  }
}
