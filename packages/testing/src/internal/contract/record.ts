import type { Bucket, Window } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import { type Bench, type Bodies, expect, expectThat, long, ring, short } from "./check.ts"

/** All samples there are: every weight, at once and slow. */
const everySample = Array.from({ length: 42 }, (_, code) => String.fromCharCode(48 + code)).join("")

/** Far above what any clock gives now, and far below what a number can hold. */
const ofTheFuture = 5_000_000_000_000_000

export const record: Bodies = {
  "makes a circuit that is not there, and counts": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const { ok, snapshot } = yield* a.record(0, "X")
    yield* expect("the first sample makes a circuit, and counts", [ok, snapshot.evidence.ring], [true, "X"])
    const { generation } = snapshot
    yield* expectThat(
      "a circuit that is there has a generation",
      Number.isSafeInteger(generation) && generation > 0,
      generation,
      "a whole number above 0"
    )
    yield* expect("a circuit begins closed", { ...snapshot.control, since: 0 }, {
      _tag: "Closed",
      since: 0,
      until: 0,
      openings: 0,
      lastOpen: 0,
      reason: "",
      by: ""
    })
  }),

  "makes a circuit that was forgotten, and counts, whatever generation it had": Effect.fnUntraced(
    function*({ circuit }: Bench) {
      for (const [suffix, former] of [["past", 3], ["future", ofTheFuture]] as const) {
        const a = circuit({ suffix })
        const { ok, snapshot } = yield* a.record(former, "X")
        yield* expect("after an expiry the first failure is not lost", [ok, snapshot.evidence.ring], [true, "X"])
        yield* expectThat(
          "the next generation is greater than any that the key had before",
          snapshot.generation > former,
          snapshot.generation,
          `more than ${former}`
        )
        const next = yield* a.record(snapshot.generation, "0")
        yield* expect("and counts under that one", [next.ok, next.snapshot.evidence.ring], [true, "X0"])
        const late = yield* a.record(former, "0")
        yield* expect("but no more under the former", [late.ok, late.snapshot.evidence.ring], [false, "X0"])
      }
    }
  ),

  "keeps the last outcomes, oldest first": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit({ window: ring(5) })
    const rings: Array<string> = []
    for (const samples of ["0X", "D", "1Y", "X", "0D0D", "X10DYX0"]) {
      rings.push((yield* a.record(0, samples)).snapshot.evidence.ring)
    }
    const expected = ["0X", "0XD", "0XD1Y", "XD1YX", "X0D0D", "0DYX0"]
    yield* expect("`ring` has the last `calls` outcomes, oldest first", rings, expected)
  }),

  "keeps every sample as it is, up to a thousand": Effect.fnUntraced(function*({ circuit }: Bench) {
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

  "keeps no ring where no calls are asked for, and no wheel where no buckets are": Effect.fnUntraced(
    function*({ circuit }: Bench) {
      const wheel = yield* circuit({ window: { calls: 0, bucketMillis: long, buckets: 2 } }).record(0, "X0")
      yield* expect("a ring of 0 calls is empty", wheel.snapshot.evidence.ring, "")
      yield* expect("beside it the wheel turns", wheel.snapshot.evidence.wheel.length, 1)
      const none = yield* circuit({ window: ring(0) }).record(0, "X0")
      yield* expect("a window of nothing holds nothing", none.snapshot.evidence, { ring: "", wheel: [] })
    }
  ),

  "sums what happens in each stretch of time": Effect.fnUntraced(function*({ circuit }: Bench) {
    const window = { calls: 3, bucketMillis: short, buckets: 1_000 }
    const a = circuit({ window })
    const wheel = new Wheel(window)
    const batches = [["X", 1, 20, 0], ["1", 1, 0, 1], ["DD", 2, 20, 0], ["Y0:", 3, 25, 1], ["0000", 4, 0, 0]] as const
    for (const [samples, calls, failures, slow] of batches) {
      for (let twice = 0; twice < 2; twice++) {
        const { snapshot } = yield* a.record(0, samples)
        wheel.add(snapshot.now, { calls, failures, slow })
        yield* expect(
          "a bucket begins at a multiple of the width, and sums calls, weights and slow calls",
          snapshot.evidence.wheel,
          wheel.at(snapshot.now)
        )
        yield* a.waitUntil(snapshot.now + 10)
      }
    }
  }),

  "drops what is older than the window, stretch by stretch": Effect.fnUntraced(function*({ circuit }: Bench) {
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
          "as many buckets are kept as the window says, the newest included",
          snapshot.evidence.wheel,
          wheel.at(snapshot.now)
        )
      }
    }
    const { snapshot } = yield* a.record(0, "0")
    wheel.add(snapshot.now, { calls: 1, failures: 0, slow: 0 })
    yield* expect("and what is too old does not come back", snapshot.evidence.wheel, wheel.at(snapshot.now))
    yield* expect("the ring does not age", snapshot.evidence.ring, "XX0")
  }),

  "keeps apart what different windows look at, under one control": Effect.fnUntraced(function*({ circuit }: Bench) {
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
    ].map((window) => a.through(window))
    const { snapshot: { generation } } = yield* a.record(0, "XXX")
    for (const other of others) {
      const snapshot = yield* other.read
      yield* expect("the control is shared", snapshot.generation, generation)
      yield* expect("the window is part of the evidence's address", snapshot.evidence, { ring: "", wheel: [] })
      yield* expect(
        "each window has its own",
        (yield* other.record(generation, "0")).snapshot.evidence.ring,
        "0"
      )
    }
    yield* expect("no window spoils another's", (yield* a.read).evidence.ring, "XXX")
  }),

  "counts under generation 0 until the circuit moves": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    yield* a.record(0, "0")
    const fresh = yield* a.record(0, "X")
    yield* expect("who found no circuit counts in the one made since", [fresh.ok, fresh.snapshot.evidence.ring], [
      true,
      "0X"
    ])
    let { generation } = fresh.snapshot
    const moves = [
      () => a.open(generation, "open", long),
      () => a.force(generation, "force", "ObserveOnly"),
      () => a.close(generation, "close")
    ]
    for (const move of moves) {
      const { snapshot } = yield* move()
      generation = snapshot.generation
      const late = yield* a.record(0, "X")
      yield* expect("as long as it has not moved", [late.ok, late.snapshot.evidence.ring], [false, ""])
    }
    const { ok, snapshot } = yield* a.record(generation, "0")
    yield* expect("while the generation that stands counts", [ok, snapshot.evidence.ring], [true, "0"])
  }),

  "counts nothing of an older generation, and says what stands": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const older = yield* a.fresh
    const { snapshot: closed } = yield* a.close(older, "close")
    yield* a.record(closed.generation, "0")
    const late = yield* a.record(older, "X")
    yield* expect("what was admitted under an older generation counts nowhere", late.ok, false)
    yield* expect(
      "the answer says what stands",
      [late.snapshot.generation, late.snapshot.control, late.snapshot.evidence.ring],
      [closed.generation, closed.control, "0"]
    )
    const newer = yield* a.record(closed.generation + 1, "X")
    yield* expect("nor does what no generation admitted", [newer.ok, newer.snapshot.evidence.ring], [false, "0"])
  }),

  "counts nothing without a lease in an open circuit": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const { snapshot: { generation } } = yield* a.open(0, "open", long)
    const open = yield* a.record(generation, "X")
    yield* expect("nothing counts while it is open", [open.ok, open.snapshot.evidence.ring], [false, ""])
    const b = circuit({ suffix: "b" })
    const halfOpen = yield* b.record(yield* b.halfOpen, "0")
    yield* expect("nor once its time is over", [halfOpen.ok, halfOpen.snapshot.evidence.ring], [false, ""])
  }),

  "counts in a forced circuit, unless it is disabled": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    let generation = 0
    for (const [mode, counts] of [["ForcedClosed", true], ["Disabled", false], ["ObserveOnly", true]] as const) {
      const { snapshot: forced } = yield* a.force(generation, mode, mode)
      generation = forced.generation
      const { ok, snapshot } = yield* a.record(generation, "X")
      yield* expect(`outcomes in \`${mode}\``, [ok, snapshot.evidence.ring], counts ? [true, "X"] : [false, ""])
    }
  }),

  "counts in a circuit whose ramp goes on": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const target = { _tag: "Closed", rampMillis: long, openings: 2, lastOpen: 1_000, reason: "" } as const
    const { snapshot: { generation } } = yield* a.transition(0, "close", target)
    const { ok, snapshot } = yield* a.record(generation, "X")
    yield* expect("a ramp is closed", [ok, snapshot.evidence.ring], [true, "X"])
  }),

  "counts a probe once, and frees its place": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.halfOpen
    yield* a.lease(generation, "probe")
    const first = yield* a.record(generation, "X", "probe")
    yield* expect(
      "a probe's outcome counts, and its lease is freed",
      [first.ok, first.snapshot.evidence.ring, first.snapshot.probing, first.snapshot.leaseMillis],
      [true, "X", 0, 0]
    )
    const repeated = yield* a.record(generation, "X", "probe")
    yield* expect("a repeat counts nothing", [repeated.ok, repeated.snapshot.evidence.ring], [false, "X"])
    const unknown = yield* a.record(generation, "X", "unknown")
    yield* expect("nor does who has no lease", [unknown.ok, unknown.snapshot.evidence.ring], [false, "X"])
  }),

  "frees a probe's place without samples": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.halfOpen
    yield* a.lease(generation, "one", { limit: 2 })
    yield* a.lease(generation, "two", { limit: 2 })
    const { snapshot } = yield* a.record(generation, "", "one")
    yield* expect(
      "no samples only free the lease, and only that one",
      [snapshot.evidence.ring, snapshot.probing],
      ["", 1]
    )
    const next = yield* a.lease(generation, "three", { limit: 2 })
    yield* expect("the place is for the next one", [next.ok, next.snapshot.probing], [true, 2])
  }),

  "counts nothing of a probe whose lease has lapsed": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.halfOpen
    const { snapshot: { leaseMillis, now } } = yield* a.lease(generation, "probe", { ttlMillis: short })
    yield* a.waitUntil(now + leaseMillis)
    const { ok, snapshot } = yield* a.record(generation, "0", "probe")
    yield* expect("with a lease they count while it lives", [ok, snapshot.evidence.ring], [false, ""])
  }),

  "counts nothing of a probe of an older generation, and frees its place": Effect.fnUntraced(
    function*({ circuit }: Bench) {
      const a = circuit()
      const older = yield* a.halfOpen
      yield* a.lease(older, "probe")
      const { snapshot: reopened } = yield* a.open(older, "again", 0)
      const { ok, snapshot } = yield* a.record(older, "0", "probe")
      yield* expect(
        "a lease is freed in any case, and counts only if the generation stands",
        [ok, snapshot.generation, snapshot.evidence.ring, snapshot.probing],
        [false, reopened.generation, "", 0]
      )
    }
  ),

  "counts nothing of a probe of a circuit that is not there": Effect.fnUntraced(function*({ circuit }: Bench) {
    const { ok, snapshot } = yield* circuit().record(7, "X", "probe")
    yield* expect("a lease that is forgotten does not live", [ok, snapshot.evidence.ring], [false, ""])
  })
}

/** What the buckets of a window should hold. */
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
