/**
 * The contract of circuit breaker stores, as checks for any test runner.
 *
 * `checks` are the promises of the contract. Each is an effect that calls the store, and fails with `ContractBroken` if a promise
 * is not kept. `compare` runs random commands on the store and on `ReferenceStore`, and fails with `ModelDiffers` if their answers
 * differ.
 *
 * **When to use**
 *
 * In the tests of your own store, so that a breaker can rely on it. Use both: the checks have corner cases and races, and the
 * comparison finds sequences that the checks do not contain.
 *
 * **Details**
 *
 * - A check makes circuits with unique keys, and leaves them behind. Give it its own database or namespace.
 * - A slow store makes a check slow, not wrong. Times that must not elapse during a check are ten minutes. Times that must elapse
 *   are 25 milliseconds, by the store's own clock.
 * - Not checked: which circuits a store evicts, what it does when it cannot be reached, and what a killed process leaves behind.
 *
 * **Gotchas**
 *
 * - A verb happens at one time, the `now` of its snapshot. A store that reads its clock twice for one answer fails from time to
 *   time, by a millisecond.
 * - `sleep` has to let the store's time pass. For a store on `Clock` in a test with `TestClock` that is `TestClock.adjust`; a sleep
 *   would never end. For a server it is `Effect.sleep` in a live test (`it.live`).
 *
 * **Example** (Every check, without a test runner)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { TestClock } from "effect/testing"
 * import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
 * import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* CircuitBreakerStore.makeMemory()
 *   const subject = { store, sleep: TestClock.adjust }
 *   for (const { run } of CircuitBreakerStoreContract.checks) yield* run(subject)
 *   yield* CircuitBreakerStoreContract.compare({ ...subject, runs: 20 })
 *   return "the contract is kept"
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.provide(TestClock.layer())))) // => the contract is kept
 * ```
 *
 * **Example** (Every check as a test)
 *
 * ```ts
 * import { describe, it } from "@effect/vitest"
 * import { Effect } from "effect"
 * import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
 * import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
 *
 * export const testStore = (name: string, make: Effect.Effect<CircuitBreakerStore.CircuitBreakerStore["Service"]>) =>
 *   describe(name, () => {
 *     const subject = Effect.map(make, (store) => ({ store, sleep: (millis: number) => Effect.sleep(millis) }))
 *     for (const { name, run } of CircuitBreakerStoreContract.checks) it.live(name, () => Effect.flatMap(subject, run))
 *     // A minute, since a difference is shortened by many more runs.
 *     it.live("the store answers like the reference", () => Effect.flatMap(subject, CircuitBreakerStoreContract.compare), 60_000)
 *   })
 * ```
 *
 * @since 0.1.0
 */
import type { CircuitBreakerStore, StoreError } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import { makeFixture } from "./internal/contract/check.ts"
import { clock } from "./internal/contract/clock.ts"
import { sequences, show } from "./internal/contract/commands.ts"
import { concurrency } from "./internal/contract/concurrency.ts"
import { lease } from "./internal/contract/lease.ts"
import { keys, list, texts } from "./internal/contract/list.ts"
import { play } from "./internal/contract/model.ts"
import { read } from "./internal/contract/read.ts"
import { record } from "./internal/contract/record.ts"
import { transition } from "./internal/contract/transition.ts"
import * as Frame from "./internal/frame.ts"

export { ContractBroken, ModelDiffers } from "./internal/frame.ts"

/**
 * The store under test.
 *
 * @since 0.1.0
 * @category models
 */
export interface Subject {
  readonly store: CircuitBreakerStore["Service"]
  /** Lets the store's time pass by this many milliseconds or slightly more. */
  readonly sleep: (millis: number) => Effect.Effect<void>
  /** Evicts a closed circuit. Without it, the reuse of generations after an eviction is not checked. */
  readonly forget?: ((key: string) => Effect.Effect<void>) | undefined
  /**
   * Sets the store's clock back by this many milliseconds, as an operator or a time server does. No other check may use that clock
   * at the same time. Without it, a clock that is set back is not checked.
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
 * The checks of the contract. They can run in any order, and concurrently unless `setBack` sets back a clock that they share.
 *
 * @since 0.1.0
 * @category checks
 */
export const checks: ReadonlyArray<Check> = Frame.checksOf(makeFixture, [
  read,
  record,
  lease,
  transition,
  clock,
  list,
  keys,
  texts,
  concurrency
])

/**
 * Options for `compare`.
 *
 * @since 0.1.0
 * @category models
 */
export interface CompareOptions extends Subject {
  /** How many sequences run, each on new circuits. Default 25, which takes a few seconds on a real clock. */
  readonly runs?: number | undefined
  /** The length of a sequence. Default 40, enough to open, probe and reopen a circuit a few times. */
  readonly commands?: number | undefined
  /** An integer that determines the sequences. Default random; the report and the error contain it. */
  readonly seed?: number | undefined
}

/**
 * What `compare` ran, if no answer differed.
 *
 * @since 0.1.0
 * @category models
 */
export interface CompareReport {
  readonly seed: number
  /** How often each kind of answer came, such as `"lease refused"`. */
  readonly answers: { readonly [kind: string]: number }
}

/**
 * Runs random commands on a store and on the reference, and compares every answer.
 *
 * **Details**
 *
 * - The reference answers for the time in the store's snapshot, so times are equal to the millisecond on any clock. The numbers of
 *   generations can differ, as long as they grow together.
 * - Commands run one after the other. For races see `checks`.
 * - After a difference, up to 150 more runs look for a shorter sequence. Give the test a minute on a real clock.
 *
 * @since 0.1.0
 * @category checks
 */
export const compare: (
  options: CompareOptions
) => Effect.Effect<CompareReport, Frame.ModelDiffers | StoreError> = Effect.fnUntraced(
  function*({ commands = 40, runs = 25, seed: fixedSeed, ...subject }: CompareOptions) {
    const seed = yield* Frame.seedOf(fixedSeed)
    const answers: Record<string, number> = {}
    const count = (kind: string) => {
      answers[kind] = (answers[kind] ?? 0) + 1
    }
    yield* Frame.playAll(
      seed,
      yield* sequences({ seed, runs, commands, setsBack: subject.setBack !== undefined }),
      (commands) => play(subject, commands, count),
      show
    )
    return { seed, answers }
  }
)
