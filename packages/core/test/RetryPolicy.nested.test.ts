import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { type Cause, Duration, Effect, Exit, Fiber, Layer, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { yields } from "./support/probe.ts"
import { during, flaky, plain, stoppedBy } from "./support/retries.ts"

const attempts = (maxAttempts: number) => plain({ maxAttempts })

/** Records why an inner retry stopped, between it and the outer one. */
const recordReasons = () => {
  const reasons: Array<RetryPolicy.RetryStopped["Service"]["why"] | undefined> = []
  const tap = Effect.tapCause((cause: Cause.Cause<unknown>) =>
    Effect.sync(() => reasons.push(Option.getOrUndefined(RetryPolicy.stopped(cause))?.why))
  )
  return { reasons, tap }
}

describe("a retry inside a retry", () => {
  it.effect("a nested retry spends the attempts of the outer one", () =>
    Effect.gen(function*() {
      const { at, call } = flaky(99, "busy")
      const { reasons, tap } = recordReasons()
      const inner = tap(RetryPolicy.retry(call, attempts(5)))
      const exit = yield* during(RetryPolicy.retry(inner, attempts(3)), "1 hour")
      // The backoffs of the inner retry.
      assert.deepStrictEqual(at, [0, 1_000, 3_000])
      assert.deepStrictEqual(reasons, ["OuterAttempts"])
      assert.deepStrictEqual(stoppedBy(exit), { why: "Attempts", attempts: 3 })
    }))

  it.effect("a nested retry leaves its unused attempts to the outer one", () =>
    Effect.gen(function*() {
      const { at, call } = flaky(99, "busy")
      const { reasons, tap } = recordReasons()
      const exit = yield* during(
        call.pipe(RetryPolicy.retry(attempts(2)), tap, RetryPolicy.retry(attempts(5))),
        "1 hour"
      )
      assert.strictEqual(at.length, 5)
      assert.deepStrictEqual(reasons, ["Attempts", "Attempts", "OuterAttempts"])
      assert.deepStrictEqual(stoppedBy(exit), { why: "Attempts", attempts: 5 })
    }))

  it.effect("a nested retry with its own attempts does not spend those of the outer one", () =>
    Effect.gen(function*() {
      const { at, call } = flaky(99, "busy")
      const inner = RetryPolicy.retry(call, attempts(5), { nested: "own" })
      const exit = yield* during(RetryPolicy.retry(inner, attempts(3)), "1 hour")
      assert.strictEqual(at.length, 15)
      assert.deepStrictEqual(stoppedBy(exit), { why: "Attempts", attempts: 3 })
    }))

  it.effect("a nested retry always makes its first attempt", () =>
    Effect.gen(function*() {
      const [first, second] = [flaky(2, "busy"), flaky(99, "busy")]
      const both = Effect.andThen(
        RetryPolicy.retry(first.call, attempts(5)),
        RetryPolicy.retry(second.call, attempts(5))
      )
      yield* during(RetryPolicy.retry(both, attempts(3)), "1 hour")
      assert.deepStrictEqual([first.at.length, second.at.length], [3, 1])
    }))

  it.effect("a nested retry is limited by every outer retry", () =>
    Effect.gen(function*() {
      for (
        const [outermost, middle, innermost, attemptsMade] of [[9, 2, 9, 9], [3, 9, 9, 3], [9, 9, 2, 9], [
          4,
          3,
          2,
          4
        ]] as const
      ) {
        const { at, call } = flaky(99, "busy")
        const nested = call.pipe(
          RetryPolicy.retry(attempts(innermost)),
          RetryPolicy.retry(attempts(middle)),
          RetryPolicy.retry(attempts(outermost))
        )
        const exit = yield* during(nested, "1 day")
        assert.strictEqual(at.length, attemptsMade, `${outermost} ${middle} ${innermost}`)
        assert.deepStrictEqual(stoppedBy(exit), { why: "Attempts", attempts: attemptsMade })
      }
    }))

  it.effect("a nested retry is limited anew in every call", () =>
    Effect.gen(function*() {
      const { at, call } = flaky(99, "busy")
      const nested = call.pipe(RetryPolicy.retry(attempts(5)), RetryPolicy.retry(attempts(3)))
      yield* during(nested, "1 hour")
      yield* during(Effect.all([Effect.exit(nested), Effect.exit(nested)], { concurrency: 2 }), "1 hour")
      assert.strictEqual(at.length, 9)
    }))

  it.effect("a nested retry in a forked fiber is limited by the outer one", () =>
    Effect.gen(function*() {
      const { at, call } = flaky(99, "busy")
      const inner = call.pipe(
        RetryPolicy.retry(attempts(5)),
        Deadline.within("1 day"),
        Effect.forkChild,
        Effect.flatMap(Fiber.join)
      )
      yield* during(RetryPolicy.retry(inner, attempts(3)), "1 hour")
      assert.strictEqual(at.length, 3)
    }))

  it.effect("a retry is not limited by one that has ended", () =>
    Effect.gen(function*() {
      for (const failures of [0, 1, 99]) {
        const { at, call } = flaky(99, "busy")
        const before = Effect.exit(RetryPolicy.retry(flaky(failures, "busy").call, attempts(2)))
        yield* during(Effect.andThen(before, RetryPolicy.retry(call, attempts(5))), "1 hour")
        assert.strictEqual(at.length, 5)
      }
    }))

  it.effect("RetryPolicy.none neither limits nor counts a nested retry", () =>
    Effect.gen(function*() {
      const around = flaky(99, "busy")
      yield* during(around.call.pipe(RetryPolicy.retry(attempts(4)), RetryPolicy.retry(RetryPolicy.none)), "1 hour")
      const between = flaky(99, "busy")
      const nested = between.call.pipe(
        RetryPolicy.retry(attempts(9)),
        RetryPolicy.retry(RetryPolicy.none),
        RetryPolicy.retry(attempts(3))
      )
      yield* during(nested, "1 hour")
      const streamed = flaky(99, "busy")
      const stream = Stream.fromEffect(RetryPolicy.retry(streamed.call, attempts(4)))
      yield* during(Stream.runDrain(RetryPolicy.retryStream(stream, RetryPolicy.none)), "1 hour")
      assert.deepStrictEqual([around.at.length, between.at.length, streamed.at.length], [4, 3, 4])
    }))

  it.effect("a retry in a finalizer of an interrupted call is not limited by the call's retry", () =>
    Effect.gen(function*() {
      const { at, call } = flaky(99, "busy")
      // Without backoff, since a sleep of the TestClock ends at once in an interrupted fiber.
      const inner = RetryPolicy.retry(call, plain({ maxAttempts: 5, baseDelay: 0 }))
      const fiber = yield* Effect.never.pipe(
        RetryPolicy.retry(attempts(2)),
        Effect.onInterrupt(() => Effect.exit(inner)),
        Effect.forkChild({ startImmediately: true })
      )
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(at.length, 5)
    }))
})

describe("several retries at once inside a retry", () => {
  it.effect("concurrent nested retries spend the same attempts", () =>
    Effect.gen(function*() {
      const calls = [flaky(99, "busy"), flaky(99, "busy"), flaky(99, "busy")]
      const attemptsMade = () => calls.reduce((sum, { at }) => sum + at.length, 0)
      const all = Effect.forEach(calls, ({ call }) => Effect.exit(RetryPolicy.retry(call, attempts(9))), {
        concurrency: "unbounded"
      })
      yield* during(RetryPolicy.retry(all, attempts(5)), "1 hour")
      // A first attempt for each, and the four other attempts of the outer retry.
      assert.strictEqual(attemptsMade(), 3 + 4)
    }))

  it.effect("a concurrent nested retry returns the attempts that it did not make", () =>
    Effect.gen(function*() {
      const waiting = flaky(99, "busy")
      const failing = flaky(99, "busy")
      const both = Effect.all([
        RetryPolicy.retry(waiting.call, plain({ maxAttempts: 9, baseDelay: "10 seconds" })),
        Effect.delay(failing.call, "1 second")
      ], { concurrency: 2 })
      const exit = yield* during(RetryPolicy.retry(both, attempts(3)), "1 hour")
      // In the first two attempts one backs off when the other fails. In the third no attempt is left to wait for.
      assert.deepStrictEqual([waiting.at.length, failing.at.length], [3, 2])
      assert.deepStrictEqual(stoppedBy(exit), { why: "Attempts", attempts: 3 })
    }))

  it.effect("concurrent nested retries each have the number of their own attempt", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const call = Effect.flatMap(RetryPolicy.CurrentAttempt, (current) => {
        seen.push(current === undefined ? "first" : `${current.attempt} of ${current.maxAttempts}`)
        return seen.length > 4 ? Effect.void : Effect.fail("busy")
      })
      const two = Effect.all([RetryPolicy.retry(call, attempts(3)), RetryPolicy.retry(call, attempts(3))], {
        concurrency: 2
      })
      yield* during(RetryPolicy.retry(two, attempts(9)), "1 hour")
      assert.deepStrictEqual(seen, ["first", "first", "2 of 9", "2 of 9", "3 of 9", "3 of 9"])
    }))
})

