/** Settlements of admissions: in a long scope, with a scope that closes first, and with a report that throws. */
import * as Admission from "@sluice/core/Admission"
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Layer, Random, Schedule, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { remoteStore } from "./support/stores.ts"

const makeSubject = (options: CircuitBreaker.CircuitBreakerOptions = {}) =>
  Effect.gen(function*() {
    const breaker = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(1), ...options })
    const permits = yield* Backpressure.make({ capacity: 1 })
    return { breaker, permits, admission: yield* Admission.make({ breaker, permits }) }
  })

type Subject = Effect.Success<ReturnType<typeof makeSubject>>

const inMemory = Effect.provide(Layer.fresh(CircuitBreakerStore.layerMemory))
const overStore = Effect.provide(Layer.fresh(remoteStore(0)))

const isIdle = ({ breaker, permits }: Subject) =>
  Effect.gen(function*() {
    const { queued, running, slots } = yield* permits.snapshot
    assert.deepStrictEqual({ queued, running, slots }, { queued: 0, running: 0, slots: 0 })
    const circuit = yield* breaker.state()
    if (circuit._tag === "HalfOpen") assert.strictEqual(circuit.probing, 0)
  })

const tryAcquire = ({ admission }: Subject): Admission.Admitted => {
  const answer = admission.tryAcquireUnsafe()
  return answer?._tag === "Admitted" ? answer : assert.fail(`not admitted: ${String(answer)}`)
}

/** Every form of an attempt, with the outcome that it reports. */
const forms: Record<string, (subject: Subject, outcome: Outcome.Outcome) => Effect.Effect<unknown, unknown>> = {
  guard: ({ admission }, outcome) => admission.guard(Effect.fail("503"), { classify: () => outcome }),
  guardStream: ({ admission }, outcome) =>
    Stream.runDrain(admission.guardStream(Stream.fail("503"), { classify: () => outcome })),
  settle: ({ admission }, outcome) =>
    Effect.scoped(Effect.flatMap(admission.acquire(), (held) => held.settle(outcome))),
  settleExit: ({ admission }, outcome) =>
    Effect.scoped(
      Effect.flatMap(admission.acquire({ classify: () => outcome }), (held) => held.settleExit(Exit.fail("503")))
    ),
  "settleUnsafe of acquire": ({ admission }, outcome) =>
    Effect.scoped(Effect.map(admission.acquire(), (held) => held.settleUnsafe(outcome))),
  "settleUnsafe of tryAcquireUnsafe": (subject, outcome) => Effect.sync(() => tryAcquire(subject).settleUnsafe(outcome))
}

const oneMinute = Duration.minutes(1)

/** A schedule that misbehaves from its second delay on. */
const lateFault = (fault: () => Effect.Effect<Duration.Duration>): Schedule.Schedule<unknown, number> =>
  Schedule.modifyDelay(
    Schedule.spaced(oneMinute),
    ({ attempt }) => attempt < 2 ? Effect.succeed(oneMinute) : fault()
  )

