/** Prints a report: as text of 80 columns for a terminal, and as Markdown tables for a page. */
import { spread } from "./judge.ts"
import type { MeasuredRow, Report, Spread, Verdict } from "./report.ts"
import { ours, rowOf } from "./rows.ts"

/** Colours a text by whether its target is reached. */
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
  `Sluice compared with other libraries${isQuick ? " (quick run, rough ratios)" : ""}`,
  `${machine.cores} cores (${machine.cpu}), Node ${machine.node}, Effect ${machine.effect}`,
  `CPU time per operation: median of ${roundsIn(rows)} rounds [their middle half]`,
  "Times depend on the machine. Targets are ratios:",
  "  >= 15x: the rival costs at least 15 times as much as Sluice",
  "  <= 2x: Sluice costs at most twice as much as the rival"
]

const roundsIn = (rows: ReadonlyArray<MeasuredRow>): string => {
  const counts = new Set(rows.flatMap(({ measurements }) => measurements.map(({ rounds }) => rounds.length)))
  return new Intl.ListFormat("en-GB", { type: "disjunction" }).format([...counts].toSorted((a, b) => b - a).map(String))
}

const verdictLine = (verdict: Verdict, paint: Paint): string =>
  [
    verdict.isReached === undefined ? "" : paint(word(verdict).padEnd(7), verdict.isReached),
    amount(verdict.value.median, verdict.unit).padStart(7),
    `(${limitOf(verdict)})`.padEnd(12),
    range(verdict.value, verdict.unit).padEnd(13),
    subjectOf(verdict)
  ].join(" ")

const word = ({ isReached }: Verdict): string => isReached ? "reached" : "missed"

const limitOf = ({ at, limit, unit }: Verdict): string =>
  `${at === "least" ? ">=" : "<="} ${unit === "ratio" ? `${limit}x` : amount(limit, unit)}`

const subjectOf = ({ rival, title, unit }: Verdict): string =>
  rival === undefined ? title : `${title} ${unit === "ns" ? "-" : "/"} ${rival}`

const summary = (verdicts: ReadonlyArray<Verdict>): string => {
  if (verdicts.some(({ isReached }) => isReached === undefined)) {
    return "No verdicts: a quick run ends before V8 has compiled everything"
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
      amount(cost.median, row.unit).padStart(11),
      ` ${range(cost, row.unit).padEnd(19)}`,
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
  /** Divided by the cost of Sluice. */
  readonly ratio: number
}

const costsOf = ({ measurements }: MeasuredRow): ReadonlyArray<Cost> => {
  const own = measurements.find(({ contender }) => contender === ours)
  const base = own === undefined ? Number.NaN : spread(own.rounds).median
  return measurements.map(({ contender, rounds }) => {
    const cost = spread(rounds)
    return { contender, cost, ratio: cost.median / base }
  })
}

type Unit = "ratio" | "ns" | "bytes" | "count"

const amount = (value: number, unit: Unit): string => `${digits(value, unit)}${suffixOf(value, unit)}`

const suffixOf = (value: number, unit: Unit): string =>
  ({ ratio: "x", ns: isLong(value) ? " s" : " ns", bytes: isMega(value) ? " MB" : " B", count: "" })[unit]

const isMega = (bytes: number): boolean => bytes >= 1e6

const isLong = (nanos: number): boolean => nanos >= 1e8

const range = ({ lower, upper }: Spread, unit: Unit): string =>
  lower === upper ? "" : `[${digits(lower, unit)}-${digits(upper, unit)}]`

// A ratio has no more digits than its noise allows.
const digits = (value: number, unit: Unit): string =>
  unit === "bytes" && isMega(value)
    ? count(value / 1e6)
    : unit === "ns" && isLong(value)
    ? (value / 1e9).toFixed(2)
    : unit !== "ratio" || value >= 100
    ? count(value)
    : value.toFixed(value < 10 ? 2 : 1)

const count = (value: number): string => Math.round(value).toLocaleString("en-US")

/** The verdicts and costs as tables for a page. */
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
        subjectOf(verdict)
      ])
    ),
    markdownTable(
      ["work", "contender", "over ours", "CPU ns, or bytes", "middle half"],
      rows.flatMap((row) =>
        costsOf(row).map(({ contender, cost, ratio }, index) => [
          index === 0 ? nameOf(row) : "",
          contender,
          amount(ratio, "ratio"),
          amount(cost.median, row.unit === "ns" && !isLong(cost.median) ? "count" : row.unit),
          range(cost, row.unit).slice(1, -1)
        ])
      )
    )
  ].join("\n\n")
}

/** Pads like the formatter, so that a written page passes the format check. */
const markdownTable = (head: ReadonlyArray<string>, body: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = head.map((cell, column) => Math.max(3, cell.length, ...body.map((row) => row[column]?.length ?? 0)))
  const line = (cells: ReadonlyArray<string>) =>
    `| ${widths.map((width, column) => (cells[column] ?? "").padEnd(width)).join(" | ")} |`
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)].join("\n")
}
