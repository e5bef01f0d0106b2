/** Commands for a user to copy. */
import type { Flags } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import * as Terminal from "./Terminal.ts"

/** Flags by name, with their values in order. A switch has `false` if it is off, else any other value. */
export type Given = ReadonlyMap<string, ReadonlyArray<string>>

/** Flags that also replace others, which set the same value in another way. */
const instead: { readonly [name: string]: ReadonlyArray<string> } = {
  url: ["target"],
  target: ["url"],
  model: ["target"],
  system: ["system-file"],
  "system-file": ["system"],
  "key-env": ["key-file"],
  "key-file": ["key-env"]
}

/** Whether a flag is replaced by those that are given with more weight. */
export const replaces = (given: Given, name: string): boolean =>
  given.has(name) || (instead[name] ?? []).some((other) => given.has(other))

/** Joins flags of two sources, of which the first one wins. */
export const over = (given: Given, weaker: Given): Given =>
  new Map([...[...weaker].filter(([name]) => !replaces(given, name)), ...given])

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
    ? [values[0] === "false" ? `--${name}=false` : `--${name}`]
    : values.map((value) => `--${name} ${quote(Flag.shown(flag, value))}`)
}

const plain = /^[\w@%+=:,./-]+$/

const quote = (text: string): string => {
  const safe = Terminal.escape(text)
  return plain.test(safe) ? safe : `'${safe.replaceAll("'", `'\\''`)}'`
}
