import * as Schema from "effect/Schema"

/**
 * A store could not be reached, or gave an answer that makes no sense.
 *
 * @since 0.1.0
 * @category errors
 */
export class StoreError extends Schema.Error<StoreError>("@sluice/core/StoreError")({
  _tag: Schema.tag("StoreError"),
  /** The verb that failed: `"record"`. */
  operation: Schema.String,
  description: Schema.String,
  cause: Schema.optional(Schema.Defect())
}) {
  override get message(): string {
    return `store: ${this.operation} failed: ${this.description}`
  }
}
