/** Messages on standard error. */
import * as Terminal from "./Terminal.ts"
import * as Text from "./Text.ts"
import * as UrlSecrets from "./UrlSecrets.ts"

/** Prints the error of a command, such as `sluice run`. Several problems are printed together. */
export const error = (command: string, ...problems: ReadonlyArray<string>): void => {
  const { columns, isTTY } = process.stderr
  // Some terminals report no width, or 0.
  process.stderr.write(format(command, problems, isTTY ? columns || 80 : undefined))
}

/** Prints a line that is no error. */
export const note = (text: string): void => void process.stderr.write(`${Terminal.escape(text)}\n`)

/**
 * Formats an error: wrapped at the width of a terminal, or in one line for a file or a program. Escapes it, since it can contain
 * text of a provider, and hides the secrets of URLs.
 */
export const format = (command: string, problems: ReadonlyArray<string>, columns: number | undefined): string => {
  const safe = problems.map((problem) => Terminal.escape(UrlSecrets.hide(problem)))
  const [only = "", ...others] = safe
  if (columns === undefined) return `${command}: ${safe.join("; ")}\n`
  if (others.length === 0) return wrapped(`${command}: ${only}`, columns, "", "  ")
  return `${command}:\n${safe.map((problem) => wrapped(problem, columns, "  - ", "    ")).join("")}`
}

const minColumns = 20

const wrapped = (text: string, columns: number, first: string, next: string): string =>
  Text.wrapWhole(text, Math.max(minColumns, columns) - next.length)
    .map((line, index) => `${index === 0 ? first : next}${line}\n`)
    .join("")
