import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { assert, describe, it } from "@effect/vitest"
import { Effect, References, Stream } from "effect"
import { interruptEverywhere, yields } from "./support/probe.ts"
import { plain } from "./support/retries.ts"

/** An attempt that holds something while it runs: how many were begun, and how many run. */
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

/** Nothing runs any more, and nothing begins to. */
const over = ({ counts }: { readonly counts: { readonly begun: number; readonly running: number } }, at: string) =>
  Effect.gen(function*() {
    const { begun } = counts
    yield* yields(20)
    assert.deepStrictEqual(counts, { begun, running: 0 }, at)
  })

describe("leaves no attempt behind wherever it is interrupted", () => {
  const cases: ReadonlyArray<
    readonly [string, (call: Effect.Effect<string, string>) => Effect.Effect<unknown, string>]
  > = [
    ["retry", (call) => RetryPolicy.retry(call, atOnce)],
    ["retry with a wait in between", (call) => RetryPolicy.retry(call, plain({ baseDelay: "1 hour" }))],
    [
      "retry that is listened to",
      (call) => RetryPolicy.retry(call, atOnce, { onAttempt: () => {}, classify: () => undefined })
    ],
    ["retry that counts for itself", (call) => RetryPolicy.retry(call, atOnce, { nested: "own" })],
    [
      "retry inside of retry",
      (call) => call.pipe(RetryPolicy.retry(atOnce), RetryPolicy.retry(plain({ maxAttempts: 9 })))
    ],
    ["several at once inside of retry", (call) =>
      RetryPolicy.retry(
        Effect.all([RetryPolicy.retry(call, atOnce), RetryPolicy.retry(call, atOnce)], { concurrency: 2 }),
        plain({ maxAttempts: 9, baseDelay: 0 })
      )]
  ]
  for (const [name, run] of cases) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const points = yield* interruptEverywhere({
          make: Effect.sync(() => attempts(failsTwice)),
          run: ({ call }) => run(call),
          after: over
        })
        assert.isAtLeast(points, 300)
      }))
  }

  it.effect("retryStream", () =>
    Effect.gen(function*() {
      const points = yield* interruptEverywhere({
        make: Effect.sync(() => attempts(failsTwice)),
        run: ({ call }) => {
          const stream = Stream.concat(Stream.fromEffect(call), Stream.fromEffect(Effect.as(yields(10), "last")))
          return Stream.runDrain(RetryPolicy.retryStream(stream, atOnce))
        },
        after: over
      })
      assert.isAtLeast(points, 300)
    }))

  it.effect("a scope of a stream's attempt", () =>
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
      after: over
    }))
})

it.effect("gives back what it had taken of the attempts of the retry around it, wherever it is interrupted", () =>
  Effect.gen(function*() {
    const inner = RetryPolicy.retry(Effect.andThen(yields(2), Effect.fail("busy")), plain({ baseDelay: "1 hour" }))
    for (const operations of [3, 4, 5, 6, 7, 8, 9]) {
      for (let turns = 0; turns < 43; turns++) {
        let attempts = 0
        // It is cut off in its first try, when it takes a second one, or while it waits for that.
        const attempt = Effect.raceFirst(inner, Effect.andThen(yields(turns), Effect.fail("cut")))
        yield* RetryPolicy.retry(attempt, plain({ maxAttempts: 3, baseDelay: 0 }), {
          onAttempt: () => {
            attempts++
          }
        }).pipe(Effect.provideService(References.MaxOpsBeforeYield, operations), Effect.exit)
        assert.strictEqual(attempts, 3, `cut off after ${turns} turns of ${operations} operations`)
      }
    }
  }))
