import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Metric, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { fork } from "./support/effects.ts"
import { withStore } from "./support/policies.ts"
import { yields } from "./support/probe.ts"

const everything: Sluice.SluiceOptions = {
  name: "gpt",
  retry: RetryPolicy.constant({ maxAttempts: 2, baseDelay: "1 second", jitter: "none" }),
  breaker: { trip: CircuitBreaker.consecutive(2), openFor: "30 seconds" },
  backpressure: { capacity: 2, queue: 1, softLimit: 1 },
  attemptTimeout: "10 seconds"
}

/** Collects the events of a policy from now on. */
const collectEvents = (gpt: Sluice.Sluice) =>
  Effect.gen(function*() {
    const events: Array<Sluice.PolicyEvent> = []
    const fiber = yield* fork(Stream.runForEach(gpt.events, (event) => Effect.sync(() => events.push(event))))
    return { events, fiber, tags: () => new Set(events.map((event) => event._tag)) }
  })

const total = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((sum, count) => sum + count, 0)

describe("events", () => {
  it.effect("events are collected from the moment of subscribing", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({ ...everything, retry: RetryPolicy.none })
      const { tags } = yield* collectEvents(gpt)
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      yield* yields(20)
      assert.deepStrictEqual(tags(), new Set(["Attempt", "Pressure"]))
    }).pipe(withStore))

  it.effect("every attempt is an event with what follows it", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({ ...everything, breaker: undefined, backpressure: undefined })
      const { events } = yield* collectEvents(gpt)
      yield* yields(10)
      yield* fork(Effect.exit(gpt.protect(Effect.fail("503"), { key: "a" })))
      yield* TestClock.adjust("1 second")
      yield* yields(10)
      assert.deepStrictEqual(
        events.map((event) =>
          event._tag === "Attempt" ? [event.key, event.attempt, event.next._tag, event.at] : event._tag
        ),
        [["a", 1, "Wait", 0], ["a", 2, "Stop", 1_000]]
      )
    }).pipe(withStore))

  for (const how of ["CircuitOpen", "BackpressureShed", "DeadlineExceeded"] as const) {
    for (const what of ["a call", "a stream"] as const) {
      it.effect(`${what} that is refused with ${how} is one Rejected event`, () =>
        Effect.gen(function*() {
          const gpt = yield* Sluice.make({ ...everything, breaker: { trip: CircuitBreaker.consecutive(1) } })
          if (how === "CircuitOpen") yield* Effect.exit(gpt.breaker.guard(Effect.fail("503"), { key: "gpt" }))
          if (how === "BackpressureShed") {
            for (let i = 0; i < 3; i++) yield* fork(gpt.protect(Effect.never))
          }
          const { events } = yield* collectEvents(gpt)
          yield* yields(10)
          const options = how === "DeadlineExceeded" ? { deadline: "1 second" } as const : {}
          const call: Effect.Effect<unknown, unknown> = what === "a call"
            ? gpt.protect(Effect.never, options)
            : Stream.runDrain(gpt.protectStream(Stream.never, options))
          const fiber = yield* fork(Effect.exit(call))
          yield* TestClock.adjust("1 second")
          assert.isTrue(Exit.isFailure(yield* Fiber.join(fiber)))
          yield* yields(10)
          const rejected = events.filter((event) => event._tag === "Rejected")
          assert.deepStrictEqual(rejected.map(({ reason }) => reason), [how])
          assert.strictEqual((yield* gpt.snapshot).calls.rejected, 1)
        }).pipe(withStore))
    }
  }

  it.effect("transitions of the circuit and levels of pressure are events", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make(everything)
      const { events } = yield* collectEvents(gpt)
      yield* yields(10)
      for (let i = 0; i < 2; i++) yield* Effect.exit(gpt.breaker.guard(Effect.fail("503"), { key: "gpt" }))
      yield* TestClock.adjust("30 seconds")
      yield* gpt.protect(Effect.void)
      const end = yield* Deferred.make<void>()
      const calls = [yield* fork(gpt.protect(Deferred.await(end))), yield* fork(gpt.protect(Deferred.await(end)))]
      yield* Deferred.succeed(end, undefined)
      yield* Fiber.joinAll(calls)
      yield* yields(20)
      assert.deepStrictEqual(
        events.flatMap((event) => event._tag === "Circuit" ? [event.transition.to] : []),
        ["Open", "HalfOpen", "Closed"]
      )
      const levels = new Set(events.flatMap((event) => event._tag === "Pressure" ? [event.pressure.level] : []))
      assert.deepStrictEqual(levels, new Set(["Soft", "Full", "Normal"]))
    }).pipe(withStore))

  it.effect("events end when the scope of the policy closes, and readers complete", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const gpt = yield* Sluice.make(everything).pipe(Effect.provideService(Scope.Scope, scope))
      const { fiber } = yield* collectEvents(gpt)
      yield* yields(10)
      yield* Scope.close(scope, Exit.void)
      yield* yields(20)
      assert.isDefined(fiber.pollUnsafe())
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(fiber)))
      assert.deepStrictEqual(yield* Stream.runCollect(gpt.events), [])
    }).pipe(withStore))

  it.effect("a reader that stopped reading gets no events and misses none", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({ ...everything, retry: RetryPolicy.none, breaker: undefined })
      const { events, fiber } = yield* collectEvents(gpt)
      yield* yields(10)
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      yield* yields(10)
      yield* Fiber.interrupt(fiber)
      const before = events.length
      for (let i = 0; i < 1_000; i++) yield* Effect.exit(gpt.protect(Effect.fail("503")))
      yield* yields(10)
      assert.deepStrictEqual([events.length, (yield* gpt.snapshot).dropped], [before, 0])
    }).pipe(withStore))

  it.effect("a slow reader loses the oldest events, and the snapshot counts them", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({ name: "gpt" })
      const seen: Array<Sluice.PolicyEvent> = []
      const gate = yield* Deferred.make<void>()
      yield* fork(Stream.runForEach(gpt.events, (event) =>
        Effect.andThen(
          Deferred.await(gate),
          Effect.sync(() => seen.push(event))
        )))
      yield* yields(10)
      for (let i = 0; i < 2_000; i++) yield* Effect.exit(gpt.protect(Effect.fail("503"), { key: String(i) }))
      yield* Deferred.succeed(gate, undefined)
      yield* yields(100)
      const { dropped } = yield* gpt.snapshot
      assert.isAbove(dropped, 0)
      assert.strictEqual(seen.length + dropped, 2_000)
      const last = seen.at(-1)
      assert.strictEqual(last?._tag === "Attempt" && last.key, "1999")
    }).pipe(withStore))

  it.effect("dropped transitions of the breaker count in the breaker's stats, not in the policy's", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({ ...everything, breaker: { trip: CircuitBreaker.consecutive(1), openFor: 0 } })
      const gate = yield* Deferred.make<void>()
      yield* fork(Stream.runForEach(gpt.events, () => Deferred.await(gate)))
      yield* yields(10)
      for (let i = 0; i < 1_000; i++) yield* Effect.exit(gpt.breaker.guard(Effect.fail("503"), { key: String(i) }))
      const { breaker, dropped } = yield* gpt.snapshot
      assert.deepStrictEqual([dropped, breaker.dropped > 0], [0, true])
    }).pipe(withStore))
})

