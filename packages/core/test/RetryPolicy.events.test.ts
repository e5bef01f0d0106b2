import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deadline from "@sluice/core/Deadline"
import * as Outcome from "@sluice/core/Outcome"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Layer, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { retryAttempts } from "../src/internal/retry/loop.ts"
import { yields } from "./support/probe.ts"
import { during, flaky, plain, stoppedBy } from "./support/retries.ts"

/** Formats events as lines. */
const listener = () => {
  const lines: Array<string> = []
  const onAttempt = ({ attempt, elapsedMillis, maxAttempts, next, outcome }: RetryPolicy.AttemptEvent) => {
    const suffix = next._tag === "Wait"
      ? ` ${Duration.toMillis(next.delay)}`
      : next._tag === "Stop"
      ? ` ${next.why}`
      : ""
    lines.push(`${attempt}/${maxAttempts} ${outcome._tag} ${elapsedMillis}: ${next._tag}${suffix}`)
  }
  return { lines, onAttempt }
}

describe("onAttempt", () => {
  it.effect("onAttempt gets every attempt with its outcome, its duration and what follows", () =>
    Effect.gen(function*() {
      const { lines, onAttempt } = listener()
      const { call } = flaky(2, "busy")
      yield* during(RetryPolicy.retry(Effect.delay(call, "300 millis"), plain(), { onAttempt }), "1 minute")
      assert.deepStrictEqual(lines, [
        "1/4 Failure 300: Wait 1000",
        "2/4 Failure 300: Wait 2000",
        "3/4 Success 300: Done"
      ])
    }))

  it.effect("onAttempt gets a single attempt that succeeds", () =>
    Effect.gen(function*() {
      for (const policy of [plain(), RetryPolicy.none]) {
        const { lines, onAttempt } = listener()
        yield* RetryPolicy.retry(Effect.succeed(1), policy, { onAttempt })
        assert.deepStrictEqual(lines, [`1/${policy.maxAttempts} Success 0: Done`])
      }
    }))

  it.effect("onAttempt gets the reason why no attempt follows", () =>
    Effect.gen(function*() {
      const { lines, onAttempt } = listener()
      const retry = <E>(call: Effect.Effect<unknown, E>) =>
        Effect.exit(RetryPolicy.retry(call, RetryPolicy.constant({ maxAttempts: 2, baseDelay: 0 }), { onAttempt }))
      yield* retry(Effect.fail("busy"))
      yield* retry(Effect.die("bug"))
      yield* retry(Effect.fail({ retryAfter: Duration.days(1) }))
      yield* Deadline.within(retry(Effect.fail({ retryAfter: Duration.seconds(9) })), "5 seconds")
      yield* RetryPolicy.retry(retry(Effect.fail("busy")), plain({ maxAttempts: 2 }))
      assert.deepStrictEqual(lines, [
        "1/2 Failure 0: Wait 0",
        "2/2 Failure 0: Stop Attempts",
        "1/2 Failure 0: Stop Final",
        "1/2 Failure 0: Stop RetryAfterTooLong",
        "1/2 Failure 0: Stop Deadline",
        "1/2 Failure 0: Wait 0",
        "2/2 Failure 0: Stop Attempts"
      ])
    }))

  it.effect("onAttempt gets the outcome of the classifier, not of the exit", () =>
    Effect.gen(function*() {
      const { lines, onAttempt } = listener()
      const policy = plain({ maxAttempts: 2 })
      const throttled = () => Outcome.throttled({ retryAfter: Duration.seconds(9) })
      yield* during(RetryPolicy.retry(Effect.void, policy, { onAttempt, classify: throttled }), "1 minute")
      yield* Effect.exit(RetryPolicy.retry(Effect.fail("404"), policy, { onAttempt, classify: () => Outcome.success }))
      assert.deepStrictEqual(lines, [
        "1/2 Throttled 0: Wait 9000",
        "2/2 Throttled 0: Stop Attempts",
        "1/2 Success 0: Done"
      ])
    }))

  it.effect("onAttempt numbers the attempts of nested retries in one sequence", () =>
    Effect.gen(function*() {
      const [inner, outer] = [listener(), listener()]
      const { call } = flaky(99, "busy")
      const nested = call.pipe(
        RetryPolicy.retry(plain({ maxAttempts: 2 }), inner),
        RetryPolicy.retry(plain({ maxAttempts: 3 }), outer)
      )
      yield* during(nested, "1 minute")
      assert.deepStrictEqual(inner.lines, [
        "1/3 Failure 0: Wait 1000",
        "2/3 Failure 0: Stop Attempts",
        "3/3 Failure 0: Stop OuterAttempts"
      ])
      assert.deepStrictEqual(outer.lines, ["1/3 Failure 1000: Wait 1000", "3/3 Failure 0: Stop Attempts"])
    }))

  it.effect("onAttempt continues the sequence when a nested retry succeeds at its first attempt", () =>
    Effect.gen(function*() {
      const inner = listener()
      const { call } = flaky(1, "busy")
      const once = RetryPolicy.retry(Effect.void, plain({ maxAttempts: 7 }), inner)
      yield* during(RetryPolicy.retry(Effect.andThen(once, call), plain({ maxAttempts: 3 })), "1 minute")
      assert.deepStrictEqual(inner.lines, ["1/3 Success 0: Done", "2/3 Success 0: Done"])
    }))

  it.effect("onAttempt is not called for an interrupted attempt", () =>
    Effect.gen(function*() {
      const { lines, onAttempt } = listener()
      const fiber = yield* Effect.forkChild(RetryPolicy.retry(Effect.never, plain(), { onAttempt }))
      yield* yields(3)
      yield* Fiber.interrupt(fiber)
      assert.isEmpty(lines)
    }))

  it.effect("onAttempt of a stream is called at its first element or at its end", () =>
    Effect.gen(function*() {
      const { lines, onAttempt } = listener()
      const { call } = flaky(1, "busy")
      const part = Effect.delay(Effect.succeed("part"), "2 seconds")
      const stream = Stream.unwrap(Effect.as(call, Stream.concat(Stream.fromEffect(part), Stream.fromEffect(part))))
      yield* during(Stream.runDrain(RetryPolicy.retryStream(stream, plain(), { onAttempt })), "1 minute")
      yield* Stream.runDrain(RetryPolicy.retryStream(Stream.empty, plain(), { onAttempt }))
      yield* Effect.exit(Stream.runDrain(RetryPolicy.retryStream(Stream.die("bug"), plain(), { onAttempt })))
      assert.deepStrictEqual(lines, [
        "1/4 Failure 0: Wait 1000",
        "2/4 Success 2000: Done",
        "1/4 Success 0: Done",
        "1/4 Failure 0: Stop Final"
      ])
    }))
})

