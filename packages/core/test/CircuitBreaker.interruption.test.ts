import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { failCalls, succeedCall } from "./support/calls.ts"
import { interruptEverywhere, yields } from "./support/probe.ts"

const bodies = {
  "a call": (breaker: CircuitBreaker.CircuitBreaker["Service"]) => breaker.guard(yields(12)),
  "a stream": (breaker: CircuitBreaker.CircuitBreaker["Service"]) =>
    Stream.runDrain(breaker.guardStream(Stream.mapEffect(Stream.range(1, 3), () => yields(4))))
}

/** A breaker that lives as long as the test. */
const makeBreaker = Effect.map(
  Layer.build(Layer.fresh(CircuitBreaker.layerMemory({ trip: CircuitBreaker.consecutive(1), openFor: "30 seconds" }))),
  (context) => Context.get(context, CircuitBreaker.CircuitBreaker)
)

describe("CircuitBreaker under interruption", () => {
  for (const [what, run] of Object.entries(bodies)) {
    it.effect(`${what} interrupted anywhere in a closed circuit counts nowhere`, () =>
      Effect.scopedWith((scope) =>
        interruptEverywhere({
          make: Effect.orDie(makeBreaker.pipe(Effect.provideService(Scope.Scope, scope))),
          run,
          after: (breaker, at) =>
            Effect.gen(function*() {
              assert.deepInclude(yield* Effect.orDie(breaker.state()), { _tag: "Closed", failures: 0 }, at)
              yield* Effect.orDie(succeedCall(breaker))
            })
        })
      ))

    it.effect(`${what} interrupted anywhere as a probe gives its place to the next`, () =>
      Effect.scopedWith((scope) =>
        interruptEverywhere({
          make: Effect.gen(function*() {
            const breaker = yield* makeBreaker
            yield* failCalls(breaker, 1)
            yield* TestClock.adjust("30 seconds")
            return breaker
          }).pipe(Effect.orDie, Effect.provideService(Scope.Scope, scope)),
          run,
          after: (breaker, at) =>
            Effect.gen(function*() {
              const state = yield* Effect.orDie(breaker.state())
              if (state._tag === "HalfOpen") assert.strictEqual(state.probing, 0, at)
              else assert.strictEqual(state._tag, "Closed", at)
              yield* Effect.orDie(succeedCall(breaker))
              assert.strictEqual((yield* Effect.orDie(breaker.state()))._tag, "Closed", at)
            })
        })
      ))
  }
})
