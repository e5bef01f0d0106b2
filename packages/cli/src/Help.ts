import type { Flag, Flags } from "./Flag.ts"
import type { Command } from "./Command.ts"
import * as Text from "./Text.ts"

const lineWidth = 72
const flagColumn = 26

export const ofProgram = (commands: ReadonlyArray<Command<Flags>>): string =>
  lines(
    "sluice: send prompts to language models, with retries and fallback",
    "",
    "Usage",
    "  sluice COMMAND [flags]",
    "",
    "Commands",
    ...commands.map(({ name, summary }) => `  ${name.padEnd(13)}${summary}`),
    "",
    "  -h, --help   Print this help. `sluice run --help`: that of `run`.",
    "  --version    Print the version.",
    "",
    "To try it without a key, start `sluice provider` and run in another",
    "terminal what it prints."
  )

/** With an action in the arguments, leaves out the flags of other actions. */
export const ofCommand = (command: Command<Flags>, args: ReadonlyArray<string> = []): string =>
  lines(
    `Usage: sluice ${command.usage}`,
    ...command.about.flatMap((paragraph) => ["", ...Text.wrap(paragraph, lineWidth)]),
    ...sections(command, args).flatMap(([title, flags]) => ["", title].concat(flags.flatMap(describe))),
    ...command.notes.flatMap(({ lines: note, title }) => ["", title, ...note.map((line) => `  ${line}`)])
  )

type Section = readonly [title: string, flags: ReadonlyArray<Flag<unknown>>]

/** The flags under the titles of the command. Those without a title come last. */
const sections = (command: Command<Flags>, args: ReadonlyArray<string>): ReadonlyArray<Section> => {
  const flags = ownFlags(command)
  const { groups = {} } = command
  const grouped = Object.entries(groups).map(([title, names]): Section => [
    title,
    names.flatMap((name) => flags.filter((flag) => flag.name === name))
  ])
  const others = flags.filter((flag) => !grouped.some(([, flags]) => flags.includes(flag)))
  const all: ReadonlyArray<Section> = [...grouped, [grouped.length === 0 ? "Flags" : "Other flags", others]]
  const { actions = [] } = command
  const action = args.find((arg) => actions.includes(arg))
  return action === undefined ? all : all.filter(([title]) => title === action || !actions.includes(title))
}

/** The flags that a help text describes. */
export const ownFlags = ({ borrows, flags }: Command<Flags>): ReadonlyArray<Flag<unknown>> => {
  const borrowed = Object.values(borrows?.flags ?? {})
  return Object.values(flags).filter((flag) => flag.name === "help" || !borrowed.includes(flag))
}

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
