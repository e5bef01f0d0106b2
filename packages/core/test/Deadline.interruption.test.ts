import { assert, describe, it, vi } from "@effect/vitest"
import * as Deadline from "@sluice/core/Deadline"
import { Clock, Duration, Effect, Stream } from "effect"
import { interruptEverywhere, yields } from "./support/probe.ts"

// Each test makes hundreds of runs, which takes seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

/** A clock that counts its pending sleeps, and a body that is counted while it runs. */
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

/** The body ends at once. A sleep is interrupted, and ends when its fiber has had its turns. */
const nothingLeft = ({ counts }: Effect.Success<typeof watched>, at: string) =>
  Effect.gen(function*() {
    assert.strictEqual(counts.bodies, 0, at)
    yield* yields(10)
    assert.strictEqual(counts.sleeps, 0, at)
  })

describe("Deadline under interruption", () => {
  for (const budget of [Duration.minutes(1), Duration.zero, Duration.infinity]) {
    it.effect(`within ${Duration.format(budget)} interrupted anywhere leaves neither body nor timer behind`, () =>
      Effect.gen(function*() {
        const points = yield* interruptEverywhere({
          make: watched,
          run: ({ body, onClock }) => onClock(Effect.exit(Deadline.within(Effect.andThen(body, body), budget))),
          after: nothingLeft
        }).pipe(Effect.catchTag("ProbedTooLittle", ({ points }) => Effect.succeed(points)))
        assert.isAtLeast(points, 300)
      }))
  }

  it.effect("a nested within interrupted anywhere leaves neither body nor timer behind", () =>
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

  it.effect("withinStream interrupted anywhere leaves neither body nor timer behind", () =>
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

  it.live("within on setTimeout interrupted anywhere leaves neither body nor timer behind", () =>
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
