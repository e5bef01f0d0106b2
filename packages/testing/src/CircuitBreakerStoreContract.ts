/**
 * What every circuit breaker store must do, as checks that any test runner can run.
 *
 * `checks` is a list of sentences of the contract, each with an effect that asks the store and fails with `ContractBroken`
 * where one does not hold. `compare` does whatever comes to its mind to the store and to the smallest store that keeps the
 * contract (`ReferenceStore`) side by side, and fails with `ModelDiffers` where their answers part.
 *
 * **When to use**
 *
 * In the tests of a store of your own, to know that a breaker can rely on it. No store is too good for both: the checks have
 * the corners that chance does not meet, and races; the comparison has the sequences that nobody thinks of.
 *
 * **Details**
 *
 * A check makes the circuits that it needs, under keys that nobody else has, and leaves them behind: give it a database or
 * a namespace of its own. Nothing is assumed of how fast the store is. What must not end while a check runs lasts ten
 * minutes; what must end is waited for by the store's own clock, 25 milliseconds each. So a check takes as long as the store
 * needs for its requests, mostly some dozen, and a slow machine makes it slow, not wrong.
 *
 * What is not shown: that a store forgets what nobody uses, and nothing else; what it does when it cannot be reached; what
 * a dying process leaves behind.
 *
 * **Gotchas**
 *
 * - A verb happens at one time: its snapshot's `now`. A store that reads its clock twice for one answer will now and then
 *   fail by a millisecond.
 * - Tell it how the store's time passes. With a store on `Clock` and a test on `TestClock` that is `TestClock.adjust`, and a
 *   sleep would never end; with a server it is `Effect.sleep` in a live test (`it.live`).
 *
 * **Example** (Every promise of a store, without a test runner)
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
 *   return "it is a store"
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.provide(TestClock.layer())))) // => it is a store
 * ```
 *
 * **Example** (The same in tests)
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
 *     // What differs is played again and again until little is left of it.
 *     it.live("is like the reference", () => Effect.flatMap(subject, CircuitBreakerStoreContract.compare), 60_000)
 *   })
 * ```
 *
 * @since 0.1.0
 */
import type { CircuitBreakerStore, StoreError } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import { benchOf, type Bodies, type Body } from "./internal/contract/check.ts"
import { sequences, show } from "./internal/contract/commands.ts"
import { concurrency } from "./internal/contract/concurrency.ts"
import { lease } from "./internal/contract/lease.ts"
import { keys, list, texts } from "./internal/contract/list.ts"
import { play, shrink } from "./internal/contract/model.ts"
import { read } from "./internal/contract/read.ts"
import { record } from "./internal/contract/record.ts"
import { transition } from "./internal/contract/transition.ts"

/**
 * A store does not keep a promise of the contract.
 *
 * @since 0.1.0
 * @category errors
 */
export class ContractBroken extends Schema.Error<ContractBroken>("@sluice/testing/ContractBroken")({
  _tag: Schema.tag("ContractBroken"),
  /** The name of the check that found it. */
  check: Schema.String,
  /** The sentence that does not hold. */
  promise: Schema.String,
  expected: Schema.String,
  actual: Schema.String
}) {
  override get message(): string {
    return `${this.check}\n  promised: ${this.promise}\n  expected: ${this.expected}\n  actual:   ${this.actual}`
  }
}

/**
 * A store and the reference were asked the same, and answered differently.
 *
 * @since 0.1.0
 * @category errors
 */
export class ModelDiffers extends Schema.Error<ModelDiffers>("@sluice/testing/ModelDiffers")({
  _tag: Schema.tag("ModelDiffers"),
  /** Give it to `compare` to see the same again. */
  seed: Schema.Int,
  /** What was asked, in order, with all that is not needed left out. The answers to the last one part. */
  commands: Schema.Array(Schema.String),
  expected: Schema.String,
  actual: Schema.String
}) {
  override get message(): string {
    const commands = this.commands.map((command, nth) => `  ${nth + 1}. ${command}`).join("\n")
    return `seed ${this.seed}\n${commands}\n  expected: ${this.expected}\n  actual:   ${this.actual}`
  }
}