describe("a report that throws gives everything back", () => {
  const faults: Record<string, () => Effect.Effect<Duration.Duration>> = {
    sleeps: () => Effect.as(Effect.sleep("1 second"), oneMinute),
    "never comes": () => Effect.never,
    dies: () => Effect.die(new Error("no delay")),
    throws: () => {
      throw new Error("no delay")
    }
  }

  const reopensFor = (subject: Subject, form: (typeof forms)[string]) =>
    Effect.gen(function*() {
      for (let opening = 1; opening <= 3; opening++) {
        yield* Effect.exit(form(subject, Outcome.failure()))
        yield* Effect.yieldNow
        const state = yield* subject.breaker.state()
        assert.strictEqual(state._tag, "Open", `opening ${opening}`)
        if (state._tag === "Open") assert.deepStrictEqual(state.retryAfter, oneMinute)
        yield* isIdle(subject)
        yield* TestClock.adjust(oneMinute)
      }
      assert.strictEqual(yield* subject.admission.guard(Effect.succeed("answered")), "answered")
    })

  for (const [name, fault] of Object.entries(faults)) {
    it.effect(`a schedule of openings whose second delay ${name} repeats its first delay`, () =>
      Effect.gen(function*() {
        const subject = yield* makeSubject({ openFor: lateFault(fault) })
        yield* reopensFor(subject, (subject) => subject.admission.guard(Effect.fail("503")))
      }).pipe(Effect.scoped, inMemory))
  }

  for (const [name, form] of Object.entries(forms)) {
    it.effect(`${name} opens the circuit again, though the schedule of openings waits`, () =>
      Effect.gen(function*() {
        const openFor = lateFault(() => Effect.never)
        yield* reopensFor(yield* makeSubject({ openFor }), form)
      }).pipe(Effect.scoped, inMemory))
  }

  it.effect("guard opens a shared circuit again, though the schedule of openings waits", () =>
    Effect.gen(function*() {
      const openFor = lateFault(() => Effect.never)
      yield* reopensFor(yield* makeSubject({ openFor }), (subject) => subject.admission.guard(Effect.fail("503")))
    }).pipe(Effect.scoped, overStore))

  const unreadable: Outcome.Outcome = {
    get _tag(): "Success" {
      throw new Error("unreadable")
    }
  }

  for (const [name, form] of Object.entries(forms)) {
    for (const [where, store] of Object.entries({ "in this process": inMemory, "in a shared store": overStore })) {
      if (name.endsWith("tryAcquireUnsafe") && where !== "in this process") continue
      it.effect(`${name} of a probe with an outcome that cannot be read, ${where}, is a defect`, () =>
        Effect.gen(function*() {
          const subject = yield* makeSubject()
          yield* Effect.exit(subject.admission.guard(Effect.fail("503")))
          yield* TestClock.adjust("30 seconds")
          const exit = yield* Effect.exit(form(subject, unreadable))
          assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
          yield* Effect.yieldNow
          assert.strictEqual((yield* subject.breaker.state())._tag, "HalfOpen")
          yield* isIdle(subject)
        }).pipe(Effect.scoped, store))
    }
  }

  it.effect("tryAcquireUnsafe gives its permit back if the circuit throws", () =>
    Effect.gen(function*() {
      let isBroken = false
      const subject = yield* Effect.provideService(makeSubject({ rampUp: "1 minute" }), Random.Random, {
        nextIntUnsafe: () => 1,
        nextDoubleUnsafe: () => {
          if (isBroken) throw new Error("no random number")
          return 0
        }
      })
      yield* Effect.exit(subject.admission.guard(Effect.fail("503")))
      yield* TestClock.adjust("30 seconds")
      yield* subject.admission.guard(Effect.void)
      isBroken = true
      assert.throws(() => subject.admission.tryAcquireUnsafe(), "no random number")
      yield* isIdle(subject)
    }).pipe(Effect.scoped, inMemory))
})

