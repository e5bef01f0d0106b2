/** Calls at once whose limit is found, against a provider that runs a hidden number of calls at once. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import { randomOf, wan } from "./support/strictProvider.ts"

/** Sends the calls, 64 at once at most. Returns the time as a multiple of the shortest, and the share of rejected requests. */
const send = (hidden: number, limit: Quota.Dimension, seed: number, calls = 3_000) =>
  Effect.gen(function*() {
    const random = randomOf(seed)
    const delay = wan(random)
    const quota = yield* Quota.make({ limits: [limit] })
    let running = 0
    let rejected = 0
    let work = 0
    const request = Effect.gen(function*() {
      yield* Effect.sleep(delay())
      if (running >= hidden) {
        rejected++
        yield* Effect.sleep(delay())
        return false
      }
      running++
      const millis = 3_300 * Math.exp(0.5 * (random() + random() + random() - 1.5) * 2)
      work += millis
      yield* Effect.sleep(millis)
      running--
      yield* Effect.sleep(delay())
      return true
    })
    const call: Effect.Effect<void> = Effect.scoped(
      Effect.flatMap(Effect.orDie(quota.reserve({})), (reservation) =>
        Effect.flatMap(request, (isAnswered) =>
          Effect.as(isAnswered ? reservation.settle({}) : reservation.throttled(), isAnswered)))
    ).pipe(Effect.flatMap((isAnswered) =>
      isAnswered ? Effect.void : call
    ))
    const all = yield* Effect.forkChild(
      Effect.forEach(Array.from({ length: calls }), () => call, { concurrency: 64, discard: true })
    )
    let millis = 0
    while (all.pollUnsafe() === undefined) {
      yield* TestClock.adjust(500)
      millis += 500
    }
    yield* Fiber.join(all)
    return { ratio: millis / (work / hidden), rejected: rejected / (calls + rejected), quota }
  }).pipe(Effect.scoped, Effect.provide(QuotaStore.layerMemory))

describe("calls at once, with a limit that has to be found", () => {
  for (const [hidden, ratio, share] of [[8, 1.05, 0.008], [24, 1.07, 0.004], [60, 1.14, 0.003]] as const) {
    it.effect(`${hidden} of 64: few calls are rejected, and little time is lost`, () =>
      Effect.gen(function*() {
        for (const seed of [1, 2, 3]) {
          const found = yield* send(hidden, Quota.atOnce(64, { start: 4 }), seed)
          assert.isAtMost(found.ratio, ratio)
          assert.isAtMost(found.rejected, share)
        }
      }), 60_000)
  }

  it.effect("without a start most calls are rejected", () =>
    Effect.gen(function*() {
      const { rejected } = yield* send(24, Quota.atOnce(64), 1, 200)
      assert.isAbove(rejected, 0.5)
    }), 60_000)
})

describe("a limit of calls at once with a start", () => {
  const make = (limits: ReadonlyArray<Quota.Dimension>) =>
    Effect.provide(Quota.make({ limits, burst: 0, queue: 0 }), QuotaStore.layerMemory)
  const admits = (quota: Quota.Quota["Service"]) =>
    Effect.gen(function*() {
      const reserved: Array<Quota.Reservation> = []
      const take = Effect.map(quota.tryReserve({}), (reservation) => reserved.push(reservation))
      yield* Effect.ignore(Effect.forever(take))
      return reserved
    })

  it.effect("doubles after each round trip, up to the limit", () =>
    Effect.gen(function*() {
      const quota = yield* make([Quota.atOnce(10, { start: 2 })])
      for (const expected of [2, 4, 8, 10, 10]) {
        const reserved = yield* admits(quota)
        assert.strictEqual(reserved.length, expected)
        for (const { settle } of reserved) yield* settle({})
      }
    }).pipe(Effect.scoped))

  it.effect("does not rise while its places are free", () =>
    Effect.gen(function*() {
      const quota = yield* make([Quota.atOnce(10, { start: 4 })])
      for (let calls = 0; calls < 20; calls++) {
        const { settle } = yield* quota.tryReserve({})
        yield* settle({})
      }
      assert.strictEqual((yield* admits(quota)).length, 4)
    }).pipe(Effect.scoped))

  it.effect("becomes the number of calls in flight that are not rejected, and publishes the change", () =>
    Effect.gen(function*() {
      const quota = yield* make([Quota.atOnce(10, { start: 8 })])
      const changes = yield* Effect.forkChild(Stream.runCollect(Stream.take(quota.changes, 1)))
      yield* TestClock.adjust(1)
      const reserved = yield* admits(quota)
      yield* TestClock.adjust(50)
      for (const { throttled } of [...reserved.slice(6), ...reserved.slice(2, 4)]) yield* throttled()
      const [change] = yield* Fiber.join(changes)
      assert.deepInclude(change, { dimension: "atOnce", from: 8, to: 7, why: "Throttled" })
      assert.strictEqual((yield* quota.snapshot()).levels[0]?.limit, 4)
      for (const { settle } of reserved) yield* settle({})
      // One place takes twenty round trips.
      assert.strictEqual((yield* quota.snapshot()).levels[0]?.limit, 4)
    }).pipe(Effect.scoped))

  it.effect("keeps its limit if a rate explains the rejection", () =>
    Effect.gen(function*() {
      const quota = yield* make([Quota.requestsPerMinute(8), Quota.atOnce(10, { start: 8 })])
      const reserved = yield* admits(quota)
      yield* TestClock.adjust(50)
      yield* reserved.at(-1)?.throttled() ?? Effect.void
      assert.strictEqual((yield* quota.snapshot()).levels[1]?.limit, 8)
    }).pipe(Effect.scoped))

  it.effect("is refused for other limits, and above the limit", () =>
    Effect.gen(function*() {
      for (const limit of [{ ...Quota.requestsPerMinute(8), start: 2 }, Quota.atOnce(8, { start: 9 })]) {
        const error = yield* Effect.flip(make([limit]))
        assert.deepStrictEqual(error.issues.map(({ option }) => option), ["limits[0].start"])
      }
    }).pipe(Effect.scoped))
})
