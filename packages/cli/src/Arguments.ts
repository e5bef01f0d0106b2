import { parseArgs } from "node:util"
import type { Flags, Values } from "./Flag.ts"
import * as Flag from "./Flag.ts"
import * as Nearest from "./Nearest.ts"
import type { Command } from "./Command.ts"
import type { Given } from "./Shell.ts"
import * as Terminal from "./Terminal.ts"
import * as UrlSecrets from "./UrlSecrets.ts"

/** The parsed arguments of a command, a request for help, or a usage error in one line. */
export type Parsed<F extends Flags> =
  | {
    readonly _tag: "Parsed"
    readonly values: Values<F>
    readonly inputs: ReadonlyArray<string>
    /** The flags as the user wrote them. */
    readonly given: Given
  }
  | { readonly _tag: "Help" }
  | { readonly _tag: "Wrong"; readonly message: string }

export const parse = <F extends Flags>(command: Command<F>, args: ReadonlyArray<string>): Parsed<F> => {
  const flags = Object.values(command.flags)
  const { tokens } = parseArgs({
    args: [...args],
    options: Object.fromEntries(flags.map(toNode)),
    strict: false,
    allowPositionals: true,
    tokens: true
  })
  const given = new Map<string, ReadonlyArray<string>>()
  const inputs: Array<string> = []
  for (const token of tokens) {
    if (token.kind === "positional") inputs.push(token.value)
    if (token.kind !== "option") continue
    const flag = flags.find(({ name }) => name === token.name)
    if (flag === undefined) return wrong(unknown(token.rawName, flags))
    if (flag.name === "help") return { _tag: "Help" }
    const problem = problemOf(flag, token.value, given)
    if (problem !== undefined) return wrong(problem)
    given.set(flag.name, [...given.get(flag.name) ?? [], token.value ?? ""])
  }
  return countProblem(command.inputs, inputs) ?? readAll(command.flags, given, inputs)
}

const wrong = (message: string): { readonly _tag: "Wrong"; readonly message: string } => ({ _tag: "Wrong", message })

/** An argument for a message. Secrets are hidden before it is clipped, so that no part of a secret remains. */
const shown = (text: string): string => Terminal.clip(Terminal.escape(UrlSecrets.hideInArgument(text)), 40)

const toNode = (flag: Flag.Flag<unknown>) =>
  [flag.name, {
    type: flag.argument === undefined ? "boolean" as const : "string" as const,
    multiple: flag.repeats ?? false,
    ...(flag.short === undefined ? {} : { short: flag.short })
  }] as const

const unknown = (rawName: string, flags: ReadonlyArray<Flag.Flag<unknown>>): string => {
  const nearest = Nearest.find(rawName.replace(/^-+/, ""), flags.map(({ name }) => name))
  const suggestion = nearest === undefined ? "" : `; did you mean --${nearest}?`
  return `unknown flag ${shown(rawName)}${suggestion}`
}

const problemOf = (
  flag: Flag.Flag<unknown>,
  value: string | undefined,
  given: Given
): string | undefined => {
  if (flag.argument === undefined) {
    return value === undefined || value === "true" || value === "false"
      ? undefined
      : `--${flag.name} takes no value, or =false`
  }
  // A flag in the place of a value means that the value was forgotten.
  if (value === undefined || /^--[a-z]/.test(value)) {
    return `--${flag.name} needs a value: --${flag.name} ${flag.argument}`
  }
  return given.has(flag.name) && flag.repeats !== true ? `--${flag.name} is given twice` : undefined
}

/** Whether an argument of this name can be given several times. */
export const isRepeated = (name: string): boolean => /\.\.\.\]?$/.test(name)

const countProblem = (names: ReadonlyArray<string>, inputs: ReadonlyArray<string>) => {
  const missing = names[inputs.length]
  if (missing !== undefined && !missing.startsWith("[")) return wrong(`${missing.replace("...", "")} is missing`)
  if (isRepeated(names.at(-1) ?? "")) return undefined
  const surplus = inputs[names.length]
  return surplus === undefined
    ? undefined
    : wrong(`unexpected argument "${shown(surplus)}"`)
}

/** Reads the values of given flags. */
export const readAll = <F extends Flags>(
  flags: F,
  given: Given,
  inputs: ReadonlyArray<string>
): Parsed<F> => {
  const values: { [key: string]: unknown } = {}
  for (const [key, flag] of Object.entries(flags)) {
    const texts = given.get(flag.name) ?? []
    const read = flag.read(texts)
    if (!read.ok) {
      const given = texts.map((text) => Flag.shown(flag, text)).join(" ")
      return wrong(`--${flag.name} is "${shown(given)}"; it must be ${read.requirement}`)
    }
    values[key] = read.value
  }
  // The loop has set every key to a value of its flag's type, which TypeScript cannot follow.
  return { _tag: "Parsed", values: values as Values<F>, inputs, given }
}