describe("a daemon forked inside a retry", () => {
  it.effect("a daemon's retry is limited as long as the outer retry runs", () =>
    Effect.gen(function*() {
      const daemon = flaky(99, "busy")
      const outer = Effect.andThen(
        Effect.forkDetach(Effect.exit(RetryPolicy.retry(daemon.call, attempts(9))), { startImmediately: true }),
        Effect.never
      )
      const fiber = yield* Effect.forkChild(RetryPolicy.retry(outer, attempts(3)), { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(daemon.at.length, 3)
    }))

  for (const end of ["ended", "was interrupted"] as const) {
    it.effect(`a daemon's retry is not limited once the outer retry ${end}`, () =>
      Effect.gen(function*() {
        const daemon = flaky(99, "busy")
        const later = Effect.delay(Effect.exit(RetryPolicy.retry(daemon.call, attempts(5))), "1 second")
        const outer = Effect.andThen(
          Effect.forkDetach(later, { startImmediately: true }),
          end === "ended" ? Effect.void : Effect.never
        )
        const fiber = yield* Effect.forkChild(RetryPolicy.retry(outer, attempts(2)), { startImmediately: true })
        yield* yields(5)
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(daemon.at.length, 5)
      }))
  }

  it.effect("callers that share a flight spend the attempts of its leader", () =>
    Effect.gen(function*() {
      const { at, call } = flaky(99, "busy")
      const Ask = Deduplicator.operation<string, string>()("ask", { key: (input: number) => input })
      const { dedupe } = yield* Deduplicator.Deduplicator
      const ask = dedupe(RetryPolicy.retry(call, attempts(5)), Ask(1))
      const caller = Effect.exit(RetryPolicy.retry(ask, RetryPolicy.none))
      yield* during(Effect.all([RetryPolicy.retry(ask, attempts(2)), caller], { concurrency: 2 }), "1 hour")
      assert.strictEqual(at.length, 2)
    }).pipe(Effect.provide(Deduplicator.layer())))
})

describe("a stream inside a stream", () => {
  const failing = () => {
    const { at, call } = flaky(99, "busy")
    return { at, stream: Stream.fromEffect(call) }
  }

  it.effect("a nested retry spends the outer attempts in any mix of retry and retryStream", () =>
    Effect.gen(function*() {
      const both = failing()
      const { reasons, tap } = recordReasons()
      const nested = both.stream.pipe(RetryPolicy.retryStream(attempts(5)), RetryPolicy.retryStream(attempts(3)))
      const exit = yield* during(Stream.runDrain(nested), "1 hour")
      assert.deepStrictEqual(stoppedBy(exit), { why: "Attempts", attempts: 3 })
      const inner = failing()
      yield* during(
        RetryPolicy.retry(tap(Stream.runDrain(RetryPolicy.retryStream(inner.stream, attempts(5)))), attempts(3)),
        "1 hour"
      )
      const outer = flaky(99, "busy")
      yield* during(
        Stream.runDrain(
          RetryPolicy.retryStream(Stream.fromEffect(RetryPolicy.retry(outer.call, attempts(5))), attempts(3))
        ),
        "1 hour"
      )
      assert.deepStrictEqual([both.at.length, inner.at.length, outer.at.length], [3, 3, 3])
      assert.deepStrictEqual(reasons, ["OuterAttempts"])
    }))

  it.effect("a nested retryStream with its own attempts does not spend those of the outer one", () =>
    Effect.gen(function*() {
      const { at, stream } = failing()
      const nested = stream.pipe(
        RetryPolicy.retryStream(attempts(2), { nested: "own" }),
        RetryPolicy.retryStream(attempts(3))
      )
      yield* during(Stream.runDrain(nested), "1 hour")
      assert.strictEqual(at.length, 6)
    }))

  it.effect("a retry after the first element is not limited by the outer retryStream", () =>
    Effect.gen(function*() {
      const { at, call } = flaky(99, "busy")
      const parts = Stream.concat(Stream.make("first"), Stream.fromEffect(RetryPolicy.retry(call, attempts(5))))
      yield* during(Stream.runDrain(RetryPolicy.retryStream(parts, attempts(2))), "1 hour")
      assert.strictEqual(at.length, 5)
    }))

  it.effect("CurrentAttempt continues in a nested retryStream", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const stream = Stream.fromEffect(Effect.flatMap(RetryPolicy.CurrentAttempt, (current) => {
        seen.push(current === undefined ? "first" : `${current.attempt} of ${current.maxAttempts}`)
        return Effect.fail("busy")
      }))
      const nested = stream.pipe(RetryPolicy.retryStream(attempts(2)), RetryPolicy.retryStream(attempts(4)))
      yield* during(Stream.runDrain(nested), "1 hour")
      assert.deepStrictEqual(seen, ["first", "2 of 4", "3 of 4", "4 of 4"])
    }))
})

