import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { affordableOf, type Open, plan } from "../src/internal/plan.ts"
import { decode, encode, idOf, sizeFor, type Ticket } from "../src/internal/ticket.ts"

const whole = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Batch = Schema.Struct({
  priority: whole(-2, 2),
  weight: whole(1, 5),
  total: whole(1, 3_000),
  size: whole(1, 100),
  fed: whole(0, 3_000),
  answered: whole(0, 3_000),
  affordable: whole(-10, 200),
  isCapped: Schema.Boolean
})

const openOf = (batch: typeof Batch.Type, number: number): Open => {
  const fed = Math.min(batch.fed, batch.total)
  return {
    batch: number,
    priority: batch.priority,
    weight: batch.weight,
    total: batch.total,
    size: batch.size,
    fed,
    outstanding: fed - Math.min(batch.answered, fed),
    affordable: batch.isCapped ? batch.affordable : Infinity
  }
}

const Case = { batches: Schema.Array(Batch).check(Schema.isMaxLength(6)), window: whole(0, 2_000) }

const outstandingOf = (open: ReadonlyArray<Open>) => open.reduce((sum, { outstanding }) => sum + outstanding, 0)

/** The batches after the plan was carried out. */
const carriedOut = (open: ReadonlyArray<Open>, window: number): ReadonlyArray<Open> => {
  const grants = plan(open, window)
  return open.map((batch) => {
    const size = grants.reduce((sum, grant) => grant.batch === batch.batch ? sum + grant.to - grant.from : sum, 0)
    return {
      ...batch,
      fed: batch.fed + size,
      outstanding: batch.outstanding + size,
      affordable: batch.affordable - size
    }
  })
}

describe("plan", () => {
  it.prop("never exceeds the window by more than a ticket, nor the batch, nor its cap", Case, ({ batches, window }) => {
    const open = batches.map(openOf)
    const after = carriedOut(open, window)
    const largest = Math.max(0, ...open.map(({ size }) => size))
    assert.isAtMost(outstandingOf(after), Math.max(outstandingOf(open), window + largest - 1))
    for (const [n, { affordable, fed, total }] of after.entries()) {
      assert.isAtMost(fed, total)
      assert.isAtLeast(affordable, Math.min(0, open[n]?.affordable ?? 0))
    }
  })

  it.prop("the tickets of a batch follow each other without a gap", Case, ({ batches, window }) => {
    const open = batches.map(openOf)
    const next = new Map(open.map(({ batch, fed }) => [batch, fed]))
    for (const { batch, from, to } of plan(open, window)) {
      assert.strictEqual(from, next.get(batch))
      assert.isAbove(to, from)
      next.set(batch, to)
    }
  })

  it.prop("a second plan after the first is empty", Case, ({ batches, window }) => {
    assert.deepStrictEqual(plan(carriedOut(batches.map(openOf), window), window), [])
  })

  it.prop("a batch gets nothing while one of higher priority can take more", Case, ({ batches, window }) => {
    const open = batches.map(openOf)
    const granted = new Set(plan(open, window).map(({ batch }) => batch))
    for (const { affordable, fed, priority, total } of carriedOut(open, window)) {
      const isHungry = fed < total && affordable > 0
      if (isHungry) {
        for (const other of open) if (other.priority < priority) assert.isFalse(granted.has(other.batch))
      }
    }
  })

  it.prop(
    "batches of equal priority that can take more are within a ticket of their weights",
    Case,
    ({ batches, window }) => {
      const open = batches.map((batch, n) => ({ ...openOf({ ...batch, priority: 0, size: 10 }, n), outstanding: 0 }))
      const hungry = carriedOut(open, window).filter(({ affordable, fed, total }) => fed < total && affordable > 0)
      for (const one of hungry) {
        for (const other of hungry) {
          assert.isAtMost((one.outstanding - 10) / one.weight, other.outstanding / other.weight)
        }
      }
    }
  )

  it.prop("what is answered of batches that run side by side approaches their weights", {
    weights: Schema.Array(whole(1, 9)).check(Schema.isMinLength(2), Schema.isMaxLength(5)),
    size: whole(1, 20),
    slots: whole(50, 200)
  }, ({ size, slots, weights }) => {
    const batches = weights.map((weight, batch) => ({
      batch,
      priority: 0,
      weight,
      total: Infinity,
      size,
      fed: 0,
      outstanding: 0,
      affordable: Infinity,
      answered: 0
    }))
    // The workers answer tickets in the order in which they were handed out.
    const tickets: Array<{ readonly batch: number; left: number }> = []
    const window = Math.max(4 * slots, 10 * size * weights.reduce((sum, weight) => sum + weight, 0))
    for (let round = 0; round < 200; round++) {
      for (const { batch, from, to } of plan(batches, window)) {
        tickets.push({ batch, left: to - from })
        const of = batches[batch]
        if (of === undefined) continue
        of.fed = to
        of.outstanding += to - from
      }
      for (let n = 0; n < slots; n++) {
        const [next] = tickets
        const of = batches[next?.batch ?? -1]
        if (next === undefined || of === undefined) break
        of.answered += 1
        of.outstanding -= 1
        if (--next.left === 0) tickets.shift()
      }
    }
    const answered = batches.map(({ answered }) => answered)
    const all = answered.reduce((sum, count) => sum + count, 0)
    const weight = weights.reduce((sum, weight) => sum + weight, 0)
    for (const [n, count] of answered.entries()) {
      const share = (weights[n] ?? 0) / weight
      assert.isBelow(Math.abs(count / all - share), 0.2 * share, `${weights} ${answered}`)
    }
  })
})

