import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Outcome from "@sluice/core/Outcome"
import * as Pipeline from "@sluice/core/Pipeline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Data, Deferred, Duration, Effect, Exit, Fiber, Layer, Option, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { interruptEverywhere, yields } from "./support/probe.ts"

const make = (options?: Partial<Sluice.SluiceOptions>) => Sluice.make({ name: "gpt", ...options })
const withStore = Effect.provide(Layer.fresh(Sluice.layerStoresMemory))

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })
const many = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, i) => i)
const answering = (duration: Duration.Input) => Effect.delay(Effect.succeed("an answer"), duration)

const retry = (maxAttempts: number) => RetryPolicy.constant({ maxAttempts, baseDelay: "1 second", jitter: "none" })
const breaker = (failures: number) => ({ trip: CircuitBreaker.consecutive(failures), openFor: "10 seconds" }) as const

class Busy extends Data.TaggedError("Busy")<{ readonly retryAfter: Duration.Duration }> {}

/** An effect that takes the given ones in turn, the last one for ever, and how often it was run. */
const inTurn = <A, E, R>(...effects: readonly [...ReadonlyArray<Effect.Effect<A, E, R>>, Effect.Effect<A, E, R>]) => {
  let runs = 0
  const effect = Effect.suspend(() => {
    const next = effects[Math.min(runs, effects.length - 1)]!
    runs++
    return next
  })
  return { effect, runs: () => runs }
}

/** How long an effect takes on the test's clock, and its exit; the clock is moved as far as need be. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>, atMost: Duration.Input = "1 hour") =>
  Effect.gen(function*() {
    const startedAt = yield* Clock.currentTimeMillis
    const fiber = yield* fork(
      Effect.flatMap(
        Effect.exit(effect),
        (exit) => Effect.map(Clock.currentTimeMillis, (now) => [exit, now - startedAt] as const)
      )
    )
    yield* TestClock.adjust(atMost)
    return yield* Fiber.join(fiber)
  })

const failureOf = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined

/** The refusal of a policy that an exit ends with; another end is a failure of the test. */
const refusalOf = (exit: Exit.Exit<unknown, unknown>) => {
  const error = failureOf(exit)
  assert.instanceOf(error, Sluice.Rejected)
  return (error as Sluice.Rejected).reason
}

const refusedBy = (exit: Exit.Exit<unknown, unknown>) => {
  const reason = refusalOf(exit)
  return reason._tag === "DeadlineExceeded" ? `${reason._tag} at ${reason.at}` : reason._tag
}

const failures = (policy: Sluice.Sluice, key = "gpt") =>
  Effect.map(policy.breaker.state(key), (state) => state.failures)
const stateTag = (policy: Sluice.Sluice, key = "gpt") => Effect.map(policy.breaker.state(key), (state) => state._tag)

