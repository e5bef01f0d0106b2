import * as Admission from "@sluice/core/Admission"
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Cause, type Context, Duration, Effect, Exit, Fiber, Layer, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { yields } from "./support/probe.ts"
import { faultyStore, remoteStore } from "./support/stores.ts"

interface Subject {
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"]
  readonly permits: Backpressure.Backpressure["Service"]
  readonly admission: Admission.Admission
}

const makeSubject = (options: {
  readonly breaker?: CircuitBreaker.CircuitBreakerOptions
  readonly permits?: Backpressure.BackpressureOptions
} = {}): Effect.Effect<Subject, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore | Scope.Scope> =>
  Effect.gen(function*() {
    const breaker = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(2), ...options.breaker })
    const permits = yield* Backpressure.make({ capacity: 1, queue: 2, ...options.permits })
    return { breaker, permits, admission: yield* Admission.make({ breaker, permits, key: "openai" }) }
  })

const inMemory = Effect.provide(Layer.fresh(CircuitBreakerStore.layerMemory))
const overStore = Effect.provide(Layer.fresh(remoteStore(10)))

const isIdle = ({ breaker, permits }: Subject) =>
  Effect.gen(function*() {
    const { queued, running, slots } = yield* permits.snapshot
    assert.deepStrictEqual({ queued, running, slots }, { queued: 0, running: 0, slots: 0 })
    const circuit = yield* breaker.state("openai")
    if (circuit._tag === "HalfOpen") assert.strictEqual(circuit.probing, 0)
  })

const admitted = (answer: Admission.Admitted | Admission.Refused | undefined): Admission.Admitted => {
  if (answer?._tag !== "Admitted") return assert.fail(`not admitted: ${String(answer)}`)
  return answer
}

const open = ({ admission }: Subject) =>
  Effect.andThen(
    Effect.exit(admission.guard(Effect.fail("503"))),
    Effect.exit(admission.guard(Effect.fail("503")))
  )

describe("guard", () => {
  it.effect("runs the effect with a permit, and gives the permit back", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      const { admission, permits } = subject
      const running = yield* admission.guard(Effect.map(permits.snapshot, ({ running }) => running))
      assert.strictEqual(running, 1)
      yield* isIdle(subject)
    }).pipe(inMemory))

  it.effect("fails with CircuitOpen after failures, and takes no permit for a refusal", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      yield* open(subject)
      const refused = yield* Effect.flip(subject.admission.guard(Effect.void))
      assert.strictEqual(refused._tag, "CircuitOpen")
      assert.strictEqual((yield* subject.permits.snapshot).admitted, 3)
      yield* isIdle(subject)
    }).pipe(inMemory))

  it.effect("fails fast instead of queueing for a circuit that is open", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      yield* open(subject)
      yield* Effect.forkChild(subject.permits.withPermit(Effect.never), { startImmediately: true })
      const refused = yield* Effect.flip(subject.admission.guard(Effect.void))
      assert.strictEqual(refused._tag, "CircuitOpen")
      assert.strictEqual((yield* subject.permits.snapshot).queued, 0)
    }).pipe(inMemory))

  it.effect("a circuit that opens while the attempt is queued refuses it, and the permit is given back", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject({ breaker: { trip: CircuitBreaker.consecutive(1) } })
      const { admission } = subject
      const failing = yield* Effect.forkChild(
        admission.guard(Effect.andThen(Effect.sleep("1 second"), Effect.fail("503"))),
        { startImmediately: true }
      )
      const queued = yield* Effect.forkChild(admission.guard(Effect.void), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Effect.flip(Fiber.join(failing)), "503")
      assert.deepInclude(yield* Effect.flip(Fiber.join(queued)), { _tag: "CircuitOpen" })
      yield* isIdle(subject)
    }).pipe(inMemory))

  it.effect("fails with BackpressureShed if the queue is full or maxWait passes", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject({ permits: { capacity: 1, queue: 1 } })
      const { admission } = subject
      const running = yield* Effect.forkChild(admission.guard(Effect.never), { startImmediately: true })
      const queued = yield* Effect.forkChild(admission.guard(Effect.void, { maxWait: "1 second" }), {
        startImmediately: true
      })
      assert.deepInclude(yield* Effect.flip(admission.guard(Effect.void)), { why: "Full" })
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* Effect.flip(Fiber.join(queued)), { why: "MaxWait" })
      yield* Fiber.interrupt(running)
      yield* isIdle(subject)
    }).pipe(inMemory))

  it.effect("asks the classifier of the attempt before that of the breaker and that of the program", () =>
    Effect.gen(function*() {
      const heard: Array<string> = []
      const classifier = (name: string, outcome: Outcome.Outcome | undefined) => () => {
        heard.push(name)
        return outcome
      }
      const breaker = yield* CircuitBreaker.make({ classify: classifier("breaker", undefined) })
      const admission = yield* Admission.make({ breaker })
      const call = admission.guard(Effect.void, { classify: classifier("attempt", undefined) }).pipe(
        Effect.provideService(Outcome.Classifier, () => {
          heard.push("program")
          return Outcome.ignored
        })
      )
      yield* call
      assert.deepStrictEqual(heard, ["attempt", "breaker", "program"])
      yield* admission.guard(Effect.void, { classify: classifier("own", Outcome.success) })
      assert.deepStrictEqual(heard.slice(3), ["own"])
    }).pipe(inMemory))

  it.effect("a classifier that throws is a defect, and everything is given back", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      const exit = yield* Effect.exit(subject.admission.guard(Effect.void, {
        classify: () => {
          throw new Error("bad classifier")
        }
      }))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      yield* isIdle(subject)
    }).pipe(inMemory))
})

