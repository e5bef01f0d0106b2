import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import { TestClock, TestConsole } from "effect/testing"
import { oneFailure, refusalOf, stateTag, withBreaker } from "./support/breakers.ts"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"
import { faultyStore, remoteStore } from "./support/stores.ts"

const { consecutive, failureRate } = CircuitBreaker

describe("CircuitBreaker", () => {
  describe("stores", () => {
    const breakerOn = (store: Layer.Layer<CircuitBreakerStore.CircuitBreakerStore>) =>
      Effect.map(
        Layer.build(CircuitBreaker.layerStore(oneFailure).pipe(Layer.provide(store))),
        (context) => Context.get(context, CircuitBreaker.CircuitBreaker)
      )

    it.effect("two breakers on one store share their circuits", () =>
      Effect.gen(function*() {
        const [one, other] = [yield* CircuitBreaker.make(oneFailure), yield* CircuitBreaker.make(oneFailure)]
        yield* failCalls(one, 1, "openai")
        assert.strictEqual(yield* stateTag(other, "openai"), "Open")
        yield* TestClock.adjust("30 seconds")
        const probe = yield* startCall(one, { key: "openai" })
        assert.strictEqual((yield* refusalOf(other, "openai")).state, "HalfOpen")
        yield* probe.succeed
        assert.strictEqual(yield* succeedCall(other, "openai"), "an answer")
      }).pipe(Effect.scoped, Effect.provide(CircuitBreakerStore.layerMemory)))

    it.effect("breakers with different windows share a circuit, and each counts by its own window", () =>
      Effect.gen(function*() {
        const short = yield* CircuitBreaker.make({ trip: consecutive(2) })
        const long = yield* CircuitBreaker.make({ trip: failureRate({ rate: 0.34, calls: 50, minimum: 50 }) })
        for (let i = 0; i < 49; i++) yield* failCalls(long, 1)
        assert.strictEqual(yield* stateTag(short), "Closed", "another breaker's window does not open it")
        yield* failCalls(long, 1)
        assert.deepInclude(yield* refusalOf(short), { calls: 50, failures: 50 })
      }).pipe(Effect.scoped, Effect.provide(CircuitBreakerStore.layerMemory)))

    it.effect("two layers do not share circuits", () =>
      withBreaker(oneFailure, (one) =>
        withBreaker(oneFailure, (other) =>
          Effect.gen(function*() {
            yield* failCalls(one, 1)
            assert.strictEqual(yield* stateTag(other), "Closed")
          }))))

    it.effect("over a slow store a circuit opens, admits one probe and closes", () =>
      Effect.gen(function*() {
        const breaker = yield* breakerOn(remoteStore(10))
        const afterRoundTrips = <A, E>(effect: Effect.Effect<A, E>) =>
          Effect.gen(function*() {
            const fiber = yield* Effect.forkChild(effect)
            yield* TestClock.adjust("100 millis")
            return yield* Fiber.join(fiber)
          })
        yield* afterRoundTrips(failCalls(breaker, 1))
        assert.strictEqual(yield* afterRoundTrips(stateTag(breaker)), "Open")
        yield* TestClock.adjust("30 seconds")
        const calls = yield* Effect.forEach(Array.from({ length: 20 }), () => startCall(breaker))
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(calls.filter((call) => call.ran()).length, 1)
        const probe = calls.find((call) => call.ran())!
        yield* afterRoundTrips(probe.succeed)
        assert.strictEqual(yield* afterRoundTrips(stateTag(breaker)), "Closed")
      }).pipe(Effect.scoped))

    it.effect("a call interrupted while a slow store leases its probe slot frees the slot", () =>
      Effect.gen(function*() {
        const breaker = yield* breakerOn(remoteStore(10))
        const afterRoundTrips = (effect: Effect.Effect<unknown>) =>
          Effect.gen(function*() {
            const fiber = yield* Effect.forkChild(effect)
            yield* TestClock.adjust("100 millis")
            return yield* Fiber.join(fiber)
          })
        yield* afterRoundTrips(failCalls(breaker, 1))
        yield* TestClock.adjust("30 seconds")
        for (let millis = 0; millis <= 30; millis += 3) {
          const fiber = yield* Effect.forkChild(breaker.guard(Effect.never), { startImmediately: true })
          yield* TestClock.adjust(millis)
          yield* afterRoundTrips(Fiber.interrupt(fiber))
          const state = yield* Effect.forkChild(breaker.state())
          yield* TestClock.adjust("10 millis")
          assert.deepInclude(yield* Fiber.join(state), { _tag: "HalfOpen", probing: 0 }, `after ${millis} ms`)
        }
      }).pipe(Effect.scoped))

    it.effect("while the store is down local circuits take over from the last known state", () =>
      Effect.gen(function*() {
        const { breakDown, recover, store } = yield* faultyStore
        const breaker = yield* breakerOn(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store))
        yield* failCalls(breaker, 1)
        breakDown("read", "lease", "record", "transition")
        yield* TestClock.adjust("10 seconds")
        assert.deepInclude(yield* refusalOf(breaker), { state: "Open", retryAfter: 20_000 })
        assert.strictEqual(yield* succeedCall(breaker, "never called"), "an answer")
        yield* failCalls(breaker, 1, "never called")
        assert.deepInclude(yield* refusalOf(breaker, "never called"), { state: "Open", retryAfter: 30_000 })
        yield* TestClock.adjust("20 seconds")
        assert.strictEqual(yield* succeedCall(breaker), "an answer", "a probe")
        assert.strictEqual((yield* Effect.flip(breaker.state()))._tag, "StoreError")
        recover()
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* stateTag(breaker), "HalfOpen", "the store has no record of the probe")
      }).pipe(Effect.scoped))

    it.effect("a failing store is logged once, and so is its recovery", () =>
      Effect.gen(function*() {
        const { breakDown, recover, store } = yield* faultyStore
        const breaker = yield* breakerOn(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store))
        breakDown("read", "lease", "record", "transition")
        for (let i = 0; i < 20; i++) {
          yield* succeedCall(breaker)
          yield* TestClock.adjust("500 millis")
        }
        recover()
        yield* TestClock.adjust("1 second")
        yield* succeedCall(breaker)
        const lines = (yield* TestConsole.logLines).join("\n")
        assert.strictEqual(lines.split("connection refused").length - 1, 1, lines)
        assert.include(lines, "answers again, after 11s")
      }).pipe(Effect.scoped))

    for (const verb of ["record", "lease"] as const) {
      it.effect(`a store that cannot ${verb} fails no call`, () =>
        Effect.gen(function*() {
          const { breakDown, recover, store } = yield* faultyStore
          const breaker = yield* breakerOn(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store))
          yield* failCalls(breaker, 1)
          yield* TestClock.adjust("30 seconds")
          breakDown(verb)
          assert.strictEqual(yield* succeedCall(breaker), "an answer")
          recover()
          yield* TestClock.adjust("60 seconds")
          yield* succeedCall(breaker)
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        }).pipe(Effect.scoped))
    }

    it.effect("the next call closes the circuit when a probe's transition was lost", () =>
      Effect.gen(function*() {
        const { breakDown, recover, store } = yield* faultyStore
        const breaker = yield* breakerOn(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store))
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        breakDown("transition")
        yield* succeedCall(breaker)
        recover()
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* succeedCall(breaker), "an answer")
        assert.strictEqual(yield* stateTag(breaker), "Closed")
      }).pipe(Effect.scoped))

    it.effect("the next call opens the circuit when a failed probe's transition was lost", () =>
      Effect.gen(function*() {
        const { breakDown, recover, store } = yield* faultyStore
        const breaker = yield* breakerOn(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store))
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        breakDown("transition")
        yield* failCalls(breaker, 1)
        recover()
        yield* TestClock.adjust("1 second")
        assert.deepInclude(yield* refusalOf(breaker), { state: "Open", retryAfter: 30_000 })
      }).pipe(Effect.scoped))
  })
})
