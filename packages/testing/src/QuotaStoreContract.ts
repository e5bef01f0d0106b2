/**
 * The contract of quota stores, as checks for any test runner.
 *
 * `checks` are the promises of the contract. Each is an effect that calls the store, and fails with `ContractBroken` if a promise
 * is not kept. `compare` runs random requests on the store and on `ReferenceQuotaStore`, and fails with `ModelDiffers` if their
 * answers differ.
 *
 * **When to use**
 *
 * In the tests of your own store, so that a quota can rely on it. Use both: the checks have corner cases and races, and the
 * comparison finds sequences that the checks do not contain.
 *
 * **Details**
 *
 * - A check uses targets of its own, and leaves them behind. Give it its own database or namespace.
 * - A slow store makes a check slow, not wrong. Times that must not elapse are ten minutes, times that must elapse at most 2 seconds.
 * - The checks do not cover a store that cannot be reached, and the state that a killed process leaves behind.
 *
 * **Gotchas**
 *
 * - `sleep` has to let the store's time pass. For a store on `Clock` in a test with `TestClock` that is `TestClock.adjust`. For a
 *   server it is `Effect.sleep` in a live test.
 *
 * **Example** (Every check, without a test runner)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { TestClock } from "effect/testing"
 * import * as QuotaStore from "@sluice/core/QuotaStore"
 * import * as QuotaStoreContract from "@sluice/testing/QuotaStoreContract"
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* QuotaStore.makeMemory()
 *   const subject = { store, sleep: TestClock.adjust }
 *   for (const { run } of QuotaStoreContract.checks) yield* run(subject)
 *   yield* QuotaStoreContract.compare({ ...subject, runs: 20 })
 *   return "the contract is kept"
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.provide(TestClock.layer())))) // => the contract is kept
 * ```
 *
 * @since 0.1.0
 */
import type { StoreError } from "@sluice/core/CircuitBreakerStore"
import type { QuotaStore } from "@sluice/core/QuotaStore"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Frame from "./internal/frame.ts"
import { clock, concurrency, lease, reserve, settle } from "./internal/quotaContract/checks.ts"
import { makeFixture } from "./internal/quotaContract/fixture.ts"
import { play } from "./internal/quotaContract/model.ts"

export { ContractBroken, ModelDiffers } from "./internal/frame.ts"

/**
 * The store under test.
 *
 * @since 0.1.0
 * @category models
 */
export interface Subject {
  readonly store: QuotaStore["Service"]
  /** Lets the store's time pass by this many milliseconds or slightly more. */
  readonly sleep: (millis: number) => Effect.Effect<void>
  /**
   * Sets the store's clock back by this many milliseconds, as an operator or a time server does. No other check may use that
   * clock at the same time. Default none: a clock that is set back is not checked.
   */
  readonly setBack?: ((millis: number) => Effect.Effect<void>) | undefined
}

/**
 * A check of the contract: its name is a sentence, to be used as the title of a test.
 *
 * @since 0.1.0
 * @category models
 */
export interface Check extends Frame.Check<Subject> {}

/**
 * The checks of the contract. They can run in any order, and also concurrently, unless `setBack` changes a clock that they
 * share.
 *
 * @since 0.1.0
 * @category checks
 */
export const checks: ReadonlyArray<Check> = Frame.checksOf(makeFixture, [reserve, settle, lease, clock, concurrency])

/**
 * Options for `compare`.
 *
 * @since 0.1.0
 * @category models
 */
export interface CompareOptions extends Subject {
  /** How many sequences run, each on a new target. Default 25. */
  readonly runs?: number | undefined
  /** The length of a sequence. Default 60. */
  readonly commands?: number | undefined
  /** An integer that determines the sequences. Default random; the error contains it. */
  readonly seed?: number | undefined
}

/**
 * Runs random requests on a store and on the reference, and compares every answer: the granted amounts, the wait, the ceilings and all
 * sums.
 *
 * **Details**
 *
 * - Windows are ten minutes, so that on a real clock no sum depends on a millisecond. Waits may differ by one and a half buckets.
 *   `checks` test amounts that leave a window.
 * - Requests run one after the other. For races see `checks`.
 *
 * @since 0.1.0
 * @category checks
 */
export const compare: (
  options: CompareOptions
) => Effect.Effect<{ readonly seed: number }, Frame.ModelDiffers | StoreError> = Effect.fnUntraced(
  function*({ commands = 60, runs = 25, seed: fixedSeed, ...subject }: CompareOptions) {
    const seed = yield* Frame.seedOf(fixedSeed)
    for (let run = 0; run < runs; run++) {
      const difference = yield* Random.withSeed(play(subject, commands), seed + run)
      if (difference !== undefined) return yield* Effect.fail(Frame.modelDiffers(seed + run, difference))
    }
    return { seed }
  }
)
