import * as Flag from "./Flag.ts"

/** A command of the program: what its parser and its help text need. */
export interface Command<F extends Flag.Flags> {
  readonly name: string
  /** One line for the list of commands. */
  readonly summary: string
  /** The usage line, after the program's name. */
  readonly usage: string
  /** Paragraphs below the usage line. */
  readonly about: ReadonlyArray<string>
  /** Names of the positional arguments. One in brackets can be left out. The last one can be repeated if its name ends in `...`. */
  readonly inputs: ReadonlyArray<string>
  readonly flags: F
  /** Titles of the help text, with the names of the flags below them. Default: one title for all. */
  readonly groups?: { readonly [title: string]: ReadonlyArray<string> } | undefined
  /** Values of ACTION, the first input. A title of `groups` that is one of them holds the flags of that action. */
  readonly actions?: ReadonlyArray<string> | undefined
  /** A command whose flags this one takes too. The help text names it instead of them. */
  readonly borrows?: Command<Flag.Flags> | undefined
  /** Titled blocks below the flags. Their lines are printed unwrapped. */
  readonly notes: ReadonlyArray<{ readonly title: string; readonly lines: ReadonlyArray<string> }>
}

const help = Flag.toggle("help", { short: "h", perRun: true, about: "Print this help." })

export const defineCommand = <F extends Flag.Flags>(
  command: Command<F>
): Command<F & { readonly help: Flag.Flag<boolean> }> => ({
  ...command,
  flags: { ...command.flags, help }
})
