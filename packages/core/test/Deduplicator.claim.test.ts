import * as Deduplicator from "@sluice/core/Deduplicator"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { fork, range } from "./support/effects.ts"
import { Cached, counts, key, makeCall, withDeduplicator, zeroCounts } from "./support/flights.ts"

describe("Deduplicator.claim", () => {
  const claimIn = <A, E>(key: Deduplicator.Key<A, E>) => Deduplicator.Deduplicator.use(({ claim }) => claim(key))
  const leaseOf = <A, E>(claimed: Deduplicator.Claim<A, E>): Deduplicator.Lease<A, E> => {
    assert.strictEqual(claimed._tag, "New")
    if (claimed._tag !== "New") throw new Error(claimed._tag)
    return claimed.lease
  }
  const awaitOf = <A, E>(claimed: Deduplicator.Claim<A, E>) => {
    if (claimed._tag !== "InProgress") throw new Error(claimed._tag)
    return claimed.await
  }

  it.effect("a claim finds a key new, then in progress, then cached", () =>
    Effect.gen(function*() {
      const lease = leaseOf(yield* claimIn(Cached("x")))
      const waiting = yield* fork(awaitOf(yield* claimIn(Cached("x"))))
      assert.isTrue(yield* lease.complete("answer"))
      assert.strictEqual(yield* Fiber.join(waiting), "answer")
      assert.deepStrictEqual(yield* claimIn(Cached("x")), { _tag: "Cached", exit: Exit.succeed("answer") })
    }).pipe(Effect.scoped, withDeduplicator()))

  it.effect("a claim does not expire by the time to counts of results", () =>
    Effect.gen(function*() {
      const lease = leaseOf(yield* claimIn(Cached("x")))
      yield* TestClock.adjust("1 day")
      assert.strictEqual((yield* claimIn(Cached("x")))._tag, "InProgress")
      assert.isTrue(yield* lease.complete("answer"))
    }).pipe(Effect.scoped, withDeduplicator()))

  it.effect("failing a lease fails the waiting callers, and the key is new at once", () =>
    Effect.gen(function*() {
      const lease = leaseOf(yield* claimIn(Cached("x")))
      const waiting = yield* fork(Effect.flip(awaitOf(yield* claimIn(Cached("x")))))
      assert.isTrue(yield* lease.fail("busy"))
      assert.strictEqual(yield* Fiber.join(waiting), "busy")
      assert.strictEqual((yield* claimIn(Cached("x")))._tag, "New")
    }).pipe(Effect.scoped, withDeduplicator()))

  it.effect("a claim is completed once, and only by its current lease", () =>
    Effect.gen(function*() {
      const { invalidate } = yield* Deduplicator.Deduplicator
      const used = leaseOf(yield* claimIn(Cached("x")))
      assert.isTrue(yield* used.complete("first"))
      assert.isFalse(yield* used.complete("second"))
      assert.isFalse(yield* used.fail("busy"))
      const closed = leaseOf(yield* Effect.scoped(claimIn(Cached("y"))))
      const current = leaseOf(yield* claimIn(Cached("y")))
      assert.isFalse(yield* closed.complete("late"))
      assert.isTrue(yield* current.complete("mine"))
      const invalidated = leaseOf(yield* claimIn(Cached("z")))
      yield* invalidate(Cached("z"))
      assert.isFalse(yield* invalidated.complete("old"))
      assert.strictEqual((yield* claimIn(Cached("z")))._tag, "New")
      assert.deepStrictEqual(yield* claimIn(Cached("y")), { _tag: "Cached", exit: Exit.succeed("mine") })
    }).pipe(Effect.scoped, withDeduplicator()))

  it.effect("waiting callers fail with FlightAbandoned when the holder leaves without a result", () =>
    Effect.gen(function*() {
      const holder = yield* fork(Effect.scoped(Effect.andThen(claimIn(Cached("x")), Effect.never)))
      const waiting = yield* fork(Effect.flip(awaitOf(yield* claimIn(Cached("x")))))
      yield* Fiber.interrupt(holder)
      const abandoned = yield* Fiber.join(waiting)
      assert.isTrue(abandoned instanceof Deduplicator.FlightAbandoned && abandoned.operation === "cached")
      assert.deepStrictEqual(yield* counts, zeroCounts)
    }).pipe(Effect.scoped, withDeduplicator()))

  it.effect("callers of dedupe wait for a claim, and one of them runs when it is abandoned", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const holder = yield* fork(Effect.scoped(Effect.andThen(claimIn(Cached("x")), Effect.never)))
      const { call, runs } = makeCall()
      const served: Array<Deduplicator.Served> = []
      const ask = dedupe(call, Cached("x"), { onServed: (how) => served.push(how) })
      const fibers = yield* Effect.forEach(range(3), () => fork(ask))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(runs.started, 0)
      yield* Fiber.interrupt(holder)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.joinAll(fibers), ["answer 1", "answer 1", "answer 1"])
      assert.deepStrictEqual(served, ["Joined", "Joined", "Joined", "Led", "Joined", "Joined"])
    }).pipe(withDeduplicator()))

  it.effect("awaiting a claim joins a flight of dedupe and keeps it running", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const { call } = makeCall()
      const leader = yield* fork(dedupe(call, key))
      const claimed = awaitOf(yield* claimIn(key))
      const late = awaitOf(yield* claimIn(key))
      const waiting = yield* fork(claimed)
      yield* Fiber.interrupt(leader)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(waiting), "answer 1")
      assert.strictEqual(yield* late, "answer 1")
      const alone = yield* fork(dedupe(call, key))
      const abandoned = awaitOf(yield* claimIn(key))
      yield* Fiber.interrupt(alone)
      assert.instanceOf(yield* Effect.flip(abandoned), Deduplicator.FlightAbandoned)
    }).pipe(Effect.scoped, withDeduplicator()))
})
