/** Random interleavings: a sum is that of the held and the settled amounts in its window, however the calls end. */
import * as Quota from "@sluice/core/Quota"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Window } from "../src/internal/quota/counter.ts"
import { fork, range } from "./support/effects.ts"
import { makeQuota, usedOf } from "./support/quotas.ts"
import { randomOf } from "./support/strictProvider.ts"

const windowMillis = 60_000
const quantum = 250
const drift = 50

/** A window that keeps every amount. */
class Reference {
  readonly entries: Array<{ bucket: number; amount: number }> = []
  used(now: number): number {
    const live = this.entries.filter(({ bucket }) => (bucket + 1) * quantum > now - windowMillis - drift)
    return live.reduce((sum, { amount }) => sum + amount, 0)
  }
}

describe("a window", () => {
  for (const seed of range(20)) {
    it(`has the sum of a list of all amounts, seed ${seed}`, () => {
      const random = randomOf(seed + 1)
      const whole = (below: number) => Math.floor(random() * below)
      const window = new Window(windowMillis)
      const reference = new Reference()
      const open: Array<{ bucket: number; amount: number; index: number }> = []
      let now = seed === 0 ? 0 : 1_700_000_000_000
      for (let step = 0; step < 3_000; step++) {
        now += random() < 0.01 ? whole(90_000) : whole(200)
        if (random() < 0.5 || open.length === 0) {
          const amount = whole(100)
          const bucket = window.add(now, amount, now + whole(1_000))
          const index = reference.entries.push({ bucket, amount }) - 1
          open.push({ bucket, amount, index })
        } else {
          const [one] = open.splice(whole(open.length), 1)
          if (one === undefined) continue
          const isLive = (one.bucket + 1) * quantum > now - windowMillis - drift
          const amount = whole(200)
          const bucket = window.change(now, one.bucket, one.amount, amount, now - whole(2_000))
          assert.isAtMost(bucket, one.bucket)
          if (isLive) reference.entries[one.index] = { bucket, amount }
        }
        assert.strictEqual(window.used(now), reference.used(now))
        assert.isAtLeast(window.used(now), 0)
        const wait = window.wait(now, 100, 1_000)
        if (wait > 0 && step % 10 === 0) {
          assert.isAtMost(reference.used(now + wait) + 100, Math.max(1_000, 100))
          assert.isAbove(reference.used(now + wait - 2) + 100, 1_000)
        }
      }
    })
  }
})

const guard = 1_000
const bucketOf = (time: number) => Math.floor(time / quantum)

/** A call that waits, or holds its amounts. */
interface Asked {
  readonly scope: Scope.Closeable
  /** What it reserves: the most that it may use. */
  readonly most: number
  /** Its entries in the references, once it has reserved. */
  entries: ReadonlyArray<{ bucket: number; amount: number }> | undefined
}

/** Ends of a call. The amounts of tokens and requests that they count: `undefined` for the reserved ones. */
const ends = [
  { name: "settle", counts: (actual: number) => [actual, undefined] },
  { name: "refund", counts: () => [0, 0] },
  { name: "throttled", counts: () => [0, undefined] },
  { name: "close", counts: () => [undefined, undefined] }
] as const

describe("reservations", () => {
  for (const seed of range(10)) {
    it.effect(`the sums are those of held and settled amounts after each of 300 random events, seed ${seed}`, () =>
      Effect.gen(function*() {
        const random = randomOf(seed + 100)
        const whole = (below: number) => Math.floor(random() * below)
        const quota = yield* makeQuota({
          limits: [Quota.tokensPerMinute(1_000), Quota.requestsPerMinute(12), Quota.atOnce(8)],
          burst: 0,
          adapt: false
        })
        const references = [new Reference(), new Reference()] as const
        const calls: Array<Asked & { readonly fiber: Fiber.Fiber<Quota.Reservation, unknown> }> = []
        const seen = new Set<string>()

        const ask = Effect.gen(function*() {
          const known = whole(50)
          const most = known + whole(200)
          const tokens = random() < 0.5 ? most : { known, atMost: most }
          const call: Asked = { scope: yield* Scope.make(), most, entries: undefined }
          const reserved = Effect.map(Clock.currentTimeMillis, (now) => {
            call.entries = references.map((reference, index) => {
              const entry = { bucket: bucketOf(now + guard), amount: index === 0 ? most : 1 }
              reference.entries.push(entry)
              return entry
            })
          })
          const reserve = Effect.tap(Scope.provide(quota.reserve({ amounts: { tokens } }), call.scope), () => reserved)
          calls.push(Object.assign(call, { fiber: yield* fork(reserve) }))
        })

        const end = Effect.gen(function*() {
          const [call] = calls.splice(whole(calls.length), 1)
          if (call === undefined) return
          const exit = call.fiber.pollUnsafe()
          if (exit === undefined || Exit.isFailure(exit)) {
            yield* Fiber.interrupt(call.fiber)
            seen.add("interrupt")
          } else {
            const { name, counts } = ends[whole(ends.length)] ?? ends[0]
            const actual = whole(250)
            const now = yield* Clock.currentTimeMillis
            for (const [index, entry] of call.entries?.entries() ?? []) {
              // Nothing changes in a bucket that has left the window.
              if ((entry.bucket + 1) * quantum <= now - windowMillis - drift) continue
              entry.amount = counts(actual)[index] ?? entry.amount
              entry.bucket = Math.min(entry.bucket, bucketOf(now))
            }
            const { refund, settle, throttled } = exit.value
            if (name === "settle") yield* settle({ tokens: actual })
            if (name === "refund") yield* refund
            if (name === "throttled") yield* throttled()
            // Only the first end takes effect.
            if (name !== "close") yield* [settle({ tokens: 7 }), refund, throttled()][whole(3)] ?? Effect.void
            seen.add(name)
          }
          yield* Scope.close(call.scope, Exit.void)
        })

        for (let step = 0; step < 300; step++) {
          yield* calls.length === 0 || random() < 0.5 ? ask : end
          // Calls that were granted resume. Some calls outlive the window.
          yield* TestClock.adjust(random() < 0.3 ? 0 : random() < 0.02 ? 70_000 : whole(600))
          const now = yield* Clock.currentTimeMillis
          const held = calls.filter(({ entries }) => entries !== undefined).length
          assert.deepStrictEqual(
            [yield* usedOf(quota, "tokens"), yield* usedOf(quota, "requests"), yield* usedOf(quota, "atOnce")],
            [references[0].used(now), references[1].used(now), held]
          )
          assert.isAtMost(held, 8)
          assert.isAtMost(references[1].used(now), 12)
        }
        assert.deepStrictEqual([...seen].toSorted(), ["close", "interrupt", "refund", "settle", "throttled"])
        while (calls.length > 0) yield* end
        assert.strictEqual(yield* usedOf(quota, "atOnce"), 0)
        const { levels, refunded, reserved, settled, throttled } = yield* quota.snapshot()
        assert.deepStrictEqual([reserved, levels.map(({ queued }) => queued)], [settled + refunded + throttled, [
          0,
          0,
          0
        ]])
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual([yield* usedOf(quota, "tokens"), yield* usedOf(quota, "requests")], [0, 0])
      }))
  }
})
