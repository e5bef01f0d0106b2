/** Calls whose first attempt was made and whose next attempt is refused: they end with their own error. */
import * as Admission from "@sluice/core/Admission"
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deadline from "@sluice/core/Deadline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, type Exit, Fiber, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { failureOf, fork, timed } from "./support/effects.ts"
import { breaker, inTurn, makeGpt, refusedBy, retry, withStore } from "./support/policies.ts"
import { yields } from "./support/probe.ts"

const stoppedBy = (exit: Exit.Exit<unknown, unknown>) =>
  exit._tag === "Failure" ? Option.getOrUndefined(RetryPolicy.stopped(exit.cause)) : undefined

/** The tag of a refusal, or of the reason of a policy's refusal. */
const tagOf = (refusal: unknown): string => {
  const reason = refusal instanceof Sluice.Rejected ? refusal.reason : refusal
  if (reason instanceof Deadline.DeadlineExceeded) return `${reason._tag} at ${reason.at}`
  if (reason instanceof Backpressure.BackpressureShed) return `${reason._tag}, ${reason.why}`
  return reason instanceof CircuitBreaker.CircuitOpen ? reason._tag : String(reason)
}

const forceOpen = (gpt: Sluice.Sluice) =>
  Effect.orDie(gpt.breaker.control({ key: "gpt", mode: "ForcedOpen", reason: "test" }))

interface Case {
  readonly options: Partial<Sluice.SluiceOptions>
  readonly deadline?: Duration.Input
  /** The event while the call backs off, half a second after its first attempt. */
  readonly meanwhile?: (gpt: Sluice.Sluice) => Effect.Effect<unknown, never>
  readonly refusal: string
  readonly requests: number
}

const busy = (gpt: Sluice.Sluice) => Effect.forkDetach(gpt.protect(Effect.never), { startImmediately: true })

const cases: Readonly<Record<string, Case>> = {
  "its own failures open the circuit": {
    options: { retry: retry(3), breaker: breaker(2) },
    refusal: "CircuitOpen",
    requests: 2
  },
  "the circuit opens while it backs off": {
    options: { retry: retry(3), breaker: breaker(9) },
    meanwhile: forceOpen,
    refusal: "CircuitOpen",
    requests: 1
  },
  "no permit is free and it may not queue": {
    options: { retry: retry(3), backpressure: { capacity: 1, queue: 5, maxWait: 0 } },
    meanwhile: busy,
    refusal: "BackpressureShed, Full",
    requests: 1
  },
  "it queues for too long": {
    options: { retry: retry(3), backpressure: { capacity: 1, queue: 5, maxWait: "2 seconds" } },
    meanwhile: busy,
    refusal: "BackpressureShed, MaxWait",
    requests: 1
  },
  "its deadline passes in the queue": {
    options: { retry: retry(3), backpressure: { capacity: 1, queue: 5 } },
    deadline: "5 seconds",
    meanwhile: busy,
    refusal: "DeadlineExceeded at Queue",
    requests: 1
  },
  "the policy drains while it backs off": {
    options: { retry: retry(3), backpressure: { capacity: 1, queue: 5 } },
    meanwhile: (gpt) => Effect.forkDetach(gpt.drain, { startImmediately: true }),
    refusal: "BackpressureShed, Draining",
    requests: 1
  },
  "the policy drains while it queues": {
    options: { retry: retry(3), backpressure: { capacity: 1, queue: 5 } },
    meanwhile: (gpt) =>
      Effect.andThen(
        busy(gpt),
        Effect.forkDetach(Effect.delay(gpt.drain, "2 seconds"), { startImmediately: true })
      ),
    refusal: "BackpressureShed, Draining",
    requests: 1
  }
}

