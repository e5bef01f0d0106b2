/**
 * The one error with which every module of ours refuses to be built from options that make no sense.
 *
 * **Details**
 *
 * It lists all issues at once, each with the option, its value and what is allowed, so that a configuration is mended in
 * one go. Nothing was built when it is raised.
 *
 * **Example** (All issues at once)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 *
 * const program = CircuitBreaker.CircuitBreaker.use((breaker) => breaker.state("openai")).pipe(
 *   Effect.provide(CircuitBreaker.layerMemory({ trip: CircuitBreaker.consecutive(0), probeLease: 0 })),
 *   Effect.catchTag("InvalidOptions", (invalid) => Effect.succeed(invalid.issues.map((issue) => issue.option)))
 * )
 *
 * console.log(await Effect.runPromise(program)) // => [ 'trip.failures', 'probeLease' ]
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"

// What is refused is often what JSON has no word for: NaN, Infinity, nothing at all.
const plain = (actual: unknown): Schema.Json => {
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
      return actual === null ? null : typeof actual === "object" ? "an object" : `a ${typeof actual}`
  }
}

const Actual: Schema.decodeTo<Schema.Unknown, Schema.Codec<Schema.Json>> = Schema.Json.pipe(
  Schema.decodeTo(Schema.Unknown, {
    decode: SchemaGetter.passthroughSubtype<unknown, Schema.Json>(),
    encode: SchemaGetter.transform(plain)
  })
)

/**
 * One option that is out of range.
 *
 * @since 0.1.0
 * @category models
 */
export const Issue: Schema.Struct<
  { readonly option: Schema.String; readonly actual: typeof Actual; readonly allowed: Schema.String }
> = Schema.Struct({
  /** The option's path, as in `queue`, `trip.failures` or, of several, `trip[1].rate`. */
  option: Schema.String,
  /** What was given. Whatever is not JSON is encoded in words. */
  actual: Actual,
  /** What is allowed, in words. */
  allowed: Schema.String
})

/**
 * Options are out of range. Nothing was built.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidOptions extends Schema.Error<InvalidOptions>("@sluice/core/InvalidOptions")({
  _tag: Schema.tag("InvalidOptions"),
  module: Schema.String,
  issues: Schema.NonEmptyArray(Issue)
}) {
  override get message(): string {
    const issues = this.issues.map(({ actual, allowed, option }) =>
      `${option} is ${actual === "" ? `""` : plain(actual)}; allowed: ${allowed}`
    )
    return `${this.module}: ${issues.join(" | ")}`
  }
}
