import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { yields } from "./support/probe.ts"

const Ask = Deduplicator.operation<string>()("ask", { key: (text: string) => text })

const make = (name: string) =>
  Sluice.make({ name, minTimeout: 0, retry: RetryPolicy.none, breaker: { trip: CircuitBreaker.consecutive(100) } })
    .pipe(
      Effect.provide(Layer.fresh(Sluice.layerStoresMemory))
    )

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/** The alarm of whoever sets the deadline is set before that of the policy, and goes off first. */
const later = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.andThen(Effect.yieldNow, effect)

const outcomesOf = (policy: Sluice.Sluice) =>
  Effect.map(policy.snapshot, ({ breaker: { outcomes: { Failure, Ignored } } }) => ({ Failure, Ignored }))

describe("a shared call that hangs, when its last caller leaves", () => {
  it.effect("at the deadline that was set outside of the policy, is a failure", () =>
    Effect.gen(function*() {
      const policy = yield* make("inner")
      yield* fork(Deadline.within(later(policy.protect(Effect.never, { dedupe: Ask("x") })), "60 millis"))
      yield* TestClock.adjust("60 millis")
      yield* yields(20)
      assert.deepStrictEqual(yield* outcomesOf(policy), { Failure: 1, Ignored: 0 })
    }))

  it.effect("at the deadline of another policy, is a failure", () =>
    Effect.gen(function*() {
      const [outer, inner] = yield* Effect.all([make("outer"), make("inner")])
      const call = inner.protect(Effect.never, { dedupe: Ask("x") })
      yield* fork(outer.protect(later(call), { deadline: "60 millis" }))
      yield* TestClock.adjust("60 millis")
      yield* yields(20)
      assert.deepStrictEqual(yield* outcomesOf(inner), { Failure: 1, Ignored: 0 })
    }))

  it.effect("at the deadline of a flight around it, which everybody left, is a failure", () =>
    Effect.gen(function*() {
      const [outer, inner] = yield* Effect.all([make("outer"), make("inner")])
      const call = Effect.orDie(inner.protect(Effect.never, { dedupe: Ask("inner") }))
      yield* fork(Deadline.within(later(outer.protect(call, { dedupe: Ask("outer") })), "60 millis"))
      yield* TestClock.adjust("60 millis")
      yield* yields(20)
      assert.deepStrictEqual(yield* outcomesOf(inner), { Failure: 1, Ignored: 0 })
    }))

  it.effect("before the deadline, says nothing", () =>
    Effect.gen(function*() {
      const policy = yield* make("inner")
      const call = policy.protect(Effect.never, { dedupe: Ask("x") })
      const fiber = yield* fork(Deadline.within(call, "60 millis"))
      yield* TestClock.adjust("59 millis")
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* outcomesOf(policy), { Failure: 0, Ignored: 1 })
    }))

  it.effect("without a deadline, says nothing, whoever left before", () =>
    Effect.gen(function*() {
      const policy = yield* make("inner")
      const call = policy.protect(Effect.never, { dedupe: Ask("x") })
      const patient = yield* fork(call)
      yield* fork(Deadline.within(call, "60 millis"))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.interrupt(patient)
      assert.deepStrictEqual(yield* outcomesOf(policy), { Failure: 0, Ignored: 1 })
    }))
})
