import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { StoreError } from "@sluice/core/CircuitBreakerStore"
import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import * as ReferenceStore from "@sluice/testing/ReferenceStore"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random, Schema } from "effect"
import { TestClock } from "effect/testing"

type Store = CircuitBreakerStore["Service"]

const subjectOf = (store: Store): CircuitBreakerStoreContract.Subject => ({ store, sleep: TestClock.adjust })
const reference = Effect.map(ReferenceStore.make, subjectOf)

/** A store that takes its time, before each verb and after it. */
const slow = (store: Store): Store => {
  const pause = Effect.flatMap(Random.choice([0, 0, 1, 8, 40, 300, 2_000] as const), TestClock.adjust)
  const slowly = <A, E>(verb: Effect.Effect<A, E>) => pause.pipe(Effect.andThen(verb), Effect.tap(pause))
  return {
    read: (asked) => slowly(store.read(asked)),
    lease: (asked) => slowly(store.lease(asked)),
    record: (given) => slowly(store.record(given)),
    transition: (wish) => slowly(store.transition(wish)),
    list: (page) => slowly(store.list(page))
  }
}

/** A store in which the fence is missing. */
const unfenced = (store: Store): Store => ({
  ...store,
  record: (given) => Effect.flatMap(store.read(given), ({ generation }) => store.record({ ...given, generation }))
})

const checkNamed = (name: string) => CircuitBreakerStoreContract.checks.find((check) => check.name === name)!

describe("CircuitBreakerStoreContract", () => {
  describe("is kept by the reference:", () => {
    for (const { name, run } of CircuitBreakerStoreContract.checks) {
      it.effect(name, () => Effect.flatMap(reference, run))
    }
  })

  it.effect("has a name of its own for every check", () =>
    Effect.sync(() => {
      const names = CircuitBreakerStoreContract.checks.map(({ name }) => name)
      assert.strictEqual(new Set(names).size, names.length)
    }))

  it.effect("can be checked on one store, in any order and all at once", () =>
    Effect.gen(function*() {
      const subject = yield* reference
      const backwards = CircuitBreakerStoreContract.checks.toReversed()
      yield* Effect.forEach(backwards, ({ run }) => run(subject), { discard: true })
      yield* Effect.forEach(backwards, ({ run }) => run(subject), { concurrency: "unbounded", discard: true })
    }))

  for (const seed of [1, 2, 3]) {
    it.effect(`finds nothing wrong with a store for being slow, seed ${seed}`, () =>
      Effect.gen(function*() {
        const subject = subjectOf(slow(yield* ReferenceStore.make))
        for (const { run } of CircuitBreakerStoreContract.checks) yield* run(subject)
        yield* CircuitBreakerStoreContract.compare({ ...subject, runs: 10, seed })
      }).pipe(Random.withSeed(seed)))
  }

  it.effect("says which promise is broken, what was expected and what came", () =>
    Effect.gen(function*() {
      const { run } = checkNamed("record: counts nothing of an older generation, and says what stands")
      const broken = yield* Effect.flip(run(subjectOf(unfenced(yield* ReferenceStore.make))))
      assert.strictEqual(
        broken.message,
        [
          "record: counts nothing of an older generation, and says what stands",
          "  promised: what was admitted under an older generation counts nowhere",
          "  expected: false",
          "  actual:   true"
        ].join("\n")
      )
      if (!(broken instanceof CircuitBreakerStoreContract.ContractBroken)) return assert.fail("another error")
      const wire = Schema.encodeSync(CircuitBreakerStoreContract.ContractBroken)(broken)
      assert.deepStrictEqual(Schema.decodeSync(CircuitBreakerStoreContract.ContractBroken)(wire), broken)
    }))

  it.effect("leaves the failure of a store as it is", () =>
    Effect.gen(function*() {
      const refused = new StoreError({ operation: "record", description: "connection refused" })
      const store: Store = { ...(yield* ReferenceStore.make), record: () => Effect.fail(refused) }
      const { run } = checkNamed("record: makes a circuit that is not there, and counts")
      assert.strictEqual(yield* Effect.flip(run(subjectOf(store))), refused)
      assert.strictEqual(yield* Effect.flip(CircuitBreakerStoreContract.compare(subjectOf(store))), refused)
    }))

  describe("compare", () => {
    it.effect("does everything that can be done to a store, with and without success", () =>
      Effect.gen(function*() {
        const { answers } = yield* CircuitBreakerStoreContract.compare({ ...(yield* reference), runs: 120, seed: 1 })
        for (const verb of ["record", "lease", "settle", "transition", "repeat"]) {
          assert.isAbove(answers[`${verb} ok`] ?? 0, 20, verb)
          assert.isAbove(answers[`${verb} refused`] ?? 0, 20, verb)
        }
        for (const verb of ["read", "list", "wait"]) assert.isAbove(answers[verb] ?? 0, 100, verb)
      }))

    it.effect("tells the seed and few commands, and finds the same again by that seed", () =>
      Effect.gen(function*() {
        const subject = subjectOf(unfenced(yield* ReferenceStore.make))
        // By chance a sequence may be one that does not shrink to the shortest.
        const differs = yield* CircuitBreakerStoreContract.compare(subject).pipe(Effect.flip, Random.withSeed(1))
        if (!(differs instanceof CircuitBreakerStoreContract.ModelDiffers)) return assert.fail("another error")
        assert.isAtMost(differs.commands.length, 5)
        const { commands, seed } = differs
        assert.include(differs.message, `seed ${seed}\n  1. ${commands[0]}\n`)

        const again = yield* Effect.flip(CircuitBreakerStoreContract.compare({ ...subject, seed }))
        assert.isTrue(again instanceof CircuitBreakerStoreContract.ModelDiffers)
        if (again instanceof CircuitBreakerStoreContract.ModelDiffers) assert.deepStrictEqual(again.commands, commands)
        const wire = Schema.encodeSync(CircuitBreakerStoreContract.ModelDiffers)(differs)
        assert.deepStrictEqual(Schema.decodeSync(CircuitBreakerStoreContract.ModelDiffers)(wire), differs)
      }))

    it.effect("draws another sequence each time, unless it is told a seed", () =>
      Effect.gen(function*() {
        const report = Effect.flatMap(reference, (subject) =>
          CircuitBreakerStoreContract.compare({ ...subject, runs: 1 }))
        const [one, other] = [yield* report, yield* report]
        assert.notStrictEqual(one.seed, other.seed)
        assert.deepStrictEqual(
          yield* Random.withSeed(report, "a seed"),
          yield* Random.withSeed(report, "a seed")
        )
      }))
  })
})