describe("tickets", () => {
  const Fields = {
    batch: whole(1, 1_000_000),
    run: whole(0, 99),
    from: whole(0, 10_000_000),
    to: whole(0, 10_000_000),
    round: whole(0, 99)
  }

  it.prop("a ticket is decoded as it was encoded", Fields, (ticket) => {
    assert.deepInclude(decode(JSON.parse(JSON.stringify(encode(ticket)))), ticket)
  })

  it.prop("different tickets have different ids, which the queue takes", {
    one: Schema.Struct(Fields),
    other: Schema.Struct(Fields)
  }, ({ one, other }) => {
    const isSame = (Object.keys(Fields) as Array<keyof Ticket>).every((field) => one[field] === other[field])
    assert.strictEqual(idOf(one) === idOf(other), isSame)
    assert.isBelow(idOf(one).length, 255)
  })

  it("a ticket of another version is not decoded", () => {
    for (const other of [undefined, "x", {}, { v: 2, batch: 1, run: 0, from: 0, to: 1, round: 0 }]) {
      assert.isUndefined(decode(other))
    }
  })

  it("the size of a ticket is bounded by the batch, the option and the bytes of the requests", () => {
    const kib = 2 ** 10
    for (
      const [total, each, size] of [
        [1, 100, 1],
        [500, 100, 7],
        [6_400, 100, 100],
        [1_000_000, 100, 100],
        [1_000_000, 40 * kib, 100],
        [1_000_000, 64 * kib, 64],
        [1_000_000, kib * kib, 4]
      ] as const
    ) assert.strictEqual(sizeFor({ total, bytes: total * each }, 100), size)
    assert.strictEqual(sizeFor({ total: 0, bytes: 0 }, 100), 1)
  })
})

describe("affordableOf", () => {
  const nothing = { capMicros: 100, estimateMicros: 0, failed: 0, maxMicros: 0, micros: 0, ok: 0 }
  const cases: ReadonlyArray<readonly [string, Parameters<typeof affordableOf>[0], number, number]> = [
    ["everything without a cap", { ...nothing, capMicros: undefined }, 7, Infinity],
    ["one request while no cost is known", nothing, 0, 1],
    ["none beside the first request", nothing, 1, 0],
    ["one more than have failed", { ...nothing, failed: 3 }, 0, 4],
    ["everything if answers are free", { ...nothing, ok: 1 }, 7, Infinity],
    ["what fits by the estimate", { ...nothing, estimateMicros: 30 }, 1, 2],
    ["what fits by the dearest answer", { ...nothing, estimateMicros: 10, maxMicros: 40, micros: 20, ok: 1 }, 0, 2],
    ["nothing when the cap is spent", { ...nothing, micros: 100, maxMicros: 100, ok: 1 }, 0, 0],
    ["nothing under a cap of 0", { ...nothing, capMicros: 0 }, 0, 0]
  ]
  for (const [title, batch, outstanding, affordable] of cases) {
    it(`a batch can afford ${title}`, () => assert.strictEqual(affordableOf(batch, outstanding), affordable))
  }
})
