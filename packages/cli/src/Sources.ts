/** The values of flags from all sources: the command line, then variables, then `sluice.json`. The table of flags defines them. */
import { readFileSync } from "node:fs"
import { basename, dirname, resolve } from "node:path"
import type { Fields, Flag, Flags, Read } from "./Flag.ts"
import { isDatabaseUrl, shown as shownOf } from "./Flag.ts"
import * as Nearest from "./Nearest.ts"
import type { Given } from "./Shell.ts"
import * as Shell from "./Shell.ts"
import * as SystemError from "./SystemError.ts"
import * as Terminal from "./Terminal.ts"
import * as UrlSecrets from "./UrlSecrets.ts"

export interface Surroundings {
  readonly env: { readonly [name: string]: string | undefined }
  /** The working directory. */
  readonly directory: string
}

export const here = (): Surroundings => ({ env: process.env, directory: process.cwd() })

export interface Setting {
  /** `--timeout`, `SLUICE_TIMEOUT` or `sluice.json`. */
  readonly from: string
  /** The values for a person: without secrets. */
  readonly shown: ReadonlyArray<string>
}

export interface Sources {
  readonly _tag: "Read"
  readonly given: Given
  /** By the name of the flag. A flag with its default is missing. */
  readonly settings: ReadonlyMap<string, Setting>
  /** The file that was read, and how many settings come from it. */
  readonly file: { readonly path: string; readonly used: number } | undefined
}

type Wrong = { readonly _tag: "Wrong"; readonly message: string }

/** The flags that a file can set, by their keys, such as `maxTokens`. */
export const keysOf = (flags: Flags): ReadonlyMap<string, Flag<unknown>> =>
  new Map(configurable(flags).map((flag) => [keyOf(flag), flag]))

/** The variable that sets a flag. `undefined` if it could be the key of a target, which is in `SLUICE_KEY_` plus its name. */
export const variableOf = ({ name }: Flag<unknown>): string | undefined => {
  const variable = `SLUICE_${name.toUpperCase().replaceAll("-", "_")}`
  return variable.startsWith("SLUICE_KEY_") ? undefined : variable
}

export const configurable = (flags: Flags): ReadonlyArray<Flag<unknown>> =>
  Object.values(flags).filter(({ perRun }) => perRun !== true)

export const keyOf = ({ name }: Flag<unknown>): string =>
  name.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase())

/**
 * Completes the flags of a command line. Messages hold no value, since it may be a secret in the wrong place. With a section, the
 * settings of the file are in its key of that name.
 */
export const read = (
  flags: Flags,
  given: Given,
  surroundings: Surroundings,
  section?: string
): Sources | Wrong => {
  const file = fromFile(flags, given.get("config")?.[0], surroundings, section)
  if (file?._tag === "Wrong") return file
  const environment = fromEnvironment(flags, surroundings)
  if (environment._tag === "Wrong") return environment
  const others = file === undefined ? environment.given : Shell.over(environment.given, file.given)
  const written = fromCommandLine(flags, given, surroundings)
  if (written._tag === "Wrong") return written
  const all = Shell.over(written.given, others)
  const settings = new Map<string, Setting>()
  for (const [name, values] of all) {
    const flag = Object.values(flags).find((flag) => flag.name === name)
    if (flag === undefined) continue
    const isOfFile = !given.has(name) && !environment.given.has(name)
    settings.set(name, {
      from: given.has(name) ? `--${name}` : isOfFile ? file?.name ?? "" : variableOf(flag) ?? "",
      shown: isOfFile ? file?.shown.get(name) ?? [] : values.map((value) => shownOf(flag, value))
    })
  }
  const model = settings.get("model")
  const target = settings.get("target")
  // Without this refusal, the model of one source would be sent to the default URL instead of the targets of another.
  if (model !== undefined && target !== undefined && !(given.has("model") && given.has("target"))) {
    return wrong(
      `${model.from} sets a model, and ${target.from} sets targets with their own; remove one, or set the URL for the model too`
    )
  }
  const used = [...settings.values()].filter(({ from }) => from === file?.name).length
  return { _tag: "Read", given: all, settings, file: file === undefined ? undefined : { path: file.path, used } }
}

/** Tells that a file set something, since it may be in a folder that someone else wrote. */
export const noteOf = ({ path, used }: NonNullable<Sources["file"]>): string =>
  `${Terminal.escape(path)} has ${used === 1 ? "one setting" : `${used} settings`} of this run; see sluice config`

const wrong = (message: string): Wrong => ({ _tag: "Wrong", message })

// ---------- the command line

/** Reads the URL of a database on a command line. Other users can read command lines, so a password there is refused. */
export const databaseOf = (text: string, env: Surroundings["env"]): Read<string> =>
  isWrittenOut(text)
    ? { ok: false, requirement: "has a password, which other users can see; write ${NAME} of a variable in its place" }
    : expandDatabase(text, env)

