import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/**
 * An attempt of a stage took longer than the stage's `timeout`.
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
  /** The time limit of one attempt. */
  after: Schema.DurationFromMillis
}) {
  override get message(): string {
    return `${this.pipeline}: stage ${this.stage} did not answer within ${Duration.format(this.after)}`
  }
}

/**
 * The annotation of a cause that names the failed stage. Read it with `failedStage`.
 *
 * @since 0.1.0
 * @category models
 */
export class FailedStage extends Context.Service<FailedStage, {
  readonly pipeline: string
  readonly stage: string
  /** Counted from 0. */
  readonly index: number
  /** `Run`: the stage's function failed. `Recovery`: then its `recover` failed too, with an error of its own. */
  readonly during: "Run" | "Recovery"
}>()("@sluice/core/Pipeline/FailedStage") {}
