/** The file beside results, with `.run` at its end: the input and the flags of the run, for `sluice retry` and `status`. */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { readFile, stat, writeFile } from "node:fs/promises"
import { resolve as absolute } from "node:path"
import * as Flag from "../Flag.ts"
import * as Options from "../options.ts"
import type { Given } from "../Shell.ts"
import type { Settings } from "./Settings.ts"

export const RunFile = Schema.Struct({
  version: Schema.Literal(1),
  /** The input, at least one file. */
  inputs: Schema.NonEmptyArray(Schema.Struct({
    /** Absolute, or `-`. */
    path: Schema.String,
    /** The size in bytes and the time of change, in epoch milliseconds. Absent for standard input. */
    size: Schema.optionalKey(Schema.Finite),
    modified: Schema.optionalKey(Schema.Finite)
  })),
  /** The values of each flag, by its name. Files are absolute. */
  flags: Schema.Record(Schema.String, Schema.Array(Schema.String)),
  /** Flags that hold a secret and are not kept. */
  omitted: Schema.Array(Schema.String)
})

export type RunFile = typeof RunFile.Type

export const pathOf = (results: string): string => `${results}.run`

const flagsByName = new Map(Object.values(Options.run.flags).map((flag) => [flag.name, flag]))

/** Writes the file. `settings` has the model and the URL that came from the environment, which may change. */
export const write = async (
  paths: ReadonlyArray<string>,
  given: Given,
  settings: Pick<Settings, "output" | "targets">
): Promise<void> => {
  const [first = "-", ...others] = paths
  const flags: { [name: string]: ReadonlyArray<string> } = {}
  const omitted: Array<string> = []
  for (const [name, values] of new Map([...fromEnvironment(given, settings), ...given])) {
    const flag = flagsByName.get(name)
    if (flag === undefined || flag.perRun === true) continue
    if (values.some((value) => Flag.shown(flag, value) !== value)) omitted.push(name)
    else flags[name] = flag.path !== undefined ? values.map((value) => absolute(value)) : values
  }
  const content: RunFile = {
    version: 1,
    inputs: [await inputOf(first), ...await Promise.all(others.map(inputOf))],
    flags,
    omitted
  }
  await writeFile(pathOf(settings.output), `${JSON.stringify(content)}\n`)
}

const inputOf = async (path: string): Promise<RunFile["inputs"][number]> => {
  if (path === "-") return { path }
  const found = await stat(path)
  return {
    path: absolute(path),
    ...(found.isFile() ? { size: found.size, modified: Math.round(found.mtimeMs) } : {})
  }
}

/** Flags that shape the requests of a run. */
const ofRequests = [
  "target",
  "model",
  "system",
  "system-file",
  "input-format",
  "prompt-template",
  "omit",
  "temperature",
  "max-tokens"
]

/** The flags of requests that differ from those of the run before. */
export const differing = (
  { flags }: RunFile,
  given: Given,
  settings: Pick<Settings, "targets">
): ReadonlyArray<string> => {
  const now = new Map([...fromEnvironment(given, settings), ...given])
  return ofRequests.filter((name) => {
    const values = (now.get(name) ?? []).map((value) =>
      flagsByName.get(name)?.path === undefined ? value : absolute(value)
    )
    return JSON.stringify(values) !== JSON.stringify(flags[name] ?? [])
  })
}

const fromEnvironment = (given: Given, { targets: [{ model, url }] }: Pick<Settings, "targets">): Given =>
  given.has("target")
    ? new Map()
    : new Map([["url", [url]], ...(model === undefined ? [] : [["model", [model]] as const])])

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(RunFile))

/** Reads the file. `undefined` if it is missing or of another version. */
export const read = async (results: string): Promise<RunFile | undefined> => {
  const text = await readFile(pathOf(results), "utf8").catch(() => undefined)
  return text === undefined ? undefined : Option.getOrUndefined(decode(text))
}
