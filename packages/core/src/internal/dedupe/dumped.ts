import * as Schema from "effect/Schema"

/**
 * The schema of a cached result that `dump` returns and `restore` reads.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Dumped: Schema.Struct<{
  readonly operation: Schema.String
  readonly key: Schema.String
  readonly expiresAt: Schema.Finite
  readonly exit: typeof Schema.Json
}> = Schema.Struct({
  operation: Schema.String,
  /** The `id` of its key. */
  key: Schema.String,
  /** Epoch milliseconds. */
  expiresAt: Schema.Finite,
  /** The result, encoded by the operation's codec. */
  exit: Schema.Json
})

/**
 * A cached result that `dump` returns and `restore` reads.
 *
 * @since 0.1.0
 * @category models
 */
export type Dumped = typeof Dumped.Type
