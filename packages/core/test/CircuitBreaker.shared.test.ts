import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"

type Store = CircuitBreakerStore.CircuitBreakerStore["Service"]
type Verb = "read" | "lease" | "record" | "transition"

/** A store that counts its requests and can delay its replies. */
interface Watched {
  readonly store: Store
  readonly requests: Record<Verb, number>
  /** Milliseconds until a reply. Infinite for a store that hangs. */
  delay: number
  /** Whether requests are uninterruptible. */
  isUninterruptible: boolean
}

const watched: Effect.Effect<Watched> = Effect.map(CircuitBreakerStore.makeMemory(), (memory) => {
  const requests = { read: 0, lease: 0, record: 0, transition: 0 }
  const late = <A, E>(verb: Verb, self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      requests[verb]++
      if (watch.delay === 0) return self
      const wait = watch.delay === Number.POSITIVE_INFINITY ? Effect.never : Effect.sleep(watch.delay)
      return Effect.andThen(watch.isUninterruptible ? Effect.uninterruptible(wait) : wait, self)
    })
  const watch: Watched = {
    requests,
    delay: 0,
    isUninterruptible: false,
    store: CircuitBreakerStore.CircuitBreakerStore.of({
      read: (options) => late("read", memory.read(options)),
      lease: (options) => late("lease", memory.lease(options)),
      record: (options) => late("record", memory.record(options)),
      transition: (options) => late("transition", memory.transition(options)),
      list: memory.list
    })
  }
  return watch
})

const breakerOn = (watch: Watched, options?: CircuitBreaker.CircuitBreakerOptions) =>
  CircuitBreaker.make({ trip: CircuitBreaker.consecutive(1), openFor: "30 seconds", ...options }).pipe(
    Effect.provide(Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, watch.store))
  )

const total = ({ requests }: Watched) => requests.read + requests.lease + requests.record + requests.transition

/** Runs an effect while the test clock advances. Returns its exit and how long it took. */
const timed = <A, E>(self: Effect.Effect<A, E>, most = 10_000) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(self), { startImmediately: true })
    let millis = 0
    while (fiber.pollUnsafe() === undefined && millis < most) {
      yield* TestClock.adjust(10)
      millis += 10
    }
    return [yield* Fiber.join(fiber), millis] as const
  })

