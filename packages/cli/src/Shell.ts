/** Commands for a user to copy. */
import type { Flags } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import * as Terminal from "./Terminal.ts"

/** The flags of a command line, by name, with their values in order. A switch has an empty value. */
export type Given = ReadonlyMap<string, ReadonlyArray<string>>

/** Writes a command for a shell, with its arguments quoted, and secrets hidden. */
export const command = (
  words: ReadonlyArray<string>,
  flags: Flags,
  given: Given,
  omit: ReadonlySet<string> = new Set()
): string =>
  [...words.map(quote), ...[...given].flatMap(([name, values]) => omit.has(name) ? [] : shown(flags, name, values))]
    .join(" ")

const shown = (flags: Flags, name: string, values: ReadonlyArray<string>): ReadonlyArray<string> => {
  const flag = Object.values(flags).find((flag) => flag.name === name)
  return flag?.argument === undefined
    ? [`--${name}`]
    : values.map((value) => `--${name} ${quote(Flag.shown(flag, value))}`)
}

const plain = /^[\w@%+=:,./-]+$/

const quote = (text: string): string => {
  const safe = Terminal.escape(text)
  return plain.test(safe) ? safe : `'${safe.replaceAll("'", `'\\''`)}'`
}
