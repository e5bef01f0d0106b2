import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { assert, describe, it, vi } from "@effect/vitest"
import { Effect, References, Stream } from "effect"
import { interruptEverywhere, yields } from "./support/probe.ts"
import { plain } from "./support/retries.ts"

// Each test makes hundreds of runs, which takes seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

/** An attempt that holds a resource, with counters of those begun and running. */
const attempts = (attempt: (nth: number) => Effect.Effect<string, string>) => {
  const counts = { begun: 0, running: 0 }
  const call = Effect.acquireUseRelease(
    Effect.sync(() => {
      counts.running++
      return ++counts.begun
    }),
    attempt,
    () =>
      Effect.sync(() => {
        counts.running--
      })
  )
  return { counts, call }
}

const failsTwice = (nth: number) =>
  Effect.andThen(yields(4), nth % 3 === 0 ? Effect.succeed("answer") : Effect.fail("busy"))
const atOnce = plain({ baseDelay: 0 })

/** No attempt runs, and none begins. */
const noAttempts = (
  { counts }: { readonly counts: { readonly begun: number; readonly running: number } },
  at: string
) =>
  Effect.gen(function*() {
    const { begun } = counts
    yield* yields(20)
    assert.deepStrictEqual(counts, { begun, running: 0 }, at)
  })

describe("RetryPolicy under interruption", () => {
  const cases: ReadonlyArray<
    readonly [string, (call: Effect.Effect<string, string>) => Effect.Effect<unknown, string>]
  > = [
    ["retry", (call) => RetryPolicy.retry(call, atOnce)],
    ["retry with a backoff", (call) => RetryPolicy.retry(call, plain({ baseDelay: "1 hour" }))],
    [
      "retry with onAttempt and classify",
      (call) => RetryPolicy.retry(call, atOnce, { onAttempt: () => {}, classify: () => undefined })
    ],
    ["nested retry with its own attempts", (call) => RetryPolicy.retry(call, atOnce, { nested: "own" })],
    [
      "retry inside a retry",
      (call) => call.pipe(RetryPolicy.retry(atOnce), RetryPolicy.retry(plain({ maxAttempts: 9 })))
    ],
    ["two retries at once inside a retry", (call) =>
      RetryPolicy.retry(
        Effect.all([RetryPolicy.retry(call, atOnce), RetryPolicy.retry(call, atOnce)], { concurrency: 2 }),
        plain({ maxAttempts: 9, baseDelay: 0 })
      )]
  ]
  for (const [name, run] of cases) {
    it.effect(`${name} interrupted anywhere leaves no attempt behind`, () =>
      Effect.gen(function*() {
        const points = yield* interruptEverywhere({
          make: Effect.sync(() => attempts(failsTwice)),
          run: ({ call }) => run(call),
          after: noAttempts
        })
        assert.isAtLeast(points, 300)
      }))
  }

  it.effect("retryStream interrupted anywhere leaves no attempt behind", () =>
    Effect.gen(function*() {
      const points = yield* interruptEverywhere({
        make: Effect.sync(() => attempts(failsTwice)),
        run: ({ call }) => {
          const stream = Stream.concat(Stream.fromEffect(call), Stream.fromEffect(Effect.as(yields(10), "last")))
          return Stream.runDrain(RetryPolicy.retryStream(stream, atOnce))
        },
        after: noAttempts
      })
      assert.isAtLeast(points, 300)
    }))

  it.effect("retryStream interrupted anywhere closes the scope of its attempt", () =>
    interruptEverywhere({
      make: Effect.sync(() => ({ counts: { begun: 0, running: 0 } })),
      run: ({ counts }) => {
        const scoped = Effect.acquireRelease(
          Effect.sync(() => {
            counts.running++
            return ++counts.begun
          }),
          () =>
            Effect.sync(() => {
              counts.running--
            })
        )
        const stream = Stream.unwrap(Effect.map(scoped, (nth) =>
          nth < 2
            ? Stream.fail("busy")
            : Stream.concat(Stream.make("first"), Stream.fromEffect(Effect.as(yields(20), "last")))))
        return Stream.runDrain(RetryPolicy.retryStream(stream, atOnce))
      },
      after: noAttempts
    }))
})

it.effect("a nested retry interrupted anywhere returns its attempts to the outer retry", () =>
  Effect.gen(function*() {
    const inner = RetryPolicy.retry(Effect.andThen(yields(2), Effect.fail("busy")), plain({ baseDelay: "1 hour" }))
    for (const operations of [3, 4, 5, 6, 7, 8, 9]) {
      for (let turns = 0; turns < 43; turns++) {
        let attempts = 0
        // The inner retry is interrupted in its first attempt, when it takes a second one, or during the backoff.
        const attempt = Effect.raceFirst(inner, Effect.andThen(yields(turns), Effect.fail("cut")))
        yield* RetryPolicy.retry(attempt, plain({ maxAttempts: 3, baseDelay: 0 }), {
          onAttempt: () => {
            attempts++
          }
        }).pipe(Effect.provideService(References.MaxOpsBeforeYield, operations), Effect.exit)
        assert.strictEqual(attempts, 3, `interrupted after ${turns} turns of ${operations} operations`)
      }
    }
  }))
