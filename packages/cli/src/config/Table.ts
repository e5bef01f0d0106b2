/** Renders settings as a table of 80 columns. */
import * as Terminal from "../Terminal.ts"

export interface Row {
  readonly name: string
  /** One line each. */
  readonly values: ReadonlyArray<string>
  readonly from: string
}

const columns = 80
const gap = 2
const maxName = 28
const maxFrom = 26

/** Renders the settings, then variables that are ignored, and why. `file` is the path of the file that was read. */
export const render = (
  rows: ReadonlyArray<Row>,
  ignored: ReadonlyArray<readonly [name: string, why: string]>,
  file: string | undefined
): string => {
  const widest = (texts: ReadonlyArray<string>, most: number): number =>
    Math.min(most, Math.max(...texts.map((text) => Terminal.width(safe(text)))))
  const nameWidth = widest(rows.map(({ name }) => name), maxName)
  const fromWidth = widest(rows.map(({ from }) => from), maxFrom)
  const valueWidth = columns - nameWidth - fromWidth - 2 * gap
  const line = (name: string, value: string, from: string): string =>
    `${
      [cell(name, nameWidth), cell(value, valueWidth), Terminal.clip(from, fromWidth)].join(" ".repeat(gap)).trimEnd()
    }\n`
  return [
    file === undefined ? "no sluice.json in this directory\n\n" : `${safe(file)}\n\n`,
    line("setting", "value", "from"),
    `${"-".repeat(columns)}\n`,
    ...rows.flatMap(({ from, name, values }) =>
      values.map((value, index) => line(index === 0 ? safe(name) : "", safe(value), index === 0 ? safe(from) : ""))
    ),
    ...(ignored.length === 0 ? [] : ["\n"]),
    ...ignored.map(([name, why]) => `${Terminal.clip(`ignored: ${safe(name)} (${safe(why)})`, columns)}\n`)
  ].join("")
}

const safe = (text: string): string => Terminal.escape(text)

const cell = (text: string, width: number): string => {
  const shown = Terminal.clip(text, width)
  return shown + " ".repeat(Math.max(0, width - Terminal.width(shown)))
}
