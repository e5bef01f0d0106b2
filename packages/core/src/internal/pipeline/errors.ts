import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/**
 * A stage did not answer within its timeout.
 *
 * @since 0.1.0
 * @category errors
 */
export class StageTimeout extends Schema.Error<StageTimeout>("@sluice/core/StageTimeout")({
  _tag: Schema.tag("StageTimeout"),
  /** The name of the pipeline. */
  pipeline: Schema.String,
  /** The name of the stage. */
  stage: Schema.String,
  /** The time that one attempt of the stage has. */
  after: Schema.DurationFromMillis
}) {
  override get message(): string {
    return `${this.pipeline}: stage ${this.stage} did not answer within ${Duration.format(this.after)}`
  }
}

/**
 * The stage that failed, as an annotation of the pipeline's cause. Read it with `failedStage`.
 *
 * @since 0.1.0
 * @category models
 */
export class FailedStage extends Context.Service<FailedStage, {
  readonly pipeline: string
  readonly stage: string
  /** Counted from 0. */
  readonly index: number
  /** Whether the stage's function failed, or its recovery after that. */
  readonly during: "Run" | "Recovery"
}>()("@sluice/core/Pipeline/FailedStage") {}
