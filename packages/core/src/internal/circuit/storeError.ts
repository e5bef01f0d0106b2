import * as Schema from "effect/Schema"

/**
 * A store could not be reached, or returned an invalid answer.
 *
 * @since 0.1.0
 * @category errors
 */
export class StoreError extends Schema.Error<StoreError>("@sluice/core/StoreError")({
  _tag: Schema.tag("StoreError"),
  /** The operation that failed, such as `record`. */
  operation: Schema.String,
  description: Schema.String,
  cause: Schema.optional(Schema.Defect())
}) {
  override get message(): string {
    return `store: ${this.operation} failed: ${this.description}`
  }
}
