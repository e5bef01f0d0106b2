import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"

type Store = CircuitBreakerStore.CircuitBreakerStore["Service"]
type Verb = "read" | "lease" | "record" | "transition"

/** A store that counts what it is asked, and may take its time over it. */
interface Watched {
  readonly store: Store
  readonly asked: Record<Verb, number>
  /** What an answer takes, in milliseconds; infinite for a store that hangs. */
  delay: number
  /** Whether a request that hangs can be interrupted. */
  isStubborn: boolean
}

const watched: Effect.Effect<Watched> = Effect.map(CircuitBreakerStore.makeMemory(), (memory) => {
  const asked = { read: 0, lease: 0, record: 0, transition: 0 }
  const late = <A, E>(verb: Verb, self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      asked[verb]++
      if (watch.delay === 0) return self
      const wait = watch.delay === Number.POSITIVE_INFINITY ? Effect.never : Effect.sleep(watch.delay)
      return Effect.andThen(watch.isStubborn ? Effect.uninterruptible(wait) : wait, self)
    })
  const watch: Watched = {
    asked,
    delay: 0,
    isStubborn: false,
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

const total = ({ asked }: Watched) => asked.read + asked.lease + asked.record + asked.transition

/** Runs something to its end, and tells how long it took on the clock. */
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

describe("CircuitBreaker over a store that others share", () => {
  describe("requests", () => {
    it.effect("a closed circuit costs one request a call, after it, once it is known", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* breakerOn(watch)
        yield* Effect.repeat(succeedCall(breaker), { times: 99 })
        assert.deepStrictEqual(watch.asked, { read: 1, lease: 0, record: 100, transition: 0 })
      }).pipe(Effect.scoped))

    it.effect("a refusal costs none", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* breakerOn(watch)
        yield* failCalls(breaker, 1)
        const before = total(watch)
        yield* Effect.repeat(Effect.exit(succeedCall(breaker)), { times: 99 })
        assert.strictEqual(total(watch), before)
      }).pipe(Effect.scoped))

    it.effect("while probes are under way, no more requests for a place are made than there are places", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* breakerOn(watch, { probes: 2 })
        yield* failCalls(breaker, 1)
        yield* TestClock.adjust("30 seconds")
        watch.delay = 50
        const calls = yield* Effect.forEach(Array.from({ length: 50 }), () => startCall(breaker))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(calls.filter((call) => call.ran()).length, 2)
        assert.strictEqual(watch.asked.lease, 2)
      }).pipe(Effect.scoped))

    it.effect("an idle process looks again after `staleness`, and learns what others did", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const one = yield* breakerOn(watch, { staleness: "5 seconds" })
        const other = yield* breakerOn(watch)
        yield* succeedCall(one)
        yield* failCalls(other, 1)
        assert.strictEqual(yield* succeedCall(one), "an answer", "it does not know yet")
        yield* other.reset()
        yield* TestClock.adjust("1 minute")
        yield* succeedCall(one)
        yield* failCalls(other, 1)
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual((yield* Effect.flip(succeedCall(one)))._tag, "CircuitOpen")
      }).pipe(Effect.scoped))

    it.effect("the answer to its own record brings it up to date", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const one = yield* breakerOn(watch)
        const other = yield* breakerOn(watch)
        yield* succeedCall(one)
        yield* failCalls(other, 1)
        yield* succeedCall(one)
        assert.strictEqual((yield* Effect.flip(succeedCall(one)))._tag, "CircuitOpen")
      }).pipe(Effect.scoped))

    it.effect("an opening is told by one of many who saw the last failure", () =>
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
    for (const isStubborn of [false, true]) {
      it.effect(`holds a call up for \`storeTimeout\`, ${isStubborn ? "even if it cannot be interrupted" : "then no more"}`, () =>
        Effect.gen(function*() {
          const watch = yield* watched
          const breaker = yield* breakerOn(watch, { storeTimeout: "100 millis" })
          watch.delay = Number.POSITIVE_INFINITY
          watch.isStubborn = isStubborn
          const [exit, millis] = yield* timed(succeedCall(breaker))
          assert.deepStrictEqual([exit, millis], [Exit.succeed("an answer"), 100])
        }).pipe(Effect.scoped))
    }

    it.effect("costs one timeout a second, not one for each call", () =>
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
        assert.strictEqual(total(watch), before + 1, "one of fifty tries")
        assert.strictEqual(calls.filter((fiber) => fiber.pollUnsafe() === undefined).length, 1)
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(calls.filter((fiber) => fiber.pollUnsafe() === undefined).length, 0)
      }).pipe(Effect.scoped))

    it.effect("is asked again, and what it knows holds again", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* breakerOn(watch)
        const other = yield* breakerOn(watch)
        yield* succeedCall(breaker)
        watch.delay = Number.POSITIVE_INFINITY
        yield* timed(succeedCall(breaker))
        watch.delay = 0
        yield* failCalls(other, 1)
        assert.strictEqual(yield* succeedCall(breaker), "an answer", "it rests")
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Effect.flip(succeedCall(breaker)))._tag, "CircuitOpen")
      }).pipe(Effect.scoped))

    it.effect("whose answers overtake one another does not bring back the past", () =>
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

    it.effect("is renewed while the probe runs", () =>
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

    it.effect("is not renewed beyond `probeLease`: a probe that hangs makes room", () =>
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
        assert.strictEqual((yield* breaker.state())._tag, "HalfOpen", "its late answer does not count")
        yield* next.succeed
        assert.strictEqual((yield* breaker.state())._tag, "Closed")
      }).pipe(Effect.scoped))

    it.effect("of a process that died lapses after `heartbeat`", () =>
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

    it.effect("is renewed no more once the probe has ended", () =>
      Effect.gen(function*() {
        const watch = yield* watched
        const breaker = yield* halfOpen(watch)
        const probe = yield* startCall(breaker)
        yield* TestClock.adjust("10 seconds")
        yield* probe.interrupt
        const before = watch.asked.lease
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(watch.asked.lease, before)
      }).pipe(Effect.scoped))
  })
})
