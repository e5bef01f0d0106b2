import { assert, describe, it } from "@effect/vitest"
import * as InterruptionProbe from "@sluice/testing/InterruptionProbe"
import { Effect, Ref } from "effect"

// A counter that goes up before the body and down after it, in a safe and in a careless way.
const safe = (held: Ref.Ref<number>) =>
  Effect.acquireUseRelease(
    Ref.update(held, (n) => n + 1),
    () => InterruptionProbe.yields(20),
    () => Ref.update(held, (n) => n - 1)
  )

const careless = (held: Ref.Ref<number>) =>
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
  it.effect("passes what gives back what it held, at more than 300 points", () =>
    Effect.gen(function*() {
      assert.isAbove(yield* probe(safe), 300)
    }))

  it.effect("finds a leak, and tells where", () =>
    Effect.gen(function*() {
      const at = yield* Effect.flip(probe(careless))
      assert.match(String(at), /^interrupted after \d+ turns of \d operations$/)
    }))

  it.effect("refuses to pass what was over before it could be interrupted", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(probe(() => Effect.void))
      assert.isTrue(error instanceof InterruptionProbe.ProbedTooLittle)
    }))
})