describe("acquire", () => {
  it.effect("holds the permit until the admission is settled, once", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      const { admission, permits } = subject
      const held = yield* admission.acquire()
      assert.strictEqual((yield* permits.snapshot).running, 1)
      for (let n = 0; n < 3; n++) yield* held.settle(Outcome.failure())
      yield* isIdle(subject)
      assert.strictEqual(yield* subject.breaker.failureCount("openai"), 1)
    }).pipe(Effect.scoped, inMemory))

  it.effect("settles as Ignored if the scope closes first", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      yield* Effect.scoped(subject.admission.acquire())
      yield* isIdle(subject)
      const { outcomes } = yield* subject.breaker.stats
      assert.deepInclude(outcomes, { Ignored: 1 })
    }).pipe(inMemory))

  it.effect("settleExit reads the exit with the classifier chain", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      yield* Effect.scoped(Effect.gen(function*() {
        const held = yield* subject.admission.acquire()
        yield* held.settleExit(Exit.fail("503"))
      }))
      assert.strictEqual(yield* subject.breaker.failureCount("openai"), 1)
      yield* isIdle(subject)
    }).pipe(inMemory))

  it.effect("leaves the queue at once if it is interrupted, not when the scope closes", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      const { admission, permits } = subject
      const first = yield* admission.acquire()
      const queued = yield* Effect.forkChild(admission.acquire(), { startImmediately: true })
      assert.strictEqual((yield* permits.snapshot).queued, 1)
      yield* Fiber.interrupt(queued)
      assert.strictEqual((yield* permits.snapshot).queued, 0)
      yield* first.settle(Outcome.success)
      yield* isIdle(subject)
    }).pipe(Effect.scoped, inMemory))

  it.effect("a probe holds its slot while it makes progress, and its success closes the circuit", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject({ breaker: { probeLease: "10 seconds", probesToClose: 1 } })
      yield* open(subject)
      yield* TestClock.adjust("30 seconds")
      const probe = yield* subject.admission.acquire()
      assert.isTrue(probe.isProbe)
      for (let n = 0; n < 5; n++) {
        yield* TestClock.adjust("8 seconds")
        probe.progress()
      }
      assert.strictEqual(
        yield* probe.within(subject.breaker.guard(Effect.succeed("nested"), { key: "openai" })),
        "nested"
      )
      yield* probe.settle(Outcome.success)
      assert.strictEqual((yield* subject.breaker.state("openai"))._tag, "Closed")
      yield* isIdle(subject)
    }).pipe(Effect.scoped, inMemory))

  it.effect("a guarded effect renews the lease of its probe, and of the probe around it", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({
        trip: CircuitBreaker.consecutive(1),
        probeLease: "10 seconds",
        probesToClose: 1
      })
      const outer = yield* Admission.make({ breaker, key: "outer" })
      const inner = yield* Admission.make({ breaker, key: "inner" })
      const slow = Effect.contextWith((context: Context.Context<never>) => {
        const progress = Admission.progressOf(context)
        return Effect.repeat(Effect.andThen(Effect.sleep("8 seconds"), Effect.sync(() => progress?.())), { times: 4 })
      })
      for (const { guard } of [outer, inner]) yield* Effect.flip(guard(Effect.fail("503")))
      yield* TestClock.adjust("30 seconds")
      const running = yield* Effect.forkChild(outer.guard(inner.guard(slow)))
      yield* TestClock.adjust("30 seconds")
      for (const { tryAcquireUnsafe } of [outer, inner]) {
        assert.deepInclude(tryAcquireUnsafe(), { _tag: "CircuitOpen", state: "HalfOpen" })
      }
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(running)
      for (const key of ["outer", "inner"]) assert.strictEqual((yield* breaker.state(key))._tag, "Closed")
    }).pipe(inMemory, Effect.scoped))

  it.effect("an effect that is not part of a probe has no lease to renew", () =>
    Effect.gen(function*() {
      const { admission } = yield* makeSubject()
      const found = Effect.contextWith((context: Context.Context<never>) =>
        Effect.succeed(Admission.progressOf(context))
      )
      assert.isUndefined(yield* admission.guard(found))
    }).pipe(Effect.scoped, inMemory))

  it.effect("a probe without progress loses its slot to the next attempt, and its outcome does not count", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject({
        breaker: { probeLease: "10 seconds", probesToClose: 1 },
        permits: { capacity: 2 }
      })
      yield* open(subject)
      yield* TestClock.adjust("30 seconds")
      const stuck = yield* subject.admission.acquire()
      assert.deepInclude(yield* Effect.flip(subject.admission.acquire()), { _tag: "CircuitOpen", state: "HalfOpen" })
      yield* TestClock.adjust("10 seconds")
      const next = yield* subject.admission.acquire()
      assert.isTrue(next.isProbe)
      yield* stuck.settle(Outcome.success)
      assert.strictEqual((yield* subject.breaker.state("openai"))._tag, "HalfOpen")
      yield* next.settle(Outcome.success)
      assert.strictEqual((yield* subject.breaker.state("openai"))._tag, "Closed")
    }).pipe(Effect.scoped, inMemory))

  it.effect("over a shared store it waits for the store, and settles there", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject({ breaker: { trip: CircuitBreaker.consecutive(1) } })
      const acquiring = yield* Effect.forkChild(Effect.scoped(Effect.gen(function*() {
        const held = yield* subject.admission.acquire()
        yield* held.settle(Outcome.failure())
      })))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(acquiring)
      const state = yield* Effect.forkChild(subject.breaker.state("openai"))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(state))._tag, "Open")
    }).pipe(overStore))

  it.effect("a store that fails fails no attempt", () =>
    Effect.gen(function*() {
      const faulty = yield* faultyStore
      faulty.breakDown("read", "lease", "record", "transition")
      const subject = yield* Effect.provideService(
        makeSubject(),
        CircuitBreakerStore.CircuitBreakerStore,
        faulty.store
      )
      yield* Effect.scoped(Effect.flatMap(subject.admission.acquire(), (held) => held.settle(Outcome.success)))
      assert.deepInclude(yield* subject.permits.snapshot, { running: 0, slots: 0 })
    }).pipe(Effect.scoped))
})