describe("places and permits", () => {
  it.effect("ten calls that are told to wait 30 s do not hold up ten that are well", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ retry: retry(2), backpressure: { capacity: 10, queue: 10 } })
      const told = yield* Effect.forEach(many(10), () => {
        const busy = Effect.fail(new Busy({ retryAfter: Duration.seconds(30) }))
        return fork(gpt.protect(inTurn<string, Busy, never>(busy, answering("1 second")).effect))
      })
      const well = yield* Effect.forEach(many(10), () => fork(gpt.protect(answering("1 second"))))
      yield* TestClock.adjust("1 second")
      assert.isTrue(well.every((fiber) => fiber.pollUnsafe() !== undefined))
      assert.isTrue(told.every((fiber) => fiber.pollUnsafe() === undefined))
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(new Set(yield* Fiber.joinAll(told)), new Set(["an answer"]))
    }).pipe(withStore))

  it.effect("a call that comes back for another attempt goes before those that have not had one", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ retry: retry(2), backpressure: { capacity: 1, queue: 10 } })
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

  it.effect("a call that sleeps between attempts keeps its place", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ retry: retry(2), backpressure: { capacity: 1 } })
      const sleeping = yield* fork(gpt.protect(inTurn<string, string, never>(Effect.fail("503"), answering(0)).effect))
      assert.strictEqual(refusedBy(yield* Effect.exit(gpt.protect(Effect.void))), "BackpressureShed")
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(sleeping)
      yield* gpt.protect(Effect.void)
    }).pipe(withStore))

  it.effect("sheds at once, and without running it, the call that finds no place", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ backpressure: { capacity: 2, queue: 1 } })
      const running = yield* Effect.forEach(many(3), () => fork(gpt.protect(answering("1 second"))))
      const { effect, runs } = inTurn(Effect.void)
      const reason = refusalOf(yield* Effect.exit(gpt.protect(effect)))
      assert.deepInclude(reason, { _tag: "BackpressureShed", policy: "gpt", capacity: 2 })
      assert.strictEqual(runs(), 0)
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.joinAll(running)
      yield* gpt.protect(effect)
    }).pipe(withStore))

  it.effect("a call that waits for a permit leaves at its deadline, and frees its place", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ backpressure: { capacity: 1, queue: 1 } })
      const running = yield* fork(gpt.protect(answering("1 minute")))
      const { effect, runs } = inTurn(Effect.succeed("an answer"))
      const [exit, millis] = yield* timed(gpt.protect(effect, { deadline: "2 seconds" }), "2 seconds")
      assert.deepStrictEqual([refusedBy(exit), millis, runs()], ["DeadlineExceeded at Queue", 2_000, 0])
      const next = yield* fork(gpt.protect(effect))
      yield* TestClock.adjust("58 seconds")
      assert.deepStrictEqual([yield* Fiber.join(running), yield* Fiber.join(next)], ["an answer", "an answer"])
    }).pipe(withStore))

  it.effect("a call whose deadline has passed is not made, and says nothing about the dependency", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1), minTimeout: 0, retry: retry(3) })
      const { effect, runs } = inTurn(Effect.succeed("an answer"))
      const [exit, report] = yield* Sluice.withReport(gpt.protect(effect, { deadline: 0 }))
      assert.deepStrictEqual([refusedBy(exit), runs(), report.attempts], ["DeadlineExceeded at Queue", 0, 0])
      assert.strictEqual(yield* stateTag(gpt), "Closed")
    }).pipe(withStore))
})

describe("time", () => {
  it.effect("a dependency that hangs opens the circuit: an attempt without an answer is a failure", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(3), attemptTimeout: "5 seconds" })
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

  it.effect("an attempt without an answer is interrupted, and another one made", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ retry: retry(2), attemptTimeout: "5 seconds" })
      let interrupted = 0
      const hanging = Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => {
          interrupted++
        }))
      const call = inTurn(hanging, answering("4 seconds"))
      const [exit, millis] = yield* timed(gpt.protect(call.effect))
      assert.deepStrictEqual([exit, millis, interrupted], [Exit.succeed("an answer"), 10_000, 1])
    }).pipe(withStore))

  it.effect("the attempt timeout begins with the attempt, not with the wait for a permit", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ backpressure: { capacity: 1, queue: 1 }, attemptTimeout: "5 seconds" })
      yield* fork(gpt.protect(answering("4 seconds")))
      const [exit, millis] = yield* timed(gpt.protect(answering("4 seconds")))
      assert.deepStrictEqual([exit, millis], [Exit.succeed("an answer"), 8_000])
    }).pipe(withStore))

  for (const [given, counted] of [["999 millis", 0], ["1 second", 1], ["3 seconds", 1]] as const) {
    it.effect(`an attempt that the deadline cuts short after ${given} counts as ${counted} failures`, () =>
      Effect.gen(function*() {
        const gpt = yield* make({ breaker: breaker(5), minTimeout: "1 second", retry: retry(3) })
        const { effect, runs } = inTurn(Effect.never)
        const [exit, millis] = yield* timed(gpt.protect(effect, { deadline: given }))
        assert.strictEqual(refusedBy(exit), "DeadlineExceeded at Attempt")
        assert.strictEqual(millis, Duration.toMillis(given))
        assert.deepStrictEqual([yield* failures(gpt), runs()], [counted, 1])
      }).pipe(withStore))

    it.effect(`and so if the deadline is kept outside of the policy, with ${given} left of it`, () =>
      Effect.gen(function*() {
        const gpt = yield* make({
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

  it.effect("a caller that leaves before its deadline says nothing about the dependency", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1) })
      const fiber = yield* fork(gpt.protect(Effect.never, { deadline: "10 seconds" }))
      yield* TestClock.adjust("9 seconds")
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* failures(gpt), 0)
    }).pipe(withStore))

  it.effect("the call's deadline stands before the policy's, and never extends one that is there", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ deadline: "3 seconds" })
      const hang = (deadline?: Duration.Input) => gpt.protect(Effect.never, { deadline })
      assert.strictEqual((yield* timed(hang()))[1], 3_000)
      assert.strictEqual((yield* timed(hang("5 seconds")))[1], 5_000)
      assert.strictEqual((yield* timed(Deadline.within(hang("5 seconds"), "1 second")))[1], 1_000)
    }).pipe(withStore))

  it.effect("does not begin an attempt that would come after the deadline", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ retry: retry(5) })
      const { effect, runs } = inTurn(Effect.fail("503" as const))
      const [exit, millis] = yield* timed(gpt.protect(effect, { deadline: "2 seconds" }))
      assert.deepStrictEqual([failureOf(exit), runs(), millis], ["503", 2, 1_000])
    }).pipe(withStore))
})

