import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { fork } from "./support/effects.ts"
import { yields } from "./support/probe.ts"

const Ask = Deduplicator.operation<string>()("ask", { key: (text: string) => text })

const make = (name: string) =>
  Sluice.make({ name, minTimeout: 0, retry: RetryPolicy.none, breaker: { trip: CircuitBreaker.consecutive(100) } })
    .pipe(
      Effect.provide(Layer.fresh(Sluice.layerStoresMemory))
    )

/** Delays an effect by a turn, so that the timer of the outer deadline is set before the policy's and fires first. */
const afterOneTurn = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.andThen(Effect.yieldNow, effect)

const outcomesOf = (policy: Sluice.Sluice) =>
  Effect.map(policy.snapshot, ({ breaker: { outcomes: { Failure, Ignored } } }) => ({ Failure, Ignored }))

describe("the last caller of a hanging deduplicated call", () => {
  it.effect("a last caller that leaves at an outer deadline counts as a failure", () =>
    Effect.gen(function*() {
      const policy = yield* make("inner")
      yield* fork(Deadline.within(afterOneTurn(policy.protect(Effect.never, { dedupe: Ask("x") })), "60 millis"))
      yield* TestClock.adjust("60 millis")
      yield* yields(20)
      assert.deepStrictEqual(yield* outcomesOf(policy), { Failure: 1, Ignored: 0 })
    }))

  it.effect("a last caller that leaves at the deadline of another policy counts as a failure", () =>
    Effect.gen(function*() {
      const [outer, inner] = yield* Effect.all([make("outer"), make("inner")])
      const call = inner.protect(Effect.never, { dedupe: Ask("x") })
      yield* fork(outer.protect(afterOneTurn(call), { deadline: "60 millis" }))
      yield* TestClock.adjust("60 millis")
      yield* yields(20)
      assert.deepStrictEqual(yield* outcomesOf(inner), { Failure: 1, Ignored: 0 })
    }))

  it.effect("a last caller that leaves at the deadline of an outer flight counts as a failure", () =>
    Effect.gen(function*() {
      const [outer, inner] = yield* Effect.all([make("outer"), make("inner")])
      const call = Effect.orDie(inner.protect(Effect.never, { dedupe: Ask("inner") }))
      yield* fork(Deadline.within(afterOneTurn(outer.protect(call, { dedupe: Ask("outer") })), "60 millis"))
      yield* TestClock.adjust("60 millis")
      yield* yields(20)
      assert.deepStrictEqual(yield* outcomesOf(inner), { Failure: 1, Ignored: 0 })
    }))

  it.effect("a last caller that leaves before its deadline counts as Ignored", () =>
    Effect.gen(function*() {
      const policy = yield* make("inner")
      const call = policy.protect(Effect.never, { dedupe: Ask("x") })
      const fiber = yield* fork(Deadline.within(call, "60 millis"))
      yield* TestClock.adjust("59 millis")
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* outcomesOf(policy), { Failure: 0, Ignored: 1 })
    }))

  it.effect("a last caller without a deadline counts as Ignored, even if another left at its deadline", () =>
    Effect.gen(function*() {
      const policy = yield* make("inner")
      const call = policy.protect(Effect.never, { dedupe: Ask("x") })
      const withoutDeadline = yield* fork(call)
      yield* fork(Deadline.within(call, "60 millis"))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.interrupt(withoutDeadline)
      assert.deepStrictEqual(yield* outcomesOf(policy), { Failure: 0, Ignored: 1 })
    }))
})