describe("tryAcquireUnsafe", () => {
  it.effect("admits, refuses or says that only acquire can answer", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject({ permits: { capacity: 1, queue: 0 } })
      const { admission } = subject
      yield* Effect.sync(() => {
        const first = admitted(admission.tryAcquireUnsafe())
        assert.deepInclude(admission.tryAcquireUnsafe(), { _tag: "BackpressureShed", why: "Full" })
        first.settleUnsafe(Outcome.failure())
        admitted(admission.tryAcquireUnsafe()).settleUnsafe(Outcome.failure())
        assert.deepInclude(admission.tryAcquireUnsafe(), { _tag: "CircuitOpen" })
      })
      yield* isIdle(subject)
    }).pipe(inMemory))

  it.effect("returns nothing if the attempt would queue, and counts no refusal", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      const { admission, permits } = subject
      yield* Effect.sync(() => {
        const first = admitted(admission.tryAcquireUnsafe())
        assert.isUndefined(admission.tryAcquireUnsafe())
        first.settleUnsafe(Outcome.success)
      })
      assert.strictEqual((yield* permits.snapshot).shed.Full, 0)
      yield* isIdle(subject)
    }).pipe(inMemory))

  it.effect("returns nothing if the circuits are in a shared store", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      assert.isUndefined(subject.admission.tryAcquireUnsafe())
      assert.deepInclude(yield* subject.permits.snapshot, { running: 0, slots: 0 })
    }).pipe(overStore))

  it.effect("settles once, whatever is called afterwards", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      const held = admitted(subject.admission.tryAcquireUnsafe())
      held.settleUnsafe(Outcome.failure())
      held.settleUnsafe(Outcome.failure())
      yield* held.settle(Outcome.failure())
      yield* held.settleExit(Exit.fail("503"))
      assert.strictEqual(yield* subject.breaker.failureCount("openai"), 1)
      yield* isIdle(subject)
    }).pipe(inMemory))

  it.effect("takes as many permits as requested", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject({ permits: { capacity: 3 } })
      const held = admitted(subject.admission.tryAcquireUnsafe({ permits: 3 }))
      assert.isUndefined(subject.admission.tryAcquireUnsafe())
      held.settleUnsafe(Outcome.success)
      assert.deepInclude(subject.admission.tryAcquireUnsafe({ permits: 4 }), { why: "TooLarge" })
      yield* isIdle(subject)
    }).pipe(inMemory))
})