describe("the circuit", () => {
  it.effect("refuses at once when it is open, without running the call, and says when to come back", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1), retry: retry(3) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      yield* TestClock.adjust("4 seconds")
      const { effect, runs } = inTurn(Effect.succeed("an answer"))
      const [exit, millis] = yield* timed(gpt.protect(effect), 0)
      const reason = refusalOf(exit)
      assert.deepInclude(reason, { _tag: "CircuitOpen", policy: "gpt", key: "gpt", state: "Open" })
      assert.strictEqual(reason._tag === "CircuitOpen" && Duration.toMillis(reason.retryAfter), 6_000)
      assert.deepStrictEqual([runs(), millis], [0, 0])
    }).pipe(withStore))

  it.effect("ends the retry of the call that opens it", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(2), retry: retry(5) })
      const { effect, runs } = inTurn(Effect.fail("503"))
      const [exit, millis] = yield* timed(gpt.protect(effect))
      assert.deepStrictEqual([refusedBy(exit), runs(), millis], ["CircuitOpen", 2, 1_000])
    }).pipe(withStore))

  it.effect("is waited for if its time fits before the deadline", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const { effect, runs } = inTurn(answering(0))
      const [exit, millis] = yield* timed(gpt.protect(effect, { deadline: "10001 millis" }))
      assert.deepStrictEqual([exit, millis, runs()], [Exit.succeed("an answer"), 10_000, 1])
    }).pipe(withStore))

  it.effect("is not waited for if its time ends with the deadline", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const [exit, millis] = yield* timed(gpt.protect(Effect.void, { deadline: "10 seconds" }))
      assert.deepStrictEqual([refusedBy(exit), millis], ["CircuitOpen", 0])
    }).pipe(withStore))

  it.effect("is waited for without a permit, and one of those who waited is the probe for all", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1), backpressure: { capacity: 1, queue: 5 } })
      yield* Effect.exit(gpt.protect(Effect.fail("503"), { key: "a" }))
      const waiting = yield* Effect.forEach(
        many(3),
        () => fork(gpt.protect(answering("1 second"), { key: "a", deadline: "1 minute" }))
      )
      const [other, millis] = yield* timed(gpt.protect(answering("1 second"), { key: "b" }), "1 second")
      assert.deepStrictEqual([other, millis], [Exit.succeed("an answer"), 1_000])
      yield* TestClock.adjust("50 seconds")
      assert.deepStrictEqual(yield* Fiber.joinAll(waiting), ["an answer", "an answer", "an answer"])
      assert.strictEqual(yield* stateTag(gpt, "a"), "Closed")
    }).pipe(withStore))

  it.effect("is looked at before the wait for a permit", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1), backpressure: { capacity: 1, queue: 5 } })
      yield* Effect.exit(gpt.protect(Effect.fail("503"), { key: "a" }))
      yield* fork(gpt.protect(answering("1 minute"), { key: "b" }))
      const [exit, millis] = yield* timed(gpt.protect(Effect.void, { key: "a" }), "1 second")
      assert.deepStrictEqual([refusedBy(exit), millis], ["CircuitOpen", 0])
    }).pipe(withStore))

  it.effect("has the policy's name where the call names no key", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503"), { key: "openai" }))
      assert.deepStrictEqual([yield* stateTag(gpt, "openai"), yield* stateTag(gpt, "gpt")], ["Open", "Closed"])
      yield* gpt.protect(Effect.void)
    }).pipe(withStore))
})

