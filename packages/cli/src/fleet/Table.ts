/** Rows of names and a sentence. */
import * as Terminal from "../Terminal.ts"
import * as Text from "../Text.ts"

/**
 * Each row has the same number of cells, of which the last is a sentence. At the width of a terminal, sentences are wrapped, and the
 * sentence of a row with a long name is below it. In a file or a pipe, a row is one line. No name is cut, since a change needs it.
 */
export const render = (rows: ReadonlyArray<ReadonlyArray<string>>, columns: number | undefined): string => {
  const longestName = columns === undefined ? Number.POSITIVE_INFINITY : Math.max(20, Math.floor(columns / 2))
  const shown = rows.map((row) => {
    const names = row.slice(0, -1).map(Terminal.escape)
    return { names, isLong: names.some((name) => Terminal.width(name) > longestName), sentence: row.at(-1) ?? "" }
  })
  const widths = (shown[0]?.names ?? []).map((_, index) =>
    Math.max(0, ...shown.map(({ isLong, names }) => isLong ? 0 : Terminal.width(names[index] ?? "")))
  )
  // Below a long name, for a table that has only such names.
  const indent = " ".repeat(Math.max(4, widths.reduce((sum, width) => sum + width + 2, 0)))
  const left = columns === undefined ? Number.POSITIVE_INFINITY : Math.max(20, columns - indent.length)
  return shown.map(({ isLong, names, sentence }) => {
    const lines = Text.wrapWhole(sentence, left)
    if (isLong) return `${names.join("  ")}\n${lines.map((line) => `${indent}${line}\n`).join("")}`
    const start = names.map((name, index) => name + " ".repeat((widths[index] ?? 0) - Terminal.width(name) + 2)).join(
      ""
    )
    const [first = "", ...others] = lines
    return `${start}${first}\n${others.map((line) => `${indent}${line}\n`).join("")}`
  }).join("")
}

/** The width of standard output, without its last column. `undefined` if it is no terminal. */
export const columns = (): number | undefined => process.stdout.isTTY ? (process.stdout.columns || 80) - 1 : undefined
