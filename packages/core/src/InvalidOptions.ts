/**
 * The error of options that are out of range.
 *
 * It lists all issues at once: the option, its value and the requirement. Nothing was built.
 *
 * **When to use**
 *
 * Handle it if options come from configuration: its message says what to change. If they are literals in your code, use
 * `Layer.orDie`. To refuse options of a module of your own, use `OptionsReader`.
 *
 * **Gotchas**
 *
 * - `layer` and `make` fail with it. Some options of a single call, such as a deadline, raise it as a defect.
 *
 * **Example** (All issues at once)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 *
 * const program = CircuitBreaker.CircuitBreaker.use((breaker) => breaker.state("openai")).pipe(
 *   Effect.provide(CircuitBreaker.layer({ trip: CircuitBreaker.consecutive(0), probeLease: 0 })),
 *   Effect.catchTag("InvalidOptions", (invalid) => Effect.succeed(invalid.message))
 * )
 *
 * console.log(await Effect.runPromise(program))
 * // => CircuitBreaker: trip.failures is 0; must be a whole number from 1 to 1000. probeLease is 0; must be at least 1ms
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"

// JSON has no form for many values that are refused: NaN, Infinity, undefined.
const toJson = (actual: unknown): Schema.Json => {
  switch (typeof actual) {
    case "string":
    case "boolean":
      return actual
    case "number":
      return Number.isFinite(actual) ? actual : String(actual)
    case "bigint":
    case "undefined":
      return String(actual)
    default:
      if (actual === null) return null
      if (Array.isArray(actual)) return actual.length === 0 ? [] : "a list"
      return typeof actual === "object" ? "an object" : `a ${typeof actual}`
  }
}

const Actual: Schema.decodeTo<Schema.Unknown, Schema.Codec<Schema.Json>> = Schema.Json.pipe(
  Schema.decodeTo(Schema.Unknown, {
    decode: SchemaGetter.passthroughSubtype<unknown, Schema.Json>(),
    encode: SchemaGetter.transform(toJson)
  })
)

/**
 * One option that is out of range.
 *
 * @since 0.1.0
 * @category models
 */
export const Issue: Schema.Struct<
  { readonly option: Schema.String; readonly actual: typeof Actual; readonly requirement: Schema.String }
> = Schema.Struct({
  /** The path of the option: `queue`, `trip.failures`, or `trip[1].rate` in a list. */
  option: Schema.String,
  /** The value that was refused. A value without a JSON form is encoded as a description. */
  actual: Actual,
  /** What is required: `must be at least 1ms`. */
  requirement: Schema.String
})

/**
 * Options are out of range. Nothing was built.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidOptions extends Schema.Error<InvalidOptions>("@sluice/core/InvalidOptions")({
  _tag: Schema.tag("InvalidOptions"),
  /** The module whose options they are. */
  module: Schema.String,
  issues: Schema.NonEmptyArray(Issue)
}) {
  override get message(): string {
    const issues = this.issues.map(({ actual, option, requirement }) => `${option}${shown(actual)} ${requirement}`)
    return `${this.module}: ${issues.join(". ")}`
  }
}

const shown = (actual: unknown): string => {
  const json = toJson(actual)
  if (json === "undefined") return " is missing;"
  // "targets must not be empty" needs no value.
  if (Array.isArray(json)) return ""
  return ` is ${json === "" ? `""` : String(json)};`
}
