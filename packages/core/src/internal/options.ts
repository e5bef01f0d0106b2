import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { InvalidOptions } from "../InvalidOptions.ts"

type Issue = InvalidOptions["issues"][number]

/** Reads options one by one and remembers every one that is out of range, so that all of them are told at once. */
export class Options {
  private readonly module: string
  private readonly issues: Array<Issue> = []

  constructor(module: string) {
    this.module = module
  }

  refuse(option: string, actual: unknown, allowed: string): void {
    this.issues.push({ option, actual, allowed })
  }

  integer(option: string, actual: number, minimum: number, maximum: number = Number.MAX_SAFE_INTEGER): number {
    if (!Number.isInteger(actual) || actual < minimum || actual > maximum) {
      const upper = maximum === Number.MAX_SAFE_INTEGER ? "" : ` to ${maximum}`
      this.refuse(option, actual, `a whole number from ${minimum}${upper}`)
    }
    return numberOf(actual)
  }

  number(option: string, actual: number, minimum: number, maximum: number): number {
    const isWithin = typeof actual === "number" && actual >= minimum && actual <= maximum
    if (!isWithin) this.refuse(option, actual, `a number from ${minimum} to ${maximum}`)
    return numberOf(actual)
  }

  /** Milliseconds of a finite duration of at least `minimumMillis`. */
  millis(option: string, input: Duration.Input, minimumMillis: number): number {
    const millis = toMillis(input)
    if (!Number.isFinite(millis) || millis < minimumMillis) {
      const minimum = minimumMillis === 0 ? "zero" : Duration.format(Duration.millis(minimumMillis))
      this.refuse(option, describeInput(input), `a finite duration of at least ${minimum}`)
    }
    return millis
  }

  oneOf<const A extends string>(option: string, actual: A, allowed: ReadonlyArray<A>): A {
    if (!allowed.includes(actual)) this.refuse(option, actual, allowed.join(" | "))
    return actual
  }

  /** All issues as one error; none where there are none. */
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

/** NaN for what is no duration: `fromInputUnsafe` throws on it, or takes it for none at all, and an option is refused. */
export const toMillis = (input: Duration.Input): number => {
  if (typeof input === "number") return input
  if (typeof input === "object" && !isSpelled(input)) return Number.NaN
  try {
    return Duration.toMillis(Duration.fromInputUnsafe(input))
  } catch {
    return Number.NaN
  }
}

const units = new Set(["weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"])

// An object of units, each with its number; a Duration; or seconds and nanoseconds.
const isSpelled = (input: object | null): boolean => {
  if (input === null) return false
  if (Duration.isDuration(input)) return true
  if (Array.isArray(input)) return input.every((part) => typeof part === "number" && !Number.isNaN(part))
  const entries = Object.entries(input)
  return entries.length > 0 && entries.every(([unit, value]) => units.has(unit) && typeof value === "number")
}

const describeInput = (input: Duration.Input): unknown => Duration.isDuration(input) ? Duration.format(input) : input

// Untyped callers give what no arithmetic is possible with, such as a bigint. It is refused by then, and must not throw.
const numberOf = (actual: unknown): number => typeof actual === "number" ? actual : Number.NaN