describe("an admission in a scope", () => {
  const finalizersOf = ({ state }: Scope.Scope): number =>
    state._tag !== "Open" ? 0 : state.finalizers?.size ?? (state.finalizer === undefined ? 0 : 1)

  const settlements: Record<string, (held: Admission.Admitted) => Effect.Effect<void>> = {
    settle: (held) => held.settle(Outcome.success),
    settleExit: (held) => held.settleExit(Exit.fail("503")),
    settleUnsafe: (held) => Effect.sync(() => held.settleUnsafe(Outcome.failure()))
  }

  for (const [name, settle] of Object.entries(settlements)) {
    it.effect(`leaves nothing in its scope after ${name}`, () =>
      Effect.gen(function*() {
        const { admission, permits } = yield* makeSubject({ trip: CircuitBreaker.consecutive(1_000) })
        const scope = yield* Scope.make()
        for (let n = 0; n < 100; n++) yield* Effect.flatMap(Scope.provide(admission.acquire(), scope), settle)
        assert.strictEqual(finalizersOf(scope), 0)
        yield* Scope.provide(admission.acquire(), scope)
        assert.strictEqual(finalizersOf(scope), 1)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* permits.snapshot).running, 0)
      }).pipe(Effect.scoped, inMemory))
  }

  it.effect("leaves nothing in its scope if it was refused", () =>
    Effect.gen(function*() {
      const { admission } = yield* makeSubject()
      const scope = yield* Scope.make()
      yield* Effect.exit(admission.guard(Effect.fail("503")))
      for (let n = 0; n < 10; n++) yield* Effect.flip(Scope.provide(admission.acquire(), scope))
      assert.strictEqual(finalizersOf(scope), 0)
    }).pipe(Effect.scoped, inMemory))

  it.effect("gives the permit back at once if the scope is closed already", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      const scope = yield* Scope.make()
      yield* Scope.close(scope, Exit.void)
      yield* Scope.provide(subject.admission.acquire(), scope)
      yield* isIdle(subject)
    }).pipe(Effect.scoped, inMemory))

  const ends: Record<string, Effect.Effect<void, string>> = {
    succeeds: Effect.void,
    fails: Effect.fail("the program's own error"),
    dies: Effect.die(new Error("the program's own defect")),
    "is interrupted": Effect.interrupt
  }

  for (const [how, end] of Object.entries(ends)) {
    for (const [where, store] of Object.entries({ "in this process": inMemory, "in a shared store": overStore })) {
      it.effect(`is settled as Ignored if its scope ${how} first, and no classifier is called, ${where}`, () =>
        Effect.gen(function*() {
          const subject = yield* makeSubject()
          const heard: Array<Exit.Exit<unknown, unknown>> = []
          const acquire = subject.admission.acquire({
            classify: (exit) => {
              heard.push(exit)
              return Outcome.failure()
            }
          })
          yield* Effect.exit(Effect.scoped(Effect.andThen(acquire, end)))
          assert.deepStrictEqual(heard, [])
          assert.deepStrictEqual((yield* subject.breaker.stats).outcomes, {
            Success: 0,
            Failure: 0,
            Throttled: 0,
            Ignored: 1
          })
          yield* isIdle(subject)
        }).pipe(Effect.scoped, store))
    }
  }
})

describe("the classifier of the program", () => {
  type Acquire = (subject: Subject) => Effect.Effect<Admission.Admitted, Admission.Refused, Scope.Scope>
  const acquires: Record<string, Acquire> = {
    acquire: ({ admission }) => admission.acquire(),
    tryAcquireUnsafe: (subject) => Effect.sync(() => tryAcquire(subject))
  }

  for (const [name, acquire] of Object.entries(acquires)) {
    it.effect(`is that of ${name}, and gets the time since the admission`, () =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 hour")
        const subject = yield* makeSubject()
        const elapsed: Array<number> = []
        const held = yield* Effect.provideService(acquire(subject), Outcome.Classifier, (_, elapsedMillis) => {
          elapsed.push(elapsedMillis)
          return Outcome.ignored
        })
        yield* TestClock.adjust("5 seconds")
        yield* held.settleExit(Exit.fail("503"))
        assert.deepStrictEqual(elapsed, [5_000])
        assert.strictEqual((yield* subject.breaker.state())._tag, "Closed")
      }).pipe(Effect.scoped, inMemory))

    it.effect(`is that of ${name} also if the settlement has another one`, () =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 hour")
        const subject = yield* makeSubject()
        const held = yield* acquire(subject)
        const elapsed: Array<number> = []
        yield* Effect.provideService(held.settleExit(Exit.fail("503")), Outcome.Classifier, (_, elapsedMillis) => {
          elapsed.push(elapsedMillis)
          return Outcome.ignored
        })
        assert.deepStrictEqual(elapsed, [])
        assert.strictEqual((yield* subject.breaker.state())._tag, "Open")
      }).pipe(Effect.scoped, inMemory))
  }

  it.effect("is fromExit if tryAcquireUnsafe is called outside of a fiber", () =>
    Effect.gen(function*() {
      yield* TestClock.adjust("1 hour")
      const subject = yield* makeSubject()
      const held = yield* Effect.promise(() => Promise.resolve().then(() => tryAcquire(subject)))
      const elapsed: Array<number> = []
      yield* Effect.provideService(held.settleExit(Exit.fail("503")), Outcome.Classifier, (_, elapsedMillis) => {
        elapsed.push(elapsedMillis)
        return Outcome.ignored
      })
      assert.deepStrictEqual(elapsed, [])
      assert.strictEqual((yield* subject.breaker.state())._tag, "Open")
    }).pipe(Effect.scoped, inMemory))
})