/**
 * A store to be looked at.
 *
 * @since 0.1.0
 * @category models
 */
export interface Subject {
  readonly store: CircuitBreakerStore["Service"]
  /** Lets so many milliseconds of the store's time pass; a little more does no harm. */
  readonly sleep: (millis: number) => Effect.Effect<void>
  /**
   * Makes the store forget a circuit that is closed, as an expiry, an eviction or a flush does. Without it that check shows less:
   * not that a generation is never given twice.
   */
  readonly forget?: ((key: string) => Effect.Effect<void>) | undefined
}

/**
 * A part of the contract.
 *
 * @since 0.1.0
 * @category models
 */
export interface Check {
  /** What the store does, as a sentence: the name of a test. */
  readonly name: string
  readonly run: (subject: Subject) => Effect.Effect<void, ContractBroken | StoreError>
}

const named = (name: string, body: Body): Check => ({
  name,
  run: (subject) =>
    Effect.flatMap(benchOf(subject), body).pipe(
      Effect.catchTag("Broken", ({ actual, expected, promise }) =>
        Effect.fail(new ContractBroken({ check: name, promise, expected, actual })))
    )
})

const group = (verb: string, bodies: Bodies): ReadonlyArray<Check> =>
  Object.entries(bodies).map(([sentence, body]) => named(`${verb} ${sentence}`, body))

/**
 * The contract, part by part. They may run in any order, and at once.
 *
 * @since 0.1.0
 * @category checks
 */
export const checks: ReadonlyArray<Check> = [
  ...group("read:", read),
  ...group("record:", record),
  ...group("lease:", lease),
  ...group("transition:", transition),
  ...group("list:", list),
  ...group("keys:", keys),
  ...group("texts:", texts),
  ...group("at once:", concurrency)
]

/**
 * How long and by which chance a store is compared.
 *
 * @since 0.1.0
 * @category models
 */
export interface CompareOptions extends Subject {
  /** How many sequences are played, each on circuits of its own. Default 25: a few seconds where time is real. */
  readonly runs?: number | undefined
  /** How long each of them is. Default 40: enough for a circuit to open, be probed and open again a few times. */
  readonly commands?: number | undefined
  /** What the sequences are drawn from, a whole number. Default: a random one, which the report and the error tell. */
  readonly seed?: number | undefined
}

/**
 * What was done to a store that answered like the reference.
 *
 * @since 0.1.0
 * @category models
 */
export interface CompareReport {
  readonly seed: number
  /** How often what was asked, and how it was answered, as in `"lease refused"`. */
  readonly answers: { readonly [what: string]: number }
}

/**
 * Does random commands to a store and to the reference, and compares every answer.
 *
 * **Details**
 *
 * The reference answers for the moment that the store's snapshot shows, so that times are equal to the millisecond, on a
 * real clock as on `TestClock`. The numbers of generations need not be equal, only grow with each other.
 *
 * Commands come one after the other; for what happens at once see `checks`. What differs is played again with ever fewer
 * commands, at most 150 times, before it is told: give the test a minute where time is real.
 *
 * @since 0.1.0
 * @category checks
 */
export const compare: (options: CompareOptions) => Effect.Effect<CompareReport, ModelDiffers | StoreError> = Effect
  .fnUntraced(function*({ commands = 40, runs = 25, seed: given, ...subject }: CompareOptions) {
    const seed = given ?? (yield* Random.nextIntBetween(0, 1_000_000_000))
    const answers: Record<string, number> = {}
    const count = (what: string) => {
      answers[what] = (answers[what] ?? 0) + 1
    }
    for (const sequence of yield* sequences({ seed, runs, commands })) {
      const found = yield* play(subject, sequence, count)
      if (found === undefined) continue
      const { actual, commands, expected } = yield* shrink(subject, found)
      return yield* Effect.fail(
        new ModelDiffers({
          seed,
          commands: commands.map(show),
          expected: Formatter.format(expected),
          actual: Formatter.format(actual)
        })
      )
    }
    return { seed, answers }
  })
