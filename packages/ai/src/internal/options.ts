import { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

type Issue = InvalidOptions["issues"][number]

/** Gathers what is wrong with the options of one module, so that all of it is told at once. */
export class Options {
  private readonly module: string
  private readonly issues: Array<Issue> = []

  constructor(module: string) {
    this.module = module
  }

  refuse(option: string, actual: unknown, allowed: string): void {
    this.issues.push({ option, actual, allowed })
  }

  integer(option: string, actual: number, minimum: number, maximum: number): number {
    if (!Number.isInteger(actual) || actual < minimum || actual > maximum) {
      this.refuse(option, actual, `a whole number from ${minimum} to ${maximum}`)
    }
    return actual
  }

  /** A finite duration of at least zero. */
  duration(option: string, input: Duration.Input): Duration.Duration {
    // Of NaN it would be zero.
    const read = Number.isNaN(input)
      ? Duration.infinity
      : Option.getOrElse(Duration.fromInput(input), () => Duration.infinity)
    if (!Duration.isFinite(read) || Duration.isNegative(read)) {
      this.refuse(option, String(input), "a finite duration of at least zero")
    }
    return read
  }

  /** Fails with all issues, or succeeds with what was read, which is there if nothing was refused. */
  check<A>(read: A | undefined): Effect.Effect<A, InvalidOptions> {
    const [first, ...rest] = this.issues
    if (first !== undefined) return Effect.fail(new InvalidOptions({ module: this.module, issues: [first, ...rest] }))
    return read === undefined ? Effect.die("options that were not refused were not read either") : Effect.succeed(read)
  }
}
