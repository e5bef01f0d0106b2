import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as InvalidOptions from "@sluice/core/InvalidOptions"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Layer } from "effect"
import { failureOf } from "./support/effects.ts"

describe("slowAfter of a policy with an attemptTimeout", () => {
  const slow = CircuitBreaker.slowCallRate({ rate: 0.5 })
  const rows: ReadonlyArray<
    readonly [options: Omit<Sluice.SluiceOptions, "name">, refused: string | undefined]
  > = [
    [{ attemptTimeout: "10 seconds", breaker: { trip: slow } }, "must be less than `attemptTimeout`, 10s"],
    [
      { attemptTimeout: "1 second", breaker: { trip: [CircuitBreaker.consecutive(5), slow], slowAfter: "2 seconds" } },
      "must be less than `attemptTimeout`, 1s"
    ],
    [
      { attemptTimeout: "1 second", breaker: { trip: slow, slowAfter: "1 second" } },
      "must be less than `attemptTimeout`, 1s"
    ],
    [{ attemptTimeout: "1001 millis", breaker: { trip: slow, slowAfter: "1 second" } }, undefined],
    [{ attemptTimeout: "31 seconds", breaker: { trip: slow } }, undefined],
    // Nothing counts slow calls, so nothing depends on `slowAfter`.
    [{ attemptTimeout: "1 second", breaker: { trip: CircuitBreaker.consecutive(5) } }, undefined],
    [{ breaker: { trip: slow } }, undefined]
  ]
  for (const [options, requirement] of rows) {
    const { attemptTimeout, breaker } = options
    const time = breaker?.slowAfter ?? "the default"
    const what = `${JSON.stringify(breaker?.trip)} after ${Duration.isDuration(time) ? "a time" : JSON.stringify(time)}`
    it.effect(`${what}, with ${JSON.stringify(attemptTimeout)}, is ${requirement === undefined ? "accepted" : "refused"}`, () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Sluice.make({ name: "gpt", ...options }))
        if (requirement === undefined) return assert.isTrue(Exit.isSuccess(exit))
        assert(Exit.isFailure(exit))
        const error = failureOf(exit)
        assert.instanceOf(error, InvalidOptions.InvalidOptions)
        assert.deepStrictEqual(
          (error as InvalidOptions.InvalidOptions).issues.map(({ option, requirement }) => [option, requirement]),
          [["breaker.slowAfter", requirement]]
        )
      }).pipe(Effect.scoped, Effect.provide(Layer.fresh(CircuitBreakerStore.layerMemory))))
  }
})