const fromCommandLine = (flags: Flags, given: Given, { env }: Surroundings): Environment | Wrong => {
  const expanded = new Map(given)
  for (const flag of Object.values(flags)) {
    const [text] = given.get(flag.name) ?? []
    if (flag.holdsSecret !== "database" || text === undefined) continue
    const whole = databaseOf(text, env)
    if (!whole.ok) return wrong(`--${flag.name} ${whole.requirement}`)
    expanded.set(flag.name, [whole.value])
  }
  return { _tag: "Read", given: expanded }
}

// ---------- variables

type Environment = { readonly _tag: "Read"; readonly given: Given }

const fromEnvironment = (flags: Flags, { env }: Surroundings): Environment | Wrong => {
  const given = new Map<string, ReadonlyArray<string>>()
  for (const flag of configurable(flags)) {
    const variable = variableOf(flag)
    const text = variable === undefined ? undefined : env[variable]
    if (variable === undefined || text === undefined || text === "") continue
    const values = textsOfVariable(flag, text)
    const read = values.ok ? flag.read(values.value) : values
    if (!values.ok || !read.ok) return wrong(`${variable} must be ${read.ok ? "" : read.requirement}`)
    given.set(flag.name, values.value)
  }
  return { _tag: "Read", given }
}

const switches = new Map([["1", "true"], ["true", "true"], ["0", "false"], ["false", "false"]])

const textsOfVariable = (flag: Flag<unknown>, text: string): Read<ReadonlyArray<string>> => {
  if (flag.argument === undefined) {
    const value = switches.get(text.toLowerCase())
    return value === undefined ? { ok: false, requirement: "true or false" } : { ok: true, value: [value] }
  }
  const lines = flag.repeats === true
    ? text.split("\n").map((line) => line.trim()).filter((line) => line !== "")
    : [text]
  return { ok: true, value: lines }
}

/** Variables that are no setting and may be meant as one. */
export const strayVariables = (flags: Flags, { env }: Surroundings): ReadonlyArray<readonly [string, string]> => {
  const known = configurable(flags).flatMap((flag) => variableOf(flag) ?? [])
  return Object.keys(env).flatMap((name) => {
    if (!name.startsWith("SLUICE_") || name.startsWith("SLUICE_KEY_") || known.includes(name)) return []
    const nearest = Nearest.find(name, known)
    return [[name, nearest === undefined ? "not a setting" : `not a setting; did you mean ${nearest}?`] as const]
  })
}

// ---------- the file

interface File {
  readonly _tag: "Read"
  readonly path: string
  /** Its name in messages. */
  readonly name: string
  readonly given: Given
  readonly shown: ReadonlyMap<string, ReadonlyArray<string>>
}

const defaultName = "sluice.json"

const fromFile = (
  flags: Flags,
  named: string | undefined,
  { directory, env }: Surroundings,
  section: string | undefined
): File | Wrong | undefined => {
  const path = resolve(directory, named ?? defaultName)
  const fileName = named === undefined ? defaultName : Terminal.clip(Terminal.escape(basename(named)), 40)
  const name = section === undefined ? fileName : `${section} of ${fileName}`
  let text: string
  try {
    text = readFileSync(path, "utf8")
  } catch (error) {
    if (named === undefined && SystemError.codeOf(error) === "ENOENT") return undefined
    return wrong(`cannot read ${Terminal.escape(named ?? defaultName)}: ${SystemError.describe(error)}`)
  }
  const parsed = parse(text)
  if (!parsed.ok) return wrong(`${fileName} must be ${parsed.requirement}`)
  const settings = section === undefined ? parsed.value : sectionOf(parsed.value, section)
  if (settings === undefined) return wrong(`${section} in ${fileName} must be an object`)
  const known = keysOf(flags)
  const given = new Map<string, ReadonlyArray<string>>()
  const shown = new Map<string, ReadonlyArray<string>>()
  for (const [key, value] of Object.entries(settings)) {
    if (section === undefined && otherKeys.has(key)) continue
    const flag = known.get(key)
    if (flag === undefined) return wrong(strayKey(key, name, flags))
    const values = textsOf(flag, value)
    if (!values.ok) return wrong(`${key} in ${name} must be ${values.requirement}`)
    const expanded: Array<string> = []
    for (const text of values.value) {
      if (hasSecret(flag, text)) return wrong(`${key} in ${name} has a secret; ${insteadOfSecret}`)
      const whole = expansions[flag.holdsSecret ?? "none"](text, env)
      if (!whole.ok) return wrong(`${key} in ${name} ${whole.requirement}`)
      expanded.push(isPath(flag, whole.value) ? resolve(dirname(path), whole.value) : whole.value)
    }
    const read = flag.read(expanded)
    if (!read.ok) return wrong(`${key} in ${name} must be ${read.requirement}`)
    given.set(flag.name, expanded)
    shown.set(flag.name, expanded.some((text) => isPath(flag, text)) ? expanded : values.value)
  }
  return { _tag: "Read", path, name, given, shown }
}

const isPath = ({ path }: Flag<unknown>, text: string): boolean => path !== undefined && !isDatabaseUrl(text)

/** Keys of the file that are no settings of a run. */
const otherKeys = new Set(["$schema", "serve", "batch"])

