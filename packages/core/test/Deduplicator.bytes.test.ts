import * as Deduplicator from "@sluice/core/Deduplicator"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Logger, Schema } from "effect"
import { TestClock } from "effect/testing"
import { fork, range } from "./support/effects.ts"
import { counts, makeCall, withDeduplicator } from "./support/flights.ts"

/** An operation whose results count as their length, and whose failures are cached. */
const Sized = Deduplicator.operation<string, string>()("sized", {
  key: (text: string) => text,
  timeToLive: () => "1 minute",
  size: (text) => text.length,
  success: Schema.String
})

/** Asks for an answer of this many bytes. Returns how the caller was served. */
const ask = Effect.fnUntraced(function*(name: string, bytes: number) {
  const { dedupe } = yield* Deduplicator.Deduplicator
  let served: Deduplicator.Served = "Led"
  yield* dedupe(Effect.succeed("x".repeat(bytes)), Sized(name), { onServed: (how) => served = how })
  return served
})

describe("Deduplicator", () => {
  describe("maxBytes", () => {
    it.effect("the least recently used results are evicted until a new one fits", () =>
      Effect.gen(function*() {
        const { stats } = yield* Deduplicator.Deduplicator
        for (const name of ["a", "b", "c"]) yield* ask(name, 30)
        // Used again, so b and c go first.
        assert.strictEqual(yield* ask("a", 30), "Cached")
        yield* ask("large", 70)
        assert.deepStrictEqual([(yield* stats).cached, (yield* stats).evicted], [2, 2])
        assert.strictEqual(yield* ask("a", 30), "Cached")
        assert.strictEqual(yield* ask("large", 70), "Cached")
        assert.strictEqual(yield* ask("b", 30), "Led")
      }).pipe(withDeduplicator({ maxBytes: 100 })))

    it.effect("results of exactly the limit stay, and one that is larger is returned and not cached", () =>
      Effect.gen(function*() {
        const { stats } = yield* Deduplicator.Deduplicator
        yield* ask("a", 40)
        yield* ask("b", 60)
        assert.strictEqual(yield* ask("larger", 101), "Led")
        assert.strictEqual(yield* ask("larger", 101), "Led")
        assert.deepStrictEqual([(yield* stats).cached, (yield* stats).evicted], [2, 0])
        assert.strictEqual(yield* ask("whole", 100), "Led")
        assert.strictEqual(yield* ask("whole", 100), "Cached")
        assert.strictEqual((yield* stats).cached, 1)
      }).pipe(withDeduplicator({ maxBytes: 100 })))

    it.effect("three thousand answers of 200 KB take no more than the limit", () =>
      Effect.gen(function*() {
        const { stats } = yield* Deduplicator.Deduplicator
        yield* Effect.forEach(range(3_000), (n) => ask(`answer ${n}`, 200_000), { discard: true })
        assert.deepStrictEqual([(yield* stats).cached, (yield* stats).evicted], [50, 2_950])
      }).pipe(withDeduplicator({ maxBytes: 10_000_000 })))

    it.effect("results that expire or are invalidated make room", () =>
      Effect.gen(function*() {
        const { invalidate, invalidateOperation, stats } = yield* Deduplicator.Deduplicator
        yield* ask("a", 100)
        yield* invalidate(Sized("a"))
        yield* ask("b", 100)
        yield* invalidateOperation(Sized)
        yield* ask("c", 100)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* ask("c", 100), "Led")
        yield* TestClock.adjust("1 minute")
        yield* ask("d", 100)
        assert.deepStrictEqual([(yield* stats).cached, (yield* stats).evicted], [1, 0])
      }).pipe(withDeduplicator({ maxBytes: 100 })))

    it.effect("flights are never evicted, and neither failures nor operations without a size count", () =>
      Effect.gen(function*() {
        const { dedupe, stats } = yield* Deduplicator.Deduplicator
        const { call } = makeCall()
        const Plain = Deduplicator.operation<string>()("plain", { key: (text: string) => text, timeToLive: "1 hour" })
        const flying = yield* fork(dedupe(call, Plain("flight")))
        yield* Effect.forEach(range(10), (n) => dedupe(Effect.succeed("x".repeat(1_000)), Plain(String(n))))
        yield* Effect.forEach(range(10), (n) => Effect.exit(dedupe(Effect.fail("x".repeat(1_000)), Sized(`bad ${n}`))))
        assert.deepStrictEqual(yield* counts, { cached: 20, flights: 1, waiting: 1 })
        assert.strictEqual((yield* stats).evicted, 0)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(flying), "answer 1")
      }).pipe(withDeduplicator({ maxBytes: 100 })))

    it.effect("restored results count, and one that is too large is not restored", () =>
      Effect.gen(function*() {
        const { dump, stats } = yield* Deduplicator.Deduplicator
        for (const [name, bytes] of [["a", 30], ["b", 40], ["large", 200]] as const) yield* ask(name, bytes)
        assert.strictEqual((yield* stats).cached, 3)
        const smaller = yield* Deduplicator.make({ maxBytes: 50 })
        yield* smaller.restore(Sized, yield* dump(Sized))
        assert.deepStrictEqual([(yield* smaller.stats).cached, (yield* smaller.stats).evicted], [1, 1])
      }).pipe(Effect.scoped, withDeduplicator()))

    it.effect("a size that throws or is no number leaves the result uncached, with one warning", () => {
      const warnings: Array<unknown> = []
      const logger = Logger.make(({ message }) => void warnings.push(message))
      return Effect.gen(function*() {
        const { dedupe, stats } = yield* Deduplicator.Deduplicator
        for (
          const [name, size] of [
            ["throws", () => {
              throw new Error("secret")
            }],
            ["nan", () => Number.NaN],
            ["negative", () => -1]
          ] as const
        ) {
          const Odd = Deduplicator.operation<string>()(name, { key: (n: number) => n, timeToLive: "1 hour", size })
          for (const n of range(3)) assert.strictEqual(yield* dedupe(Effect.succeed("fine"), Odd(n)), "fine")
        }
        assert.strictEqual((yield* stats).cached, 0)
        assert.deepStrictEqual(
          warnings.map(String),
          ["throws", "nan", "negative"].map((name) =>
            `deduplicator chat: size of operation ${name} threw, or returned no number of bytes; such results are not cached`
          )
        )
      }).pipe(withDeduplicator({ name: "chat", maxBytes: 100 }), Effect.provide(Logger.layer([logger])))
    })

    it.effect("a limit below 1 byte and a size that is no function are refused", () =>
      Effect.gen(function*() {
        for (const maxBytes of [0, -1, 0.5, Number.NaN]) {
          const error = yield* Effect.flip(Effect.scoped(Deduplicator.make({ maxBytes })))
          assert.include(error.message, "maxBytes")
        }
        // @ts-expect-error a size is a function
        const Odd = Deduplicator.operation<string>()("odd", { key: (n: number) => n, size: 3 })
        const exit = yield* Effect.exit(
          Deduplicator.Deduplicator.use(({ dedupe }) => dedupe(Effect.succeed("x"), Odd(1)))
        )
        assert.isTrue(Exit.hasDies(exit))
      }).pipe(withDeduplicator()))
  })
})
