/** The parts of a worker by themselves, on the clock of the test. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Logger, Schema } from "effect"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import { TestClock } from "effect/testing"
import type { Waiting } from "../src/Batch.ts"
import * as Persist from "../src/internal/persist.ts"
import * as Gate from "../src/internal/worker/gate.ts"
import { Held } from "../src/internal/worker/held.ts"
import { rangesOf } from "../src/internal/worker/tickets.ts"
import * as Writer from "../src/internal/writer.ts"

const away = new SqlError({ reason: new UnknownError({ cause: new Error("away") }) })

interface Row {
  readonly id: number
  readonly bytes: number
}

/** A writer to a database that fails the first `failures` statements. */
const writer = (failures = 0) => {
  const groups: Array<ReadonlyArray<Row>> = []
  let left = failures
  const made = Writer.make<Row>({
    store: (rows) =>
      Effect.suspend(() => {
        if (left-- > 0) return Effect.fail(away)
        groups.push(rows)
        return Effect.void
      }),
    bytesOf: ({ bytes }) => bytes,
    persist: Persist.make()
  })
  return { groups, made }
}

const rowsOf = (bytes: ReadonlyArray<number>): ReadonlyArray<Row> => bytes.map((bytes, id) => ({ id, bytes }))

const writeAll = (rows: ReadonlyArray<Row>, failures = 0) =>
  Effect.gen(function*() {
    const { groups, made } = writer(failures)
    const { write } = yield* made
    const writing = yield* Effect.forkChild(Effect.forEach(rows, write, { concurrency: "unbounded", discard: true }))
    yield* TestClock.adjust("1 minute")
    yield* Fiber.join(writing)
    return groups
  }).pipe(Effect.scoped)

describe("the writer of results", () => {
  it.effect.prop(
    "stores each row once, in order, in groups within the bounds",
    {
      bytes: Schema.Array(Schema.Literals([0, 1, 1_000, 2 ** 20, 5 * 2 ** 20])).check(Schema.isMaxLength(60)),
      failures: Schema.Literals([0, 1, 3])
    },
    ({ bytes, failures }) =>
      Effect.map(writeAll(rowsOf(bytes), failures), (groups) => {
        assert.deepStrictEqual(groups.flat().map(({ id }) => id), bytes.map((_, id) => id))
        for (const group of groups) {
          const size = group.reduce((sum, row) => sum + row.bytes, 0)
          assert.isTrue(group.length === 1 || size <= 4 * 2 ** 20)
        }
      })
  )

  it.effect("groups what comes within 20 ms, at most 2,000 rows", () =>
    Effect.map(writeAll(rowsOf(Array.from({ length: 4_500 }, () => 1))), (groups) => {
      assert.deepStrictEqual(groups.map(({ length }) => length), [2_000, 2_000, 500])
    }))

  it.effect("a write waits until its row is stored, however long the database is away", () =>
    Effect.gen(function*() {
      const { groups, made } = writer(100)
      const { write } = yield* made
      const writing = yield* Effect.forkChild(write({ id: 1, bytes: 1 }))
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(writing.pollUnsafe())
      assert.deepStrictEqual(groups, [])
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(writing)
      assert.strictEqual(groups.length, 1)
    }).pipe(Effect.scoped))
})

describe("warnings of the database", () => {
  it.effect("come once in ten seconds, and without what it says", () =>
    Effect.gen(function*() {
      const logged: Array<unknown> = []
      const warn = Persist.warn("Batches could not be fed")
      yield* Effect.gen(function*() {
        for (let failed = 0; failed < 100; failed++) {
          yield* warn(away)
          yield* TestClock.adjust(200)
        }
      }).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => void logged.push(message))])))
      const line = ["Batches could not be fed (UnknownError). Trying again"]
      assert.deepStrictEqual(logged, [line, line])
    }))
})

