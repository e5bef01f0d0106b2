import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Result, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Deadline from "../src/Deadline.ts"
import { yields } from "./support/probe.ts"

const remainingMillis = Effect.map(
  Deadline.remaining,
  (remaining) => remaining === undefined ? undefined : Duration.toMillis(remaining)
)

const start = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.forkChild(Effect.result(self), { startImmediately: true })

describe("Deadline", () => {
  describe("within", () => {
    it.effect("hands on an answer that comes in time", () =>
      Effect.gen(function*() {
        const fiber = yield* start(Deadline.within(Effect.delay(Effect.succeed("answer"), "999 millis"), "1 second"))
        yield* TestClock.adjust("999 millis")
        assert.deepStrictEqual(yield* Fiber.join(fiber), Result.succeed("answer"))
      }))

    it.effect("fails when it passes, not before, and says what the budget was", () =>
      Effect.gen(function*() {
        const fiber = yield* start(Effect.never.pipe(Deadline.within("1 second")))
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        const error = yield* Effect.flip(Effect.flatMap(Fiber.join(fiber), Effect.fromResult))
        assert.strictEqual(error._tag, "DeadlineExceeded")
        assert.deepStrictEqual([error.at, Duration.toMillis(error.budget)], ["Attempt", 1_000])
        assert.strictEqual(error.message, "no answer within 1s (Attempt)")
      }))

    it.effect("interrupts what it runs, and waits for its finalizers", () =>
      Effect.gen(function*() {
        let finalized = false
        const body = Effect.onInterrupt(
          Effect.never,
          () =>
            Effect.delay(
              Effect.sync(() => {
                finalized = true
              }),
              "1 second"
            )
        )
        const fiber = yield* start(Deadline.within(body, "1 second"))
        yield* TestClock.adjust("1500 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("500 millis")
        assert.isTrue(finalized)
        assert.isTrue(Result.isFailure(yield* Fiber.join(fiber)))
      }))

    it.effect("keeps the errors of what it runs, and its defects", () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* Effect.flip(Deadline.within(Effect.fail("own"), "1 second")), "own")
        const exit = yield* Effect.exit(Deadline.within(Effect.die("bug"), "1 second"))
        assert.isTrue(Exit.hasDies(exit))
      }))

    it.effect("gives no time at all to a budget below zero", () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Deadline.within(Effect.never, Duration.millis(-5)))
        assert.strictEqual(Duration.toMillis(error.budget), 0)
      }))

    it.effect("waits as long as it takes for an infinite budget", () =>
      Effect.gen(function*() {
        const fiber = yield* start(Deadline.within(Effect.delay(Effect.succeed("late"), "400 days"), Duration.infinity))
        yield* TestClock.adjust("400 days")
        assert.deepStrictEqual(yield* Fiber.join(fiber), Result.succeed("late"))
      }))

    for (
      const [which, outer, inner] of [["outer", "1 second", "1 minute"], ["inner", "1 minute", "1 second"]] as const
    ) {
      it.effect(`of two nested deadlines the earlier counts, here the ${which} one`, () =>
        Effect.gen(function*() {
          const fiber = yield* start(Effect.never.pipe(Deadline.within(inner), Deadline.within(outer)))
          yield* TestClock.adjust("1 second")
          const error = yield* Effect.flip(Effect.flatMap(Fiber.join(fiber), Effect.fromResult))
          assert.strictEqual(Duration.toMillis(error.budget), 1_000)
        }))
    }
  })

  describe("remaining", () => {
    it.effect("is undefined where no deadline was set", () =>
      Effect.gen(function*() {
        assert.isUndefined(yield* Deadline.remaining)
        yield* Deadline.within(Effect.void, "1 second")
        assert.isUndefined(yield* Deadline.remaining)
      }))

    it.effect("shrinks with the clock", () =>
      Effect.gen(function*() {
        const body = Effect.gen(function*() {
          const before = yield* remainingMillis
          yield* Effect.sleep("300 millis")
          return [before, yield* remainingMillis]
        })
        const fiber = yield* start(Deadline.within(body, "1 second"))
        yield* TestClock.adjust("300 millis")
        assert.deepStrictEqual(yield* Fiber.join(fiber), Result.succeed([1_000, 700]))
      }))

    it.effect("is that of the earlier of two nested deadlines", () =>
      Effect.gen(function*() {
        const shorter = Deadline.within(remainingMillis, "2 seconds")
        const longer = Deadline.within(remainingMillis, "2 hours")
        assert.deepStrictEqual(
          yield* Deadline.within(Effect.all([shorter, longer, remainingMillis]), "1 minute"),
          [2_000, 60_000, 60_000]
        )
      }))

    it.effect("is never below zero", () =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 minute")
        const past = { at: 1_000, budgetMillis: 1_000 }
        assert.strictEqual(yield* Effect.provideService(remainingMillis, Deadline.Deadline, past), 0)
      }))

    it.effect("is known to the fibers that are forked inside", () =>
      Effect.gen(function*() {
        const body = Effect.flatMap(Effect.forkChild(remainingMillis), Fiber.join)
        assert.strictEqual(yield* Deadline.within(body, "1 second"), 1_000)
      }))
  })

  describe("withinStream", () => {
    const ticks = Stream.concat(
      Stream.make("first"),
      Stream.fromEffect(Effect.delay(Effect.succeed("second"), "1 second"))
    )

    it.effect("hands on a stream that ends in time", () =>
      Effect.gen(function*() {
        const fiber = yield* start(Stream.runCollect(Deadline.withinStream(ticks, "2 seconds")))
        yield* yields(20)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.join(fiber), Result.succeed(["first", "second"]))
      }))

    it.effect("fails a stream that is not over when it passes, after the elements that came", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        let closed = 0
        const fiber = yield* ticks.pipe(
          Stream.concat(Stream.never),
          Stream.ensuring(Effect.sync(() => {
            closed++
          })),
          Deadline.withinStream("3 seconds"),
          Stream.runForEach((tick) => Effect.sync(() => seen.push(tick))),
          start
        )
        yield* yields(20)
        yield* TestClock.adjust("2999 millis")
        assert.deepStrictEqual([seen, closed], [["first", "second"], 0])
        yield* TestClock.adjust("1 millis")
        const error = yield* Effect.flip(Effect.flatMap(Fiber.join(fiber), Effect.fromResult))
        assert.deepStrictEqual([error._tag, Duration.toMillis(error.budget), closed], ["DeadlineExceeded", 3_000, 1])
      }))

    it.effect("is counted from the moment the stream is opened, and known inside it", () =>
      Effect.gen(function*() {
        const stream = Deadline.withinStream(Stream.fromEffect(remainingMillis), "1 second")
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* Stream.runCollect(stream), [1_000])
        const nested = Deadline.within(Stream.runCollect(stream), "200 millis")
        assert.deepStrictEqual(yield* nested, [200])
      }))
  })

  it.effect("carries DeadlineExceeded across a wire", () =>
    Effect.gen(function*() {
      const error = new Deadline.DeadlineExceeded({ at: "Backoff", budget: Duration.seconds(2) })
      const json = yield* Schema.encodeEffect(Deadline.DeadlineExceeded)(error)
      assert.deepStrictEqual(json, { _tag: "DeadlineExceeded", at: "Backoff", budget: 2_000 })
      assert.strictEqual(
        (yield* Schema.decodeEffect(Deadline.DeadlineExceeded)(json)).message,
        "no answer within 2s (Backoff)"
      )
    }))
})
