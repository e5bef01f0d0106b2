import * as Schema from "effect/Schema"

/** The run as a whole cannot go on. */
export class RunStopped extends Schema.Error<RunStopped>("sluice/RunStopped")({
  _tag: Schema.tag("RunStopped"),
  /** `Unusable`: no prompt could ever be answered. `Outage`: nobody could be asked for longer than is waited for. */
  why: Schema.Literals(["Unusable", "Outage"]),
  message: Schema.String
}) {}
