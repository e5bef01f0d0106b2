import * as Deduplicator from "@sluice/core/Deduplicator"
import * as Outcome from "@sluice/core/Outcome"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { failureOf, fork, range, timed } from "./support/effects.ts"
import {
  answering,
  Ask,
  breaker,
  Cached,
  inTurn,
  makeGpt,
  refusedBy,
  retry,
  stateTag,
  withStore
} from "./support/policies.ts"

describe("Sluice with deduplicated calls", () => {
  for (const leaves of [false, true]) {
    it.effect(`500 equal calls make one attempt${leaves ? ", also when the first caller leaves" : ""}`, () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(3), breaker: breaker(1), backpressure: { capacity: 1 } })
        const { effect, runs } = inTurn(answering("2 seconds"))
        const [first, ...others] = yield* Effect.forEach(
          range(500),
          () => fork(gpt.protect(effect, { dedupe: Ask("x") }))
        )
        yield* TestClock.adjust("1 second")
        if (leaves) yield* Fiber.interrupt(first!)
        yield* TestClock.adjust("1 second")
        const answers = yield* Fiber.joinAll(leaves ? others : [first!, ...others])
        assert.deepStrictEqual([answers.length, new Set(answers)], [leaves ? 499 : 500, new Set(["an answer"])])
        assert.strictEqual(runs(), 1)
        assert.deepInclude(yield* gpt.deduplicator.stats, { flights: 0, led: 1, joined: 499 })
      }).pipe(withStore))
  }

  it.effect("a cached result needs neither a slot nor a closed circuit", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1), backpressure: { capacity: 1 } })
      const call = gpt.protect(Effect.succeed("an answer"), { dedupe: Cached("x") })
      yield* call
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      yield* fork(gpt.protect(Effect.never, { key: "other" }))
      const [exit, report] = yield* Sluice.withReport(call)
      assert.deepStrictEqual([exit, report.served, report.attempts], [Exit.succeed("an answer"), "Cached", 0])
    }).pipe(withStore))

  it.effect("a flight has the latest deadline of its callers, and each caller leaves at its own", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ backpressure: { capacity: 1 } })
      const { effect, runs } = inTurn(answering("8 seconds"))
      const call = (deadline: Duration.Input) => timed(gpt.protect(effect, { dedupe: Ask("x"), deadline }), 0)
      const short = yield* fork(call("2 seconds"))
      const long = yield* fork(call("10 seconds"))
      yield* TestClock.adjust("3 seconds")
      const [left, after] = yield* Fiber.join(short)
      assert.strictEqual(refusedBy(left), "DeadlineExceeded at Attempt")
      assert.isTrue(after >= 2_000 && after < 2_100, `left after ${after} ms`)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* Fiber.join(long), [Exit.succeed("an answer"), 8_000])
      assert.strictEqual(runs(), 1)
    }).pipe(withStore))

  it.effect("a dependency that hangs opens the circuit, even if every caller has a deadline", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1) })
      const call = (deadline: Duration.Input) => gpt.protect(Effect.never, { dedupe: Ask("x"), deadline })
      const fibers = yield* Effect.forEach(["2 seconds", "3 seconds"] as const, (deadline) => fork(call(deadline)))
      yield* TestClock.adjust("4 seconds")
      for (const fiber of fibers) {
        assert.strictEqual(refusedBy(yield* Fiber.await(fiber)), "DeadlineExceeded at Attempt")
      }
      assert.strictEqual(yield* stateTag(gpt), "Open")
      assert.deepInclude(yield* gpt.deduplicator.stats, { flights: 0 })
    }).pipe(withStore))

  it.effect("a dependency that hangs opens the circuit, also if the attempt began after its callers' deadlines were set", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1), backpressure: { capacity: 1, queue: 1 } })
      yield* fork(gpt.protect(answering("1 second"), { key: "other" }))
      const waiting = yield* fork(gpt.protect(Effect.never, { dedupe: Ask("x"), deadline: "3 seconds" }))
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(refusedBy(yield* Fiber.await(waiting)), "DeadlineExceeded at Attempt")
      assert.strictEqual(yield* stateTag(gpt), "Open")
    }).pipe(withStore))

  it.effect("an open circuit refuses a deduplicated call without a deadline at once", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const [exit, millis] = yield* timed(gpt.protect(answering(0), { dedupe: Ask("x") }))
      assert.deepStrictEqual([refusedBy(exit), millis], ["CircuitOpen", 0])
    }).pipe(withStore))

  it.effect("a run that the policy ended is not cached, and timeToLive is not called for it", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ attemptTimeout: "1 second" })
      const classified: Array<Exit.Exit<string, "503">> = []
      const Always = Deduplicator.operation<string, "503">()("always", {
        key: (text: string) => text,
        timeToLive: (exit) => {
          classified.push(exit)
          return "1 hour"
        }
      })
      const { effect, runs } = inTurn<string, "503", never>(Effect.never, Effect.fail("503"))
      const call = gpt.protect(effect, { dedupe: Always("x") })
      assert.isTrue(Exit.isFailure((yield* timed(call, "1 second"))[0]))
      assert.deepStrictEqual(classified, [])
      assert.strictEqual(yield* Effect.flip(call), "503")
      assert.strictEqual(yield* Effect.flip(call), "503")
      assert.deepStrictEqual([runs(), classified.map(failureOf)], [2, ["503"]])
    }).pipe(withStore))

  it.effect.each<[whose: string, onPolicy: boolean]>([["call", false], ["policy", true]])(
    "a result that the classifier of the %s calls a failure is not cached",
    ([, onPolicy]) =>
      Effect.gen(function*() {
        const classify = (exit: Exit.Exit<unknown, unknown>) =>
          Exit.isSuccess(exit) && exit.value === "I cannot answer" ? Outcome.failure({ retryable: false }) : undefined
        const gpt = yield* makeGpt(onPolicy ? { classify } : {})
        const { effect, runs } = inTurn<string, "503", never>(
          Effect.succeed("I cannot answer"),
          Effect.succeed("an answer"),
          Effect.succeed("not asked for")
        )
        const call = gpt.protect(effect, { dedupe: Cached("x"), ...(onPolicy ? {} : { classify }) })
        assert.deepStrictEqual([yield* call, yield* call, yield* call], ["I cannot answer", "an answer", "an answer"])
        assert.strictEqual(runs(), 2)
      }).pipe(withStore)
  )

  it.effect("the last caller to leave interrupts the attempt and frees its slot and permit", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1), backpressure: { capacity: 1 } })
      let interrupted = 0
      const hanging = Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => {
          interrupted++
        }))
      const fibers = yield* Effect.forEach(range(3), () => fork(gpt.protect(hanging, { dedupe: Ask("x") })))
      for (const fiber of fibers) {
        assert.strictEqual(interrupted, 0)
        yield* Fiber.interrupt(fiber)
      }
      assert.strictEqual(interrupted, 1)
      assert.strictEqual(yield* gpt.protect(answering(0), { dedupe: Ask("x") }), "an answer")
    }).pipe(withStore))
})
