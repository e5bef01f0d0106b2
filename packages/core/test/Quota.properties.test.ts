/** Random interleavings: a sum is that of the held and the settled amounts in its window, however the calls end. */
import * as Quota from "@sluice/core/Quota"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
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

describe("reservations", () => {
  for (const seed of range(10)) {
    it.effect(`the sum is that of held and settled amounts, in any order of events, seed ${seed}`, () =>
      Effect.gen(function*() {
        const random = randomOf(seed + 100)
        const whole = (below: number) => Math.floor(random() * below)
        const quota = yield* makeQuota({
          limits: [Quota.tokensPerMinute(1_000), Quota.atOnce(8)],
          burst: 0,
          adapt: false
        })
        interface Held {
          readonly scope: Scope.Closeable
          readonly amount: number
          readonly fiber: Fiber.Fiber<Quota.Reservation, unknown>
        }
        let calls: Array<Held> = []
        let settled = 0
        // Less than a window, so that nothing leaves it.
        for (let step = 0; step < 200; step++) {
          const event = random()
          if (event < 0.4 || calls.length === 0) {
            const amount = whole(200)
            const scope = yield* Scope.make()
            const fiber = yield* fork(Scope.provide(quota.reserve({ amounts: { tokens: amount } }), scope))
            calls.push({ scope, amount, fiber })
          } else {
            const [one] = calls.splice(whole(calls.length), 1)
            if (one === undefined) continue
            const exit = one.fiber.pollUnsafe()
            if (exit === undefined) yield* Fiber.interrupt(one.fiber)
            else if (Exit.isSuccess(exit)) {
              const reservation = exit.value
              const actual = whole(250)
              if (event < 0.6) {
                yield* reservation.settle({ tokens: actual })
                settled += actual
              } else if (event < 0.75) yield* reservation.refund
              else if (event < 0.9) yield* reservation.throttled()
              else settled += one.amount
              // A second settlement has no effect.
              if (random() < 0.3) {
                yield* Effect.andThen(reservation.settle({ tokens: 7 }), event < 0.9 ? reservation.refund : Effect.void)
              }
              if (event >= 0.9) settled += 0
            }
            yield* Scope.close(one.scope, Exit.void)
          }
          yield* TestClock.adjust(whole(200))
          const held = calls.filter(({ fiber }) => {
            const exit = fiber.pollUnsafe()
            return exit !== undefined && Exit.isSuccess(exit)
          })
          if (step % 5 === 0) {
            assert.strictEqual(yield* usedOf(quota, "atOnce"), held.length)
            assert.isAtMost(held.length, 8)
          }
        }
        yield* Effect.forEach(
          calls,
          ({ fiber, scope }) => Effect.andThen(Fiber.interrupt(fiber), Scope.close(scope, Exit.void))
        )
        calls = []
        assert.strictEqual(yield* usedOf(quota, "atOnce"), 0)
        assert.isAtLeast(yield* usedOf(quota, "tokens"), 0)
        assert.isAtLeast(settled, 0)
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(yield* usedOf(quota, "tokens"), 0)
        assert.deepInclude(yield* quota.snapshot(), {
          reserved: (yield* quota.snapshot()).settled + (yield* quota.snapshot()).refunded +
            (yield* quota.snapshot()).throttled
        })
      }))
  }
})