describe("Sluice calls whose next attempt is refused", () => {
  for (const [when, { deadline, meanwhile, options, refusal, requests }] of Object.entries(cases)) {
    for (const kind of ["effect", "stream"] as const) {
      it.effect(`a call ends with its own error if ${when}, as ${kind}`, () =>
        Effect.gen(function*() {
          const gpt = yield* makeGpt(options)
          const { effect, runs } = inTurn(Effect.fail("503"))
          const events: Array<string> = []
          yield* fork(Stream.runForEach(gpt.events, (event) =>
            Effect.sync(() => {
              if (event._tag === "Rejected") events.push(event.reason)
            })))
          yield* yields(10)
          const protectedCall = kind === "effect"
            ? gpt.protect(effect, { deadline })
            : Stream.runDrain(gpt.protectStream(Stream.fromEffect(effect), { deadline }))
          const call = yield* fork(Sluice.withReport(protectedCall))
          yield* TestClock.adjust("500 millis")
          if (meanwhile !== undefined) yield* meanwhile(gpt)
          yield* TestClock.adjust("1 minute")
          const [exit, report] = yield* Fiber.join(call)
          assert.strictEqual(failureOf(exit), "503")
          const stopped = stoppedBy(exit)
          assert.deepStrictEqual([stopped?.why, stopped?.attempts, tagOf(stopped?.refusal)], [
            "Refused",
            requests,
            refusal
          ])
          assert.deepStrictEqual([report.stopped, report.attempts, tagOf(report.refusal)], [
            "Refused",
            requests,
            refusal
          ])
          assert.strictEqual(runs(), requests)
          assert.deepInclude((yield* gpt.snapshot).calls, { failed: 1, rejected: 0 })
          yield* yields(10)
          assert.deepStrictEqual(events, [refusal.split(/,| /)[0]])
        }).pipe(withStore))
    }
  }

  it.effect("an attempt timeout is the call's error as well", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(3), breaker: breaker(2), attemptTimeout: "5 seconds" })
      const [exit] = yield* timed(gpt.protect(Effect.never))
      assert.instanceOf(failureOf(exit), Sluice.AttemptTimeout)
      assert.strictEqual(tagOf(stoppedBy(exit)?.refusal), "CircuitOpen")
    }).pipe(withStore))

  it.effect("a deadline that ends a running attempt is the error, since that request was made", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(3) })
      const { effect } = inTurn<never, string, never>(Effect.fail("503"), Effect.never)
      const [exit] = yield* timed(gpt.protect(effect, { deadline: "5 seconds" }))
      assert.strictEqual(refusedBy(exit), "DeadlineExceeded at Attempt")
    }).pipe(withStore))

  it.effect("a call of which every attempt is refused ends with the refusal", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(3), breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const [exit, report] = yield* Sluice.withReport(gpt.protect(Effect.void))
      assert.deepStrictEqual([refusedBy(exit), report.refusal], ["CircuitOpen", undefined])
      assert.isUndefined(stoppedBy(exit)?.refusal)
    }).pipe(withStore))

  it.effect("a retry around the policy does not repeat a call whose next attempt was refused", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(3), breaker: breaker(2) })
      const { effect, runs } = inTurn(Effect.fail("503"))
      const [exit, millis] = yield* timed(RetryPolicy.retry(gpt.protect(effect), retry(9)))
      assert.deepStrictEqual([failureOf(exit), runs(), millis], ["503", 2, 1_000])
      assert.strictEqual(stoppedBy(exit)?.why, "Refused")
    }).pipe(withStore))
})

describe("retries around guards that are composed by hand", () => {
  const guards = Effect.gen(function*() {
    const circuit = yield* CircuitBreaker.make(breaker(2))
    const permits = yield* Backpressure.make({ capacity: 1 })
    const admission = yield* Admission.make({ breaker: yield* CircuitBreaker.make(breaker(2)) })
    // The first call takes the only permit for the rest of the test when it ends.
    const takes = Effect.andThen(Effect.sleep("500 millis"), Effect.never).pipe(permits.withPermit)
    return { circuit, permits, admission, takes }
  })

  const byHand: Readonly<
    Record<
      string,
      (
        made: Effect.Success<typeof guards>,
        call: Effect.Effect<never, string>
      ) => Effect.Effect<unknown, unknown>
    >
  > = {
    "CircuitBreaker.guard": ({ circuit }, call) => RetryPolicy.retry(circuit.guard(call), retry(3)),
    "CircuitBreaker.guardStream": ({ circuit }, call) =>
      Stream.runDrain(RetryPolicy.retryStream(circuit.guardStream(Stream.fromEffect(call)), retry(3))),
    "Admission.guard": ({ admission }, call) => RetryPolicy.retry(admission.guard(call), retry(3)),
    "Backpressure.withPermit": ({ permits, takes }, call) =>
      Effect.andThen(
        Effect.forkDetach(Effect.delay(Effect.exit(takes), "100 millis")),
        RetryPolicy.retry(permits.withPermit(call), retry(3))
      ),
    "another Sluice without a retry": ({ admission }, call) =>
      Effect.scoped(withStore(Effect.flatMap(
        makeGpt({ breaker: breaker(2) }),
        (inner) => RetryPolicy.retry(inner.protect(admission.guard(call)), retry(3))
      )))
  }

  for (const [name, run] of Object.entries(byHand)) {
    it.effect(`a retry around ${name} ends with the call's own error when the next attempt is refused`, () =>
      Effect.gen(function*() {
        const { effect } = inTurn(Effect.fail("503"))
        const [exit] = yield* timed(run(yield* guards, effect), "1 minute")
        assert.strictEqual(failureOf(exit), "503")
        const stopped = stoppedBy(exit)
        assert.strictEqual(stopped?.why, "Refused")
        assert.match(tagOf(stopped?.refusal), /CircuitOpen|BackpressureShed/)
      }).pipe(Effect.scoped, withStore))
  }
})

