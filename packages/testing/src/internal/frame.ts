/** The common parts of the contracts of all stores. */
import type { StoreError } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Formatter from "effect/Formatter"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"

/**
 * A store broke a promise of the contract.
 *
 * @since 0.1.0
 * @category errors
 */
export class ContractBroken extends Schema.Error<ContractBroken>("@sluice/testing/ContractBroken")({
  _tag: Schema.tag("ContractBroken"),
  /** The name of the check. */
  check: Schema.String,
  /** The promise that was not kept. */
  promise: Schema.String,
  expected: Schema.String,
  actual: Schema.String
}) {
  override get message(): string {
    return `${this.check}\n  promised: ${this.promise}\n  expected: ${this.expected}\n  actual:   ${this.actual}`
  }
}

/**
 * A store answered a command differently than the reference.
 *
 * @since 0.1.0
 * @category errors
 */
export class ModelDiffers extends Schema.Error<ModelDiffers>("@sluice/testing/ModelDiffers")({
  _tag: Schema.tag("ModelDiffers"),
  /** Pass it to `compare` to reproduce the difference. */
  seed: Schema.Int,
  /** The commands, shortened. The answers to the last one differ. */
  commands: Schema.Array(Schema.String),
  expected: Schema.String,
  actual: Schema.String
}) {
  override get message(): string {
    const commands = this.commands.map((command, nth) => `  ${nth + 1}. ${command}`).join("\n")
    return `seed ${this.seed}\n${commands}\n  expected: ${this.expected}\n  actual:   ${this.actual}`
  }
}

/** A check of a contract. */
export interface Check<Subject> {
  /** A sentence, to be used as the title of a test. */
  readonly name: string
  readonly run: (subject: Subject) => Effect.Effect<void, ContractBroken | StoreError>
}

/** A promise of the contract that a store does not keep. */
export interface Broken {
  readonly _tag: "Broken"
  readonly promise: string
  readonly expected: string
  readonly actual: string
}

/** Calls the store, and fails at the first promise that is not kept. */
export type CheckBody<Fixture> = (fixture: Fixture) => Effect.Effect<void, Broken | StoreError>

/** Checks by name. A name is a sentence, and the title of a test. */
export type CheckBodies<Fixture> = { readonly [name: string]: CheckBody<Fixture> }

/** Runs each body on a fixture of its own. */
export const checksOf = <Subject, Fixture>(
  makeFixture: (subject: Subject) => Effect.Effect<Fixture>,
  groups: ReadonlyArray<CheckBodies<Fixture>>
): ReadonlyArray<Check<Subject>> =>
  groups.flatMap((bodies) =>
    Object.entries(bodies).map(([name, body]): Check<Subject> => ({
      name,
      run: (subject) =>
        Effect.flatMap(makeFixture(subject), body).pipe(
          Effect.catchTag(
            "Broken",
            ({ actual, expected, promise }) =>
              Effect.fail(new ContractBroken({ check: name, promise, expected, actual }))
          )
        )
    }))
  )

/** Milliseconds that do not elapse during a check, even on a slow machine. */
export const long = 600_000

export const expect = (promise: string, actual: unknown, expected: unknown): Effect.Effect<void, Broken> =>
  Equal.equals(actual, expected) ? Effect.void : broken(promise, Formatter.format(actual), Formatter.format(expected))

/** `expect` for a condition. `expected` describes it. */
export const expectThat = (
  promise: string,
  holds: boolean,
  actual: unknown,
  expected: string
): Effect.Effect<void, Broken> => holds ? Effect.void : broken(promise, Formatter.format(actual), expected)

export const broken = (promise: string, actual: string, expected: string): Effect.Effect<never, Broken> =>
  Effect.fail({ _tag: "Broken", promise, expected: truncate(expected), actual: truncate(actual) })

const truncate = (text: string): string =>
  text.length <= 2_000 ? text : `${text.slice(0, 2_000)}... (${text.length} characters)`

/** Prefixes have the same length, so that none is the start of another. */
export const freshPrefix: Effect.Effect<string> = Effect.map(
  Random.nextIntBetween(16 ** 11, 16 ** 12, { halfOpen: true }),
  (number) => `contract-${number.toString(16)}-`
)

/** An answer of a store that differs from the reference's, and the commands that led there. The last one was answered differently. */
export interface Difference<Command> {
  readonly commands: ReadonlyArray<Command>
  readonly expected: unknown
  readonly actual: unknown
}

/** Plays commands on a store and on the reference. */
export type Play<Command> = (
  commands: ReadonlyArray<Command>
) => Effect.Effect<Difference<Command> | undefined, StoreError>

// Every attempt is a run, which takes time on a real clock. This many mostly lead to a handful of commands.
const maxAttempts = 150

/** Looks for a difference, the same or another, that takes fewer commands. */
const shrink = <Command>(
  play: Play<Command>,
  found: Difference<Command>
): Effect.Effect<Difference<Command>, StoreError> =>
  Effect.gen(function*() {
    let shortest = found
    let attempts = 0
    for (let size = Math.ceil(shortest.commands.length / 2); size > 0; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      for (let end = shortest.commands.length - 1; end > 0 && attempts < maxAttempts; end -= size) {
        const fewer = [...shortest.commands.slice(0, Math.max(0, end - size)), ...shortest.commands.slice(end)]
        attempts++
        shortest = (yield* play(fewer)) ?? shortest
      }
    }
    return shortest
  })

/** Returns the given seed, or a random one. */
export const seedOf = (fixed: number | undefined): Effect.Effect<number> =>
  fixed === undefined ? Random.nextIntBetween(0, 1_000_000_000) : Effect.succeed(fixed)

/** The error of a difference, whose commands are shown by their text. */
export const modelDiffers = (seed: number, { actual, commands, expected }: Difference<string>): ModelDiffers =>
  new ModelDiffers({ seed, commands, expected: Formatter.format(expected), actual: Formatter.format(actual) })

/** Plays sequences, and fails at the first difference, in a shorter form. */
export const playAll = <Command>(
  seed: number,
  sequences: ReadonlyArray<ReadonlyArray<Command>>,
  play: Play<Command>,
  show: (command: Command) => string
): Effect.Effect<void, ModelDiffers | StoreError> =>
  Effect.gen(function*() {
    for (const sequence of sequences) {
      const difference = yield* play(sequence)
      if (difference === undefined) continue
      const { actual, commands, expected } = yield* shrink(play, difference)
      return yield* Effect.fail(modelDiffers(seed, { actual, expected, commands: commands.map(show) }))
    }
  })
