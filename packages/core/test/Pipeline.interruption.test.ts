import { assert, describe, it, vi } from "@effect/vitest"
import { Clock, Duration, Effect, References, Stream } from "effect"
import * as Pipeline from "../src/Pipeline.ts"
import * as RetryPolicy from "../src/RetryPolicy.ts"
import { interruptEverywhere } from "./support/probe.ts"

// Each test makes hundreds of runs, which takes seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

// Not `yields`, which repeats, and so sleeps on the clock.
const turns = (left: number): Effect.Effect<void> =>
  left <= 0 ? Effect.void : Effect.andThen(Effect.yieldNow, Effect.suspend(() => turns(left - 1)))

/** Runs an effect on a clock whose short sleeps take three scheduler turns, so that an interruption can hit a sleep. */
const onFastClock = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const sleep = (duration: Duration.Duration) => Duration.toMinutes(duration) > 1 ? Effect.never : turns(3)
    return Effect.provideService(self, Clock.Clock, { ...clock, sleep })
  })

/** Counts how often each opened resource was closed. */
class Ledger {
  readonly closed: Array<number> = []

  /** Holds a resource for so many turns, and takes one turn to release it. */
  readonly hold = <A, E, R>(held: number, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.acquireUseRelease(
      Effect.sync(() => this.closed.push(0) - 1),
      () => Effect.andThen(turns(held), self),
      (opened) =>
        Effect.andThen(
          turns(1),
          Effect.sync(() => {
            this.closed[opened] = (this.closed[opened] ?? 0) + 1
          })
        )
    )

  readonly isBalanced = (at: string) =>
    Effect.suspend(() => {
      const opened = this.closed.length
      assert.deepStrictEqual(this.closed, Array.from({ length: opened }, () => 1), at)
      return Effect.map(
        turns(10),
        () => assert.strictEqual(this.closed.length, opened, `started after the interruption, ${at}`)
      )
    })
}

// From yielding every few operations, which interrupts early, to yielding only where the stages do.
const operationsBeforeYield = [4, 6, 9, 14, 24, 48, 2_048]

/** Interrupts a run at every point. Returns how many resources the longest run opened. */
const probe = (run: (ledger: Ledger) => Effect.Effect<unknown, unknown>) =>
  Effect.gen(function*() {
    let most = 0
    let nth = 0
    const points = yield* interruptEverywhere({
      make: Effect.sync(() => new Ledger()),
      run: (ledger) =>
        Effect.provideService(
          onFastClock(run(ledger)),
          References.MaxOpsBeforeYield,
          operationsBeforeYield[nth++ % operationsBeforeYield.length] ?? 0
        ),
      after: (ledger, at) =>
        Effect.suspend(() => {
          most = Math.max(most, ledger.closed.length)
          return ledger.isBalanced(at)
        })
    })
    assert.isAtLeast(points, 300)
    return most
  })

/** A stage that times out, is retried and recovered from, and a stage that succeeds in time. */
const eventful = ({ hold }: Ledger) => {
  const nested = Pipeline.make<number>("nested").pipe(
    Pipeline.stage("slow", (n) => hold(9, Effect.succeed(n)), {
      timeout: "1 second",
      retry: RetryPolicy.constant({ maxAttempts: 2 }),
      recover: (_, n) => hold(3, Effect.succeed(n))
    }),
    Pipeline.stage("fail", (n) => hold(2, Effect.fail(n)))
  )
  return Pipeline.make<number>("eventful").pipe(
    Pipeline.stage("nested", nested, { timeout: "1 hour", recover: (_, n) => hold(3, Effect.succeed(n)) }),
    Pipeline.stage("quick", (n) => hold(1, Effect.succeed(n)), { timeout: "1 second" })
  )
}

// Two attempts and their recovery, the failure and its recovery, and the success.
const resourcesOfEventful = 6

const brief = ({ hold }: Ledger) =>
  Pipeline.make<number>("brief").pipe(
    Pipeline.stage("hold", (n) => hold(n % 4, n % 3 === 0 ? Effect.fail(n) : Effect.succeed(n)), {
      timeout: "1 second",
      recover: (_, n) => hold(1, Effect.succeed(n))
    }),
    Pipeline.stage("again", (n) => hold(2, Effect.succeed(n)))
  )

const ways = [
  ["one at a time", { concurrency: 1 }],
  ["in order", { concurrency: 3 }],
  ["as they finish", { concurrency: 3, unordered: true }]
] as const

describe("Pipeline under interruption", () => {
  it.effect("a pipeline interrupted anywhere closes each resource once, through timeouts, retries and recoveries", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* probe((ledger) => eventful(ledger)(1)), resourcesOfEventful)
    }))

  it.effect("a pipeline with timings interrupted anywhere closes each resource once", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* probe((ledger) => Pipeline.withTimings(eventful(ledger))(1)), resourcesOfEventful)
    }))

  for (const [way, options] of ways) {
    it.effect(`a stream interrupted anywhere leaves nothing behind, ${way}`, () =>
      probe((ledger) => Stream.runDrain(Pipeline.runStream(Stream.range(1, 8), brief(ledger), options))))

    it.effect(`a stream of exits interrupted anywhere leaves nothing behind, ${way}`, () =>
      probe((ledger) =>
        Pipeline.runStreamExit(Stream.range(1, 8), brief(ledger), options).pipe(
          // A slow consumer.
          Stream.runForEach(() => turns(4))
        )
      ))
  }

  it.effect("a stream with a failing input interrupted anywhere leaves nothing behind", () =>
    probe((ledger) => {
      const failing = Pipeline.make<number>("failing").pipe(
        Pipeline.stage("hold", (n) => ledger.hold(12, n === 5 ? Effect.fail(n) : Effect.succeed(n)))
      )
      return Stream.runDrain(Pipeline.runStream(Stream.range(1, 8), failing, { concurrency: 3 }))
    }))
})
