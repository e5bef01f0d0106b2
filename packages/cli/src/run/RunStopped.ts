import * as Schema from "effect/Schema"

export class RunStopped extends Schema.Error<RunStopped>("sluice/RunStopped")({
  _tag: Schema.tag("RunStopped"),
  /** `Unusable`: no prompt can be answered. `Outage`: no target accepts calls for longer than `--max-outage`. */
  why: Schema.Literals(["Unusable", "Outage"]),
  message: Schema.String
}) {}
