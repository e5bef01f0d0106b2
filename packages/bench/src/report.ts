/** The results of a run: the format of `--json`, and of the messages of the measuring processes. */
import * as Schema from "effect/Schema"
import { rowIds } from "./rows.ts"

/** The cost per operation of a contender, for each round. */
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

/** The median of the rounds, and their first and third quartile. */
export const Spread = Schema.Struct({ median: Schema.Finite, lower: Schema.Finite, upper: Schema.Finite })
export type Spread = typeof Spread.Type

export const Verdict = Schema.Struct({
  row: Schema.Literals(rowIds),
  title: Schema.String,
  /** The contender that Sluice is compared with, if there is one. */
  rival: Schema.optionalKey(Schema.String),
  at: Schema.Literals(["least", "most"]),
  limit: Schema.Finite,
  /** `ns`: in addition to the rival, if there is one. */
  unit: Schema.Literals(["ratio", "ns", "bytes"]),
  /** Of the ratios of each round, since a slow round affects both contenders. Not the ratio of the medians. */
  value: Spread,
  /** Missing after a quick run, which is too short for a verdict. */
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
