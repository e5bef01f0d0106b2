/**
 * Reads options one by one and collects every issue, so that one `InvalidOptions` names them all.
 *
 * **When to use**
 *
 * In the `make` of a module of your own, so that it refuses options in the same words as the modules here.
 *
 * **Gotchas**
 *
 * - A reader returns its input also if it refused it. Use what was read only after `check`.
 *
 * **Example** (Two issues, one error)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { OptionsReader } from "@sluice/core/OptionsReader"
 *
 * const read = (input: { readonly size: number; readonly every: string }) => {
 *   const options = new OptionsReader("Batch")
 *   return options.check({
 *     size: options.integer("size", input.size, 1, 1_000),
 *     everyMillis: options.millis("every", input.every as "5 seconds", 1)
 *   })
 * }
 *
 * const error = await Effect.runPromise(Effect.flip(read({ size: 0, every: "soon" })))
 * console.log(error.message)
 * // => Batch: size is 0; must be a whole number from 1 to 1000. every is soon; must be a duration, such as "5 seconds"
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { InvalidOptions } from "./InvalidOptions.ts"

type Issue = InvalidOptions["issues"][number]

/**
 * Collects the issues of one module's options.
 *
 * @since 0.1.0
 * @category models
 */
export class OptionsReader {
  private readonly module: string
  private readonly issues: Array<Issue> = []

  /** `module` names the module in the error. */
  constructor(module: string) {
    this.module = module
  }

  /** Adds an issue. `requirement` completes the sentence that starts with the option: `must not be empty`. */
  refuse(option: string, actual: unknown, requirement: string): void {
    this.issues.push({ option, actual, requirement })
  }

  /** Reads a whole number. */
  integer(option: string, actual: number, minimum: number, maximum: number = Number.MAX_SAFE_INTEGER): number {
    if (!Number.isInteger(actual) || actual < minimum || actual > maximum) {
      const range = maximum === Number.MAX_SAFE_INTEGER ? `of at least ${minimum}` : `from ${minimum} to ${maximum}`
      this.refuse(option, actual, `must be a whole number ${range}`)
    }
    return numberOf(actual)
  }

  /** Reads a number. */
  number(option: string, actual: number, minimum: number, maximum: number): number {
    const isWithin = typeof actual === "number" && actual >= minimum && actual <= maximum
    if (!isWithin) this.refuse(option, actual, `must be a number from ${minimum} to ${maximum}`)
    return numberOf(actual)
  }

  /** Reads a finite duration as milliseconds. */
  millis(option: string, input: Duration.Input, minimumMillis: number, maximumMillis = Number.MAX_VALUE): number {
    const millis = toMillis(input)
    if (Number.isNaN(millis)) this.refuse(option, input, "must be a duration, such as \"5 seconds\"")
    else if (millis < minimumMillis) {
      this.refuse(option, shown(input), `must be at least ${formatMillis(minimumMillis)}`)
    } else if (millis > maximumMillis) {
      const isBounded = maximumMillis < Number.MAX_VALUE
      this.refuse(option, shown(input), isBounded ? `must be at most ${formatMillis(maximumMillis)}` : "must be finite")
    }
    return millis
  }

  /** Reads a finite duration. */
  duration(option: string, input: Duration.Input, minimumMillis: number): Duration.Duration {
    return Duration.millis(this.millis(option, input, minimumMillis))
  }

  /** Reads one of several words. */
  oneOf<const A extends string>(option: string, actual: A, allowed: ReadonlyArray<A>): A {
    if (!allowed.includes(actual)) {
      const quoted = allowed.map((word) => `"${word}"`)
      this.refuse(option, actual, `must be ${quoted.slice(0, -1).join(", ")} or ${quoted.at(-1)}`)
    }
    return actual
  }

  /** Checks that a value is a string. */
  string(option: string, actual: unknown): void {
    if (typeof actual !== "string") this.refuse(option, actual, "must be a string")
  }

  /** Reads a string with at least one character. */
  nonEmptyString(option: string, actual: unknown): string {
    if (typeof actual === "string" && actual !== "") return actual
    this.refuse(option, actual, "must be a non-empty string")
    return ""
  }

  /** Checks that a value is a function or absent. */
  optionalFunction(option: string, actual: unknown): void {
    if (actual !== undefined && typeof actual !== "function") this.refuse(option, actual, "must be a function")
  }

  /**
   * Reads an object, and refuses options whose name is not in `known`, if it is given. Refuses any other value, and reads it as an
   * object without fields, so that reading can continue. The options of an object named `options` are named without a path.
   */
  object<A extends object>(option: string, actual: A, known?: Known<A>): Partial<A> {
    if (typeof actual !== "object" || actual === null) {
      this.refuse(option, actual, "must be an object")
      return {}
    }
    if (known !== undefined) this.onlyKnown(option === "options" ? "" : `${option}.`, actual, known)
    return actual
  }

  /** Refuses options whose name is not in `known`. The compiler accepts them in a variable, and does not check JSON. */
  onlyKnown(path: string, actual: object, known: object): void {
    for (const [name, value] of Object.entries(actual)) {
      if (value !== undefined && !Object.hasOwn(known, name)) {
        this.refuse(`${path}${name}`, value, `must be one of ${Object.keys(known).join(", ")}`)
      }
    }
  }

  /** All issues as one error. `undefined` if there are none. */
  get invalid(): InvalidOptions | undefined {
    const [first, ...rest] = this.issues
    return first && new InvalidOptions({ module: this.module, issues: [first, ...rest] })
  }

  /** Fails with all issues, or succeeds with what was read. */
  check<A>(read: A): Effect.Effect<A, InvalidOptions> {
    const { invalid } = this
    return invalid === undefined ? Effect.succeed(read) : Effect.fail(invalid)
  }
}

/**
 * The names of all options of a type.
 *
 * @since 0.1.0
 * @category models
 */
export type Known<A> = { readonly [_ in keyof A]-?: true }

/**
 * Returns the milliseconds of a duration. NaN if the input is not a duration, which Effect's own functions throw on or read
 * as zero.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toMillis = (input: Duration.Input): number => {
  if (typeof input === "number") return input
  if (typeof input === "object" && !isSpelledOut(input)) return Number.NaN
  try {
    return Duration.toMillis(Duration.fromInputUnsafe(input))
  } catch {
    return Number.NaN
  }
}

const units = new Set(["weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"])

// A Duration, a pair of seconds and nanoseconds, or an object of units with numbers.
const isSpelledOut = (input: object | null): boolean => {
  if (input === null) return false
  if (Duration.isDuration(input)) return true
  if (Array.isArray(input)) return input.every((part) => typeof part === "number" && !Number.isNaN(part))
  const entries = Object.entries(input).filter(([, value]) => value !== undefined)
  return entries.length > 0 &&
    entries.every(([unit, value]) => units.has(unit) && typeof value === "number" && !Number.isNaN(value))
}

const formatMillis = (millis: number): string => millis === 0 ? "0" : Duration.format(Duration.millis(millis))

const shown = (input: Duration.Input): unknown => Duration.isDuration(input) ? Duration.format(input) : input

// Untyped callers pass values that arithmetic throws on, such as a bigint. They are refused already and must not throw.
const numberOf = (actual: unknown): number => typeof actual === "number" ? actual : Number.NaN
