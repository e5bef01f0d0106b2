/** Reports as text: for a terminal of 80 columns, and as the tables of a page. */
import { spread } from "./judge.ts"
import type { MeasuredRow, Report, Spread, Verdict } from "./report.ts"
import { ours, rowOf } from "./rows.ts"

/** Shows whether a target is reached, where the output has colours. */
export type Paint = (text: string, isReached: boolean) => string

export const colourless: Paint = (text) => text

export const asText = (report: Report, paint: Paint): string => {
  const { rows, verdicts } = report
  const blocks = [
    heading(report),
    verdicts.map((verdict) => verdictLine(verdict, paint)),
    verdicts.length === 0 ? [] : [summary(verdicts)],
    ...rows.map(rowLines)
  ]
  return blocks.filter((block) => block.length > 0).map((block) => `${block.join("\n")}\n`).join("\n")
}

const heading = ({ isQuick, machine, rows }: Report): ReadonlyArray<string> => [
  `Sluice beside its rivals${isQuick ? ", quickly: a rough look" : ""}`,
  `${machine.cores} cores (${machine.cpu}), Node ${machine.node}, Effect ${machine.effect}`,
  `CPU time, median of ${roundsIn(rows)} rounds; in brackets the middle half of them`,
  "Only ratios mean anything: >= how many times as much the rival costs at least,",
  "<= how many times as much as the rival ours costs at most"
]

const roundsIn = (rows: ReadonlyArray<MeasuredRow>): string => {
  const counts = new Set(rows.flatMap(({ measurements }) => measurements.map(({ rounds }) => rounds.length)))
  return [...counts].toSorted((a, b) => b - a).join(" or ")
}

const verdictLine = (verdict: Verdict, paint: Paint): string =>
  [
    verdict.isReached === undefined ? "" : paint(word(verdict).padEnd(7), verdict.isReached),
    amount(verdict.value.median, verdict.unit).padStart(7),
    `(${limitOf(verdict)})`.padEnd(12),
    range(verdict.value, verdict.unit).padEnd(13),
    whatIsJudged(verdict)
  ].join(" ")

const word = ({ isReached }: Verdict): string => isReached ? "reached" : "missed"

const limitOf = ({ at, limit, unit }: Verdict): string =>
  `${at === "least" ? ">=" : "<="} ${unit === "ratio" ? `${limit}x` : amount(limit, unit)}`

const whatIsJudged = ({ rival, title, unit }: Verdict): string =>
  rival === undefined ? title : `${title} ${unit === "ns" ? "-" : "/"} ${rival}`

const summary = (verdicts: ReadonlyArray<Verdict>): string => {
  if (verdicts.some(({ isReached }) => isReached === undefined)) {
    return "No verdicts: a quick run is over before V8 has compiled all of it"
  }
  const reached = verdicts.filter(({ isReached }) => isReached).length
  const missed = verdicts.length - reached
  return `${reached} of ${verdicts.length} targets reached${missed === 0 ? "" : `, ${missed} missed`}`
}

const rowLines = (row: MeasuredRow): ReadonlyArray<string> => [
  nameOf(row),
  ...costsOf(row).map(({ contender, cost, ratio }) =>
    [
      amount(ratio, "ratio").padStart(8),
      `${count(cost.median)} ${row.unit === "bytes" ? "B " : "ns"}`.padStart(11),
      ` ${range(cost, "count").padEnd(19)}`,
      contender
    ].join(" ")
  )
]

const nameOf = ({ id, title }: MeasuredRow): string => {
  const { effect } = rowOf(id)
  return effect === undefined ? title : `${title} (Effect: ${effect})`
}

interface Cost {
  readonly contender: string
  readonly cost: Spread
  /** Over what ours costs. */
  readonly ratio: number
}

const costsOf = ({ measurements }: MeasuredRow): ReadonlyArray<Cost> => {
  const mine = measurements.find(({ contender }) => contender === ours)
  const unit = mine === undefined ? Number.NaN : spread(mine.rounds).median
  return measurements.map(({ contender, rounds }) => {
    const cost = spread(rounds)
    return { contender, cost, ratio: cost.median / unit }
  })
}

type Unit = "ratio" | "ns" | "bytes" | "count"

const amount = (value: number, unit: Unit): string => `${digits(value, unit)}${suffixes[unit]}`

const suffixes: { readonly [_ in Unit]: string } = { ratio: "x", ns: " ns", bytes: " B", count: "" }

const range = ({ lower, upper }: Spread, unit: Unit): string =>
  lower === upper ? "" : `[${digits(lower, unit)}-${digits(upper, unit)}]`

// Of a ratio as many digits as the noise leaves.
const digits = (value: number, unit: Unit): string =>
  unit !== "ratio" || value >= 100 ? count(value) : value.toFixed(value < 10 ? 2 : 1)

const count = (value: number): string => Math.round(value).toLocaleString("en-US")

/** The same for a page, between its marks. */
export const asMarkdown = (report: Report): string => {
  const { machine, rows, verdicts } = report
  return [
    `${machine.cores} cores (${machine.cpu}), Node ${machine.node}, Effect ${machine.effect}; ${summary(verdicts)}.`,
    markdownTable(
      ["", "ratio", "target", "middle half", "work / rival"],
      verdicts.map((verdict) => [
        verdict.isReached ? "reached" : "**missed**",
        amount(verdict.value.median, verdict.unit),
        limitOf(verdict),
        range(verdict.value, verdict.unit).slice(1, -1),
        whatIsJudged(verdict)
      ])
    ),
    markdownTable(
      ["work", "contender", "over ours", "CPU ns, or bytes", "middle half"],
      rows.flatMap((row) =>
        costsOf(row).map(({ contender, cost, ratio }, index) => [
          index === 0 ? nameOf(row) : "",
          contender,
          amount(ratio, "ratio"),
          amount(cost.median, row.unit === "bytes" ? "bytes" : "count"),
          range(cost, "count").slice(1, -1)
        ])
      )
    )
  ].join("\n\n")
}

/** Padded as the formatter pads, so that a page that was just written is a page that is formatted. */
const markdownTable = (head: ReadonlyArray<string>, body: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = head.map((cell, column) => Math.max(3, cell.length, ...body.map((row) => row[column]?.length ?? 0)))
  const line = (cells: ReadonlyArray<string>) =>
    `| ${widths.map((width, column) => (cells[column] ?? "").padEnd(width)).join(" | ")} |`
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)].join("\n")
}