describe("guardStream", () => {
  it.effect("keeps its permit until the stream is closed, and reports how upstream ended", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      const { admission, breaker, permits } = subject
      const running = yield* Stream.runCollect(
        admission.guardStream(Stream.mapEffect(Stream.range(1, 3), () => permits.snapshot))
      )
      assert.deepStrictEqual(running.map(({ running }) => running), [1, 1, 1])
      yield* Effect.exit(Stream.runDrain(admission.guardStream(Stream.fail("503"))))
      assert.strictEqual(yield* breaker.failureCount("openai"), 1)
      yield* isIdle(subject)
    }).pipe(inMemory))

  it.effect("a consumer that leaves counts as Ignored, and as Success once the stream was complete", () =>
    Effect.gen(function*() {
      const subject = yield* makeSubject()
      const { admission, breaker } = subject
      const forever = Stream.forever(Stream.make("part"))
      yield* Stream.runDrain(Stream.take(admission.guardStream(forever), 2))
      yield* Stream.runDrain(Stream.take(admission.guardStream(forever, { isComplete: () => true }), 2))
      assert.deepInclude((yield* breaker.stats).outcomes, { Ignored: 1, Success: 1 })
      yield* isIdle(subject)
    }).pipe(inMemory))
})

describe("make", () => {
  it.effect("works with a breaker alone, with permits alone, and with neither", () =>
    Effect.gen(function*() {
      const { breaker, permits } = yield* makeSubject()
      for (const options of [{ breaker }, { permits }, {}]) {
        const admission = yield* Admission.make(options)
        assert.strictEqual(yield* admission.guard(Effect.succeed("answer")), "answer")
        admitted(admission.tryAcquireUnsafe()).settleUnsafe(Outcome.success)
        yield* Effect.scoped(Effect.flatMap(admission.acquire(), (held) => held.settle(Outcome.success)))
        assert.deepStrictEqual(yield* Stream.runCollect(admission.guardStream(Stream.make(1, 2))), [1, 2])
      }
    }).pipe(inMemory))

  it.effect("takes the noop services", () =>
    Effect.gen(function*() {
      const admission = yield* Admission.make({ breaker: CircuitBreaker.noop, permits: Backpressure.noop })
      for (let n = 0; n < 10; n++) assert.strictEqual(yield* Effect.flip(admission.guard(Effect.fail("503"))), "503")
      admitted(admission.tryAcquireUnsafe()).settleUnsafe(Outcome.failure())
    }))

  it.effect("refuses a service that was implemented elsewhere, and a copy, since it would be bypassed", () =>
    Effect.gen(function*() {
      const { breaker, permits } = yield* makeSubject()
      const invalid = yield* Effect.flip(
        Admission.make({ breaker: { ...breaker }, permits: { ...permits }, key: 7 as unknown as string })
      )
      assert.deepStrictEqual(invalid.issues.map(({ option }) => option).toSorted(), ["breaker", "key", "permits"])
    }).pipe(inMemory))

  it.effect("refuses permits as a breaker and a breaker as permits", () =>
    Effect.gen(function*() {
      const { breaker, permits } = yield* makeSubject()
      const swaps: ReadonlyArray<readonly [breaker: object, permits: object]> = [
        [permits, breaker],
        [Backpressure.noop, CircuitBreaker.noop]
      ]
      for (const [asBreaker, asPermits] of swaps) {
        const swapped = { breaker: asBreaker, permits: asPermits } as Admission.AdmissionOptions
        const invalid = yield* Effect.flip(Admission.make(swapped))
        assert.deepStrictEqual(invalid.issues.map(({ option }) => option), ["breaker", "permits"])
      }
    }).pipe(inMemory))
})