describe("what a call fails with", () => {
  const everything = {
    retry: retry(3),
    breaker: breaker(1),
    backpressure: { capacity: 4, queue: 4 },
    attemptTimeout: "5 seconds",
    deadline: "1 minute"
  } as const

  it.effect("a refusal of a breaker inside the call keeps its type, is not retried and counts nowhere", () =>
    Effect.gen(function*() {
      const gpt = yield* make(everything)
      const inner = yield* CircuitBreaker.make(breaker(1))
      yield* Effect.exit(inner.guard(Effect.fail("503")))
      const { effect, runs } = inTurn(inner.guard(Effect.succeed("an answer")))
      const error = yield* Effect.flip(gpt.protect(effect))
      assert.deepStrictEqual([error._tag, runs()], ["CircuitOpen", 1])
      assert.deepInclude(yield* gpt.breaker.state("gpt"), { _tag: "Closed", failures: 0 })
    }).pipe(withStore))

  it.effect("a refusal of another policy inside the call is handed on as it is, and counts nowhere", () =>
    Effect.gen(function*() {
      const gpt = yield* make(everything)
      const other = yield* Sluice.make({ name: "other", backpressure: { capacity: 1 } })
      yield* fork(other.protect(Effect.never))
      const seen: Array<unknown> = []
      const call = Effect.tapError(other.protect(Effect.void), (error) => Effect.sync(() => seen.push(error)))
      const error = yield* Effect.flip(gpt.protect(call))
      assert.strictEqual(error, seen[0] as typeof error)
      assert.strictEqual(seen.length, 1)
      assert.strictEqual(yield* failures(gpt), 0)
    }).pipe(withStore))

  it.effect("a refusal of another policy is the call's own, and its classifier may say so", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ ...everything, breaker: breaker(5) })
      const other = yield* Sluice.make({ name: "other", backpressure: { capacity: 1 } })
      const busy = yield* fork(other.protect(answering("1500 millis")))
      const call = other.protect(Effect.succeed("at last"))
      const [exit, millis] = yield* timed(
        gpt.protect(call, { classify: (result) => Exit.isFailure(result) ? Outcome.throttled() : undefined })
      )
      assert.deepStrictEqual([exit, millis], [Exit.succeed("at last"), 2_000])
      yield* Fiber.join(busy)
    }).pipe(withStore))

  it.effect("a single reason can be caught", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const told = gpt.protect(Effect.succeed("an answer")).pipe(
        Effect.catchReason("Rejected", "CircuitOpen", (open) => Effect.succeed(Duration.format(open.retryAfter)))
      )
      assert.strictEqual(yield* told, "10s")
    }).pipe(withStore))

  it.effect("a typed error and a defect of the call are its own", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ ...everything, retry: RetryPolicy.none, breaker: breaker(9) })
      const busy = new Busy({ retryAfter: Duration.seconds(1) })
      assert.strictEqual(yield* Effect.flip(gpt.protect(Effect.fail(busy))), busy)
      const bug = new Error("a bug")
      const exit = yield* Effect.exit(gpt.protect(Effect.die(bug)))
      assert.strictEqual(Exit.isFailure(exit) && Cause.squash(exit.cause), bug)
      assert.isTrue(Exit.hasDies(exit))
      const late = yield* Effect.exit(gpt.protect(Effect.andThen(Effect.yieldNow, Effect.interrupt)))
      assert.isTrue(Exit.hasInterrupts(late))
    }).pipe(withStore))

  it.effect("what stands on the call's cause stays on it", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ ...everything, breaker: breaker(9) })
      const pipeline = Pipeline.make<string>("p").pipe(Pipeline.stage("ask", () => Effect.fail("503")))
      const [exit] = yield* timed(gpt.protect(pipeline("x")))
      const cause = Option.getOrThrow(Exit.getCause(exit))
      assert.strictEqual(Option.getOrThrow(Pipeline.failedStage(cause)).stage, "ask")
      assert.deepStrictEqual(Option.getOrThrow(RetryPolicy.stopped(cause)), { why: "Attempts", attempts: 3 })
    }).pipe(withStore))

  it.effect("a classifier sees its call's own exits, and nothing that the policy made of them", () =>
    Effect.gen(function*() {
      const seen: Array<Exit.Exit<unknown, unknown>> = []
      const classify = (exit: Exit.Exit<unknown, unknown>) => {
        seen.push(exit)
        return undefined
      }
      const gpt = yield* make({ ...everything, classify })
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

  it.effect("breaker and retry read the same time of an attempt, which is its own alone", () =>
    Effect.gen(function*() {
      const seen: Array<number> = []
      const gpt = yield* make({ retry: retry(2), breaker: breaker(5), backpressure: { capacity: 1, queue: 1 } })
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

  it.effect("a classifier that throws is a defect, and holds nothing", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1), backpressure: { capacity: 1 } })
      const classify = () => {
        throw new Error("a bug")
      }
      assert.isTrue(Exit.hasDies(yield* Effect.exit(gpt.protect(Effect.void, { classify }))))
      yield* gpt.protect(Effect.void)
    }).pipe(withStore))
})