describe("a Sluice inside a Sluice", () => {
  const make = (maxAttempts: number) => Sluice.make({ name: `${maxAttempts}`, retry: attempts(maxAttempts) })
  const withStore = Effect.provide(Layer.fresh(CircuitBreakerStore.layerMemory))

  it.effect("a nested policy spends the attempts of the outer one", () =>
    Effect.gen(function*() {
      const [outer, inner] = [yield* make(3), yield* make(5)]
      const { at, call } = flaky(99, "busy")
      const exit = yield* during(call.pipe(inner.protect(), outer.protect()), "1 hour")
      assert.strictEqual(at.length, 3)
      assert.deepStrictEqual(stoppedBy(exit), { why: "Attempts", attempts: 3 })
      const streamed = flaky(99, "busy")
      yield* during(
        Stream.runDrain(Stream.fromEffect(streamed.call).pipe(inner.protectStream(), outer.protectStream())),
        "1 hour"
      )
      assert.strictEqual(streamed.at.length, 3)
    }).pipe(withStore))

  it.effect("a retry is not limited by a policy whose call has ended, however it ended", () =>
    Effect.gen(function*() {
      for (const attemptTimeout of [undefined, Duration.days(1)]) {
        const outer = yield* Sluice.make({ name: "outer", retry: attempts(2), attemptTimeout })
        for (const failures of [0, 1, 99]) {
          const { at, call } = flaky(99, "busy")
          const before = Effect.exit(outer.protect(flaky(failures, "busy").call))
          yield* during(Effect.andThen(before, RetryPolicy.retry(call, attempts(5))), "1 hour")
          assert.strictEqual(at.length, 5)
        }
        const { at, call } = flaky(99, "busy")
        const fiber = yield* outer.protect(Effect.never).pipe(
          Effect.onInterrupt(() => Effect.exit(RetryPolicy.retry(call, plain({ maxAttempts: 5, baseDelay: 0 })))),
          Effect.forkChild({ startImmediately: true })
        )
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(at.length, 5)
      }
    }).pipe(withStore))

  it.effect("a nested policy does not lift the limit of an outer retry", () =>
    Effect.gen(function*() {
      const inner = yield* make(2)
      for (const failures of [0, 1, 99]) {
        const { at, call } = flaky(99, "busy")
        const before = Effect.exit(inner.protect(flaky(failures, "busy").call))
        const both = Effect.andThen(before, RetryPolicy.retry(call, attempts(9)))
        yield* during(RetryPolicy.retry(both, attempts(4)), "1 hour")
        assert.strictEqual(at.length, failures === 0 ? 4 : 3)
      }
    }).pipe(withStore))

  it.effect("a policy without a retry does not limit a nested policy", () =>
    Effect.gen(function*() {
      const outer = yield* Sluice.make({ name: "outer", attemptTimeout: "1 day" })
      const inner = yield* make(4)
      const { at, call } = flaky(99, "busy")
      const exit = yield* during(call.pipe(inner.protect(), outer.protect()), "1 hour")
      assert.isTrue(Exit.isFailure(exit))
      assert.strictEqual(at.length, 4)
    }).pipe(withStore))
})