const sectionOf = (file: Fields, section: string): Fields | undefined => {
  const settings = file[section] ?? {}
  return typeof settings === "object" && !Array.isArray(settings) ? { ...settings } : undefined
}

/** Parses the file. The message of `JSON.parse` is left out, since it quotes the text. */
const parse = (text: string): Read<Fields> => {
  const requirement = `one JSON object, such as {"model": "gpt-5-mini", "concurrency": 32}`
  try {
    const json: unknown = JSON.parse(text.replace(/^\uFEFF/, ""))
    return typeof json === "object" && json !== null && !Array.isArray(json)
      ? { ok: true, value: { ...json } }
      : { ok: false, requirement }
  } catch (error) {
    const [, position] = /position (\d+)/.exec(String(error)) ?? []
    const line = position === undefined ? undefined : text.slice(0, Number(position)).split("\n").length
    return { ok: false, requirement: line === undefined ? requirement : `${requirement}; line ${line} is no JSON` }
  }
}

const secretKey = /(?:key|token|secret|password|credentials?|authorization)s?$/i

const whereKeysGo =
  "set OPENAI_API_KEY or SLUICE_KEY_ plus the target's name, or write the key into a file of its own " +
  "and set keyFile"

const strayKey = (key: string, name: string, flags: Flags): string => {
  const shown = Terminal.clip(Terminal.escape(key), 40)
  const other = Object.values(flags).find((flag) => keyOf(flag) === key || flag.name === key)
  if (other?.perRun === true) return `${shown} in ${name} is about one run; use --${other.name}`
  if (other === undefined && secretKey.test(key)) {
    return `${shown} in ${name}: a key does not belong in this file; ${whereKeysGo}`
  }
  const nearest = other === undefined ? Nearest.find(key, [...keysOf(flags).keys()]) : keyOf(other)
  return `unknown key ${shown} in ${name}${nearest === undefined ? "" : `; did you mean ${nearest}?`}`
}

/** The texts that a flag gets from a value of the file. */
const textsOf = (flag: Flag<unknown>, value: unknown): Read<ReadonlyArray<string>> => {
  if (flag.argument === undefined) {
    return typeof value === "boolean"
      ? { ok: true, value: [String(value)] }
      : { ok: false, requirement: "true or false" }
  }
  const values: ReadonlyArray<unknown> = Array.isArray(value) && flag.repeats === true ? value : [value]
  const texts: Array<string> = []
  for (const each of values) {
    const read = textOf(flag, each)
    if (!read.ok) return read
    texts.push(read.value)
  }
  return { ok: true, value: texts }
}

const textOf = ({ fromObject, repeats }: Flag<unknown>, value: unknown): Read<string> => {
  if (typeof value === "string") return { ok: true, value }
  if (typeof value === "number") return { ok: true, value: String(value) }
  if (fromObject !== undefined && typeof value === "object" && value !== null && !Array.isArray(value)) {
    return fromObject({ ...value })
  }
  return { ok: false, requirement: repeats === true ? "a text, or a list of texts" : "a text or a number" }
}

const reference = /\$\{(\w+)\}/g

const insteadOfSecret = "keep it in a variable and write ${NAME} in its place"

const secretHeader = /auth|cookie|key|token|secret|password|credential/i

/** Whether a value has a secret that is written out. */
const hasSecret = ({ holdsSecret }: Flag<unknown>, text: string): boolean => {
  // The text of an object, whose parts were checked one by one.
  if (text.startsWith("{")) return false
  const bare = text.replaceAll(reference, "")
  switch (holdsSecret) {
    case "url":
      return UrlSecrets.hideInArgument(bare) !== bare
    case "database":
      return isWrittenOut(text)
    case "header":
      return bare === text && secretHeader.test(text.split("=")[0] ?? "")
    case undefined:
      return false
  }
}

/** Whether the URL of a database has a password that is no variable. */
const isWrittenOut = (text: string): boolean => {
  const bare = text.replaceAll(reference, "")
  const url = URL.parse(bare)
  if (!isDatabaseUrl(bare)) return false
  if (url === null) return UrlSecrets.hideInArgument(bare) !== bare
  return url.password !== "" || UrlSecrets.of(bare).some((value) => value !== "")
}

/** Replaces `${NAME}` by variables. */
const expand = (
  text: string,
  env: Surroundings["env"],
  encode: (value: string, offset: number) => string = (value) => value
): Read<string> => {
  const unset = [...text.matchAll(reference)].map(([, name = ""]) => name).find((name) => (env[name] ?? "") === "")
  return unset === undefined
    ? {
      ok: true,
      value: text.replaceAll(reference, (_, name: string, offset: number) => encode(env[name] ?? "", offset))
    }
    : { ok: false, requirement: `needs ${unset}, which is not set` }
}

/** The variable at the start has a whole URL. Others have parts, such as a password with any signs. */
const expandDatabase = (text: string, env: Surroundings["env"]): Read<string> =>
  expand(text, env, (value, offset) => offset === 0 ? value : encodeURIComponent(value))

const unchanged = (text: string): Read<string> => ({ ok: true, value: text })

const expansions = { url: expand, database: expandDatabase, header: unchanged, none: unchanged }
