/** What a run has found: the shape of `--json`, and of what the measuring processes send. */
import * as Schema from "effect/Schema"
import { rowIds } from "./rows.ts"

/** One contender in one row: its cost per operation, round by round. */
export const Measurement = Schema.Struct({
  contender: Schema.String,
  rounds: Schema.NonEmptyArray(Schema.Finite)
})
export type Measurement = typeof Measurement.Type

export const MeasuredRow = Schema.Struct({
  id: Schema.Literals(rowIds),
  title: Schema.String,
  unit: Schema.Literals(["ns", "bytes"]),
  measurements: Schema.Array(Measurement)
})
export type MeasuredRow = typeof MeasuredRow.Type

/** The middle of the rounds, and the ends of their middle half. */
export const Spread = Schema.Struct({ median: Schema.Finite, lower: Schema.Finite, upper: Schema.Finite })
export type Spread = typeof Spread.Type

export const Verdict = Schema.Struct({
  row: Schema.Literals(rowIds),
  title: Schema.String,
  /** What ours stands beside; a limit in bytes has none. */
  rival: Schema.optionalKey(Schema.String),
  at: Schema.Literals(["least", "most"]),
  limit: Schema.Finite,
  /** `ns`: on top of the rival. */
  unit: Schema.Literals(["ratio", "ns", "bytes"]),
  /** Of the ratios of each round, not the ratio of two medians: what slows a round down slows down both. */
  value: Spread,
  /** Not of a quick run, which is too short to tell. */
  isReached: Schema.optionalKey(Schema.Boolean)
})
export type Verdict = typeof Verdict.Type

export const Machine = Schema.Struct({
  node: Schema.String,
  effect: Schema.String,
  cpu: Schema.String,
  cores: Schema.Int
})
export type Machine = typeof Machine.Type

export const Report = Schema.Struct({
  machine: Machine,
  isQuick: Schema.Boolean,
  verdicts: Schema.Array(Verdict),
  rows: Schema.Array(MeasuredRow)
})
export type Report = typeof Report.Type
