import { assert, describe, it, vi } from "@effect/vitest"
import * as Deadline from "@sluice/core/Deadline"
import { Clock, Duration, Effect, Stream } from "effect"
import { interruptEverywhere, yields } from "./support/probe.ts"

/** A clock whose sleeps are counted, and a body that is counted while it runs. */
const watched = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const counts = { bodies: 0, sleeps: 0 }
  const counted = <A>(what: keyof typeof counts, self: Effect.Effect<A>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        counts[what]++
      }),
      () => self,
      () =>
        Effect.sync(() => {
          counts[what]--
        })
    )
  const counting: Clock.Clock = {
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
    currentTimeMillis: clock.currentTimeMillis,
    currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
    currentTimeNanos: clock.currentTimeNanos,
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: clock.monotonicTimeNanos,
    sleep: (duration) => counted("sleeps", clock.sleep(duration))
  }
  const body = counted("bodies", yields(20))
  return { counts, body, onClock: Effect.provideService(Clock.Clock, counting) }
})

/** The body is over at once. A sleep is called off, and over as soon as its fiber had its turns. */
const nothingLeft = ({ counts }: Effect.Success<typeof watched>, at: string) =>
  Effect.gen(function*() {
    assert.strictEqual(counts.bodies, 0, at)
    yield* yields(10)
    assert.strictEqual(counts.sleeps, 0, at)
  })

describe("leaves neither its body nor its timer behind wherever it is interrupted", () => {
  for (const budget of [Duration.minutes(1), Duration.zero, Duration.infinity]) {
    it.effect(`within ${Duration.format(budget)}`, () =>
      Effect.gen(function*() {
        const points = yield* interruptEverywhere({
          make: watched,
          run: ({ body, onClock }) => onClock(Effect.exit(Deadline.within(Effect.andThen(body, body), budget))),
          after: nothingLeft
        }).pipe(Effect.catchTag("ProbedTooLittle", ({ points }) => Effect.succeed(points)))
        assert.isAtLeast(points, 300)
      }))
  }

  it.effect("within, inside of another and where it wakes up while it is interrupted", () =>
    Effect.gen(function*() {
      const points = yield* interruptEverywhere({
        make: watched,
        run: ({ body, onClock }) => {
          const slow = Effect.onInterrupt(body, () => yields(5))
          return onClock(Effect.exit(slow.pipe(Deadline.within("1 hour"), Deadline.within("1 minute"))))
        },
        after: nothingLeft
      })
      assert.isAtLeast(points, 300)
    }))

  it.effect("withinStream", () =>
    Effect.gen(function*() {
      const points = yield* interruptEverywhere({
        make: watched,
        run: ({ body, onClock }) => {
          const stream = Stream.concat(Stream.fromEffect(body), Stream.fromEffect(body))
          return onClock(Stream.runDrain(Deadline.withinStream(stream, "1 minute")))
        },
        after: nothingLeft
      })
      assert.isAtLeast(points, 300)
    }))

  it.live("within, on the timers of the machine", () =>
    Effect.gen(function*() {
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
      yield* Effect.addFinalizer(() => Effect.sync(() => vi.useRealTimers()))
      const points = yield* interruptEverywhere({
        make: watched,
        run: ({ body }) => Deadline.within(body, "1 minute"),
        after: ({ counts }, at) =>
          Effect.sync(() => assert.deepStrictEqual([counts.bodies, vi.getTimerCount()], [0, 0], at))
      })
      assert.isAtLeast(points, 300)
    }))
})
