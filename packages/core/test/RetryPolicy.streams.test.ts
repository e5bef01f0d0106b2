import * as Deadline from "@sluice/core/Deadline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { yields } from "./support/probe.ts"
import { Busy, busy, during, flaky, plain, stoppedBy } from "./support/retries.ts"

describe("RetryPolicy.retryStream", () => {
  /** A stream whose attempts each hold a resource, with counters of those opened and open. */
  const source = <A, E>(attempts: (attempt: number) => Stream.Stream<A, E>) => {
    const counts = { opened: 0, open: 0, mostOpen: 0 }
    const stream = Stream.unwrap(Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => {
          counts.mostOpen = Math.max(counts.mostOpen, ++counts.open)
          return ++counts.opened
        }),
        () =>
          Effect.sync(() => {
            counts.open--
          })
      ),
      attempts
    ))
    return { counts, stream }
  }

  it.effect("retryStream retries before the first element, and closes each attempt before the next", () =>
    Effect.gen(function*() {
      const { counts, stream } = source((attempt) =>
        attempt < 3 ? Stream.fail("busy") : Stream.make(`attempt ${attempt}`, "end")
      )
      const exit = yield* during(Stream.runCollect(stream.pipe(RetryPolicy.retryStream(plain()))), "3 seconds")
      assert.deepStrictEqual(exit, Exit.succeed(["attempt 3", "end"]))
      assert.deepStrictEqual(counts, { opened: 3, open: 0, mostOpen: 1 })
    }))

  it.effect("retryStream retries a stream that fails to open", () =>
    Effect.gen(function*() {
      const { at, call } = flaky(2, "busy")
      const stream = Stream.unwrap(Effect.map(call, (answer) => Stream.make(answer)))
      const exit = yield* during(Stream.runCollect(RetryPolicy.retryStream(stream, plain())), "3 seconds")
      assert.deepStrictEqual(exit, Exit.succeed(["answer"]))
      assert.deepStrictEqual(at, [0, 1_000, 3_000])
    }))

  it.effect("retryStream does not retry after the first element", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const { counts, stream } = source(() => Stream.concat(Stream.make("half an answer"), Stream.fail("cut")))
      const exit = yield* RetryPolicy.retryStream(stream, plain()).pipe(
        Stream.runForEach((part) => Effect.sync(() => seen.push(part))),
        Effect.exit
      )
      assert.deepStrictEqual(exit, Exit.fail("cut"))
      assert.deepStrictEqual(seen, ["half an answer"])
      assert.deepStrictEqual(counts, { opened: 1, open: 0, mostOpen: 1 })
    }))

  it.effect("retryStream treats a stream that ends without an element as a success", () =>
    Effect.gen(function*() {
      const { counts, stream } = source(() => Stream.empty)
      assert.deepStrictEqual(yield* Stream.runCollect(RetryPolicy.retryStream(stream, plain())), [])
      assert.deepStrictEqual(counts, { opened: 1, open: 0, mostOpen: 1 })
    }))

  it.effect("retryStream says why it stopped", () =>
    Effect.gen(function*() {
      const run = (error: unknown, policy = plain()) =>
        during(Stream.runDrain(RetryPolicy.retryStream(Stream.fail(error), policy)), "1 minute")
      assert.deepStrictEqual(stoppedBy(yield* run("busy")), { why: "Attempts", attempts: 4 })
      assert.deepStrictEqual(stoppedBy(yield* run(new Busy({ isRetryable: false }))), { why: "Final", attempts: 1 })
      assert.deepStrictEqual(stoppedBy(yield* run(busy("1 day"))), { why: "RetryAfterTooLong", attempts: 1 })
      const dies = yield* during(Stream.runDrain(RetryPolicy.retryStream(Stream.die("bug"), plain())), "1 minute")
      assert.deepStrictEqual(stoppedBy(dies), { why: "Final", attempts: 1 })
    }))

  it.effect("retryStream waits for a Retry-After and respects the deadline", () =>
    Effect.gen(function*() {
      const hinted = flaky(1, busy("5 seconds"))
      yield* during(Stream.runDrain(RetryPolicy.retryStream(Stream.fromEffect(hinted.call), plain())), "5 seconds")
      assert.deepStrictEqual(hinted.at, [0, 5_000])
      const { at, call } = flaky(9, busy("5 seconds"))
      const exit = yield* during(
        Stream.runDrain(
          RetryPolicy.retryStream(Stream.fromEffect(call), plain()).pipe(Deadline.withinStream("4 seconds"))
        ),
        "0 seconds"
      )
      assert.deepStrictEqual([at.length, stoppedBy(exit)], [1, { why: "Deadline", attempts: 1 }])
    }))

  it.effect("retryStream starts anew with each run", () =>
    Effect.gen(function*() {
      const { counts, stream } = source(() => Stream.fail("busy"))
      const retried = Stream.runDrain(RetryPolicy.retryStream(stream, plain({ maxAttempts: 2 })))
      yield* during(retried, "1 second")
      yield* during(retried, "1 second")
      assert.deepStrictEqual(counts, { opened: 4, open: 0, mostOpen: 1 })
    }))

  it.effect("retryStream closes the attempt when its consumer stops early", () =>
    Effect.gen(function*() {
      const { counts, stream } = source(() => Stream.concat(Stream.make("first"), Stream.never))
      const first = yield* Stream.runCollect(Stream.take(RetryPolicy.retryStream(stream, plain()), 1))
      assert.deepStrictEqual([first, counts.open], [["first"], 0])
    }))

  it.effect("retryStream closes the attempt when it is interrupted, during an attempt or between two", () =>
    Effect.gen(function*() {
      for (const attempts of [() => Stream.never, () => Stream.fail("busy")]) {
        const { counts, stream } = source<never, string>(attempts)
        const fiber = yield* Effect.forkChild(Stream.runDrain(RetryPolicy.retryStream(stream, plain())))
        yield* yields(20)
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual([counts.opened, counts.open], [1, 0])
      }
    }))
})