describe("invalid options of one attempt", () => {
  const invalid: Record<string, Backpressure.PermitOptions> = {
    "permits: 0": { permits: 0 },
    "permits: -1": { permits: -1 },
    "permits: 1.5": { permits: 1.5 },
    "permits: NaN": { permits: Number.NaN },
    "permits: null": { permits: null as unknown as number },
    "maxWait: -1": { maxWait: -1 },
    "maxWait: NaN": { maxWait: Number.NaN },
    "maxWait: Infinity": { maxWait: Number.POSITIVE_INFINITY },
    "maxWait: infinity": { maxWait: Duration.infinity },
    "maxWait: soon": { maxWait: "soon" as Duration.Input },
    "maxWait: null": { maxWait: null as unknown as Duration.Input },
    "options: null": null as unknown as Backpressure.PermitOptions
  }
  type Attempt = (
    admission: Admission.Admission,
    options: Backpressure.PermitOptions
  ) => Effect.Effect<unknown, unknown>
  const attempts: Record<string, Attempt> = {
    guard: (admission, options) => admission.guard(Effect.void, options),
    acquire: (admission, options) => Effect.scoped(admission.acquire(options)),
    guardStream: (admission, options) => Stream.runDrain(admission.guardStream(Stream.empty, options)),
    tryAcquireUnsafe: (admission, options) => Effect.sync(() => admission.tryAcquireUnsafe(options))
  }
  for (const [name, attempt] of Object.entries(attempts)) {
    it.effect(`of ${name} are a defect when it runs, and never throw before`, () =>
      Effect.gen(function*() {
        const subject = yield* makeSubject()
        for (const [what, options] of Object.entries(invalid)) {
          const call = attempt(subject.admission, options)
          const exit = yield* Effect.exit(call)
          assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause), what)
          const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
          assert.deepInclude(defect, { _tag: "InvalidOptions", module: "Admission" }, what)
        }
        yield* isIdle(subject)
      }).pipe(inMemory))
  }
})

it.effect("attempts of one admission and calls of its parts share the permits and the circuit", () =>
  Effect.gen(function*() {
    const subject = yield* makeSubject()
    const { admission, breaker, permits } = subject
    yield* Effect.exit(breaker.guard(Effect.fail("503"), { key: "openai" }))
    yield* Effect.exit(admission.guard(Effect.fail("503")))
    assert.deepInclude(yield* Effect.flip(breaker.guard(Effect.void, { key: "openai" })), { _tag: "CircuitOpen" })
    yield* TestClock.adjust("30 seconds")
    const running = yield* Effect.forkChild(permits.withPermit(yields(20)), { startImmediately: true })
    assert.isUndefined(admission.tryAcquireUnsafe())
    yield* Fiber.join(running)
    admitted(admission.tryAcquireUnsafe()).settleUnsafe(Outcome.success)
    yield* isIdle(subject)
  }).pipe(inMemory))
