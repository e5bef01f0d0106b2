import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deadline from "@sluice/core/Deadline"
import * as Outcome from "@sluice/core/Outcome"
import * as Pipeline from "@sluice/core/Pipeline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { failureOf, fork, range, timed } from "./support/effects.ts"
import {
  answering,
  breaker,
  Busy,
  Cached,
  failures,
  inTurn,
  makeGpt,
  refusalOf,
  refusedBy,
  retry,
  stateTag,
  withStore
} from "./support/policies.ts"

describe("Sluice", () => {
  describe("slots and permits", () => {
    it.effect("ten calls that back off for 30 s do not delay ten healthy calls", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(2), backpressure: { capacity: 10, queue: 10 } })
        const backingOff = yield* Effect.forEach(range(10), () => {
          const busy = Effect.fail(new Busy({ retryAfter: Duration.seconds(30) }))
          return fork(gpt.protect(inTurn<string, Busy, never>(busy, answering("1 second")).effect))
        })
        const healthy = yield* Effect.forEach(range(10), () => fork(gpt.protect(answering("1 second"))))
        yield* TestClock.adjust("1 second")
        assert.isTrue(healthy.every((fiber) => fiber.pollUnsafe() !== undefined))
        assert.isTrue(backingOff.every((fiber) => fiber.pollUnsafe() === undefined))
        yield* TestClock.adjust("30 seconds")
        assert.deepStrictEqual(new Set(yield* Fiber.joinAll(backingOff)), new Set(["an answer"]))
      }).pipe(withStore))

    it.effect("a second attempt is queued before first attempts", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(2), backpressure: { capacity: 1, queue: 10 } })
        const order: Array<string> = []
        const call = (
          name: string,
          ...attempts: readonly [...ReadonlyArray<Effect.Effect<void, string>>, Effect.Effect<void>]
        ) =>
          fork(
            gpt.protect(
              Effect.andThen(Effect.sync(() => order.push(name)), inTurn<void, string, never>(...attempts).effect)
            )
          )
        yield* call("again", Effect.fail("503"), Effect.void)
        yield* call("long", Effect.sleep("2 seconds"))
        yield* call("third", Effect.void)
        yield* call("fourth", Effect.void)
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(order, ["again", "long", "again", "third", "fourth"])
      }).pipe(withStore))

    it.effect("a call that backs off keeps its slot", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(2), backpressure: { capacity: 1 } })
        const backingOff = yield* fork(
          gpt.protect(inTurn<string, string, never>(Effect.fail("503"), answering(0)).effect)
        )
        assert.strictEqual(refusedBy(yield* Effect.exit(gpt.protect(Effect.void))), "BackpressureShed")
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(backingOff)
        yield* gpt.protect(Effect.void)
      }).pipe(withStore))

    it.effect("a call without a free slot is refused at once, without running", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ backpressure: { capacity: 2, queue: 1 } })
        const running = yield* Effect.forEach(range(3), () => fork(gpt.protect(answering("1 second"))))
        const { effect, runs } = inTurn(Effect.void)
        const reason = refusalOf(yield* Effect.exit(gpt.protect(effect)))
        assert.deepInclude(reason, { _tag: "BackpressureShed", policy: "gpt", capacity: 2 })
        assert.strictEqual(runs(), 0)
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.joinAll(running)
        yield* gpt.protect(effect)
      }).pipe(withStore))

    it.effect("a call queued for a permit leaves at its deadline and frees its slot", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ backpressure: { capacity: 1, queue: 1 } })
        const running = yield* fork(gpt.protect(answering("1 minute")))
        const { effect, runs } = inTurn(Effect.succeed("an answer"))
        const [exit, millis] = yield* timed(gpt.protect(effect, { deadline: "2 seconds" }), "2 seconds")
        assert.deepStrictEqual([refusedBy(exit), millis, runs()], ["DeadlineExceeded at Queue", 2_000, 0])
        const next = yield* fork(gpt.protect(effect))
        yield* TestClock.adjust("58 seconds")
        assert.deepStrictEqual([yield* Fiber.join(running), yield* Fiber.join(next)], ["an answer", "an answer"])
      }).pipe(withStore))

    it.effect("a call whose deadline has passed does not run, and does not count for the circuit", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1), minTimeout: 0, retry: retry(3) })
        const { effect, runs } = inTurn(Effect.succeed("an answer"))
        const [exit, report] = yield* Sluice.withReport(gpt.protect(effect, { deadline: 0 }))
        assert.deepStrictEqual([refusedBy(exit), runs(), report.attempts], ["DeadlineExceeded at Start", 0, 0])
        assert.strictEqual(yield* stateTag(gpt), "Closed")
      }).pipe(withStore))
  })

  describe("timeouts and deadlines", () => {
    it.effect("a dependency that hangs opens the circuit, since an attempt timeout counts as a failure", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(3), attemptTimeout: "5 seconds" })
        for (const opened of ["Closed", "Closed", "Open"]) {
          const [exit, millis] = yield* timed(gpt.protect(Effect.never), "5 seconds")
          assert.deepStrictEqual([failureOf(exit), millis], [
            new Sluice.AttemptTimeout({ after: Duration.seconds(5), policy: "gpt" }),
            5_000
          ])
          assert.strictEqual(yield* stateTag(gpt), opened)
        }
        assert.strictEqual(refusedBy(yield* Effect.exit(gpt.protect(Effect.never))), "CircuitOpen")
      }).pipe(withStore))

    it.effect("an attempt that times out is interrupted and retried", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(2), attemptTimeout: "5 seconds" })
        let interrupted = 0
        const hanging = Effect.onInterrupt(Effect.never, () =>
          Effect.sync(() => {
            interrupted++
          }))
        const call = inTurn(hanging, answering("4 seconds"))
        const [exit, millis] = yield* timed(gpt.protect(call.effect))
        assert.deepStrictEqual([exit, millis, interrupted], [Exit.succeed("an answer"), 10_000, 1])
      }).pipe(withStore))

    it.effect("the attempt timeout does not include the time in the queue", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ backpressure: { capacity: 1, queue: 1 }, attemptTimeout: "5 seconds" })
        yield* fork(gpt.protect(answering("4 seconds")))
        const [exit, millis] = yield* timed(gpt.protect(answering("4 seconds")))
        assert.deepStrictEqual([exit, millis], [Exit.succeed("an answer"), 8_000])
      }).pipe(withStore))

    for (const [given, counted] of [["999 millis", 0], ["1 second", 1], ["3 seconds", 1]] as const) {
      it.effect(`an attempt that the deadline ends after ${given} counts as ${counted} failures`, () =>
        Effect.gen(function*() {
          const gpt = yield* makeGpt({ breaker: breaker(5), minTimeout: "1 second", retry: retry(3) })
          const { effect, runs } = inTurn(Effect.never)
          const [exit, millis] = yield* timed(gpt.protect(effect, { deadline: given }))
          assert.strictEqual(refusedBy(exit), "DeadlineExceeded at Attempt")
          assert.strictEqual(millis, Duration.toMillis(given))
          assert.deepStrictEqual([yield* failures(gpt), runs()], [counted, 1])
        }).pipe(withStore))

      it.effect(`an attempt that an outer deadline ends after ${given} counts as ${counted} failures`, () =>
        Effect.gen(function*() {
          const gpt = yield* makeGpt({
            breaker: breaker(5),
            minTimeout: "1 second",
            backpressure: { capacity: 1, queue: 1 }
          })
          yield* fork(gpt.protect(Effect.sleep("2 seconds")))
          const budget = Duration.sum(Duration.seconds(2), Duration.fromInputUnsafe(given))
          const [, millis] = yield* timed(gpt.protect(Effect.never).pipe(Deadline.within(budget)))
          assert.deepStrictEqual([yield* failures(gpt), millis], [counted, Duration.toMillis(budget)])
        }).pipe(withStore))
    }

    it.effect("a call interrupted before its deadline does not count for the circuit", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1) })
        const fiber = yield* fork(gpt.protect(Effect.never, { deadline: "10 seconds" }))
        yield* TestClock.adjust("9 seconds")
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* failures(gpt), 0)
      }).pipe(withStore))

    it.effect("a call's deadline replaces the policy's, and never extends an outer one", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ deadline: "3 seconds" })
        const hang = (deadline?: Duration.Input) => gpt.protect(Effect.never, { deadline })
        assert.strictEqual((yield* timed(hang()))[1], 3_000)
        assert.strictEqual((yield* timed(hang("5 seconds")))[1], 5_000)
        assert.strictEqual((yield* timed(Deadline.within(hang("5 seconds"), "1 second")))[1], 1_000)
      }).pipe(withStore))

    it.effect("no attempt begins after the deadline", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(5) })
        const { effect, runs } = inTurn(Effect.fail("503" as const))
        const [exit, millis] = yield* timed(gpt.protect(effect, { deadline: "2 seconds" }))
        assert.deepStrictEqual([failureOf(exit), runs(), millis], ["503", 2, 1_000])
      }).pipe(withStore))
  })

  describe("circuits", () => {
    it.effect("an open circuit refuses a call at once without running it, with a retryAfter", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1), retry: retry(3) })
        yield* Effect.exit(gpt.protect(Effect.fail("503")))
        yield* TestClock.adjust("4 seconds")
        const { effect, runs } = inTurn(Effect.succeed("an answer"))
        const [exit, millis] = yield* timed(gpt.protect(effect), 0)
        const reason = refusalOf(exit)
        assert.deepInclude(reason, { _tag: "CircuitOpen", policy: "gpt", key: "gpt", state: "Open" })
        assert.strictEqual(reason._tag === "CircuitOpen" && Duration.toMillis(reason.retryAfter), 6_000)
        assert.deepStrictEqual([runs(), millis], [0, 0])
      }).pipe(withStore))

    it.effect("a call that opens the circuit is not retried", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(2), retry: retry(5) })
        const { effect, runs } = inTurn(Effect.fail("503"))
        const [exit, millis] = yield* timed(gpt.protect(effect))
        assert.deepStrictEqual([failureOf(exit), runs(), millis], ["503", 2, 1_000])
      }).pipe(withStore))

    it.effect("a call waits for an open circuit whose retryAfter fits before its deadline", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1) })
        yield* Effect.exit(gpt.protect(Effect.fail("503")))
        const { effect, runs } = inTurn(answering(0))
        const [exit, millis] = yield* timed(gpt.protect(effect, { deadline: "10001 millis" }))
        assert.deepStrictEqual([exit, millis, runs()], [Exit.succeed("an answer"), 10_000, 1])
      }).pipe(withStore))

    it.effect("a call does not wait for an open circuit whose retryAfter ends with its deadline", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1) })
        yield* Effect.exit(gpt.protect(Effect.fail("503")))
        const [exit, millis] = yield* timed(gpt.protect(Effect.void, { deadline: "10 seconds" }))
        assert.deepStrictEqual([refusedBy(exit), millis], ["CircuitOpen", 0])
      }).pipe(withStore))

    it.effect("calls wait for an open circuit without a permit, and one of them becomes the probe", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1), backpressure: { capacity: 1, queue: 5 } })
        yield* Effect.exit(gpt.protect(Effect.fail("503"), { key: "a" }))
        const waiting = yield* Effect.forEach(
          range(3),
          () => fork(gpt.protect(answering("1 second"), { key: "a", deadline: "1 minute" }))
        )
        const [other, millis] = yield* timed(gpt.protect(answering("1 second"), { key: "b" }), "1 second")
        assert.deepStrictEqual([other, millis], [Exit.succeed("an answer"), 1_000])
        yield* TestClock.adjust("50 seconds")
        assert.deepStrictEqual(yield* Fiber.joinAll(waiting), ["an answer", "an answer", "an answer"])
        assert.strictEqual(yield* stateTag(gpt, "a"), "Closed")
      }).pipe(withStore))

    it.effect("an open circuit refuses a call before it is queued for a permit", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1), backpressure: { capacity: 1, queue: 5 } })
        yield* Effect.exit(gpt.protect(Effect.fail("503"), { key: "a" }))
        yield* fork(gpt.protect(answering("1 minute"), { key: "b" }))
        const [exit, millis] = yield* timed(gpt.protect(Effect.void, { key: "a" }), "1 second")
        assert.deepStrictEqual([refusedBy(exit), millis], ["CircuitOpen", 0])
      }).pipe(withStore))

    it.effect("the key of a call defaults to the policy's name", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1) })
        yield* Effect.exit(gpt.protect(Effect.fail("503"), { key: "openai" }))
        assert.deepStrictEqual([yield* stateTag(gpt, "openai"), yield* stateTag(gpt, "gpt")], ["Open", "Closed"])
        yield* gpt.protect(Effect.void)
      }).pipe(withStore))
  })

  describe("errors", () => {
    const everything = {
      retry: retry(3),
      breaker: breaker(1),
      backpressure: { capacity: 4, queue: 4 },
      attemptTimeout: "5 seconds",
      deadline: "1 minute"
    } as const

    it.effect("a refusal by a breaker inside the call keeps its type, is not retried and does not count", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt(everything)
        const inner = yield* CircuitBreaker.make(breaker(1))
        yield* Effect.exit(inner.guard(Effect.fail("503")))
        const { effect, runs } = inTurn(inner.guard(Effect.succeed("an answer")))
        const error = yield* Effect.flip(gpt.protect(effect))
        assert.deepStrictEqual([error._tag, runs()], ["CircuitOpen", 1])
        assert.deepInclude(yield* gpt.breaker.state("gpt"), { _tag: "Closed", failures: 0 })
      }).pipe(withStore))

    it.effect("a refusal by another policy inside the call is unchanged and does not count", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt(everything)
        const other = yield* Sluice.make({ name: "other", backpressure: { capacity: 1 } })
        yield* fork(other.protect(Effect.never))
        const seen: Array<unknown> = []
        const call = Effect.tapError(other.protect(Effect.void), (error) => Effect.sync(() => seen.push(error)))
        const error = yield* Effect.flip(gpt.protect(call))
        assert.strictEqual(error, seen[0] as typeof error)
        assert.strictEqual(seen.length, 1)
        assert.strictEqual(yield* failures(gpt), 0)
      }).pipe(withStore))

    it.effect("a classifier can make a refusal by another policy retryable", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ ...everything, breaker: breaker(5) })
        const other = yield* Sluice.make({ name: "other", backpressure: { capacity: 1 } })
        const busy = yield* fork(other.protect(answering("1500 millis")))
        const call = other.protect(Effect.succeed("at last"))
        const [exit, millis] = yield* timed(
          gpt.protect(call, { classify: (result) => Exit.isFailure(result) ? Outcome.throttled() : undefined })
        )
        assert.deepStrictEqual([exit, millis], [Exit.succeed("at last"), 2_000])
        yield* Fiber.join(busy)
      }).pipe(withStore))

    it.effect("a single reason of Rejected can be caught", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1) })
        yield* Effect.exit(gpt.protect(Effect.fail("503")))
        const formatted = gpt.protect(Effect.succeed("an answer")).pipe(
          Effect.catchReason("Rejected", "CircuitOpen", (open) => Effect.succeed(Duration.format(open.retryAfter)))
        )
        assert.strictEqual(yield* formatted, "10s")
      }).pipe(withStore))

    it.effect("typed errors, defects and interruptions of the call are unchanged", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ ...everything, retry: RetryPolicy.none, breaker: breaker(9) })
        const busy = new Busy({ retryAfter: Duration.seconds(1) })
        assert.strictEqual(yield* Effect.flip(gpt.protect(Effect.fail(busy))), busy)
        const bug = new Error("a bug")
        const exit = yield* Effect.exit(gpt.protect(Effect.die(bug)))
        assert.strictEqual(Exit.isFailure(exit) && Cause.squash(exit.cause), bug)
        assert.isTrue(Exit.hasDies(exit))
        const late = yield* Effect.exit(gpt.protect(Effect.andThen(Effect.yieldNow, Effect.interrupt)))
        assert.isTrue(Exit.hasInterrupts(late))
      }).pipe(withStore))

    it.effect("annotations on the call's cause are kept", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ ...everything, breaker: breaker(9) })
        const pipeline = Pipeline.make<string>("p").pipe(Pipeline.stage("ask", () => Effect.fail("503")))
        const [exit] = yield* timed(gpt.protect(pipeline("x")))
        const cause = Option.getOrThrow(Exit.getCause(exit))
        assert.strictEqual(Option.getOrThrow(Pipeline.failedStage(cause)).stage, "ask")
        assert.deepStrictEqual(Option.getOrThrow(RetryPolicy.stopped(cause)), { why: "Attempts", attempts: 3 })
      }).pipe(withStore))

    it.effect("a classifier gets the exits of its call, and no timeout or refusal by the policy", () =>
      Effect.gen(function*() {
        const seen: Array<Exit.Exit<unknown, unknown>> = []
        const classify = (exit: Exit.Exit<unknown, unknown>) => {
          seen.push(exit)
          return undefined
        }
        const gpt = yield* makeGpt({ ...everything, classify })
        const end = (key: string, deadline: Duration.Input) =>
          Effect.map(timed(gpt.protect(Effect.never, { key, classify, deadline })), ([exit]) => failureOf(exit))
        assert.instanceOf(yield* end("a", "2 seconds"), Sluice.Rejected)
        assert.instanceOf(yield* end("b", "5 seconds"), Sluice.AttemptTimeout)
        assert.deepStrictEqual(seen, [])
        yield* Effect.exit(gpt.protect(Effect.fail("503"), { key: "c", deadline: "1 second" }))
        seen.length = 0
        assert.strictEqual((yield* timed(gpt.protect(Effect.void, { key: "c", classify, deadline: 1 }), 0))[1], 0)
        assert.deepStrictEqual(seen, [])
        yield* gpt.protect(Effect.succeed("an answer"), { key: "other", classify })
        assert.deepStrictEqual(new Set(seen.map((exit) => Exit.isSuccess(exit) && exit.value)), new Set(["an answer"]))
      }).pipe(withStore))

    it.effect("breaker and retry get the same elapsed time of an attempt, without its time in the queue", () =>
      Effect.gen(function*() {
        const seen: Array<number> = []
        const gpt = yield* makeGpt({ retry: retry(2), breaker: breaker(5), backpressure: { capacity: 1, queue: 1 } })
        yield* fork(gpt.protect(answering("1 minute")))
        const [exit] = yield* timed(gpt.protect(answering("2 seconds"), {
          classify: (_, elapsedMillis) => {
            seen.push(elapsedMillis)
            return undefined
          }
        }))
        assert.isTrue(Exit.isSuccess(exit))
        assert.deepStrictEqual(seen, [2_000, 2_000])
      }).pipe(withStore))

    it.effect("a classifier that throws is a defect, and the permit is released", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1), backpressure: { capacity: 1 } })
        const classify = () => {
          throw new Error("a bug")
        }
        assert.isTrue(Exit.hasDies(yield* Effect.exit(gpt.protect(Effect.void, { classify }))))
        yield* gpt.protect(Effect.void)
      }).pipe(withStore))
  })

  describe("withReport", () => {
    it.effect("a report has the attempts and waits of a call that succeeds after a retry", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(3), backpressure: { capacity: 1, queue: 1 } })
        yield* fork(gpt.protect(Effect.sleep("5 seconds")))
        const { effect } = inTurn<string, string, never>(Effect.fail("503"), answering("2 seconds"))
        const [exit] = yield* timed(Sluice.withReport(gpt.protect(effect)))
        assert.deepStrictEqual(
          exit,
          Exit.succeed(
            [
              Exit.succeed("an answer"),
              {
                served: "Led",
                attempts: 2,
                waitedMillis: 6_000,
                elapsedMillis: 8_000,
                stopped: undefined,
                refusal: undefined
              }
            ] as const
          )
        )
      }).pipe(withStore))

    it.effect("a report says why the retry stopped", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(3) })
        const stopped = (call: Effect.Effect<unknown, unknown>) =>
          Effect.map(timed(Sluice.withReport(call)), ([exit]) => {
            const [, report] = Exit.isSuccess(exit) ? exit.value : assert.fail("a report is no failure")
            return [report.stopped, report.attempts]
          })
        assert.deepStrictEqual(yield* stopped(gpt.protect(Effect.fail("503"))), ["Attempts", 3])
        assert.deepStrictEqual(yield* stopped(gpt.protect(Effect.die("bug"))), ["Final", 1])
        assert.deepStrictEqual(yield* stopped(gpt.protect(Effect.fail("503"), { deadline: 500 })), ["Deadline", 1])
        const far = Effect.fail(new Busy({ retryAfter: Duration.days(1) }))
        assert.deepStrictEqual(yield* stopped(gpt.protect(far)), ["RetryAfterTooLong", 1])
        const inner = RetryPolicy.retry(Effect.fail("503"), RetryPolicy.none)
        assert.deepStrictEqual(yield* stopped(gpt.protect(inner, { deadline: 500 })), ["Deadline", 1])
      }).pipe(withStore))

    it.effect("a report says whether the call led, joined or got a cached result", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt()
        const call = Sluice.withReport(gpt.protect(answering("1 second"), { dedupe: Cached("x") }))
        const fibers = yield* Effect.forEach(range(2), () => fork(call))
        yield* TestClock.adjust("1 second")
        const reports = [...(yield* Fiber.joinAll(fibers)), yield* call].map(([, report]) => report)
        assert.deepStrictEqual(
          reports.map(({ attempts, elapsedMillis, served }) => ({ attempts, elapsedMillis, served })),
          [
            { served: "Led", attempts: 1, elapsedMillis: 1_000 },
            { served: "Joined", attempts: 0, elapsedMillis: 1_000 },
            { served: "Cached", attempts: 0, elapsedMillis: 0 }
          ]
        )
      }).pipe(withStore))

    it.effect("the report of a refused call has no attempts", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1) })
        yield* Effect.exit(gpt.protect(Effect.fail("503")))
        const [exit, report] = yield* Sluice.withReport(gpt.protect(Effect.void))
        assert.deepStrictEqual([refusedBy(exit), report.attempts, report.waitedMillis], ["CircuitOpen", 0, 0])
      }).pipe(withStore))

    it.effect("a report includes the time waited for an open circuit", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ breaker: breaker(1) })
        yield* Effect.exit(gpt.protect(Effect.fail("503")))
        const call = Sluice.withReport(gpt.protect(answering("1 second"), { deadline: "1 minute" }))
        const fiber = yield* fork(call)
        yield* TestClock.adjust("11 seconds")
        const [, report] = yield* Fiber.join(fiber)
        assert.deepInclude(report, { attempts: 1, waitedMillis: 10_000, elapsedMillis: 11_000 })
      }).pipe(withStore))

    it.effect("a report does not include what another policy does inside the call", () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt()
        const inner = yield* Sluice.make({ name: "inner", retry: retry(3) })
        const nested = gpt.protect(
          inner.protect(inTurn<string, string, never>(Effect.fail("503"), answering(0)).effect, {})
        )
        const fiber = yield* fork(Sluice.withReport(nested))
        yield* TestClock.adjust("1 second")
        const [exit, report] = yield* Fiber.join(fiber)
        assert.deepStrictEqual([exit, report.attempts, report.waitedMillis], [Exit.succeed("an answer"), 1, 0])
      }).pipe(withStore))
  })
})