describe("the gate", () => {
  const passes = (gate: Gate.Gate, count: number) =>
    Effect.gen(function*() {
      let passed = 0
      const one = Effect.andThen(gate.pass, Effect.sync(() => passed += 1))
      yield* Effect.forkChild(Effect.forEach(Array.from({ length: count }), () => one, { concurrency: "unbounded" }))
      yield* Effect.yieldNow
      return () => passed
    })

  it.effect("holds back calls while the asker waits, and lets them return spread over time", () =>
    Effect.gen(function*() {
      let waiting: { readonly for: string; readonly until: undefined } | undefined
      const changes: Array<boolean> = []
      const asker = { ask: () => Effect.never, waiting: Effect.sync(() => waiting) }
      const gate = yield* Gate.make(asker, (isOpen) => changes.push(isOpen))
      assert.strictEqual((yield* passes(gate, 10))(), 10)
      waiting = { for: "the circuit", until: undefined }
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(gate.waiting(), waiting)
      const passed = yield* passes(gate, 100)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(passed(), 0)
      waiting = undefined
      yield* TestClock.adjust(100)
      yield* TestClock.adjust(99)
      assert.strictEqual(passed(), 0)
      yield* TestClock.adjust(101)
      assert.isAbove(passed(), 10)
      assert.isBelow(passed(), 90)
      yield* TestClock.adjust(100)
      assert.strictEqual(passed(), 100)
      assert.deepStrictEqual(changes, [false, true])
    }).pipe(Effect.scoped))

  it.effect("a defect of the asker lets calls start, and is logged once", () =>
    Effect.gen(function*() {
      let waiting: Effect.Effect<Waiting | undefined> = Effect.succeed({ for: "the circuit", until: undefined })
      const logged: Array<unknown> = []
      const log = Logger.layer([Logger.make(({ message }) => void logged.push(message))])
      yield* Effect.gen(function*() {
        const gate = yield* Gate.make({ ask: () => Effect.never, waiting: Effect.suspend(() => waiting) }, () => {})
        const passed = yield* passes(gate, 10)
        waiting = Effect.die("a fault")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(passed(), 10)
        waiting = Effect.succeed({ for: "the circuit", until: undefined })
        yield* TestClock.adjust(100)
        assert.isDefined(gate.waiting())
      }).pipe(Effect.provide(log))
      assert.strictEqual(logged.length, 1)
    }).pipe(Effect.scoped))

  it.effect("calls wait again if the asker waits again before they return", () =>
    Effect.gen(function*() {
      let waiting: { readonly for: string; readonly until: undefined } | undefined = { for: "x", until: undefined }
      const gate = yield* Gate.make({ ask: () => Effect.never, waiting: Effect.sync(() => waiting) }, () => {})
      const passed = yield* passes(gate, 10)
      waiting = undefined
      yield* TestClock.adjust(100)
      waiting = { for: "x", until: undefined }
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(passed(), 0)
    }).pipe(Effect.scoped))
})

describe("requests that a worker gives back", () => {
  it.effect.prop(
    "are in as few ranges as there can be, without a request that runs",
    { running: Schema.Array(Schema.Literals([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])), open: Schema.Array(Schema.Boolean) },
    ({ open, running }) =>
      Effect.sync(() => {
        const runs = new Set<number>(running)
        const seqs = open.flatMap((isOpen, seq) => isOpen && !runs.has(seq) ? [seq] : [])
        const ranges = rangesOf(seqs, runs)
        const within = (seq: number) => ranges.filter(({ from, to }) => from <= seq && seq < to).length
        for (const seq of seqs) assert.strictEqual(within(seq), 1)
        for (const seq of runs) assert.strictEqual(within(seq), 0)
        // Between two ranges, a request runs.
        for (const [n, { from }] of ranges.entries()) {
          const before = ranges[n - 1]
          if (before !== undefined) assert.isTrue(Array.from(runs).some((seq) => before.to <= seq && seq < from))
        }
      })
  )
})

describe("what a worker holds", () => {
  const states = (state: "in_progress" | "cancelling", run: number) => [
    { batch: 1, run, state, interrupts: false, isSpent: false }
  ]

  it("counts requests by batch, and forgets a batch with its last ticket", () => {
    const held = new Held(4_000, 0)
    const first = held.take(1, 0, 100)
    held.take(1, 0, 50)
    held.take(2, 0, 7)
    held.add(first, -30)
    assert.strictEqual(held.requests, 127)
    assert.deepStrictEqual(Array.from(held.byBatch), [[1, 120], [2, 7]])
    held.release(first, 70)
    held.release(first, 50)
    assert.deepStrictEqual(Array.from(held.byBatch), [[2, 7]])
    assert.strictEqual(held.requests, 7)
  })

  it("its leases may have lapsed once for each time without a beat, as a call finds out that comes before the next beat", () => {
    const held = new Held(4_000, 0)
    assert.strictEqual(held.lapses(3_999), 0)
    held.beat(3_999)
    assert.strictEqual(held.lapses(7_998), 0)
    assert.strictEqual(held.lapses(20_000), 1)
    assert.strictEqual(held.lapses(20_001), 1)
    assert.strictEqual(held.lapses(24_000), 2)
  })

  it("a run is stopped by the end of its batch, by the next run, which it does not stop, or by a budget that is spent", () => {
    const held = new Held(4_000, 0)
    const old = held.take(1, 0, 10)
    held.apply(states("in_progress", 0))
    assert.isFalse(old.isStopped)
    held.apply(states("cancelling", 0))
    assert.isTrue(old.isStopped)
    const next = held.take(1, 1, 10)
    held.apply(states("in_progress", 1))
    assert.isFalse(next.isStopped)
    const frozen = held.take(3, 0, 1)
    held.apply([{ batch: 3, run: 1, state: "in_progress", interrupts: false, isSpent: false }])
    assert.isTrue(frozen.isStopped)
    const spent = held.take(4, 0, 1)
    held.apply([{ batch: 4, run: 0, state: "in_progress", interrupts: false, isSpent: true }])
    assert.isTrue(spent.isStopped)
  })
})
