/**
 * The contract of flight stores, as checks for any test runner.
 *
 * `checks` are the promises of the contract. Each is an effect that calls the store, and fails with `ContractBroken` if a promise is not
 * kept. `compare` runs random commands on the store and on `ReferenceFlightStore`, and fails with `ModelDiffers` if their answers differ.
 *
 * **When to use**
 *
 * In the tests of your own store, so that deduplicators can share flights through it. Use both: the checks have corner cases and races,
 * and the comparison finds sequences that the checks do not contain.
 *
 * **Details**
 *
 * - A check uses keys of its own, and leaves them behind. Give it its own database or namespace.
 * - A slow store makes a check slow, not wrong. Times that must not elapse are ten minutes, times that must elapse at most 100 ms.
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
 * import * as FlightStore from "@sluice/core/FlightStore"
 * import * as FlightStoreContract from "@sluice/testing/FlightStoreContract"
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* FlightStore.makeMemory()
 *   const subject = { store, sleep: TestClock.adjust }
 *   for (const { run } of FlightStoreContract.checks) yield* run(subject)
 *   yield* FlightStoreContract.compare({ ...subject, runs: 20 })
 *   return "the contract is kept"
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.provide(TestClock.layer())))) // => the contract is kept
 * ```
 *
 * @since 0.1.0
 */
import type { StoreError } from "@sluice/core/CircuitBreakerStore"
import type { FlightStore } from "@sluice/core/FlightStore"
import * as Effect from "effect/Effect"
import { sequences, show } from "./internal/flightContract/commands.ts"
import { play } from "./internal/flightContract/model.ts"
import * as Frame from "./internal/frame.ts"
import { claims, clock, ends, leases, purge } from "./internal/flightContract/checks.ts"
import { makeFixture } from "./internal/flightContract/fixture.ts"

export { ContractBroken, ModelDiffers } from "./internal/frame.ts"

/**
 * The store under test.
 *
 * @since 0.1.0
 * @category models
 */
export interface Subject {
  readonly store: FlightStore["Service"]
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
export const checks: ReadonlyArray<Check> = Frame.checksOf(makeFixture, [claims, leases, ends, purge, clock])

/**
 * Options for `compare`.
 *
 * @since 0.1.0
 * @category models
 */
export interface CompareOptions extends Subject {
  /** How many sequences run, each on new keys. Default 25, which takes a few seconds on a real clock. */
  readonly runs?: number | undefined
  /** The length of a sequence. Default 40, enough for a few leases of each key. */
  readonly commands?: number | undefined
  /** An integer that determines the sequences. Default random; the error contains it. */
  readonly seed?: number | undefined
}

/**
 * Runs random commands on a store and on the reference, and compares every answer: who leads, whom the others follow, and the results.
 *
 * **Details**
 *
 * - On a real clock no answer depends on a millisecond: what ends has ended before the next command, and the rest lasts ten minutes.
 * - The numbers of generations can differ, as long as they grow together.
 * - Commands run one after the other. For races see `checks`.
 * - After a difference, up to 150 more runs look for a shorter sequence. Give the test a minute on a real clock.
 *
 * @since 0.1.0
 * @category checks
 */
export const compare: (
  options: CompareOptions
) => Effect.Effect<{ readonly seed: number }, Frame.ModelDiffers | StoreError> = Effect.fnUntraced(
  function*({ commands = 40, runs = 25, seed: fixedSeed, ...subject }: CompareOptions) {
    const seed = yield* Frame.seedOf(fixedSeed)
    yield* Frame.playAll(seed, yield* sequences({ seed, runs, commands }), (commands) => play(subject, commands), show)
    return { seed }
  }
)
