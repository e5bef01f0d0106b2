import type { Flag, Flags } from "./Flag.ts"
import type { Command } from "./options.ts"
import * as Text from "./Text.ts"

const lineWidth = 80
const flagColumn = 26

/** The help of the program: its commands. */
export const ofProgram = (commands: ReadonlyArray<Command<Flags>>): string =>
  lines(
    "sluice: makes calls to language models safe",
    "",
    "Usage",
    "  sluice COMMAND [flags]",
    "",
    "Commands",
    ...commands.map(({ name, summary }) => `  ${name.padEnd(12)}${summary}`),
    "",
    "  --help, -h  this, or the help of a command: sluice run --help",
    "  --version   the version",
    "",
    "To try it with no key: `sluice provider`; in another terminal, what it prints."
  )

/** The help of one command. */
export const ofCommand = (command: Command<Flags>): string =>
  lines(
    `Usage: sluice ${command.usage}`,
    ...command.about.flatMap((paragraph) => ["", ...Text.wrap(paragraph, lineWidth)]),
    "",
    "Flags",
    ...Object.values(command.flags).flatMap(describe),
    ...command.notes.flatMap(({ lines: note, title }) => ["", title, ...note.map((line) => `  ${line}`)])
  )

const lines = (...all: ReadonlyArray<string>): string => `${all.join("\n")}\n`

const describe = (flag: Flag<unknown>): ReadonlyArray<string> => {
  const short = flag.short === undefined ? "    " : `-${flag.short}, `
  const argument = flag.argument === undefined ? "" : ` ${flag.argument}`
  const head = `  ${short}--${flag.name}${argument}`
  const [first = "", ...rest] = Text.wrap(flag.about, lineWidth - flagColumn)
  const indented = rest.map((line) => " ".repeat(flagColumn) + line)
  return head.length < flagColumn
    ? [head.padEnd(flagColumn) + first, ...indented]
    : [head, " ".repeat(flagColumn) + first, ...indented]
}