describe("CircuitBreaker over a shared store", () => {
  describe("requests", () => {
    it.effect("a call through a known closed circuit costs one request, after the call", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* breakerOn(watch)
        yield* Effect.repeat(succeedCall(breaker), { times: 99 })
        assert.deepStrictEqual(watch.requests, { read: 1, lease: 0, record: 100, transition: 0 })
      }).pipe(Effect.scoped))

    it.effect("a refusal costs no request", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* breakerOn(watch)
        yield* failCalls(breaker, 1)
        const before = total(watch)
        yield* Effect.repeat(Effect.exit(succeedCall(breaker)), { times: 99 })
        assert.strictEqual(total(watch), before)
      }).pipe(Effect.scoped))

    it.effect("while probes run, there are no more lease requests than probe slots", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* breakerOn(watch, { probes: 2 })
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        watch.delay = 50
        const calls = yield* Effect.forEach(Array.from({ length: 50 }), () => startCall(breaker))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(calls.filter((call) => call.ran()).length, 2)
        assert.strictEqual(watch.requests.lease, 2)
      }).pipe(Effect.scoped))

    it.effect("an idle process reads the circuit again after staleness", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const one = yield* breakerOn(watch, { staleness: "5 seconds" })
        const other = yield* breakerOn(watch)
        yield* succeedCall(one)
        yield* failCalls(other, 1)
        assert.strictEqual(yield* succeedCall(one), "an answer", "the cached snapshot is not stale yet")
        yield* other.reset()
        yield* TestClock.adjust("1 minute")
        yield* succeedCall(one)
        yield* failCalls(other, 1)
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual((yield* Effect.flip(succeedCall(one)))._tag, "CircuitOpen")
      }).pipe(Effect.scoped))

    it.effect("the reply to a record updates the cached snapshot", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const one = yield* breakerOn(watch)
        const other = yield* breakerOn(watch)
        yield* succeedCall(one)
        yield* failCalls(other, 1)
        yield* succeedCall(one)
        assert.strictEqual((yield* Effect.flip(succeedCall(one)))._tag, "CircuitOpen")
      }).pipe(Effect.scoped))

    it.effect("one of many processes that see the last failure reports the opening", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breakers = yield* Effect.forEach([1, 2, 3, 4], () => breakerOn(watch))
        for (const breaker of breakers) yield* succeedCall(breaker)
        const calls = yield* Effect.forEach(breakers, (breaker) => startCall(breaker))
        watch.delay = 20
        for (const call of calls) yield* Effect.forkChild(call.fail)
        yield* TestClock.adjust("1 second")
        const opened = yield* Effect.forEach(
          breakers,
          (breaker) => Effect.map(breaker.stats, ({ moves }) => moves.Open)
        )
        assert.strictEqual(opened.reduce((sum, moves) => sum + moves, 0), 1)
      }).pipe(Effect.scoped))
  })

  describe("a slow store", () => {
    for (const isUninterruptible of [false, true]) {
      const what = isUninterruptible ? "a store that hangs and is uninterruptible" : "a store that hangs"
      it.effect(`${what} delays a call for storeTimeout`, () =>
        Effect.gen(function*() {
          const watch = yield* watched
          const breaker = yield* breakerOn(watch, { storeTimeout: "100 millis" })
          watch.delay = Number.POSITIVE_INFINITY
          watch.isUninterruptible = isUninterruptible
          const [exit, millis] = yield* timed(succeedCall(breaker))
          assert.deepStrictEqual([exit, millis], [Exit.succeed("an answer"), 100])
        }).pipe(Effect.scoped))
    }

    it.effect("a store that hangs costs one timeout a second, not one for each call", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* breakerOn(watch)
        watch.delay = Number.POSITIVE_INFINITY
        yield* timed(succeedCall(breaker))
        const before = total(watch)
        for (let i = 0; i < 100; i++) {
          const [, millis] = yield* timed(succeedCall(breaker))
          assert.strictEqual(millis, 0)
        }
        assert.strictEqual(total(watch), before)
        yield* TestClock.adjust("1 second")
        const calls = yield* Effect.forEach(
          Array.from({ length: 50 }),
          () => Effect.forkChild(succeedCall(breaker), { startImmediately: true })
        )
        assert.strictEqual(total(watch), before + 1, "one of fifty calls tries the store")
        assert.strictEqual(calls.filter((fiber) => fiber.pollUnsafe() === undefined).length, 1)
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(calls.filter((fiber) => fiber.pollUnsafe() === undefined).length, 0)
      }).pipe(Effect.scoped))

    it.effect("a store that hung is used again after a second", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* breakerOn(watch)
        const other = yield* breakerOn(watch)
        yield* succeedCall(breaker)
        watch.delay = Number.POSITIVE_INFINITY
        yield* timed(succeedCall(breaker))
        watch.delay = 0
        yield* failCalls(other, 1)
        assert.strictEqual(yield* succeedCall(breaker), "an answer", "the store is not used yet")
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Effect.flip(succeedCall(breaker)))._tag, "CircuitOpen")
      }).pipe(Effect.scoped))

    it.effect("a delayed reply does not restore an old snapshot", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* breakerOn(watch, { storeTimeout: "10 seconds" })
        yield* succeedCall(breaker)
        const early = yield* startCall(breaker)
        const late = yield* startCall(breaker)
        watch.delay = 5_000
        yield* Effect.forkChild(early.interrupt)
        const reading = yield* Effect.forkChild(breaker.state(), { startImmediately: true })
        watch.delay = 0
        yield* late.fail
        assert.strictEqual((yield* Effect.flip(succeedCall(breaker)))._tag, "CircuitOpen")
        yield* TestClock.adjust("5 seconds")
        yield* Fiber.join(reading)
        assert.strictEqual((yield* Effect.flip(succeedCall(breaker)))._tag, "CircuitOpen")
      }).pipe(Effect.scoped))
  })

  describe("a probe's lease", () => {
    const halfOpen = (watch: Watched, options?: CircuitBreaker.CircuitBreakerOptions) =>
      Effect.gen(function*() {
        const breaker = yield* breakerOn(watch, { heartbeat: "9 seconds", probeLease: "60 seconds", ...options })
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        return breaker
      })

    it.effect("a lease is renewed while the probe runs", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* halfOpen(watch)
        const probe = yield* startCall(breaker)
        for (let i = 0; i < 10; i++) {
          yield* TestClock.adjust("5 seconds")
          assert.isFalse((yield* startCall(breaker)).ran(), `after ${i * 5 + 5} seconds`)
        }
        yield* probe.succeed
        assert.strictEqual((yield* breaker.state())._tag, "Closed")
      }).pipe(Effect.scoped))

    it.effect("a lease is not renewed beyond probeLease, so a probe that hangs frees its slot", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* halfOpen(watch)
        const hung = yield* startCall(breaker)
        yield* TestClock.adjust("59 seconds")
        assert.isFalse((yield* startCall(breaker)).ran())
        yield* TestClock.adjust("1 seconds")
        const next = yield* startCall(breaker)
        assert.isTrue(next.ran())
        yield* hung.succeed
        assert.strictEqual((yield* breaker.state())._tag, "HalfOpen", "its late outcome does not count")
        yield* next.succeed
        assert.strictEqual((yield* breaker.state())._tag, "Closed")
      }).pipe(Effect.scoped))

    it.effect("the lease of a process that died expires after heartbeat", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const survivor = yield* breakerOn(watch)
        yield* Effect.gen(function*() {
          const doomed = yield* halfOpen(watch)
          assert.isTrue((yield* startCall(doomed)).ran())
        }).pipe(Effect.scoped)
        assert.isFalse((yield* startCall(survivor)).ran())
        yield* TestClock.adjust("9 seconds")
        assert.isTrue((yield* startCall(survivor)).ran())
      }).pipe(Effect.scoped))

    it.effect("a lease is not renewed once the probe has ended", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* halfOpen(watch)
        const probe = yield* startCall(breaker)
        yield* TestClock.adjust("10 seconds")
        yield* probe.interrupt
        const before = watch.requests.lease
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(watch.requests.lease, before)
      }).pipe(Effect.scoped))
  })
})