describe("drain and calls that sleep", () => {
  const options = { retry: retry(3), breaker: breaker(1), backpressure: { capacity: 1, queue: 5 } } as const

  it.effect("drain ends a call that backs off for an hour", () =>
    Effect.gen(function*() {
      const hour = RetryPolicy.constant({ maxAttempts: 3, baseDelay: "1 hour", maxDelay: "1 hour", jitter: "none" })
      const gpt = yield* makeGpt({ ...options, breaker: breaker(9), retry: hour })
      const call = yield* fork(Effect.exit(gpt.protect(Effect.fail("503"))))
      assert.isTrue(yield* gpt.drain)
      const exit = yield* Fiber.join(call)
      assert.deepStrictEqual([failureOf(exit), tagOf(stoppedBy(exit)?.refusal)], ["503", "BackpressureShed, Draining"])
      assert.deepInclude((yield* gpt.snapshot).backpressure, { slots: 0, running: 0 })
    }).pipe(withStore))

  for (const kind of ["effect", "stream"] as const) {
    it.effect(`drain ends a call that waits for an open circuit, as ${kind}`, () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt(options)
        yield* Effect.exit(gpt.breaker.guard(Effect.fail("503"), { key: "gpt" }))
        const { effect, runs } = inTurn(Effect.void)
        const deadline = "1 minute"
        const call = yield* fork(Effect.exit(
          kind === "effect"
            ? gpt.protect(effect, { deadline })
            : Stream.runDrain(gpt.protectStream(Stream.fromEffect(effect), { deadline }))
        ))
        yield* yields(10)
        assert.isUndefined(call.pollUnsafe())
        assert.isTrue(yield* gpt.drain)
        const refusal = failureOf(yield* Fiber.join(call))
        assert.deepStrictEqual([tagOf(refusal), runs()], ["BackpressureShed, Draining", 0])
      }).pipe(withStore))
  }

  it.effect("a call that begins to back off while the policy drains ends then", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ ...options, breaker: breaker(9) })
      const call = yield* fork(Effect.exit(gpt.protect(Effect.delay(Effect.fail("503"), "1 second"))))
      const drain = yield* fork(gpt.drain)
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* Fiber.join(drain))
      assert.strictEqual(failureOf(yield* Fiber.join(call)), "503")
    }).pipe(withStore))

  it.effect("a policy whose scope closes ends the calls that back off", () =>
    Effect.gen(function*() {
      const call = yield* Effect.scoped(Effect.gen(function*() {
        const gpt = yield* makeGpt({ ...options, breaker: breaker(9) })
        return yield* Effect.forkDetach(Effect.exit(gpt.protect(Effect.fail("503"))), { startImmediately: true })
      }))
      const exit = yield* Fiber.join(call)
      assert.deepStrictEqual([failureOf(exit), tagOf(stoppedBy(exit)?.refusal)], ["503", "BackpressureShed, Draining"])
    }).pipe(withStore))
})

describe("the step of a call at its deadline", () => {
  it.effect("a call that waited for an open circuit past its deadline is refused at Circuit", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      // The deadline moves closer while the call waits, as that of a shared run does.
      const moving = { at: 60_000, budgetMillis: 60_000 }
      const call = yield* fork(
        Effect.exit(Effect.provideService(gpt.protect(Effect.void), Deadline.Deadline, moving))
      )
      yield* yields(5)
      moving.at = 5_000
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(refusedBy(yield* Fiber.join(call)), "DeadlineExceeded at Circuit")
    }).pipe(withStore))

  it.effect("a call that backed off past its deadline has Backoff as the refusal", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(3) })
      const moving = { at: 60_000, budgetMillis: 60_000 }
      const call = yield* fork(
        Effect.exit(Effect.provideService(gpt.protect(Effect.fail("503")), Deadline.Deadline, moving))
      )
      yield* yields(5)
      moving.at = 500
      yield* TestClock.adjust("1 minute")
      const exit = yield* Fiber.join(call)
      assert.deepStrictEqual([failureOf(exit), tagOf(stoppedBy(exit)?.refusal)], ["503", "DeadlineExceeded at Backoff"])
    }).pipe(withStore))

  it.effect("a call that left the queue at its deadline is counted as abandoned, and not as shed", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ backpressure: { capacity: 1, queue: 1 } })
      yield* fork(gpt.protect(Effect.never))
      const [exit] = yield* timed(gpt.protect(Effect.void, { deadline: "2 seconds" }))
      assert.strictEqual(refusedBy(exit), "DeadlineExceeded at Queue")
      const { backpressure, calls } = yield* gpt.snapshot
      assert.deepStrictEqual([backpressure?.abandoned, calls.rejected], [1, 1])
      assert.deepStrictEqual(Object.values(backpressure?.shed ?? {}), [0, 0, 0, 0])
    }).pipe(withStore))
})

describe("baseDelay: 0", () => {
  const atOnce = RetryPolicy.constant({ maxAttempts: 3, baseDelay: 0 })

  it.effect("validate accepts a base delay of 0", () =>
    Effect.map(RetryPolicy.validate(atOnce), (policy) => assert.strictEqual(policy, atOnce)))

  for (const jitter of ["none", "full", "equal", "decorrelated"] as const) {
    it.effect(`a policy with a base delay of 0 retries without a delay, with jitter ${jitter}`, () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: { ...atOnce, jitter }, backpressure: { capacity: 1 } })
        const { effect, runs } = inTurn<string, string, never>(
          Effect.fail("503"),
          Effect.fail("503"),
          Effect.succeed("an answer")
        )
        assert.deepStrictEqual([yield* gpt.protect(effect), runs()], ["an answer", 3])
      }).pipe(withStore))
  }
})
