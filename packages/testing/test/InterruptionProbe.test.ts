import { assert, describe, it } from "@effect/vitest"
import * as InterruptionProbe from "@sluice/testing/InterruptionProbe"
import { Effect, Ref } from "effect"

// Both count up before the body and down after it. Only `safe` counts down if it is interrupted.
const safe = (held: Ref.Ref<number>) =>
  Effect.acquireUseRelease(
    Ref.update(held, (n) => n + 1),
    () => InterruptionProbe.yields(20),
    () => Ref.update(held, (n) => n - 1)
  )

const leaky = (held: Ref.Ref<number>) =>
  Ref.update(held, (n) => n + 1).pipe(
    Effect.andThen(InterruptionProbe.yields(20)),
    Effect.andThen(Ref.update(held, (n) => n - 1))
  )

const probe = (run: (held: Ref.Ref<number>) => Effect.Effect<void>) =>
  InterruptionProbe.everywhere({
    make: Ref.make(0),
    run,
    after: (held, at) => Effect.flatMap(Ref.get(held), (left) => left === 0 ? Effect.void : Effect.fail(at))
  })

describe("InterruptionProbe", () => {
  it.effect("an operator without a leak passes at more than 300 points", () =>
    Effect.gen(function*() {
      assert.isAbove(yield* probe(safe), 300)
    }))

  it.effect("a leak fails with the point of interruption", () =>
    Effect.gen(function*() {
      const at = yield* Effect.flip(probe(leaky))
      assert.match(String(at), /^interrupted after \d+ turns of \d operations$/)
    }))

  it.effect("an effect that ends before it can be interrupted fails with ProbedTooLittle", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(probe(() => Effect.void))
      assert.isTrue(error instanceof InterruptionProbe.ProbedTooLittle)
    }))
})
