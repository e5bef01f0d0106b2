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

/** A store that takes a random time before and after each verb. */
const slow = (store: Store): Store => {
  const pause = Effect.flatMap(Random.choice([0, 0, 1, 8, 40, 300, 2_000] as const), TestClock.adjust)
  const slowly = <A, E>(verb: Effect.Effect<A, E>) => pause.pipe(Effect.andThen(verb), Effect.tap(pause))
  return {
    read: (request) => slowly(store.read(request)),
    lease: (request) => slowly(store.lease(request)),
    record: (request) => slowly(store.record(request)),
    transition: (request) => slowly(store.transition(request)),
    list: (page) => slowly(store.list(page))
  }
}

/** A store in which samples of any generation count. */
const withoutGenerations = (store: Store): Store => ({
  ...store,
  record: (request) => Effect.flatMap(store.read(request), ({ generation }) => store.record({ ...request, generation }))
})

const checkNamed = (name: string) => CircuitBreakerStoreContract.checks.find((check) => check.name === name)!

describe("CircuitBreakerStoreContract", () => {
  describe("checks of the reference", () => {
    for (const { name, run } of CircuitBreakerStoreContract.checks) {
      it.effect(name, () => Effect.flatMap(reference, run))
    }
  })

  it.effect("every check has a unique name", () =>
    Effect.sync(() => {
      const names = CircuitBreakerStoreContract.checks.map(({ name }) => name)
      assert.strictEqual(new Set(names).size, names.length)
    }))

  it.effect("the checks pass on one store in reverse order and concurrently", () =>
    Effect.gen(function*() {
      const subject = yield* reference
      const backwards = CircuitBreakerStoreContract.checks.toReversed()
      yield* Effect.forEach(backwards, ({ run }) => run(subject), { discard: true })
      yield* Effect.forEach(backwards, ({ run }) => run(subject), { concurrency: "unbounded", discard: true })
    }))

  for (const seed of [1, 2, 3]) {
    it.effect(`a slow store passes the checks and compare (seed ${seed})`, () =>
      Effect.gen(function*() {
        const subject = subjectOf(slow(yield* ReferenceStore.make))
        for (const { run } of CircuitBreakerStoreContract.checks) yield* run(subject)
        yield* CircuitBreakerStoreContract.compare({ ...subject, runs: 10, seed })
      }).pipe(Random.withSeed(seed)))
  }

  it.effect("ContractBroken contains the check, the promise, the expected and the actual value", () =>
    Effect.gen(function*() {
      const { run } = checkNamed(
        "samples of an older generation do not count, and the answer shows the current circuit"
      )
      const broken = yield* Effect.flip(run(subjectOf(withoutGenerations(yield* ReferenceStore.make))))
      assert.strictEqual(
        broken.message,
        [
          "samples of an older generation do not count, and the answer shows the current circuit",
          "  promised: samples of an older generation do not count",
          "  expected: false",
          "  actual:   true"
        ].join("\n")
      )
      if (!(broken instanceof CircuitBreakerStoreContract.ContractBroken)) return assert.fail("not the expected error")
      const wire = Schema.encodeSync(CircuitBreakerStoreContract.ContractBroken)(broken)
      assert.deepStrictEqual(Schema.decodeSync(CircuitBreakerStoreContract.ContractBroken)(wire), broken)
    }))

  it.effect("an error of the store is passed on unchanged", () =>
    Effect.gen(function*() {
      const refused = new StoreError({ operation: "record", description: "connection refused" })
      const store: Store = { ...(yield* ReferenceStore.make), record: () => Effect.fail(refused) }
      const { run } = checkNamed("a record makes a missing circuit and counts in it")
      assert.strictEqual(yield* Effect.flip(run(subjectOf(store))), refused)
      assert.strictEqual(yield* Effect.flip(CircuitBreakerStoreContract.compare(subjectOf(store))), refused)
    }))

  describe("compare", () => {
    it.effect("compare runs every command, with granted and refused answers", () =>
      Effect.gen(function*() {
        const { answers } = yield* CircuitBreakerStoreContract.compare({ ...(yield* reference), runs: 120, seed: 1 })
        for (const verb of ["record", "lease", "settle", "transition", "repeat"]) {
          assert.isAbove(answers[`${verb} ok`] ?? 0, 20, verb)
          assert.isAbove(answers[`${verb} refused`] ?? 0, 20, verb)
        }
        for (const verb of ["read", "list", "wait"]) assert.isAbove(answers[verb] ?? 0, 100, verb)
      }))

    it.effect("ModelDiffers has a short sequence, and a seed that reproduces it", () =>
      Effect.gen(function*() {
        const subject = subjectOf(withoutGenerations(yield* ReferenceStore.make))
        // A fixed seed, since not every sequence can be shortened to five commands.
        const differs = yield* CircuitBreakerStoreContract.compare(subject).pipe(Effect.flip, Random.withSeed(1))
        if (!(differs instanceof CircuitBreakerStoreContract.ModelDiffers)) return assert.fail("not the expected error")
        assert.isAtMost(differs.commands.length, 5)
        const { commands, seed } = differs
        assert.include(differs.message, `seed ${seed}\n  1. ${commands[0]}\n`)

        const again = yield* Effect.flip(CircuitBreakerStoreContract.compare({ ...subject, seed }))
        assert.isTrue(again instanceof CircuitBreakerStoreContract.ModelDiffers)
        if (again instanceof CircuitBreakerStoreContract.ModelDiffers) assert.deepStrictEqual(again.commands, commands)
        const wire = Schema.encodeSync(CircuitBreakerStoreContract.ModelDiffers)(differs)
        assert.deepStrictEqual(Schema.decodeSync(CircuitBreakerStoreContract.ModelDiffers)(wire), differs)
      }))

    it.effect("compare draws a new sequence each time, unless it has a seed", () =>
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
