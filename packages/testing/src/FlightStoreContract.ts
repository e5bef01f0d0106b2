/**
 * The contract of flight stores, as checks for any test runner.
 *
 * `checks` are the promises of the contract. Each is an effect that calls the store, and fails with `ContractBroken` if a promise is not
 * kept.
 *
 * **When to use**
 *
 * In the tests of your own store, so that deduplicators can share flights through it.
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
 *   for (const { run } of FlightStoreContract.checks) yield* run({ store, sleep: TestClock.adjust })
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
import { type Check as CircuitCheck, ContractBroken } from "./CircuitBreakerStoreContract.ts"
import { claims, clock, ends, leases, purge } from "./internal/flightContract/checks.ts"
import { type CheckBodies, type CheckBody, makeFixture } from "./internal/flightContract/fixture.ts"

export { ContractBroken } from "./CircuitBreakerStoreContract.ts"

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
 * A check of the contract.
 *
 * @since 0.1.0
 * @category models
 */
export interface Check extends Omit<CircuitCheck, "run"> {
  readonly run: (subject: Subject) => Effect.Effect<void, ContractBroken | StoreError>
}

const checkOf = (name: string, body: CheckBody): Check => ({
  name,
  run: (subject) =>
    Effect.flatMap(makeFixture(subject), body).pipe(
      Effect.catchTag("Broken", ({ actual, expected, promise }) =>
        Effect.fail(new ContractBroken({ check: name, promise, expected, actual })))
    )
})

/**
 * The checks of the contract. They can run in any order, and also concurrently, unless `setBack` changes a clock that they
 * share.
 *
 * @since 0.1.0
 * @category checks
 */
export const checks: ReadonlyArray<Check> = [claims, leases, ends, purge, clock].flatMap(
  (bodies: CheckBodies) => Object.entries(bodies).map(([name, body]) => checkOf(name, body))
)