describe("a backoff that is refused", () => {
  it.effect("a refused backoff ends the retry with the refusal", () =>
    Effect.gen(function*() {
      let calls = 0
      const attempt = Effect.suspend(() => (calls++, Effect.fail("busy")))
      const refuse = () => calls < 2 ? Effect.void : Effect.fail("refused")
      const exit = yield* Effect.exit(retryAttempts(() => attempt, plain(), {}, refuse))
      assert.deepStrictEqual(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption), Option.some("refused"))
      assert.deepStrictEqual([calls, stoppedBy(exit)], [2, { why: "Refused", attempts: 2 }])
    }))

  it.effect("a refused backoff returns its attempt to the outer retry", () =>
    Effect.gen(function*() {
      let calls = 0
      const attempt = Effect.suspend(() => (calls++, Effect.fail("busy")))
      const inner = retryAttempts(() => attempt, plain(), {}, () => Effect.fail("refused"))
      const exit = yield* during(RetryPolicy.retry(inner, plain({ maxAttempts: 3 })), "1 minute")
      assert.deepStrictEqual([calls, stoppedBy(exit)], [3, { why: "Attempts", attempts: 3 }])
    }))

  it.effect("a report says Refused when an open circuit ends the retry", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({
        name: "gpt",
        retry: plain(),
        breaker: { trip: CircuitBreaker.consecutive(1), openFor: "1 hour" }
      })
      const [exit, report] = yield* Sluice.withReport(gpt.protect(Effect.fail("503")))
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual([report.stopped, report.attempts], ["Refused", 1])
    }).pipe(Effect.provide(Layer.fresh(CircuitBreakerStore.layerMemory))))

  it.effect("an interrupted backoff has no stop reason", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(retryAttempts(() => Effect.fail("busy"), plain(), {}, Effect.sleep))
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(fiber)
      assert.isUndefined(stoppedBy(yield* Fiber.await(fiber)))
    }))
})