describe("snapshot", () => {
  it.effect("a snapshot adds up over calls that succeed, fail, are refused and are interrupted", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({
        ...everything,
        breaker: { trip: CircuitBreaker.failureRate({ rate: 0.5, calls: 10 }), openFor: "3 seconds", probes: 2 }
      })
      const Ask = Deduplicator.operation<string, "503">()("ask", { key: (text: string) => text })
      let ran = 0
      let started = 0
      const calls: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let i = 0; i < 400; i++) {
        const body = Effect.suspend((): Effect.Effect<string, "503"> => {
          ran++
          return Effect.andThen(
            Effect.sleep((i * 37) % 500),
            i % 3 === 0 ? Effect.fail("503" as const) : Effect.succeed("ok")
          )
        })
        started++
        const key = i % 7 === 0 ? "b" : "a"
        const call: Effect.Effect<unknown, unknown> = i % 5 === 0
          ? Stream.runDrain(gpt.protectStream(Stream.fromEffect(body), { key }))
          : i % 11 === 0
          ? gpt.protect(body, { key, dedupe: Ask(String(i)), deadline: "2 seconds" })
          : gpt.protect(body, { key })
        calls.push(yield* fork(call))
        yield* TestClock.adjust((i * 53) % 300)
        if (i % 13 === 0) yield* Fiber.interrupt(calls[i]!)
      }
      yield* TestClock.adjust("1 minute")
      for (const call of calls) yield* Fiber.await(call)
      const { attempts, backpressure, breaker, calls: ended, deduplicator } = yield* gpt.snapshot
      assert.strictEqual(attempts, ran, "attempts equal the runs")
      assert.strictEqual(total({ ...ended }), started, "every call has ended")
      assert.deepInclude(backpressure, { running: 0, queued: 0, slots: 0 })
      assert.deepInclude(deduplicator, { flights: 0 })
      // Each attempt has an outcome. One whose deadline passed at the last moment was admitted and never began.
      assert.isAtLeast(total(breaker.outcomes), attempts)
      assert.isAtMost(total(breaker.outcomes) - attempts, 5)
      for (const count of Object.values(ended)) assert.isAbove(count, 0)
    }).pipe(withStore))
})

