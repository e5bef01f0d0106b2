import * as FlightStoreContract from "@sluice/testing/FlightStoreContract"
import * as ReferenceFlightStore from "@sluice/testing/ReferenceFlightStore"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { subjectOf } from "./support/flights.ts"

const subject = subjectOf(ReferenceFlightStore.make)

describe("FlightStoreContract", () => {
  for (const { name, run } of FlightStoreContract.checks) {
    it.effect(`the reference store keeps it: ${name}`, () => Effect.flatMap(subject, run))
  }

  it.effect("the checks pass on one store in reverse order", () =>
    Effect.flatMap(
      subject,
      (one) => Effect.forEach(FlightStoreContract.checks.toReversed(), ({ run }) => run(one), { discard: true })
    ))

  it.effect("compare passes on the reference, and its seed reproduces a difference", () =>
    Effect.gen(function*() {
      const right = yield* subject
      yield* FlightStoreContract.compare({ ...right, runs: 100, seed: 1 })
      const store = { ...right.store, release: () => Effect.succeed(true) }
      const one = yield* Effect.flip(FlightStoreContract.compare({ ...right, store }))
      if (!(one instanceof FlightStoreContract.ModelDiffers)) return assert.fail("not the expected error")
      const again = yield* Effect.flip(FlightStoreContract.compare({ ...right, store, seed: one.seed }))
      assert.deepStrictEqual(again.message, one.message)
    }))
})
