import { assert, describe, it, vi } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber, Result, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Deadline from "../src/Deadline.ts"
import { InvalidOptions } from "../src/InvalidOptions.ts"
import { yields } from "./support/probe.ts"

const remainingMillis = Effect.map(
  Deadline.remaining,
  (remaining) => remaining === undefined ? undefined : Duration.toMillis(remaining)
)

const start = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.forkChild(Effect.result(self), { startImmediately: true })

describe("Deadline", () => {
  describe("within", () => {
    it.effect("within returns a result that comes in time", () =>
      Effect.gen(function*() {
        const fiber = yield* start(Deadline.within(Effect.delay(Effect.succeed("answer"), "999 millis"), "1 second"))
        yield* TestClock.adjust("999 millis")
        assert.deepStrictEqual(yield* Fiber.join(fiber), Result.succeed("answer"))
      }))

    it.effect("within fails at its deadline, not before, with the budget", () =>
      Effect.gen(function*() {
        const fiber = yield* start(Effect.never.pipe(Deadline.within("1 second")))
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        const error = yield* Effect.flip(Effect.flatMap(Fiber.join(fiber), Effect.fromResult))
        assert.strictEqual(error._tag, "DeadlineExceeded")
        assert.deepStrictEqual([error.at, Duration.toMillis(error.budget)], ["Attempt", 1_000])
        assert.strictEqual(error.message, "no answer within 1s: the attempt was running")
      }))

    it.effect("within interrupts its body at the deadline and waits for its finalizers", () =>
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

    it.effect("within returns the errors and the defects of its body unchanged", () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* Effect.flip(Deadline.within(Effect.fail("own"), "1 second")), "own")
        const exit = yield* Effect.exit(Deadline.within(Effect.die("bug"), "1 second"))
        assert.isTrue(Exit.hasDies(exit))
      }))

    it.effect("a negative budget counts as zero", () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Deadline.within(Effect.never, Duration.millis(-5)))
        assert.strictEqual(Duration.toMillis(error.budget), 0)
      }))

    it.effect("an infinite budget never ends", () =>
      Effect.gen(function*() {
        const fiber = yield* start(Deadline.within(Effect.delay(Effect.succeed("late"), "400 days"), Duration.infinity))
        yield* TestClock.adjust("400 days")
        assert.deepStrictEqual(yield* Fiber.join(fiber), Result.succeed("late"))
      }))

    it.effect("a synchronous body runs at once, without timer or scheduler turn", () =>
      Effect.gen(function*() {
        const order: Array<string> = []
        yield* Effect.forkChild(Effect.sync(() => order.push("another fiber")))
        yield* Deadline.within(Effect.sync(() => order.push("body")), 0)
        order.push("after")
        assert.deepStrictEqual(order, ["body", "after"])
      }))

    it.effect("remaining follows an outer deadline that moves earlier", () =>
      Effect.gen(function*() {
        const outer = { at: Number.POSITIVE_INFINITY, budgetMillis: Number.POSITIVE_INFINITY }
        const body = Effect.gen(function*() {
          const before = yield* remainingMillis
          outer.at = 400
          outer.budgetMillis = 400
          return [before, yield* remainingMillis]
        })
        const seen = yield* Effect.provideService(Deadline.within(body, "1 second"), Deadline.Deadline, outer)
        assert.deepStrictEqual(seen, [1_000, 400])
      }))

    /** A deadline that can move, like that of a flight with several callers. */
    const moving = (at: number) => {
      const watchers = new Set<() => void>()
      return {
        at,
        budgetMillis: at,
        watch(onEarlier: () => void) {
          watchers.add(onEarlier)
          return () => watchers.delete(onEarlier)
        },
        watchers,
        moveTo(at: number) {
          this.at = at
          for (const onEarlier of watchers) onEarlier()
        }
      }
    }

    it.effect("within ends at an outer deadline that moves earlier, and stops watching it", () =>
      Effect.gen(function*() {
        for (
          const hang of [
            Deadline.within(Effect.never, "1 minute"),
            Effect.never.pipe(Deadline.within("50 seconds"), Deadline.within("1 minute")),
            Stream.runDrain(Deadline.withinStream(Stream.never, "1 minute"))
          ]
        ) {
          const now = yield* Clock.currentTimeMillis
          const outer = moving(Number.POSITIVE_INFINITY)
          const fiber = yield* start(Effect.provideService(hang, Deadline.Deadline, outer))
          yield* yields(20)
          outer.moveTo(now + 2_000)
          outer.moveTo(now + 1_000)
          yield* TestClock.adjust("999 millis")
          assert.isUndefined(fiber.pollUnsafe())
          yield* TestClock.adjust("1 millis")
          assert.isTrue(Result.isFailure(yield* Fiber.join(fiber)))
          const passed = yield* start(Effect.provideService(hang, Deadline.Deadline, outer))
          assert.isTrue(Result.isFailure(yield* Fiber.join(passed)))
          assert.strictEqual(outer.watchers.size, 0)
        }
      }))

    it.effect("within ends later when an outer deadline moves later while it runs", () =>
      Effect.gen(function*() {
        const outer = { at: 1_000, budgetMillis: 1_000 }
        const fiber = yield* Deadline.within(Effect.never, "1 minute").pipe(
          Effect.provideService(Deadline.Deadline, outer),
          start
        )
        yield* TestClock.adjust("500 millis")
        outer.at = 3_000
        yield* TestClock.adjust("2499 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isTrue(Result.isFailure(yield* Fiber.join(fiber)))
        assert.strictEqual(yield* Clock.currentTimeMillis, 3_000)
      }))

    it.effect("within interrupts its body in an uninterruptible region", () =>
      Effect.gen(function*() {
        const fiber = yield* start(Effect.uninterruptible(Deadline.within(Effect.never, "1 second")))
        yield* TestClock.adjust("1 second")
        assert.isTrue(Result.isFailure(yield* Fiber.join(fiber)))
      }))

    it.effect("an interrupted within interrupts its body and waits for its finalizers", () =>
      Effect.gen(function*() {
        let finalized = false
        const body = Effect.onInterrupt(Effect.never, () =>
          Effect.andThen(
            yields(5),
            Effect.sync(() => {
              finalized = true
            })
          ))
        const fiber = yield* Effect.forkChild(Deadline.within(body, "1 second"), { startImmediately: true })
        yield* Fiber.interrupt(fiber)
        assert.isTrue(finalized)
      }))

    it.effect("within fails with DeadlineExceeded even if its interrupted body ends another way", () =>
      Effect.gen(function*() {
        for (const end of [Effect.die("bug"), Effect.fail("own"), Effect.succeed("answer")]) {
          const body = Effect.uninterruptible(Effect.andThen(Effect.sleep("2 seconds"), end))
          const fiber = yield* start(Deadline.within(body, "1 second"))
          yield* TestClock.adjust("2 seconds")
          const error = yield* Effect.flip(Effect.flatMap(Fiber.join(fiber), Effect.fromResult))
          assert.isTrue(error instanceof Deadline.DeadlineExceeded)
        }
      }))

    it.effect("the body of within has the services and the scope of the caller", () =>
      Effect.gen(function*() {
        const scope = yield* Effect.scope
        assert.strictEqual(yield* Deadline.within(Effect.scope, "1 second"), scope)
        assert.strictEqual(yield* Deadline.within(Effect.andThen(Effect.yieldNow, Effect.scope), "1 second"), scope)
        assert.strictEqual(scope.state._tag === "Closed", false)
      }).pipe(Effect.scoped))

    for (
      const [which, outer, inner] of [["outer", "1 second", "1 minute"], ["inner", "1 minute", "1 second"]] as const
    ) {
      it.effect(`the earlier of two nested deadlines counts, here the ${which} one`, () =>
        Effect.gen(function*() {
          const fiber = yield* start(Effect.never.pipe(Deadline.within(inner), Deadline.within(outer)))
          yield* TestClock.adjust("1 second")
          const error = yield* Effect.flip(Effect.flatMap(Fiber.join(fiber), Effect.fromResult))
          assert.strictEqual(Duration.toMillis(error.budget), 1_000)
        }))
    }
  })

  describe("within on setTimeout", () => {
    const fakeTimers = Effect.acquireRelease(
      Effect.sync(() => vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] })),
      () => Effect.sync(() => vi.useRealTimers())
    )
    const advance = (millis: number) => Effect.promise(() => vi.advanceTimersByTimeAsync(millis))

    it.live("a budget of 30 days lasts 30 days, beyond the limit of one timer", () =>
      Effect.gen(function*() {
        yield* fakeTimers
        const fiber = yield* start(Deadline.within(Effect.never, "30 days"))
        yield* advance(30 * 86_400_000 - 1)
        assert.isUndefined(fiber.pollUnsafe())
        yield* advance(1)
        assert.isTrue(Result.isFailure(yield* Fiber.join(fiber)))
      }))

    it.live("a budget of 30 days neither ends within milliseconds nor delays a finished body", () =>
      Effect.gen(function*() {
        const fiber = yield* start(Effect.never.pipe(Deadline.within("30 days")))
        yield* Effect.sleep("10 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* Deadline.within(Effect.delay(Effect.succeed("answer"), 1), "30 days"), "answer")
      }))

    it.live("no timer is left when the body succeeds, fails, dies, is interrupted or is late", () =>
      Effect.gen(function*() {
        yield* fakeTimers
        const wait = Effect.andThen(Effect.yieldNow, Effect.void)
        for (const end of [Effect.void, Effect.fail("own"), Effect.die("bug"), Effect.interrupt]) {
          yield* Effect.exit(Deadline.within(Effect.andThen(wait, end), "1 minute"))
        }
        const fiber = yield* Effect.forkChild(Deadline.within(Effect.never, "1 minute"), { startImmediately: true })
        assert.strictEqual(vi.getTimerCount(), 1)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(vi.getTimerCount(), 0)
        const late = yield* start(Deadline.within(Effect.never, "1 second"))
        yield* advance(1_000)
        yield* Fiber.join(late)
        assert.strictEqual(vi.getTimerCount(), 0)
      }))

    it.live("a clock set back does not lengthen the budget, and one set forward does not shorten it", () =>
      Effect.gen(function*() {
        yield* fakeTimers
        const back = yield* start(Deadline.within(Effect.never, "1 second"))
        vi.setSystemTime(Date.now() - 3_600_000)
        yield* advance(1_000)
        assert.isTrue(Result.isFailure(yield* Fiber.join(back)))
        const forward = yield* start(Deadline.within(Effect.never, "1 second"))
        vi.setSystemTime(Date.now() + 3_600_000)
        yield* advance(999)
        assert.isUndefined(forward.pollUnsafe())
        yield* advance(1)
        assert.isTrue(Result.isFailure(yield* Fiber.join(forward)))
      }))

    it.live("a timer that fires a millisecond early does not end the budget early", () =>
      Effect.gen(function*() {
        yield* fakeTimers
        const fiber = yield* start(Deadline.within(Effect.never, "1 second"))
        vi.setSystemTime(Date.now() - 1)
        yield* advance(1_000)
        assert.isUndefined(fiber.pollUnsafe())
        yield* advance(1)
        assert.isTrue(Result.isFailure(yield* Fiber.join(fiber)))
      }))
  })

  describe("remaining", () => {
    it.effect("remaining is undefined without a deadline", () =>
      Effect.gen(function*() {
        assert.isUndefined(yield* Deadline.remaining)
        yield* Deadline.within(Effect.void, "1 second")
        assert.isUndefined(yield* Deadline.remaining)
      }))

    it.effect("remaining shrinks as time passes", () =>
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

    it.effect("remaining is that of the earlier of two nested deadlines", () =>
      Effect.gen(function*() {
        const shorter = Deadline.within(remainingMillis, "2 seconds")
        const longer = Deadline.within(remainingMillis, "2 hours")
        assert.deepStrictEqual(
          yield* Deadline.within(Effect.all([shorter, longer, remainingMillis]), "1 minute"),
          [2_000, 60_000, 60_000]
        )
      }))

    it.effect("remaining is never negative", () =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 minute")
        const past = { at: 1_000, budgetMillis: 1_000 }
        assert.strictEqual(yield* Effect.provideService(remainingMillis, Deadline.Deadline, past), 0)
      }))

    it.effect("forked fibers inherit the deadline", () =>
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

    it.effect("withinStream emits a stream that ends in time", () =>
      Effect.gen(function*() {
        const fiber = yield* start(Stream.runCollect(Deadline.withinStream(ticks, "2 seconds")))
        yield* yields(20)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.join(fiber), Result.succeed(["first", "second"]))
      }))

    it.effect("withinStream fails at the deadline after the elements that came, and closes the stream", () =>
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

    it.effect("withinStream ends later when an outer deadline moves later", () =>
      Effect.gen(function*() {
        const outer = { at: 1_000, budgetMillis: 1_000 }
        const fiber = yield* Stream.runDrain(Deadline.withinStream(Stream.never, "1 minute")).pipe(
          Effect.provideService(Deadline.Deadline, outer),
          start
        )
        yield* yields(20)
        outer.at = 2_000
        yield* TestClock.adjust("1999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isTrue(Result.isFailure(yield* Fiber.join(fiber)))
      }))

    it.effect("the budget of withinStream starts when the stream is opened, and remaining is known inside", () =>
      Effect.gen(function*() {
        const stream = Deadline.withinStream(Stream.fromEffect(remainingMillis), "1 second")
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* Stream.runCollect(stream), [1_000])
        const nested = Deadline.within(Stream.runCollect(stream), "200 millis")
        assert.deepStrictEqual(yield* nested, [200])
      }))
  })

  const notDurations: Readonly<Record<string, unknown>> = {
    "NaN": Number.NaN,
    "an empty object": {},
    "an object of NaN": { seconds: Number.NaN },
    "a pair with NaN": [Number.NaN, 0],
    "a word": "soon",
    "null": null,
    "a symbol": Symbol("soon"),
    "a boolean": true
  }
  const functions: Readonly<Record<string, (budget: Duration.Input) => Effect.Effect<unknown, unknown>>> = {
    within: (budget) => Deadline.within(Effect.void, budget),
    provide: (budget) => Deadline.provide(Effect.void, budget),
    withinStream: (budget) => Stream.runDrain(Deadline.withinStream(Stream.empty, budget)),
    provideStream: (budget) => Stream.runDrain(Deadline.provideStream(Stream.empty, budget))
  }
  for (const [name, run] of Object.entries(functions)) {
    for (const [label, budget] of Object.entries(notDurations)) {
      it.effect(`${name} with ${label} as its budget is a defect that names the option`, () =>
        Effect.gen(function*() {
          // No value is a duration, which the types refuse.
          const exit = yield* Effect.exit(Effect.suspend(() => run(budget as Duration.Input)))
          const defect = Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? Cause.squash(exit.cause) : undefined
          assert.instanceOf(defect, InvalidOptions)
          assert.deepInclude(defect.issues[0], { option: "deadline", actual: budget })
        }))
    }
  }

  it.effect("DeadlineExceeded survives encoding and decoding", () =>
    Effect.gen(function*() {
      const error = new Deadline.DeadlineExceeded({ at: "Backoff", budget: Duration.seconds(2) })
      const json = yield* Schema.encodeEffect(Deadline.DeadlineExceeded)(error)
      assert.deepStrictEqual(json, { _tag: "DeadlineExceeded", at: "Backoff", budget: 2_000 })
      assert.strictEqual(
        (yield* Schema.decodeEffect(Deadline.DeadlineExceeded)(json)).message,
        "no answer within 2s: the call was backing off between attempts"
      )
    }))
})