const Ask = Deduplicator.operation<string, "503">()("ask", { key: (text: string) => text })
const Kept = Deduplicator.operation<string, "503">()("kept", { key: (text: string) => text, timeToLive: "1 minute" })

describe("shared calls", () => {
  for (const leaves of [false, true]) {
    it.effect(`500 equal calls make one attempt${leaves ? ", also when the first caller leaves" : ""}`, () =>
      Effect.gen(function*() {
        const gpt = yield* make({ retry: retry(3), breaker: breaker(1), backpressure: { capacity: 1 } })
        const { effect, runs } = inTurn(answering("2 seconds"))
        const [first, ...others] = yield* Effect.forEach(
          many(500),
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

  it.effect("a kept answer needs neither a place nor a closed circuit", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1), backpressure: { capacity: 1 } })
      const call = gpt.protect(Effect.succeed("an answer"), { dedupe: Kept("x") })
      yield* call
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      yield* fork(gpt.protect(Effect.never, { key: "other" }))
      const [exit, report] = yield* Sluice.withReport(call)
      assert.deepStrictEqual([exit, report.served, report.attempts], [Exit.succeed("an answer"), "Cached", 0])
    }).pipe(withStore))

  it.effect("a run has until the latest deadline of its callers, and each leaves at its own", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ backpressure: { capacity: 1 } })
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

  it.effect("a dependency that hangs opens the circuit, though every caller has a deadline", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1) })
      const call = (deadline: Duration.Input) => gpt.protect(Effect.never, { dedupe: Ask("x"), deadline })
      const fibers = yield* Effect.forEach(["2 seconds", "3 seconds"] as const, (deadline) => fork(call(deadline)))
      yield* TestClock.adjust("4 seconds")
      for (const fiber of fibers) {
        assert.strictEqual(refusedBy(yield* Fiber.await(fiber)), "DeadlineExceeded at Attempt")
      }
      assert.strictEqual(yield* stateTag(gpt), "Open")
      assert.deepInclude(yield* gpt.deduplicator.stats, { flights: 0 })
    }).pipe(withStore))

  it.effect("an open circuit refuses a shared call without a deadline at once, like any other", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const [exit, millis] = yield* timed(gpt.protect(answering(0), { dedupe: Ask("x") }))
      assert.deepStrictEqual([refusedBy(exit), millis], ["CircuitOpen", 0])
    }).pipe(withStore))

  it.effect("a run that the policy ended is not kept, and the operation is not asked about it", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ attemptTimeout: "1 second" })
      const asked: Array<Exit.Exit<string, "503">> = []
      const Always = Deduplicator.operation<string, "503">()("always", {
        key: (text: string) => text,
        timeToLive: (exit) => {
          asked.push(exit)
          return "1 hour"
        }
      })
      const { effect, runs } = inTurn<string, "503", never>(Effect.never, Effect.fail("503"))
      const call = gpt.protect(effect, { dedupe: Always("x") })
      assert.isTrue(Exit.isFailure((yield* timed(call, "1 second"))[0]))
      assert.deepStrictEqual(asked, [])
      assert.strictEqual(yield* Effect.flip(call), "503")
      assert.strictEqual(yield* Effect.flip(call), "503")
      assert.deepStrictEqual([runs(), asked.map(failureOf)], [2, ["503"]])
    }).pipe(withStore))

  it.effect("the last to leave stops the attempt, and everything it held is free", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1), backpressure: { capacity: 1 } })
      let interrupted = 0
      const hanging = Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => {
          interrupted++
        }))
      const fibers = yield* Effect.forEach(many(3), () => fork(gpt.protect(hanging, { dedupe: Ask("x") })))
      for (const fiber of fibers) {
        assert.strictEqual(interrupted, 0)
        yield* Fiber.interrupt(fiber)
      }
      assert.strictEqual(interrupted, 1)
      assert.strictEqual(yield* gpt.protect(answering(0), { dedupe: Ask("x") }), "an answer")
    }).pipe(withStore))
})

