import { type MeasuredRow, type Spread, type Verdict } from "./report.ts"
import { judged, type Ratio, type Target } from "./targets.ts"

/** Computes the ratios without verdicts, for a quick run. */
export const compare = (targets: ReadonlyArray<Target>, rows: ReadonlyArray<MeasuredRow>): ReadonlyArray<Verdict> =>
  judge(targets, rows).map(({ isReached: _, ...verdict }) => verdict)

/** Judges the targets of the rows that were measured. */
export const judge = (targets: ReadonlyArray<Target>, rows: ReadonlyArray<MeasuredRow>): ReadonlyArray<Verdict> =>
  targets.flatMap((target) => {
    const row = rows.find(({ id }) => id === target.row)
    return row === undefined ? [] : [judgeOne(target, row)]
  })

const judgeOne = (target: Target, row: MeasuredRow): Verdict => {
  const ours = roundsOf(row, judged)
  if (target._tag === "Own") {
    const value = spread(ours)
    const { limit, unit } = target
    return { row: row.id, title: row.title, at: "most", limit, unit, value, isReached: value.median <= limit }
  }
  if (target._tag === "Added") {
    const { limit, rival } = target
    const theirs = roundsOf(row, rival)
    const value = spread(ours.map((cost, round) => cost - (theirs[round] ?? Number.NaN)))
    return {
      row: row.id,
      title: row.title,
      rival,
      at: "most",
      limit,
      unit: "ns",
      value,
      isReached: value.median <= limit
    }
  }
  const value = spread(ratios(target, ours, roundsOf(row, target.rival)))
  const { at, limit, rival } = target
  const isReached = at === "least" ? value.median >= limit : value.median <= limit
  return { row: row.id, title: row.title, rival, at, limit, unit: "ratio", value, isReached }
}

const ratios = ({ at }: Ratio, ours: ReadonlyArray<number>, theirs: ReadonlyArray<number>): ReadonlyArray<number> =>
  ours.map((cost, round) => {
    const rival = theirs[round] ?? Number.NaN
    return at === "least" ? rival / cost : cost / rival
  })

export const roundsOf = (row: MeasuredRow, contender: string): ReadonlyArray<number> => {
  const found = row.measurements.find((measurement) => measurement.contender === contender)
  if (found === undefined) throw new Error(`${contender} was not measured in row ${row.id}`)
  return found.rounds
}

export const spread = (rounds: ReadonlyArray<number>): Spread => {
  const sorted = rounds.toSorted((a, b) => a - b)
  return { median: quantile(sorted, 0.5), lower: quantile(sorted, 0.25), upper: quantile(sorted, 0.75) }
}

/** The quantile `part` of sorted values, interpolated. */
const quantile = (sorted: ReadonlyArray<number>, part: number): number => {
  const at = (sorted.length - 1) * part
  const below = sorted[Math.floor(at)] ?? Number.NaN
  const above = sorted[Math.ceil(at)] ?? Number.NaN
  return below + (above - below) * (at - Math.floor(at))
}