describe("ends of streams in the snapshot", () => {
  it.effect("a consumer that stops early or is interrupted does not count as a failed call", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({ name: "gpt" })
      const stream = gpt.protectStream(Stream.make(1, 2))
      yield* Stream.runDrain(stream)
      yield* Stream.runDrain(Stream.take(stream, 1))
      yield* Effect.exit(Stream.runDrain(gpt.protectStream(Stream.fail("503"))))
      const fiber = yield* fork(Stream.runDrain(gpt.protectStream(Stream.never)))
      yield* yields(5)
      yield* Fiber.interrupt(fiber)
      const { calls } = yield* gpt.snapshot
      assert.deepStrictEqual(calls, { succeeded: 2, failed: 1, rejected: 0, interrupted: 1 })
    }).pipe(withStore))

  // Regression: the consumer's error counted as the call's own.
  it.effect("a consumer that fails does not count as a failed call", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({ name: "gpt" })
      yield* Effect.exit(Stream.runForEach(gpt.protectStream(Stream.make(1, 2)), () => Effect.fail("the consumer's")))
      assert.strictEqual((yield* gpt.snapshot).calls.failed, 0)
    }).pipe(withStore))
})

describe("drain, resume and resize", () => {
  it.effect("a drained policy refuses new calls, lets running ones end, and admits again after resume", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make(everything)
      const end = yield* Deferred.make<string>()
      const running = yield* fork(gpt.protect(Deferred.await(end)))
      const drain = yield* fork(gpt.drain)
      const refused = yield* Effect.exit(gpt.protect(Effect.void))
      assert.isTrue(Exit.isFailure(refused) && String(refused).includes("Rejected"))
      assert.isUndefined(drain.pollUnsafe())
      assert.isTrue((yield* gpt.snapshot).backpressure?.draining)
      yield* Deferred.succeed(end, "an answer")
      assert.strictEqual(yield* Fiber.join(running), "an answer")
      assert.isTrue(yield* Fiber.join(drain))
      yield* gpt.resume
      yield* gpt.protect(Effect.void)
    }).pipe(withStore))

  it.effect("a drain ends a call that backs off, and does not wait for its next attempt", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make(everything)
      const call = yield* fork(Effect.exit(gpt.protect(Effect.fail("503"))))
      assert.isTrue(yield* gpt.drain)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(call)))
      assert.strictEqual((yield* gpt.snapshot).attempts, 1)
    }).pipe(withStore))

  it.effect("resize changes the number of running calls and refuses invalid values", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({ ...everything, backpressure: { capacity: 1, queue: 5 } })
      const end = yield* Deferred.make<void>()
      const calls = yield* Effect.forEach([1, 2, 3], () => fork(gpt.protect(Deferred.await(end))))
      assert.strictEqual((yield* gpt.snapshot).backpressure?.running, 1)
      yield* gpt.resize(3)
      assert.strictEqual((yield* gpt.snapshot).backpressure?.running, 3)
      for (const value of [0, -1, Number.NaN, "2", null, {}, []]) {
        const exit = yield* Effect.exit(Effect.suspend(() => gpt.resize(value as number)))
        assert.isTrue(Exit.isFailure(exit) && !Exit.hasDies(exit), String(value))
      }
      yield* Deferred.succeed(end, undefined)
      yield* Fiber.joinAll(calls)
    }).pipe(withStore))

  it.effect("a policy without backpressure has nothing to drain", () =>
    Effect.gen(function*() {
      const gpt = yield* Sluice.make({ name: "gpt" })
      assert.isTrue(yield* gpt.drain)
      yield* gpt.resume
      yield* gpt.resize(5)
      yield* gpt.protect(Effect.void)
    }).pipe(withStore))
})