describe("withReport", () => {
  it.effect("tells attempts and waits of a call that succeeds at last", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ retry: retry(3), backpressure: { capacity: 1, queue: 1 } })
      yield* fork(gpt.protect(Effect.sleep("5 seconds")))
      const { effect } = inTurn<string, string, never>(Effect.fail("503"), answering("2 seconds"))
      const [exit] = yield* timed(Sluice.withReport(gpt.protect(effect)))
      assert.deepStrictEqual(
        exit,
        Exit.succeed(
          [
            Exit.succeed("an answer"),
            { served: "Led", attempts: 2, waitedMillis: 6_000, elapsedMillis: 8_000, stopped: undefined }
          ] as const
        )
      )
    }).pipe(withStore))

  it.effect("tells why a call failed for good", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ retry: retry(3) })
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

  it.effect("tells who led, who joined and who got what was kept", () =>
    Effect.gen(function*() {
      const gpt = yield* make()
      const call = Sluice.withReport(gpt.protect(answering("1 second"), { dedupe: Kept("x") }))
      const fibers = yield* Effect.forEach(many(2), () => fork(call))
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

  it.effect("a call that was refused made no attempt", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const [exit, report] = yield* Sluice.withReport(gpt.protect(Effect.void))
      assert.deepStrictEqual([refusedBy(exit), report.attempts, report.waitedMillis], ["CircuitOpen", 0, 0])
    }).pipe(withStore))

  it.effect("the time that a call waited for its circuit is in its report", () =>
    Effect.gen(function*() {
      const gpt = yield* make({ breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const call = Sluice.withReport(gpt.protect(answering("1 second"), { deadline: "1 minute" }))
      const fiber = yield* fork(call)
      yield* TestClock.adjust("11 seconds")
      const [, report] = yield* Fiber.join(fiber)
      assert.deepInclude(report, { attempts: 1, waitedMillis: 10_000, elapsedMillis: 11_000 })
    }).pipe(withStore))

  it.effect("what another policy does inside the call is not in its report", () =>
    Effect.gen(function*() {
      const gpt = yield* make()
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

describe("interruption", () => {
  it.effect("a call interrupted anywhere leaves no permit, no place, no probe and no flight behind", () =>
    interruptEverywhere({
      make: Effect.gen(function*() {
        const gpt = yield* make({
          retry: RetryPolicy.constant({ maxAttempts: 2, baseDelay: "1 second", jitter: "none" }),
          breaker: breaker(1),
          backpressure: { capacity: 1, queue: 1 },
          attemptTimeout: "5 seconds"
        })
        // Half-open, so that the call is the probe.
        yield* Effect.exit(gpt.protect(Effect.fail("503")))
        yield* TestClock.adjust("10 seconds")
        return gpt
      }).pipe(Effect.orDie, withStore),
      run: (gpt) => gpt.protect(Effect.as(yields(12), "an answer"), { dedupe: Ask("x"), deadline: "1 minute" }),
      after: (gpt, at) =>
        Effect.gen(function*() {
          const state = yield* Effect.orDie(gpt.breaker.state("gpt"))
          if (state._tag === "HalfOpen") assert.strictEqual(state.probing, 0, at)
          else assert.strictEqual(state._tag, "Closed", at)
          assert.strictEqual((yield* gpt.deduplicator.stats).flights, 0, at)
          yield* bothPlacesAreFree(gpt, at)
        })
    }))

  it.effect("an interrupted call keeps its permit until the finalizers of its attempt have run", () =>
    Effect.gen(function*() {
      for (const attemptTimeout of [undefined, Duration.seconds(5)]) {
        const gpt = yield* make({ backpressure: { capacity: 1, queue: 1 }, attemptTimeout })
        const end = yield* Deferred.make<void>()
        const running = yield* fork(gpt.protect(Effect.onInterrupt(Effect.never, () => Deferred.await(end))))
        const interrupting = yield* fork(Fiber.interrupt(running))
        yield* yields(5)
        assert.deepInclude((yield* gpt.snapshot).backpressure, { running: 1, slots: 1 })
        yield* Deferred.succeed(end, undefined)
        yield* Fiber.join(interrupting)
        const { backpressure, calls } = yield* gpt.snapshot
        assert.deepInclude(backpressure, { running: 0, slots: 0 })
        assert.deepInclude(calls, { interrupted: 1, failed: 0 })
      }
    }).pipe(withStore))

  it.effect("a call interrupted anywhere while it waits for a permit leaves the line", () =>
    interruptEverywhere({
      make: Effect.gen(function*() {
        const gpt = yield* make({ retry: retry(2), breaker: breaker(1), backpressure: { capacity: 1, queue: 1 } })
        const end = yield* Deferred.make<string>()
        const running = yield* fork(gpt.protect(Deferred.await(end)))
        return { gpt, end, running }
      }).pipe(Effect.orDie, withStore),
      run: ({ end, gpt }) =>
        Effect.all([
          gpt.protect(Effect.as(yields(4), "an answer"), { dedupe: Ask("x"), deadline: "1 minute" }),
          Effect.andThen(yields(6), Deferred.succeed(end, "ended"))
        ], { concurrency: 2 }),
      after: ({ end, gpt, running }, at) =>
        Effect.gen(function*() {
          yield* Deferred.succeed(end, "ended")
          yield* Fiber.await(running)
          assert.strictEqual((yield* gpt.deduplicator.stats).flights, 0, at)
          yield* bothPlacesAreFree(gpt, at)
        })
    }))
})

/** Of a policy with one permit and two slots: one call runs, one waits, a third is shed, and both get their answer. */
const bothPlacesAreFree = (gpt: Sluice.Sluice, at: string) =>
  Effect.gen(function*() {
    // Another circuit than the probe's, which may be half-open.
    const call = <A, E>(self: Effect.Effect<A, E>) => gpt.protect(self, { key: "other" })
    const end = yield* Deferred.make<string>()
    const running = yield* fork(call(Deferred.await(end)))
    const waiting = yield* fork(call(Effect.succeed("the second")))
    assert.strictEqual(refusedBy(yield* Effect.exit(call(Effect.void))), "BackpressureShed", at)
    yield* Deferred.succeed(end, "the first")
    const answers = [yield* Effect.orDie(Fiber.join(running)), yield* Effect.orDie(Fiber.join(waiting))]
    assert.deepStrictEqual(answers, ["the first", "the second"], at)
  })

describe("policies as services", () => {
  class Gpt extends Sluice.Service<Gpt>()("test/Gpt", { name: "gpt", breaker: breaker(1) }) {}
  class Claude extends Sluice.Service<Claude>()("test/Claude", { name: "claude", breaker: breaker(1) }) {}
  class Backup extends Sluice.Service<Backup>()("test/Backup", { name: "backup", breaker: breaker(1) }) {}
  const failed = Effect.exit(Gpt.use((gpt) => gpt.protect(Effect.fail("503"), { key: "openai" })))

  it.effect("two policies are two services", () =>
    Effect.gen(function*() {
      yield* failed
      assert.strictEqual(yield* Effect.flatMap(Gpt, (gpt) => stateTag(gpt, "openai")), "Open")
      assert.strictEqual(yield* Effect.flatMap(Claude, (claude) => stateTag(claude, "openai")), "Closed")
    }).pipe(Effect.provide([Gpt.layer, Claude.layer])))

  it.effect("policies on one store share the circuits of the keys they share", () =>
    Effect.gen(function*() {
      yield* failed
      assert.strictEqual(yield* Effect.flatMap(Backup, (backup) => stateTag(backup, "openai")), "Open")
      const exit = yield* Effect.exit(Backup.use((backup) => backup.protect(Effect.void, { key: "openai" })))
      assert.deepInclude(refusalOf(exit), { _tag: "CircuitOpen", policy: "backup" })
    }).pipe(
      Effect.provide(Layer.provide(Layer.mergeAll(Gpt.layerStore, Backup.layerStore), CircuitBreakerStore.layerMemory))
    ))

  it.effect("layerNoop lets everything through as it is", () =>
    Effect.gen(function*() {
      for (const _ of many(9)) yield* failed
      const gpt = yield* Gpt
      const call = answering(0)
      assert.strictEqual(gpt.protect(call, { deadline: 0, dedupe: Kept("x") }), call)
      assert.strictEqual(gpt.protect({ deadline: 0 })(call), call)
      assert.strictEqual(yield* stateTag(gpt, "openai"), "Closed")
      assert.deepStrictEqual(gpt.describe, [])
    }).pipe(Effect.provide(Gpt.layerNoop)))

  it.effect("a policy with nothing in it lets everything through", () =>
    Effect.gen(function*() {
      const plain = yield* make()
      const { effect, runs } = inTurn(Effect.fail("503"))
      for (const _ of many(9)) assert.strictEqual(yield* Effect.flip(plain.protect(effect)), "503")
      assert.strictEqual(runs(), 9)
    }).pipe(withStore))

  it.effect("says what is in the way of a call, outermost first", () =>
    Effect.gen(function*() {
      const gpt = yield* make({
        retry: retry(3),
        breaker: breaker(1),
        backpressure: { capacity: 2, queue: 3 },
        attemptTimeout: "5 seconds"
      })
      assert.deepStrictEqual(gpt.describe, [
        "deduplicate: one run for a key",
        "slots: 2 running and 3 queued",
        "retry: 3 attempts, first delay 1s, jitter none",
        "permits: 2 at once",
        "circuit: one for each key, opens for 10s after 1 failure in a row",
        "attempt timeout: 5s"
      ])
    }).pipe(withStore))

  it.effect("says of each part how it was set", () =>
    Effect.gen(function*() {
      const gpt = yield* make({
        deadline: "1 minute",
        deduplicator: { timeToLive: "1 hour" },
        retry: RetryPolicy.exponential({ baseDelay: "200 millis", factor: 3 }),
        breaker: {
          openFor: Schedule.exponential("1 second"),
          trip: [
            CircuitBreaker.failureRate({ rate: 0.5, calls: 40 }),
            CircuitBreaker.slowCallRate({ rate: 0.9, within: "1 minute", minimum: 7 })
          ]
        }
      })
      assert.deepStrictEqual(gpt.describe, [
        "deadline: 1m, for calls that set none",
        "deduplicate: one run for a key, results cached for 1h",
        "retry: 3 attempts, first delay 200ms, then times 3, at most 1m, jitter full",
        "circuit: one for each key, opens for a time by its schedule after 50% failures in the last 40 calls " +
        "(of at least 20 calls), or 90% slow calls in the last 1m (of at least 7 calls)"
      ])
    }).pipe(withStore))

  it.effect("has a name", () =>
    Effect.gen(function*() {
      const invalid = yield* Effect.flip(make({ name: "" }))
      assert.strictEqual(invalid.message, `Sluice: name is ""; must be a non-empty string`)
    }).pipe(withStore))

  it.effect("a deadline that is no duration is a defect that names it", () =>
    Effect.gen(function*() {
      const gpt = yield* make({})
      // @ts-expect-error no duration
      const exit = yield* Effect.exit(gpt.protect(Effect.void, { deadline: "5 minuts" }))
      const defect = Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(defect, InvalidOptions)
      assert.strictEqual(
        defect.message,
        `Deadline: deadline is 5 minuts; must be a duration, such as "5 seconds"`
      )
    }).pipe(withStore))

  it.effect("tells all options that are wrong at once", () =>
    Effect.gen(function*() {
      const invalid = yield* Effect.flip(make({
        retry: RetryPolicy.exponential({ maxAttempts: 0, factor: 0 }),
        breaker: { trip: [CircuitBreaker.consecutive(0), CircuitBreaker.failureRate({ rate: 2 })], openFor: -1 },
        backpressure: { capacity: 0, queue: -1 },
        deduplicator: { capacity: 0, maxReplay: 0.5 },
        attemptTimeout: 0,
        minTimeout: Duration.infinity,
        deadline: 0
      }))
      assert.strictEqual(invalid.module, "Sluice")
      assert.deepStrictEqual(
        invalid.issues.map(({ option }) => option).sort(),
        [
          "attemptTimeout",
          "backpressure.capacity",
          "backpressure.queue",
          "breaker.openFor",
          "breaker.trip[0].failures",
          "breaker.trip[1].rate",
          "deadline",
          "deduplicator.capacity",
          "deduplicator.maxReplay",
          "minTimeout",
          "retry.factor",
          "retry.maxAttempts"
        ]
      )
    }).pipe(withStore))
})
