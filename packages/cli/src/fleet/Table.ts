/** Rows of a name and a sentence. */
import * as Terminal from "../Terminal.ts"
import * as Text from "../Text.ts"

const longestName = 30

/** At the width of a terminal sentences are wrapped. In a file or a pipe, a row is one line, and no name is cut. */
export const render = (
  rows: ReadonlyArray<readonly [name: string, sentence: string]>,
  columns: number | undefined
): string => {
  const names = rows.map(([name]) => {
    const safe = Terminal.escape(name)
    return columns === undefined ? safe : Terminal.clip(safe, longestName)
  })
  const widest = Math.max(0, ...names.map(Terminal.width))
  const left = columns === undefined ? Number.POSITIVE_INFINITY : Math.max(20, columns - widest - 2)
  return rows.map(([, sentence], index) => {
    const name = names[index] ?? ""
    const [first = "", ...others] = Text.wrapWhole(sentence, left)
    const indent = " ".repeat(widest + 2)
    return `${name}${" ".repeat(widest - Terminal.width(name))}  ${first}\n${
      others.map((line) => `${indent}${line}\n`).join("")
    }`
  }).join("")
}

/** The width of standard output. `undefined` if it is no terminal. */
export const columns = (): number | undefined => process.stdout.isTTY ? process.stdout.columns || 80 : undefined
