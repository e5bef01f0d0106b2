import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { fork, range } from "./support/effects.ts"
import { Cached, counts, key, withDeduplicator, zeroCounts } from "./support/flights.ts"

describe("Deduplicator.dedupeStream", () => {
  /** A stream of one part a second, with counters of its runs. */
  const makeStream = (count: number) => {
    const runs = { opened: 0, closed: 0, produced: 0 }
    const stream = Stream.unwrap(Effect.acquireRelease(
      Effect.sync(() => {
        runs.opened++
        return Stream.range(1, count).pipe(
          Stream.rechunk(1),
          Stream.mapEffect((n) => Effect.as(Effect.sleep("1 second"), `part ${n}`)),
          Stream.tap(() => Effect.sync(() => runs.produced++))
        )
      }),
      () => Effect.sync(() => runs.closed++)
    ))
    return { runs, stream }
  }
  const parts = (count: number) => range(count).map((n) => `part ${n + 1}`)

  it.effect("all readers share one upstream, and a late reader gets every part from the beginning", () =>
    Effect.gen(function*() {
      const { dedupeStream, stats } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(10)
      const read = Stream.runCollect(dedupeStream(stream, key))
      const early = yield* Effect.forEach(range(3), () => fork(read))
      yield* TestClock.adjust("5500 millis")
      const late = yield* fork(read)
      yield* TestClock.adjust("5 seconds")
      for (const fiber of [...early, late]) assert.deepStrictEqual(yield* Fiber.join(fiber), parts(10))
      const { joined, led } = yield* stats
      assert.deepStrictEqual([runs.opened, runs.closed, led, joined, yield* counts], [1, 1, 1, 3, zeroCounts])
    }).pipe(withDeduplicator()))

  it.effect("a reader that comes after the end starts a new run, since parts are not cached", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(2)
      for (const _ of range(2)) {
        const reader = yield* fork(Stream.runCollect(dedupeStream(stream, Cached("x"))))
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* Fiber.join(reader), parts(2))
      }
      assert.strictEqual(runs.opened, 2)
    }).pipe(withDeduplicator()))

  it.effect("a stream continues when its first reader leaves, and closes upstream before its last reader ends", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(10)
      const slowClose = Stream.ensuring(stream, Effect.sleep("5 seconds"))
      const leader = yield* fork(Stream.runCollect(dedupeStream(slowClose, key)))
      const taker = yield* fork(Stream.runCollect(Stream.take(dedupeStream(slowClose, key), 3)))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(leader)
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(taker.pollUnsafe())
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* Fiber.join(taker), parts(3))
      assert.deepStrictEqual([runs.opened, runs.closed, yield* counts], [1, 1, zeroCounts])
    }).pipe(withDeduplicator()))

  it.effect("every reader gets the parts before a failure, then the failure", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { stream } = makeStream(3)
      const seen: Array<string> = []
      const failing = dedupeStream(Stream.concat(stream, Stream.fail("busy" as const)), key).pipe(
        Stream.tap((part) => Effect.sync(() => seen.push(part)))
      )
      const fibers = yield* Effect.forEach(range(3), () => fork(Effect.flip(Stream.runDrain(failing))))
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* Fiber.joinAll(fibers), ["busy", "busy", "busy"])
      assert.strictEqual(seen.length, 9)
      assert.deepStrictEqual(yield* counts, zeroCounts)
    }).pipe(withDeduplicator()))

  it.effect("readers share an end and a failure that come without any part", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      assert.deepStrictEqual(yield* Stream.runCollect(dedupeStream(Stream.empty, key)), [])
      assert.strictEqual(yield* Effect.flip(Stream.runDrain(dedupeStream(Stream.fail("busy" as const), key))), "busy")
      assert.deepStrictEqual(yield* counts, zeroCounts)
    }).pipe(withDeduplicator()))

  it.effect("no reader joins once the beginning has left the replay buffer", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(8)
      const served: Array<Deduplicator.Served> = []
      const read = Stream.runCollect(dedupeStream(stream, key, { onServed: (how) => served.push(how) }))
      const first = yield* fork(read)
      yield* TestClock.adjust("4500 millis")
      const second = yield* fork(read)
      yield* TestClock.adjust("1 second")
      const third = yield* fork(read)
      yield* TestClock.adjust("20 seconds")
      for (const fiber of [first, second, third]) assert.deepStrictEqual(yield* Fiber.join(fiber), parts(8))
      assert.deepStrictEqual([served, runs.opened], [["Led", "Joined", "Led"], 2])
    }).pipe(withDeduplicator({ maxReplay: 4 })))

  it.effect("upstream is never ahead of the fastest reader, and at most maxReplay ahead of the slowest", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(20)
      const gate = yield* Deferred.make<void>()
      const shared = dedupeStream(stream, key)
      const slow = yield* fork(Stream.runCollect(Stream.tap(shared, () => Deferred.await(gate))))
      const halted = yield* fork(Stream.runDrain(Stream.tap(shared, () => Effect.never)))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(runs.produced, 1)
      const fast = yield* fork(Stream.runCollect(shared))
      yield* TestClock.adjust("1 minute")
      // Both slow readers took the first part: upstream stops when they are four behind.
      assert.strictEqual(runs.produced, 5)
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(runs.produced, 5)
      yield* Fiber.interrupt(halted)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* Fiber.join(fast), parts(20))
      assert.deepStrictEqual(yield* Fiber.join(slow), parts(20))
      assert.deepStrictEqual([runs.opened, runs.produced], [1, 20])
    }).pipe(withDeduplicator({ maxReplay: 4 })))

  it.effect("upstream waits for a reader that has joined and not begun, and keeps the beginning for it", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(20)
      const shared = dedupeStream(stream, key)
      const halting = Stream.tap(shared, (part) => part === "part 3" ? Effect.never : Effect.void)
      const halted = yield* fork(Stream.runDrain(halting))
      const fast = yield* fork(Stream.runCollect(shared))
      yield* TestClock.adjust("3500 millis")
      const pull = yield* Stream.toPull(shared)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(runs.produced, 5)
      yield* Fiber.interrupt(halted)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([runs.produced, yield* pull], [5, parts(5)])
      const rest = yield* fork(Effect.exit(Effect.forever(pull)))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(rest)
      assert.deepStrictEqual(yield* Fiber.join(fast), parts(20))
    }).pipe(Effect.scoped, withDeduplicator({ maxReplay: 4 })))

  it.effect("chunks larger than the replay buffer pass through", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const stream = Stream.concat(Stream.fromArray(range(1000)), Stream.fromArray(range(1000)))
      const Numbers = Deduplicator.operation<number>()("numbers", { key: (n: number) => n })
      const collected = yield* Effect.forEach(
        range(3),
        () => Stream.runCollect(dedupeStream(stream, Numbers(1))),
        { concurrency: "unbounded" }
      )
      for (const read of collected) assert.deepStrictEqual(read, [...range(1000), ...range(1000)])
    }).pipe(withDeduplicator({ maxReplay: 4 })))

  it.effect("a stream and an effect with the same key do not share a run", () =>
    Effect.gen(function*() {
      const { dedupe, dedupeStream } = yield* Deduplicator.Deduplicator
      const { stream } = makeStream(1)
      const reader = yield* fork(Stream.runCollect(dedupeStream(stream, key)))
      assert.strictEqual(yield* dedupe(Effect.succeed("effect"), key), "effect")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(reader), parts(1))
    }).pipe(withDeduplicator()))

  it.effect("a stream has the latest deadline of its readers", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(60)
      const until = Deadline.remaining.pipe(Effect.map((left) => left === undefined ? "none" : String(left)))
      const seen: Array<string> = []
      const shared = dedupeStream(Stream.tap(stream, () => Effect.map(until, (left) => seen.push(left))), key)
      const short = yield* fork(Effect.exit(Stream.runDrain(Deadline.withinStream(shared, "2500 millis"))))
      const long = yield* fork(Effect.exit(Stream.runDrain(Deadline.withinStream(shared, "5500 millis"))))
      yield* TestClock.adjust("3 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(short)))
      assert.strictEqual(runs.closed, 0)
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(long)
      assert.strictEqual(seen.length, 5)
      assert.deepStrictEqual([runs.closed, yield* counts], [1, zeroCounts])
      assert.strictEqual(yield* Clock.currentTimeMillis, 6000)
    }).pipe(withDeduplicator()))
})