describe("delay", () => {
  const eventsWith = <A>(delay: RetryPolicy.RetryCallOptions<A, string>["delay"]) =>
    Effect.gen(function*() {
      const { lines, onAttempt } = listener()
      const { call } = flaky(2, "busy")
      const exit = yield* during(Effect.exit(RetryPolicy.retry(call, plain(), { delay, onAttempt })), "1 minute")
      return { lines, exit }
    })

  it.effect("the delay option gets the policy's delay and replaces it", () =>
    Effect.gen(function*() {
      const delays: Array<string> = []
      const { lines } = yield* eventsWith(({ attempt, delay, outcome }) => {
        delays.push(`${attempt} ${outcome._tag} ${Duration.toMillis(delay)}`)
        return attempt === 1 ? Duration.zero : Duration.millis(30)
      })
      assert.deepStrictEqual(delays, ["1 Failure 1000", "2 Failure 2000"])
      assert.deepStrictEqual(lines, ["1/4 Failure 0: Wait 0", "2/4 Failure 0: Wait 30", "3/4 Success 0: Done"])
    }))

  it.effect("the delay option gets a delay with the Retry-After in it, and can shorten it", () =>
    Effect.gen(function*() {
      const delays: Array<number> = []
      let calls = 0
      const call = Effect.suspend(() =>
        ++calls < 2 ? Effect.fail({ retryAfter: Duration.seconds(9) }) : Effect.succeed(calls)
      )
      const delay: RetryPolicy.RetryCallOptions<number, unknown>["delay"] = ({ delay }) => {
        delays.push(Duration.toMillis(delay))
        return Duration.zero
      }
      assert.strictEqual(yield* RetryPolicy.retry(call, plain(), { delay }), 2)
      assert.isAtLeast(delays[0] ?? 0, 9_000)
    }))

  it.effect("the delay option is not called after the last attempt, and the deadline limits it", () =>
    Effect.gen(function*() {
      let calls = 0
      const delay = () => {
        calls++
        return Duration.seconds(10)
      }
      const failing = RetryPolicy.retry(Effect.fail("busy"), plain({ maxAttempts: 1 }), { delay })
      yield* Effect.exit(failing)
      assert.strictEqual(calls, 0)
      const late = yield* Effect.exit(
        Deadline.within(RetryPolicy.retry(Effect.fail("busy"), plain(), { delay }), "5 seconds")
      )
      assert.strictEqual(calls, 1)
      assert.deepStrictEqual(
        Exit.isFailure(late) ? Option.getOrUndefined(RetryPolicy.stopped(late.cause)) : undefined,
        { why: "Deadline", attempts: 1 }
      )
    }))

  it.effect("an invalid delay falls back to the policy's", () =>
    Effect.gen(function*() {
      const { lines } = yield* eventsWith(() => Duration.millis(Number.NaN))
      const negative = yield* eventsWith(() => Duration.millis(-5))
      assert.strictEqual(lines[2], "3/4 Success 0: Done")
      assert.strictEqual(negative.lines[2], "3/4 Success 0: Done")
    }))

  it.effect("the delay option applies to streams", () =>
    Effect.gen(function*() {
      const { lines, onAttempt } = listener()
      const { call } = flaky(1, "busy")
      const delay = () => Duration.millis(7)
      const stream = RetryPolicy.retryStream(Stream.fromEffect(call), plain(), { delay, onAttempt })
      yield* during(Stream.runDrain(stream), "7 millis")
      assert.deepStrictEqual(lines, ["1/4 Failure 0: Wait 7", "2/4 Success 0: Done"])
    }))
})