describe("metrics", () => {
  const seriesAfter = (keys: number) =>
    Effect.gen(function*() {
      const registry: Metric.MetricRegistry = new Map()
      const series = Effect.provideService(Metric.snapshot, Metric.MetricRegistry, registry)
      const gpt = yield* Effect.provideService(
        Sluice.make({ ...everything, retry: RetryPolicy.none }),
        Metric.MetricRegistry,
        registry
      )
      const Ask = Deduplicator.operation<string, string>()("ask", { key: (text: string) => text, timeToLive: "1 hour" })
      for (let i = 0; i < keys; i++) {
        const body = i % 3 === 0 ? Effect.fail("503" as const) : Effect.succeed("an answer")
        yield* Effect.provideService(
          Effect.exit(gpt.protect(body, { key: `key-${i}`, dedupe: Ask(`secret-${i}`) })),
          Metric.MetricRegistry,
          registry
        )
      }
      return yield* series
    }).pipe(withStore, Effect.scoped)

  it.effect("10,000 keys make as many metric series as 10, and none contains a key", () =>
    Effect.gen(function*() {
      const few = yield* seriesAfter(10)
      const many = yield* seriesAfter(10_000)
      assert.strictEqual(many.length, few.length)
      assert.notInclude(JSON.stringify(many), "key-")
      assert.notInclude(JSON.stringify(many), "secret-")
      const named = new Set(many.flatMap(({ attributes }) => [attributes?.["policy"]]))
      assert.deepStrictEqual(named, new Set(["gpt"]))
    }))

  it.effect("metrics count calls, attempts and transitions, and are removed with the policy", () =>
    Effect.gen(function*() {
      const registry: Metric.MetricRegistry = new Map()
      const read = Effect.map(
        Effect.provideService(Metric.snapshot, Metric.MetricRegistry, registry),
        (all) =>
          new Map(
            all.map((metric) => [`${metric.id} ${Object.values(metric.attributes ?? {}).join(" ")}`, metric.state])
          )
      )
      yield* Effect.gen(function*() {
        const gpt = yield* Effect.provideService(
          Sluice.make({ ...everything, retry: RetryPolicy.none }),
          Metric.MetricRegistry,
          registry
        )
        yield* gpt.protect(Effect.void)
        for (let i = 0; i < 3; i++) yield* Effect.exit(gpt.protect(Effect.fail("503")))
        const shown = yield* read
        const count = (id: string) => (shown.get(id) as { readonly count: number } | undefined)?.count
        assert.strictEqual(count("sluice_policy_calls_total gpt succeeded"), 1)
        assert.strictEqual(count("sluice_policy_calls_total gpt failed"), 2)
        assert.strictEqual(count("sluice_policy_calls_total gpt rejected"), 1)
        assert.strictEqual(count("sluice_policy_attempts_total gpt"), 3)
        assert.strictEqual(count("sluice_circuit_refused_total gpt"), 1)
        assert.strictEqual(count("sluice_circuit_transitions_total gpt Open"), 1)
        assert.strictEqual(count("sluice_circuit_calls_total gpt Failure"), 2)
      }).pipe(withStore, Effect.scoped)
      assert.strictEqual((yield* read).size, 0)
    }))

  it.effect("two policies of one name add up in one metric series", () =>
    Effect.gen(function*() {
      const registry: Metric.MetricRegistry = new Map()
      const made = Effect.provideService(Sluice.make({ name: "gpt" }), Metric.MetricRegistry, registry)
      const one = yield* made
      const other = yield* made
      yield* one.protect(Effect.void)
      yield* other.protect(Effect.void)
      const all = yield* Effect.provideService(Metric.snapshot, Metric.MetricRegistry, registry)
      const succeeded = all.filter((metric) =>
        metric.id === "sluice_policy_calls_total" && metric.attributes?.["end"] === "succeeded"
      )
      assert.deepStrictEqual(succeeded.map(({ state }) => (state as { readonly count: number }).count), [2])
    }).pipe(withStore, Effect.scoped))
})
